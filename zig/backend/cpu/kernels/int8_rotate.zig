//! The rotation of int8 products, and rounding to int8. A group is multiplied by the normalised
//! Kronecker power of the symmetric matrix
//!   H = 1/2 [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]],
//! its own inverse, in as many passes over the group as the power: of four numbers that lie apart
//! alike, each becomes half their sum less the one opposite. Additions have the same order on every
//! instruction set, so that all of them round to the same integers.

const std = @import("std");
const Vec = @Vector(16, f32);
const Bits = @Vector(16, u32);

/// Rows smaller than this, which no activations have, become zeros.
const amax_min = 0x1p-100;
const level_max = 127;
/// Added to a number below 2^22, it leaves the nearest integer in the low bits, ties to even.
const round_magic: f32 = 0x1.8p23;

/// Turns the groups of `row` in place. Groups of 1 are left alone.
pub fn rotate(row: [*]f32, depth: usize, group: usize) void {
    if (group < 16) return;
    var first: usize = 0;
    while (first < depth) : (first += group) switch (group) {
        256 => rotateGroup(256, row + first),
        64 => rotateGroup(64, row + first),
        16 => rotateGroup(16, row + first),
        else => unreachable,
    };
}

/// The scale of a row and what rounds it: integer = round(number * inverse).
pub const Scale = struct { scale: f32, inverse: f32 };

/// From the largest magnitude. A number that is not finite makes the scale, and with it all results
/// of the row, NaN.
pub fn scaleOf(row: [*]const f32, depth: usize) Scale {
    var largest: Bits = @splat(0);
    var k: usize = 0;
    // As integers, magnitudes have the order of their numbers, and NaN is above them.
    while (k < depth) : (k += 16) {
        const bits: Bits = @bitCast(load(row + k));
        largest = @max(largest, bits & @as(Bits, @splat(0x7fff_ffff)));
    }
    const amax: f32 = @bitCast(@reduce(.Max, largest));
    if (!std.math.isFinite(amax)) return .{ .scale = std.math.nan(f32), .inverse = 0 };
    if (amax < amax_min) return .{ .scale = 0, .inverse = 0 };
    return .{ .scale = amax / level_max, .inverse = level_max / amax };
}

/// 16 integers, of numbers that `scaleOf` has seen.
pub inline fn round(numbers: [*]const f32, inverse: f32) @Vector(16, i8) {
    const scaled = load(numbers) * @as(Vec, @splat(inverse));
    const shifted: Bits = @bitCast(scaled + @as(Vec, @splat(round_magic)));
    const low: @Vector(16, u8) = @truncate(shifted);
    return @bitCast(low);
}

pub inline fn load(source: [*]const f32) Vec {
    return @as(*align(4) const Vec, @ptrCast(source)).*;
}

// --- internal ---

inline fn store(target: [*]f32, value: Vec) void {
    @as(*align(4) Vec, @ptrCast(target)).* = value;
}

fn rotateGroup(comptime group: usize, row: [*]f32) void {
    @setEvalBranchQuota(10_000);
    const count = group / 16;
    var x: [count]Vec = undefined;
    inline for (0..count) |i| x[i] = rotateSixteen(load(row + 16 * i));
    comptime var step = 1;
    inline while (step < count) : (step *= 4) {
        comptime var base = 0;
        inline while (base < count) : (base += 1) {
            if (comptime base / step % 4 != 0) continue;
            const a = x[base];
            const b = x[base + step];
            const c = x[base + 2 * step];
            const d = x[base + 3 * step];
            const half = @as(Vec, @splat(0.5)) * ((a + b) + (c + d));
            x[base] = half - d;
            x[base + step] = half - c;
            x[base + 2 * step] = half - b;
            x[base + 3 * step] = half - a;
        }
    }
    inline for (0..count) |i| store(row + 16 * i, x[i]);
}

/// The passes within four and between the fours of sixteen.
inline fn rotateSixteen(x: Vec) Vec {
    return pass(pass(x, 1), 4);
}

inline fn pass(x: Vec, comptime step: comptime_int) Vec {
    const pairs = x + swap(x, step);
    const half = @as(Vec, @splat(0.5)) * (pairs + swap(pairs, 2 * step));
    return half - swap(x, 3 * step);
}

/// Element i of the result is element i ^ mask.
inline fn swap(x: Vec, comptime mask: i32) Vec {
    const order = comptime order: {
        @setEvalBranchQuota(10_000);
        var places: [16]i32 = undefined;
        for (&places, 0..) |*place, i| place.* = @as(i32, @intCast(i)) ^ mask;
        break :order places;
    };
    return @shuffle(f32, x, undefined, order);
}
