//! The blocked matrix product that linear layers and convolutions share. One task makes one block
//! of the output: it packs a depth's worth of weights (second-level cache), then for every few rows
//! packs those (first-level cache) and runs the tiles. Where rows come from is the `Source`.

const std = @import("std");
const arguments = @import("../arguments.zig");
const pack = @import("pack.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Product = arguments.Product;
const lanes = v.lanes;

/// Columns of packed weights: with `depth_max` they fill about half of a second-level cache.
pub const column_block_max: usize = switch (lanes) {
    16 => 512,
    8 => 192,
    else => 128,
};

const panel_elements = tile.rows_max * tile.row_elements;
const edge_elements = tile.rows_max * tile.columns_max;
const packed_elements = tile.depth_max * column_block_max;
pub const workspace_bytes = @sizeOf(f32) * edge_elements +
    @sizeOf(tile.Element) * (panel_elements + packed_elements);

const Block = struct {
    product: *const Product,
    row_first: usize,
    row_count: usize,
    column_first: usize,
    column_count: usize,

    fn of(product: *const Product, task: usize) Block {
        const row_first = task % product.row_block_count * product.row_block;
        const column_first = task / product.row_block_count * product.column_block;
        return .{
            .product = product,
            .row_first = row_first,
            .row_count = @min(product.row_block, product.rows - row_first),
            .column_first = column_first,
            .column_count = @min(product.column_block, product.columns - column_first),
        };
    }
};

/// `source` has `fill(row_first, row_count, k_first, depth, panel)`.
pub fn run(
    product: *const Product,
    source: anytype,
    task: usize,
    workspace: [*]align(64) u8,
) void {
    switch (product.weight_type) {
        inline else => |weight_type| runTyped(weight_type, product, source, task, workspace),
    }
}

fn runTyped(
    comptime weight_type: arguments.WeightType,
    product: *const Product,
    source: anytype,
    task: usize,
    workspace: [*]align(64) u8,
) void {
    const block: Block = .of(product, task);
    const edge: [*]f32 = @ptrCast(workspace);
    const panel: [*]tile.Element = @ptrCast(edge + edge_elements);
    const columns = panel + panel_elements;
    const weight: [*]const weights.Element(weight_type) = @ptrCast(@alignCast(product.weight));
    const depth_block = evenDepth(product.depth);
    var k: usize = 0;
    while (k < product.depth) : (k += depth_block) {
        const depth = @min(depth_block, product.depth - k);
        pack.packColumns(weight_type, .{
            .source = weight + block.column_first * product.depth + k,
            .stride = product.depth,
            .count = block.column_count,
            .depth = depth,
        }, columns);
        var row: usize = 0;
        while (row < block.row_count) : (row += tile.rows_max) {
            const row_count = @min(tile.rows_max, block.row_count - row);
            source.fill(block.row_first + row, row_count, k, depth, panel);
            for (0..row_count) |r| pack.endRow(panel + r * tile.row_elements, depth);
            multiplyRows(block, row, row_count, k, depth, panel, columns, edge);
            if (k + depth == product.depth) {
                const first = block.row_first + row;
                finish(product, first, row_count, block.column_first, block.column_count);
            }
        }
    }
}

/// Equal parts of the depth, so that none is short.
fn evenDepth(depth: usize) usize {
    const parts = (depth + tile.depth_max - 1) / tile.depth_max;
    return std.mem.alignForward(usize, (depth + parts - 1) / parts, 4 * tile.per_word);
}

fn multiplyRows(
    block: Block,
    row: usize,
    row_count: usize,
    k: usize,
    depth: usize,
    panel: [*]const tile.Element,
    columns: [*]const tile.Element,
    edge: [*]f32,
) void {
    const stride = block.product.output_stride;
    const output = block.product.output + (block.row_first + row) * stride + block.column_first;
    const whole_rows = tile.paddedRows(row_count) == row_count;
    var column: usize = 0;
    while (column < block.column_count) : (column += tile.columns_max) {
        const column_count = @min(tile.columns_max, block.column_count - column);
        const width = tile.panelColumns(column_count);
        const whole = whole_rows and width == column_count;
        tile.multiply(row_count, column_count, .{
            .a = panel,
            .b = columns + column * tile.per_word * tile.words(depth),
            .depth = tile.words(depth),
            .c = if (whole) output + column else edge,
            .c_stride = if (whole) stride else width,
            .accumulate = whole and k > 0,
        });
        if (whole) continue;
        for (0..row_count) |r| {
            const target = output + r * stride + column;
            for (0..column_count) |c| {
                const sum = edge[r * width + c];
                target[c] = if (k > 0) target[c] + sum else sum;
            }
        }
    }
}

/// Bias, activation and residual, while the rows are still in a near cache.
pub fn finish(
    product: *const Product,
    row_first: usize,
    row_count: usize,
    column_first: usize,
    column_count: usize,
) void {
    switch (product.epilogue.activation) {
        inline else => |activation| {
            const e = &product.epilogue;
            if (activation == .none and e.bias == null and e.channel_bias == null and
                e.residual == null) return;
            for (row_first..row_first + row_count) |row| {
                finishRow(activation, product, row, column_first, column_count);
            }
        },
    }
}

inline fn finishRow(
    comptime activation: arguments.Activation,
    product: *const Product,
    row: usize,
    column_first: usize,
    column_count: usize,
) void {
    const e = &product.epilogue;
    const offset = row * product.output_stride + column_first;
    const output = product.output + offset;
    var column: usize = 0;
    while (column < column_count) : (column += lanes) {
        const count = column_count - column;
        var value = v.loadUpTo(output + column, count);
        if (e.bias) |bias| value += v.loadUpTo(bias + column_first + column, count);
        if (e.channel_bias) |bias| {
            const batch = row / e.rows_per_batch;
            value += v.loadUpTo(bias + batch * product.columns + column_first + column, count);
        }
        value = v.activate(activation, value);
        if (e.residual) |residual| value += v.loadUpTo(residual + offset + column, count);
        v.storeUpTo(output + column, value, count);
    }
}
