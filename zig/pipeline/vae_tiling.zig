//! Decodes an image in overlapping tiles, where one rank has no memory for the whole image. Group
//! norms and the mid block's attention are computed per tile, so the result differs from that of
//! the whole image: it equals diffusers' with tiling enabled, including the seams.
//! Source: diffusers models/autoencoders/autoencoder_kl.py, tiled_decode, blend_v, blend_h.

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;
const Shape = @import("../tensor.zig").Shape;
const decoding = @import("decode.zig");
const tile_files = @import("tiles.zig");
const Blender = tile_files.Blender;
const Cut = tile_files.Cut;
const Tiles = tile_files.Tiles;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// Decodes the images of the job one by one to `rgb` and, where requested, `decoded`. `latent` is
/// (images, rows, width, channels) in the sampler's scale.
pub fn decodeImages(rank: *Rank, latent: Tensor) Error!void {
    const job = rank.job;
    const rgb = rank.result.values(u8, .rgb);
    const decoded = rank.result.values(f32, .decoded);
    var tiler: Tiler = try .init(rank, latent.shape, job.vae_tile_latent);
    for (job.seeds, 0..) |_, i| {
        const one = latent.batchSlice(@intCast(i), 1);
        const scaled = try rank.b.scaleRepeat(one, 1 / rank.model.config.vae.scaling_factor, 1);
        defer rank.b.free(scaled);
        try tiler.decode(scaled, .{
            .rgb = imageOf(u8, rgb, i, job.seeds.len),
            .decoded = imageOf(f32, decoded, i, job.seeds.len),
        });
    }
}

/// Decodes `latent` (1, rows, width, channels), divided by the scaling factor, to `decoded` and
/// `rgb` as `components.decodeSample` does.
pub fn decodeSample(rank: *Rank, latent: Tensor) Error!void {
    const factor: usize = rank.model.config.vae.factor();
    var tiler: Tiler = try .init(rank, latent.shape, rank.job.vae_tile_latent);
    const count = latent.shape.positionCount() * factor * factor * tiler.channels;
    if (rank.isPlanning()) return tiler.decode(latent, .{});
    const decoded = try rank.result.alloc(f32, .decoded, count);
    const rgb = try rank.result.alloc(u8, .rgb, count);
    try tiler.decode(latent, .{ .decoded = decoded, .rgb = rgb });
}

// --- internal ---

fn imageOf(comptime T: type, all: []T, index: usize, count: usize) []T {
    const len = all.len / count;
    return all[index * len ..][0..len];
}

/// Outputs for finished pixels; an empty slice is not written.
const Target = struct {
    /// (rows, width, 3)
    rgb: []u8 = &.{},
    /// The decoder's output in f32, (3, rows, width).
    decoded: []f32 = &.{},
};

/// Host buffers of one tile, in NHWC. Sizes are in pixels, except those of `tiles`.
const Tiler = struct {
    rank: *Rank,
    /// Shape of one image's latent.
    shape: Shape,
    tiles: Tiles,
    factor: u32,
    channels: u32,
    /// Distance between tiles.
    stride: u32,
    blender: Blender,
    latent: []f32,
    cut: []f32,
    decoded: []f32,
    part: []f32,
    bytes: []u8,

    fn init(rank: *Rank, latent: Shape, tile_asked: u32) Error!Tiler {
        // Also runs while planning, so this is refused before weights load.
        if (rank.layout.rank_count != 1 or tile_asked % tile_files.tile_unit != 0) {
            return rank.diagnostics.fail(error.NotDealable, "{d} ranks cannot decode in tiles " ++
                "of {d}: one rank can, in multiples of {d}.", .{
                rank.layout.rank_count, tile_asked, tile_files.tile_unit,
            });
        }
        const factor = rank.model.config.vae.factor();
        const channels = rank.model.config.vae.out_channels;
        var shape = latent;
        shape.batch = 1;
        const tiles: Tiles = .init(shape, tile_asked);
        const tile, const step = .{ tiles.tile, tiles.step };
        const side: usize = tile * factor;
        const part: usize = step * factor;
        const arena = rank.arena;
        return .{
            .rank = rank,
            .shape = shape,
            .tiles = tiles,
            .factor = factor,
            .channels = channels,
            .stride = step * factor,
            .blender = try .init(arena, shape, tiles, factor, channels),
            .latent = try arena.alloc(f32, shape.elementCount()),
            .cut = try arena.alloc(f32, @as(usize, tile) * tile * shape.channels),
            .decoded = try arena.alloc(f32, side * side * channels),
            .part = try arena.alloc(f32, part * part * channels),
            .bytes = try arena.alloc(u8, part * part * channels),
        };
    }

    /// `latent` is (1, rows, width, channels), divided by the scaling factor.
    fn decode(tiler: *Tiler, latent: Tensor, target: Target) Error!void {
        // The latent is small: cut on the host, so that the device needs no operation for columns.
        try tiler.rank.b.downloadFloats(latent, tiler.latent);
        var tiles = tiler.tiles.iterate(tiler.shape);
        while (tiles.next()) |cut| {
            try tiler.decodeTile(cut);
            const place = cut.times(tiler.factor);
            if (!tiler.rank.isPlanning()) tiler.blender.blend(tiler.decoded, place);
            try tiler.emit(place, target);
        }
    }

    /// Decodes a rectangle of the latent to `decoded`.
    fn decodeTile(tiler: *Tiler, cut: Cut) Error!void {
        const b = tiler.rank.b;
        var shape = tiler.shape;
        shape.rows = cut.rows;
        shape.width = cut.width;
        const line = cut.width * shape.channels;
        if (!tiler.rank.isPlanning()) {
            for (0..cut.rows) |y| {
                const position = (cut.row + y) * tiler.shape.width + cut.column;
                const from = tiler.latent[position * shape.channels ..][0..line];
                @memcpy(tiler.cut[y * line ..][0..line], from);
            }
        }
        const values = tiler.cut[0..shape.elementCount()];
        const latent = try b.uploadFloats(shape, values);
        defer b.free(latent);
        const rank = tiler.rank;
        const decoded = try decoding.decode(rank, 0, latent);
        defer b.free(decoded);
        const out = tiler.decoded[0..decoded.shape.elementCount()];
        try b.downloadFloats(decoded, out);
    }

    /// Writes the pixels that no later tile covers to the image.
    fn emit(tiler: *Tiler, place: Cut, target: Target) Error!void {
        const b = tiler.rank.b;
        const channels = tiler.channels;
        const rows = @min(tiler.stride, place.rows);
        const width = @min(tiler.stride, place.width);
        const line = width * channels;
        if (!tiler.rank.isPlanning()) {
            for (0..rows) |y| {
                const from = tiler.decoded[y * place.width * channels ..][0..line];
                @memcpy(tiler.part[y * line ..][0..line], from);
            }
        }
        const shape: Shape = .{ .batch = 1, .rows = rows, .width = width, .channels = channels };
        const part = tiler.part[0..shape.elementCount()];
        const tensor = try b.uploadFloats(shape, part);
        defer b.free(tensor);
        const rgb = try b.toRgb(tensor);
        defer b.free(rgb);
        const bytes = tiler.bytes[0..part.len];
        try b.download(rgb, bytes);
        if (tiler.rank.isPlanning()) return;

        const whole_width = tiler.shape.width * tiler.factor;
        const whole_count = tiler.shape.positionCount() * tiler.factor * tiler.factor;
        for (0..rows) |y| {
            const first = (place.row + y) * whole_width + place.column;
            @memcpy(target.rgb[first * channels ..][0..line], bytes[y * line ..][0..line]);
            if (target.decoded.len == 0) continue;
            for (0..width) |x| {
                for (0..channels) |channel| {
                    const value = part[y * line + x * channels + channel];
                    target.decoded[channel * whole_count + first + x] = value;
                }
            }
        }
    }
};
