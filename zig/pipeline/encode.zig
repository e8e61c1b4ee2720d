//! The encode stage: the VAE's encoder, from an image to its latent's distribution. One rank
//! encodes the whole image.

const std = @import("std");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Patch = @import("../patch/layout.zig").Patch;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

/// Encodes the job's `sample` (1, 3, factor * rows, factor * width) of -1 to 1. The output
/// `latents` is the mean times the scaling factor.
pub fn encodeSample(rank: *Rank) Error!void {
    const image = try rank.uploadNchw(pixelShape(rank), rank.job.sample);
    defer rank.b.free(image);
    const moments = try encode(rank, image);
    defer rank.b.free(moments);
    if (rank.isPlanning()) return;
    try rank.saveNchw(.latents, moments);
    // In NCHW the means are the first half.
    const both = rank.result.values(f32, .latents);
    const means = try rank.result.alloc(f32, .latents, both.len / 2);
    const scale = rank.model.config.vae.scaling_factor;
    for (means, both[0..means.len]) |*mean, value| mean.* = value * scale;
}

/// Returns mean and log variance (1, rows, width, 2 * channels) of the latent of `image`, of
/// `pixelShape` and -1 to 1; the caller frees them.
pub fn encode(rank: *Rank, image: Tensor) Error!Tensor {
    const patches: [1]Patch = .{.{ .row_first = 0, .row_count = rank.job.latent_rows }};
    var exchange: Exchange = .ofSinglePatch(rank.b, &patches);
    const moments = try rank.model.vae.encode(.{ .b = rank.b, .exchange = &exchange }, image);
    errdefer rank.b.free(moments);
    if (!try rank.b.isFinite(moments)) return rank.notFinite("The VAE's encoder gave", .{});
    return moments;
}

/// (1, factor * rows, factor * width, 3)
pub fn pixelShape(rank: *const Rank) Shape {
    const vae = &rank.model.config.vae;
    const factor = vae.factor();
    return .{
        .batch = 1,
        .rows = rank.job.latent_rows * factor,
        .width = rank.job.latent_width * factor,
        .channels = vae.in_channels,
    };
}
