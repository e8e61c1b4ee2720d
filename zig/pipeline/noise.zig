//! The noise of a job's images: the first latent and what steps add to it, in the order of the
//! program whose images are repeated (`NoiseSource`). Every rank makes the noise of the whole
//! latent: that is cheaper than sending it, and the same for any number of ranks.
//!
//! On a GPU the host makes the noise of a step while the UNet runs, which is queued before.

const std = @import("std");
const backend = @import("../backend.zig");
const Tensor = @import("../tensor.zig").Tensor;
const random = @import("../random.zig");
const brownian = random.brownian;
const nchw = @import("nchw.zig");
const slerp = @import("../random/slerp.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// Where the noise of steps comes from.
pub const NoiseSource = enum(u32) {
    /// The generator of the first latent goes on: diffusers, A1111.
    generator = 0,
    /// The increments of a Brownian path: the SDE samplers of k-diffusion.
    brownian = 1,
    /// A new generator: ComfyUI, and A1111 with a seed delta (ENSD).
    new_generator = 2,
};

pub const Noise = struct {
    /// One per image, each of its own seed; images of one torch batch have the same seed, and leave
    /// out the others' numbers.
    generators: []random.Generator,
    /// One image's noise on the host, in NCHW (torch's order) and NHWC; empty in a dry run.
    sampled: []f32,
    nhwc: []f32,
    /// For `NoiseSource.brownian`, one per thread; else none.
    workspaces: []brownian.Workspace,

    pub fn init(rank: *Rank) Error!Noise {
        const job = rank.job;
        const count = if (rank.isPlanning()) 0 else rank.latentShape(1).elementCount();
        const noise: Noise = .{
            .generators = try rank.arena.alloc(random.Generator, job.seeds.len),
            .sampled = try rank.arena.alloc(f32, count),
            .nhwc = try rank.arena.alloc(f32, count),
            .workspaces = try rank.arena.alloc(brownian.Workspace, threadCount(rank)),
        };
        for (noise.workspaces) |*each| each.* = try .init(rank.arena);
        for (noise.generators, job.seeds) |*each, seed| each.* = .init(job.rng, seed);
        return noise;
    }

    /// Fills `out` (images, rows, width, channels) with the first latent: standard normal numbers
    /// times `scale`.
    pub fn first(noise: *Noise, rank: *Rank, out: Tensor, scale: f32) Error!void {
        if (rank.isPlanning()) return;
        const job = rank.job;
        for (0..job.seeds.len) |i| {
            const image = out.batchSlice(@intCast(i), 1);
            if (job.variation_strength == 0) {
                try noise.sample(rank, i, image, scale);
            } else try noise.sampleVariation(rank, i, image, scale);
        }
    }

    /// Before the first latent of a run that goes on. `room` is overwritten.
    pub fn begin(noise: *Noise, rank: *Rank, room: Tensor) Error!void {
        if (rank.job.noise_source == .generator) try noise.skip(rank, room);
    }

    /// After it, before the first step. `room` is overwritten.
    pub fn beginSteps(noise: *Noise, rank: *Rank, room: Tensor) Error!void {
        const job = rank.job;
        if (rank.isPlanning() or job.noise_source != .new_generator) return;
        for (noise.generators, job.seeds) |*generator, seed| {
            generator.* = .init(job.noise_rng, seed +% job.noise_seed_delta);
        }
        try noise.skip(rank, room);
    }

    /// The same with the noise of a step, unscaled.
    pub fn next(
        noise: *Noise,
        rank: *Rank,
        step: backend.StepCoefficients,
        out: Tensor,
    ) Error!void {
        if (rank.isPlanning()) return;
        const job = rank.job;
        for (0..job.seeds.len) |i| {
            const image = out.batchSlice(@intCast(i), 1);
            if (job.noise_source == .brownian) {
                noise.sampleIncrement(rank, i, step);
                try noise.write(rank, image, 1);
            } else try noise.sample(rank, i, image, 1);
        }
    }

    /// The next tensor of an image's generator.
    pub fn sample(noise: *Noise, rank: *Rank, index: usize, image: Tensor, scale: f32) Error!void {
        const generator = &noise.generators[index];
        const part = partOf(rank, index);
        generator.enterTensor(part.tensor_count, part.element_first);
        switch (generator.source) {
            .cpu => {
                generator.fillNormal(noise.sampled);
                try noise.write(rank, image, scale);
            },
            .cuda => try rank.b.philoxNormal(image, generator.rest(), scale),
        }
    }

    // --- internal ---

    /// Leaves out what an earlier part of the run has read.
    fn skip(noise: *Noise, rank: *Rank, room: Tensor) Error!void {
        if (rank.isPlanning()) return;
        for (0..rank.job.seeds.len) |i| {
            const image = room.batchSlice(@intCast(i), 1);
            for (0..rank.job.noise_skip) |_| try noise.sample(rank, i, image, 1);
        }
    }

    /// The next tensor of an image's generator, on the way to the noise of another seed.
    fn sampleVariation(
        noise: *Noise,
        rank: *Rank,
        index: usize,
        image: Tensor,
        scale: f32,
    ) Error!void {
        const job = rank.job;
        const high = try rank.arena.alloc(f32, noise.sampled.len);
        var other: random.Generator = .init(job.rng, job.variation_seeds[index]);
        for ([_]*random.Generator{ &noise.generators[index], &other }, [_][]f32{
            noise.sampled, high,
        }) |generator, out| {
            generator.enterTensor(out.len, 0);
            generator.fillNormal(out);
        }
        const shape = image.shape;
        slerp.slerp(noise.sampled, high, job.variation_strength, shape.rows, shape.width);
        try noise.write(rank, image, scale);
    }

    /// The step's increment of an image's path, in parts on all threads.
    fn sampleIncrement(
        noise: *Noise,
        rank: *Rank,
        index: usize,
        step: backend.StepCoefficients,
    ) void {
        const job = rank.job;
        const increment: Increment = .{
            .path = .{
                .seed = job.seeds[index],
                .min = job.brownian_min,
                .max = job.brownian_max,
            },
            .rng = job.noise_rng,
            .from = step.noise_from,
            .to = step.noise_to,
            .part = partOf(rank, index),
            .out = noise.sampled,
        };
        const count = noise.workspaces.len;
        var threads: [thread_count_max]?std.Thread = @splat(null);
        for (noise.workspaces[1..], threads[1..count], 1..) |*workspace, *thread, share| {
            const args = .{ increment, workspace, share, count };
            // Without more threads, this one does it all.
            thread.* = std.Thread.spawn(.{}, Increment.sample, args) catch null;
            if (thread.* == null) increment.sample(workspace, share, count);
        }
        increment.sample(&noise.workspaces[0], 0, count);
        for (threads) |maybe| if (maybe) |thread| thread.join();
    }

    fn write(noise: *Noise, rank: *Rank, image: Tensor, scale: f32) Error!void {
        const shape = image.shape;
        nchw.toNhwc(noise.nhwc, noise.sampled, shape.channels, shape.positionCount());
        for (noise.nhwc) |*value| value.* *= scale;
        try rank.b.write(image, std.mem.sliceAsBytes(noise.nhwc));
    }
};

// --- internal ---

const thread_count_max = 8;

/// Threads for a Brownian path. At 1024x1024 it takes 30 ms of one core, 100 ms for numbers of a
/// GPU: nothing beside a step on a CPU, but more than one on a GPU.
fn threadCount(rank: *Rank) usize {
    if (rank.isPlanning() or rank.job.noise_source != .brownian) return 0;
    if (rank.b.device != .cuda) return 1;
    const cores = std.Thread.getCpuCount() catch 1;
    const local = rank.local_ranks.end - rank.local_ranks.first;
    return std.math.clamp(cores / local, 1, thread_count_max);
}

/// The noise of one image in one step.
const Increment = struct {
    path: brownian.Path,
    rng: random.Rng,
    from: f32,
    to: f32,
    part: brownian.Part,
    out: []f32,

    fn sample(
        i: Increment,
        workspace: *brownian.Workspace,
        share: usize,
        share_count: usize,
    ) void {
        const blocks = i.out.len / 16;
        const first = blocks * share / share_count * 16;
        const end = blocks * (share + 1) / share_count * 16;
        var part = i.part;
        part.element_first += first;
        part.element_count = end - first;
        workspace.noise(i.path, i.rng, i.from, i.to, part, i.out[first..end]);
    }
};

/// An image's part of the tensors of a torch batch.
fn partOf(rank: *Rank, index: usize) brownian.Part {
    const job = rank.job;
    const count: u64 = rank.latentShape(1).elementCount();
    const place = if (job.noise_places.len == 0) 0 else job.noise_places[index];
    return .{
        .element_first = place * count,
        .element_count = count,
        .tensor_count = @max(1, job.noise_batch) * count,
    };
}
