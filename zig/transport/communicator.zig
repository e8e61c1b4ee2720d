//! One rank's NCCL communicator: opened together with those of all other ranks, then used for
//! groups of sends and receives, which both ranks of a pair name in the same order. A second one of
//! the same ranks is split from it where calls on another stream must not wait for its own.
//!
//! The end of a group may block: the first one between two ranks connects them, on the calling
//! thread, until the other rank comes. Only an abort of this communicator ends that, and the thread
//! that is blocked cannot do it: any thread of the process may `abort`.

const std = @import("std");
const drivers = @import("../nvidia/driver.zig");
const nccl = @import("../nvidia/nccl.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Error = error{ GpuFailed, Cancelled };

pub const Communicator = struct {
    library: *const nccl.Nccl,
    comm: nccl.Comm,
    diagnostics: *Diagnostics,
    /// For messages; null where a call is of no rank alone.
    rank: ?u32 = null,
    state: std.atomic.Value(State) = .init(.idle),
    /// When the group ended that NCCL is carrying out; 0 outside of that call.
    entered_ns: std.atomic.Value(i64) = .init(0),

    const State = enum(u8) {
        idle,
        /// The rank's thread names sends and receives; NCCL must not be told to abort meanwhile.
        queueing,
        /// The rank's thread is in ncclGroupEnd.
        connecting,
        aborted,
    };

    pub const Members = struct {
        /// Ranks of all processes.
        rank_count: u32,
        /// The rank of the first context.
        rank_first: u32,
        /// Null where all ranks are in this process.
        id: ?nccl.UniqueId,
    };

    /// Opens one communicator per context, in rank order; each context must be on a GPU of its own.
    /// Returns when the ranks of all processes have joined.
    pub fn openAll(
        library: *const nccl.Nccl,
        driver: *const drivers.Driver,
        contexts: []const drivers.Context,
        members: Members,
        out: []Communicator,
        diagnostics: *Diagnostics,
    ) error{GpuFailed}!void {
        std.debug.assert(contexts.len == out.len);
        const id = members.id orelse try makeId(library, diagnostics);
        const first: Communicator = .{
            .library = library,
            .comm = undefined,
            .diagnostics = diagnostics,
        };
        // Within a group one thread may initialize the communicators of several ranks.
        try first.check(.ncclGroupStart, library.ncclGroupStart());
        var comms: [drivers.gpu_count_max]?nccl.Comm = @splat(null);
        for (contexts, 0..) |context, i| {
            _ = driver.cuCtxSetCurrent(context);
            const count: c_int = @intCast(members.rank_count);
            const rank: c_int = @intCast(members.rank_first + i);
            const joined = library.ncclCommInitRank(&comms[i], count, id, rank);
            first.check(.ncclCommInitRank, joined) catch |err| {
                // Else the thread's next group would be part of this one.
                _ = library.ncclGroupEnd();
                return err;
            };
        }
        try first.check(.ncclGroupEnd, library.ncclGroupEnd());
        for (out, 0..) |*communicator, i| {
            communicator.* = first;
            communicator.comm = comms[i].?;
            communicator.rank = members.rank_first + @as(u32, @intCast(i));
        }
    }

    /// A ncclUniqueId. The process that makes it must live until all ranks have joined.
    pub fn makeId(
        library: *const nccl.Nccl,
        diagnostics: *Diagnostics,
    ) error{GpuFailed}!nccl.UniqueId {
        var id: nccl.UniqueId = undefined;
        const c: Communicator = .{
            .library = library,
            .comm = undefined,
            .diagnostics = diagnostics,
        };
        try c.check(.ncclGetUniqueId, library.ncclGetUniqueId(&id));
        return id;
    }

    /// A communicator of the same ranks whose calls are independent of this one's. Returns when all
    /// ranks have come; an abort of this one ends that. Nothing of this one may be in a stream.
    pub fn split(c: *Communicator, now_ns: i64) Error!Communicator {
        c.entered_ns.store(now_ns, .release);
        defer c.entered_ns.store(0, .release);
        if (!c.change(.idle, .connecting)) return error.Cancelled;
        var comm: ?nccl.Comm = null;
        const rank: c_int = @intCast(c.rank.?);
        const result = c.library.ncclCommSplit(c.comm, 0, rank, &comm, null);
        if (!c.change(.connecting, .idle)) {
            if (result == .success) _ = c.library.ncclCommAbort(comm.?);
            return error.Cancelled;
        }
        try c.check(.ncclCommSplit, result);
        return .{
            .library = c.library,
            .comm = comm.?,
            .diagnostics = c.diagnostics,
            .rank = c.rank,
        };
    }

    pub fn close(c: *Communicator) void {
        if (c.change(.idle, .aborted)) _ = c.library.ncclCommDestroy(c.comm);
    }

    /// Ends calls that wait for another rank, and what of them is in streams. By any thread; the
    /// communicator is gone afterwards.
    pub fn abort(c: *Communicator) void {
        while (true) {
            const state = c.state.load(.acquire);
            switch (state) {
                .aborted => return,
                // Nothing blocks there.
                .queueing => std.Thread.yield() catch {},
                .idle, .connecting => if (c.change(state, .aborted)) {
                    _ = c.library.ncclCommAbort(c.comm);
                    return;
                },
            }
        }
    }

    pub fn isAborted(c: *const Communicator) bool {
        return c.state.load(.acquire) == .aborted;
    }

    /// Begins a group: sends and receives up to `end` run at once, whatever their order. Followed
    /// by `end`, or by `drop` where a call between fails.
    pub fn begin(c: *Communicator) Error!void {
        if (!c.change(.idle, .queueing)) return error.Cancelled;
        errdefer _ = c.change(.queueing, .idle);
        try c.check(.ncclGroupStart, c.library.ncclGroupStart());
    }

    /// `now_ns`: of the clock that whoever watches for stalls reads.
    pub fn end(c: *Communicator, now_ns: i64) Error!void {
        c.entered_ns.store(now_ns, .release);
        defer c.entered_ns.store(0, .release);
        _ = c.change(.queueing, .connecting);
        const result = c.library.ncclGroupEnd();
        if (!c.change(.connecting, .idle)) return error.Cancelled;
        try c.check(.ncclGroupEnd, result);
    }

    /// Ends a group in which a call has failed.
    pub fn drop(c: *Communicator) void {
        _ = c.library.ncclGroupEnd();
        _ = c.change(.queueing, .idle);
    }

    pub fn send(
        c: *Communicator,
        address: usize,
        bytes: usize,
        rank: u32,
        stream: drivers.Stream,
    ) Error!void {
        const peer: c_int = @intCast(rank);
        try c.check(.ncclSend, c.library.ncclSend(address, bytes, .uint8, peer, c.comm, stream));
    }

    pub fn receive(
        c: *Communicator,
        address: usize,
        bytes: usize,
        rank: u32,
        stream: drivers.Stream,
    ) Error!void {
        const peer: c_int = @intCast(rank);
        const result = c.library.ncclRecv(address, bytes, .uint8, peer, c.comm, stream);
        try c.check(.ncclRecv, result);
    }

    // --- internal ---

    /// False where it was not `from`.
    fn change(c: *Communicator, from: State, to: State) bool {
        return c.state.cmpxchgStrong(from, to, .acq_rel, .acquire) == null;
    }

    fn check(
        c: *const Communicator,
        call: nccl.Call,
        result: nccl.Result,
    ) error{GpuFailed}!void {
        if (result == .success) return;
        const advice = "NCCL_DEBUG=WARN prints more; within one process --transport peer works " ++
            "without NCCL.";
        const failure = c.library.callError(call, result);
        const d = c.diagnostics;
        const rank = c.rank orelse return d.fail(error.GpuFailed, "{f}. " ++ advice, .{failure});
        return d.fail(error.GpuFailed, "{f} (rank {d}). " ++ advice, .{ failure, rank });
    }
};
