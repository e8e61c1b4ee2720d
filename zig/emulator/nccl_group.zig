//! What a group of NCCL calls does when streams come to it: nothing until every rank that it needs
//! has come as well, then the copies. Calls of one communicator are matched by their order on each
//! rank, as the library matches them; the rank that runs first copies for all. What goes to ranks
//! of other processes goes by nccl_mailbox.zig.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const library = @import("library.zig");
const nccl = @import("../nvidia/nccl.zig");
const Mailbox = @import("nccl_mailbox.zig").Mailbox;

pub const rank_count_max = 64;

pub const Direction = enum { send, receive };
pub const Gather = struct { source: usize, target: usize, bytes: usize };
pub const Pass = struct { direction: Direction, peer: u32, address: usize, bytes: usize };
pub const Operation = union(enum) { gather: Gather, pass: Pass };
pub const Entry = struct { comm: *Comm, stream: driver.Stream, operation: Operation };

const Ranks = std.StaticBitSet(rank_count_max);

/// The ranks that share a unique id.
pub const Clique = struct {
    key: u64,
    rank_count: u32,
    /// Of this process.
    joined_count: u32 = 0,
    comms: [rank_count_max]?*Comm = @splat(null),
    mailbox: Mailbox,
    /// Ranks of this process that the mailbox knows.
    is_announced: [rank_count_max]bool = @splat(false),
    /// Ranks of other processes.
    is_abroad: [rank_count_max]bool = @splat(false),
    abroad_count: u32 = 0,
    /// By rank: whom it has come to for its first send, and for its first receive.
    sends: [rank_count_max]Ranks = @splat(.empty),
    receives: [rank_count_max]Ranks = @splat(.empty),
    gathers: std.ArrayList(*Meeting) = .empty,
    /// By sender and receiver.
    passes: std.AutoHashMapUnmanaged([2]u32, std.ArrayList(*Meeting)) = .empty,

    /// With the lock held.
    pub fn find(key: u64, rank_count: u32, mailbox: Mailbox) error{OutOfMemory}!*Clique {
        for (cliques.items) |clique| if (clique.key == key) return clique;
        const clique = try library.allocator.create(Clique);
        clique.* = .{ .key = key, .rank_count = rank_count, .mailbox = mailbox };
        try cliques.append(library.allocator, clique);
        return clique;
    }

    pub fn isComplete(clique: *const Clique) bool {
        return clique.joined_count + clique.abroad_count >= clique.rank_count;
    }

    /// Announces this process's ranks to other processes, and finds theirs.
    pub fn lookAbroad(clique: *Clique) void {
        for (clique.comms[0..clique.rank_count], 0..) |comm, rank| {
            if (comm != null and !clique.is_announced[rank]) {
                clique.is_announced[rank] = clique.mailbox.announce(rank);
            }
        }
        for (clique.comms[0..clique.rank_count], 0..) |comm, rank| {
            if (comm != null or clique.is_abroad[rank]) continue;
            if (!clique.mailbox.isThere(rank)) continue;
            clique.is_abroad[rank] = true;
            clique.abroad_count += 1;
            library.poll();
        }
    }

    /// `rank` is in the call of its first send to `peer`, or receive from it.
    fn come(clique: *Clique, rank: u32, pass: Pass) void {
        const all = if (pass.direction == .send) &clique.sends else &clique.receives;
        if (all[rank].isSet(pass.peer)) return;
        all[rank].set(pass.peer);
        if (clique.is_abroad[pass.peer]) {
            clique.mailbox.come(rank, pass.peer, pass.direction == .send);
        }
        library.announceChange();
    }

    /// Whether the other side of a pass has come as well, or ever before.
    fn isMet(clique: *const Clique, rank: u32, pass: Pass) bool {
        if (pass.peer == rank) return true;
        const is_send = pass.direction == .send;
        if (clique.is_abroad[pass.peer]) {
            return clique.mailbox.hasCome(pass.peer, rank, !is_send);
        }
        const others = if (is_send) &clique.receives else &clique.sends;
        return others[pass.peer].isSet(rank);
    }

    /// Each process has devices of its own.
    pub fn hasDeviceTwice(clique: *const Clique) bool {
        const comms = clique.comms[0..clique.rank_count];
        for (comms, 0..) |maybe, i| {
            const comm = maybe orelse continue;
            for (comms[0..i]) |other| {
                if (other != null and other.?.device == comm.device) return true;
            }
        }
        return false;
    }
};

pub const Comm = struct {
    magic: u64 = live,
    clique: *Clique,
    rank: u32,
    device: u32,
    is_aborted: bool = false,
    failure: nccl.Result = .success,
    /// Communicators made from it.
    split_count: u64 = 0,
    /// How many of each kind this rank has come to.
    gather_count: usize = 0,
    send_counts: [rank_count_max]usize = @splat(0),
    receive_counts: [rank_count_max]usize = @splat(0),

    const live = 0x636f_6d6d_6c69_7665;

    /// The handle means nothing any more.
    pub fn retire(comm: *Comm) void {
        comm.magic = 0;
        const clique = comm.clique;
        if (clique.is_announced[comm.rank]) clique.mailbox.leave(comm.rank, clique.rank_count);
    }

    pub fn of(handle: ?nccl.Comm) ?*Comm {
        const comm: *Comm = @ptrCast(@alignCast(handle orelse return null));
        return if (comm.magic == live) comm else null;
    }
};

/// Blocks, as the library does on the calling thread, until the ranks of every first send and
/// receive are connected: both must be here. Only an abort of the communicator ends it otherwise.
pub fn connect(entries: []const Entry) nccl.Result {
    library.lock();
    defer library.unlock();
    for (entries) |entry| switch (entry.operation) {
        .pass => |pass| entry.comm.clique.come(entry.comm.rank, pass),
        .gather => {},
    };
    while (true) {
        var is_met = true;
        var is_abroad = false;
        for (entries) |entry| {
            if (entry.comm.is_aborted) return .internal_error;
            const pass = switch (entry.operation) {
                .pass => |pass| pass,
                .gather => continue,
            };
            const clique = entry.comm.clique;
            if (clique.isMet(entry.comm.rank, pass)) continue;
            is_met = false;
            is_abroad = is_abroad or clique.is_abroad[pass.peer];
        }
        if (is_met) return .success;
        if (is_abroad) library.waitBriefly(1) else library.waitForChange();
    }
}

/// Queues those of `entries` that are for this communicator and stream, as one piece of work.
pub fn enqueue(entries: []const Entry, comm: *Comm, stream: driver.Stream) nccl.Result {
    const gpa = library.allocator;
    const group = gpa.create(Group) catch return .internal_error;
    group.* = .{ .comm = comm };
    for (entries) |entry| {
        if (entry.comm != comm or entry.stream != stream) continue;
        group.operations.append(gpa, entry.operation) catch return .internal_error;
    }
    const result = library.enqueue(stream, .{
        .label = "an NCCL call",
        .context = group,
        .run = Group.run,
        .destroy = Group.destroy,
        .arrive = Group.arrive,
        .isReady = Group.isReady,
    });
    return if (result == .success) .success else .unhandled_cuda_error;
}

// --- internal ---

var cliques: std.ArrayList(*Clique) = .empty;

/// Operations of several ranks that belong together: all of one all-gather, or a send and its
/// receive.
const Meeting = struct {
    /// Of an all-gather, by rank.
    parts: []?Gather = &.{},
    sender: ?Pass = null,
    receiver: ?Pass = null,
    sender_rank: u32 = 0,
    receiver_rank: u32 = 0,
    is_pass: bool,
    is_done: bool = false,
    /// Of a send or a receive alone: the other is done by another process.
    letter: ?Mailbox.Letter = null,
    /// It could not be sent.
    is_lost: bool = false,

    fn isComplete(meeting: *const Meeting, clique: *const Clique) bool {
        if (meeting.letter) |letter| {
            return meeting.receiver == null or clique.mailbox.has(letter);
        }
        if (meeting.is_pass) return meeting.sender != null and meeting.receiver != null;
        for (meeting.parts) |part| if (part == null) return false;
        return true;
    }

    fn copy(meeting: *Meeting, clique: *const Clique) driver.Result {
        if (meeting.is_done) return .success;
        meeting.is_done = true;
        if (meeting.letter != null) return meeting.take(clique);
        if (meeting.is_pass) {
            const from = meeting.sender.?;
            const to = meeting.receiver.?;
            if (from.bytes != to.bytes) return mismatch(from.bytes, to.bytes);
            const target_device = clique.comms[meeting.receiver_rank].?.device;
            const source_device = clique.comms[meeting.sender_rank].?.device;
            return move(to.address, target_device, from.address, source_device, from.bytes);
        }
        const parts = meeting.parts;
        const bytes = parts[0].?.bytes;
        for (parts) |part| if (part.?.bytes != bytes) return mismatch(bytes, part.?.bytes);
        for (parts, 0..) |to, target_rank| for (parts, 0..) |from, source_rank| {
            const target = to.?.target + source_rank * bytes;
            const target_device = clique.comms[target_rank].?.device;
            const source_device = clique.comms[source_rank].?.device;
            const result = move(target, target_device, from.?.source, source_device, bytes);
            if (result != .success) return result;
        };
        return .success;
    }

    /// The letter from another process to its place; what was sent there is gone already.
    fn take(meeting: *Meeting, clique: *const Clique) driver.Result {
        const to = meeting.receiver orelse
            return if (meeting.is_lost) .illegal_address else .success;
        const device = clique.comms[meeting.receiver_rank].?.device;
        if (!isInside(device, to.address, to.bytes)) return .illegal_address;
        const target: [*]u8 = @ptrFromInt(to.address);
        if (clique.mailbox.take(meeting.letter.?, target[0..to.bytes])) return .success;
        library.report("NCCL: not the {d} bytes that another process sent", .{to.bytes});
        return .launch_failed;
    }
};

/// One NCCL group of one stream. A graph may run it many times: matching is per run.
const Group = struct {
    comm: *Comm,
    operations: std.ArrayList(Operation) = .empty,
    runs: std.AutoHashMapUnmanaged(u64, []*Meeting) = .empty,
    run_count: u64 = 0,

    fn arrive(context: *anyopaque) u64 {
        const group: *Group = @ptrCast(@alignCast(context));
        const gpa = library.allocator;
        const meetings = gpa.alloc(*Meeting, group.operations.items.len) catch
            @panic("out of memory");
        for (meetings, group.operations.items) |*meeting, operation| {
            meeting.* = group.join(operation) catch @panic("out of memory");
        }
        group.run_count += 1;
        group.runs.put(gpa, group.run_count, meetings) catch @panic("out of memory");
        return group.run_count;
    }

    fn isReady(context: *anyopaque, token: u64) bool {
        const group: *Group = @ptrCast(@alignCast(context));
        if (group.comm.is_aborted) return true;
        for (group.runs.get(token).?) |meeting| {
            if (!meeting.is_done and !meeting.isComplete(group.comm.clique)) return false;
        }
        return true;
    }

    fn run(context: *anyopaque, token: u64) driver.Result {
        const group: *Group = @ptrCast(@alignCast(context));
        const meetings = group.runs.fetchRemove(token).?.value;
        defer library.allocator.free(meetings);
        if (group.comm.is_aborted) return .success;
        for (meetings) |meeting| {
            const result = meeting.copy(group.comm.clique);
            if (meeting.letter != null) library.allocator.destroy(meeting);
            if (result == .success) continue;
            group.comm.failure = .unhandled_cuda_error;
            return result;
        }
        return .success;
    }

    fn destroy(context: *anyopaque) void {
        const group: *Group = @ptrCast(@alignCast(context));
        group.operations.deinit(library.allocator);
        group.runs.deinit(library.allocator);
        library.allocator.destroy(group);
    }

    /// Puts the operation beside those of the other ranks that have the same place in the order.
    fn join(group: *Group, operation: Operation) error{OutOfMemory}!*Meeting {
        const comm = group.comm;
        const clique = comm.clique;
        const gpa = library.allocator;
        switch (operation) {
            .gather => |gather| {
                const rank_count = clique.rank_count;
                // The product gathers by passes.
                if (clique.abroad_count > 0) @panic("an all-gather over several processes");
                const meeting = try meetingAt(&clique.gathers, comm.gather_count, rank_count);
                comm.gather_count += 1;
                meeting.parts[comm.rank] = gather;
                return meeting;
            },
            .pass => |pass| {
                if (clique.is_abroad[pass.peer]) return group.joinAbroad(pass);
                const is_send = pass.direction == .send;
                const key: [2]u32 = if (is_send)
                    .{ comm.rank, pass.peer }
                else
                    .{ pass.peer, comm.rank };
                const list = try clique.passes.getOrPutValue(gpa, key, .empty);
                const counts = if (is_send) &comm.send_counts else &comm.receive_counts;
                const meeting = try meetingAt(list.value_ptr, counts[pass.peer], 0);
                counts[pass.peer] += 1;
                meeting.sender_rank = key[0];
                meeting.receiver_rank = key[1];
                if (is_send) meeting.sender = pass else meeting.receiver = pass;
                return meeting;
            },
        }
    }

    /// Sends at once, since a stream's work comes here in its turn.
    fn joinAbroad(group: *Group, pass: Pass) error{OutOfMemory}!*Meeting {
        const comm = group.comm;
        const is_send = pass.direction == .send;
        const counts = if (is_send) &comm.send_counts else &comm.receive_counts;
        const letter: Mailbox.Letter = .{
            .sender = if (is_send) comm.rank else pass.peer,
            .receiver = if (is_send) pass.peer else comm.rank,
            .index = counts[pass.peer],
        };
        counts[pass.peer] += 1;
        const meeting = try library.allocator.create(Meeting);
        meeting.* = .{ .is_pass = true, .letter = letter, .receiver_rank = letter.receiver };
        if (!is_send) {
            meeting.receiver = pass;
            return meeting;
        }
        meeting.is_lost = !isInside(comm.device, pass.address, pass.bytes);
        if (meeting.is_lost) return meeting;
        const from: [*]const u8 = @ptrFromInt(pass.address);
        meeting.is_lost = !comm.clique.mailbox.post(letter, from[0..pass.bytes]);
        return meeting;
    }
};

fn meetingAt(
    list: *std.ArrayList(*Meeting),
    index: usize,
    part_count: usize,
) error{OutOfMemory}!*Meeting {
    while (list.items.len <= index) {
        const meeting = try library.allocator.create(Meeting);
        const parts = try library.allocator.alloc(?Gather, part_count);
        @memset(parts, null);
        meeting.* = .{ .parts = parts, .is_pass = part_count == 0 };
        try list.append(library.allocator, meeting);
    }
    return list.items[index];
}

fn mismatch(bytes: usize, other: usize) driver.Result {
    library.report("NCCL: ranks pass {d} and {d} bytes in one call", .{ bytes, other });
    return .launch_failed;
}

fn isInside(device: u32, address: usize, bytes: usize) bool {
    if (library.isReachable(device, address, bytes)) return true;
    library.report("NCCL: a buffer of {d} bytes is not memory of its rank's GPU", .{bytes});
    return false;
}

fn move(
    target: usize,
    target_device: u32,
    source: usize,
    source_device: u32,
    bytes: usize,
) driver.Result {
    if (bytes == 0) return .success;
    if (!isInside(target_device, target, bytes)) return .illegal_address;
    if (!isInside(source_device, source, bytes)) return .illegal_address;
    const to: [*]u8 = @ptrFromInt(target);
    const from: [*]const u8 = @ptrFromInt(source);
    @memmove(to[0..bytes], from[0..bytes]);
    return .success;
}
