//! Packs the operands of the microkernel: rows of A at a fixed stride; columns of B (stored as rows
//! of the weight, or of the keys) transposed so that each step of K is contiguous. Weights are
//! widened here, once per block; for bf16 GEMMs, everything is rounded here.

const std = @import("std");
const arguments = @import("../arguments.zig");
const pairs = @import("bf16_pack.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Vec = v.Vec;
const lanes = v.lanes;

pub inline fn copyFloats(target: [*]f32, source: [*]const f32, count: usize) void {
    var i: usize = 0;
    while (i + lanes <= count) : (i += lanes) v.store(target + i, v.load(source + i));
    while (i < count) : (i += 1) target[i] = source[i];
}

pub inline fn zeroFloats(target: [*]f32, count: usize) void {
    var i: usize = 0;
    while (i + lanes <= count) : (i += lanes) v.store(target + i, @splat(0));
    while (i < count) : (i += 1) target[i] = 0;
}

/// Numbers to elements of a panel.
pub inline fn copyElements(target: [*]tile.Element, source: [*]const f32, count: usize) void {
    if (!v.bf16) return copyFloats(target, source, count);
    var i: usize = 0;
    while (i + 2 * lanes <= count) : (i += 2 * lanes) {
        pairs.store(target + i, v.narrow(v.load(source + i), v.load(source + i + lanes)));
    }
    while (i < count) : (i += 1) target[i] = v.narrowOne(source[i]);
}

pub inline fn zeroElements(target: [*]tile.Element, count: usize) void {
    if (!v.bf16) return zeroFloats(target, count);
    @memset(target[0..count], 0);
}

/// Fills up the last word of a row of a panel.
pub inline fn endRow(row: [*]tile.Element, depth: usize) void {
    if (v.bf16 and depth % tile.per_word != 0) row[depth] = 0;
}

/// Columns that lie as rows of a matrix: element (column, k) at source[column * stride + k].
pub fn Columns(comptime weight_type: arguments.WeightType) type {
    return struct {
        source: [*]const weights.Element(weight_type),
        /// Of the columns.
        scales: weights.Scales(weight_type),
        stride: usize,
        /// Columns from here on are zeros.
        count: usize,
        depth: usize,
    };
}

/// Packs into panels of `tile.columns_max`, the last one narrower if it can be: panel j begins at
/// target + j * columns_max * depth, in words.
pub fn packColumns(
    comptime weight_type: arguments.WeightType,
    columns: Columns(weight_type),
    target: [*]tile.Element,
) void {
    const words: [*]f32 = @ptrCast(@alignCast(target));
    const turnSome = if (v.bf16) pairs.turnFew else turnFew;
    var column: usize = 0;
    while (column < columns.count) : (column += tile.columns_max) {
        const width = tile.panelColumns(columns.count - column);
        const panel = words + column * tile.words(columns.depth);
        var i: usize = 0;
        while (i < width) : (i += lanes) {
            var part = columns;
            const first = @min(column + i, columns.count);
            part.source += first * columns.stride;
            if (weights.isScaled(weight_type)) part.scales += first;
            part.count = @min(lanes, columns.count -| (column + i));
            if (part.count == lanes) {
                switch (width) {
                    inline lanes, tile.columns_max => |each| {
                        turnLanes(weight_type, part, panel + i, each);
                    },
                    else => unreachable,
                }
            } else {
                turnSome(weight_type, part, panel + i, width);
            }
        }
    }
}

/// `lanes` whole columns, `lanes` words of the depth at a time.
fn turnLanes(
    comptime weight_type: arguments.WeightType,
    columns: Columns(weight_type),
    target: [*]f32,
    comptime width: usize,
) void {
    const step = lanes * tile.per_word;
    var factors: [lanes]weights.Factor(weight_type) = undefined;
    for (&factors, 0..) |*factor, c| {
        factor.* = weights.factorOf(weight_type, columns.scales, c);
    }
    var k: usize = 0;
    while (k + step <= columns.depth) : (k += step) {
        fetchNext(weight_type, columns, k, step);
        var square: [lanes]Vec = undefined;
        inline for (0..lanes) |c| {
            const source = columns.source + c * columns.stride + k;
            square[c] = loadWords(weight_type, source, factors[c]);
        }
        turnSquare(&square);
        inline for (0..lanes) |w| v.store(target + (k / tile.per_word + w) * width, square[w]);
    }
    while (k < columns.depth) : (k += tile.per_word) {
        for (0..lanes) |c| {
            target[k / tile.per_word * width + c] = wordOf(weight_type, columns, c, k);
        }
    }
}

/// The next `lanes` words of a column.
inline fn loadWords(
    comptime weight_type: arguments.WeightType,
    source: [*]const weights.Element(weight_type),
    factor: weights.Factor(weight_type),
) Vec {
    if (!v.bf16) return weights.load(weight_type, lanes, source, factor);
    return pairs.loadWords(weight_type, source, factor);
}

fn wordOf(
    comptime weight_type: arguments.WeightType,
    columns: Columns(weight_type),
    column: usize,
    k: usize,
) f32 {
    if (v.bf16) return pairs.wordOf(weight_type, columns, column, k);
    const factor = weights.factorOf(weight_type, columns.scales, column);
    return weights.loadOne(weight_type, columns.source + column * columns.stride + k, factor);
}

/// Rows become columns: first within squares of four by four, then the squares change places.
inline fn turnSquare(square: *[lanes]Vec) void {
    const quads = lanes / 4;
    inline for (0..quads) |g| square[4 * g ..][0..4].* = turnQuads(square[4 * g ..][0..4].*);
    const turned = square.*;
    inline for (0..4) |j| {
        var rows: [quads]Vec = undefined;
        inline for (0..quads) |g| rows[g] = turned[4 * g + j];
        const places = turnPlaces(quads, rows);
        inline for (0..quads) |p| square[4 * p + j] = places[p];
    }
}

/// Result p holds the quads p of all rows.
inline fn turnPlaces(comptime quads: usize, rows: [quads]Vec) [quads]Vec {
    switch (quads) {
        1 => return rows,
        2 => return .{
            pickQuads(rows[0], rows[1], .{ 0, 2 }),
            pickQuads(rows[0], rows[1], .{ 1, 3 }),
        },
        4 => {
            const low = .{
                pickQuads(rows[0], rows[1], .{ 0, 1, 4, 5 }),
                pickQuads(rows[2], rows[3], .{ 0, 1, 4, 5 }),
            };
            const high = .{
                pickQuads(rows[0], rows[1], .{ 2, 3, 6, 7 }),
                pickQuads(rows[2], rows[3], .{ 2, 3, 6, 7 }),
            };
            return .{
                pickQuads(low[0], low[1], .{ 0, 2, 4, 6 }),
                pickQuads(low[0], low[1], .{ 1, 3, 5, 7 }),
                pickQuads(high[0], high[1], .{ 0, 2, 4, 6 }),
                pickQuads(high[0], high[1], .{ 1, 3, 5, 7 }),
            };
        },
        else => unreachable,
    }
}

/// Whole quads of two vectors, counted through both.
inline fn pickQuads(a: Vec, b: Vec, comptime choice: [lanes / 4]i32) Vec {
    const mask = comptime mask: {
        var order: [lanes]i32 = undefined;
        for (&order, 0..) |*m, i| {
            const index: i32 = 4 * choice[i / 4] + @as(i32, i % 4);
            m.* = if (index < lanes) index else ~(index - @as(i32, lanes));
        }
        break :mask order;
    };
    return @shuffle(f32, a, b, mask);
}

/// Asks for the same steps of the next `lanes` columns, once per cache line: so many columns at
/// once are more streams than the processor follows on its own. Past the end nothing happens.
inline fn fetchNext(
    comptime weight_type: arguments.WeightType,
    columns: Columns(weight_type),
    k: usize,
    comptime step: usize,
) void {
    const per_line = 64 / @sizeOf(weights.Element(weight_type));
    if (k % @max(step, per_line) != 0) return;
    const next = @intFromPtr(columns.source) +
        @sizeOf(weights.Element(weight_type)) * (lanes * columns.stride + k);
    for (0..lanes) |c| {
        const line = next + @sizeOf(weights.Element(weight_type)) * c * columns.stride;
        @prefetch(@as([*]const u8, @ptrFromInt(line)), .{ .locality = 2 });
    }
}

/// Turns every 4 x 4 square on its own: result j holds, in quad p, element j of the quads p.
pub inline fn turnQuads(q: [4]Vec) [4]Vec {
    const low = comptime quadMask(.{ 0, 4, 1, 5 });
    const high = comptime quadMask(.{ 2, 6, 3, 7 });
    const first = comptime quadMask(.{ 0, 1, 4, 5 });
    const second = comptime quadMask(.{ 2, 3, 6, 7 });
    const a = @shuffle(f32, q[0], q[1], low);
    const b = @shuffle(f32, q[2], q[3], low);
    const c = @shuffle(f32, q[0], q[1], high);
    const d = @shuffle(f32, q[2], q[3], high);
    return .{
        @shuffle(f32, a, b, first),
        @shuffle(f32, a, b, second),
        @shuffle(f32, c, d, first),
        @shuffle(f32, c, d, second),
    };
}

/// The same choice in every quad: 0..3 from the first vector, 4..7 from the second.
fn quadMask(comptime choice: [4]i32) @Vector(lanes, i32) {
    @setEvalBranchQuota(10_000);
    var mask: [lanes]i32 = undefined;
    for (&mask, 0..) |*m, i| {
        const quad: i32 = @intCast(i / 4 * 4);
        const c = choice[i % 4];
        m.* = if (c < 4) quad + c else ~(quad + c - 4);
    }
    return mask;
}

/// Fewer columns than a vector has elements; the rest are zeros.
fn turnFew(
    comptime weight_type: arguments.WeightType,
    columns: Columns(weight_type),
    target: [*]f32,
    width: usize,
) void {
    for (0..columns.depth) |k| v.store(target + k * width, @splat(0));
    for (0..columns.count) |c| {
        const source = columns.source + c * columns.stride;
        const factor = weights.factorOf(weight_type, columns.scales, c);
        for (0..columns.depth) |k| {
            target[k * width + c] = weights.loadOne(weight_type, source + k, factor);
        }
    }
}
