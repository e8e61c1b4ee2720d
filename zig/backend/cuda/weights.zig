//! The model's weights on a GPU: one block of memory, every weight in the activations' type and in
//! the order that kernels and libraries read: matrices (out, in), convolutions (out, height, width,
//! in). Offsets are the same on every GPU and never change: CUDA graphs hold the addresses.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const DType = @import("../../tensor.zig").DType;
const Weight = @import("../../weights.zig").Weight;
const Gpu = @import("gpu.zig").Gpu;

pub const Error = error{ GpuFailed, Cancelled, OutOfMemory };

/// The strictest alignment of cuBLASLt and cuDNN. A matrix whose size is a multiple of it is
/// followed directly by the next one, so that keys and values can be one product.
const alignment = 256;

/// Assigns every weight its offset; returns the bytes of all.
pub fn place(weights: []const *Weight, activation: DType) usize {
    var end: usize = 0;
    for (weights) |weight| {
        weight.device_offset = end;
        const bytes = weight.elementCount() * activation.size();
        end = std.mem.alignForward(usize, end + bytes, alignment);
    }
    return end;
}

/// Copies every weight to its place. `copied_bytes` counts up.
pub fn upload(
    gpa: Allocator,
    gpu: *Gpu,
    weights: []const *Weight,
    activation: DType,
    cancelled: *const std.atomic.Value(bool),
    copied_bytes: *std.atomic.Value(u64),
) Error!void {
    const staging = try gpa.alloc(u16, largestCount(weights));
    defer gpa.free(staging);
    for (weights) |weight| {
        if (cancelled.load(.monotonic)) return error.Cancelled;
        const bytes = bytesOf(weight, activation, staging);
        try write(gpu, weight, bytes);
        _ = copied_bytes.fetchAdd(bytes.len, .monotonic);
    }
}

/// Elements of the largest weight.
pub fn largestCount(weights: []const *Weight) usize {
    var largest: usize = 0;
    for (weights) |weight| largest = @max(largest, weight.elementCount());
    return largest;
}

/// Copies a weight to its place, while no work of the GPU reads it.
pub fn write(gpu: *Gpu, weight: *const Weight, bytes: []const u8) error{GpuFailed}!void {
    try gpu.makeCurrent();
    const target = gpu.weights + weight.device_offset;
    const result = gpu.driver.cuMemcpyHtoD_v2(target, bytes.ptr, bytes.len);
    try gpu.check(.cuMemcpyHtoD_v2, result, "uploading the weights");
}

/// Elements in the GPU's type and order: the file's own bytes where these match.
pub fn bytesOf(weight: *const Weight, activation: DType, staging: []u16) []const u8 {
    const is_same = weight.source_dtype == activation and weight.scale == 1;
    if (is_same and !weight.isPermuted()) return weight.source;
    const out = staging[0..weight.elementCount()];
    for (out, 0..) |*bits, i| {
        const at = weight.sourceIndex(i);
        if (is_same) {
            bits.* = std.mem.readInt(u16, weight.source[2 * at ..][0..2], .little);
        } else {
            bits.* = round(weight.scale * weight.sourceValue(at), activation);
        }
    }
    return std.mem.sliceAsBytes(out);
}

// --- internal ---

fn round(value: f32, activation: DType) u16 {
    if (activation == .f16) return @bitCast(@as(f16, @floatCast(value)));
    assert(activation == .bf16);
    const bits: u32 = @bitCast(value);
    if (std.math.isNan(value)) return @truncate((bits >> 16) | 0x40);
    // To nearest, ties to even.
    return @truncate((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

test "numbers round to bfloat16 as hardware does" {
    for ([_]u32{ 0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001 }, [_]u16{
        0x3f80, 0x3f80, 0x3f82, 0x3f81,
    }) |bits, expected| try std.testing.expectEqual(expected, round(@bitCast(bits), .bf16));
}
