//! One rank's NCCL communicator: opened together with those of all other ranks, then used for sends
//! and receives, which both ranks of a pair name in the same order.

const std = @import("std");
const drivers = @import("../nvidia/driver.zig");
const nccl = @import("../nvidia/nccl.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Error = error{GpuFailed};

pub const Communicator = struct {
    library: *const nccl.Nccl,
    comm: nccl.Comm,
    diagnostics: *Diagnostics,

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
    ) Error!void {
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
            try first.check(.ncclCommInitRank, joined);
        }
        try first.check(.ncclGroupEnd, library.ncclGroupEnd());
        for (out, 0..) |*communicator, i| {
            communicator.* = first;
            communicator.comm = comms[i].?;
        }
    }

    /// A ncclUniqueId. The process that makes it must live until all ranks have joined.
    pub fn makeId(library: *const nccl.Nccl, diagnostics: *Diagnostics) Error!nccl.UniqueId {
        var id: nccl.UniqueId = undefined;
        const c: Communicator = .{
            .library = library,
            .comm = undefined,
            .diagnostics = diagnostics,
        };
        try c.check(.ncclGetUniqueId, library.ncclGetUniqueId(&id));
        return id;
    }

    pub fn close(c: Communicator) void {
        _ = c.library.ncclCommDestroy(c.comm);
    }

    /// Ends calls that wait for another rank. The communicator is gone afterwards.
    pub fn abort(c: Communicator) void {
        _ = c.library.ncclCommAbort(c.comm);
    }

    /// Sends and receives up to `groupEnd` run at once, whatever their order.
    pub fn groupStart(c: Communicator) Error!void {
        try c.check(.ncclGroupStart, c.library.ncclGroupStart());
    }

    pub fn groupEnd(c: Communicator) Error!void {
        try c.check(.ncclGroupEnd, c.library.ncclGroupEnd());
    }

    pub fn send(
        c: Communicator,
        address: usize,
        bytes: usize,
        rank: u32,
        stream: drivers.Stream,
    ) Error!void {
        const peer: c_int = @intCast(rank);
        try c.check(.ncclSend, c.library.ncclSend(address, bytes, .uint8, peer, c.comm, stream));
    }

    pub fn receive(
        c: Communicator,
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

    fn check(c: *const Communicator, call: nccl.Call, result: nccl.Result) Error!void {
        if (result == .success) return;
        const sentence = "{f}. NCCL_DEBUG=WARN prints more; within one process --transport peer " ++
            "works without NCCL.";
        const failure = c.library.callError(call, result);
        return c.diagnostics.fail(error.GpuFailed, sentence, .{failure});
    }
};
