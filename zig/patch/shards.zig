//! The shards of slots: where a patch writes its own, and where it reads those of the others, as
//! fresh as the mode demands. On the CPU each rank has buffers of its own that the others read in
//! place; on GPUs the addresses are those of `device_buffers.zig`.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const changes = @import("changes.zig");
const DType = @import("../tensor.zig").DType;
const exchanges = @import("exchange.zig");
const Age = exchanges.Age;
const Error = exchanges.Error;
const Exchange = exchanges.Exchange;
const modes = @import("sync_mode.zig");
const Kind = modes.Kind;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

/// On the CPU: this rank's buffers of all slots, but for those that travel as changes.
pub fn open(exchange: *Exchange, arena: Allocator) backend.Error!void {
    for (&exchange.buffers) |*list| list.* = try arena.alloc(Tensor, exchange.slots.len);
    for (exchange.slots, 0..) |slot, i| {
        if (changes.formatOf(exchange, slot) != null) continue;
        for (exchange.buffers[0..bufferCount(exchange, slot.kind)]) |buffers| {
            buffers[i] = try exchange.b.alloc(slot.shape, slot.dtype);
            exchange.counters.buffer_bytes += buffers[i].byteCount();
        }
    }
}

pub fn close(exchange: *Exchange) void {
    for (exchange.slots, 0..) |slot, i| {
        if (changes.formatOf(exchange, slot) != null) continue;
        for (exchange.buffers[0..bufferCount(exchange, slot.kind)]) |buffers| {
            exchange.b.free(buffers[i]);
        }
    }
}

/// Memory for this patch's shard of the next slot.
pub fn place(exchange: *Exchange, kind: Kind, shape: Shape, dtype: DType) Error!Tensor {
    const slot = exchange.slot_next;
    if (exchange.recorder) |recorder| {
        try recorder.add(slot, .{ .kind = kind, .shape = shape, .dtype = dtype });
        return .{ .address = @sizeOf(f64), .shape = shape, .dtype = dtype };
    }
    assert(exchange.slots[slot].kind == kind and exchange.slots[slot].shape.eql(shape));
    const buffers = exchange.device_buffers orelse {
        return written(exchange, slot, exchange.index, .now);
    };
    const address = buffers.addressOf(exchange, slot, exchange.index, .now);
    return .{ .address = address, .shape = shape, .dtype = dtype };
}

/// The shard that was placed last is complete; returns its slot. Where shards are copied, the swap
/// signals.
pub fn signal(exchange: *Exchange) Error!u32 {
    const slot = exchange.slot_next;
    exchange.slot_next += 1;
    if (exchange.recorder == null and exchange.device_buffers == null) {
        const position = exchange.positionOf(exchange.step_index, slot, .slot_written);
        try exchange.transport.signal(exchange.channel, position);
    }
    return slot;
}

/// On the CPU: returns when patch `i` has written a slot of a step.
pub fn waitFor(exchange: *const Exchange, slot: u32, i: u32, step_index: u32) Error!void {
    const position = exchange.positionOf(step_index, slot, .slot_written);
    const rank = exchange.rank_first + i;
    try exchange.transport.waitFor(exchange.channel, rank, position);
}

/// Patch `i`'s shard of `slot`, as fresh as the mode demands.
pub fn read(exchange: *Exchange, slot: u32, i: u32) Error!Tensor {
    if (exchange.peers.len == 0) return unread(exchange, slot, i);
    const own = exchange.slots[slot];
    const shape = exchange.shapeOf(own.shape, own.kind, i);
    const freshness = exchange.freshnessOf(own.kind);
    const shard = if (exchange.device_buffers != null)
        try readReceived(exchange, slot, i, freshness)
    else
        try readInPlace(exchange, slot, i, freshness);
    assert(shard.shape.eql(shape));
    // no_sync reads the last synchronous values again; their bytes were counted in that step.
    const is_new = freshness != .last_synchronous;
    if (i != exchange.index and is_new) exchange.countReceived(own.kind, shard.byteCount());
    return shard;
}

/// Stands for patch `i`'s shard while planning.
pub fn unread(exchange: *const Exchange, slot: u32, i: u32) Tensor {
    const own = if (exchange.recorder) |r| r.list.items[slot] else exchange.slots[slot];
    const shape = exchange.shapeOf(own.shape, own.kind, i);
    return .{ .address = @sizeOf(f64), .shape = shape, .dtype = own.dtype };
}

/// Patch `i`'s shard of this step or of an earlier one. The caller knows that it has arrived.
pub fn arrived(exchange: *const Exchange, slot: u32, i: u32, age: Age) Tensor {
    const device_buffers = exchange.device_buffers orelse {
        return written(exchange, slot, i, age);
    };
    const own = exchange.slots[slot];
    return .{
        .address = device_buffers.addressOf(exchange, slot, i, age),
        .shape = exchange.shapeOf(own.shape, own.kind, i),
        .dtype = own.dtype,
    };
}

// --- internal ---

/// On GPUs: what has arrived, or for fresh statistics what the other rank has in its memory.
fn readReceived(exchange: *Exchange, slot: u32, i: u32, freshness: modes.Freshness) Error!Tensor {
    if (freshness != .fresh) return arrived(exchange, slot, i, .old);
    try exchange.swaps.swapFresh(exchange, slot);
    var shard = arrived(exchange, slot, i, .now);
    if (i != exchange.index and exchange.readsFreshThere(exchange.slots[slot].kind)) {
        shard.address = exchange.device_buffers.?.remoteAddressOf(exchange, slot, i);
    }
    return shard;
}

fn readInPlace(exchange: *Exchange, slot: u32, i: u32, freshness: modes.Freshness) Error!Tensor {
    const steps = exchange.history();
    const step_index = switch (freshness) {
        .fresh => exchange.step_index,
        .one_step_old => steps.stepOf(1),
        .last_synchronous => steps.last_synchronous,
        .own => unreachable,
    };
    const age: Age = if (freshness == .fresh) .now else .old;
    try waitFor(exchange, slot, i, step_index);
    return written(exchange, slot, i, age);
}

/// On the CPU: what patch `i`'s rank, perhaps this one, wrote for a slot.
fn written(exchange: *const Exchange, slot: u32, i: u32, age: Age) Tensor {
    const kind = exchange.slots[slot].kind;
    const own = i == exchange.index;
    const peer = if (own) exchange else &exchange.peers[exchange.rank_first + i];
    return peer.buffers[bufferOf(exchange, kind, age)][slot];
}

fn bufferCount(exchange: *const Exchange, kind: Kind) usize {
    if (!exchange.mode.readsOldValues()) return 1;
    return if (kind == .halo_rows and exchange.extrapolates_halos) 3 else 2;
}

/// The buffer that was written `age` steps ago, among those of this part. Steps that read the last
/// synchronous values keep those.
fn bufferOf(exchange: *const Exchange, kind: Kind, age: Age) usize {
    const steps = exchange.history();
    const turn = if (exchange.mode == .no_sync)
        @min(steps.count - 1, steps.synchronous_count)
    else
        steps.count - 1;
    return (turn - @intFromEnum(age)) % bufferCount(exchange, kind);
}
