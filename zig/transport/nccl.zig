//! The transport of GPU ranks that cannot copy from each other's memory, or are in several
//! processes: NCCL sends and receives, queued on a stream. NCCL waits on the device, so the host
//! waits for no other rank's signal.
//!
//! The deep slots of steps that others reuse have a communicator and a stream of their own, whose
//! calls may overlap those of the first. No deadlock follows: every rank queues the calls of both
//! in the same order, that of the slots; what a call waits for on its rank (events, earlier work of
//! the stream or of a hardware queue) was queued before it; and a kernel of each fits on a GPU at
//! once. So the first call that has not ended can always run.

const drivers = @import("../nvidia/driver.zig");
const Communicator = @import("communicator.zig").Communicator;
const endpoints = @import("endpoint.zig");
const Endpoint = endpoints.Endpoint;
const Error = endpoints.Error;
const positions = @import("position.zig");
const Port = @import("local_ranks.zig").Port;
const RankRange = @import("ranks.zig").RankRange;
const Swap = @import("swap.zig").Swap;
const Tensor = @import("../tensor.zig").Tensor;

pub const Nccl = struct {
    port: Port,
    own: *Endpoint,
    /// Of the ranks of this process.
    endpoints: []const *Endpoint,

    pub fn endpoint(t: Nccl) *Endpoint {
        return t.own;
    }

    /// Both ranks of a pair name their transfers in the same order.
    pub fn swap(t: Nccl, s: *const Swap) Error!void {
        const stream = try t.own.beginSwap(t.port, s);
        const is_deep = s.position.what == .group_complete and s.position.depth == .deep;
        const communicator = if (is_deep)
            try t.own.beginCalls(.deep)
        else
            try t.beginCalls(stream);
        {
            errdefer communicator.drop();
            for (s.transferSlice()) |x| {
                try communicator.send(x.send_address, x.send_bytes, x.rank, stream);
                try communicator.receive(x.receive_address, x.receive_bytes, x.rank, stream);
            }
        }
        try t.own.endCalls(communicator);
    }

    /// NCCL sends complete in stream order, so only this rank's own event matters. Waiting for
    /// another rank's `part_read` could deadlock: it may already belong to the next step, which
    /// waits for this rank.
    pub fn waitForReaders(
        t: Nccl,
        channel: positions.Channel,
        depth: positions.Depth,
        _: RankRange,
    ) Error!void {
        try t.own.waitFor(t.own.cuda.stream, t.own, .{ .part_read = .{ channel, depth } });
    }

    /// Runs the host-side gather too: it detects local ranks that have failed.
    pub fn gather(t: Nccl, own: Tensor, shards: []Tensor) Error!void {
        _ = try t.port.gather(own);
        const stream = t.own.cuda.stream;
        const communicator = try t.beginCalls(stream);
        {
            errdefer communicator.drop();
            for (shards, 0..) |shard, i| {
                if (i == t.port.rank) continue;
                const other: u32 = @intCast(i);
                try communicator.send(own.address, own.byteCount(), other, stream);
                try communicator.receive(shard.address, shard.byteCount(), other, stream);
            }
        }
        try t.own.endCalls(communicator);
    }

    /// Sends complete in stream order: what follows in the stream may overwrite the tensor.
    pub fn endGather(_: Nccl) Error!void {}

    /// Returns when the tensor has been sent.
    pub fn send(t: Nccl, x: Tensor, rank: u32) Error!void {
        const stream = t.own.cuda.stream;
        const communicator = try t.beginCalls(stream);
        {
            errdefer communicator.drop();
            try communicator.send(x.address, x.byteCount(), rank, stream);
        }
        try t.own.endCalls(communicator);
        try t.own.cuda.synchronize();
    }

    /// Queues the receive in the compute stream.
    pub fn receive(t: Nccl, x: Tensor, rank: u32) Error!void {
        const stream = t.own.cuda.stream;
        const communicator = try t.beginCalls(stream);
        {
            errdefer communicator.drop();
            try communicator.receive(x.address, x.byteCount(), rank, stream);
        }
        try t.own.endCalls(communicator);
    }

    /// Ends what any rank of this process waits for inside NCCL. By any thread.
    pub fn abort(t: Nccl) void {
        for (t.endpoints) |one| one.abort();
    }

    // --- internal ---

    /// Begins a group of calls of the first communicator, ordered after those on its other stream:
    /// operations of one communicator must not overlap.
    fn beginCalls(t: Nccl, stream: drivers.Stream) Error!*Communicator {
        const cuda = t.own.cuda;
        const other = if (stream == cuda.stream) t.own.exchangeStream(.outer) else cuda.stream;
        try t.own.record(.nccl_order, other);
        try t.own.waitFor(stream, t.own, .nccl_order);
        return t.own.beginCalls(.outer);
    }
};
