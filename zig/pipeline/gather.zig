//! Brings every rank's part of the model's output to every rank, and what other machines have drawn
//! to rank 0: the only things that ranks tell each other outside the layers.

const std = @import("std");
const cudas = @import("../backend/cuda.zig");
const Cuda = cudas.Cuda;
const BufferEvents = @import("../patch/device_buffers.zig").Events;
const rank_count_max = @import("../patch/layout.zig").rank_count_max;
const DType = @import("../tensor.zig").DType;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// Events of a rank's stream on a GPU: its part is written, and it has copied all the others'.
const mark_written = 2 * BufferEvents.count;
const mark_copied = mark_written + 1;

comptime {
    std.debug.assert(mark_copied < cudas.event_count_max);
}

/// Every rank's rows of every branch, (branches * images, rows, width, channels); `own` is freed.
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
    var copies: Copies = undefined;
    const has_copies = b.isCuda();
    if (has_copies) try allocCopies(rank, own, &copies);
    defer if (has_copies) for (copies[0..layout.rank_count]) |tensor| b.free(tensor);
    const queue = if (b.device == .cuda) b.device.cuda else null;
    if (queue) |cuda| try cuda.record(mark_written, cuda.stream);

    const start = rank.now();
    // With messages too: the ranks of this process see that all of them are still there.
    const parts = try rank.transport.gather(own) orelse return alone(rank, out, own);
    rank.exchange.counted.wait_ns += @intCast(rank.now() - start);
    if (queue) |cuda| try fetchAll(rank, cuda, own, parts, &copies);
    for (0..layout.rank_count) |i| {
        const other: u32 = @intCast(i);
        const theirs = if (queue != null) copies[i] else parts[i];
        const part = if (other == rank.index) own else theirs;
        const patch = layout.patches.list[layout.patchOf(other)];
        const batch = out.batchSlice(layout.groupOf(other) * own.shape.batch, own.shape.batch);
        try b.copyRows(batch, patch.row_first, part, 0, patch.row_count);
        if (other != rank.index) received_bytes.* += part.byteCount();
    }
    if (queue) |cuda| {
        // What was sent is this rank's own again, in the order of its stream.
        if (cuda.communicator != null) return out;
        try cuda.record(mark_copied, cuda.stream);
    }
    // Nobody may free or overwrite a part before all have copied it.
    try rank.transport.meet();
    if (queue) |cuda| {
        for (0..parts.len) |i| try cuda.waitFor(cuda.stream, queueOf(rank, i), mark_copied);
    }
    return out;
}

/// Sends a tensor to another rank, by messages, and returns when it has gone.
pub fn send(rank: *Rank, x: Tensor, other: u32) Error!void {
    if (rank.isPlanning()) return;
    const cuda = rank.b.device.cuda;
    const communicator = try cuda.messagesOn(cuda.communicator.?, cuda.stream);
    try communicator.send(x.address, x.byteCount(), other, cuda.stream);
    try cuda.synchronize();
}

/// What another rank sends; the caller's.
pub fn receive(rank: *Rank, shape: Shape, dtype: DType, other: u32) Error!Tensor {
    const out = try rank.b.alloc(shape, dtype);
    if (rank.isPlanning()) return out;
    const cuda = rank.b.device.cuda;
    const communicator = try cuda.messagesOn(cuda.communicator.?, cuda.stream);
    try communicator.receive(out.address, out.byteCount(), other, cuda.stream);
    return out;
}

// --- internal ---

/// Nobody else is there: zeros stand for their rows. While planning nothing is done.
fn alone(rank: *Rank, out: Tensor, own: Tensor) Error!Tensor {
    const layout = rank.layout;
    try rank.b.zero(out.address, out.byteCount());
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

/// On GPUs: every other rank's part, which may lie on another GPU.
const Copies = [rank_count_max]Tensor;

fn allocCopies(rank: *Rank, own: Tensor, copies: *Copies) Error!void {
    for (copies[0..rank.layout.rank_count], 0..) |*tensor, i| {
        var shape = own.shape;
        shape.rows = rank.layout.patches.list[rank.layout.patchOf(@intCast(i))].row_count;
        tensor.* = try rank.b.alloc(shape, own.dtype);
    }
}

fn queueOf(rank: *Rank, i: usize) *Cuda {
    return rank.exchange.peers[i].device_buffers.?.cuda.?;
}

fn fetchAll(
    rank: *Rank,
    cuda: *Cuda,
    own: Tensor,
    parts: []const Tensor,
    copies: *const Copies,
) Error!void {
    const messages = if (cuda.communicator) |communicator|
        try cuda.messagesOn(communicator, cuda.stream)
    else
        null;
    if (messages) |communicator| try communicator.begin();
    for (copies[0..parts.len], 0..) |copy, i| {
        if (i == rank.index) continue;
        if (messages) |communicator| {
            const other: u32 = @intCast(i);
            try communicator.send(own.address, own.byteCount(), other, cuda.stream);
            try communicator.receive(copy.address, copy.byteCount(), other, cuda.stream);
            continue;
        }
        const peer = queueOf(rank, i);
        try cuda.waitFor(cuda.stream, peer, mark_written);
        const result = cuda.driver.cuMemcpyPeerAsync(
            copy.address,
            cuda.context,
            parts[i].address,
            peer.context,
            copy.byteCount(),
            cuda.stream,
        );
        try cuda.check(.cuMemcpyPeerAsync, result, "fetching another rank's rows");
    }
    if (messages) |communicator| try communicator.end();
}
