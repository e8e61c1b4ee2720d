//! Weights in their file's own type, widened to f32 as they are read. Half precision is converted
//! by the instruction where there is one and by exact integer arithmetic where there is none.
//! Pointers are aligned to the element only: weights are read where they lie in a mapped file.

const builtin = @import("builtin");
const arguments = @import("../arguments.zig");

const has_half = builtin.cpu.arch == .aarch64 or builtin.cpu.has(.x86, .f16c);

/// How the elements lie in memory: bf16 and f16 both as their bits.
pub fn Element(comptime weight_type: arguments.WeightType) type {
    return switch (weight_type) {
        .f32 => f32,
        .f16, .bf16 => u16,
    };
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

pub inline fn widen(
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
    }
}

pub inline fn load(
    comptime weight_type: arguments.WeightType,
    comptime count: usize,
    source: [*]const Element(weight_type),
) @Vector(count, f32) {
    return widen(weight_type, raw(weight_type, count, source));
}

pub inline fn loadOne(
    comptime weight_type: arguments.WeightType,
    source: [*]const Element(weight_type),
) f32 {
    return load(weight_type, 1, source)[0];
}
