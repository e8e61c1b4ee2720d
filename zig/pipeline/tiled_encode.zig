//! Encodes an image in overlapping tiles, where one rank has no memory for the whole: the moments
//! equal diffusers' with tiling enabled, including the seams.
//! Source: diffusers models/autoencoders/autoencoder_kl.py, tiled_encode.

const std = @import("std");
const encoding = @import("encode.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Shape = @import("../tensor.zig").Shape;
const tile_files = @import("tiles.zig");
const Blender = tile_files.Blender;
const Cut = tile_files.Cut;
const Tiles = tile_files.Tiles;

/// Whether the job's image does not fit in one of its tiles.
pub fn needsTiles(rank: *const Rank) bool {
    const tile = rank.job.vae_tile_latent;
    return tile > 0 and (rank.job.latent_rows > tile or rank.job.latent_width > tile);
}

/// The moments (rows, width, 2 * channels) of an image, the pixels of which are `pixels` (factor *
/// rows, factor * width, 3) of -1 to 1; both are empty in a dry run.
pub fn encode(rank: *Rank, pixels: []const f32, step: u32) Error![]const f32 {
    const b = rank.b;
    const vae = &rank.model.config.vae;
    const factor = vae.factor();
    const latent = rank.latentShape(1).withChannels(2 * vae.latent_channels);
    const tiles: Tiles = .init(latent, rank.job.vae_tile_latent);
    var blender: Blender = try .init(rank.arena, latent, tiles, 1, latent.channels);
    const side: usize = tiles.tile * factor;
    const tile = try rank.arena.alloc(f32, side * side * vae.in_channels);
    const own = try rank.arena.alloc(f32, tiles.tile * tiles.tile * latent.channels);
    const len = if (rank.isPlanning()) 0 else latent.elementCount();
    const moments = try rank.arena.alloc(f32, len);
    var all = tiles.iterate(latent);
    while (all.next()) |cut| {
        const place = cut.times(factor);
        const shape: Shape = .{
            .batch = 1,
            .rows = place.rows,
            .width = place.width,
            .channels = vae.in_channels,
        };
        const values = tile[0..shape.elementCount()];
        if (!rank.isPlanning()) {
            copyCut(values, pixels, place, latent.width * factor, vae.in_channels);
        }
        const image = try b.uploadFloats(shape, values);
        defer b.free(image);
        rank.encoder_exchange.enterStep(step, .all);
        const encoded = try encoding.encode(rank, image);
        defer b.free(encoded);
        const made = own[0..encoded.shape.elementCount()];
        try b.downloadFloats(encoded, made);
        if (rank.isPlanning()) continue;
        blender.blend(made, cut);
        keep(moments, latent, made, cut, tiles.step);
    }
    return moments;
}

// --- internal ---

/// A rectangle of `pixels`, whose rows are `width` wide.
fn copyCut(out: []f32, pixels: []const f32, cut: Cut, width: u32, channels: u32) void {
    const line: usize = cut.width * channels;
    for (0..cut.rows) |y| {
        const first = ((cut.row + y) * width + cut.column) * channels;
        @memcpy(out[y * line ..][0..line], pixels[first..][0..line]);
    }
}

/// Writes what no later tile covers.
fn keep(moments: []f32, latent: Shape, tile: []const f32, cut: Cut, step: u32) void {
    const channels: usize = latent.channels;
    const line = @min(step, cut.width) * channels;
    for (0..@min(step, cut.rows)) |y| {
        const first = ((cut.row + y) * latent.width + cut.column) * channels;
        @memcpy(moments[first..][0..line], tile[y * cut.width * channels ..][0..line]);
    }
}
