//! The transport of GPU ranks of one process whose GPUs reach each other's memory: each rank copies
//! what it reads with cuMemcpyPeerAsync, and events order the copies. Copy engines do the work, so
//! no multiprocessor is taken from the computation. Group norm statistics of the same step are too
//! small for a copy each: where GPUs have peer access, the kernel that combines them reads them in
//! the other ranks' memory.

const drivers = @import("../nvidia/driver.zig");
const endpoints = @import("endpoint.zig");
const Endpoint = endpoints.Endpoint;
const Error = endpoints.Error;
const Event = endpoints.Event;
const positions = @import("position.zig");
const Port = @import("local_ranks.zig").Port;
const RankRange = @import("ranks.zig").RankRange;
const Swap = @import("swap.zig").Swap;
const Tensor = @import("../tensor.zig").Tensor;

pub const PeerCopy = struct {
    port: Port,
    /// By rank: all ranks are in this process.
    endpoints: []const *Endpoint,
    /// Whether kernels may read the memory of every other rank.
    reads_peers: bool = false,

    pub fn endpoint(t: PeerCopy) *Endpoint {
        return t.endpoints[t.port.rank];
    }

    pub fn swap(t: PeerCopy, s: *const Swap) Error!void {
        const stream = try t.endpoint().beginSwap(t.port, s);
        const event: Event = .{ .at = .{ s.channel, s.position } };
        var rank_before: ?u32 = null;
        for (s.transferSlice()) |transfer| {
            if (transfer.rank != rank_before) {
                rank_before = transfer.rank;
                try t.port.waitFor(s.channel, transfer.rank, s.position);
                try t.endpoint().waitFor(stream, t.endpoints[transfer.rank], event);
            }
            if (transfer.is_read_there) continue;
            const source = transfer.remote_base.* + transfer.remote_offset;
            const bytes = transfer.receive_bytes;
            try t.copyFrom(transfer.rank, source, transfer.receive_address, bytes, stream);
        }
    }

    /// Orders the compute stream after every copy of these slots that ranks of the group have
    /// queued, so that this rank's shards may be overwritten.
    pub fn waitForReaders(
        t: PeerCopy,
        channel: positions.Channel,
        depth: positions.Depth,
        group: RankRange,
    ) Error!void {
        const own = t.endpoint();
        for (t.endpoints[group.first..group.end]) |other| {
            try own.waitFor(own.cuda.stream, other, .{ .part_read = .{ channel, depth } });
        }
    }

    pub fn gather(t: PeerCopy, own: Tensor, shards: []Tensor) Error!void {
        const mine = t.endpoint();
        const stream = mine.cuda.stream;
        try mine.record(.gather_written, stream);
        const theirs = try t.port.gather(own);
        for (shards, theirs, 0..) |shard, remote, i| {
            if (i == t.port.rank) continue;
            try mine.waitFor(stream, t.endpoints[i], .gather_written);
            const bytes = shard.byteCount();
            try t.copyFrom(@intCast(i), remote.address, shard.address, bytes, stream);
        }
    }

    /// No rank may free or overwrite its tensor before all have copied it.
    pub fn endGather(t: PeerCopy) Error!void {
        const own = t.endpoint();
        const stream = own.cuda.stream;
        try own.record(.gather_copied, stream);
        try t.port.barrier();
        for (t.endpoints[0..t.port.local.rank_count]) |other| {
            try own.waitFor(stream, other, .gather_copied);
        }
    }

    // --- internal ---

    fn copyFrom(
        t: PeerCopy,
        rank: u32,
        source: usize,
        target: usize,
        bytes: usize,
        stream: drivers.Stream,
    ) Error!void {
        const cuda = t.endpoint().cuda;
        cuda.dependent_launches.follows_kernel = false;
        const result = cuda.driver.cuMemcpyPeerAsync(
            target,
            cuda.context,
            source,
            t.endpoints[rank].cuda.context,
            bytes,
            stream,
        );
        try cuda.check(.cuMemcpyPeerAsync, result, "copying another rank's data");
    }
};
