//! The registers that a sampler's rows speak of: latent, saved, history, noise; for all pictures of
//! a batch at once, each with a generator of its own, so that a picture is the same alone or with
//! others.

const std = @import("std");
const backends = @import("backend.zig");
const Tensor = @import("tensor.zig").Tensor;
const CpuGenerator = @import("random.zig").CpuGenerator;
const nchw = @import("nchw.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Job = @import("job.zig").Job;

pub const LatentState = struct {
    /// (pictures, rows, width, channels), like all of them.
    latent: Tensor,
    saved: Tensor,
    history: [backends.history_count]Tensor,
    noise: Tensor,
    generators: []CpuGenerator,
    /// All latents on the host, in torch's order and in ours; empty while planning.
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
            .generators = try rank.arena.alloc(CpuGenerator, job.seeds.len),
            .drawn = try rank.arena.alloc(f32, host_count),
            .turned = try rank.arena.alloc(f32, host_count),
        };
        for (&state.history) |*tensor| tensor.* = try b.alloc(shape, .f32);
        for (state.generators, job.seeds) |*generator, seed| generator.* = .init(seed);
        state.draw();
        for (state.turned) |*value| value.* *= job.initial_scale;
        try b.write(state.latent, std.mem.sliceAsBytes(state.turned));
        // A row that has no history yet multiplies it by 0: it must be a number.
        @memset(state.turned, 0);
        try b.write(state.saved, std.mem.sliceAsBytes(state.turned));
        for (state.history) |tensor| try b.write(tensor, std.mem.sliceAsBytes(state.turned));
        return state;
    }

    /// The sampler's update by the output of all branches.
    pub fn advance(
        state: *LatentState,
        rank: *Rank,
        job: *const Job,
        row: backends.StepRow,
        model_output: Tensor,
    ) Error!void {
        const draws_noise = row.draws_noise != 0;
        if (draws_noise) {
            state.draw();
            try rank.b.write(state.noise, std.mem.sliceAsBytes(state.turned));
        }
        // The oldest output's memory takes the newest.
        std.mem.rotate(Tensor, &state.history, state.history.len - 1);
        try rank.b.latentStep(.{
            .row = row,
            .guidance_scale = job.guidance_scale,
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

    fn draw(state: *LatentState) void {
        if (state.drawn.len == 0) return;
        const shape = state.latent.shape;
        const count = state.drawn.len / state.generators.len;
        for (state.generators, 0..) |*generator, i| {
            generator.fillNormal(state.drawn[i * count ..][0..count]);
        }
        nchw.toNhwc(state.turned, state.drawn, shape.channels, shape.positionCount());
    }
};
