//! Packing for bf16 GEMMs: every word of a panel holds two neighbours along K. bf16 weights are
//! copied unchanged; all others are rounded to nearest even.

const std = @import("std");
const arguments = @import("../arguments.zig");
const pack = @import("pack.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Vec = v.Vec;
const lanes = v.lanes;
const Pairs = @Vector(2 * lanes, u16);

pub inline fn store(target: [*]u16, value: Pairs) void {
    @as(*align(2) Pairs, @ptrCast(target)).* = value;
}

/// One vector, as half as many words.
pub inline fn storeHalf(target: [*]u16, value: Vec) void {
    const Half = @Vector(lanes, u16);
    const both = v.narrow(value, value);
    @as(*align(2) Half, @ptrCast(target)).* = @shuffle(u16, both, undefined, iota(lanes));
}

fn iota(comptime n: usize) [n]i32 {
    return std.simd.iota(i32, n);
}

/// Two rows, each the same step of a depth, as words: element i of `even` below that of `odd`.
pub inline fn interleave(even: Vec, odd: Vec) Vec {
    const mask = comptime mask: {
        var order: [2 * lanes]i32 = undefined;
        for (&order, 0..) |*m, i| m.* = @intCast(i / 2 + i % 2 * lanes);
        break :mask order;
    };
    return @bitCast(@shuffle(u16, v.narrow(even, odd), undefined, mask));
}

/// The next `lanes` words of a column.
pub inline fn loadWords(
    comptime weight_type: arguments.WeightType,
    source: [*]const weights.Element(weight_type),
    factor: weights.Factor(weight_type),
) Vec {
    if (weight_type == .bf16) return @bitCast(weights.raw(weight_type, 2 * lanes, source));
    const low = weights.load(weight_type, lanes, source, factor);
    return @bitCast(v.narrow(low, weights.load(weight_type, lanes, source + lanes, factor)));
}

/// Fewer columns than a vector has words; the rest are zeros.
pub fn turnFew(
    comptime weight_type: arguments.WeightType,
    columns: pack.Columns(weight_type),
    target: [*]f32,
    width: usize,
) void {
    var k: usize = 0;
    while (k < columns.depth) : (k += 2) {
        v.store(target + k / 2 * width, @splat(0));
        for (0..columns.count) |c| {
            target[k / 2 * width + c] = wordOf(weight_type, columns, c, k);
        }
    }
}

/// Element k of a column and the next one, if the depth has one.
pub fn wordOf(
    comptime weight_type: arguments.WeightType,
    columns: pack.Columns(weight_type),
    column: usize,
    k: usize,
) f32 {
    const source = columns.source + column * columns.stride + k;
    const factor = weights.factorOf(weight_type, columns.scales, column);
    const low: u32 = v.narrowOne(weights.loadOne(weight_type, source, factor));
    if (k + 1 == columns.depth) return @bitCast(low);
    const high: u32 = v.narrowOne(weights.loadOne(weight_type, source + 1, factor));
    return @bitCast(high << 16 | low);
}
