//! Device memory of an exchange on GPUs: this rank's own shards, and receive buffers for the shards
//! of the other patches, since a kernel that read another GPU's memory again and again would wait
//! for it. DistriFusion calls this buffer_list. Here are addresses only; `slot_swaps.zig` decides
//! when shards travel, and the transport moves them.
//!
//! Slots of a kind lie side by side, so that a run of slots is one transfer.

const std = @import("std");
const backend = @import("../backend.zig");
const changes = @import("changes.zig");
const exchanges = @import("exchange.zig");
const Exchange = exchanges.Exchange;
const Kind = exchanges.Kind;
const transports = @import("../transport.zig");
const rank_count_max = transports.rank_count_max;
const Swap = transports.Swap;

const kinds = std.enums.values(Kind);
const Offsets = std.EnumArray(Kind, [transports.slot_count_max + 1]u64);
const Bases = std.EnumArray(Kind, usize);

pub const DeviceBuffers = struct {
    slot_count: u32 = 0,
    /// Where each slot's own shard begins among those of its kind.
    offsets: Offsets = undefined,
    own: Bases = .initFill(0),
    /// This patch's own shards one and two steps ago: statistics and halo rows.
    own_old: Bases = undefined,
    own_older: Bases = undefined,
    /// The other patches' shards that arrived last, and halo rows one step before them.
    theirs: [rank_count_max]Bases = undefined,
    theirs_older: [rank_count_max]Bases = undefined,

    /// Allocates the buffers of all slots; the addresses depend on the slots and the arena alone.
    pub fn open(m: *DeviceBuffers, exchange: *Exchange) backend.Error!void {
        m.slot_count = @intCast(exchange.slots.len);
        var ends: std.EnumArray(Kind, u64) = .initFill(0);
        for (exchange.slots, 0..) |slot, i| {
            for (kinds) |kind| m.offsets.getPtr(kind)[i] = ends.get(kind);
            ends.getPtr(slot.kind).* += slot.byteCount();
            if (slot.kind == .keys_values) if (changes.formatOf(exchange, slot)) |format| {
                ends.getPtr(.changes).* += changes.shapeOf(slot.shape, format).elementCount();
            };
        }
        for (kinds) |kind| m.offsets.getPtr(kind)[m.slot_count] = ends.get(kind);
        var buffers = m.bufferList(exchange);
        while (buffers.next()) |buffer| {
            buffer.address.* = try exchange.b.scratch.alloc(buffer.bytes);
            // Nothing arrives where no other rank runs: zeros stand for the other shards.
            if (exchange.transport == .none) try exchange.b.zero(buffer.address.*, buffer.bytes);
            exchange.counters.buffer_bytes += buffer.bytes;
        }
    }

    pub fn close(m: *DeviceBuffers, exchange: *Exchange) void {
        var buffers = m.bufferList(exchange);
        while (buffers.next()) |buffer| exchange.b.scratch.free(buffer.address.*);
    }

    /// The shard of patch `i`: of this step, or of one or two steps before.
    pub fn addressOf(
        m: *const DeviceBuffers,
        exchange: *const Exchange,
        slot: u32,
        i: usize,
        age: exchanges.Age,
    ) usize {
        return m.addressOfKind(exchange, slot, exchange.slots[slot].kind, i, age);
    }

    /// As `addressOf`: keys and values, or their changes.
    pub fn addressOfKind(
        m: *const DeviceBuffers,
        exchange: *const Exchange,
        slot: u32,
        kind: Kind,
        i: usize,
        age: exchanges.Age,
    ) usize {
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

    /// Where patch `i` has its own shard, for kinds whose shards are equally large everywhere. All
    /// ranks must have opened their buffers.
    pub fn remoteAddressOf(
        m: *const DeviceBuffers,
        exchange: *const Exchange,
        slot: u32,
        i: usize,
    ) usize {
        const kind = exchange.slots[slot].kind;
        const offset: usize = @intCast(m.offsets.getPtrConst(kind)[slot]);
        return remoteBase(exchange, kind, i).* + offset;
    }

    /// Adds what a swap of the slots [first, end) moves, of the kinds `which`: first copies that
    /// keep older values, then the transfers.
    pub fn fillSwap(
        m: *const DeviceBuffers,
        exchange: *const Exchange,
        which: std.EnumSet(Kind),
        first: u32,
        end: u32,
        swap: *Swap,
    ) void {
        const is_fresh = swap.position.what == .slot_written;
        for (kinds) |kind| {
            if (!which.contains(kind) or (is_fresh and exchange.readsFreshThere(kind))) continue;
            m.addCopies(exchange, kind, m.runOf(kind, first, end), swap);
        }
        for (0..exchange.patches.len) |i| {
            const rank: u32 = @intCast(exchange.rank_first + i);
            for (kinds) |kind| {
                if (!which.contains(kind) or !exchange.reads(kind, i)) continue;
                const mine = m.runOf(kind, first, end);
                const theirs = mine.scaled(exchange, i, kind);
                swap.addTransfer(.{
                    .rank = rank,
                    .send_address = m.own.get(kind) + mine.offset,
                    .send_bytes = mine.bytes,
                    .receive_address = m.theirs[i].get(kind) + theirs.offset,
                    .receive_bytes = theirs.bytes,
                    .remote_base = remoteBase(exchange, kind, i),
                    .remote_offset = theirs.offset,
                    .is_read_there = is_fresh and exchange.readsFreshThere(kind),
                });
            }
        }
    }

    /// Where patch `i`'s own shards of a kind begin, in its memory.
    pub fn remoteBase(exchange: *const Exchange, kind: Kind, i: usize) *const usize {
        const peer = &exchange.peers[exchange.rank_first + i];
        return peer.device_buffers.?.own.getPtrConst(kind);
    }

    // --- internal ---

    const Buffer = struct { address: *usize, bytes: usize };

    /// Iterates over every buffer that this exchange needs.
    const BufferList = struct {
        m: *DeviceBuffers,
        exchange: *const Exchange,
        kind_index: usize = 0,
        index: usize = 0,

        fn next(list: *BufferList) ?Buffer {
            const per_kind = 3 + 2 * list.exchange.patches.len;
            while (list.kind_index < kinds.len) {
                const kind = kinds[list.kind_index];
                const index = list.index;
                list.index += 1;
                if (list.index == per_kind) {
                    list.index = 0;
                    list.kind_index += 1;
                }
                if (list.m.bufferAt(list.exchange, kind, index)) |buffer| return buffer;
            }
            return null;
        }
    };

    fn bufferList(m: *DeviceBuffers, exchange: *const Exchange) BufferList {
        return .{ .m = m, .exchange = exchange };
    }

    fn bufferAt(m: *DeviceBuffers, exchange: *const Exchange, kind: Kind, index: usize) ?Buffer {
        const bytes = m.offsets.getPtrConst(kind)[m.slot_count];
        if (bytes == 0) return null;
        const own_bytes: usize = @intCast(bytes);
        switch (index) {
            0 => return .{ .address = m.own.getPtr(kind), .bytes = own_bytes },
            1 => {
                if (!keepsOwn(exchange, kind)) return null;
                return .{ .address = m.own_old.getPtr(kind), .bytes = own_bytes };
            },
            2 => {
                if (!keepsOlder(exchange, kind)) return null;
                return .{ .address = m.own_older.getPtr(kind), .bytes = own_bytes };
            },
            else => {},
        }
        const i = (index - 3) / 2;
        if (!exchange.reads(kind, i)) return null;
        const their_bytes: usize = @intCast(exchange.scaledTo(i, kind, bytes));
        if ((index - 3) % 2 == 0) {
            return .{ .address = m.theirs[i].getPtr(kind), .bytes = their_bytes };
        }
        if (!keepsOlder(exchange, kind)) return null;
        return .{ .address = m.theirs_older[i].getPtr(kind), .bytes = their_bytes };
    }

    /// Whether this patch's own stale shards are read.
    fn keepsOwn(exchange: *const Exchange, kind: Kind) bool {
        return switch (kind) {
            .statistics => exchange.mode == .corrected_async_gn,
            .halo_rows => exchange.extrapolates_halos,
            .keys_values, .changes => false,
        };
    }

    fn keepsOlder(exchange: *const Exchange, kind: Kind) bool {
        return kind == .halo_rows and exchange.extrapolates_halos;
    }

    /// Bytes of a run of slots, among those of a kind.
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

    fn runOf(m: *const DeviceBuffers, kind: Kind, first: u32, end: u32) Run {
        const begin = m.offsets.getPtrConst(kind)[first];
        const bytes = m.offsets.getPtrConst(kind)[end] - begin;
        return .{ .offset = @intCast(begin), .bytes = @intCast(bytes) };
    }

    /// Newer values become older ones before the next arrive.
    fn addCopies(
        m: *const DeviceBuffers,
        exchange: *const Exchange,
        kind: Kind,
        run: Run,
        swap: *Swap,
    ) void {
        if (keepsOlder(exchange, kind)) {
            addCopy(swap, m.own_older.get(kind), m.own_old.get(kind), run);
            for (0..exchange.patches.len) |i| {
                if (!exchange.reads(kind, i)) continue;
                const newer = m.theirs[i].get(kind);
                const their_run = run.scaled(exchange, i, kind);
                addCopy(swap, m.theirs_older[i].get(kind), newer, their_run);
            }
        }
        if (keepsOwn(exchange, kind)) {
            addCopy(swap, m.own_old.get(kind), m.own.get(kind), run);
        }
    }

    fn addCopy(swap: *Swap, target: usize, source: usize, run: Run) void {
        swap.addCopy(.{
            .target = target + run.offset,
            .source = source + run.offset,
            .bytes = run.bytes,
        });
    }
};
