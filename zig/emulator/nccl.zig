//! NCCL on the CPU: communicators, calls grouped per thread, and errors as the library gives them.
//! What a group does is in nccl_group.zig.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const faults = @import("faults.zig");
const groups = @import("nccl_group.zig");
const library = @import("library.zig");
const nccl = @import("../nvidia/nccl.zig");
const Mailbox = @import("nccl_mailbox.zig").Mailbox;
const Clique = groups.Clique;
const Comm = groups.Comm;
const Result = nccl.Result;

const emulated_version = 23007;
const rank_count_max = groups.rank_count_max;

export fn ncclGetVersion(version: ?*c_int) Result {
    (version orelse return .invalid_argument).* = emulated_version;
    return .success;
}

export fn ncclGetErrorString(result: Result) ?[*:0]const u8 {
    return switch (result) {
        .success => "no error",
        .unhandled_cuda_error => "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        .invalid_argument => "invalid argument (run with NCCL_DEBUG=WARN for details)",
        .invalid_usage => "invalid usage (run with NCCL_DEBUG=WARN for details)",
        .in_progress => "NCCL operation in progress",
        else => "internal error - please report this issue to the NCCL developers",
    };
}

export fn ncclGetLastError(comm: ?nccl.Comm) ?[*:0]const u8 {
    _ = comm;
    return "";
}

export fn ncclGetUniqueId(id: ?*nccl.UniqueId) Result {
    const out = id orelse return .invalid_argument;
    library.lock();
    defer library.unlock();
    id_last += 1;
    // Other processes' ids must differ.
    const seed = [_]u64{ id_last, library.now(), @intCast(std.c.getpid()) };
    const key = std.hash.Wyhash.hash(0, std.mem.asBytes(&seed));
    var mailbox: Mailbox = .{};
    mailbox.name(key);
    std.mem.writeInt(u64, out.internal[0..8], id_magic, .little);
    std.mem.writeInt(u64, out.internal[8..16], key, .little);
    out.internal[16..].* = mailbox.folder;
    return .success;
}

/// Returns when every rank has called, as the library does.
export fn ncclCommInitRank(
    out: ?*?nccl.Comm,
    rank_count: c_int,
    id: nccl.UniqueId,
    rank: c_int,
) Result {
    const comm_out = out orelse return .invalid_argument;
    comm_out.* = null;
    if (rank_count < 1 or rank_count > rank_count_max) return .invalid_argument;
    if (rank < 0 or rank >= rank_count) return .invalid_argument;
    if (std.mem.readInt(u64, id.internal[0..8], .little) != id_magic) return .invalid_argument;
    const device = library.currentDevice() orelse return .unhandled_cuda_error;
    library.lock();
    defer library.unlock();
    const key = std.mem.readInt(u64, id.internal[8..16], .little);
    const mailbox: Mailbox = .{ .folder = id.internal[16..].* };
    const clique = Clique.find(key, @intCast(rank_count), mailbox) catch return .internal_error;
    const place = &clique.comms[@intCast(rank)];
    if (clique.rank_count != rank_count or place.* != null) return .invalid_usage;
    const comm = library.allocator.create(Comm) catch return .internal_error;
    comm.* = .{ .clique = clique, .rank = @intCast(rank), .device = device };
    place.* = comm;
    clique.joined_count += 1;
    library.announceChange();
    // Within a group one thread may join for several ranks: all must have come at its end.
    if (group_depth > 0) {
        group_clique = clique;
    } else {
        const result = meet(clique, null);
        if (result != .success) return result;
    }
    comm_out.* = @ptrCast(comm);
    return .success;
}

/// As the product calls it: all ranks, in their order. Returns when every rank has called, or the
/// communicator is aborted.
export fn ncclCommSplit(
    handle: ?nccl.Comm,
    color: c_int,
    key: c_int,
    out: ?*?nccl.Comm,
    config: ?*anyopaque,
) Result {
    const comm_out = out orelse return .invalid_argument;
    comm_out.* = null;
    library.lock();
    defer library.unlock();
    const parent = Comm.of(handle) orelse return .invalid_argument;
    if (color != 0 or key != parent.rank or config != null) return .invalid_usage;
    parent.split_count += 1;
    const seed = [_]u64{ parent.clique.key, parent.split_count };
    const child_key = std.hash.Wyhash.hash(0, std.mem.asBytes(&seed));
    var mailbox: Mailbox = .{};
    mailbox.name(child_key);
    const rank_count = parent.clique.rank_count;
    const clique = Clique.find(child_key, rank_count, mailbox) catch return .internal_error;
    const comm = library.allocator.create(Comm) catch return .internal_error;
    comm.* = .{ .clique = clique, .rank = parent.rank, .device = parent.device };
    clique.comms[comm.rank] = comm;
    clique.joined_count += 1;
    library.announceChange();
    const result = meet(clique, parent);
    if (result != .success) return result;
    comm_out.* = @ptrCast(comm);
    return .success;
}

/// The memory is kept, so that a late use of the handle is refused.
export fn ncclCommDestroy(handle: ?nccl.Comm) Result {
    library.lock();
    defer library.unlock();
    const comm = Comm.of(handle) orelse return .invalid_argument;
    comm.retire();
    return .success;
}

/// What waits for other ranks goes on without them.
export fn ncclCommAbort(handle: ?nccl.Comm) Result {
    library.lock();
    defer library.unlock();
    const comm = Comm.of(handle) orelse return .invalid_argument;
    comm.is_aborted = true;
    comm.retire();
    library.announceChange();
    return .success;
}

export fn ncclCommGetAsyncError(handle: ?nccl.Comm, err: ?*Result) Result {
    const out = err orelse return .invalid_argument;
    library.lock();
    defer library.unlock();
    const comm = Comm.of(handle) orelse return .invalid_argument;
    out.* = comm.failure;
    return .success;
}

export fn ncclAllGather(
    source: usize,
    target: usize,
    count: usize,
    dtype: nccl.DataType,
    handle: ?nccl.Comm,
    stream: ?driver.Stream,
) Result {
    const comm = live(handle) orelse return .invalid_argument;
    const bytes = count * (bytesOf(dtype) orelse return .invalid_argument);
    if (bytes > 0 and (source == 0 or target == 0)) return .invalid_argument;
    const operation: groups.Operation = .{ .gather = .{
        .source = source,
        .target = target,
        .bytes = bytes,
    } };
    return add(comm, stream, operation);
}

export fn ncclSend(
    source: usize,
    count: usize,
    dtype: nccl.DataType,
    peer: c_int,
    handle: ?nccl.Comm,
    stream: ?driver.Stream,
) Result {
    return pass(.send, source, count, dtype, peer, handle, stream);
}

export fn ncclRecv(
    target: usize,
    count: usize,
    dtype: nccl.DataType,
    peer: c_int,
    handle: ?nccl.Comm,
    stream: ?driver.Stream,
) Result {
    return pass(.receive, target, count, dtype, peer, handle, stream);
}

export fn ncclGroupStart() Result {
    group_depth += 1;
    return .success;
}

export fn ncclGroupEnd() Result {
    if (group_depth == 0) return .invalid_usage;
    group_depth -= 1;
    if (group_depth == 0) {
        if (group_clique) |clique| {
            group_clique = null;
            library.lock();
            defer library.unlock();
            const result = meet(clique, null);
            if (result != .success) return result;
        }
    }
    return if (group_depth == 0) flush() else .success;
}

// --- internal ---

const id_magic = 0x6c63636e_756d6521;
/// Ranks of one process have come by then, and need no folder.
const meet_poll_ms = 20;
var id_last: u64 = 0;

/// What the thread collected since its ncclGroupStart.
threadlocal var group_depth: u32 = 0;
/// What this thread has joined since its group began.
threadlocal var group_clique: ?*Clique = null;
threadlocal var group: std.ArrayList(groups.Entry) = .empty;
threadlocal var group_failure: Result = .success;

/// Another thread may abort the communicator meanwhile.
fn live(handle: ?nccl.Comm) ?*Comm {
    library.lock();
    defer library.unlock();
    return Comm.of(handle);
}

/// Waits for all ranks of a clique, unless the one that it is split from is aborted; the lock is
/// held.
fn meet(clique: *Clique, parent: ?*const Comm) Result {
    while (!clique.isComplete()) {
        if (parent != null and parent.?.is_aborted) return .internal_error;
        library.waitBriefly(meet_poll_ms);
        if (!clique.isComplete()) clique.lookAbroad();
    }
    // Ranks that came after all others were there are not known to them yet.
    if (clique.abroad_count > 0) clique.lookAbroad();
    if (!clique.hasDeviceTwice()) return .success;
    library.report("ncclCommInitRank: two ranks on one GPU", .{});
    return .invalid_usage;
}

fn pass(
    direction: groups.Direction,
    address: usize,
    count: usize,
    dtype: nccl.DataType,
    peer: c_int,
    handle: ?nccl.Comm,
    stream: ?driver.Stream,
) Result {
    const comm = live(handle) orelse return .invalid_argument;
    const bytes = count * (bytesOf(dtype) orelse return .invalid_argument);
    if (bytes > 0 and address == 0) return .invalid_argument;
    if (peer < 0 or peer >= comm.clique.rank_count) return .invalid_argument;
    const operation: groups.Operation = .{ .pass = .{
        .direction = direction,
        .peer = @intCast(peer),
        .address = address,
        .bytes = bytes,
    } };
    return add(comm, stream, operation);
}

fn add(comm: *Comm, stream: ?driver.Stream, operation: groups.Operation) Result {
    const result = addChecked(comm, stream, operation);
    // A group in which one call failed does nothing.
    if (result != .success and group_depth > 0) group_failure = result;
    if (result != .success) return result;
    return if (group_depth == 0) flush() else .success;
}

fn addChecked(comm: *Comm, stream: ?driver.Stream, operation: groups.Operation) Result {
    const queue = stream orelse return .invalid_argument;
    if (library.deviceOf(queue) != comm.device) return .invalid_usage;
    const entry: groups.Entry = .{ .comm = comm, .stream = queue, .operation = operation };
    group.append(library.allocator, entry) catch return .internal_error;
    return .success;
}

/// Queues what was collected: one piece of work per communicator and stream.
fn flush() Result {
    defer group.clearRetainingCapacity();
    defer group_failure = .success;
    if (group_failure != .success) return group_failure;
    if (group.items.len > 0) {
        if (faults.fails(.nccl_group, group.items[0].comm.device)) return .system_error;
        const connected = groups.connect(group.items);
        if (connected != .success) return connected;
    }
    for (group.items, 0..) |entry, i| {
        const is_first = for (group.items[0..i]) |earlier| {
            if (earlier.comm == entry.comm and earlier.stream == entry.stream) break false;
        } else true;
        if (!is_first) continue;
        const result = groups.enqueue(group.items[i..], entry.comm, entry.stream);
        if (result != .success) return result;
    }
    return .success;
}

fn bytesOf(dtype: nccl.DataType) ?usize {
    return switch (dtype) {
        .int8, .uint8 => 1,
        .float16, .bfloat16 => 2,
        .int32, .uint32, .float32 => 4,
        .int64, .uint64, .float64 => 8,
        _ => null,
    };
}
