//! The registers that a sampler's rows speak of: latent, saved, history, noise; for all images of
//! a batch at once, each with a generator of its own, so that a image is the same alone or with
//! others.

const std = @import("std");
const backends = @import("../backend.zig");
const Tensor = @import("../tensor.zig").Tensor;
const random = @import("../random.zig");
const PhiloxGenerator = @import("../random/philox.zig").PhiloxGenerator;
const nchw = @import("nchw.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Job = @import("../session/job.zig").Job;

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
    history: [backends.history_count]Tensor,
    noise: Tensor,
    generators: []Generator,
    /// One latent on the host, in torch's order and in ours; empty while planning.
    drawn: []f32,
    turned: []f32,

    pub fn init(rank: *Rank, job: *const Job) Error!LatentState {
        const b = rank.b;
        const shape = rank.latentShape(job, @intCast(job.seeds.len));
        const host_count = if (rank.isPlanning()) 0 else shape.elementCount();
        var state: LatentState = .{
            .latent = try b.alloc(shape, .f32),
            .saved = try b.alloc(shape, .f32),
            .history = undefined,
            .noise = try b.alloc(shape, .f32),
            .generators = try rank.arena.alloc(Generator, job.seeds.len),
            .drawn = try rank.arena.alloc(f32, host_count / shape.batch),
            .turned = try rank.arena.alloc(f32, host_count / shape.batch),
        };
        for (&state.history) |*tensor| tensor.* = try b.alloc(shape, .f32);
        for (state.generators, job.seeds) |*generator, seed| generator.* = .init(job.rng, seed);
        try state.draw(rank, state.latent, job.initial_scale);
        // A row that has no history yet multiplies it by 0: it must be a number.
        const zeros = try rank.arena.alloc(f32, host_count);
        @memset(zeros, 0);
        try b.write(state.saved, std.mem.sliceAsBytes(zeros));
        for (state.history) |tensor| try b.write(tensor, std.mem.sliceAsBytes(zeros));
        return state;
    }

    /// The sampler's update by the output of all branches.
    pub fn advance(
        state: *LatentState,
        rank: *Rank,
        job: *const Job,
        row: backends.StepCoefficients,
        model_output: Tensor,
    ) Error!void {
        const draws_noise = row.draws_noise != 0;
        if (draws_noise) try state.draw(rank, state.noise, 1);
        // The oldest output's memory takes the newest.
        std.mem.rotate(Tensor, &state.history, state.history.len - 1);
        try rank.b.latentStep(.{
            .row = row,
            .guidance_scale = job.guidance_scale,
            .guidance_rescale = job.guidance_rescale,
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

    /// Each image's next numbers, times `scale`.
    fn draw(state: *LatentState, rank: *Rank, out: Tensor, scale: f32) Error!void {
        if (rank.isPlanning()) return;
        for (state.generators, 0..) |*generator, i| {
            const image = out.batchSlice(@intCast(i), 1);
            switch (generator.*) {
                .cpu => |*cpu| try state.drawOnHost(rank, cpu, image, scale),
                .cuda => |*philox| {
                    const next = philox.next(image.shape.elementCount());
                    try rank.b.philoxNormal(image, next, scale);
                },
            }
        }
    }

    fn drawOnHost(
        state: *LatentState,
        rank: *Rank,
        generator: *random.CpuGenerator,
        image: Tensor,
        scale: f32,
    ) Error!void {
        generator.fillNormal(state.drawn);
        const shape = image.shape;
        nchw.toNhwc(state.turned, state.drawn, shape.channels, shape.positionCount());
        for (state.turned) |*value| value.* *= scale;
        try rank.b.write(image, std.mem.sliceAsBytes(state.turned));
    }
};
