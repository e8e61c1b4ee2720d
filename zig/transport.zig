//! The transport moves all data between ranks: signals and barriers on the host, the swap of slots
//! between patches, the gather of every rank's rows, and the sends to rank 0 of another process.
//! Nothing outside this folder copies between GPUs, calls NCCL or numbers CUDA events.
//!
//! To add a transport, write one file with the functions of `peer_copy.zig`, add its member to
//! `Transport` and its case to `connection.zig`; the compiler names the calls that need the case.
//!
//! In reading order:
//!   ranks.zig            rank_count_max, the ranks of a process
//!   position.zig         channels, and the sequence number of a slot of a step
//!   local_ranks.zig      signals, barrier and abort between the threads or fibers of a process
//!   faults.zig           delays and failures that tests inject into signals
//!   swap.zig             which bytes two patches swap
//!   endpoint.zig         a GPU rank's CUDA events and communicator
//!   shared_memory.zig    CPU ranks read each other's memory in place
//!   peer_copy.zig        GPUs of one process copy from each other's memory
//!   nccl.zig             sends and receives on a stream
//!   communicator.zig     NCCL's calls, and their abort
//!   watch.zig            ends waits inside NCCL that nothing else would end
//!   peer_check.zig       whether copies between two GPUs work, and how fast
//!   connection.zig       the choice between them, once per session
//!   nccl_unique_id.zig   what several processes need to share to open NCCL

const std = @import("std");
const local_ranks = @import("transport/local_ranks.zig");
const connections = @import("transport/connection.zig");
const endpoints = @import("transport/endpoint.zig");
const positions = @import("transport/position.zig");
const ranks = @import("transport/ranks.zig");
const swaps = @import("transport/swap.zig");
const Tensor = @import("tensor.zig").Tensor;

pub const rank_count_max = ranks.rank_count_max;
pub const RankRange = ranks.RankRange;
pub const LocalRanks = local_ranks.LocalRanks;
pub const Connection = connections.Connection;
pub const TransportKind = connections.TransportKind;
pub const Endpoint = endpoints.Endpoint;
pub const Channel = positions.Channel;
pub const control_count_max = positions.control_count_max;
pub const Depth = positions.Depth;
pub const Position = positions.Position;
pub const slot_count_max = positions.slot_count_max;
pub const group_slot_count = positions.group_slot_count;
pub const Swap = swaps.Swap;
pub const peer_check = @import("transport/peer_check.zig");
pub const faults = @import("transport/faults.zig");
pub const Nccl = @import("transport/nccl.zig").Nccl;
pub const PeerCopy = @import("transport/peer_copy.zig").PeerCopy;
pub const SharedMemory = @import("transport/shared_memory.zig").SharedMemory;
pub const Error = endpoints.Error;

const Port = local_ranks.Port;

pub const Transport = union(enum) {
    /// No other rank runs: while planning, for a single patch, and in benches of a lone rank.
    none,
    shared_memory: SharedMemory,
    peer_copy: PeerCopy,
    nccl: Nccl,

    // On the host.

    /// This rank is at `position`: what it has written up to there may be read.
    pub fn signal(transport: Transport, channel: Channel, position: Position) Error!void {
        if (transport.port()) |p| try p.signal(channel, position);
    }

    /// Returns when the local rank `other` has signalled `position` or a later one.
    pub fn waitFor(
        transport: Transport,
        channel: Channel,
        other: u32,
        position: Position,
    ) Error!void {
        if (transport.port()) |p| try p.waitFor(channel, other, position);
    }

    /// Returns when every local rank has reached the same barrier.
    pub fn barrier(transport: Transport) Error!void {
        if (transport.port()) |p| try p.barrier();
    }

    /// The step of this rank, counted from 1, for error messages.
    pub fn enterStep(transport: Transport, step: u32) void {
        if (transport.port()) |p| p.local.steps[p.rank].store(step, .monotonic);
    }

    /// Time that this rank's thread has waited for others in this job.
    pub fn waitedNs(transport: Transport) u64 {
        return if (transport.port()) |p| p.local.wait_ns[p.rank] else 0;
    }

    /// See `LocalRanks.ownNs`.
    pub fn ownNs(transport: Transport) u64 {
        return if (transport.port()) |p| p.local.ownNs(p.rank) else 0;
    }

    /// Set when a local rank has failed; null without other ranks.
    pub fn failed(transport: Transport) ?*const std.atomic.Value(bool) {
        return if (transport.port()) |p| &p.local.aborted else null;
    }

    /// Call when this rank fails: from now on every wait of a local rank fails.
    pub fn abort(transport: Transport) void {
        if (transport.port()) |p| p.local.abort();
        // Ranks inside NCCL look at nothing else.
        if (transport == .nccl) transport.nccl.abort();
    }

    // On the device. These calls cannot be captured in a CUDA graph: while a graph is captured they
    // end its segment and do nothing, and on replay they run between two segments.

    /// Whether shards are copied into buffers of the rank that reads them.
    pub fn copiesShards(transport: Transport) bool {
        return switch (transport) {
            .none, .shared_memory => false,
            .peer_copy, .nccl => true,
        };
    }

    /// Whether operations of this rank can read the other ranks' memory, after the swap that names
    /// it.
    pub fn readsPeers(transport: Transport) bool {
        return switch (transport) {
            .none, .shared_memory, .nccl => false,
            .peer_copy => |t| t.reads_peers,
        };
    }

    /// After a rank has allocated its shards: returns when all have, where they need to know where
    /// the others' are.
    pub fn endOpen(transport: Transport) Error!void {
        if (transport.readsPeers()) try transport.barrier();
    }

    /// Before a job with steps that leave out deep slots, on every rank.
    pub fn openDeep(transport: Transport) Error!void {
        if (transport == .nccl) try transport.nccl.own.openDeep();
    }

    /// Queues the transfer of a slot or a group of slots, both ways.
    pub fn swap(transport: Transport, s: *const Swap) Error!void {
        switch (transport) {
            .none, .shared_memory => unreachable,
            inline .peer_copy, .nccl => |t| {
                const cuda = t.endpoint().cuda;
                if (try cuda.graphs.endSegment(cuda)) try t.swap(s);
                try cuda.graphs.beginSegment(cuda);
            },
        }
    }

    /// Before the outer or deep slots of a step: this rank's shards of the last step that had them
    /// may be overwritten once the other ranks of the group have copied them. The first step of a
    /// job has none before it.
    pub fn beginPart(
        transport: Transport,
        channel: Channel,
        depth: Depth,
        group: RankRange,
        is_first: bool,
    ) Error!void {
        switch (transport) {
            .none, .shared_memory => {},
            inline .peer_copy, .nccl => |t| {
                const cuda = t.endpoint().cuda;
                const is_queued = try cuda.graphs.endSegment(cuda);
                if (is_queued and !is_first) try t.waitForReaders(channel, depth, group);
                try cuda.graphs.beginSegment(cuda);
            },
        }
    }

    /// Every swap of these slots in this step has been queued.
    pub fn endPart(transport: Transport, channel: Channel, depth: Depth) Error!void {
        switch (transport) {
            .none, .shared_memory => {},
            inline .peer_copy, .nccl => |t| {
                const endpoint = t.endpoint();
                const cuda = endpoint.cuda;
                if (try cuda.graphs.endSegment(cuda)) {
                    const stream = endpoint.exchangeStream(depth);
                    try endpoint.record(.{ .part_read = .{ channel, depth } }, stream);
                }
                try cuda.graphs.beginSegment(cuda);
            },
        }
    }

    /// Waits on the device for outstanding copies before shards are freed and their memory reused.
    pub fn finish(
        transport: Transport,
        channel: Channel,
        depth: Depth,
        group: RankRange,
    ) Error!void {
        switch (transport) {
            .none, .shared_memory => {},
            inline .peer_copy, .nccl => |t| try t.waitForReaders(channel, depth, group),
        }
    }

    /// Every rank's tensor, by rank. `shards` holds room for each where `copiesShards`, else it is
    /// overwritten by the ranks' own tensors. Followed by `endGather` when they have been read.
    pub fn gather(transport: Transport, own: Tensor, shards: []Tensor) Error!void {
        switch (transport) {
            .none => unreachable,
            inline else => |t| try t.gather(own, shards),
        }
    }

    /// Returns when `own` may be freed, in stream order.
    pub fn endGather(transport: Transport) Error!void {
        switch (transport) {
            .none => unreachable,
            inline else => |t| try t.endGather(),
        }
    }

    /// Sends a tensor to a rank of another process and returns when it has been sent.
    pub fn send(transport: Transport, x: Tensor, rank: u32) Error!void {
        switch (transport) {
            .none => {},
            .shared_memory, .peer_copy => unreachable,
            .nccl => |t| try t.send(x, rank),
        }
    }

    /// Receives what a rank of another process sends, in stream order.
    pub fn receive(transport: Transport, x: Tensor, rank: u32) Error!void {
        switch (transport) {
            .none => {},
            .shared_memory, .peer_copy => unreachable,
            .nccl => |t| try t.receive(x, rank),
        }
    }

    // --- internal ---

    fn port(transport: Transport) ?Port {
        return switch (transport) {
            .none => null,
            inline else => |t| t.port,
        };
    }
};

test {
    _ = connections;
    _ = endpoints;
    _ = faults;
    _ = local_ranks;
    _ = peer_check;
    _ = positions;
}
