//! One weight: its tensor in the checkpoint (`source`), and the location that the device reads it
//! from (`address` on the CPU, `device_offset` on GPUs).

const std = @import("std");
const assert = std.debug.assert;
const DType = @import("../tensor.zig").DType;

/// Layout of a weight on the device.
pub const Layout = enum {
    /// (out, in), as in the file.
    matrix,
    /// (out, in, height, width) in the file; (out, height, width, in) here, since tensors are NHWC.
    convolution,
    /// (n), widened to f32: biases and norms are small and read everywhere.
    vector,
};

pub const Weight = struct {
    name: []const u8,
    layout: Layout,
    /// Type of the elements at `address`.
    dtype: DType,
    /// Dimensions in this layout's order; unused ones are 1.
    shape: [4]u32,
    /// Address for the CPU; 0 until `Resident.loadToHost`.
    address: usize = 0,
    /// Whether `fp16_accumulate` applies to products with this weight.
    may_cascade: bool = false,
    /// Factor at which GPUs store it; see `VaeConfig.residual_scale`.
    scale: f32 = 1,
    /// Offset in a GPU's copy of all weights; see `backend/cuda/weights.zig`.
    device_offset: usize = 0,
    /// In the mapped file.
    source: []const u8,
    source_dtype: DType,

    pub fn elementCount(weight: *const Weight) usize {
        var count: usize = 1;
        for (weight.shape) |dimension| count *= dimension;
        return count;
    }

    /// Whether file and device order the elements differently.
    pub fn isPermuted(weight: *const Weight) bool {
        return weight.layout == .convolution and weight.shape[1] * weight.shape[2] > 1;
    }

    /// Index in the file of the device's element `i`.
    pub fn sourceIndex(weight: *const Weight, i: usize) usize {
        if (!weight.isPermuted()) return i;
        const channels: usize = weight.shape[3];
        const taps: usize = @as(usize, weight.shape[1]) * weight.shape[2];
        return (i / (taps * channels) * channels + i % channels) * taps + i / channels % taps;
    }

    /// Element `i` in the file's order.
    pub fn sourceValue(weight: *const Weight, i: usize) f32 {
        const bytes = weight.source[i * weight.source_dtype.size() ..];
        return switch (weight.source_dtype) {
            .f32 => @bitCast(std.mem.readInt(u32, bytes[0..4], .little)),
            .f16 => @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little))),
            .bf16 => @bitCast(@as(u32, std.mem.readInt(u16, bytes[0..2], .little)) << 16),
            else => unreachable,
        };
    }

    /// Whether the CPU can read the weight in the mapped file.
    pub fn isInPlace(weight: *const Weight) bool {
        if (weight.source_dtype != weight.dtype or weight.isPermuted()) return false;
        return std.mem.isAligned(@intFromPtr(weight.source.ptr), weight.dtype.size());
    }

    /// Bytes of the CPU's copy, rounded up so that each copy starts on a cache line.
    pub fn copyBytes(weight: *const Weight) usize {
        return std.mem.alignForward(usize, weight.elementCount() * weight.dtype.size(), 64);
    }

    /// Copies the file's elements in the layout and type that the CPU reads.
    pub fn copyTo(weight: *const Weight, target: []u8) void {
        switch (weight.layout) {
            .vector => {
                const out: [*]f32 = @ptrCast(@alignCast(target.ptr));
                for (0..weight.elementCount()) |i| out[i] = weight.sourceValue(i);
            },
            .matrix => @memcpy(target[0..weight.source.len], weight.source),
            .convolution => permute(weight, target),
        }
    }
};

// --- internal ---

/// Transposes (out, in, height * width) to (out, height * width, in), for any element type.
fn permute(weight: *const Weight, target: []u8) void {
    switch (weight.dtype.size()) {
        2 => permuteAs(u16, weight, target),
        4 => permuteAs(u32, weight, target),
        else => unreachable,
    }
}

fn permuteAs(comptime T: type, weight: *const Weight, target: []u8) void {
    const out_count, const height, const width, const in_count = weight.shape;
    const taps: usize = @as(usize, height) * width;
    const source: [*]align(1) const T = @ptrCast(weight.source.ptr);
    const destination: [*]T = @ptrCast(@alignCast(target.ptr));
    for (0..out_count) |o| {
        const from = source[o * in_count * taps ..];
        const to = destination[o * in_count * taps ..];
        for (0..taps) |tap| {
            for (0..in_count) |c| to[tap * in_count + c] = from[c * taps + tap];
        }
    }
}

test "elements are found where permuting puts them" {
    var source: [2 * 3 * 2 * 4]u16 = undefined;
    for (&source, 0..) |*value, i| value.* = @intCast(i);
    const weight: Weight = .{
        .name = "w",
        .layout = .convolution,
        .dtype = .f16,
        .shape = .{ 2, 2, 4, 3 },
        .source = std.mem.sliceAsBytes(&source),
        .source_dtype = .f16,
    };
    var target: [source.len]u16 align(64) = undefined;
    weight.copyTo(std.mem.sliceAsBytes(&target));
    for (target, 0..) |value, i| try std.testing.expectEqual(value, weight.sourceIndex(i));
}
