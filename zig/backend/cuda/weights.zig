//! The model's weights on a GPU: one block of memory, every weight in the activations' type and in
//! the order that kernels and libraries read: matrices (out, in), convolutions (out, height, width,
//! in). Where each lies is the same on every GPU.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const DType = @import("../../tensor.zig").DType;
const models = @import("../../model.zig");
const Weight = @import("../../weights.zig").Weight;
const Gpu = @import("gpu.zig").Gpu;

pub const Error = error{ GpuFailed, Cancelled, OutOfMemory };

/// What cuBLASLt and cuDNN want at most; a matrix whose bytes are a multiple of it has the next one
/// right behind, so that keys and values can be one product.
const alignment = 256;

/// Gives every weight its place; returns the bytes of all.
pub fn place(model: *models.Model, activation: DType) usize {
    var end: usize = 0;
    for (&model.stores.values, std.enums.values(models.Component)) |*store, component| {
        for (store.weights.items) |weight| {
            weight.device_offset = end;
            // The VAE's sums can pass what f16 holds.
            weight.may_cascade = component == .unet;
            const bytes = weight.elementCount() * activation.size();
            end = std.mem.alignForward(usize, end + bytes, alignment);
        }
    }
    return end;
}

/// Copies every weight to its place. `copied_bytes` counts up.
pub fn upload(
    gpa: Allocator,
    gpu: *Gpu,
    model: *models.Model,
    activation: DType,
    cancelled: *const std.atomic.Value(bool),
    copied_bytes: *std.atomic.Value(u64),
) Error!void {
    var largest: usize = 0;
    for (&model.stores.values) |*store| {
        for (store.weights.items) |weight| largest = @max(largest, weight.elementCount());
    }
    const staging = try gpa.alloc(u16, largest);
    defer gpa.free(staging);
    try gpu.makeCurrent();
    for (&model.stores.values) |*store| {
        for (store.weights.items) |weight| {
            if (cancelled.load(.monotonic)) return error.Cancelled;
            const bytes = bytesOf(weight, activation, staging);
            const target = gpu.weights + weight.device_offset;
            const result = gpu.driver.cuMemcpyHtoD_v2(target, bytes.ptr, bytes.len);
            try gpu.check(result, "taking the weights");
            _ = copied_bytes.fetchAdd(bytes.len, .monotonic);
        }
    }
}

// --- internal ---

/// The weight as the GPU wants it: the file's own bytes where they are that already.
fn bytesOf(weight: *const Weight, activation: DType, staging: []u16) []const u8 {
    const is_turned = weight.layout == .convolution and weight.shape[1] * weight.shape[2] > 1;
    const is_same = weight.source_dtype == activation and weight.scale == 1;
    if (!is_turned and is_same) return weight.source;
    const count = weight.elementCount();
    const out = staging[0..count];
    const channels: usize = weight.shape[3];
    const taps: usize = @as(usize, weight.shape[1]) * weight.shape[2];
    for (out, 0..) |*value, i| {
        // (out, height, width, in) here, (out, in, height, width) in the file.
        const at = if (is_turned)
            (i / (taps * channels) * channels + i % channels) * taps + i / channels % taps
        else
            i;
        value.* = convert(weight, at, activation);
    }
    return std.mem.sliceAsBytes(out);
}

fn convert(weight: *const Weight, i: usize, activation: DType) u16 {
    const bytes = weight.source[i * weight.source_dtype.size() ..];
    if (weight.source_dtype == activation and weight.scale == 1) {
        return std.mem.readInt(u16, bytes[0..2], .little);
    }
    const value: f32 = weight.scale * switch (weight.source_dtype) {
        .f32 => @as(f32, @bitCast(std.mem.readInt(u32, bytes[0..4], .little))),
        .f16 => @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little))),
        .bf16 => @as(f32, @bitCast(@as(u32, std.mem.readInt(u16, bytes[0..2], .little)) << 16)),
        else => unreachable,
    };
    if (activation == .f16) return @bitCast(@as(f16, @floatCast(value)));
    assert(activation == .bf16);
    const bits: u32 = @bitCast(value);
    if (std.math.isNan(value)) return @truncate((bits >> 16) | 0x40);
    // To nearest, ties to even.
    return @truncate((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

test "numbers round to bfloat16 as hardware does" {
    var bytes: [4]u8 = undefined;
    var weight: Weight = .{
        .name = "w",
        .layout = .matrix,
        .dtype = .f32,
        .shape = .{ 1, 1, 1, 1 },
        .source = &bytes,
        .source_dtype = .f32,
    };
    for ([_]u32{ 0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001 }, [_]u16{
        0x3f80, 0x3f80, 0x3f82, 0x3f81,
    }) |bits, expected| {
        std.mem.writeInt(u32, &bytes, bits, .little);
        try std.testing.expectEqual(expected, convert(&weight, 0, .bf16));
    }
}
