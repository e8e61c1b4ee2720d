//! x (rows, depth) * weight (columns, depth)^T. Many rows go through the blocked product; a few
//! rows (embeddings, one token) would pay more for packing than for multiplying, so there the
//! weights are streamed once, straight from their file, against all rows.

const ahead = @import("prefetch.zig");
const arguments = @import("../arguments.zig");
const pack = @import("pack.zig");
const product = @import("product.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Vec = v.Vec;
const lanes = v.lanes;

pub const RowSource = struct {
    x: [*]const f32,
    depth: usize,

    pub const is_scattered = false;

    pub fn fill(
        source: RowSource,
        row_first: usize,
        row_count: usize,
        k_first: usize,
        depth: usize,
        panel: [*]tile.Element,
    ) void {
        for (0..row_count) |r| {
            const row = source.x + (row_first + r) * source.depth + k_first;
            pack.copyElements(panel + r * tile.row_elements, row, depth);
        }
    }

    pub fn place(source: RowSource, row: usize, k: usize) ahead.Place {
        return .{
            .address = @intFromPtr(source.x + row * source.depth + k),
            .stride = @sizeOf(f32) * source.depth,
        };
    }
};

const Rows = struct {
    pub fn sourceOf(_: Rows, p: *const arguments.Product) RowSource {
        const args: *const arguments.Linear = @fieldParentPtr("product", p);
        return .{ .x = args.x, .depth = p.depth };
    }
};

pub fn linear(args: *const anyopaque, task: usize, workspace: [*]align(64) u8) callconv(.c) void {
    const linear_args: *const arguments.Linear = @ptrCast(@alignCast(args));
    product.run(&linear_args.product, Rows{}, task, workspace);
}

/// All rows in one block; tasks are blocks of columns.
pub fn linearFewRows(
    args: *const anyopaque,
    task: usize,
    _: [*]align(64) u8,
) callconv(.c) void {
    const linear_args: *const arguments.Linear = @ptrCast(@alignCast(args));
    const p = &linear_args.product;
    const first = task * p.column_block;
    const count = @min(p.column_block, p.columns - first);
    switch (p.weight_type) {
        inline else => |weight_type| {
            var column: usize = first;
            while (column + 2 <= first + count) : (column += 2) {
                streamColumns(weight_type, 2, linear_args, column);
            }
            if (column < first + count) streamColumns(weight_type, 1, linear_args, column);
        },
    }
    const source: RowSource = .{ .x = linear_args.x, .depth = p.depth };
    product.finishRows(source, p, 0, p.rows, first, count);
}

fn streamColumns(
    comptime weight_type: arguments.WeightType,
    comptime columns: usize,
    args: *const arguments.Linear,
    column: usize,
) void {
    const rows = args.product.rows;
    var row: usize = 0;
    while (row + 4 <= rows) : (row += 4) streamTile(weight_type, columns, 4, args, column, row);
    while (row < rows) : (row += 1) streamTile(weight_type, columns, 1, args, column, row);
}

fn streamTile(
    comptime weight_type: arguments.WeightType,
    comptime columns: usize,
    comptime rows: usize,
    args: *const arguments.Linear,
    column: usize,
    row: usize,
) void {
    const p = &args.product;
    const x = args.x + row * p.depth;
    const all: [*]const weights.Element(weight_type) = @ptrCast(@alignCast(p.weight));
    const weight = all + column * p.depth;
    const scales = weights.scalesOf(weight_type, p.weight_scales, column);
    var sums: [rows][columns]Vec = @splat(@splat(@splat(0)));
    var k: usize = 0;
    while (k + lanes <= p.depth) : (k += lanes) {
        inline for (0..columns) |c| {
            const factor = weights.factorOf(weight_type, scales, c);
            const w = weights.load(weight_type, lanes, weight + c * p.depth + k, factor);
            inline for (0..rows) |r| {
                sums[r][c] = v.fma(v.load(x + r * p.depth + k), w, sums[r][c]);
            }
        }
    }
    inline for (0..rows) |r| {
        inline for (0..columns) |c| {
            var total = v.sum(sums[r][c]);
            const factor = weights.factorOf(weight_type, scales, c);
            for (k..p.depth) |i| {
                const w = weights.loadOne(weight_type, weight + c * p.depth + i, factor);
                total += x[r * p.depth + i] * w;
            }
            p.output[(row + r) * p.output_stride + column + c] = total;
        }
    }
}
