//! The one instruction of int8 products: 32-bit sums of four products of bytes each, of eight with
//! smmla. Activations are stored as the instruction reads them, with `bias` added; weights have
//! their own integers.
//!
//! | kind  | instruction                      | activations                                   |
//! |-------|----------------------------------|-----------------------------------------------|
//! | vnni  | vpdpbusd (AVX-512 or AVX)        | unsigned: 128 is added, and taken off the sums |
//! | pairs | pmaddwd (SSE2, AVX2, AVX-512)    | signed, widened to 16 bits with their panel   |
//! | dot   | sdot (arm64)                     | signed                                        |
//! | mmla  | smmla (arm64 with i8mm)          | signed, eight steps of two rows side by side  |
//! | plain | multiplications of 32 bits       | signed                                        |
//!
//! pmaddubsw, which multiplies bytes without VNNI, saturates its sums of two products at 16 bits:
//! pmaddwd is exact and, with widening spread over the rows of a tile, not slower.

const std = @import("std");
const v = @import("vector.zig");
const Ints = v.Ints;
const lanes = v.lanes;

pub const Kind = enum { vnni, pairs, dot, mmla, plain };
pub const kind: Kind = @field(Kind, @import("options").int8_dot);

/// Added to every integer of the activations.
pub const bias: i32 = if (kind == .vnni) 128 else 0;

/// Bytes of an activation in a panel of rows.
pub const row_bytes = if (kind == .pairs) 2 else 1;

/// Rows of activations that share a register, and fours of the depth that one instruction takes.
pub const rows = if (kind == .mmla) 2 else 1;
pub const fours = if (kind == .mmla) 2 else 1;

/// Four steps of the depth for `lanes` outputs, as a panel has them.
pub const Quads = @Vector(4 * lanes, i8);

/// Weights as the instruction reads them.
pub const Weights = switch (kind) {
    .pairs => [2]Pairs,
    .mmla => [2]Ints,
    else => Ints,
};
const Pairs = @Vector(2 * lanes, i16);

/// Sums of `rows` rows with `lanes` outputs.
pub const Sums = [rows]Ints;

/// `stride` bytes are from four steps of the depth to the next ones.
pub inline fn load(source: [*]const u8, stride: usize) Weights {
    const words = @as(*align(1) const Ints, @ptrCast(source)).*;
    if (kind == .mmla) {
        const next = @as(*align(1) const Ints, @ptrCast(source + stride)).*;
        return .{
            @shuffle(i32, words, next, [4]i32{ 0, -1, 1, -2 }),
            @shuffle(i32, words, next, [4]i32{ 2, -3, 3, -4 }),
        };
    }
    if (kind != .pairs) return words;
    // Of each four the first and the third, then the second and the fourth: no bytes cross.
    const halves: Pairs = @bitCast(words);
    return .{ (halves << @splat(8)) >> @splat(8), halves >> @splat(8) };
}

/// Adds to each output's sums its products with the activations of `row`, or of the rows that
/// begin there, at step `group` of the instruction.
pub inline fn add(sums: *Sums, row: [*]const u8, group: usize, weights: Weights) void {
    if (kind == .mmla) {
        const Bytes = @Vector(16, i8);
        const activations = @as(*align(1) const Bytes, @ptrCast(row + 16 * group)).*;
        inline for (sums, weights) |*block, pair| {
            block.* = smmla(block.*, activations, @bitCast(pair));
        }
    } else sums[0] = addRow(sums[0], row, group, weights);
}

/// The sums of row `r` of `rows`.
pub inline fn rowOf(sums: Sums, comptime r: usize) Ints {
    if (kind != .mmla) return sums[r];
    const order = if (r == 0) [4]i32{ 0, 1, -1, -2 } else [4]i32{ 2, 3, -3, -4 };
    return @shuffle(i32, sums[0], sums[1], order);
}

/// Row `r` of activations to its place in a panel, whose rows are `stride` bytes apart.
pub fn copyRow(panel: [*]u8, stride: usize, r: usize, source: [*]const u8, depth: usize) void {
    switch (kind) {
        .pairs => widenRow(panel + r * stride, source, depth),
        .mmla => {
            const target = panel + r / 2 * 2 * stride + r % 2 * 8;
            var k: usize = 0;
            while (k < depth) : (k += 8) target[2 * k ..][0..8].* = source[k..][0..8].*;
        },
        else => @memcpy(panel[r * stride ..][0..depth], source[0..depth]),
    }
}

// --- internal ---

inline fn addRow(sums: Ints, row: [*]const u8, group: usize, weights: Weights) Ints {
    if (kind == .pairs) {
        const words: [*]const i32 = @ptrCast(@alignCast(row));
        const even: Pairs = @bitCast(@as(Ints, @splat(words[2 * group])));
        const odd: Pairs = @bitCast(@as(Ints, @splat(words[2 * group + 1])));
        return sums +% multiplyPairs(even, weights[0]) +% multiplyPairs(odd, weights[1]);
    }
    const words: [*]const i32 = @ptrCast(@alignCast(row));
    const activations: Ints = @splat(words[group]);
    return switch (kind) {
        .vnni => switch (lanes) {
            16 => @"llvm.x86.avx512.vpdpbusd.512"(sums, activations, weights),
            8 => @"llvm.x86.avx512.vpdpbusd.256"(sums, activations, weights),
            else => unreachable,
        },
        .dot => @"llvm.aarch64.neon.sdot.v4i32.v16i8"(
            sums,
            @bitCast(activations),
            @bitCast(weights),
        ),
        .plain => plain(sums, activations, weights),
        .pairs, .mmla => unreachable,
    };
}

fn widenRow(target: [*]u8, source: [*]const u8, depth: usize) void {
    const Bytes = @Vector(16, i8);
    const order = [16]i32{ 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15 };
    var k: usize = 0;
    while (k < depth) : (k += 16) {
        const bytes = @as(*align(1) const Bytes, @ptrCast(source + k)).*;
        const words: @Vector(16, i16) = @shuffle(i8, bytes, undefined, order);
        @as(*align(1) @Vector(16, i16), @ptrCast(target + 2 * k)).* = words;
    }
}

inline fn multiplyPairs(a: Pairs, b: Pairs) Ints {
    return switch (lanes) {
        16 => @"llvm.x86.avx512.pmaddw.d.512"(a, b),
        8 => @"llvm.x86.avx2.pmadd.wd"(a, b),
        4 => @"llvm.x86.sse2.pmadd.wd"(a, b),
        else => unreachable,
    };
}

inline fn plain(sums: Ints, activations: Ints, weights: Ints) Ints {
    var result = sums;
    inline for (.{ 24, 16, 8, 0 }) |up| {
        const shift: @Vector(lanes, u5) = @splat(up);
        const down: @Vector(lanes, u5) = @splat(24);
        result +%= ((activations << shift) >> down) *% ((weights << shift) >> down);
    }
    return result;
}

extern fn @"llvm.x86.avx512.vpdpbusd.512"(
    @Vector(16, i32),
    @Vector(16, i32),
    @Vector(16, i32),
) @Vector(16, i32);
extern fn @"llvm.x86.avx512.vpdpbusd.256"(
    @Vector(8, i32),
    @Vector(8, i32),
    @Vector(8, i32),
) @Vector(8, i32);
extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(
    @Vector(4, i32),
    @Vector(16, i8),
    @Vector(16, i8),
) @Vector(4, i32);
const smmla = @"llvm.aarch64.neon.smmla.v4i32.v16i8";
extern fn @"llvm.aarch64.neon.smmla.v4i32.v16i8"(
    @Vector(4, i32),
    @Vector(16, i8),
    @Vector(16, i8),
) @Vector(4, i32);
extern fn @"llvm.x86.avx512.pmaddw.d.512"(
    @Vector(32, i16),
    @Vector(32, i16),
) @Vector(16, i32);
extern fn @"llvm.x86.avx2.pmadd.wd"(@Vector(16, i16), @Vector(16, i16)) @Vector(8, i32);
extern fn @"llvm.x86.sse2.pmadd.wd"(@Vector(8, i16), @Vector(8, i16)) @Vector(4, i32);
