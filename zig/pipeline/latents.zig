//! The sampler's registers: latent, auxiliary (`saved`), earlier model outputs (`history`) and
//! noise, for all images of a batch. Each image has a generator of its own, so that it is the same
//! alone or in a batch.

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
    /// (images, rows, width, channels), like all of them.
    latent: Tensor,
    saved: Tensor,
    history: [backend.history_count]Tensor,
    noise: Tensor,
    generators: []Generator,
    /// One latent on the host, channels first and channels last; empty in a dry run.
    sampled: []f32,
    nhwc: []f32,

    pub fn init(rank: *Rank) Error!LatentState {
        const b = rank.b;
        const job = rank.job;
        const shape = rank.latentShape(@intCast(job.seeds.len));
        const host_count = if (rank.isPlanning()) 0 else shape.elementCount();
        var state: LatentState = .{
            .latent = try b.alloc(shape, .f32),
            .saved = try b.alloc(shape, .f32),
            .history = undefined,
            .noise = try b.alloc(shape, .f32),
            .generators = try rank.arena.alloc(Generator, job.seeds.len),
            .sampled = try rank.arena.alloc(f32, host_count / shape.batch),
            .nhwc = try rank.arena.alloc(f32, host_count / shape.batch),
        };
        for (&state.history) |*tensor| tensor.* = try b.alloc(shape, .f32);
        for (state.generators, job.seeds) |*generator, seed| generator.* = .init(job.rng, seed);
        try state.sample(rank, state.latent, job.initial_scale);
        // The first steps multiply the missing history by 0: it must be finite.
        const zeros = try rank.arena.alloc(f32, host_count);
        @memset(zeros, 0);
        try b.write(state.saved, std.mem.sliceAsBytes(zeros));
        for (state.history) |tensor| try b.write(tensor, std.mem.sliceAsBytes(zeros));
        return state;
    }

    /// Applies guidance and the sampler's update to the outputs of all branches.
    pub fn advance(
        state: *LatentState,
        rank: *Rank,
        step: backend.StepCoefficients,
        model_output: Tensor,
    ) Error!void {
        const draws_noise = step.draws_noise != 0;
        if (draws_noise) try state.sample(rank, state.noise, 1);
        // The newest output overwrites the oldest.
        std.mem.rotate(Tensor, &state.history, state.history.len - 1);
        try rank.b.latentStep(.{
            .row = step,
            .guidance_scales = rank.job.guidance_scales,
            .rescale = rank.job.guidance_rescale,
            .latent = state.latent,
            .saved = state.saved,
            .history = state.history,
            .model_output = model_output,
            .noise = if (draws_noise) state.noise else null,
        });
    }

    /// Frees all but the latent, which is the caller's.
    pub fn finish(state: *LatentState, rank: *Rank) Tensor {
        for (state.history) |tensor| rank.b.free(tensor);
        rank.b.free(state.noise);
        rank.b.free(state.saved);
        return state.latent;
    }

    // --- internal ---

    /// Fills `out` with each image's next normal numbers, times `scale`.
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
