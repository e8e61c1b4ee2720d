//! A rank's place among the others of a NCCL communicator: for GPUs that cannot copy from each
//! other. Between `begin` and `end` a rank says all that it sends and receives at one point of the
//! exchange; the others say the same of theirs, in the same order of points.

const std = @import("std");
const Allocator = std.mem.Allocator;
const drivers = @import("../nvidia/driver.zig");
const nccl = @import("../nvidia/nccl.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Error = error{GpuFailed};

pub const Communicator = struct {
    library: *const nccl.Nccl,
    comm: nccl.Comm,
    diagnostics: *Diagnostics,

    pub const Meeting = struct {
        /// Of all machines.
        rank_count: u32,
        /// The rank of the first context.
        rank_first: u32,
        /// Null where all ranks are in this process.
        id: ?nccl.UniqueId,
    };

    /// One for each context, in the order of the ranks, which must be on GPUs of their own. Returns
    /// when the ranks of all machines have come.
    pub fn openAll(
        library: *const nccl.Nccl,
        driver: *const drivers.Driver,
        contexts: []const drivers.Context,
        meeting: Meeting,
        out: []Communicator,
        diagnostics: *Diagnostics,
    ) Error!void {
        std.debug.assert(contexts.len == out.len);
        const id = meeting.id orelse try makeId(library, diagnostics);
        const first: Communicator = .{
            .library = library,
            .comm = undefined,
            .diagnostics = diagnostics,
        };
        // Within a group one thread may join for all.
        try first.check(.ncclGroupStart, library.ncclGroupStart());
        var comms: [drivers.gpu_count_max]?nccl.Comm = @splat(null);
        for (contexts, 0..) |context, i| {
            _ = driver.cuCtxSetCurrent(context);
            const count: c_int = @intCast(meeting.rank_count);
            const rank: c_int = @intCast(meeting.rank_first + i);
            const joined = library.ncclCommInitRank(&comms[i], count, id, rank);
            try first.check(.ncclCommInitRank, joined);
        }
        try first.check(.ncclGroupEnd, library.ncclGroupEnd());
        for (out, 0..) |*communicator, i| {
            communicator.* = first;
            communicator.comm = comms[i].?;
        }
    }

    /// What ranks meet by; the process that makes it must live until they have.
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

    /// Ends what waits for another rank; nothing can be sent afterwards.
    pub fn abort(c: Communicator) void {
        _ = c.library.ncclCommAbort(c.comm);
    }

    pub fn begin(c: Communicator) Error!void {
        try c.check(.ncclGroupStart, c.library.ncclGroupStart());
    }

    pub fn end(c: Communicator) Error!void {
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
        const result = c.library.ncclSend(address, bytes, .uint8, peer, c.comm, stream);
        try c.check(.ncclSend, result);
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
        return c.diagnostics.fail(error.GpuFailed, "{f}. NCCL_DEBUG=WARN prints more; on one " ++
            "machine --transport peer works without NCCL.", .{c.library.callError(call, result)});
    }
};
