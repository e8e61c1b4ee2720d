//! All-gather of the model output's rows, and the transfer of rows that other processes have
//! decoded to rank 0. Apart from the exchanges in layers, ranks send nothing else.

const std = @import("std");
const transports = @import("../transport.zig");
const rank_count_max = transports.rank_count_max;
const DType = @import("../tensor.zig").DType;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const layouts = @import("../patch/layout.zig");
const Layout = layouts.Layout;
const Patch = layouts.Patch;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// All-gather: the rows of all ranks and branches, (branches * images, rows, width, channels).
/// `own` (own branches * images, own rows, width, channels) is freed.
pub fn gatherRows(rank: *Rank, own: Tensor, received_bytes: *u64) Error!Tensor {
    const layout = rank.layout;
    if (layout.rank_count == 1) return own;
    const b = rank.b;
    defer b.free(own);
    var shape = own.shape;
    shape.batch *= layout.group_count;
    shape.rows = 0;
    for (layout.patches.slice()) |patch| shape.rows += patch.row_count;
    const out = try b.alloc(shape, own.dtype);
    var list: Shards = undefined;
    const shards = list[0..layout.rank_count];
    if (b.isCuda()) for (shards, 0..) |*shard, i| {
        if (i != rank.index) shard.* = try allocRows(rank, own, rowsOf(layout, @intCast(i)));
    };
    defer if (b.isCuda()) freeShards(rank, shards);
    if (rank.transport == .none) return fillFromOwn(rank, out, own);

    try rank.transport.gather(own, shards);
    shards[rank.index] = own;
    for (shards, 0..) |shard, i| {
        const other: u32 = @intCast(i);
        if (layout.isIdle(other)) continue;
        const patch = layout.patches.list[layout.patchOf(other)];
        const batch = out.batchSlice(layout.groupOf(other) * own.shape.batch, own.shape.batch);
        try b.copyRows(batch, patch.row_first, shard, 0, patch.row_count);
        if (other != rank.index) received_bytes.* += shard.byteCount();
    }
    try rank.transport.endGather();
    return out;
}

/// A number of each rank, by rank.
pub fn gatherNumbers(rank: *Rank, own: f32, out: []f64) Error!void {
    const b = rank.b;
    const mine = try b.upload(.vector(1, 1), .f32, std.mem.asBytes(&own));
    defer b.free(mine);
    var list: Shards = undefined;
    const shards = list[0..out.len];
    try gatherEqual(rank, mine, shards);
    defer if (b.isCuda()) freeShards(rank, shards);
    for (out, shards) |*to, shard| {
        var value: f32 = undefined;
        try b.download(shard, std.mem.asBytes(&value));
        to.* = value;
    }
    try rank.transport.endGather();
}

/// The rows of all ranks, to the host of every rank: `own` (1, own rows, width, channels), where
/// each has one patch of `patches`.
pub fn rowsToHost(rank: *Rank, own: Tensor, patches: []const Patch, out: []f32) Error!void {
    const b = rank.b;
    var list: Shards = undefined;
    const shards = list[0..patches.len];
    if (b.isCuda()) try allocShards(rank, own, shards, patches);
    defer if (b.isCuda()) freeShards(rank, shards);
    if (rank.isPlanning()) return;
    const row_len = @as(usize, own.shape.width) * own.shape.channels;
    if (rank.transport == .none) {
        // Only this rank runs: zeros replace its peers' rows.
        @memset(out, 0);
        const first = patches[rank.index].row_first * row_len;
        return b.downloadFloats(own, out[first..][0..own.shape.elementCount()]);
    }
    try rank.transport.gather(own, shards);
    shards[rank.index] = own;
    for (shards, patches) |shard, patch| {
        const count = patch.row_count * row_len;
        try b.downloadFloats(shard, out[patch.row_first * row_len ..][0..count]);
    }
    try rank.transport.endGather();
}

/// Receives what a rank of another process sends; the caller frees the tensor.
pub fn receive(rank: *Rank, shape: Shape, dtype: DType, other: u32) Error!Tensor {
    const out = try rank.b.alloc(shape, dtype);
    try rank.transport.receive(out, other);
    return out;
}

/// Rows that a rank sends: an idle one sends a row that nobody reads.
pub fn rowsOf(layout: *const Layout, rank: u32) u32 {
    if (layout.isIdle(rank)) return 1;
    return layout.patches.list[layout.patchOf(rank)].row_count;
}

// --- internal ---

/// The rows of each rank.
const Shards = [rank_count_max]Tensor;

/// Only this rank runs: zeros replace its peers' rows.
fn fillFromOwn(rank: *Rank, out: Tensor, own: Tensor) Error!Tensor {
    const layout = rank.layout;
    try rank.b.zero(out.address, out.byteCount());
    if (layout.isIdle(rank.index)) return out;
    const patch = layout.patches.list[layout.patchOf(rank.index)];
    const first = layout.groupOf(rank.index) * own.shape.batch;
    try rank.b.copyRows(
        out.batchSlice(first, own.shape.batch),
        patch.row_first,
        own,
        0,
        patch.row_count,
    );
    return out;
}

/// The tensors of all ranks, which have the same shape. On GPUs the caller frees those of others.
fn gatherEqual(rank: *Rank, own: Tensor, shards: []Tensor) Error!void {
    if (rank.b.isCuda()) for (shards, 0..) |*shard, i| {
        if (i != rank.index) shard.* = try rank.b.alloc(own.shape, own.dtype);
    };
    if (rank.transport == .none) return;
    try rank.transport.gather(own, shards);
    shards[rank.index] = own;
}

/// Receive buffers on GPUs, for the rows of every other rank.
fn allocShards(
    rank: *Rank,
    own: Tensor,
    shards: []Tensor,
    patches: []const Patch,
) Error!void {
    for (shards, patches, 0..) |*shard, patch, i| {
        if (i != rank.index) shard.* = try allocRows(rank, own, patch.row_count);
    }
}

fn allocRows(rank: *Rank, own: Tensor, row_count: u32) Error!Tensor {
    var shape = own.shape;
    shape.rows = row_count;
    return rank.b.alloc(shape, own.dtype);
}

fn freeShards(rank: *Rank, shards: []const Tensor) void {
    for (shards, 0..) |shard, i| if (i != rank.index) rank.b.free(shard);
}
