//! One weight: its tensor in the checkpoint (`source`), and the location that the device reads it
//! from (`address` on the CPU, `device_offset` on GPUs).

const std = @import("std");
const assert = std.debug.assert;
const DType = @import("../tensor.zig").DType;
const f8 = @import("f8.zig");
const int8 = @import("int8.zig");
const Matrix = @import("matrix.zig").Matrix;

/// Layout of a weight on the device.
pub const Layout = enum {
    /// (out, in), as in the file.
    matrix,
    /// (out, in, height, width) in the file; (out, height, width, in) here, since tensors are NHWC.
    convolution,
    /// (n), widened to f32: biases and norms are small and read everywhere.
    vector,
};

/// Blocks of a GPU's memory that weights lie in: the model's, and one for each network beside it.
pub const block_count_max = 16;

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
    /// What the elements of each row of an 8-bit weight are multiplied by; empty for other types.
    row_scales: []const f32 = &.{},
    /// Factor at which GPUs store it; see `VaeConfig.residual_scale`.
    scale: f32 = 1,
    /// Whether `--dtype int8` may multiply it in int8: linear layers of the UNet's transformers.
    may_be_int8: bool = false,
    /// Where products are in int8, the groups that are rotated: `dtype` is i8 then.
    int8_group: u32 = 0,
    /// Whether rows of the matrix are looked up, and it is no operand of a product.
    is_table: bool = false,
    /// Which block of a GPU's memory has it: that of the model, 0, or of a network beside it.
    block: u32 = 0,
    /// Offset in that block; see `backend/cuda/weights.zig`.
    device_offset: usize = 0,
    /// Likewise of the scales of an int8 weight.
    int8_scales_offset: usize = 0,
    /// Null unless GPUs keep an f8 weight in 8 bits.
    kept_f8: ?KeptF8 = null,
    /// Whether the file has the matrix as (in, out).
    is_transposed: bool = false,
    /// In the mapped file.
    source: []const u8,
    source_dtype: DType,

    /// An 8-bit weight among those that GPUs keep so.
    pub const KeptF8 = struct {
        index: u32,
        /// Offsets in a GPU's copy of all weights: of what says where the weight is now, and of its
        /// `row_scales`.
        source_offset: usize = 0,
        scales_offset: usize = 0,
    };

    pub fn elementCount(weight: *const Weight) usize {
        var count: usize = 1;
        for (weight.shape) |dimension| count *= dimension;
        return count;
    }

    /// Whether file and device order the elements differently.
    pub fn isPermuted(weight: *const Weight) bool {
        if (weight.is_transposed) return true;
        return weight.layout == .convolution and weight.shape[1] * weight.shape[2] > 1;
    }

    /// Index in the file of the device's element `i`.
    pub fn sourceIndex(weight: *const Weight, i: usize) usize {
        if (!weight.isPermuted()) return i;
        _, const taps, const channels = weight.order();
        return (i / (taps * channels) * channels + i % channels) * taps + i / channels % taps;
    }

    /// Inputs of an output: channels, and taps of a convolution.
    pub fn inputs(weight: *const Weight) struct { channels: usize, height: usize, width: usize } {
        return switch (weight.layout) {
            .matrix => .{ .channels = weight.shape[1], .height = 1, .width = 1 },
            .convolution => .{
                .channels = weight.shape[3],
                .height = weight.shape[1],
                .width = weight.shape[2],
            },
            .vector => .{ .channels = 1, .height = 1, .width = 1 },
        };
    }

    /// The file's elements in the device's order, a row per output.
    pub fn matrix(weight: *const Weight) Matrix {
        const in = weight.inputs();
        const rows: usize = weight.shape[0];
        const taps = in.height * in.width;
        const dtype = weight.source_dtype;
        var result: Matrix = if (weight.is_transposed)
            .transposed(weight.source, dtype, rows, in.channels)
        else
            .permuted(weight.source, dtype, rows, taps, in.channels);
        result.row_scales = weight.row_scales;
        return result;
    }

    /// Element `i` in the file's order, times the scale of its row.
    pub fn sourceValue(weight: *const Weight, i: usize) f32 {
        const bytes = weight.source[i * weight.source_dtype.size() ..];
        return switch (weight.source_dtype) {
            .f32 => @bitCast(std.mem.readInt(u32, bytes[0..4], .little)),
            .f16 => @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little))),
            .bf16 => @bitCast(@as(u32, std.mem.readInt(u16, bytes[0..2], .little)) << 16),
            .f8_e4m3, .f8_e5m2 => f8.widen(weight.source_dtype, bytes[0]) * weight.rowScale(i),
            else => unreachable,
        };
    }

    /// Scale of the row of element `i` in the file's order.
    fn rowScale(weight: *const Weight, i: usize) f32 {
        if (weight.is_transposed) return weight.row_scales[i % weight.shape[0]];
        return weight.row_scales[i / (weight.elementCount() / weight.shape[0])];
    }

    /// Whether the CPU can read the weight in the mapped file.
    pub fn isInPlace(weight: *const Weight) bool {
        if (weight.source_dtype != weight.dtype or weight.isPermuted()) return false;
        return std.mem.isAligned(@intFromPtr(weight.source.ptr), weight.dtype.size());
    }

    /// Bytes of the CPU's copy, rounded up so that each copy starts on a cache line.
    pub fn copyBytes(weight: *const Weight) usize {
        if (weight.dtype == .i8) return int8.weightBytes(weight.shape[0], weight.shape[1]);
        return std.mem.alignForward(usize, weight.elementCount() * weight.dtype.size(), 64);
    }

    /// Copies the file's elements in the layout and type that the CPU reads.
    pub fn copyTo(weight: *const Weight, target: []u8) void {
        switch (weight.layout) {
            .vector => {
                const out: [*]f32 = @ptrCast(@alignCast(target.ptr));
                for (0..weight.elementCount()) |i| out[i] = weight.sourceValue(i);
            },
            .matrix => if (weight.is_transposed)
                permute(weight, target)
            else
                @memcpy(target[0..weight.source.len], weight.source),
            .convolution => permute(weight, target),
        }
    }

    /// Dimensions of a permuted weight: (blocks, channels, taps) in the file, (blocks, taps,
    /// channels) here. A transposed matrix is one block with its rows as taps.
    fn order(weight: *const Weight) [3]usize {
        const shape = weight.shape;
        if (weight.is_transposed) return .{ 1, shape[0], shape[1] };
        return .{ shape[0], @as(usize, shape[1]) * shape[2], shape[3] };
    }
};

// --- internal ---

/// Transposes (blocks, channels, taps) to (blocks, taps, channels), for any element type.
fn permute(weight: *const Weight, target: []u8) void {
    switch (weight.dtype.size()) {
        1 => permuteAs(u8, weight, target),
        2 => permuteAs(u16, weight, target),
        4 => permuteAs(u32, weight, target),
        else => unreachable,
    }
}

fn permuteAs(comptime T: type, weight: *const Weight, target: []u8) void {
    const out_count, const taps, const in_count = weight.order();
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

test "a matrix that the file has transposed is turned" {
    const source: [6]u16 = .{ 0, 1, 2, 3, 4, 5 };
    const weight: Weight = .{
        .name = "w",
        .layout = .matrix,
        .dtype = .f16,
        .shape = .{ 2, 3, 1, 1 },
        .is_transposed = true,
        .source = std.mem.sliceAsBytes(&source),
        .source_dtype = .f16,
    };
    try std.testing.expect(!weight.isInPlace());
    var target: [6]u16 align(64) = undefined;
    weight.copyTo(std.mem.sliceAsBytes(&target));
    try std.testing.expectEqualSlices(u16, &.{ 0, 2, 4, 1, 3, 5 }, &target);
    for (target, 0..) |value, i| try std.testing.expectEqual(value, weight.sourceIndex(i));
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
