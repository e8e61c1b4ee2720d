//! The encode stage: the VAE's encoder, from an image to the mean of its latent's distribution. One
//! rank encodes the whole image.

const std = @import("std");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

/// Encodes the job's `sample` (1, 3, factor * rows, factor * width) of -1 to 1. The output
/// `latents` is the mean times the scaling factor.
pub fn encodeSample(rank: *Rank) Error!void {
    const moments = try encode(rank, rank.job.sample);
    defer rank.b.free(moments);
    if (rank.isPlanning()) return;
    try rank.saveNchw(.latents, moments);
    // In NCHW the means are the first half.
    const both = rank.result.values(f32, .latents);
    const means = try rank.result.alloc(f32, .latents, both.len / 2);
    const scale = rank.model.config.vae.scaling_factor;
    for (means, both[0..means.len]) |*mean, value| mean.* = value * scale;
}

/// Returns mean and log variance (1, rows, width, 2 * channels) of the latent of `pixels`
/// (1, 3, factor * rows, factor * width); the caller frees them.
pub fn encode(rank: *Rank, pixels: []const f32) Error!Tensor {
    const vae = &rank.model.config.vae;
    const factor = vae.factor();
    const shape: Shape = .{
        .batch = 1,
        .rows = rank.job.latent_rows * factor,
        .width = rank.job.latent_width * factor,
        .channels = vae.in_channels,
    };
    const image = try rank.uploadNchw(shape, pixels);
    defer rank.b.free(image);
    const moments = try rank.model.vae.encode(rank.context(), image);
    errdefer rank.b.free(moments);
    if (!try rank.b.isFinite(moments)) return rank.notFinite("The VAE's encoder gave", .{});
    return moments;
}
