//! Attention on a GPU: by cuDNN's SDPA where it has a kernel, a call for each chunk of keys, joined
//! by the log-sum-exp of their rows (cuda/attention_join.cu); else by one kernel for heads of up to
//! 128 channels (cuda/attention.cu). Larger heads (the VAE's one of 512) by two matrix products
//! around a softmax, block of rows by block of rows (`attention_large.zig`). Each may need a
//! temporary, which the seam takes from scratch.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const grids = @import("grids.zig");
const large = @import("attention_large.zig");
const sdpas = @import("sdpa.zig");
const tensors = @import("../../tensor.zig");
const Tensor = tensors.Tensor;
const Shape = tensors.Shape;

/// Ranks whose keys and values one call can read.
pub const chunk_count_max = 16;
/// The largest head that a warp holds in registers.
pub const head_size_max = 128;

/// softmax(q k^T / sqrt(head size)) v per head; shapes as in `Backend.attention`, tensors in the
/// activations' type. `temporary`: `temporaryBytes` of device memory, null where that is 0.
pub fn attention(
    cuda: *Cuda,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    head_count: u32,
    causal: bool,
    temporary: ?Tensor,
) Error!void {
    assert(out.dtype == cuda.activation and q.dtype == cuda.activation);
    assert(keys_values.len <= chunk_count_max);
    for (keys_values) |chunk| assert(chunk.dtype == cuda.activation);
    const temporary_bytes = temporaryBytes(q.shape, keys_values, head_count, causal);
    assert((temporary == null) == (temporary_bytes == 0));
    if (temporary) |tensor| assert(tensor.byteCount() >= temporary_bytes);
    if (q.shape.channels / head_count > head_size_max) {
        return large.attention(cuda, out, q, keys_values, head_count, causal, temporary.?);
    }
    const strides: Strides = .ofParts(q.shape.channels);
    return attend(cuda, out, q, keys_values, head_count, causal, temporary, strides);
}

/// Self-attention over rows of q, keys and values of one position each, behind one another.
pub fn attentionPacked(
    cuda: *Cuda,
    out: Tensor,
    qkv: Tensor,
    head_count: u32,
    temporary: ?Tensor,
) Error!void {
    assert(out.dtype == cuda.activation and qkv.dtype == cuda.activation);
    const channels = out.shape.channels;
    assert(qkv.shape.channels == 3 * channels and channels / head_count <= head_size_max);
    const q: Tensor = .{ .address = qkv.address, .shape = out.shape, .dtype = qkv.dtype };
    const keys_values = packedKeysValues(qkv, channels);
    const strides: Strides = .{ .q = 3 * channels, .keys_values = 3 * channels };
    return attend(cuda, out, q, &.{keys_values}, head_count, false, temporary, strides);
}

/// Of rows of q, keys and values: where keys and values begin.
fn packedKeysValues(qkv: Tensor, channels: u32) Tensor {
    return .{
        .address = qkv.address + channels * qkv.dtype.size(),
        .shape = .tokens(qkv.shape.batch, @intCast(qkv.shape.positionCount()), 2 * channels),
        .dtype = qkv.dtype,
    };
}

/// Elements from one position to the next.
const Strides = struct {
    q: u32,
    keys_values: u32,

    fn ofParts(channels: u32) Strides {
        return .{ .q = channels, .keys_values = 2 * channels };
    }
};

fn attend(
    cuda: *Cuda,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    head_count: u32,
    causal: bool,
    temporary: ?Tensor,
    strides: Strides,
) Error!void {
    if (!causal) {
        if (try bySdpa(cuda, out, q, keys_values, head_count, temporary, strides)) return;
    }
    const plan: Plan = .of(q.shape, keys_values, head_count, causal);
    const problem = plan.problem(out, q, keys_values, head_count, causal, temporary, strides);
    const grid: cudas.Dim3 = .{
        .x = plan.query_tiles,
        .y = head_count,
        .z = q.shape.batch * plan.split_count,
    };
    switch (plan.kernel) {
        inline else => |kernel| try cuda.launch(
            @tagName(kernel),
            .typed,
            grid,
            .{ .x = thread_count },
            kernel.sharedBytes(),
            .{problem},
        ),
    }
    if (plan.split_count == 1) return;
    const units: u32 = @intCast(q.shape.elementCount() / 8);
    const combine_grid: cudas.Dim3 = .{ .x = std.math.divCeil(u32, units, thread_count) catch
        unreachable };
    try cuda.launch("attention_combine", .typed, combine_grid, .{ .x = thread_count }, 0, .{
        problem,
    });
}

/// Device bytes that `attention` of these shapes needs beside its result; the same on every GPU,
/// whoever computes it.
pub fn temporaryBytes(
    q: Shape,
    keys_values: []const Tensor,
    head_count: u32,
    causal: bool,
) usize {
    if (q.channels / head_count > head_size_max) return large.temporaryBytes(q, keys_values);
    const plan: Plan = .of(q, keys_values, head_count, causal);
    const split_bytes = partialBytes(q) + 2 * @sizeOf(f32) * statisticCount(q, head_count);
    const own = if (plan.split_count == 1) 0 else plan.split_count * split_bytes;
    if (causal or !mayAskSdpa(q, head_count)) return own;
    return @max(own, Join.of(q, keys_values, head_count).bytes());
}

/// The same of `attentionPacked`; `out` is its result's shape.
pub fn packedBytes(out: Shape, head_count: u32) usize {
    const token_count: u32 = @intCast(out.positionCount());
    const keys_values: Tensor = .{
        .address = 0,
        .shape = .tokens(out.batch, token_count, 2 * out.channels),
    };
    return temporaryBytes(out, &.{keys_values}, head_count, false);
}

/// Launches, and what they write to and read from the temporary.
pub const Kernels = struct { launches: u32, temporary_bytes: u64 };

pub fn kernelsOf(q: Shape, keys_values: []const Tensor, head_count: u32, causal: bool) Kernels {
    if (q.channels / head_count > head_size_max) return large.kernelsOf(q, keys_values, head_count);
    const plan: Plan = .of(q, keys_values, head_count, causal);
    return .{
        .launches = if (plan.split_count > 1) 2 else 1,
        .temporary_bytes = 2 * temporaryBytes(q, keys_values, head_count, causal),
    };
}

// --- internal ---

/// What cuDNN's calls leave for `attention_join`: nothing where one call is all.
const Join = struct {
    chunk_count: usize,
    part_bytes: usize,
    /// f32 of one chunk, in whole vectors.
    statistic_count: usize,

    fn of(q: Shape, keys_values: []const Tensor, head_count: u32) Join {
        var chunk_count: usize = 0;
        for (keys_values) |chunk| chunk_count += @intFromBool(chunk.shape.positionCount() > 0);
        return .{
            .chunk_count = chunk_count,
            .part_bytes = q.elementCount() * 2,
            .statistic_count = std.mem.alignForward(usize, statisticCount(q, head_count), 4),
        };
    }

    fn bytes(join: Join) usize {
        if (join.chunk_count < 2) return 0;
        return join.chunk_count * (join.part_bytes + join.statistic_count * @sizeOf(f32));
    }
};

fn mayAskSdpa(q: Shape, head_count: u32) bool {
    return sdpas.takesHeads(q.channels / head_count);
}

/// Whether cuDNN has done it.
fn bySdpa(
    cuda: *Cuda,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    head_count: u32,
    temporary: ?Tensor,
    strides: Strides,
) Error!bool {
    const libraries = if (cuda.libraries) |*opened| opened else return false;
    const sdpa = if (libraries.sdpa) |*opened| opened else return false;
    if (!mayAskSdpa(q.shape, head_count)) return false;
    const join: Join = .of(q.shape, keys_values, head_count);
    const room = if (join.chunk_count > 1) temporary.?.address else 0;
    const statistics = room + join.chunk_count * join.part_bytes;
    var calls: [chunk_count_max]sdpas.Call = undefined;
    var count: usize = 0;
    for (keys_values) |chunk| {
        if (chunk.shape.positionCount() == 0) continue;
        const call = &calls[count];
        call.* = sdpaCall(q, chunk, head_count, out.address, strides);
        if (room != 0) {
            call.out = room + count * join.part_bytes;
            call.statistics = statistics + count * join.statistic_count * @sizeOf(f32);
        }
        if ((call.q | call.k | call.v | call.out | call.statistics) % 16 != 0) return false;
        if (!try sdpa.has(call.*)) return false;
        count += 1;
    }
    for (calls[0..count]) |call| {
        if (cuda.cancelled.load(.monotonic)) return error.Cancelled;
        try sdpa.run(cuda.stream, call);
    }
    if (room == 0) return true;
    const units = grids.packs(out.shape.elementCount());
    try cuda.launch("attention_join", .typed, grids.blocks(units), grids.block, 0, .{
        out.address,
        room,
        statistics,
        @as(u32, @intCast(count)),
        @as(u32, @intCast(q.shape.positionCount())),
        head_count,
        q.shape.channels / head_count,
        @as(u64, out.shape.elementCount()),
        @as(u64, join.statistic_count),
    });
    return true;
}

fn sdpaCall(
    q: Tensor,
    chunk: Tensor,
    head_count: u32,
    out: usize,
    strides: Strides,
) sdpas.Call {
    const channels = q.shape.channels;
    const head_size = channels / head_count;
    return .{
        .batch = q.shape.batch,
        .heads = head_count,
        .head_size = head_size,
        .queries = @intCast(q.shape.positionCount()),
        .keys = @intCast(chunk.shape.positionCount()),
        .dtype = q.dtype,
        .q = q.address,
        .q_stride = strides.q,
        .k = chunk.address,
        .v = chunk.address + channels * q.dtype.size(),
        .kv_stride = strides.keys_values,
        .out = out,
        .scale = 1 / @sqrt(@as(f32, @floatFromInt(head_size))),
    };
}

/// Of attention.cuh.
const thread_count = 128;
const tile_keys = 64;

/// Blocks that keep every GPU of today busy: two on each of an H200's 132 multiprocessors. One
/// number for all, so that results and memory do not depend on the GPU.
const block_count_wanted = 264;
/// Splits below this many tiles of keys gain nothing over their joining.
const split_tiles_min = 4;
const split_count_max = 8;

/// The kernels of attention.cu, by head size rounded up and rows of q per block.
const Kernel = enum {
    attention_32_64,
    attention_64_64,
    attention_64_128,
    attention_96_64,
    attention_128_64,
    attention_elements,

    fn headSize(kernel: Kernel) u32 {
        return switch (kernel) {
            .attention_32_64 => 32,
            .attention_64_64, .attention_64_128 => 64,
            .attention_96_64 => 96,
            .attention_128_64, .attention_elements => 128,
        };
    }

    fn queryRows(kernel: Kernel) u32 {
        return if (kernel == .attention_64_128) 128 else 64;
    }

    /// The rows of q and two stages of keys and values, 16 bits each.
    fn sharedBytes(kernel: Kernel) u32 {
        return (kernel.queryRows() + 2 * 2 * tile_keys) * kernel.headSize() * 2;
    }
};

const Plan = struct {
    kernel: Kernel,
    query_tiles: u32,
    split_count: u32 = 1,
    split_tiles: u32,

    fn of(q: Shape, keys_values: []const Tensor, head_count: u32, causal: bool) Plan {
        const head_size = q.channels / head_count;
        const queries: u32 = @intCast(q.positionCount());
        var tile_count: u32 = 0;
        for (keys_values) |chunk| tile_count += tiles(@intCast(chunk.shape.positionCount()));
        assert(tile_count > 0);
        const kernel: Kernel = if (head_size % 8 != 0)
            .attention_elements
        else switch ((head_size + 31) / 32) {
            1 => .attention_32_64,
            // The larger tile reads each key for twice the rows, where there are rows enough.
            2 => if ((queries + 127) / 128 * head_count * q.batch >= block_count_wanted)
                .attention_64_128
            else
                .attention_64_64,
            3 => .attention_96_64,
            else => .attention_128_64,
        };
        const rows = kernel.queryRows();
        var plan: Plan = .{
            .kernel = kernel,
            .query_tiles = (queries + rows - 1) / rows,
            .split_tiles = tile_count,
        };
        const blocks = plan.query_tiles * head_count * q.batch;
        if (causal or kernel == .attention_elements or blocks * 2 > block_count_wanted) return plan;
        const split_count = @min(
            (block_count_wanted + blocks - 1) / blocks,
            tile_count / split_tiles_min,
            split_count_max,
        );
        if (split_count <= 1) return plan;
        plan.split_tiles = (tile_count + split_count - 1) / split_count;
        plan.split_count = (tile_count + plan.split_tiles - 1) / plan.split_tiles;
        return plan;
    }

    fn problem(
        plan: Plan,
        out: Tensor,
        q: Tensor,
        keys_values: []const Tensor,
        head_count: u32,
        causal: bool,
        temporary: ?Tensor,
        strides: Strides,
    ) Problem {
        const head_size = q.shape.channels / head_count;
        const partial = grids.addressOrNull(temporary);
        const log2e_root = std.math.log2e / @sqrt(@as(f64, @floatFromInt(head_size)));
        var result: Problem = .{
            .out = out.address,
            .partial = partial,
            .statistics = partial + plan.split_count * partialBytes(q.shape),
            .q = q.address,
            .query_count = @intCast(q.shape.positionCount()),
            .head_size = head_size,
            .head_count = head_count,
            .batch_count = q.shape.batch,
            .causal = @intFromBool(causal),
            .split_count = plan.split_count,
            .split_tiles = plan.split_tiles,
            .q_stride = strides.q,
            .key_stride = strides.keys_values,
            .scale = @floatCast(log2e_root),
        };
        for (keys_values) |chunk| {
            const count: u32 = @intCast(chunk.shape.positionCount());
            if (count == 0) continue;
            result.chunks[result.chunk_count] = chunk.address;
            result.token_counts[result.chunk_count] = count;
            result.chunk_count += 1;
        }
        return result;
    }
};

/// As in attention.cu.
const Problem = extern struct {
    out: usize,
    partial: usize,
    statistics: usize,
    q: usize,
    chunks: [chunk_count_max]usize = @splat(0),
    token_counts: [chunk_count_max]u32 = @splat(0),
    chunk_count: u32 = 0,
    query_count: u32,
    head_size: u32,
    head_count: u32,
    batch_count: u32,
    causal: u32,
    split_count: u32,
    split_tiles: u32,
    q_stride: u32,
    key_stride: u32,
    scale: f32,
};

comptime {
    assert(@sizeOf(Problem) == 272);
}

fn tiles(token_count: u32) u32 {
    return (token_count + tile_keys - 1) / tile_keys;
}

/// Unnormalised sums of one split.
fn partialBytes(q: Shape) usize {
    return q.elementCount() * @sizeOf(f32);
}

fn statisticCount(q: Shape, head_count: u32) usize {
    return q.rowCount() * head_count;
}

test "one token of keys is enough, and few rows of q split the keys" {
    const keys: Tensor = .{ .address = 0, .shape = .tokens(1, 4096, 1280) };
    const few: Plan = .of(.tokens(1, 512, 640), &.{keys}, 10, false);
    try std.testing.expectEqual(4, few.split_count);
    try std.testing.expectEqual(16, few.split_tiles);
    const many: Plan = .of(.tokens(2, 4096, 640), &.{keys}, 10, false);
    try std.testing.expectEqual(.attention_64_128, many.kernel);
    try std.testing.expectEqual(1, many.split_count);
    const one: Tensor = .{ .address = 0, .shape = .tokens(1, 1, 1280) };
    try std.testing.expectEqual(0, temporaryBytes(.tokens(1, 1, 640), &.{one}, 10, false));
}

test "every kernel's shared memory is what consumer cards have" {
    for (std.enums.values(Kernel)) |kernel| {
        try std.testing.expect(kernel.sharedBytes() <= 99 * 1024);
    }
}
