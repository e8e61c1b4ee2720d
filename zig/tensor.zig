//! A tensor: a device address, a shape and a type. It owns no memory.
//! Activations are NHWC, so a patch of rows is one contiguous slice and attention tokens are the
//! same memory as the image: (batch, rows, width, channels) = (batch, rows * width, channels).

const std = @import("std");
const assert = std.debug.assert;

/// Element types. Activations are f32 on the CPU; weights keep the type of their file.
pub const DType = enum(u32) {
    f32 = 0,
    f16 = 1,
    bf16 = 2,
    f64 = 3,
    u8 = 4,
    i32 = 5,
    /// Of weights alone: sign, 4 bits of exponent, 3 of fraction; no infinity, one NaN.
    f8_e4m3 = 6,
    /// The upper half of an f16.
    f8_e5m2 = 7,
    /// Operands of int8 products: integers of [-127, 127] and scales (see `weights/int8.zig`).
    i8 = 8,

    pub fn isF8(dtype: DType) bool {
        return dtype == .f8_e4m3 or dtype == .f8_e5m2;
    }

    /// Bytes per element.
    pub fn size(dtype: DType) usize {
        return switch (dtype) {
            .f64 => 8,
            .f32, .i32 => 4,
            .f16, .bf16 => 2,
            .u8, .i8, .f8_e4m3, .f8_e5m2 => 1,
        };
    }
};

pub const Shape = struct {
    batch: u32,
    rows: u32,
    width: u32,
    channels: u32,

    /// One vector per batch element: (batch, 1, 1, channels).
    pub fn vector(batch: u32, channels: u32) Shape {
        return .{ .batch = batch, .rows = 1, .width = 1, .channels = channels };
    }

    /// One sequence per batch element: (batch, 1, tokens, channels).
    pub fn tokens(batch: u32, token_count: u32, channels: u32) Shape {
        return .{ .batch = batch, .rows = 1, .width = token_count, .channels = channels };
    }

    /// Positions per batch element: rows * width.
    pub fn positionCount(shape: Shape) usize {
        return @as(usize, shape.rows) * shape.width;
    }

    /// Positions of the whole batch: the rows of a product with the channels as its depth.
    pub fn rowCount(shape: Shape) usize {
        return shape.batch * shape.positionCount();
    }

    pub fn elementCount(shape: Shape) usize {
        return shape.rowCount() * shape.channels;
    }

    pub fn withChannels(shape: Shape, channels: u32) Shape {
        return .{
            .batch = shape.batch,
            .rows = shape.rows,
            .width = shape.width,
            .channels = channels,
        };
    }

    pub fn eql(a: Shape, b: Shape) bool {
        return std.meta.eql(a, b);
    }
};

pub const Tensor = struct {
    /// Device address of the first element; in a dry run an offset into no memory.
    address: usize,
    shape: Shape,
    dtype: DType = .f32,

    pub fn byteCount(tensor: Tensor) usize {
        return tensor.shape.elementCount() * tensor.dtype.size();
    }

    /// View of the batch elements [first, first + count).
    pub fn batchSlice(tensor: Tensor, first: u32, count: u32) Tensor {
        assert(first + count <= tensor.shape.batch);
        const per_batch = tensor.shape.positionCount() * tensor.shape.channels;
        var slice = tensor;
        slice.address += first * per_batch * tensor.dtype.size();
        slice.shape.batch = count;
        return slice;
    }

    /// The elements of a tensor in host memory.
    pub fn host(tensor: Tensor, comptime T: type) []T {
        assert(@sizeOf(T) == tensor.dtype.size());
        const first: [*]T = @ptrFromInt(tensor.address);
        return first[0..tensor.shape.elementCount()];
    }
};

test "batchSlice keeps the other dimensions and moves by whole elements" {
    var data: [24]f32 = undefined;
    const tensor: Tensor = .{
        .address = @intFromPtr(&data),
        .shape = .{ .batch = 3, .rows = 2, .width = 2, .channels = 2 },
    };
    const slice = tensor.batchSlice(1, 2);
    try std.testing.expectEqual(@intFromPtr(&data[8]), slice.address);
    try std.testing.expectEqual(@as(usize, 16), slice.host(f32).len);
}
