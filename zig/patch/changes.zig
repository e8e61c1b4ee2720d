//! Keys and values that travel as changes in few bits (`--compress-exchange`). Of each slot a rank
//! keeps its own keys and values as the others know them, and those of the others: its views. The
//! first step sends them whole; afterwards a rank sends the change from what the others know to
//! what is so, adds it to its own view as they will, and what the bits have lost is part of the
//! next change.
//!
//! On the CPU the others read a rank's changes in its memory, which has two buffers of them in
//! turn; on GPUs changes travel as other shards do (`device_buffers.zig`). A stale step adds the
//! changes of the step before when it reads them, a synchronous one those of its own.

const std = @import("std");
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const exchanges = @import("exchange.zig");
const Error = exchanges.Error;
const Exchange = exchanges.Exchange;
const Kind = @import("sync_mode.zig").Kind;
const Shape = @import("../tensor.zig").Shape;
const shards = @import("shards.zig");
const Slot = @import("slots.zig").Slot;
const StepHistory = @import("step_history.zig").StepHistory;
const Tensor = @import("../tensor.zig").Tensor;

/// Of `Exchange.buffers` on the CPU.
const view_buffer = 0;
const change_buffers = [_]usize{ 1, 2 };

/// On the CPU: the views and changes of each slot.
pub fn open(exchange: *Exchange, arena: Allocator) backend.Error!void {
    const b = exchange.b;
    for (0..exchange.patches.len) |i| {
        if (i != exchange.index) exchange.views[i] = try arena.alloc(Tensor, exchange.slots.len);
    }
    for (exchange.slots, 0..) |slot, at| {
        const format = formatOf(exchange, slot) orelse continue;
        for (change_buffers) |buffer| {
            const shape = shapeOf(slot.shape, format);
            exchange.buffers[buffer][at] = try b.alloc(shape, .u8);
            exchange.counters.buffer_bytes += shape.elementCount();
        }
        for (0..exchange.patches.len) |i| {
            const shape = exchange.shapeOf(slot.shape, slot.kind, @intCast(i));
            const view = try b.alloc(shape, slot.dtype);
            viewIn(exchange, at, i).* = view;
            exchange.counters.buffer_bytes += view.byteCount();
        }
    }
}

pub fn close(exchange: *Exchange) void {
    for (exchange.slots, 0..) |slot, at| {
        if (formatOf(exchange, slot) == null) continue;
        for (change_buffers) |buffer| exchange.b.free(exchange.buffers[buffer][at]);
        for (0..exchange.patches.len) |i| exchange.b.free(viewIn(exchange, at, i).*);
    }
}

/// Writes what the others will read of this patch's keys and values, `mine`; then the slot is
/// signalled.
pub fn send(exchange: *Exchange, slot: u32, mine: Tensor) Error!void {
    if (exchange.recorder != null) return;
    const own = exchange.index;
    switch (sent(exchange, exchange.history())) {
        .plain => unreachable,
        .nothing => {},
        .whole => try exchange.b.copy(viewOf(exchange, slot, own), mine),
        .int8, .int4 => try exchange.b.quantizeChange(changeOf(exchange, slot, own, .now), mine),
    }
}

/// The keys and values of another patch, as this rank knows them with all that it has received.
pub fn receive(exchange: *Exchange, slot: u32, i: u32) Error!Tensor {
    if (exchange.peers.len == 0) return shards.unread(exchange, slot, i);
    const view = viewOf(exchange, slot, i);
    const freshness = exchange.freshnessOf(.keys_values);
    switch (sent(exchange, exchange.history())) {
        .plain => unreachable,
        .nothing => {},
        .whole => {
            try awaitShard(exchange, slot, i, exchange.step_index);
            if (exchange.device_buffers == null) {
                const peer = &exchange.peers[exchange.rank_first + i];
                try exchange.b.copy(view, peer.buffers[view_buffer][slot]);
            }
            exchange.countReceived(.keys_values, view.byteCount());
        },
        .int8, .int4 => {
            const is_fresh = freshness == .fresh;
            if (is_fresh) try awaitShard(exchange, slot, i, exchange.step_index);
            const change = changeOf(exchange, slot, i, if (is_fresh) .now else .old);
            if (applies(exchange, exchange.history())) {
                if (!is_fresh) try awaitShard(exchange, slot, i, exchange.history().stepOf(1));
                try exchange.b.applyChange(change);
            }
            exchange.countReceived(.changes, change.change.byteCount());
        },
    }
    return view;
}

/// The format of a slot's changes; null where it is sent whole.
pub fn formatOf(exchange: *const Exchange, slot: Slot) ?backend.ChangeFormat {
    if (exchange.compression == .none or slot.kind != .keys_values) return null;
    return .of(exchange.compression.bits(), slot.shape.channels);
}

pub fn shapeOf(shape: Shape, format: backend.ChangeFormat) Shape {
    return shape.withChannels(format.rowBytes(shape.channels));
}

/// What travels for slots of a kind in this step. The first step has both parts of the network, so
/// all slots of a group are alike.
pub fn sentKind(exchange: *const Exchange, kind: Kind) Kind {
    if (kind != .keys_values) return kind;
    return switch (sent(exchange, &exchange.outer)) {
        .plain, .whole, .nothing => kind,
        .int8, .int4 => .changes,
    };
}

/// Of a CUDA graph's key, for the part that `steps` computed.
pub fn variant(exchange: *const Exchange, steps: *const StepHistory) u32 {
    return 2 * @intFromEnum(sent(exchange, steps)) + @intFromBool(applies(exchange, steps));
}

// --- internal ---

/// How a patch's keys and values are sent in a step.
const Sent = enum(u32) { plain = 0, whole = 1, int8 = 2, int4 = 3, nothing = 4 };

/// How this patch's keys and values are sent in a step, of the part that `steps` computed.
fn sent(exchange: *const Exchange, steps: *const StepHistory) Sent {
    if (exchange.compression == .none) return .plain;
    if (steps.count <= 1) return .whole;
    if (exchange.freshnessOf(.keys_values) == .last_synchronous) return .nothing;
    return if (exchange.compression == .int8) .int8 else .int4;
}

/// Whether changes are added before keys and values are read: those of this step where it is
/// synchronous, else those of the step before, which a synchronous one has added itself.
fn applies(exchange: *const Exchange, steps: *const StepHistory) bool {
    switch (sent(exchange, steps)) {
        .plain, .whole, .nothing => return false,
        .int8, .int4 => {},
    }
    return exchange.isSynchronous() or steps.synchronous_count + 1 < steps.count;
}

/// Returns when what patch `i` has written for `slot` in a step is here. Stale shards on GPUs are:
/// the step has begun after their arrival.
fn awaitShard(exchange: *Exchange, slot: u32, i: u32, step_index: u32) Error!void {
    if (exchange.device_buffers == null) return shards.waitFor(exchange, slot, i, step_index);
    if (step_index == exchange.step_index) try exchange.swaps.swapFresh(exchange, slot);
}

/// On the CPU.
fn viewIn(exchange: *Exchange, slot: usize, i: usize) *Tensor {
    if (i == exchange.index) return &exchange.buffers[view_buffer][slot];
    return &exchange.views[i][slot];
}

/// Patch `i`'s keys and values as this rank knows them, or where `i` is its own, as the others do.
fn viewOf(exchange: *Exchange, slot: u32, i: u32) Tensor {
    const device_buffers = exchange.device_buffers orelse {
        return viewIn(exchange, slot, i).*;
    };
    const own = exchange.slots[slot];
    return .{
        .address = device_buffers.addressOf(exchange, slot, i, .now),
        .shape = exchange.shapeOf(own.shape, own.kind, i),
        .dtype = own.dtype,
    };
}

fn changeOf(exchange: *Exchange, slot: u32, i: u32, age: exchanges.Age) backend.Change {
    const view = viewOf(exchange, slot, i);
    const format = formatOf(exchange, exchange.slots[slot]).?;
    const address = if (exchange.device_buffers) |device_buffers|
        device_buffers.addressOfKind(exchange, slot, .changes, i, .now)
    else at: {
        const peer = if (i == exchange.index)
            exchange
        else
            &exchange.peers[exchange.rank_first + i];
        const turn = exchange.history().count - @intFromEnum(age);
        break :at peer.buffers[change_buffers[turn % 2]][slot].address;
    };
    const shape = shapeOf(view.shape, format);
    return .{
        .change = .{ .address = address, .shape = shape, .dtype = .u8 },
        .view = view,
        .format = format,
    };
}
