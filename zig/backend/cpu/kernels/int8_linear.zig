//! Linear layers in int8: rows of activations are rotated and rounded, once for all products that
//! read them; then panels of weights, which were packed when the model was loaded, are multiplied
//! by a few rows at a time. Sums are whole: a tile goes through the full depth.

const std = @import("std");
const arguments = @import("../arguments.zig");
const dot = @import("int8_dot.zig");
const rotation = @import("int8_rotate.zig");
const v = @import("vector.zig");
const Ints = v.Ints;
const Vec = v.Vec;
const Product = arguments.Product;
const lanes = v.lanes;

pub const depth_max = 8192;
pub const panel_columns = arguments.int8_panel_columns;

/// Sums, weights and one activation fill the registers.
pub const rows_max: usize = switch (lanes) {
    16 => 14,
    8 => if (dot.kind == .pairs) 4 else 6,
    else => switch (dot.kind) {
        .mmla => 10,
        .dot, .plain => 8,
        .pairs, .vnni => 2,
    },
};
/// Row counts that have code of their own.
const row_variants: [3]usize = switch (rows_max) {
    14 => .{ 4, 8, 14 },
    10 => .{ 2, 6, 10 },
    8 => .{ 2, 4, 8 },
    6 => .{ 2, 4, 6 },
    4 => .{ 1, 2, 4 },
    else => .{ 1, 2, 2 },
};
const vectors = 2;
const tile_columns = vectors * lanes;

/// The extra line keeps the rows of a panel from falling into the same cache sets.
const row_stride = depth_max * dot.row_bytes + 64;
const panel_bytes = rows_max * row_stride;
const edge_count = rows_max * panel_columns;
pub const workspace_bytes = @sizeOf(f32) * (depth_max + edge_count) + panel_bytes;

/// Steps of the depth, in fours, of a turn of the loop.
const unroll = 4;
comptime {
    std.debug.assert(arguments.int8_depth_unit == 4 * unroll);
}
/// Bytes of four steps of the depth in a panel of weights.
const four_stride = 4 * panel_columns;
/// Bytes that weights are asked for ahead.
const prefetch_distance = 2048;

pub fn quantizeRows(
    args: *const anyopaque,
    task: usize,
    workspace: [*]align(64) u8,
) callconv(.c) void {
    const a: *const arguments.QuantizeRows = @ptrCast(@alignCast(args));
    const room: [*]f32 = @ptrCast(workspace);
    const first = task * a.rows_per_task;
    for (first..@min(a.rows, first + a.rows_per_task)) |row| {
        const largest = rotation.rotate(room, a.x + row * a.depth, a.depth, a.group);
        const found = rotation.scaleOf(largest);
        a.scales[row] = found.scale;
        var k: usize = 0;
        while (k < a.depth) : (k += 16) {
            const integers: @Vector(16, u8) = @bitCast(rotation.round(room + k, found.inverse));
            const target = a.out + row * a.depth + k;
            const biased = integers +% @as(@Vector(16, u8), @splat(dot.bias));
            @as(*align(1) @Vector(16, u8), @ptrCast(target)).* = biased;
        }
    }
}

pub fn multiply(
    args: *const anyopaque,
    task: usize,
    workspace: [*]align(64) u8,
) callconv(.c) void {
    const linear: *const arguments.Int8Linear = @ptrCast(@alignCast(args));
    const product = &linear.product;
    const row_first = task % product.row_block_count * product.row_block;
    const row_end = @min(row_first + product.row_block, product.rows_together);
    var first: usize = 0;
    var next: ?*const Product = product;
    while (next) |p| : (next = p.next) {
        const end = first + p.rows;
        if (row_first < end and first < row_end) {
            const own: *const arguments.Int8Linear = @fieldParentPtr("product", p);
            const from = @max(first, row_first) - first;
            multiplyRows(own, product, from, @min(end, row_end) - first, task, workspace);
        }
        first = end;
    }
}

// --- internal ---

/// The rows `from` to `end` of `own` times the task's block of columns of `product`.
fn multiplyRows(
    own: *const arguments.Int8Linear,
    product: *const Product,
    from: usize,
    end: usize,
    task: usize,
    workspace: [*]align(64) u8,
) void {
    const edge: [*]i32 = @ptrCast(workspace);
    const panel: [*]u8 = @ptrCast(edge + edge_count);
    const depth = product.depth;
    const column_first = task / product.row_block_count * product.column_block;
    const column_end = @min(column_first + product.column_block, product.columns);
    const stride = arguments.int8PanelBytes(depth);
    const panels: [*]const u8 = @ptrCast(product.weight);
    const next: NextBlock = .of(product, task, end - from, column_end - column_first);
    var row = from;
    while (row < end) : (row += rows_max) {
        const row_count = @min(rows_max, end - row);
        for (0..row_count) |r| {
            dot.copyRow(panel, row_stride, r, own.x + (row + r) * depth, depth);
        }
        var column = column_first;
        while (column < column_end) : (column += panel_columns) {
            const ahead = next.share(row - from, column - column_first);
            const weights = panels + column / panel_columns * stride;
            const target = own.product.output + row * own.product.output_stride + column;
            var part: usize = 0;
            while (part < panel_columns) : (part += tile_columns) {
                multiplyTile(row_count, .{
                    .panel = panel,
                    .weights = weights,
                    .column = part,
                    .depth = depth,
                    .sums = edge,
                    .ahead = if (part == 0) ahead else null,
                    .output = target + part,
                    .output_stride = own.product.output_stride,
                });
            }
            finish(own, row, row_count, column, @min(panel_columns, column_end - column), .{
                .weights = weights,
                .sums = edge,
            });
        }
    }
}

/// The weights that this thread will probably read next: they come from memory while the present
/// block is multiplied, an equal share of the lines with each tile.
const NextBlock = struct {
    first: ?[*]const u8,
    line_count: usize,
    tiles_across: usize,

    fn of(product: *const Product, task: usize, row_count: usize, column_count: usize) NextBlock {
        const tiles_across = (column_count + panel_columns - 1) / panel_columns;
        const tiles_down = (row_count + rows_max - 1) / rows_max;
        const next = task + product.thread_count;
        const column = next / product.row_block_count * product.column_block;
        const is_other = column != task / product.row_block_count * product.column_block;
        const stride = arguments.int8PanelBytes(product.depth);
        const panels: [*]const u8 = @ptrCast(product.weight);
        const panel_count = product.column_block / panel_columns;
        return .{
            .first = if (is_other and column < product.columns)
                panels + column / panel_columns * stride
            else
                null,
            .line_count = panel_count * stride / line_bytes / (tiles_across * tiles_down) + 1,
            .tiles_across = tiles_across,
        };
    }

    /// Where the lines of a tile begin, `row` and `column` within the block.
    fn share(next: *const NextBlock, row: usize, column: usize) ?Lines {
        const first = next.first orelse return null;
        const tile = row / rows_max * next.tiles_across + column / panel_columns;
        return .{ .first = first + tile * next.line_count * line_bytes, .count = next.line_count };
    }
};

const line_bytes = 64;
const Lines = struct { first: [*]const u8, count: usize };

const Tile = struct {
    panel: [*]const u8,
    weights: [*]const u8,
    /// Within the panel of weights.
    column: usize,
    depth: usize,
    sums: [*]i32,
    /// What is asked for meanwhile.
    ahead: ?Lines,
    /// What is written afterwards.
    output: [*]f32,
    output_stride: usize,
};

fn multiplyTile(row_count: usize, tile: Tile) void {
    inline for (row_variants) |rows| {
        if (row_count <= rows) return multiplyRowsOf(rows, tile);
    }
    unreachable;
}

noinline fn multiplyRowsOf(comptime rows: usize, tile: Tile) void {
    var sums: [rows / dot.rows][vectors]dot.Sums = undefined;
    const corrections: [*]const i32 = @ptrCast(@alignCast(tile.weights + 4 * panel_columns));
    inline for (0..vectors) |j| {
        const of_weights = corrections + tile.column + j * lanes;
        const start = @as(Ints, @splat(-dot.bias)) *% loadInts(of_weights);
        inline for (&sums) |*of_rows| of_rows[j] = @splat(start);
    }
    var weights = tile.weights + 8 * panel_columns + 4 * tile.column;
    var activations = tile.panel;
    var output = tile.output;
    var row: usize = 0;
    const ahead: Lines = tile.ahead orelse .{ .first = weights, .count = 0 };
    var line = ahead.first;
    const last_line = line + line_bytes * ahead.count;
    var left = tile.depth / (4 * unroll);
    while (left > 0) : (left -= 1) {
        @prefetch(line, .{ .locality = 2 });
        line = @ptrFromInt(@min(@intFromPtr(line) + line_bytes, @intFromPtr(last_line)));
        inline for (0..unroll) |u| {
            inline for (0..vectors * lanes / 16) |i| {
                const distance = prefetch_distance + four_stride * u + line_bytes * i;
                @prefetch(weights + distance, .{});
            }
        }
        inline for (0..@max(1, tile_columns / 16)) |i| {
            @prefetch(output + 16 * i, .{ .rw = .write });
        }
        if (row + 1 < rows) {
            row += 1;
            output += tile.output_stride;
        }
        inline for (0..unroll / dot.fours) |u| {
            // Loads of later steps stay where they are: moved up, they would push sums out of
            // registers.
            asm volatile ("" ::: .{ .memory = true });
            var columns: [vectors]dot.Weights = undefined;
            inline for (0..vectors) |j| {
                const source = weights + four_stride * dot.fours * u + 4 * lanes * j;
                columns[j] = dot.load(source, four_stride);
            }
            inline for (&sums, 0..) |*of_rows, i| {
                const first = activations + i * dot.rows * row_stride;
                inline for (of_rows, columns) |*of, column| dot.add(of, first, u, column);
            }
        }
        activations += 4 * unroll * dot.row_bytes * dot.rows;
        weights += four_stride * unroll;
    }
    inline for (0..rows) |r| {
        inline for (0..vectors) |j| {
            const target = tile.sums + r * panel_columns + tile.column + j * lanes;
            const of_row = dot.rowOf(sums[r / dot.rows][j], r % dot.rows);
            @as(*align(4) Ints, @ptrCast(target)).* = of_row;
        }
    }
}

inline fn loadInts(source: [*]const i32) Ints {
    return @as(*align(4) const Ints, @ptrCast(source)).*;
}

const Sums = struct { weights: [*]const u8, sums: [*]const i32 };

/// activation(scales * sum + bias) + residual
fn finish(
    own: *const arguments.Int8Linear,
    row: usize,
    row_count: usize,
    column: usize,
    column_count: usize,
    of: Sums,
) void {
    switch (own.product.epilogue.activation) {
        inline else => |activation| {
            for (0..row_count) |r| {
                finishRow(activation, own, row + r, column, column_count, .{
                    .weights = of.weights,
                    .sums = of.sums + r * panel_columns,
                });
            }
        },
    }
}

inline fn finishRow(
    comptime activation: arguments.Activation,
    own: *const arguments.Int8Linear,
    row: usize,
    column: usize,
    column_count: usize,
    of: Sums,
) void {
    const e = &own.product.epilogue;
    const offset = row * own.product.output_stride + column;
    const scales: [*]const f32 = @ptrCast(@alignCast(of.weights));
    const row_scale = v.splat(own.x_scales[row]);
    var c: usize = 0;
    while (c < column_count) : (c += lanes) {
        const count = column_count - c;
        const sum: Vec = @floatFromInt(loadInts(of.sums + c));
        var value = row_scale * v.load(scales + c) * sum;
        if (e.bias) |bias| value += v.loadUpTo(bias + column + c, count);
        value = v.activate(activation, value);
        if (e.residual) |residual| value += v.loadUpTo(residual + offset + c, count);
        v.storeUpTo(own.product.output + offset + c, value, count);
    }
}
