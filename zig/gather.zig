//! Brings every rank's part of the model's output to every rank: the only thing that ranks tell
//! each other outside the layers.

const std = @import("std");
const cudas = @import("backend/cuda.zig");
const Cuda = cudas.Cuda;
const MirrorMarks = @import("patch/mirrors.zig").Marks;
const rank_count_max = @import("patch/layout.zig").rank_count_max;
const Tensor = @import("tensor.zig").Tensor;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// Marks of a rank's stream on a GPU: its part is written, and it has copied all the others'.
const mark_written = 2 * MirrorMarks.count;
const mark_copied = mark_written + 1;

comptime {
    std.debug.assert(mark_copied < cudas.event_count_max);
}

/// Every rank's rows of every branch, (branches * pictures, rows, width, channels); `own` is freed.
pub fn gatherRows(rank: *Rank, own: Tensor, received_bytes: *u64) Error!Tensor {
    const layout = rank.layout;
    if (layout.rank_count == 1) return own;
    const b = rank.b;
    defer b.free(own);
    var shape = own.shape;
    shape.batch *= layout.group_count;
    shape.rows = 0;
    for (layout.bands.slice()) |band| shape.rows += band.row_count;
    const out = try b.alloc(shape, own.dtype);
    var copies: Copies = undefined;
    const has_copies = b.isCuda();
    if (has_copies) try allocCopies(rank, own, &copies);
    defer if (has_copies) for (copies[0..layout.rank_count]) |tensor| b.free(tensor);
    const queue = if (b.device == .cuda) b.device.cuda else null;
    if (queue) |cuda| try cuda.record(mark_written, cuda.stream);

    const start = rank.now();
    const parts = try rank.transport.gather(own) orelse return out;
    rank.exchange.counted.wait_ns += @intCast(rank.now() - start);
    if (queue) |cuda| try fetchAll(rank, cuda, own, parts, &copies);
    for (parts, 0..) |part, i| {
        const other: u32 = @intCast(i);
        const band = layout.bands.list[layout.bandOf(other)];
        const batch = out.batchSlice(layout.groupOf(other) * own.shape.batch, own.shape.batch);
        const here = if (queue != null and other != rank.index) copies[i] else part;
        try b.copyRows(batch, band.row_first, here, 0, band.row_count);
        if (other != rank.index) received_bytes.* += part.byteCount();
    }
    if (queue) |cuda| try cuda.record(mark_copied, cuda.stream);
    // Nobody may free or overwrite a part before all have copied it.
    try rank.transport.meet();
    if (queue) |cuda| {
        for (0..parts.len) |i| try cuda.waitFor(cuda.stream, queueOf(rank, i), mark_copied);
    }
    return out;
}

// --- internal ---

/// On GPUs: every other rank's part, which may lie on another GPU.
const Copies = [rank_count_max]Tensor;

fn allocCopies(rank: *Rank, own: Tensor, copies: *Copies) Error!void {
    for (copies[0..rank.layout.rank_count], 0..) |*tensor, i| {
        var shape = own.shape;
        shape.rows = rank.layout.bands.list[rank.layout.bandOf(@intCast(i))].row_count;
        tensor.* = try rank.b.alloc(shape, own.dtype);
    }
}

fn queueOf(rank: *Rank, i: usize) *Cuda {
    return rank.exchange.peers[i].mirrors.?.cuda.?;
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
    for (parts, 0..) |part, i| {
        if (i == rank.index) continue;
        const target = copies[i].address;
        if (messages) |communicator| {
            const other: u32 = @intCast(i);
            try communicator.send(own.address, own.byteCount(), other, cuda.stream);
            try communicator.receive(target, part.byteCount(), other, cuda.stream);
            continue;
        }
        const peer = queueOf(rank, i);
        try cuda.waitFor(cuda.stream, peer, mark_written);
        const result = cuda.driver.cuMemcpyPeerAsync(
            target,
            cuda.context,
            part.address,
            peer.context,
            part.byteCount(),
            cuda.stream,
        );
        try cuda.check(result, "fetching another rank's rows");
    }
    if (messages) |communicator| try communicator.end();
}
