//! The sampler's registers for all images of a batch: latent, auxiliary register, earlier model
//! outputs and noise (`noise.zig`).

const std = @import("std");
const backend = @import("../backend.zig");
const Tensor = @import("../tensor.zig").Tensor;
const Noise = @import("noise.zig").Noise;
const sources = @import("source.zig");
const Moments = sources.Moments;
const Source = sources.Source;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

pub const LatentState = struct {
    /// (images, rows, width, channels) in f32, like the other registers.
    latent: Tensor,
    auxiliary: Tensor,
    model_outputs: [backend.model_output_count]Tensor,
    noise: Tensor,
    noise_source: Noise,
    source: Source,
    /// Of each image and prompt in a step.
    guidance_scales: []f32,

    pub fn init(rank: *Rank, moments: Moments) Error!LatentState {
        const b = rank.b;
        const job = rank.job;
        const shape = rank.latentShape(@intCast(job.seeds.len));
        const host_count = if (rank.isPlanning()) 0 else shape.elementCount();
        var state: LatentState = .{
            .latent = try b.alloc(shape, .f32),
            .auxiliary = try b.alloc(shape, .f32),
            .model_outputs = undefined,
            .noise = try b.alloc(shape, .f32),
            .noise_source = try .init(rank),
            .source = undefined,
            .guidance_scales = try rank.arena.alloc(f32, job.guidance_scales.len),
        };
        for (&state.model_outputs) |*tensor| tensor.* = try b.alloc(shape, .f32);
        state.source = try .init(rank, moments, &state.noise_source, state.latent);
        // The first steps multiply missing model outputs by 0: they must be finite.
        const zeros = try rank.arena.alloc(f32, host_count);
        @memset(zeros, 0);
        try b.write(state.auxiliary, std.mem.sliceAsBytes(zeros));
        for (state.model_outputs) |tensor| try b.write(tensor, std.mem.sliceAsBytes(zeros));
        return state;
    }

    /// What the UNet reads in a step in the place of the latent, where a mask keeps a part of it;
    /// null for the latent itself. The caller frees it.
    pub fn maskedInput(state: *const LatentState, rank: *Rank, step_index: usize) Error!?Tensor {
        const kept = state.source.kept orelse return null;
        const mask_step = kept.stepAt(rank, step_index);
        if (mask_step.blends_input == 0) return null;
        const input = try rank.b.alloc(state.latent.shape, .f32);
        try rank.b.copy(input, state.latent);
        try kept.cover(rank, input, mask_step.input);
        return input;
    }

    /// Applies guidance, what a mask keeps and the sampler's update to the outputs of all branches
    /// for `input`.
    pub fn advance(
        state: *LatentState,
        rank: *Rank,
        step_index: usize,
        input: Tensor,
        model_output: Tensor,
    ) Error!void {
        const step = rank.job.steps[step_index];
        const kept = state.source.kept orelse return state.update(rank, step, model_output);
        const mask_step = kept.stepAt(rank, step_index);
        if (mask_step.blends_clean == 0) {
            try state.update(rank, step, model_output);
        } else {
            const mix = .{ mask_step.clean_from_sample, mask_step.clean_from_output };
            const clean = try state.estimate(rank, step_index, input, model_output, mix);
            defer rank.b.free(clean);
            try state.update(rank, mask_step.ofClean(step), clean);
        }
        if (mask_step.blends_latent != 0) try kept.cover(rank, state.latent, mask_step.latent);
    }

    /// The clean latent that the outputs of all branches for `input` predict, before `advance`:
    /// `mix[0]` times `input` and `mix[1]` times the guided output, with what a mask keeps. The
    /// caller frees it.
    pub fn estimate(
        state: *LatentState,
        rank: *Rank,
        step_index: usize,
        input: Tensor,
        model_output: Tensor,
        mix: [2]f32,
    ) Error!Tensor {
        const b = rank.b;
        const step = rank.job.steps[step_index];
        const out = try b.alloc(state.latent.shape, .f32);
        try b.copy(out, input);
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
            .guidance_scales = state.scalesOf(rank, step, model_output),
            .rescale = rank.job.rescaleAt(step),
            .latent = out,
            .auxiliary = state.auxiliary,
            .model_outputs = @splat(guided),
            .model_output = model_output,
            .noise = null,
        });
        const kept = state.source.kept orelse return out;
        if (kept.stepAt(rank, step_index).blends_clean != 0) try kept.cover(rank, out, .{});
        return out;
    }

    /// Frees all but the latent, which is the caller's.
    pub fn finish(state: *LatentState, rank: *Rank) Tensor {
        for (state.model_outputs) |tensor| rank.b.free(tensor);
        state.source.free(rank);
        rank.b.free(state.noise);
        rank.b.free(state.auxiliary);
        return state.latent;
    }

    // --- internal ---

    fn update(
        state: *LatentState,
        rank: *Rank,
        step: backend.StepCoefficients,
        model_output: Tensor,
    ) Error!void {
        const samples_noise = step.samples_noise != 0;
        if (samples_noise) try state.noise_source.next(rank, step, state.noise);
        // The newest output overwrites the oldest, or the one before it.
        if (step.replaces_output == 0) {
            std.mem.rotate(Tensor, &state.model_outputs, state.model_outputs.len - 1);
        }
        try rank.b.latentStep(.{
            .coefficients = step,
            .guidance_scales = state.scalesOf(rank, step, model_output),
            .rescale = rank.job.rescaleAt(step),
            .latent = state.latent,
            .auxiliary = state.auxiliary,
            .model_outputs = state.model_outputs,
            .model_output = model_output,
            .noise = if (samples_noise) state.noise else null,
        });
    }

    /// The scales of each image in a step (`LatentStep.guidance_scales`). Without the negative
    /// branch they make the mean of the prompts by their weights, from the first one on.
    fn scalesOf(
        state: *LatentState,
        rank: *Rank,
        step: backend.StepCoefficients,
        model_output: Tensor,
    ) []const f32 {
        const image_count = state.latent.shape.batch;
        const scale_count = model_output.shape.batch - image_count;
        const scales = state.guidance_scales[0..scale_count];
        const all = rank.job.guidance_scales;
        if (scale_count == 0 or all.len == scale_count) {
            for (scales, all[0..scale_count]) |*scale, of_prompt| {
                scale.* = of_prompt * step.guidance_factor;
            }
            return scales;
        }
        const prompt_count = all.len / image_count;
        for (0..image_count) |image| {
            const of_image = all[image * prompt_count ..][0..prompt_count];
            var sum: f32 = 0;
            for (of_image) |scale| sum += scale;
            const means = scales[image * (prompt_count - 1) ..][0 .. prompt_count - 1];
            for (means, of_image[1..]) |*mean, scale| mean.* = scale / sum;
        }
        return scales;
    }
};
