//! Adds the deltas of adapters to a weight. A task makes one block of the sum, a few rows at a time
//! that stay in the second-level cache: it widens the base weight, adds each delta in its order,
//! and writes the sum in the device's type. Products run on the register tile of `tile.zig`; the
//! whole delta never exists in memory. A sum's order of additions depends on the depth alone.

const std = @import("std");
const arguments = @import("../arguments.zig");
const pack = @import("pack.zig");
const product = @import("product.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Delta = arguments.Delta;
const Matrix = arguments.Matrix;
const lanes = v.lanes;

/// Rows of a block in cache: whole tiles, so that what a tile writes beyond the last row fits.
const rows_max = tile.rows_max * (64 / tile.rows_max);
const columns_max = product.column_block_max;
/// Depth of packed factors: most ranks are no higher.
const depth_max = 128;

const block_elements = rows_max * columns_max;
const panel_elements = tile.rows_max * tile.row_stride;
const packed_elements = depth_max * columns_max;
pub const workspace_bytes = @sizeOf(f32) * (3 * block_elements + panel_elements + packed_elements);

comptime {
    std.debug.assert(depth_max <= tile.row_stride);
    std.debug.assert(columns_max % tile.columns_max == 0);
}

pub fn gather(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.Gather = @ptrCast(@alignCast(args));
    const first = task * a.rows_per_task;
    for (first..@min(first + a.rows_per_task, a.rows)) |row| {
        loadRow(&a.matrix, row, 0, a.columns, a.out + row * a.columns);
    }
}

pub fn merge(args: *const anyopaque, task: usize, workspace: [*]align(64) u8) callconv(.c) void {
    // Object files whose products round to bf16 have no sums of adapters; see `cpu/merge.zig`.
    if (v.bf16) unreachable;
    const a: *const arguments.Merge = @ptrCast(@alignCast(args));
    const floats: [*]f32 = @ptrCast(workspace);
    var block: Block = .{
        .merge = a,
        .row_first = 0,
        .row_count = 0,
        .column_first = task / a.row_block_count * a.column_block,
        .column_count = 0,
        .sum = floats,
        .delta = floats + block_elements,
        .other = floats + 2 * block_elements,
        .panel = floats + 3 * block_elements,
        .columns = floats + 3 * block_elements + panel_elements,
    };
    block.column_count = @min(a.column_block, a.columns - block.column_first);
    var row = task % a.row_block_count * a.row_block;
    const row_end = @min(row + a.row_block, a.rows);
    const column_squares = a.column_squares;
    while (row < row_end) : (row += rows_max) {
        block.row_first = row;
        block.row_count = @min(rows_max, row_end - row);
        block.load(&a.base, block.sum);
        for (a.deltas[0..a.delta_count]) |*delta| block.add(delta);
        if (a.row_squares) |squares| {
            block.addRowSquares(squares + task / a.row_block_count * a.rows);
        } else if (column_squares) |squares| {
            block.addColumnSquares(squares + task % a.row_block_count * a.columns);
        } else block.store();
    }
}

/// A few rows of a task, in f32 at a stride of `columns_max`.
const Block = struct {
    merge: *const arguments.Merge,
    row_first: usize,
    row_count: usize,
    column_first: usize,
    column_count: usize,
    sum: [*]f32,
    delta: [*]f32,
    other: [*]f32,
    panel: [*]f32,
    columns: [*]f32,
    /// What `columns` holds: the factor, and the start of its depth.
    packed_b: ?[*]const f32 = null,
    packed_k: usize = 0,

    fn load(block: *const Block, matrix: *const Matrix, target: [*]f32) void {
        for (0..block.row_count) |r| {
            const row = target + r * columns_max;
            loadRow(matrix, block.row_first + r, block.column_first, block.column_count, row);
        }
    }

    fn add(block: *Block, delta: *const Delta) void {
        const is_plain = delta.row_factors == null and delta.column_factors == null;
        switch (delta.kind) {
            .product => {
                const factor = delta.scale * delta.strength;
                if (is_plain) return block.multiply(&delta.first, factor, block.sum);
                block.clear(block.delta);
                block.multiply(&delta.first, delta.scale, block.delta);
            },
            .hadamard => {
                block.clear(block.delta);
                block.multiply(&delta.first, delta.scale, block.delta);
                block.clear(block.other);
                block.multiply(&delta.second, 1, block.other);
                block.timesOther();
            },
            .kronecker => block.expand(delta),
            .difference => {
                block.load(&delta.values, block.delta);
                block.scaleDelta(delta.scale);
            },
            .replacement => return block.load(&delta.values, block.sum),
        }
        if (is_plain) block.addDelta(delta.strength) else block.decompose(delta);
    }

    fn clear(block: *const Block, target: [*]f32) void {
        pack.zeroFloats(target, block.row_count * columns_max);
    }

    /// target += factor * a * b
    fn multiply(block: *Block, f: *const arguments.Factors, factor: f32, target: [*]f32) void {
        var k: usize = 0;
        while (k < f.depth) : (k += depth_max) {
            const depth = @min(depth_max, f.depth - k);
            block.packColumns(f, k, depth);
            var row: usize = 0;
            while (row < block.row_count) : (row += tile.rows_max) {
                const row_count = @min(tile.rows_max, block.row_count - row);
                for (0..row_count) |r| {
                    const source = f.a + (block.row_first + row + r) * f.depth + k;
                    copyScaled(block.panel + r * tile.row_stride, source, depth, factor);
                }
                block.multiplyRows(row_count, depth, target + row * columns_max);
            }
        }
    }

    fn multiplyRows(block: *const Block, row_count: usize, depth: usize, target: [*]f32) void {
        var column: usize = 0;
        while (column < block.column_count) : (column += tile.columns_max) {
            const count = @min(tile.columns_max, block.column_count - column);
            tile.multiply(row_count, count, .{
                .a = @ptrCast(block.panel),
                .b = @ptrCast(block.columns + column * depth),
                .depth = depth,
                .c = target + column,
                .c_stride = columns_max,
                .accumulate = true,
            });
        }
    }

    /// Panels of columns, each step of the depth contiguous; kept for the next rows.
    fn packColumns(block: *Block, f: *const arguments.Factors, k_first: usize, depth: usize) void {
        if (block.packed_b == f.b and block.packed_k == k_first) return;
        block.packed_b = f.b;
        block.packed_k = k_first;
        const stride = block.merge.columns;
        var column: usize = 0;
        while (column < block.column_count) : (column += tile.columns_max) {
            const count = @min(tile.columns_max, block.column_count - column);
            const width = tile.panelColumns(count);
            const panel = block.columns + column * depth;
            for (0..depth) |k| {
                const row = panel + k * width;
                const source = f.b + (k_first + k) * stride + block.column_first + column;
                pack.copyFloats(row, source, count);
                for (count..width) |c| row[c] = 0;
            }
        }
    }

    fn timesOther(block: *const Block) void {
        var i: usize = 0;
        while (i < block.row_count * columns_max) : (i += lanes) {
            v.store(block.delta + i, v.load(block.delta + i) * v.load(block.other + i));
        }
    }

    fn scaleDelta(block: *const Block, scale: f32) void {
        if (scale == 1) return;
        for (0..block.row_count) |r| {
            const row = block.delta + r * columns_max;
            copyScaled(row, row, block.column_count, scale);
        }
    }

    fn expand(block: *const Block, delta: *const Delta) void {
        const kron = &delta.kronecker;
        const channels = kron.columns_1 * kron.columns_2;
        for (0..block.row_count) |r| {
            const row = block.row_first + r;
            const w1 = kron.w1 + row / kron.rows_2 * kron.columns_1;
            const w2 = kron.w2 + row % kron.rows_2 * kron.taps * kron.columns_2;
            const target = block.delta + r * columns_max;
            var done: usize = 0;
            while (done < block.column_count) {
                const k = block.column_first + done;
                const j = k % channels;
                const j2 = j % kron.columns_2;
                const count = @min(kron.columns_2 - j2, block.column_count - done);
                const source = w2 + k / channels * kron.columns_2 + j2;
                const factor = delta.scale * w1[j / kron.columns_2];
                copyScaled(target + done, source, count, factor);
                done += count;
            }
        }
    }

    /// sum += strength * delta
    fn addDelta(block: *const Block, strength: f32) void {
        for (0..block.row_count) |r| {
            const sum = block.sum + r * columns_max;
            const delta = block.delta + r * columns_max;
            var c: usize = 0;
            while (c < block.column_count) : (c += lanes) {
                v.store(sum + c, v.fma(v.load(delta + c), v.splat(strength), v.load(sum + c)));
            }
        }
    }

    /// sum += strength * ((sum + delta) * factor - sum)
    fn decompose(block: *const Block, delta: *const Delta) void {
        const strength = v.splat(delta.strength);
        for (0..block.row_count) |r| {
            const sum = block.sum + r * columns_max;
            const change = block.delta + r * columns_max;
            var factor = v.splat(1);
            if (delta.row_factors) |factors| factor = v.splat(factors[block.row_first + r]);
            var c: usize = 0;
            while (c < block.column_count) : (c += lanes) {
                if (delta.column_factors) |factors| {
                    const first = factors + block.column_first + c;
                    factor = v.loadUpTo(first, block.column_count - c);
                }
                const before = v.load(sum + c);
                const whole = (before + v.load(change + c)) * factor;
                v.store(sum + c, v.fma(whole - before, strength, before));
            }
        }
    }

    fn addRowSquares(block: *const Block, squares: [*]f64) void {
        for (0..block.row_count) |r| {
            const row = block.sum + r * columns_max;
            var total: f64 = 0;
            for (row[0..block.column_count]) |value| total += @as(f64, value) * value;
            squares[block.row_first + r] = total;
        }
    }

    fn addColumnSquares(block: *const Block, squares: [*]f64) void {
        for (0..block.row_count) |r| {
            const row = block.sum + r * columns_max;
            const target = squares[block.column_first..][0..block.column_count];
            for (target, row[0..block.column_count]) |*total, value| {
                total.* += @as(f64, value) * value;
            }
        }
    }

    fn store(block: *const Block) void {
        const m = block.merge;
        switch (m.out_type) {
            inline else => |out_type| {
                const Element = weights.Element(out_type);
                for (0..block.row_count) |r| {
                    const at = (block.row_first + r) * m.out_step + block.column_first;
                    const target: [*]Element = @ptrCast(@alignCast(m.out + at * @sizeOf(Element)));
                    const row = block.sum + r * columns_max;
                    storeRow(out_type, target, row, block.column_count, m.scale, m.overflow);
                }
            },
        }
    }
};

/// Elements of a row from `k_first` on, widened.
fn loadRow(
    matrix: *const Matrix,
    row: usize,
    k_first: usize,
    count: usize,
    target: [*]f32,
) void {
    const data = matrix.data orelse return pack.zeroFloats(target, count);
    switch (matrix.type) {
        inline else => |weight_type| {
            const size = @sizeOf(weights.Element(weight_type));
            const one: f32 = 1;
            const scale: *const f32 = if (matrix.row_scales) |scales| &scales[row] else &one;
            const scales = weights.scalesOf(weight_type, @ptrCast(scale), 0);
            const factor = weights.factorOf(weight_type, scales, 0);
            var done: usize = 0;
            while (done < count) {
                const k = k_first + done;
                const i = k % matrix.inner;
                const first = row * matrix.row_step + k / matrix.inner * matrix.outer_step +
                    i * matrix.inner_step;
                const run = @min(matrix.inner - i, count - done);
                const source = data + first * size;
                loadRun(weight_type, source, matrix.inner_step, factor, target[done..][0..run]);
                done += run;
            }
        },
    }
}

inline fn loadRun(
    comptime weight_type: arguments.WeightType,
    source: [*]const u8,
    step: usize,
    factor: weights.Factor(weight_type),
    target: []f32,
) void {
    const Element = weights.Element(weight_type);
    const size = @sizeOf(Element);
    var i: usize = 0;
    if (step == 1) {
        while (i + lanes <= target.len) : (i += lanes) {
            const bytes = source[i * size ..][0 .. lanes * size];
            const raw = std.mem.bytesToValue([lanes]Element, bytes);
            v.store(target.ptr + i, weights.load(weight_type, lanes, &raw, factor));
        }
    }
    while (i < target.len) : (i += 1) {
        const raw = std.mem.bytesToValue([1]Element, source[i * step * size ..][0..size]);
        target[i] = weights.loadOne(weight_type, &raw, factor);
    }
}

/// Up to `lanes` elements beyond `count` are written too where there is a vector's room.
inline fn copyScaled(target: [*]f32, source: [*]const f32, count: usize, factor: f32) void {
    var i: usize = 0;
    while (i + lanes <= count) : (i += lanes) {
        v.store(target + i, v.load(source + i) * v.splat(factor));
    }
    while (i < count) : (i += 1) target[i] = source[i] * factor;
}

inline fn storeRow(
    comptime out_type: arguments.WeightType,
    target: [*]weights.Element(out_type),
    source: [*]const f32,
    count: usize,
    scale: f32,
    overflow: *u32,
) void {
    const limit = v.splat(weights.finiteLimit(out_type));
    var in_range: @Vector(lanes, bool) = @splat(true);
    var i: usize = 0;
    while (i < count) : (i += lanes) {
        const value = v.loadUpTo(source + i, count - i) * v.splat(scale);
        // A NaN is not less either.
        const is_finite = @abs(value) < limit;
        in_range = @select(bool, is_finite, in_range, is_finite);
        const bits = weights.narrow(out_type, value);
        const Element = weights.Element(out_type);
        if (count - i >= lanes) {
            @as(*align(@alignOf(Element)) @TypeOf(bits), @ptrCast(target + i)).* = bits;
        } else {
            const elements: [lanes]Element = bits;
            for (i..count) |c| target[c] = elements[c - i];
        }
    }
    if (!@reduce(.And, in_range)) @atomicStore(u32, overflow, 1, .monotonic);
}
