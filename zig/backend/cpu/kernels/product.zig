//! The blocked GEMM that linear layers and convolutions share. One task computes one block of the
//! output: it packs a K block of weights (L2 cache), then for every few rows packs those (L1 cache)
//! and runs the microkernel. `Source` provides the rows.

const std = @import("std");
const ahead = @import("prefetch.zig");
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

/// A block of the output of `product` and of those that follow it, whose rows are counted through.
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
            .row_count = @min(product.row_block, product.rows_together - row_first),
            .column_first = column_first,
            .column_count = @min(product.column_block, product.columns - column_first),
        };
    }
};

/// The rows of a block that belong to one product.
fn Stretch(comptime Source: type) type {
    return struct {
        product: *const Product,
        source: Source,
        row_first: usize,
        row_count: usize,
    };
}

/// Runs a task of `product` and its batched `next` GEMMs. `kind.sourceOf(product)` provides the
/// rows of one: a source has `fill(row_first, row_count, k_first, depth, panel)` and `place(row,
/// k)`. Where it `is_scattered`, `output(row)` maps a row of the GEMM to a row of the output. A
/// `pack(weight_type, part, target)` of a source replaces `packPart`.
pub fn run(
    product: *const Product,
    kind: anytype,
    task: usize,
    workspace: [*]align(64) u8,
) void {
    switch (product.weight_type) {
        inline else => |weight_type| runTyped(weight_type, product, kind, task, workspace),
    }
}

fn runTyped(
    comptime weight_type: arguments.WeightType,
    product: *const Product,
    kind: anytype,
    task: usize,
    workspace: [*]align(64) u8,
) void {
    const block: Block = .of(product, task);
    const Source = @TypeOf(kind.sourceOf(product));
    var room: [arguments.together_max]Stretch(Source) = undefined;
    const stretches = stretchesOf(Source, block, kind, &room);
    const edge: [*]f32 = @ptrCast(workspace);
    const panel: [*]tile.Element = @ptrCast(edge + edge_elements);
    const columns = panel + panel_elements;
    const depth_block = evenDepth(product.depth);
    var k: usize = 0;
    while (k < product.depth) : (k += depth_block) {
        const depth = @min(depth_block, product.depth - k);
        const part: Part = .{
            .column_first = block.column_first,
            .column_count = block.column_count,
            .k_first = k,
            .depth = depth,
        };
        var next_weights: ?ahead.Rows = null;
        if (@hasDecl(Source, "pack")) {
            stretches[0].source.pack(weight_type, part, columns);
        } else {
            packPart(weight_type, product, part, columns);
            if (nextPart(product, task, block, k, depth_block)) |next| {
                next_weights = .ofWeights(weight_type, product, next);
            }
        }
        var done: usize = 0;
        for (stretches, 0..) |*stretch, i| {
            const after = placeAfter(stretches, i, part);
            var row: usize = 0;
            while (row < stretch.row_count) : (row += tile.rows_max) {
                const row_count = @min(tile.rows_max, stretch.row_count - row);
                stretch.source.fill(stretch.row_first + row, row_count, k, depth, panel);
                for (0..row_count) |r| pack.endRow(panel + r * tile.row_elements, depth);
                const first = done + row;
                const weight_rows = if (next_weights) |all|
                    all.share(first, first + row_count, block.row_count)
                else
                    null;
                const next_rows = aheadOf(stretch, row, part, after);
                var asked: ahead.Ahead = .of(next_rows, weight_rows, panelCount(part));
                multiplyRows(stretch, row, row_count, part, &asked, panel, columns, edge);
            }
            done += stretch.row_count;
        }
    }
}

fn stretchesOf(
    comptime Source: type,
    block: Block,
    kind: anytype,
    room: *[arguments.together_max]Stretch(Source),
) []const Stretch(Source) {
    var count: usize = 0;
    var first: usize = 0;
    var next: ?*const Product = block.product;
    while (next) |product| : (next = product.next) {
        const row_first = @max(first, block.row_first);
        const row_end = @min(first + product.rows, block.row_first + block.row_count);
        if (row_first < row_end) {
            room[count] = .{
                .product = product,
                .source = kind.sourceOf(product),
                .row_first = row_first - first,
                .row_count = row_end - row_first,
            };
            count += 1;
        }
        first += product.rows;
    }
    return room[0..count];
}

/// A block of the weights.
pub const Part = struct {
    column_first: usize,
    column_count: usize,
    k_first: usize,
    depth: usize,
};

/// What this thread will probably pack next, if it is worth asking for it while the present part is
/// multiplied: few rows share a packing there, and it would wait for memory more than it computes.
fn nextPart(product: *const Product, task: usize, block: Block, k: usize, depth: usize) ?Part {
    if (block.row_count > fetch_rows_max) return null;
    var part: Part = .{
        .column_first = block.column_first,
        .column_count = block.column_count,
        .k_first = k + depth,
        .depth = depth,
    };
    if (part.k_first >= product.depth) {
        const next = task + product.thread_count;
        if (next >= product.row_block_count * product.column_block_count) return null;
        const other: Block = .of(product, next);
        part.column_first = other.column_first;
        part.column_count = other.column_count;
        part.k_first = 0;
    }
    part.depth = @min(depth, product.depth - part.k_first);
    return part;
}

/// The rows that follow those of a stretch: the next one's, or the first ones of the next part.
fn placeAfter(stretches: anytype, i: usize, part: Part) ?ahead.Place {
    if (i + 1 < stretches.len) {
        const next = &stretches[i + 1];
        return next.source.place(next.row_first, part.k_first);
    }
    const k_end = part.k_first + part.depth;
    if (k_end == stretches[0].product.depth) return null;
    return stretches[0].source.place(stretches[0].row_first, k_end);
}

/// The rows that are asked for while those from `row` on are multiplied.
fn aheadOf(stretch: anytype, row: usize, part: Part, after: ?ahead.Place) ?ahead.Rows {
    const end = row + tile.rows_max;
    const place = if (end < stretch.row_count)
        stretch.source.place(stretch.row_first + end, part.k_first)
    else
        after orelse return null;
    return .{ .place = place, .bytes = @sizeOf(f32) * part.depth, .count = tile.rows_max };
}

/// Beyond, packing is a small part of the work, and parts are so large that they would push each
/// other out of the second-level cache.
const fetch_rows_max = 512;

/// Packs weights as they lie: a row of `product.depth` for each column.
fn packPart(
    comptime weight_type: arguments.WeightType,
    product: *const Product,
    part: Part,
    target: [*]tile.Element,
) void {
    const weight: [*]const weights.Element(weight_type) = @ptrCast(@alignCast(product.weight));
    pack.packColumns(weight_type, .{
        .source = weight + part.column_first * product.depth + part.k_first,
        .scales = weights.scalesOf(weight_type, product.weight_scales, part.column_first),
        .stride = product.depth,
        .count = part.column_count,
        .depth = part.depth,
    }, target);
}

/// Equal parts of the depth, so that none is short, and whole squares of the packing.
fn evenDepth(depth: usize) usize {
    const parts = (depth + tile.depth_max - 1) / tile.depth_max;
    return std.mem.alignForward(usize, (depth + parts - 1) / parts, lanes * tile.per_word);
}

fn panelCount(part: Part) usize {
    return (part.column_count + tile.columns_max - 1) / tile.columns_max;
}

inline fn outputRow(source: anytype, row: usize) usize {
    return if (@TypeOf(source).is_scattered) source.output(row) else row;
}

fn multiplyRows(
    stretch: anytype,
    row: usize,
    row_count: usize,
    part: Part,
    asked: *ahead.Ahead,
    panel: [*]const tile.Element,
    columns: [*]const tile.Element,
    edge: [*]f32,
) void {
    const source = stretch.source;
    const product = stretch.product;
    const row_first = stretch.row_first + row;
    const k = part.k_first;
    const depth = part.depth;
    const is_last_part = k + depth == product.depth;
    const stride = product.output_stride;
    const output = product.output + part.column_first;
    const is_scattered = @TypeOf(source).is_scattered;
    var starts: [tile.rows_max]usize = undefined;
    for (0..row_count) |r| starts[r] = outputRow(source, row_first + r) * stride;
    const whole_rows = !is_scattered and tile.paddedRows(row_count) == row_count;
    var list: ahead.RunList = undefined;
    var column: usize = 0;
    while (column < part.column_count) : (column += tile.columns_max) {
        list.count = 0;
        if (is_last_part) list.addResidual(product, starts[0] + part.column_first + column);
        asked.addTo(&list);
        const column_count = @min(tile.columns_max, part.column_count - column);
        const width = tile.panelColumns(column_count);
        const whole = whole_rows and width == column_count;
        tile.multiply(row_count, column_count, .{
            .a = panel,
            .runs = &list.runs,
            .b = columns + column * tile.per_word * tile.words(depth),
            .depth = tile.words(depth),
            .c = if (whole) output + starts[0] + column else edge,
            .c_stride = if (whole) stride else width,
            .accumulate = whole and k > 0,
        });
        if (!whole) {
            for (0..row_count) |r| {
                const target = output + starts[r] + column;
                moveRow(target, edge + r * width, column_count, k > 0);
            }
        }
        if (!is_last_part) continue;
        finishRows(source, product, row_first, row_count, part.column_first + column, column_count);
    }
}

/// Part of a row from the edge to where it belongs, or added to what is there.
inline fn moveRow(target: [*]f32, edge: [*]const f32, count: usize, add: bool) void {
    var c: usize = 0;
    while (c < count) : (c += lanes) {
        var sum = v.load(edge + c);
        if (add) sum += v.loadUpTo(target + c, count - c);
        v.storeUpTo(target + c, sum, count - c);
    }
}

/// Bias, activation and residual, while the rows are still in the nearest cache.
pub fn finishRows(
    source: anytype,
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
                const place = outputRow(source, row);
                finishRow(activation, product, row, place, column_first, column_count);
            }
        },
    }
}

inline fn finishRow(
    comptime activation: arguments.Activation,
    product: *const Product,
    row: usize,
    output_row: usize,
    column_first: usize,
    column_count: usize,
) void {
    const e = &product.epilogue;
    const offset = output_row * product.output_stride + column_first;
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
