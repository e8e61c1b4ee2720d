//! The model's weights on a GPU: one block of memory, in the order that kernels and libraries read:
//! matrices (out, in), convolutions (out, height, width, in). Elements are of the activations'
//! type, or int8 where products are, with a scale for each output elsewhere in the block; products'
//! weights that the file has in f8 stay so where `Placement` keeps them, and `ops_widen.zig` widens
//! them. Offsets are the same on every GPU and never change: CUDA graphs hold the addresses.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const DType = @import("../../tensor.zig").DType;
const int8 = @import("../../weights.zig").int8;
const Int8Maker = @import("../cpu/int8_maker.zig").Int8Maker;
const Source = @import("ops_widen.zig").Source;
const Layout = @import("../../weights.zig").Layout;
const Weight = @import("../../weights.zig").Weight;
const Gpu = @import("gpu.zig").Gpu;
const staging_file = @import("staging.zig");
const Staging = staging_file.Staging;
const chunk_bytes_default = staging_file.chunk_bytes_default;
const waits_file = @import("waits.zig");
const areAdjacent = @import("ops_product.zig").areAdjacent;

pub const Error = error{ GpuFailed, Cancelled, OutOfMemory };

/// The strictest alignment of cuBLASLt and cuDNN. A matrix whose size is a multiple of it is
/// followed directly by the next one, so that queries, keys and values can be one product.
pub const alignment = 256;

/// A weight takes milliseconds; a GPU that has not taken it by then does not answer.
const settle_limit_ns = 60 * std.time.ns_per_s;
/// Weights of one product.
const joined_count_max = 3;

/// Of GPUs' memory.
const page_bytes = 2 << 20;

/// Bytes of the weights of a model.
pub const Placement = struct {
    /// Of the block on each GPU.
    block_bytes: usize,
    /// Of these, in 8 bits.
    kept_f8_bytes: usize = 0,
    kept_f8_count: u32 = 0,
    /// Likewise in int8, with their scales.
    int8_bytes: usize = 0,
    /// Of each rank's workspace for widened weights.
    widen_bytes: usize = 0,
};

/// Assigns every weight its offset. `keeps_f8`: 8-bit weights stay 8 bits, except vectors and the
/// tables that are no operands of products.
pub fn place(weights: []const *Weight, activation: DType, keeps_f8: bool) Placement {
    var end: usize = 0;
    var result: Placement = .{ .block_bytes = 0 };
    for (weights) |weight| {
        weight.device_offset = end;
        weight.kept_f8 = null;
        const is_operand = weight.layout != .vector and !weight.is_table;
        if (keeps_f8 and weight.source_dtype.isF8() and is_operand and weight.dtype != .i8) {
            assert(weight.scale == 1);
            weight.kept_f8 = .{ .index = result.kept_f8_count };
            result.kept_f8_count += 1;
            result.kept_f8_bytes += weight.elementCount();
        }
        end = std.mem.alignForward(usize, end + deviceBytes(weight, activation), alignment);
    }
    for (weights) |weight| {
        if (weight.dtype != .i8) continue;
        assert(weight.layout == .matrix and weight.shape[0] % int8.column_unit == 0);
        weight.int8_scales_offset = end;
        end += weight.shape[0] * @sizeOf(f32);
        result.int8_bytes += int8.rowBytes(weight.shape[0], weight.shape[1]);
    }
    for (weights) |weight| if (weight.kept_f8) |*kept| {
        kept.source_offset = end;
        end += @sizeOf(Source);
    };
    for (weights) |weight| if (weight.kept_f8) |*kept| {
        kept.scales_offset = end;
        end += weight.row_scales.len * @sizeOf(f32);
    };
    result.block_bytes = end;
    for (weights, 0..) |weight, i| {
        if (weight.kept_f8 == null) continue;
        var count: usize = 0;
        // Queries, keys and values are one product at most.
        for (weights[i..@min(i + joined_count_max, weights.len)], 1..) |other, joined| {
            if (other.kept_f8 == null) break;
            if (!areAdjacent(weights[i..][0..joined], activation)) break;
            count += other.elementCount();
        }
        result.widen_bytes = @max(result.widen_bytes, count * activation.size());
    }
    return result;
}

/// Bytes of a weight in the block, without the scales of 8 bits.
pub fn deviceBytes(weight: *const Weight, activation: DType) usize {
    if (weight.dtype == .i8) return weight.elementCount();
    const size = if (weight.kept_f8 != null) weight.source_dtype.size() else activation.size();
    return weight.elementCount() * size;
}

/// Bytes that a copy in the activations' type takes beside a weight that is kept in 8 bits. Drivers
/// hand out memory in pages of 2 MiB, which only smaller allocations share.
pub fn wideCopyBytes(weight: *const Weight, activation: DType) u64 {
    const bytes: u64 = weight.elementCount() * activation.size();
    return std.mem.alignForward(u64, bytes, if (bytes < page_bytes / 2) alignment else page_bytes);
}

/// Copies every weight to its place on every GPU: converted once, as the converter makes it, then
/// sent to all GPUs side by side. `copied_bytes` counts up.
pub fn upload(
    gpus: []Gpu,
    weights: []const *Weight,
    activation: DType,
    converter: *Converter,
    copied_bytes: *std.atomic.Value(u64),
) Error!void {
    var staging: Staging = undefined;
    defer staging.deinit();
    try staging.init(gpus, chunk_bytes_default, converter.cancelled);
    if (weights.len > 0) staging.block = weights[0].block;
    const gpa = converter.gpa;
    var int8_scales: std.ArrayList(u8) = .empty;
    defer int8_scales.deinit(gpa);
    for (weights) |weight| {
        const bytes = try converter.bytesOf(weight, activation);
        const own, const scales = partsOf(weight, bytes);
        try staging.write(weight.device_offset, own);
        try int8_scales.appendSlice(gpa, scales);
        _ = copied_bytes.fetchAdd(bytes.len, .monotonic);
    }
    for (weights) |weight| {
        if (weight.dtype != .i8) continue;
        // All of them lie one behind the other.
        try staging.write(weight.int8_scales_offset, int8_scales.items);
        break;
    }
    for (weights) |weight| {
        const kept = weight.kept_f8 orelse continue;
        const scales = std.mem.sliceAsBytes(weight.row_scales);
        try staging.write(kept.scales_offset, scales);
    }
    try staging.finish();
    // Their addresses differ from GPU to GPU.
    for (gpus) |*gpu| {
        try gpu.makeCurrent();
        for (weights) |weight| {
            if (weight.kept_f8 != null) try redirect(gpu, weight, .stored(gpu.weights, weight));
        }
        try settle(gpu);
    }
}

/// Gives weights the GPU's type and order on the host's cores. Its staging has room for int8
/// weights with their scales, which have more inputs than two.
pub const Converter = struct {
    gpa: Allocator,
    cancelled: *const std.atomic.Value(bool),
    staging: []u16,
    maker: Int8Maker,

    /// For weights of at most `element_count` elements. Must not move.
    pub fn init(
        converter: *Converter,
        gpa: Allocator,
        io: Io,
        thread_count: usize,
        element_count: usize,
        cancelled: *const std.atomic.Value(bool),
    ) error{ OutOfMemory, ThreadsUnavailable }!void {
        converter.gpa = gpa;
        converter.cancelled = cancelled;
        converter.staging = try gpa.alloc(u16, element_count);
        errdefer gpa.free(converter.staging);
        try converter.maker.init(gpa, io, thread_count, cancelled);
    }

    pub fn deinit(converter: *Converter) void {
        converter.maker.deinit();
        converter.gpa.free(converter.staging);
    }

    /// What `bytesOf` gives, to the bit. Valid until the next call.
    pub fn bytesOf(
        converter: *Converter,
        weight: *const Weight,
        activation: DType,
    ) error{ Cancelled, OutOfMemory }![]const u8 {
        if (converter.cancelled.load(.monotonic)) return error.Cancelled;
        const staging = converter.staging;
        if (weight.dtype == .i8) return converter.int8BytesOf(weight);
        const is_copied = weight.kept_f8 != null or hasSameBytes(weight, activation);
        if (is_copied or weight.layout == .vector) return ownBytesOf(weight, activation, staging);
        const out = std.mem.sliceAsBytes(staging[0..weight.elementCount()]);
        converter.maker.merger.merge(weight.matrix(), weight.inputs().channels, &.{}, .{
            .bytes = out,
            .dtype = activation,
            .scale = weight.scale,
        }) catch |err| {
            // A number that is not finite: which of them it becomes depends on the processor.
            if (err != error.Overflow) return @errorCast(err);
            return ownBytesOf(weight, activation, staging);
        };
        return out;
    }

    // --- internal ---

    /// Of the panels that are at hand, or of the file.
    fn int8BytesOf(
        converter: *Converter,
        weight: *const Weight,
    ) error{ Cancelled, OutOfMemory }![]const u8 {
        const columns, const depth = .{ weight.shape[0], weight.shape[1] };
        const out = std.mem.sliceAsBytes(converter.staging)[0..int8.rowBytes(columns, depth)];
        if (weight.address != 0) {
            const panels: [*]const u8 = @ptrFromInt(weight.address);
            int8.toRows(panels[0..weight.copyBytes()], columns, depth, out);
            return out;
        }
        converter.maker.rows(weight, &.{}, out) catch |err| switch (err) {
            error.Overflow => unreachable, // f32 has all numbers of files
            else => |other| return other,
        };
        return out;
    }
};

/// Elements of the largest weight.
pub fn largestCount(weights: []const *Weight) usize {
    var largest: usize = 0;
    for (weights) |weight| largest = @max(largest, weight.elementCount());
    return largest;
}

/// Copies a weight to its place and returns when it is there, while no work of the GPU reads it:
/// what `bytesOf` gives, or the
/// elements in the activations' type. The latter take memory of their own where the weight is kept
/// in 8 bits, until its own bytes are written again.
pub fn write(gpu: *Gpu, weight: *const Weight, bytes: []const u8) error{GpuFailed}!void {
    try gpu.makeCurrent();
    const kept = weight.kept_f8 orelse {
        const own, const scales = partsOf(weight, bytes);
        try copy(gpu, gpu.weights + weight.device_offset, own);
        if (scales.len > 0) try copy(gpu, gpu.weights + weight.int8_scales_offset, scales);
        return settle(gpu);
    };
    const wide = &gpu.wide_copies[kept.index];
    if (bytes.len == weight.elementCount()) {
        try copy(gpu, gpu.weights + weight.device_offset, bytes);
        try redirect(gpu, weight, .stored(gpu.weights, weight));
        try settle(gpu);
        if (wide.* != 0) _ = gpu.driver.cuMemFree_v2(wide.*);
        wide.* = 0;
        return;
    }
    if (wide.* == 0) wide.* = try gpu.allocate(bytes.len);
    try copy(gpu, wide.*, bytes);
    try redirect(gpu, weight, .wide(wide.*));
    try settle(gpu);
}

/// Elements in the GPU's type and order: the file's own bytes where these match.
pub fn bytesOf(weight: *const Weight, activation: DType, staging: []u16) []const u8 {
    if (weight.kept_f8 != null) return keptBytesOf(weight, std.mem.sliceAsBytes(staging));
    if (hasSameBytes(weight, activation)) return weight.source;
    const is_same = weight.source_dtype == activation and weight.scale == 1;
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

const ownBytesOf = bytesOf;

/// Of what `Converter.bytesOf` gives: the elements, and the scales of int8.
fn partsOf(weight: *const Weight, bytes: []const u8) struct { []const u8, []const u8 } {
    const count = if (weight.dtype == .i8) weight.elementCount() else bytes.len;
    return .{ bytes[0..count], bytes[count..] };
}

fn hasSameBytes(weight: *const Weight, activation: DType) bool {
    return weight.source_dtype == activation and weight.scale == 1 and !weight.isPermuted();
}

fn keptBytesOf(weight: *const Weight, staging: []u8) []const u8 {
    if (!weight.isPermuted()) return weight.source;
    const out = staging[0..weight.elementCount()];
    weight.copyTo(out);
    return out;
}

fn redirect(gpu: *Gpu, weight: *const Weight, source: Source) error{GpuFailed}!void {
    const target = gpu.weights + weight.kept_f8.?.source_offset;
    try copy(gpu, target, std.mem.asBytes(&source));
}

/// Returns when the bytes have been taken, not when they are there.
fn copy(gpu: *Gpu, target: usize, bytes: []const u8) error{GpuFailed}!void {
    const d = gpu.driver;
    const result = d.cuMemcpyHtoDAsync_v2(target, bytes.ptr, bytes.len, gpu.copy_stream);
    try gpu.check(.cuMemcpyHtoDAsync_v2, result, "uploading the weights");
}

/// Copies out of pageable memory are on the GPU once their stream has ended: ranks compute on
/// streams that do not wait for it.
fn settle(gpu: *Gpu) error{GpuFailed}!void {
    const query = gpu.driver.cuStreamQuery;
    const result = waits_file.poll(query, gpu.copy_stream, settle_limit_ns, null);
    try gpu.check(.cuStreamQuery, result, "waiting for the weights");
}

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

test "weights are converted on several threads to the same bits" {
    const a = std.testing.allocator;
    const shape: [4]u32 = .{ 37, 3, 3, 29 };
    const count = 37 * 3 * 3 * 29;
    var source: [count * 4]u8 = undefined;
    var prng: std.Random.DefaultPrng = .init(5);
    const scales: [37]f32 = @splat(0.75);
    const cancelled: std.atomic.Value(bool) = .init(false);
    var converter: Converter = undefined;
    try converter.init(a, std.testing.io, 3, count, &cancelled);
    defer converter.deinit();
    const expected = try a.alloc(u16, count);
    defer a.free(expected);
    for ([_]DType{ .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 }) |dtype| {
        for ([_]bool{ false, true }) |is_finite| {
            prng.random().bytes(&source);
            if (is_finite) makeFinite(&source, dtype);
            const matrix: [4]u32 = .{ shape[0], count / shape[0], 1, 1 };
            for ([_]Layout{ .convolution, .matrix, .matrix }, 0..) |layout, i| {
                const weight: Weight = .{
                    .name = "w",
                    .layout = layout,
                    .dtype = dtype,
                    .shape = if (layout == .matrix) matrix else shape,
                    .scale = if (i == 1) 0.125 else 1,
                    .is_transposed = i == 2,
                    .row_scales = if (dtype.isF8()) &scales else &.{},
                    .source = source[0 .. count * dtype.size()],
                    .source_dtype = dtype,
                };
                for ([_]DType{ .f16, .bf16 }) |activation| {
                    const theirs = bytesOf(&weight, activation, expected);
                    const ours = try converter.bytesOf(&weight, activation);
                    try std.testing.expectEqualSlices(u8, theirs, ours);
                }
            }
        }
    }
}

/// Clears a bit of the exponent, so that f16 holds the number.
fn makeFinite(source: []u8, dtype: DType) void {
    for (source, 0..) |*byte, i| switch (dtype) {
        .f32 => if (i % 4 == 3) {
            byte.* &= 0xbf;
        },
        .f16, .bf16 => if (i % 2 == 1) {
            byte.* &= 0xbf;
        },
        else => byte.* &= 0xbf,
    };
}
