//! The encode stage: the VAE's encoder, from an image to its latent's distribution. Every rank
//! encodes its own rows, those that it decodes.

const std = @import("std");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const nchw = @import("nchw.zig");
const tiled_encode = @import("tiled_encode.zig");

/// Encodes the job's `sample` (1, 3, factor * rows, factor * width) of -1 to 1. The output
/// `latents` is the mean times the scaling factor.
pub fn encodeSample(rank: *Rank) Error!void {
    try open(rank);
    defer rank.encoder_exchange.close();
    if (tiled_encode.needsTiles(rank)) {
        const shape = pixelShape(rank);
        const pixels = try rank.arena.alloc(f32, rank.job.sample.len);
        nchw.toNhwc(pixels, rank.job.sample, shape.channels, shape.positionCount());
        const moments = try tiled_encode.encode(rank, pixels, 0);
        if (rank.isPlanning()) return;
        const both = try rank.arena.alloc(f32, moments.len);
        const channels = 2 * rank.model.config.vae.latent_channels;
        nchw.fromNhwc(both, moments, channels, moments.len / channels);
        return saveMeans(rank, both);
    }
    const image = try rank.uploadNchw(pixelShape(rank), rank.job.sample);
    defer rank.b.free(image);
    rank.encoder_exchange.enterStep(0, .all);
    const moments = try encode(rank, image);
    defer rank.b.free(moments);
    if (rank.isPlanning()) return;
    try rank.saveNchw(.latents, moments);
    const both = try rank.arena.dupe(f32, rank.result.values(f32, .latents));
    try saveMeans(rank, both);
}

/// Opens the exchange with the other ranks, before the first image.
pub fn open(rank: *Rank) Error!void {
    try rank.encoder_exchange.open(rank.arena, 0);
    try rank.transport.endOpen();
}

/// Returns mean and log variance (1, rows, width, 2 * channels) of the latent of `image`, or of
/// this rank's rows of it, of -1 to 1; the caller has entered the step and frees them.
pub fn encode(rank: *Rank, image: Tensor) Error!Tensor {
    const exchange = rank.encoder_exchange;
    try exchange.beginStep();
    const moments = try rank.model.vae.encode(.{ .b = rank.b, .exchange = exchange }, image);
    errdefer rank.b.free(moments);
    try exchange.endStep();
    if (!try rank.b.isFinite(moments)) return rank.notFinite("The VAE's encoder gave", .{});
    return moments;
}

/// (1, factor * rows, factor * width, 3)
pub fn pixelShape(rank: *const Rank) Shape {
    return pixelsOf(rank, rank.job.latent_rows);
}

/// Of so many rows of the latent.
pub fn pixelsOf(rank: *const Rank, latent_rows: u32) Shape {
    const vae = &rank.model.config.vae;
    const factor = vae.factor();
    return .{
        .batch = 1,
        .rows = latent_rows * factor,
        .width = rank.job.latent_width * factor,
        .channels = vae.in_channels,
    };
}

// --- internal ---

/// Of `both` in NCHW, where the means are the first half.
fn saveMeans(rank: *Rank, both: []const f32) Error!void {
    const means = try rank.result.alloc(f32, .latents, both.len / 2);
    const scale = rank.model.config.vae.scaling_factor;
    for (means, both[0..means.len]) |*mean, value| mean.* = value * scale;
}
