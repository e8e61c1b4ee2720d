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
/// Numbers that are asked for ahead.
const prefetch_distance = 512;
/// Added to a number below 2^22, it leaves the nearest integer in the low bits, ties to even.
const round_magic: f32 = 0x1.8p23;

/// Turns the groups of `row` into those of `target`, which may be the same; groups of 1 are copied.
/// Returns the bits of the largest magnitude: as integers, magnitudes have the order of their
/// numbers, and NaN is above them.
pub fn rotate(target: [*]f32, row: [*]const f32, depth: usize, group: usize) u32 {
    const largest = switch (group) {
        256 => rotateGroups(256, target, row, depth),
        64 => rotateGroups(64, target, row, depth),
        16 => rotateGroups(16, target, row, depth),
        1 => copy(target, row, depth),
        else => unreachable,
    };
    return @reduce(.Max, largest);
}

/// The scale of a row and what rounds it: integer = round(number * inverse).
pub const Scale = struct { scale: f32, inverse: f32 };

/// From the largest magnitude. A number that is not finite makes the scale, and with it all results
/// of the row, NaN.
pub fn scaleOf(largest: u32) Scale {
    const amax: f32 = @bitCast(largest);
    if (!std.math.isFinite(amax)) return .{ .scale = std.math.nan(f32), .inverse = 0 };
    if (amax < amax_min) return .{ .scale = 0, .inverse = 0 };
    return .{ .scale = amax / level_max, .inverse = level_max / amax };
}

/// 16 integers, of numbers whose largest `scaleOf` has seen.
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

inline fn magnitude(x: Vec) Bits {
    return @as(Bits, @bitCast(x)) & @as(Bits, @splat(0x7fff_ffff));
}

fn copy(target: [*]f32, row: [*]const f32, depth: usize) Bits {
    var largest: Bits = @splat(0);
    var k: usize = 0;
    while (k < depth) : (k += 16) {
        const x = load(row + k);
        largest = @max(largest, magnitude(x));
        store(target + k, x);
    }
    return largest;
}

fn rotateGroups(comptime group: usize, target: [*]f32, row: [*]const f32, depth: usize) Bits {
    var largest: Bits = @splat(0);
    var first: usize = 0;
    while (first < depth) : (first += group) {
        largest = @max(largest, rotateGroup(group, target + first, row + first));
    }
    return largest;
}

inline fn rotateGroup(comptime group: usize, target: [*]f32, row: [*]const f32) Bits {
    @setEvalBranchQuota(10_000);
    const count = group / 16;
    var x: [count]Vec = undefined;
    inline for (0..count) |i| {
        @prefetch(row + prefetch_distance + 16 * i, .{});
        x[i] = rotateSixteen(load(row + 16 * i));
    }
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
    var largest: Bits = @splat(0);
    inline for (0..count) |i| {
        largest = @max(largest, magnitude(x[i]));
        store(target + 16 * i, x[i]);
    }
    return largest;
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
