//! Weights in their file's own type, widened to f32 as they are read. Half precision is converted
//! by the instruction where there is one and by exact integer arithmetic where there is none. 8-bit
//! numbers go through half precision, and are multiplied by the scale of their row.
//! Pointers are aligned to the element only: weights are read where they lie in a mapped file.

const builtin = @import("builtin");
const arguments = @import("../arguments.zig");

const has_half = builtin.cpu.arch == .aarch64 or builtin.cpu.has(.x86, .f16c);

/// How the elements lie in memory: all but f32 as their bits.
pub fn Element(comptime weight_type: arguments.WeightType) type {
    return switch (weight_type) {
        .f32 => f32,
        .f16, .bf16 => u16,
        .f8_e4m3, .f8_e5m2 => u8,
    };
}

/// Whether every row of the weight has a scale.
pub inline fn isScaled(comptime weight_type: arguments.WeightType) bool {
    return Element(weight_type) == u8;
}

/// One scale per row, where the type has them.
pub fn Scales(comptime weight_type: arguments.WeightType) type {
    return if (isScaled(weight_type)) [*]const f32 else void;
}

/// What the elements of a row are multiplied by, where the type has scales.
pub fn Factor(comptime weight_type: arguments.WeightType) type {
    return if (isScaled(weight_type)) f32 else void;
}

/// The nine taps of one column of a 3x3 convolution, or a part of them.
pub fn Column(comptime weight_type: arguments.WeightType) type {
    return struct {
        taps: [*]const Element(weight_type),
        factor: Factor(weight_type),
    };
}

/// Value of 1 in what `widen` returns: e4m3 has half precision's fields at another bias.
inline fn unit(comptime weight_type: arguments.WeightType) f32 {
    return if (weight_type == .f8_e4m3 and has_half) 0x1p8 else 1;
}

/// Of row `row`.
pub inline fn factorOf(
    comptime weight_type: arguments.WeightType,
    scales: Scales(weight_type),
    row: usize,
) Factor(weight_type) {
    return if (isScaled(weight_type)) unit(weight_type) * scales[row] else {};
}

/// A product's scales from row `row` on.
pub inline fn scalesOf(
    comptime weight_type: arguments.WeightType,
    scales: ?[*]const f32,
    row: usize,
) Scales(weight_type) {
    return if (isScaled(weight_type)) scales.? + row else {};
}

/// `count` consecutive elements, not yet widened: several can be joined before widening.
pub inline fn raw(
    comptime weight_type: arguments.WeightType,
    comptime count: usize,
    source: [*]const Element(weight_type),
) @Vector(count, Element(weight_type)) {
    const T = Element(weight_type);
    return @as(*align(@alignOf(T)) const @Vector(count, T), @ptrCast(source)).*;
}

/// In units of `unit`.
inline fn widen(
    comptime weight_type: arguments.WeightType,
    value: anytype,
) @Vector(@typeInfo(@TypeOf(value)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(value)).vector.len;
    const Wide = @Vector(n, u32);
    switch (weight_type) {
        .f32 => return value,
        .bf16 => return @bitCast(@as(Wide, value) << @splat(16)),
        .f16 => {
            if (has_half) return @floatCast(@as(@Vector(n, f16), @bitCast(value)));
            const bits: Wide = value;
            const sign = (bits & @as(Wide, @splat(0x8000))) << @splat(16);
            // Read as an f32, the 15 bits are too small by 2^112, subnormals included.
            const shifted = (bits & @as(Wide, @splat(0x7fff))) << @splat(13);
            const scaled: @Vector(n, f32) = @as(@Vector(n, f32), @bitCast(shifted)) *
                @as(@Vector(n, f32), @splat(0x1p112));
            const largest: Wide = @splat(0x7c00 << 13);
            const infinite = @as(Wide, @splat(0x7f800000)) | shifted;
            const finite: Wide = @bitCast(scaled);
            const magnitude = @select(u32, shifted >= largest, infinite, finite);
            return @bitCast(magnitude | sign);
        },
        .f8_e5m2 => return widen(.f16, @as(@Vector(n, u16), value) << @splat(8)),
        .f8_e4m3 => return if (has_half) widenByHalf(value) else widenByInteger(value),
    }
}

/// Sign, exponent and fraction of e4m3 at the places of half precision: too small by 2^8,
/// subnormals included. Its only NaN becomes one.
inline fn widenByHalf(value: anytype) @Vector(@typeInfo(@TypeOf(value)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(value)).vector.len;
    const Half = @Vector(n, u16);
    const extended: @Vector(n, i16) = @as(@Vector(n, i8), @bitCast(value));
    const bits = (@as(Half, @bitCast(extended)) << @splat(7)) & @as(Half, @splat(0xbfff));
    const largest: Half = @splat(0x3f80);
    const is_nan = (bits & largest) == largest;
    return widen(.f16, @select(u16, is_nan, bits | @as(Half, @splat(0x7c00)), bits));
}

/// Without half precision in hardware. Subnormals of f32, which take processors many cycles, do not
/// occur.
inline fn widenByInteger(value: anytype) @Vector(@typeInfo(@TypeOf(value)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(value)).vector.len;
    const Wide = @Vector(n, u32);
    const Float = @Vector(n, f32);
    const bits: Wide = value;
    const sign = (bits & @as(Wide, @splat(0x80))) << @splat(24);
    const shifted = (bits & @as(Wide, @splat(0x7f))) << @splat(20);
    const normal = shifted + @as(Wide, @splat(120 << 23));
    // With an exponent of 1 in e4m3 the fraction has a leading 1, which is subtracted.
    const led: Float = @bitCast(shifted + @as(Wide, @splat(121 << 23)));
    const subnormal: Wide = @bitCast(led - @as(Float, @splat(0x1p-6)));
    const finite = @select(u32, shifted < @as(Wide, @splat(1 << 23)), subnormal, normal);
    const is_nan = shifted == @as(Wide, @splat(0x7f << 20));
    return @bitCast(@select(u32, is_nan, @as(Wide, @splat(0x7fc00000)), finite) | sign);
}

/// `factor` is that of the elements' row.
pub inline fn load(
    comptime weight_type: arguments.WeightType,
    comptime count: usize,
    source: [*]const Element(weight_type),
    factor: Factor(weight_type),
) @Vector(count, f32) {
    const value = widen(weight_type, raw(weight_type, count, source));
    if (!isScaled(weight_type)) return value;
    return value * @as(@Vector(count, f32), @splat(factor));
}

pub inline fn loadOne(
    comptime weight_type: arguments.WeightType,
    source: [*]const Element(weight_type),
    factor: Factor(weight_type),
) f32 {
    return load(weight_type, 1, source, factor)[0];
}

/// Rounds to nearest, ties to even; numbers from `finiteLimit` on become infinite.
pub inline fn narrow(
    comptime weight_type: arguments.WeightType,
    value: anytype,
) @Vector(@typeInfo(@TypeOf(value)).vector.len, Element(weight_type)) {
    const n = @typeInfo(@TypeOf(value)).vector.len;
    const Wide = @Vector(n, u32);
    const bits: Wide = @bitCast(value);
    switch (weight_type) {
        .f32 => return value,
        .bf16 => {
            const odd = bits >> @splat(16) & @as(Wide, @splat(1));
            return @truncate((bits +% @as(Wide, @splat(0x7fff)) +% odd) >> @splat(16));
        },
        .f16 => {
            if (has_half) return @bitCast(@as(@Vector(n, f16), @floatCast(value)));
            const magnitude = bits & @as(Wide, @splat(0x7fffffff));
            const sign = (bits >> @splat(16)) & @as(Wide, @splat(0x8000));
            // Adding this leaves a subnormal number's bits at the low end, rounded.
            const magic: u32 = (127 - 15 + 23 - 10 + 1) << 23;
            const small: @Vector(n, f32) = @as(@Vector(n, f32), @bitCast(magnitude)) +
                @as(@Vector(n, f32), @splat(@bitCast(magic)));
            const subnormal = @as(Wide, @bitCast(small)) -% @as(Wide, @splat(magic));
            const odd = magnitude >> @splat(13) & @as(Wide, @splat(1));
            const bias: Wide = @splat(0xfff -% (@as(u32, 127 - 15) << 23));
            const normal = (magnitude +% bias +% odd) >> @splat(13);
            const is_small = magnitude < @as(Wide, @splat((127 - 14) << 23));
            const is_large = magnitude >= @as(Wide, @splat(0x477ff000));
            const finite = @select(u32, is_small, subnormal, normal);
            const infinite: Wide = @splat(0x7c00);
            return @truncate(@select(u32, is_large, infinite, finite) | sign);
        },
        // Nothing is made in 8 bits.
        .f8_e4m3, .f8_e5m2 => unreachable,
    }
}

/// The smallest magnitude that `narrow` makes infinite.
pub fn finiteLimit(comptime weight_type: arguments.WeightType) f32 {
    return switch (weight_type) {
        .f32 => @import("std").math.inf(f32),
        .bf16 => @bitCast(@as(u32, 0x7f7f8000)),
        .f16 => 65520,
        .f8_e4m3, .f8_e5m2 => unreachable,
    };
}
