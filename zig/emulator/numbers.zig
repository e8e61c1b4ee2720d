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
        switch (array.dtype) {
            .f32 => return @as([*]const f32, @ptrFromInt(array.address))[index],
            .f16 => return @as([*]const f16, @ptrFromInt(array.address))[index],
            .bf16 => {
                const bits: u32 = @as([*]const u16, @ptrFromInt(array.address))[index];
                return @bitCast(bits << 16);
            },
        }
    }

    pub fn put(array: Array, index: usize, value: f32) void {
        switch (array.dtype) {
            .f32 => @as([*]f32, @ptrFromInt(array.address))[index] = value,
            .f16 => @as([*]f16, @ptrFromInt(array.address))[index] = @floatCast(value),
            .bf16 => @as([*]u16, @ptrFromInt(array.address))[index] = roundBf16(value),
        }
    }

    /// `out[i]` = element i.
    pub fn read(array: Array, out: []f32) void {
        // A loop for each type, which the compiler makes one of vectors: through `get` it does not.
        switch (array.dtype) {
            .f32 => @memcpy(out, @as([*]const f32, @ptrFromInt(array.address))),
            .f16 => {
                const elements: [*]const f16 = @ptrFromInt(array.address);
                for (out, elements) |*value, element| value.* = element;
            },
            .bf16 => {
                const elements: [*]const u16 = @ptrFromInt(array.address);
                for (out, elements) |*value, bits| value.* = @bitCast(@as(u32, bits) << 16);
            },
        }
    }

    /// Element i = `values[i]`.
    pub fn write(array: Array, values: []const f32) void {
        switch (array.dtype) {
            inline else => |dtype| {
                const same: Array = .{ .dtype = dtype, .address = array.address };
                for (values, 0..) |value, i| same.put(i, value);
            },
        }
    }
};

fn roundBf16(value: f32) u16 {
    const bits: u32 = @bitCast(value);
    if (std.math.isNan(value)) return @intCast((bits >> 16) | 0x40);
    return @intCast((bits +% 0x7fff +% ((bits >> 16) & 1)) >> 16);
}

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
