//! Vectors of f32 as wide as the instruction set has them, with the few functions that the kernels
//! need: loads and stores of any alignment, exp, erf and the activations. Polynomials are minimax
//! fits of degree as stated; errors are measured against f64 in the tests of the operations.

const std = @import("std");
const builtin = @import("builtin");
const arguments = @import("../arguments.zig");

/// f32 elements of one register. zig's own suggestion is narrower for AVX-512.
pub const lanes: usize = if (builtin.cpu.has(.x86, .avx512f))
    16
else if (builtin.cpu.has(.x86, .avx2)) 8 else 4;

pub const Vec = @Vector(lanes, f32);
pub const Ints = @Vector(lanes, i32);

const has_fma = builtin.cpu.arch == .aarch64 or builtin.cpu.has(.x86, .fma);

/// a * b + c, in one rounding only where the target has the instruction: elsewhere `@mulAdd` would
/// be a library call per element.
pub inline fn fma(a: anytype, b: @TypeOf(a), c: @TypeOf(a)) @TypeOf(a) {
    return if (has_fma) @mulAdd(@TypeOf(a), a, b, c) else a * b + c;
}

/// Whether GEMMs use bf16 pairs (AVX512_BF16): a build option per object file.
pub const bf16 = @import("options").bf16;

/// Words of pairs of bf16: c + a_low * b_low + a_high * b_high, summed in f32.
pub inline fn dot(a: Vec, b: Vec, c: Vec) Vec {
    var sums = c;
    asm ("vdpbf16ps %[b], %[a], %[sums]"
        : [sums] "+v" (sums),
        : [a] "v" (a),
          [b] "v" (b),
    );
    return sums;
}

/// Two vectors as bf16, rounded to nearest even: `low` in the first half.
pub inline fn narrow(low: Vec, high: Vec) @Vector(2 * lanes, u16) {
    return asm ("vcvtne2ps2bf16 %[low], %[high], %[out]"
        : [out] "=v" (-> @Vector(2 * lanes, u16)),
        : [low] "v" (low),
          [high] "v" (high),
    );
}

/// One number as bf16, rounded to nearest even, as `narrow` does.
pub inline fn narrowOne(value: f32) u16 {
    return narrow(splat(value), splat(value))[0];
}

pub inline fn splat(value: f32) Vec {
    return @splat(value);
}

pub inline fn load(source: [*]const f32) Vec {
    return @as(*align(4) const Vec, @ptrCast(source)).*;
}

pub inline fn store(target: [*]f32, value: Vec) void {
    @as(*align(4) Vec, @ptrCast(target)).* = value;
}

/// The first `count` < lanes elements, then zeros.
pub inline fn loadPartial(source: [*]const f32, count: usize) Vec {
    var values: [lanes]f32 = @splat(0);
    for (0..count) |i| values[i] = source[i];
    return values;
}

pub inline fn storePartial(target: [*]f32, value: Vec, count: usize) void {
    const values: [lanes]f32 = value;
    for (0..count) |i| target[i] = values[i];
}

pub inline fn loadUpTo(source: [*]const f32, count: usize) Vec {
    return if (count >= lanes) load(source) else loadPartial(source, count);
}

pub inline fn storeUpTo(target: [*]f32, value: Vec, count: usize) void {
    if (count >= lanes) store(target, value) else storePartial(target, value, count);
}

/// The larger of both; where either is NaN, `b`. One instruction on x86.
pub inline fn maximum(a: Vec, b: Vec) Vec {
    return @select(f32, a > b, a, b);
}

/// The smaller of both; where either is NaN, `b`.
pub inline fn minimum(a: Vec, b: Vec) Vec {
    return @select(f32, a < b, a, b);
}

/// Adds neighbours pairwise: a fixed order, and faster than the sequential order of `@reduce`.
pub inline fn sum(value: anytype) @typeInfo(@TypeOf(value)).vector.child {
    return fold(value, .add);
}

pub inline fn largest(value: Vec) f32 {
    return fold(value, .maximum);
}

inline fn fold(value: anytype, comptime how: enum { add, maximum }) Child(@TypeOf(value)) {
    const n = @typeInfo(@TypeOf(value)).vector.len;
    if (n == 1) return value[0];
    const half = n / 2;
    const low = @shuffle(Child(@TypeOf(value)), value, undefined, std.simd.iota(i32, half));
    const high = @shuffle(
        Child(@TypeOf(value)),
        value,
        undefined,
        std.simd.iota(i32, half) + @as(@Vector(half, i32), @splat(half)),
    );
    return fold(switch (how) {
        .add => low + high,
        .maximum => @select(Child(@TypeOf(value)), low > high, low, high),
    }, how);
}

fn Child(comptime V: type) type {
    return @typeInfo(V).vector.child;
}

inline fn polynomial(x: Vec, comptime coefficients: []const f32) Vec {
    var result = splat(coefficients[coefficients.len - 1]);
    comptime var i = coefficients.len - 1;
    inline while (i > 0) {
        i -= 1;
        result = fma(result, x, splat(coefficients[i]));
    }
    return result;
}

/// Adding this to |x| < 2^22 leaves the nearest integer in the low bits.
const round_magic: f32 = 0x1.8p23;

const Split = struct { integer: Vec, power: Vec };

/// x rounded to an integer n, and 2^n, for n in -127..127; 2^-127 comes out as 0.
inline fn roundToPower(x: Vec) Split {
    const shifted = x + splat(round_magic);
    const bits: Ints = @bitCast(shifted);
    const exponent = (bits << @splat(23)) +% @as(Ints, @splat(127 << 23));
    return .{ .integer = shifted - splat(round_magic), .power = @bitCast(exponent) };
}

/// 2^x to 1.5 units of 2^-24, 0 below -127 (also for -inf), NaN for NaN. x must not exceed 127.
pub inline fn exp2(x: Vec) Vec {
    const clamped = maximum(splat(-127), x);
    const split = roundToPower(clamped);
    const f = clamped - split.integer;
    // (2^f - 1) / f on [-0.5, 0.5], degree 5, error 2.0e-9.
    const q = polynomial(f, &.{
        0.6931471824645996,   0.24022647738456726,   0.055503323674201965,
        0.009618437848985195, 0.0013398900628089905, 0.00015353341586887836,
    });
    return fma(q, f, splat(1)) * split.power;
}

/// e^x to 1.5 units of 2^-24 where the result is normal. The argument is limited to [-88, 88], so
/// that the result is never infinite; NaN stays NaN.
pub inline fn exp(x: Vec) Vec {
    const clamped = minimum(splat(88), maximum(splat(-88), x));
    const split = roundToPower(clamped * splat(std.math.log2e));
    // ln 2 in two parts: the first has few bits, so its product with n is exact.
    const n = split.integer;
    var r = fma(n, splat(-0.693359375), clamped);
    r = fma(n, splat(2.12194440054690583e-4), r);
    // (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2], degree 4, error 3.1e-9.
    const q = polynomial(r, &.{
        0.4999999403953552,   0.1666652113199234,   0.04166838899254799,
        0.008368716575205326, 0.001381459878757596,
    });
    return (fma(q, r * r, r) + splat(1)) * split.power;
}

/// The error function to 7e-8 absolute.
pub inline fn erf(x: Vec) Vec {
    const z = @abs(x);
    // erf(z) / z - 1 in z^2 on [0, 1], degree 6, error 5.7e-10.
    const near = fma(polynomial(x * x, &.{
        0.12837915122509003,   -0.3761260509490967,   0.11283430457115173,
        -0.02684859186410904,  0.0051797498017549515, -0.0007942356751300395,
        7.647119491593912e-05,
    }), z, z);
    // ln(1 - erf(z)) on [1, 4], degree 8, error 1.7e-11 times 1 - erf(z); beyond 4 it is 1.
    const far = splat(1) - exp(polynomial(minimum(splat(4), z), &.{
        0.00020382076036185026, -1.1296584606170654,    -0.6330454349517822,
        -0.10863190144300461,   0.025368278846144676,   -0.0042799171060323715,
        0.00046308187302201986, -2.520148154872004e-05, 2.43526216081591e-07,
    }));
    const magnitude = @select(f32, z > splat(1), far, near);
    const sign = @as(Ints, @bitCast(x)) & @as(Ints, @splat(@bitCast(@as(u32, 1 << 31))));
    return @bitCast(@as(Ints, @bitCast(magnitude)) | sign);
}

inline fn sigmoid(x: Vec) Vec {
    return splat(1) / (splat(1) + exp(-x));
}

/// x * (1 + erf(x / sqrt 2)) / 2
pub inline fn gelu(x: Vec) Vec {
    const half = splat(0.5) * x;
    return fma(half, erf(x * splat(std.math.sqrt1_2)), half);
}

pub inline fn activate(comptime activation: arguments.Activation, x: Vec) Vec {
    return switch (activation) {
        .none => x,
        .silu => x / (splat(1) + exp(-x)),
        .gelu => gelu(x),
        .quick_gelu => x * sigmoid(splat(1.702) * x),
        .relu => maximum(splat(0), x),
        // 3 tanh(x / 3), exact to 2^-21 of its largest value.
        .soft_clamp => splat(3) - splat(6) / (splat(1) + exp(splat(2.0 / 3.0) * x)),
        .to_signed => x + x - splat(1),
        .leaky_relu => maximum(splat(0.2) * x, x),
    };
}
