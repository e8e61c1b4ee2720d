//! The decode stage: every rank runs the VAE's decoder on its own rows of each image and writes
//! them to the result. A single rank can decode in tiles to save memory (`vae_tiling.zig`).

const std = @import("std");
const GraphKey = @import("../backend.zig").GraphKey;
const Context = @import("../model/layers.zig").Context;
const Patch = @import("../patch/layout.zig").Patch;
const gather = @import("gather.zig");
const nchw = @import("nchw.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Tensor = @import("../tensor.zig").Tensor;
const vae_tiling = @import("vae_tiling.zig");

/// Decodes the images of the job one by one. `latent` (images, rows, width, channels) is in the
/// sampler's scale.
pub fn decodeImages(rank: *Rank, latent: Tensor) Error!void {
    if (rank.job.vae_tile_latent > 0) return vae_tiling.decodeImages(rank, latent);
    const b = rank.b;
    const exchange = rank.vae_exchange;
    const patch = exchange.patches[exchange.index];
    for (rank.job.seeds, 0..) |_, i| {
        const whole = latent.batchSlice(@intCast(i), 1);
        const own = try rank.copyOfRows(whole, patch.row_first, patch.row_count);
        defer b.free(own);
        const scaled = try b.scaleRepeat(own, 1 / rank.model.config.vae.scaling_factor, 1);
        defer b.free(scaled);
        if (i == 0) {
            try exchange.open(rank.arena, 0);
            try rank.transport.endOpen();
        }
        const decoded = try decode(rank, @intCast(i), scaled);
        defer b.free(decoded);
        const rgb = try b.toRgb(decoded);
        defer b.free(rgb);
        try saveRows(rank, i, patch, decoded, rgb);
        try bringRows(rank, i, decoded, rgb);
        // A slower rank may still read this image's shards.
        try rank.transport.barrier();
    }
    exchange.close();
}

/// Runs the decoder on a latent divided by the scaling factor, or on this rank's rows of it, and
/// checks that the output is finite. `image_index` counts within the job.
pub fn decode(rank: *Rank, image_index: u32, latent: Tensor) Error!Tensor {
    rank.vae_exchange.enterStep(image_index, .all);
    const key: GraphKey = .of(.vae_decoder, latent, rank.vae_exchange.stepVariant());
    const decoded = try rank.b.runGraphed(key, runDecoder, .{ rank, latent });
    if (!try rank.b.isFinite(decoded)) return rank.notFinite("The VAE's decoder gave", .{});
    return decoded;
}

// --- internal ---

fn runDecoder(rank: *Rank, latent: Tensor) Error!Tensor {
    try rank.vae_exchange.beginStep();
    const ctx: Context = .{ .b = rank.b, .exchange = rank.vae_exchange };
    const decoded = try rank.model.vae.decode(ctx, latent);
    try rank.vae_exchange.endStep();
    return decoded;
}

/// Sends the rows of image `i` that other processes have decoded to rank 0.
fn bringRows(rank: *Rank, i: usize, decoded: Tensor, rgb: Tensor) Error!void {
    if (rank.local_ranks.first > 0) {
        try rank.transport.send(rgb, 0);
        if (rank.job.wants_decoded) try rank.transport.send(decoded, 0);
        return;
    }
    if (rank.index > 0) return;
    for (rank.local_ranks.end..rank.layout.rank_count) |at| {
        const other: u32 = @intCast(at);
        const patch = rank.vae_exchange.patches[other];
        var shape = rgb.shape;
        shape.rows = patch.row_count * rank.model.config.vae.factor();
        const their_rgb = try gather.receive(rank, shape, rgb.dtype, other);
        defer rank.b.free(their_rgb);
        const their_decoded = if (rank.job.wants_decoded)
            try gather.receive(rank, shape, decoded.dtype, other)
        else
            null;
        defer if (their_decoded) |tensor| rank.b.free(tensor);
        try saveRows(rank, i, patch, their_decoded orelse decoded, their_rgb);
    }
}

/// Writes rows of image `i` to the outputs, which the ranks of a process share.
fn saveRows(
    rank: *Rank,
    i: usize,
    patch: Patch,
    decoded: Tensor,
    rgb: Tensor,
) Error!void {
    if (rank.isPlanning()) return;
    const job = rank.job;
    const factor = rank.model.config.vae.factor();
    const row_first = patch.row_first * factor;
    const width: usize = decoded.shape.width;
    const positions = job.latent_rows * factor * width;
    const channels: usize = decoded.shape.channels;
    const bytes = rank.result.values(u8, .rgb);
    const first = (i * positions + row_first * width) * channels;
    try rank.b.download(rgb, bytes[first..][0..rgb.byteCount()]);
    if (!job.wants_decoded) return;
    const host = try rank.arena.alloc(f32, decoded.shape.elementCount());
    const turned = try rank.arena.alloc(f32, host.len);
    try rank.b.downloadFloats(decoded, host);
    const own = decoded.shape.positionCount();
    nchw.fromNhwc(turned, host, channels, own);
    const values = rank.result.values(f32, .decoded);
    for (0..channels) |c| {
        const at = (i * channels + c) * positions + row_first * width;
        @memcpy(values[at..][0..own], turned[c * own ..][0..own]);
    }
}
