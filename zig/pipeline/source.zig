//! What a job's images start from: the latents of its image or those that the request has, and with
//! a mask what stays of them.
//! Every rank encodes its rows of the image and gets the moments of the others, so that all have
//! the same bits; each then draws the same numbers of its own generators, in diffusers' order.

const std = @import("std");
const Patch = @import("../patch/layout.zig").Patch;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const encode = @import("encode.zig");
const gather = @import("gather.zig");
const Kept = @import("kept.zig").Kept;
const nchw = @import("nchw.zig");
const Noise = @import("noise.zig").Noise;
const ranks = @import("rank.zig");
const tiled_encode = @import("tiled_encode.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// The moments of the image and of the image without its masked part, on the host: (rows, width,
/// 2 * channels), empty where they are not needed and in a dry run.
pub const Moments = struct {
    image: []const f32 = &.{},
    masked: []const f32 = &.{},

    /// The encode stage of a job.
    pub fn init(rank: *Rank) Error!Moments {
        const job = rank.job;
        var moments: Moments = .{};
        const reads_masked = job.hasMask() and rank.model.config.readsMask();
        if (!readsImage(rank) and !reads_masked) return moments;
        try encode.open(rank);
        const hides_masked = job.masked_latent == .grey;
        if (readsImage(rank)) moments.image = try encodeShared(rank, 0, hides_masked);
        if (reads_masked) {
            moments.masked = try encodeShared(rank, @intFromBool(readsImage(rank)), true);
        }
        rank.encoder_exchange.close();
        return moments;
    }
};

/// A job's latents of the image, its noise and its mask.
pub const Source = struct {
    /// What a mask keeps; null without a mask, and where no step mixes it in.
    kept: ?Kept = null,
    /// For a UNet that reads them: mask and masked latents (images, rows, width, 1 + channels).
    conditions: ?Tensor = null,

    /// Fills `latent` with the first noise of each image, or with what it starts from and that
    /// noise.
    pub fn init(rank: *Rank, moments: Moments, noise: *Noise, latent: Tensor) Error!Source {
        const job = rank.job;
        var source: Source = .{};
        const len = if (rank.isPlanning()) 0 else latent.shape.elementCount();
        try noise.begin(rank, latent);
        const known = try rank.arena.alloc(f32, if (readsImage(rank)) len else 0);
        if (readsImage(rank)) try sample(rank, moments.image, noise, latent, known);
        const has_start = job.hasImage() or job.hasLatents();
        if (!has_start) {
            try noise.first(rank, latent, job.init_noise_sigma);
            // What this overwrites is of runs that go on.
            std.debug.assert(job.noise_skip == 0);
            try noise.beginSteps(rank, latent);
            return source;
        }
        const first_noise = try rank.arena.alloc(f32, len);
        @memset(first_noise, 0);
        // diffusers draws none where a run goes on.
        if (job.init_noise_sigma != 0 or job.hasMask()) {
            try noise.first(rank, latent, 1);
            try rank.b.downloadFloats(latent, first_noise);
        }
        if (job.hasMask()) {
            fillMasked(rank, known, first_noise);
            // A plan holds for jobs with and without.
            if (rank.isPlanning() or job.mask_steps.len > 0) {
                source.kept = try .init(rank, latent, .{ .known = known, .noise = first_noise });
            }
            try source.initConditions(rank, moments, noise, latent);
        }
        try noise.beginSteps(rank, latent);
        const start = if (job.hasLatents()) try givenLatents(rank, len) else known;
        for (first_noise, 0..) |*value, i| {
            const given = if (start.len > 0) start[i] else 0;
            value.* = job.image_scale * given + job.init_noise_sigma * value.*;
        }
        try rank.b.write(latent, std.mem.sliceAsBytes(first_noise));
        return source;
    }

    pub fn free(source: *const Source, rank: *Rank) void {
        if (source.conditions) |tensor| rank.b.free(tensor);
        if (source.kept) |*kept| kept.free(rank);
    }

    // --- internal ---

    fn initConditions(
        source: *Source,
        rank: *Rank,
        moments: Moments,
        noise: *Noise,
        latent: Tensor,
    ) Error!void {
        const b = rank.b;
        // diffusers encodes the masked image in any case, which draws numbers.
        const element_count = if (rank.isPlanning()) 0 else latent.shape.elementCount();
        const masked = try rank.arena.alloc(f32, element_count);
        try sample(rank, moments.masked, noise, latent, masked);
        if (!rank.model.config.readsMask()) return;
        const mask = rank.job.condition_mask;
        const shape = latent.shape.withChannels(1 + latent.shape.channels);
        const channels: usize = latent.shape.channels;
        const len = if (rank.isPlanning()) 0 else shape.elementCount();
        const joined = try rank.arena.alloc(f32, len);
        for (0..joined.len / (1 + channels)) |position| {
            const of_position = joined[position * (1 + channels) ..][0 .. 1 + channels];
            of_position[0] = mask[position % mask.len];
            @memcpy(of_position[1..], masked[position * channels ..][0..channels]);
        }
        source.conditions = try b.upload(shape, .f32, std.mem.sliceAsBytes(joined));
    }
};

// --- internal ---

/// A UNet that reads the masked image starts from noise alone where nothing of the image is asked
/// for.
fn readsImage(rank: *const Rank) bool {
    const job = rank.job;
    return job.hasImage() and !(rank.model.config.readsMask() and job.image_scale == 0);
}

/// A sample of the distribution for each image, times the VAE's scaling factor, or the mean.
/// Without moments the numbers are drawn all the same. `room` is overwritten.
fn sample(
    rank: *Rank,
    moments: []const f32,
    noise: *Noise,
    room: Tensor,
    out: []f32,
) Error!void {
    if (rank.isPlanning()) return;
    const job = rank.job;
    const channels: usize = room.shape.channels;
    const scale = rank.model.config.vae.scaling_factor;
    for (0..job.seeds.len) |i| {
        const image = room.batchSlice(@intCast(i), 1);
        const values = out[i * image.shape.elementCount() ..][0..image.shape.elementCount()];
        @memset(values, 0);
        if (job.samples_posterior) {
            try noise.sample(rank, i, image, 1);
            try rank.b.downloadFloats(image, values);
        }
        if (moments.len == 0) continue;
        for (values, 0..) |*value, at| {
            const pair = moments[at / channels * 2 * channels ..][0 .. 2 * channels];
            const log_variance = std.math.clamp(pair[channels + at % channels], -30, 20);
            const mean = pair[at % channels];
            value.* = scale * (mean + @exp(0.5 * log_variance) * value.*);
        }
    }
}

/// The latents that the request has, as tensors are.
fn givenLatents(rank: *Rank, len: usize) Error![]const f32 {
    const values = try rank.arena.alloc(f32, len);
    if (rank.isPlanning()) return values;
    const shape = rank.latentShape(1);
    nchw.toNhwc(values, rank.job.latents, shape.channels, shape.positionCount());
    return values;
}

/// What the masked part of the image's latents is, where it is not the image's own.
fn fillMasked(rank: *Rank, known: []f32, noise: []const f32) void {
    const job = rank.job;
    const is_own = job.masked_latent == .image or job.masked_latent == .grey;
    if (is_own or rank.isPlanning() or known.len == 0) return;
    const channels = known.len / (job.seeds.len * job.latent_mask.len);
    for (known, noise, 0..) |*value, z, i| {
        const share = job.latent_mask[i / channels % job.latent_mask.len];
        const content = if (job.masked_latent == .noise) z else 0;
        value.* = (1 - share) * value.* + share * content;
    }
}

fn isNew(grey: u8) bool {
    return grey >= 128;
}

/// The moments of the image, or of the image without its masked part, of all rows: every rank has
/// encoded its own.
fn encodeShared(rank: *Rank, step: u32, is_masked: bool) Error![]const f32 {
    const exchange = rank.encoder_exchange;
    const patch = exchange.patches[exchange.index];
    const pixels = try pixelsOf(rank, patch, is_masked);
    // Tiles are one rank's.
    if (tiled_encode.needsTiles(rank)) return tiled_encode.encode(rank, pixels, step);
    const image = try rank.b.uploadFloats(encode.pixelsOf(rank, patch.row_count), pixels);
    defer rank.b.free(image);
    exchange.enterStep(step, .all);
    const own = try encode.encode(rank, image);
    defer rank.b.free(own);
    const row_len = @as(usize, own.shape.width) * own.shape.channels;
    const len = if (rank.isPlanning()) 0 else rank.job.latent_rows * row_len;
    const moments = try rank.arena.alloc(f32, len);
    try gather.rowsToHost(rank, own, exchange.patches, moments);
    return moments;
}

/// Rows of the image as diffusers has it, -1 to 1; 0 where it is masked and that is hidden.
fn pixelsOf(rank: *Rank, patch: Patch, is_masked: bool) Error![]const f32 {
    if (rank.isPlanning()) return &.{};
    const job = rank.job;
    const factor: usize = rank.model.config.vae.factor();
    const row = job.latent_width * factor;
    const first = patch.row_first * factor * row;
    const values = try rank.arena.alloc(f32, patch.row_count * factor * row * 3);
    for (values, job.image[3 * first ..][0..values.len], 3 * first..) |*value, byte, i| {
        const is_hidden = is_masked and isNew(job.mask[i / 3]);
        value.* = if (is_hidden) 0 else 2 * (@as(f32, @floatFromInt(byte)) / 255) - 1;
    }
    return values;
}
