//! The 8-bit floating-point types of weights, widened to f32 exactly.
//! Source: OCP 8-bit Floating Point Specification, section 5: e4m3 (bias 7, no infinity, one NaN)
//! and e5m2 (bias 15, as IEEE's types).

const std = @import("std");
const DType = @import("../tensor.zig").DType;

pub fn widen(dtype: DType, code: u8) f32 {
    return switch (dtype) {
        .f8_e4m3 => e4m3_values[code],
        .f8_e5m2 => e5m2_values[code],
        else => unreachable,
    };
}

// --- internal ---

const e4m3_values = values(4, 3);
const e5m2_values = values(5, 2);

fn values(comptime exponent_bits: comptime_int, comptime fraction_bits: comptime_int) [256]f32 {
    @setEvalBranchQuota(20_000);
    var table: [256]f32 = undefined;
    for (&table, 0..) |*value, code| value.* = valueOf(exponent_bits, fraction_bits, code);
    return table;
}

fn valueOf(
    comptime exponent_bits: comptime_int,
    comptime fraction_bits: comptime_int,
    code: u8,
) f32 {
    const bias = (1 << (exponent_bits - 1)) - 1;
    const fraction: i32 = code & ((1 << fraction_bits) - 1);
    const exponent: i32 = (code >> fraction_bits) & ((1 << exponent_bits) - 1);
    const is_last = exponent == (1 << exponent_bits) - 1;
    const has_infinity = exponent_bits == 5;
    const largest_fraction = (1 << fraction_bits) - 1;
    const is_nan = is_last and if (has_infinity) fraction > 0 else fraction == largest_fraction;
    const magnitude: f32 = if (is_nan)
        std.math.nan(f32)
    else if (is_last and has_infinity)
        std.math.inf(f32)
    else if (exponent == 0)
        std.math.ldexp(@as(f32, @floatFromInt(fraction)), 1 - bias - fraction_bits)
    else
        std.math.ldexp(
            @as(f32, @floatFromInt(fraction + (1 << fraction_bits))),
            exponent - bias - fraction_bits,
        );
    return if (code < 0x80) magnitude else -magnitude;
}

/// The hash of all values in order, with NaN as 0x7fc00000.
fn expectHash(dtype: DType, expected: []const u8) !void {
    var hasher: std.crypto.hash.sha2.Sha256 = .init(.{});
    for (0..256) |code| {
        const value = widen(dtype, @intCast(code));
        const bits: u32 = if (std.math.isNan(value)) 0x7fc00000 else @bitCast(value);
        hasher.update(&std.mem.toBytes(std.mem.nativeToLittle(u32, bits)));
    }
    const actual = std.fmt.bytesToHex(hasher.finalResult(), .lower);
    try std.testing.expectEqualStrings(expected, &actual);
}

test "all 256 values are PyTorch's" {
    // Printed by tests/reference/make_fp8.py.
    try expectHash(.f8_e4m3, "422eccfaa21e72a6b26855bb10cdcfead6c1ce3262ecd813c99d8cbf9677f2e2");
    try expectHash(.f8_e5m2, "229a94c5f728edf2259da970a0e1dfb45cc1d69cce2b30e37659f3212ec4b8b9");
}
