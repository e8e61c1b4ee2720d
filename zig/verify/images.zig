//! Images of the tiny model, small ones in few steps: the jobs, and comparisons of their latents.

const std = @import("std");
const Allocator = std.mem.Allocator;
const networks = @import("networks.zig");
const pipeline = @import("../pipeline.zig");
const StepCoefficients = @import("../backend.zig").StepCoefficients;
const SyncMode = @import("../patch/sync_mode.zig").SyncMode;
const Job = pipeline.Job;

/// Images of 12 steps in f16 against f32, each step with a hundred roundings and the error of the
/// last one.
pub const allowed_f16 = 1e-2;
/// bf16 has three bits fewer.
pub const allowed_bf16 = 8e-2;

pub const Size = struct {
    rows: u32,
    width: u32,

    pub fn turned(size: Size) Size {
        return .{ .rows = size.width, .width = size.rows };
    }
};

/// The smallest that two ranks can be dealt: 32 x 64 pixels.
pub const smallest: Size = .{ .rows = 8, .width = 4 };

pub const Work = struct {
    size: Size = smallest,
    step_count: u32,
    sync_mode: SyncMode = .full_sync,
    warmup_steps: u32 = 0,
};

/// Euler's steps of a guided image.
pub fn jobOf(gpa: Allocator, work: Work) !Job {
    var job: Job = .{
        .arena = .init(gpa),
        .kind = .image,
        .latent_rows = work.size.rows,
        .latent_width = work.size.width,
        .branch_count = 2,
        .split_batch = false,
        .sync_mode = work.sync_mode,
        .warmup_steps = work.warmup_steps,
        .wants_latents = true,
        .seeds = &.{11},
        .guidance_scales = &.{5},
    };
    errdefer job.deinit();
    const a = job.arena.allocator();
    const height: f32 = @floatFromInt(8 * work.size.rows);
    const width: f32 = @floatFromInt(8 * work.size.width);
    job.time_ids = .{ height, width, 0, 0, height, width };
    job.negative_time_ids = job.time_ids;
    job.prompts = try a.dupe(pipeline.Tokens, &.{networks.prompt});
    const negatives = try a.alloc(?pipeline.Tokens, 1);
    negatives[0] = null;
    job.negatives = negatives;
    const steps = try a.alloc(StepCoefficients, work.step_count);
    const start = training_steps - training_steps / steps.len;
    job.init_noise_sigma = @floatCast(@sqrt(sigmaAt(start) * sigmaAt(start) + 1));
    for (steps, 0..) |*step, i| step.* = eulerStep(i, steps.len);
    job.steps = steps;
    return job;
}

// --- internal ---

const training_steps = 1000;

fn eulerStep(i: usize, count: usize) StepCoefficients {
    const stride = training_steps / count;
    const timestep = (count - 1 - i) * stride + 1;
    const sigma = sigmaAt(timestep);
    const next = if (i + 1 == count) 0 else sigmaAt(timestep - stride);
    var step = std.mem.zeroes(StepCoefficients);
    step.timestep = @floatFromInt(timestep);
    step.input_scale = @floatCast(1 / @sqrt(sigma * sigma + 1));
    step.output_from_model = 1;
    step.latent.sample = 1;
    step.latent.model_outputs[0] = @floatCast(next - sigma);
    step.guidance_factor = 1;
    return step;
}

/// SDXL's noise level at a step of its training.
fn sigmaAt(timestep: usize) f64 {
    var kept: f64 = 1;
    for (0..timestep + 1) |i| {
        const part = @as(f64, @floatFromInt(i)) / (training_steps - 1);
        const root = @sqrt(0.00085) + part * (@sqrt(0.012) - @sqrt(0.00085));
        kept *= 1 - root * root;
    }
    return @sqrt((1 - kept) / kept);
}
