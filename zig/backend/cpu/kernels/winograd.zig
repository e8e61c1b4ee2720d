//! A 3x3 convolution of stride 1 by Winograd's minimal filtering: every tile of m x m outputs needs
//! (m + 2)^2 multiplications per channel, 2.25 (m = 2) or 4 (m = 4) times fewer than nine per
//! output. Three operations: tiles of the input are transformed; for every point of the transform,
//! a product over the channels, whose weights are transformed while they are packed; the products
//! are transformed to outputs. Errors are larger than those of sums in order, most with m = 4.
//! Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308.

const std = @import("std");
const arguments = @import("../arguments.zig");
const convolution = @import("convolution.zig");
const linear = @import("linear.zig");
const packing = @import("pack.zig");
const product = @import("product.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Vec = v.Vec;
const Winograd = arguments.Winograd;
const lanes = v.lanes;

const taps = 3;

/// The matrices of a tile of `m` x `m` outputs: input, weights and outputs are transformed by them
/// from the left, and by their transposes from the right.
fn Transform(comptime m: usize) type {
    return struct {
        const n = m + taps - 1;
        const input: [n][n]f32 = if (m == 2) .{
            .{ 1, 0, -1, 0 },
            .{ 0, 1, 1, 0 },
            .{ 0, -1, 1, 0 },
            .{ 0, 1, 0, -1 },
        } else .{
            .{ 4, 0, -5, 0, 1, 0 },
            .{ 0, -4, -4, 1, 1, 0 },
            .{ 0, 4, -4, -1, 1, 0 },
            .{ 0, -2, -1, 2, 1, 0 },
            .{ 0, 2, -1, -2, 1, 0 },
            .{ 0, 4, 0, -5, 0, 1 },
        };
        const weight: [n][taps]f32 = if (m == 2) .{
            .{ 1, 0, 0 },
            .{ 0.5, 0.5, 0.5 },
            .{ 0.5, -0.5, 0.5 },
            .{ 0, 0, 1 },
        } else .{
            .{ 1.0 / 4.0, 0, 0 },
            .{ -1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0 },
            .{ -1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0 },
            .{ 1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0 },
            .{ 1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0 },
            .{ 0, 0, 1 },
        };
        const output: [m][n]f32 = if (m == 2) .{
            .{ 1, 1, 1, 0 },
            .{ 0, 1, -1, -1 },
        } else .{
            .{ 1, 1, 1, 1, 1, 0 },
            .{ 0, 1, -1, 2, -2, 0 },
            .{ 0, 1, 1, 4, 4, 0 },
            .{ 0, 1, -1, 8, -8, 1 },
        };
    };
}

/// Where a tile lies: its image, and its first output.
const Place = struct {
    batch: usize,
    y: usize,
    x: usize,

    fn of(args: *const Winograd, index: usize) Place {
        const wide = args.tiles_wide;
        return .{
            .batch = index / (args.tiles_high * wide),
            .y = index / wide % args.tiles_high * args.m,
            .x = index % wide * args.m,
        };
    }
};

/// Task = `tiles_per_task` tiles of the chunk.
pub fn transformInput(
    args: *const anyopaque,
    task: usize,
    _: [*]align(64) u8,
) callconv(.c) void {
    const winograd: *const Winograd = @ptrCast(@alignCast(args));
    if (winograd.m == 2) inputTiles(2, winograd, task) else inputTiles(4, winograd, task);
}

/// Task = column and row block of the product * points + point, so that the weights of a block are
/// read from memory once.
pub fn multiply(args: *const anyopaque, task: usize, workspace: [*]align(64) u8) callconv(.c) void {
    const winograd: *const Winograd = @ptrCast(@alignCast(args));
    const point = task % winograd.point_count;
    const p = &winograd.linears[point].product;
    if (winograd.m == 2) {
        product.run(p, Points(2){ .args = winograd }, task / winograd.point_count, workspace);
    } else {
        product.run(p, Points(4){ .args = winograd }, task / winograd.point_count, workspace);
    }
}

/// Task = `tiles_per_task` tiles of the chunk.
pub fn transformOutput(
    args: *const anyopaque,
    task: usize,
    _: [*]align(64) u8,
) callconv(.c) void {
    const winograd: *const Winograd = @ptrCast(@alignCast(args));
    switch (winograd.convolution.product.epilogue.activation) {
        inline else => |activation| if (winograd.m == 2)
            outputTiles(2, activation, winograd, task)
        else
            outputTiles(4, activation, winograd, task),
    }
}

// --- internal ---

fn inputTiles(comptime m: usize, args: *const Winograd, task: usize) void {
    @setEvalBranchQuota(10_000);
    const t = Transform(m);
    const first = task * args.tiles_per_task;
    for (first..@min(args.tile_count, first + args.tiles_per_task)) |index| {
        const pixels = pixelsOf(t.n, args, .of(args, args.tile_first + index));
        const channels = args.convolution.channels;
        var channel: usize = 0;
        while (channel < channels) : (channel += lanes) {
            var rows: [t.n][t.n]Vec = undefined;
            inline for (0..t.n) |x| {
                var column: [t.n]Vec = undefined;
                inline for (0..t.n) |y| {
                    column[y] = if (pixels[y][x]) |p| v.load(p + channel) else @splat(0);
                }
                inline for (0..t.n) |i| rows[i][x] = combine(t.n, t.input[i], column);
            }
            inline for (0..t.n) |i| {
                inline for (0..t.n) |j| {
                    const x: [*]f32 = @constCast(args.linears[i * t.n + j].x);
                    v.store(x + index * channels + channel, combine(t.n, t.input[j], rows[i]));
                }
            }
        }
    }
}

/// The channels of a tile's inputs, null where they are padding.
fn pixelsOf(comptime n: usize, args: *const Winograd, place: Place) [n][n]?[*]const f32 {
    const conv = &args.convolution;
    var pixels: [n][n]?[*]const f32 = undefined;
    for (0..n) |i| {
        const y = @as(i32, @intCast(place.y + i)) - 1;
        for (0..n) |j| {
            const x = @as(i32, @intCast(place.x + j)) - 1;
            // Below the halo nothing is read that an output uses.
            const is_below = y > conv.rows;
            pixels[i][j] = if (is_below)
                null
            else
                convolution.pixel(conv, @intCast(place.batch), y, x);
        }
    }
    return pixels;
}

/// The sum of `values` by constant factors.
inline fn combine(comptime n: usize, comptime factors: [n]f32, values: [n]Vec) Vec {
    var sum: Vec = @splat(0);
    comptime var is_first = true;
    inline for (0..n) |i| {
        if (factors[i] == 0) continue;
        if (is_first) {
            sum = if (factors[i] == 1) values[i] else v.splat(factors[i]) * values[i];
            is_first = false;
        } else if (factors[i] == 1) {
            sum += values[i];
        } else if (factors[i] == -1) {
            sum -= values[i];
        } else {
            sum = v.fma(v.splat(factors[i]), values[i], sum);
        }
    }
    return sum;
}

/// The products of all points: rows are tiles, columns the output's channels.
fn Points(comptime m: usize) type {
    return struct {
        args: *const Winograd,

        pub fn sourceOf(points: @This(), p: *const arguments.Product) PointSource(m) {
            const own: *const arguments.Linear = @fieldParentPtr("product", p);
            const index = (@intFromPtr(own) - @intFromPtr(&points.args.linears)) /
                @sizeOf(arguments.Linear);
            return .{ .rows = .{ .x = own.x, .depth = p.depth }, .product = p, .point = index };
        }
    };
}

fn PointSource(comptime m: usize) type {
    const t = Transform(m);
    return struct {
        rows: linear.RowSource,
        product: *const arguments.Product,
        point: usize,

        pub const is_scattered = false;

        pub fn fill(
            source: @This(),
            row_first: usize,
            row_count: usize,
            k_first: usize,
            depth: usize,
            panel: [*]tile.Element,
        ) void {
            source.rows.fill(row_first, row_count, k_first, depth, panel);
        }

        pub fn place(source: @This(), row: usize, k: usize) @import("prefetch.zig").Place {
            return source.rows.place(row, k);
        }

        pub fn pack(
            source: @This(),
            comptime weight_type: arguments.WeightType,
            part: product.Part,
            target: [*]tile.Element,
        ) void {
            const p = source.product;
            const all: [*]const weights.Element(weight_type) = @ptrCast(@alignCast(p.weight));
            const factors = pointFactors(t, source.point);
            var sums: [tile.columns_max * tile.depth_max]f32 align(64) = undefined;
            var column: usize = 0;
            while (column < part.column_count) : (column += tile.columns_max) {
                const count = @min(tile.columns_max, part.column_count - column);
                for (0..count) |c| {
                    const row = part.column_first + column + c;
                    const scales = weights.scalesOf(weight_type, p.weight_scales, row);
                    sumTaps(weight_type, .{
                        .taps = all + row * taps * taps * p.depth + part.k_first,
                        .factor = weights.factorOf(weight_type, scales, 0),
                    }, &factors, p.depth, sums[c * part.depth ..][0..part.depth]);
                }
                packing.packColumns(.f32, .{
                    .source = &sums,
                    .scales = {},
                    .stride = part.depth,
                    .count = count,
                    .depth = part.depth,
                }, target + column * tile.per_word * tile.words(part.depth));
            }
        }
    };
}

/// Factors of the nine taps in the weights of a point.
fn pointFactors(comptime t: type, point: usize) [taps * taps]f32 {
    const rows = t.weight;
    const y = rows[point / t.n];
    const x = rows[point % t.n];
    var factors: [taps * taps]f32 = undefined;
    for (0..taps) |i| {
        for (0..taps) |j| factors[taps * i + j] = y[i] * x[j];
    }
    return factors;
}

/// `channels` is a multiple of the lanes, and so is the length of `sums`.
fn sumTaps(
    comptime weight_type: arguments.WeightType,
    column: weights.Column(weight_type),
    factors: *const [taps * taps]f32,
    channels: usize,
    sums: []f32,
) void {
    var used: [taps * taps]struct { factor: f32, offset: usize } = undefined;
    var count: usize = 0;
    for (factors, 0..) |factor, tap| {
        if (factor == 0) continue;
        used[count] = .{ .factor = factor, .offset = tap * channels };
        count += 1;
    }
    var k: usize = 0;
    while (k < sums.len) : (k += lanes) {
        var sum: Vec = @splat(0);
        for (used[0..count]) |tap| {
            const value = weights.load(
                weight_type,
                lanes,
                column.taps + tap.offset + k,
                column.factor,
            );
            sum = v.fma(v.splat(tap.factor), value, sum);
        }
        v.store(sums.ptr + k, sum);
    }
}

fn outputTiles(
    comptime m: usize,
    comptime activation: arguments.Activation,
    args: *const Winograd,
    task: usize,
) void {
    const t = Transform(m);
    const p = &args.convolution.product;
    const first = task * args.tiles_per_task;
    for (first..@min(args.tile_count, first + args.tiles_per_task)) |index| {
        const place: Place = .of(args, args.tile_first + index);
        var column: usize = 0;
        while (column < p.columns) : (column += lanes) {
            var rows: [m][t.n]Vec = undefined;
            inline for (0..t.n) |x| {
                var values: [t.n]Vec = undefined;
                inline for (0..t.n) |y| {
                    const products = args.linears[y * t.n + x].product.output;
                    values[y] = v.load(products + index * p.columns + column);
                }
                inline for (0..m) |i| rows[i][x] = combine(t.n, t.output[i], values);
            }
            var outputs: [m][m]Vec = undefined;
            inline for (0..m) |i| {
                inline for (0..m) |j| outputs[i][j] = combine(t.n, t.output[j], rows[i]);
            }
            for (&outputs, place.y..) |*values, y| {
                for (values, place.x..) |value, x| {
                    const at: Place = .{ .batch = place.batch, .y = y, .x = x };
                    storeOutput(activation, &args.convolution, at, column, value);
                }
            }
        }
    }
}

/// With bias, activation and residual; nothing where the tile is larger than the image.
inline fn storeOutput(
    comptime activation: arguments.Activation,
    conv: *const arguments.Convolution,
    at: Place,
    column: usize,
    sum: Vec,
) void {
    if (at.y >= conv.rows_out or at.x >= conv.width_out) return;
    const p = &conv.product;
    const e = &p.epilogue;
    const row = (at.batch * conv.rows_out + at.y) * conv.width_out + at.x;
    const offset = row * p.output_stride + column;
    var value = sum;
    if (e.bias) |bias| value += v.load(bias + column);
    if (e.channel_bias) |bias| value += v.load(bias + at.batch * p.columns + column);
    value = v.activate(activation, value);
    if (e.residual) |residual| value += v.load(residual + offset);
    v.store(p.output + offset, value);
}
