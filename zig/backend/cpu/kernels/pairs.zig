//! Packing for products of bf16: every word of a panel holds two neighbours of the depth. Weights
//! that lie as bf16 are moved as they are; all others are rounded to nearest even.

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

/// `lanes` whole columns, four words of the depth at a time.
pub fn turnLanes(
    comptime weight_type: arguments.WeightType,
    columns: pack.Columns(weight_type),
    target: [*]f32,
    width: usize,
) void {
    var k: usize = 0;
    while (k + 8 <= columns.depth) : (k += 8) {
        pack.fetchNext(weight_type, columns, k, 8);
        var quads: [4]Vec = undefined;
        inline for (0..4) |j| quads[j] = gatherWords(weight_type, columns, j, k);
        const turned = pack.turnQuads(quads);
        inline for (0..4) |j| v.store(target + (k / 2 + j) * width, turned[j]);
    }
    while (k < columns.depth) : (k += 2) {
        for (0..lanes) |c| target[k / 2 * width + c] = wordOf(weight_type, columns, c, k);
    }
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

// --- internal ---

/// Elements k..k+8 of the columns j, j + 4, j + 8 and j + 12, as words.
inline fn gatherWords(
    comptime weight_type: arguments.WeightType,
    columns: pack.Columns(weight_type),
    comptime j: usize,
    k: usize,
) Vec {
    const T = weights.Element(weight_type);
    const source = columns.source + j * columns.stride + k;
    const stride = 4 * columns.stride;
    if (weight_type == .bf16) return @bitCast(pack.gather(T, 8, lanes / 4, source, stride));
    const low = pack.gather(T, 8, lanes / 8, source, stride);
    const high = pack.gather(T, 8, lanes / 8, source + lanes / 8 * stride, stride);
    return @bitCast(v.narrow(weights.widen(weight_type, low), weights.widen(weight_type, high)));
}

fn wordOf(
    comptime weight_type: arguments.WeightType,
    columns: pack.Columns(weight_type),
    column: usize,
    k: usize,
) f32 {
    const source = columns.source + column * columns.stride + k;
    const low: u32 = v.narrowOne(weights.loadOne(weight_type, source));
    if (k + 1 == columns.depth) return @bitCast(low);
    const high: u32 = v.narrowOne(weights.loadOne(weight_type, source + 1));
    return @bitCast(high << 16 | low);
}
