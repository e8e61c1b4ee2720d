//! The overlapping tiles of an image's latent, as diffusers cuts and blends them when it decodes
//! and encodes in tiles.
//! Source: diffusers models/autoencoders/autoencoder_kl.py, blend_v, blend_h.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Shape = @import("../tensor.zig").Shape;

/// Tile sizes are multiples of this, in rows and columns of the latent. Tiles overlap by a quarter;
/// with other sizes diffusers' tiles leave gaps.
pub const tile_unit = 4;

/// A rectangle of the latent or of the image.
pub const Cut = struct {
    row: u32,
    column: u32,
    rows: u32,
    width: u32,

    pub fn times(cut: Cut, factor: u32) Cut {
        return .{
            .row = cut.row * factor,
            .column = cut.column * factor,
            .rows = cut.rows * factor,
            .width = cut.width * factor,
        };
    }
};

/// Sizes in rows and columns of the latent.
pub const Tiles = struct {
    tile: u32,
    /// Distance between tiles.
    step: u32,

    /// As diffusers, one tile where the latent fits in it.
    pub fn init(latent: Shape, tile: u32) Tiles {
        if (latent.rows > tile or latent.width > tile) {
            return .{ .tile = tile, .step = tile - tile / tile_unit };
        }
        const side = @max(latent.rows, latent.width);
        return .{ .tile = side, .step = side };
    }

    /// Row by row.
    pub fn iterate(tiles: Tiles, latent: Shape) Iterator {
        return .{ .tiles = tiles, .rows = latent.rows, .width = latent.width };
    }

    const Iterator = struct {
        tiles: Tiles,
        rows: u32,
        width: u32,
        row: u32 = 0,
        column: u32 = 0,

        pub fn next(all: *Iterator) ?Cut {
            if (all.row >= all.rows) return null;
            const cut: Cut = .{
                .row = all.row,
                .column = all.column,
                .rows = @min(all.tiles.tile, all.rows - all.row),
                .width = @min(all.tiles.tile, all.width - all.column),
            };
            all.column += all.tiles.step;
            if (all.column >= all.width) {
                all.column = 0;
                all.row += all.tiles.step;
            }
            return cut;
        }
    };
};

/// The edges of tiles that later ones blend with, in NHWC on the host; sizes are those of what is
/// blended, `factor` times the latent's.
pub const Blender = struct {
    channels: u32,
    /// Of a tile, between tiles, and what two have both.
    side: u32,
    stride: u32,
    overlap: u32,
    /// The last `overlap` rows of each tile of the row above, blended, each `side` wide.
    above: []f32,
    /// The last `overlap` columns of the tile to the left, blended.
    left: []f32,

    pub fn init(
        arena: Allocator,
        latent: Shape,
        tiles: Tiles,
        factor: u32,
        channels: u32,
    ) Allocator.Error!Blender {
        const overlap: usize = (tiles.tile - tiles.step) * factor;
        const side: usize = tiles.tile * factor;
        const columns: usize = std.math.divCeil(u32, latent.width, tiles.step) catch unreachable;
        return .{
            .channels = channels,
            .side = @intCast(side),
            .stride = tiles.step * factor,
            .overlap = @intCast(overlap),
            .above = try arena.alloc(f32, columns * overlap * side * channels),
            .left = try arena.alloc(f32, side * overlap * channels),
        };
    }

    /// Blends a tile's `values` with the tile above it, then with the tile to its left, and keeps
    /// its own edges for the tiles below and to the right. Where a last tile is narrower than the
    /// overlap, the other tile too ends at the image's edge.
    pub fn blend(blender: *Blender, values: []f32, place: Cut) void {
        const channels = blender.channels;
        const overlap = blender.overlap;
        const line = place.width * channels;
        const edge_line = overlap * channels;
        const tile = values[0 .. place.rows * line];
        const above_line = blender.side * channels;
        const above = blender.above[place.column / blender.stride * overlap * above_line ..];
        if (place.row > 0) {
            const count = @min(overlap, place.rows);
            for (0..count) |y| {
                const old = above[(overlap - count + y) * above_line ..][0..line];
                mix(tile[y * line ..][0..line], old, y, count);
            }
        }
        if (place.column > 0) {
            const count = @min(overlap, place.width);
            for (0..place.rows) |y| {
                const old = blender.left[y * edge_line + (overlap - count) * channels ..];
                for (0..count) |x| {
                    const new = tile[y * line + x * channels ..][0..channels];
                    mix(new, old[x * channels ..][0..channels], x, count);
                }
            }
        }
        if (place.rows >= overlap) {
            for (0..overlap) |y| {
                const last = tile[(place.rows - overlap + y) * line ..][0..line];
                @memcpy(above[y * above_line ..][0..line], last);
            }
        }
        if (place.width >= overlap) {
            for (0..place.rows) |y| {
                const last = tile[(y + 1) * line - edge_line ..][0..edge_line];
                @memcpy(blender.left[y * edge_line ..][0..edge_line], last);
            }
        }
    }
};

// --- internal ---

/// Linear blend over `count` positions: only `old` at position 0, nearly only `new` at the last.
fn mix(new: []f32, old: []const f32, position: usize, count: usize) void {
    const share = @as(f64, @floatFromInt(position)) / @as(f64, @floatFromInt(count));
    const of_new: f32 = @floatCast(share);
    const of_old: f32 = @floatCast(1 - share);
    for (new, old) |*value, other| value.* = other * of_old + value.* * of_new;
}

test "tiles cover a latent row by row" {
    const latent: Shape = .{ .batch = 1, .rows = 10, .width = 7, .channels = 4 };
    var tiles = Tiles.init(latent, 8).iterate(latent);
    try std.testing.expectEqual(Cut{ .row = 0, .column = 0, .rows = 8, .width = 7 }, tiles.next());
    try std.testing.expectEqual(Cut{ .row = 0, .column = 6, .rows = 8, .width = 1 }, tiles.next());
    try std.testing.expectEqual(Cut{ .row = 6, .column = 0, .rows = 4, .width = 7 }, tiles.next());
    try std.testing.expectEqual(Cut{ .row = 6, .column = 6, .rows = 4, .width = 1 }, tiles.next());
    try std.testing.expectEqual(null, tiles.next());
    var one = Tiles.init(latent, 12).iterate(latent);
    const whole: Cut = .{ .row = 0, .column = 0, .rows = 10, .width = 7 };
    try std.testing.expectEqual(whole, one.next());
    try std.testing.expectEqual(null, one.next());
}
