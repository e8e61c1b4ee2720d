//! Numbers of device memory as f32 and back, for the emulated libraries: the one place that knows
//! how f16 and bf16 are laid out and rounded (to nearest, ties to even).

const std = @import("std");
const library = @import("library.zig");

pub const Type = enum {
    f32,
    f16,
    bf16,

    pub fn bytes(dtype: Type) usize {
        return if (dtype == .f32) 4 else 2;
    }
};

/// Elements in device memory.
pub const Array = struct {
    dtype: Type,
    address: usize,

    pub fn at(array: Array, index: usize) Array {
        return .{ .dtype = array.dtype, .address = array.address + index * array.dtype.bytes() };
    }

    pub fn get(array: Array, index: usize) f32 {
        var value: [1]f32 = undefined;
        array.at(index).read(&value);
        return value[0];
    }

    pub fn put(array: Array, index: usize, value: f32) void {
        array.at(index).write(&.{value});
    }

    /// `out[i]` = element i.
    pub fn read(array: Array, out: []f32) void {
        switch (array.dtype) {
            inline else => |dtype| {
                const elements: [*]const Stored(dtype) = @ptrFromInt(array.address);
                var i: usize = 0;
                // Vectors by hand: the compiler makes none of conversions of f16.
                while (i + lane_count <= out.len) : (i += lane_count) {
                    const many = elements[i..][0..lane_count].*;
                    out[i..][0..lane_count].* = widen(dtype, lane_count, many);
                }
                while (i < out.len) : (i += 1) out[i] = widen(dtype, 1, elements[i..][0..1].*)[0];
            },
        }
    }

    /// Element i = `values[i]`.
    pub fn write(array: Array, values: []const f32) void {
        switch (array.dtype) {
            inline else => |dtype| {
                const elements: [*]Stored(dtype) = @ptrFromInt(array.address);
                var i: usize = 0;
                while (i + lane_count <= values.len) : (i += lane_count) {
                    const many = values[i..][0..lane_count].*;
                    elements[i..][0..lane_count].* = round(dtype, lane_count, many);
                }
                while (i < values.len) : (i += 1) {
                    elements[i..][0..1].* = round(dtype, 1, values[i..][0..1].*);
                }
            },
        }
    }
};

/// Whether work on `device` may access the range; reports a violation in one line.
pub fn isReachable(
    device: u32,
    label: []const u8,
    name: []const u8,
    address: usize,
    bytes: usize,
) bool {
    if (library.isReachable(device, address, bytes)) return true;
    library.report("{s}: {s} at 0x{x} ({d} bytes) is not memory that GPU {d} may touch", .{
        label, name, address, bytes, device,
    });
    return false;
}

// --- internal ---

const lane_count = 16;

/// What an element is in memory: bf16 as its bits.
fn Stored(comptime dtype: Type) type {
    return switch (dtype) {
        .f32 => f32,
        .f16 => f16,
        .bf16 => u16,
    };
}

fn widen(
    comptime dtype: Type,
    comptime count: u16,
    elements: @Vector(count, Stored(dtype)),
) [count]f32 {
    const Bits = @Vector(count, u32);
    const values: @Vector(count, f32) = switch (dtype) {
        .f32 => elements,
        .f16 => @floatCast(elements),
        .bf16 => @bitCast(@as(Bits, elements) << @splat(16)),
    };
    return values;
}

fn round(
    comptime dtype: Type,
    comptime count: u16,
    values: @Vector(count, f32),
) [count]Stored(dtype) {
    const Bits = @Vector(count, u32);
    const elements: @Vector(count, Stored(dtype)) = switch (dtype) {
        .f32 => values,
        .f16 => @floatCast(values),
        .bf16 => bits: {
            const bits: Bits = @bitCast(values);
            const high = bits >> @splat(16);
            const odd = high & @as(Bits, @splat(1));
            const nearest = (bits +% @as(Bits, @splat(0x7fff)) +% odd) >> @splat(16);
            const nan = high | @as(Bits, @splat(0x40));
            break :bits @truncate(@select(u32, values != values, nan, nearest));
        },
    };
    return elements;
}

test "elements are the same one by one and many at once, with the rounding of the hardware" {
    var prng: std.Random.DefaultPrng = .init(1);
    var values: [5 * lane_count + 3]f32 = undefined;
    for (&values) |*value| value.* = @bitCast(prng.random().int(u32));
    values[0..6].* = .{ 1, -0.0, std.math.nan(f32), std.math.inf(f32), 65520, 1e-8 };
    inline for (comptime std.enums.values(Type)) |dtype| {
        var stored: [values.len]Stored(dtype) = undefined;
        const array: Array = .{ .dtype = dtype, .address = @intFromPtr(&stored) };
        array.write(&values);
        var back: [values.len]f32 = undefined;
        array.read(&back);
        for (values, stored, back, 0..) |value, element, wide, i| {
            array.put(i, value);
            try std.testing.expectEqual(bitsOf(element), bitsOf(stored[i]));
            const alone: u32 = @bitCast(array.get(i));
            try std.testing.expectEqual(alone, @as(u32, @bitCast(wide)));
            const expected = switch (dtype) {
                .f32 => value,
                .f16 => @as(f32, @as(f16, @floatCast(value))),
                .bf16 => roundedBf16(value),
            };
            if (std.math.isNan(value)) try std.testing.expect(std.math.isNan(wide)) else {
                try std.testing.expectEqual(expected, wide);
            }
        }
    }
}

fn bitsOf(element: anytype) u32 {
    return if (@sizeOf(@TypeOf(element)) == 4)
        @bitCast(element)
    else
        @as(u16, @bitCast(element));
}

/// The nearer of the two neighbours, the even one of two that are as near.
fn roundedBf16(value: f32) f32 {
    const bits: u32 = @bitCast(value);
    const low: f32 = @bitCast(bits & 0xffff0000);
    const rest = bits & 0xffff;
    const is_up = rest > 0x8000 or (rest == 0x8000 and bits >> 16 & 1 == 1);
    return if (is_up) @bitCast((bits & 0xffff0000) +% 0x10000) else low;
}
