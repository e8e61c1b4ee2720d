//! Enlarges an image by a network, in overlapping tiles that the local ranks share. All tiles have
//! the same size, so that a device plans it once; of what two have both, each gives the half that
//! is farther from its edge.

const std = @import("std");
const assert = std.debug.assert;
const Context = @import("../model/layers.zig").Context;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Patch = @import("../patch/layout.zig").Patch;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const Upscale = @import("job.zig").Upscale;
const upscalers = @import("../model/upscaler.zig");
const Upscaler = upscalers.Upscaler;
const UpscalerConfig = upscalers.UpscalerConfig;

/// Pixels of the image that a tile reads beyond those that are kept.
const overlap = 32;
/// Pixels of a side of a tile; of smaller ones the overlap is the most.
pub const tile_min = 4 * overlap;

/// Writes the rank's tiles of the job's image, enlarged by its network, to `rgb` and `decoded`.
pub fn run(rank: *Rank) Error!void {
    const job = rank.job;
    _ = rank.begin(.upscale);
    const upscaler = &rank.networks[0].graph.upscaler;
    const rows, const columns = axesOf(job.upscale, &upscaler.config);
    var tiler: Tiler = try .init(rank, upscaler, rows, columns);
    const count = rows.count * columns.count;
    const share_count = rank.local_ranks.count();
    const first = rank.index - rank.local_ranks.first;
    if (rank.reporter) |reporter| {
        reporter.step_count.store((count - first - 1) / share_count + 1, .release);
    }
    rank.enterNetwork(0);
    rank.enterSteps();
    var number = first;
    while (number < count) : (number += share_count) {
        try tiler.run(number / columns.count, number % columns.count);
        if (rank.reporter) |reporter| _ = reporter.step_index.fetchAdd(1, .release);
        // All tiles take the same memory.
        if (rank.isPlanning()) return;
    }
}

/// Tiles of an image of this size.
pub fn tileCount(size: Upscale, config: *const UpscalerConfig) u32 {
    const rows, const columns = axesOf(size, config);
    return rows.count * columns.count;
}

// --- internal ---

fn axesOf(size: Upscale, config: *const UpscalerConfig) [2]Axis {
    return .{
        .init(size.rows, size.tile, config.unshuffle),
        .init(size.width, size.tile, config.unshuffle),
    };
}

/// The tiles along one side of an image, in pixels.
const Axis = struct {
    /// Of the image, and rounded up to whole positions of the network.
    size: u32,
    whole: u32,
    tile: u32,
    count: u32,

    fn init(size: u32, tile_size: u32, unit: u32) Axis {
        assert(size > 0 and tile_size > 2 * overlap and overlap % unit == 0);
        const whole = std.mem.alignForward(u32, size, unit);
        const tile = @min(whole, std.mem.alignForward(u32, tile_size, unit));
        const count = if (whole == tile)
            1
        else
            1 + (std.math.divCeil(u32, whole - tile, tile - 2 * overlap) catch unreachable);
        return .{ .size = size, .whole = whole, .tile = tile, .count = count };
    }

    fn start(axis: Axis, index: u32) u32 {
        return @min(index * (axis.tile -| 2 * overlap), axis.whole - axis.tile);
    }

    /// The first pixel that comes from this tile; of the tile behind the last, the end.
    fn keptFrom(axis: Axis, index: u32) u32 {
        if (index == 0) return 0;
        if (index == axis.count) return axis.size;
        return (axis.start(index - 1) + axis.tile + axis.start(index)) / 2;
    }

    /// The pixel that is read at `position`: those beyond the image are its mirror image.
    fn source(axis: Axis, position: u32) u32 {
        if (position < axis.size) return position;
        return axis.size -| (2 + position - axis.size);
    }
};

const Tiler = struct {
    rank: *Rank,
    upscaler: *const Upscaler,
    rows: Axis,
    columns: Axis,
    /// Host buffers of one tile: what the network reads, and what it gives.
    values: []f32,
    enlarged: []f32,
    bytes: []u8,
    floats: []f32,

    fn init(
        rank: *Rank,
        upscaler: *const Upscaler,
        rows: Axis,
        columns: Axis,
    ) Error!Tiler {
        const config = &upscaler.config;
        const pixel_count = @as(usize, rows.tile) * columns.tile;
        const scale: usize = config.scale();
        const has_enlarged = config.kind == .compact and !rank.isPlanning();
        const len = if (rank.isPlanning()) 0 else 3 * pixel_count;
        const wants_floats = rank.job.wants_decoded;
        return .{
            .rank = rank,
            .upscaler = upscaler,
            .rows = rows,
            .columns = columns,
            .values = try rank.arena.alloc(f32, len),
            .enlarged = try rank.arena.alloc(f32, if (has_enlarged) len * scale * scale else 0),
            .bytes = try rank.arena.alloc(u8, len * scale * scale),
            .floats = try rank.arena.alloc(f32, if (wants_floats) len * scale * scale else 0),
        };
    }

    fn run(tiler: *Tiler, row: u32, column: u32) Error!void {
        const rank = tiler.rank;
        const b = rank.b;
        const config = &tiler.upscaler.config;
        const unit = config.unshuffle;
        const shape: Shape = .{
            .batch = 1,
            .rows = tiler.rows.tile / unit,
            .width = tiler.columns.tile / unit,
            .channels = config.inChannels(),
        };
        tiler.read(tiler.rows.start(row), tiler.columns.start(column));
        const x = try b.uploadFloats(shape, tiler.values);
        defer b.free(x);
        const enlarged = if (config.kind == .compact)
            try b.uploadFloats(shape.withChannels(config.outChannels()), tiler.enlarged)
        else
            null;
        defer if (enlarged) |tensor| b.free(tensor);
        const patches: [1]Patch = .{.{ .row_first = 0, .row_count = shape.rows }};
        var exchange: Exchange = .ofSinglePatch(b, &patches);
        const ctx: Context = .{ .b = b, .exchange = &exchange };
        const enlarged_tile = try tiler.upscaler.forward(ctx, x, enlarged);
        defer b.free(enlarged_tile);
        if (!try b.isFinite(enlarged_tile)) return rank.notFinite("The upscaler gave", .{});
        const rgb = try b.toRgb(enlarged_tile);
        defer b.free(rgb);
        if (rank.isPlanning()) return;
        try b.download(rgb, tiler.bytes);
        tiler.write(u8, rank.result.values(u8, .rgb), tiler.bytes, row, column);
        if (!rank.job.wants_decoded) return;
        try b.downloadFloats(enlarged_tile, tiler.floats);
        tiler.write(f32, rank.result.values(f32, .decoded), tiler.floats, row, column);
    }

    /// Fills `values` (rows, width, 3 * unit * unit) as torch's pixel_unshuffle orders channels,
    /// and `enlarged`.
    fn read(tiler: *Tiler, row_first: u32, column_first: u32) void {
        if (tiler.rank.isPlanning()) return;
        const config = &tiler.upscaler.config;
        const unit: usize = config.unshuffle;
        const channels: usize = config.inChannels();
        const width = tiler.columns.tile / unit;
        for (0..tiler.rows.tile) |y| {
            const row: usize = tiler.rows.source(row_first + @as(u32, @intCast(y)));
            for (0..tiler.columns.tile) |x| {
                const column: usize = tiler.columns.source(column_first + @as(u32, @intCast(x)));
                const position = row * tiler.columns.size + column;
                const pixel = tiler.rank.job.image[position * 3 ..][0..3];
                const at = (y / unit * width + x / unit) * channels + y % unit * unit + x % unit;
                for (pixel, 0..) |byte, c| {
                    tiler.values[at + c * unit * unit] = @as(f32, @floatFromInt(byte)) / 255;
                }
            }
        }
        if (config.kind != .compact) return;
        const per_colour: usize = config.outChannels() / 3;
        for (tiler.enlarged, 0..) |*value, i| value.* = tiler.values[i / per_colour];
    }

    /// Writes the pixels that this tile gives to the image `out`, (rows, width, 3).
    fn write(
        tiler: *Tiler,
        comptime T: type,
        out: []T,
        values: []const T,
        row: u32,
        column: u32,
    ) void {
        const config = &tiler.upscaler.config;
        const scale: usize = config.scale();
        const shuffle: usize = config.shuffle;
        const width = tiler.columns.tile * scale / shuffle;
        const out_width = tiler.columns.size * scale;
        const row_first = tiler.rows.start(row) * scale;
        const column_first = tiler.columns.start(column) * scale;
        for (tiler.rows.keptFrom(row) * scale..tiler.rows.keptFrom(row + 1) * scale) |y| {
            const tile_y = y - row_first;
            const from = tiler.columns.keptFrom(column) * scale;
            const end = tiler.columns.keptFrom(column + 1) * scale;
            for (from..end) |x| {
                const tile_x = x - column_first;
                const position = tile_y / shuffle * width + tile_x / shuffle;
                const place = tile_y % shuffle * shuffle + tile_x % shuffle;
                const source = values[position * config.outChannels() ..];
                const target = out[(y * out_width + x) * 3 ..][0..3];
                for (target, 0..) |*value, c| value.* = source[c * shuffle * shuffle + place];
            }
        }
    }
};

test "tiles have one size, cover the image and read beyond what they give" {
    for (1..700) |size| {
        for ([_]u32{ 1, 2, 4 }) |unit| {
            const axis: Axis = .init(@intCast(size), 100, unit);
            try std.testing.expect(axis.whole % unit == 0 and axis.tile % unit == 0);
            var end: u32 = 0;
            for (0..axis.count) |i| {
                const index: u32 = @intCast(i);
                const start = axis.start(index);
                try std.testing.expect(start % unit == 0 and start + axis.tile <= axis.whole);
                const from = axis.keptFrom(index);
                try std.testing.expectEqual(end, from);
                end = axis.keptFrom(index + 1);
                try std.testing.expect(end > from and end <= start + axis.tile);
                if (index > 0) try std.testing.expect(from >= start + overlap);
                const is_last = index + 1 == axis.count;
                if (!is_last) try std.testing.expect(end + overlap <= start + axis.tile);
            }
            try std.testing.expectEqual(size, end);
            for (0..axis.whole) |position| {
                try std.testing.expect(axis.source(@intCast(position)) < size);
            }
        }
    }
}
