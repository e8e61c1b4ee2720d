//! The exchange's memory on GPUs: each rank keeps its own parts once and copies of the other
//! patches' parts, since a kernel that read another GPU's memory again and again would wait for it.
//!
//! Slots of a kind lie side by side, so that a run of slots is one copy. Where fresh values are
//! read, a slot is fetched on the stream of the computation; else runs of `group_slot_count` slots
//! are fetched on a stream of their own as soon as both sides are past them, while the computation
//! goes on. What keeps readers and writers apart are marks in the streams:
//!   posted   this rank's part of a slot is written (fresh values)
//!   passed   this rank has written and read all of a group
//!   fetched  this rank has copied everything of a step; the others may write their parts again

const std = @import("std");
const drivers = @import("../nvidia/driver.zig");
const cudas = @import("../backend/cuda.zig");
const Communicator = @import("../transport/nccl.zig").Communicator;
const Cuda = cudas.Cuda;
const backends = @import("../backend.zig");
const exchanges = @import("exchange.zig");
const Exchange = exchanges.Exchange;
const Kind = exchanges.Kind;
const rank_count_max = @import("layout.zig").rank_count_max;

/// Small copies are bound by their number, large ones by the wire: SDXL's 155 slots in ten groups
/// leave a tenth of the bytes to the end of the step.
pub const group_slot_count = 16;
const group_count_max = std.math.divCeil(usize, exchanges.slot_count_max, group_slot_count) catch
    unreachable;
/// A rank is at most one slot ahead of another that still waits for its mark.
const posted_count = 4;

const kinds = std.enums.values(Kind);
const Offsets = std.EnumArray(Kind, [exchanges.slot_count_max + 1]u64);
const Bases = std.EnumArray(Kind, usize);

comptime {
    std.debug.assert(2 * Events.count <= cudas.event_count_max);
}

/// Which of the marks of `Cuda.events` are an exchange's.
pub const Events = struct {
    first: usize,

    pub const count = group_count_max + posted_count + 1;

    fn passed(marks: Events, group: usize) usize {
        return marks.first + group;
    }
    fn posted(marks: Events, slot: u32) usize {
        return marks.first + group_count_max + slot % posted_count;
    }
    fn fetched(marks: Events) usize {
        return marks.first + group_count_max + posted_count;
    }
};

pub const DeviceBuffers = struct {
    /// Null while planning, and where nobody else runs: then the others' parts stay zeros.
    cuda: ?*Cuda = null,
    marks: Events,
    slot_count: u32 = 0,
    /// Where each slot's own part begins among those of its kind.
    offsets: Offsets = undefined,
    own: Bases = undefined,
    /// Of this patch's parts one step ago, and two; for statistics and halo rows.
    own_old: Bases = undefined,
    own_older: Bases = undefined,
    /// Of the other patches: the newest fetched parts, and halo rows one step before them.
    theirs: [rank_count_max]Bases = undefined,
    theirs_older: [rank_count_max]Bases = undefined,
    /// The slot whose fresh parts have been fetched last, and the next group to pass.
    fresh_slot: ?u32 = null,
    group_next: u32 = 0,

    /// Makes room; all addresses follow from the slots and the arena.
    pub fn open(m: *DeviceBuffers, exchange: *Exchange) backends.Error!void {
        m.slot_count = @intCast(exchange.slots.len);
        var ends: std.EnumArray(Kind, u64) = .initFill(0);
        for (exchange.slots, 0..) |slot, i| {
            for (kinds) |kind| m.offsets.getPtr(kind)[i] = ends.get(kind);
            ends.getPtr(slot.kind).* += slot.byteCount();
        }
        for (kinds) |kind| m.offsets.getPtr(kind)[m.slot_count] = ends.get(kind);
        var places = m.placeList(exchange);
        while (places.next()) |part| {
            part.address.* = try exchange.b.scratch.alloc(part.bytes);
            if (m.cuda == null) try exchange.b.zero(part.address.*, part.bytes);
            exchange.counted.buffer_bytes += part.bytes;
        }
    }

    /// What comes to this memory next must not meet the last copies from it and to it.
    pub fn close(m: *DeviceBuffers, exchange: *Exchange) void {
        if (m.cuda) |cuda| m.waitForFetches(exchange, cuda) catch {};
        var places = m.placeList(exchange);
        while (places.next()) |part| exchange.b.scratch.free(part.address.*);
    }

    /// What may not be written before all have fetched the step before.
    pub fn beginStep(m: *DeviceBuffers, exchange: *Exchange) exchanges.Error!void {
        m.group_next = 0;
        m.fresh_slot = null;
        const cuda = m.cuda orelse return;
        const is_now = try cuda.graphs.endSegment(cuda);
        if (is_now and exchange.step_index > 0) try m.waitForFetches(exchange, cuda);
        try cuda.graphs.beginSegment(cuda);
    }

    pub fn endStep(m: *DeviceBuffers, exchange: *Exchange) exchanges.Error!void {
        try m.passGroups(exchange, m.slot_count);
        const cuda = m.cuda orelse return;
        if (!try cuda.graphs.endSegment(cuda)) return cuda.graphs.beginSegment(cuda);
        try cuda.record(m.marks.fetched(), cuda.exchange_stream);
        try cuda.graphs.beginSegment(cuda);
    }

    /// This patch's part of a slot, to be written.
    pub fn place(m: *DeviceBuffers, exchange: *Exchange, slot: u32) exchanges.Error!usize {
        try m.passGroups(exchange, slot);
        return m.addressOf(exchange, slot, exchange.index, .now);
    }

    /// Brings the other patches' parts of this step for a slot that has just been written.
    pub fn fetchFresh(m: *DeviceBuffers, exchange: *Exchange, slot: u32) exchanges.Error!void {
        const cuda = m.cuda orelse return;
        if (m.fresh_slot == slot) return;
        m.fresh_slot = slot;
        if (!try cuda.graphs.endSegment(cuda)) return cuda.graphs.beginSegment(cuda);
        try cuda.record(m.marks.posted(slot), cuda.stream);
        try exchange.transport.post(m.countAt(exchange, slot, false));
        const only = std.EnumSet(Kind).initOne(exchange.slots[slot].kind);
        try m.keepOld(exchange, only, slot, slot + 1, cuda.stream);
        try m.fetch(exchange, only, slot, slot + 1, .{
            .stream = cuda.stream,
            .mark = .{ .posted = slot },
            .count = m.countAt(exchange, slot, false),
        });
        try cuda.graphs.beginSegment(cuda);
    }

    /// `i` is a patch; now: of this step, old: of the step before.
    pub fn addressOf(
        m: *const DeviceBuffers,
        exchange: *const Exchange,
        slot: u32,
        i: usize,
        age: exchanges.Age,
    ) usize {
        const kind = exchange.slots[slot].kind;
        const offset: usize = @intCast(m.offsets.getPtrConst(kind)[slot]);
        if (i == exchange.index) {
            const base = switch (age) {
                .now => m.own,
                .old => m.own_old,
                .older => m.own_older,
            };
            return base.get(kind) + offset;
        }
        const bases = if (age == .older) &m.theirs_older[i] else &m.theirs[i];
        return bases.get(kind) + @as(usize, @intCast(exchange.scaledTo(i, kind, offset)));
    }

    /// Whether this pass only captures: nothing comes from other ranks.
    pub fn isTakingDown(m: *const DeviceBuffers) bool {
        return if (m.cuda) |cuda| cuda.graphs.pass == .capture else false;
    }

    // --- internal ---

    fn waitForFetches(_: *DeviceBuffers, exchange: *Exchange, cuda: *Cuda) exchanges.Error!void {
        for (0..exchange.patches.len) |i| {
            // What was sent is this rank's own again. And no rank waits for another's thread then:
            // its mark may already be that of the step to come, which waits for this rank.
            if (cuda.communicator != null and i != exchange.index) continue;
            const peer = exchange.peers[exchange.rank_first + i].device_buffers.?;
            const mark = peer.marks.fetched();
            if (peer.cuda.?.events[mark] == null) continue;
            try cuda.waitFor(cuda.stream, peer.cuda.?, mark);
        }
    }

    const Place = struct { address: *usize, bytes: usize };

    /// Walks everything that has memory: which, of which kind, of which patch.
    const PlaceList = struct {
        m: *DeviceBuffers,
        exchange: *const Exchange,
        kind_index: usize = 0,
        part: usize = 0,

        fn next(list: *PlaceList) ?Place {
            const per_kind = 3 + 2 * list.exchange.patches.len;
            while (list.kind_index < kinds.len) {
                const kind = kinds[list.kind_index];
                const part = list.part;
                list.part += 1;
                if (list.part == per_kind) {
                    list.part = 0;
                    list.kind_index += 1;
                }
                if (list.m.placeOf(list.exchange, kind, part)) |place_| return place_;
            }
            return null;
        }
    };

    fn placeList(m: *DeviceBuffers, exchange: *const Exchange) PlaceList {
        return .{ .m = m, .exchange = exchange };
    }

    fn placeOf(m: *DeviceBuffers, exchange: *const Exchange, kind: Kind, part: usize) ?Place {
        const bytes = m.offsets.getPtrConst(kind)[m.slot_count];
        if (bytes == 0) return null;
        const own_bytes: usize = @intCast(bytes);
        switch (part) {
            0 => return .{ .address = m.own.getPtr(kind), .bytes = own_bytes },
            1 => {
                if (!m.keepsOwn(exchange, kind)) return null;
                return .{ .address = m.own_old.getPtr(kind), .bytes = own_bytes };
            },
            2 => {
                if (!m.keepsOlder(exchange, kind)) return null;
                return .{ .address = m.own_older.getPtr(kind), .bytes = own_bytes };
            },
            else => {},
        }
        const i = (part - 3) / 2;
        if (!exchange.reads(kind, i)) return null;
        const their_bytes: usize = @intCast(exchange.scaledTo(i, kind, bytes));
        if ((part - 3) % 2 == 0) {
            return .{ .address = m.theirs[i].getPtr(kind), .bytes = their_bytes };
        }
        if (!m.keepsOlder(exchange, kind)) return null;
        return .{ .address = m.theirs_older[i].getPtr(kind), .bytes = their_bytes };
    }

    /// Whether this patch's own old parts are read.
    fn keepsOwn(_: *const DeviceBuffers, exchange: *const Exchange, kind: Kind) bool {
        return switch (kind) {
            .statistics => exchange.mode == .corrected_async_gn,
            .halo_rows => exchange.extrapolates_halos,
            .keys_values => false,
        };
    }

    fn keepsOlder(_: *const DeviceBuffers, exchange: *const Exchange, kind: Kind) bool {
        return kind == .halo_rows and exchange.extrapolates_halos;
    }

    /// Every group that ends at or before `slot` has been written and read.
    fn passGroups(m: *DeviceBuffers, exchange: *Exchange, slot: u32) exchanges.Error!void {
        const cuda = m.cuda orelse return;
        while (m.group_next * group_slot_count < m.slot_count) {
            const first = m.group_next * group_slot_count;
            const end = @min(first + group_slot_count, m.slot_count);
            if (end > slot) return;
            const group = m.group_next;
            m.group_next += 1;
            const old = exchange.kindsReadOld();
            const is_needed = old.count() > 0 or end == m.slot_count;
            if (!is_needed) continue;
            if (!try cuda.graphs.endSegment(cuda)) {
                try cuda.graphs.beginSegment(cuda);
                continue;
            }
            try cuda.record(m.marks.passed(group), cuda.stream);
            const count = m.countAt(exchange, end - 1, true);
            try exchange.transport.post(count);
            const stream = cuda.exchange_stream;
            try cuda.waitFor(stream, cuda, m.marks.passed(group));
            try m.keepOld(exchange, old, first, end, stream);
            try m.fetch(exchange, old, first, end, .{
                .stream = stream,
                .mark = .{ .passed = group },
                .count = count,
            });
            try cuda.graphs.beginSegment(cuda);
        }
    }

    /// A slot has two signals: when it is written, and when it ends a group.
    fn countAt(_: *const DeviceBuffers, exchange: *const Exchange, slot: u32, is_end: bool) u64 {
        return exchange.sequence.at(exchange.step_index, slot) + @intFromBool(is_end);
    }

    /// Moves what was new one step on, before newer parts come.
    fn keepOld(
        m: *DeviceBuffers,
        exchange: *Exchange,
        which: std.EnumSet(Kind),
        first: u32,
        end: u32,
        stream: drivers.Stream,
    ) exchanges.Error!void {
        for (kinds) |kind| {
            if (!which.contains(kind)) continue;
            const begin = m.offsets.getPtrConst(kind)[first];
            const bytes = m.offsets.getPtrConst(kind)[end] - begin;
            const run: Run = .{ .offset = @intCast(begin), .bytes = @intCast(bytes) };
            if (m.keepsOlder(exchange, kind)) {
                try m.copy(m.own_older.get(kind), m.own_old.get(kind), run, stream);
                for (0..exchange.patches.len) |i| {
                    if (!exchange.reads(kind, i)) continue;
                    const their_run = run.scaled(exchange, i, kind);
                    const newer = m.theirs[i].get(kind);
                    try m.copy(m.theirs_older[i].get(kind), newer, their_run, stream);
                }
            }
            if (m.keepsOwn(exchange, kind)) {
                try m.copy(m.own_old.get(kind), m.own.get(kind), run, stream);
            }
        }
    }

    const Run = struct {
        offset: usize,
        bytes: usize,

        fn scaled(run: Run, exchange: *const Exchange, i: usize, kind: Kind) Run {
            return .{
                .offset = @intCast(exchange.scaledTo(i, kind, run.offset)),
                .bytes = @intCast(exchange.scaledTo(i, kind, run.bytes)),
            };
        }
    };

    fn copy(m: *DeviceBuffers, to: usize, from: usize, run: Run, stream: drivers.Stream) !void {
        if (run.bytes == 0) return;
        const cuda = m.cuda.?;
        const d = cuda.driver;
        const target = to + run.offset;
        const result = d.cuMemcpyDtoDAsync_v2(target, from + run.offset, run.bytes, stream);
        try cuda.check(.cuMemcpyDtoDAsync_v2, result, "keeping the last step's parts");
    }

    const Fetch = struct {
        stream: drivers.Stream,
        /// What the other rank must have come to.
        mark: union(enum) { posted: u32, passed: u32 },
        /// And its thread.
        count: u64,
    };

    /// The other patches' parts of the slots [first, end), of the kinds `which`.
    fn fetch(
        m: *DeviceBuffers,
        exchange: *Exchange,
        which: std.EnumSet(Kind),
        first: u32,
        end: u32,
        o: Fetch,
    ) exchanges.Error!void {
        const cuda = m.cuda.?;
        if (cuda.communicator) |communicator| {
            const messages = try cuda.messagesOn(communicator, o.stream);
            return m.swap(exchange, messages, which, first, end, o.stream);
        }
        for (0..exchange.patches.len) |i| {
            const rank: u32 = @intCast(exchange.rank_first + i);
            const peer = exchange.peers[rank].device_buffers.?;
            var is_waiting = false;
            for (kinds) |kind| {
                if (!which.contains(kind) or !exchange.reads(kind, i)) continue;
                const begin = m.offsets.getPtrConst(kind)[first];
                const bytes = m.offsets.getPtrConst(kind)[end] - begin;
                if (bytes == 0) continue;
                if (!is_waiting) {
                    is_waiting = true;
                    try exchange.wait(rank, o.count);
                    const mark = switch (o.mark) {
                        .posted => |slot| peer.marks.posted(slot),
                        .passed => |group| peer.marks.passed(group),
                    };
                    try cuda.waitFor(o.stream, peer.cuda.?, mark);
                }
                const run: Run = .{ .offset = @intCast(begin), .bytes = @intCast(bytes) };
                const theirs = run.scaled(exchange, i, kind);
                const result = cuda.driver.cuMemcpyPeerAsync(
                    m.theirs[i].get(kind) + theirs.offset,
                    cuda.context,
                    peer.own.get(kind) + theirs.offset,
                    peer.cuda.?.context,
                    theirs.bytes,
                    o.stream,
                );
                try cuda.check(.cuMemcpyPeerAsync, result, "fetching another patch's part");
            }
        }
    }

    /// As `fetch`, by messages: who reads a patch's parts is read by it.
    fn swap(
        m: *DeviceBuffers,
        exchange: *Exchange,
        communicator: Communicator,
        which: std.EnumSet(Kind),
        first: u32,
        end: u32,
        stream: drivers.Stream,
    ) exchanges.Error!void {
        try communicator.begin();
        for (0..exchange.patches.len) |i| {
            const rank: u32 = @intCast(exchange.rank_first + i);
            for (kinds) |kind| {
                if (!which.contains(kind) or !exchange.reads(kind, i)) continue;
                const begin = m.offsets.getPtrConst(kind)[first];
                const bytes = m.offsets.getPtrConst(kind)[end] - begin;
                if (bytes == 0) continue;
                const run: Run = .{ .offset = @intCast(begin), .bytes = @intCast(bytes) };
                const theirs = run.scaled(exchange, i, kind);
                const mine = m.own.get(kind) + run.offset;
                const target = m.theirs[i].get(kind) + theirs.offset;
                try communicator.send(mine, run.bytes, rank, stream);
                try communicator.receive(target, theirs.bytes, rank, stream);
            }
        }
        try communicator.end();
    }
};
