//! The sampler's registers for all images of a batch: latent, auxiliary register, earlier model
//! outputs and noise. Each image has its own generator, so that a seed gives the same image alone
//! and in a batch.

const std = @import("std");
const backend = @import("../backend.zig");
const Tensor = @import("../tensor.zig").Tensor;
const random = @import("../random.zig");
const PhiloxGenerator = @import("../random/philox.zig").PhiloxGenerator;
const nchw = @import("nchw.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

const Generator = union(random.Rng) {
    cpu: random.CpuGenerator,
    cuda: PhiloxGenerator,

    fn init(rng: random.Rng, seed: u64) Generator {
        return switch (rng) {
            .cpu => .{ .cpu = .init(seed) },
            .cuda => .{ .cuda = .init(seed, PhiloxGenerator.block_count_reference) },
        };
    }
};

pub const LatentState = struct {
    /// (images, rows, width, channels) in f32, like the other registers.
    latent: Tensor,
    auxiliary: Tensor,
    model_outputs: [backend.model_output_count]Tensor,
    noise: Tensor,
    generators: []Generator,
    /// Of each image in a step.
    guidance_scales: []f32,
    /// One image's noise on the host, in NCHW (torch's order) and NHWC; empty in a dry run.
    sampled: []f32,
    nhwc: []f32,

    pub fn init(rank: *Rank) Error!LatentState {
        const b = rank.b;
        const job = rank.job;
        const shape = rank.latentShape(@intCast(job.seeds.len));
        const host_count = if (rank.isPlanning()) 0 else shape.elementCount();
        var state: LatentState = .{
            .latent = try b.alloc(shape, .f32),
            .auxiliary = try b.alloc(shape, .f32),
            .model_outputs = undefined,
            .noise = try b.alloc(shape, .f32),
            .generators = try rank.arena.alloc(Generator, job.seeds.len),
            .guidance_scales = try rank.arena.alloc(f32, job.guidance_scales.len),
            .sampled = try rank.arena.alloc(f32, host_count / shape.batch),
            .nhwc = try rank.arena.alloc(f32, host_count / shape.batch),
        };
        for (&state.model_outputs) |*tensor| tensor.* = try b.alloc(shape, .f32);
        for (state.generators, job.seeds) |*generator, seed| generator.* = .init(job.rng, seed);
        try state.sample(rank, state.latent, job.init_noise_sigma);
        // The first steps multiply missing model outputs by 0: they must be finite.
        const zeros = try rank.arena.alloc(f32, host_count);
        @memset(zeros, 0);
        try b.write(state.auxiliary, std.mem.sliceAsBytes(zeros));
        for (state.model_outputs) |tensor| try b.write(tensor, std.mem.sliceAsBytes(zeros));
        return state;
    }

    /// Applies guidance and the sampler's update to the outputs of all branches.
    pub fn advance(
        state: *LatentState,
        rank: *Rank,
        step: backend.StepCoefficients,
        model_output: Tensor,
    ) Error!void {
        const samples_noise = step.samples_noise != 0;
        if (samples_noise) try state.sample(rank, state.noise, 1);
        for (state.guidance_scales, rank.job.guidance_scales) |*scale, of_image| {
            scale.* = of_image * step.guidance_factor;
        }
        // The newest output overwrites the oldest.
        std.mem.rotate(Tensor, &state.model_outputs, state.model_outputs.len - 1);
        try rank.b.latentStep(.{
            .coefficients = step,
            .guidance_scales = state.guidance_scales,
            .rescale = rank.job.guidance_rescale,
            .latent = state.latent,
            .auxiliary = state.auxiliary,
            .model_outputs = state.model_outputs,
            .model_output = model_output,
            .noise = if (samples_noise) state.noise else null,
        });
    }

    /// The clean latent that the outputs of all branches predict, before `advance`: `mix[0]` times
    /// the latent and `mix[1]` times the guided output. The caller frees it.
    pub fn estimate(
        state: *LatentState,
        rank: *Rank,
        step: backend.StepCoefficients,
        model_output: Tensor,
        mix: [2]f32,
    ) Error!Tensor {
        const b = rank.b;
        const out = try b.alloc(state.latent.shape, .f32);
        try b.copy(out, state.latent);
        const guided = try b.alloc(state.latent.shape, .f32);
        defer b.free(guided);
        var coefficients = step;
        coefficients.output_from_sample = 0;
        coefficients.output_from_model = 1;
        coefficients.latent = .{
            .sample = mix[0],
            .auxiliary = 0,
            .model_outputs = .{ mix[1], 0, 0, 0 },
            .noise = 0,
        };
        coefficients.updates_auxiliary = 0;
        coefficients.samples_noise = 0;
        try b.latentStep(.{
            .coefficients = coefficients,
            .guidance_scales = rank.job.guidance_scales,
            .rescale = rank.job.guidance_rescale,
            .latent = out,
            .auxiliary = state.auxiliary,
            .model_outputs = @splat(guided),
            .model_output = model_output,
            .noise = null,
        });
        return out;
    }

    /// Frees all but the latent, which is the caller's.
    pub fn finish(state: *LatentState, rank: *Rank) Tensor {
        for (state.model_outputs) |tensor| rank.b.free(tensor);
        rank.b.free(state.noise);
        rank.b.free(state.auxiliary);
        return state.latent;
    }

    // --- internal ---

    /// Fills `out` (images, rows, width, channels) with standard normal noise times `scale`.
    fn sample(state: *LatentState, rank: *Rank, out: Tensor, scale: f32) Error!void {
        if (rank.isPlanning()) return;
        for (state.generators, 0..) |*generator, i| {
            const image = out.batchSlice(@intCast(i), 1);
            switch (generator.*) {
                .cpu => |*cpu| try state.sampleOnHost(rank, cpu, image, scale),
                .cuda => |*philox| {
                    const next = philox.next(image.shape.elementCount());
                    try rank.b.philoxNormal(image, next, scale);
                },
            }
        }
    }

    fn sampleOnHost(
        state: *LatentState,
        rank: *Rank,
        generator: *random.CpuGenerator,
        image: Tensor,
        scale: f32,
    ) Error!void {
        generator.fillNormal(state.sampled);
        const shape = image.shape;
        nchw.toNhwc(state.nhwc, state.sampled, shape.channels, shape.positionCount());
        for (state.nhwc) |*value| value.* *= scale;
        try rank.b.write(image, std.mem.sliceAsBytes(state.nhwc));
    }
};
