//! When the shards of an exchange travel, on GPUs. Fresh values are swapped slot by slot in the
//! compute stream. Stale values are swapped in groups of slots beside the computation: a group
//! travels as soon as this rank has written all its slots and read what it needs of them. Groups
//! end where the deep slots begin and end, since deep ones travel on a stream of their own. Fresh
//! statistics stay where they are if the other ranks can read them there: a swap then only waits
//! for them, and they travel with their group for the step after.
//! On the CPU, where ranks read each other's memory in place, nothing travels.

const std = @import("std");
const changes = @import("changes.zig");
const exchanges = @import("exchange.zig");
const Exchange = exchanges.Exchange;
const Kind = exchanges.Kind;
const transports = @import("../transport.zig");
const group_slot_count = transports.group_slot_count;
const Swap = transports.Swap;

/// Reset at the start of each step.
pub const SlotSwaps = struct {
    /// The first slot of which nothing was swapped with its group.
    next: u32 = 0,
    /// The slot whose fresh shards were swapped last.
    slot_last: ?u32 = null,

    /// Starts the transfer of every complete group of slots before `slot`.
    pub fn swapCompleteGroups(
        swaps: *SlotSwaps,
        exchange: *const Exchange,
        slot: u32,
    ) exchanges.Error!void {
        if (!exchange.transport.copiesShards()) return;
        while (groupEnd(swaps.next) <= slot) {
            try swaps.swapTo(exchange, groupEnd(swaps.next));
        }
    }

    /// Swaps what is left before `slot`, where the outer slots or the deep ones end.
    pub fn swapRest(
        swaps: *SlotSwaps,
        exchange: *const Exchange,
        slot: u32,
    ) exchanges.Error!void {
        if (!exchange.transport.copiesShards()) return;
        while (swaps.next < slot) {
            try swaps.swapTo(exchange, @min(groupEnd(swaps.next), slot));
        }
    }

    /// Swaps what there is before the slots [first, end), which this step leaves out.
    pub fn skip(
        swaps: *SlotSwaps,
        exchange: *const Exchange,
        first: u32,
        end: u32,
    ) exchanges.Error!void {
        try swaps.swapRest(exchange, first);
        swaps.next = end;
    }

    /// Swaps the shards of a slot that has just been written, once, however many are read.
    pub fn swapFresh(
        swaps: *SlotSwaps,
        exchange: *const Exchange,
        slot: u32,
    ) exchanges.Error!void {
        if (!exchange.transport.copiesShards()) return;
        if (swaps.slot_last == slot) return;
        swaps.slot_last = slot;
        const kind = changes.sentKind(exchange, exchange.slots[slot].kind);
        try run(exchange, .initOne(kind), slot, slot + 1, .slot_written);
    }

    // --- internal ---

    fn groupEnd(slot: u32) u32 {
        return (slot / group_slot_count + 1) * group_slot_count;
    }

    fn swapTo(swaps: *SlotSwaps, exchange: *const Exchange, end: u32) exchanges.Error!void {
        const first = swaps.next;
        swaps.next = end;
        const kinds = exchange.groupedKinds();
        // The last group orders the end of the step after the computation in any case.
        if (kinds.count() == 0 and end < exchange.slots.len) return;
        try run(exchange, kinds, first, end, .group_complete);
    }
};

// --- internal ---

fn run(
    exchange: *const Exchange,
    which: std.EnumSet(Kind),
    first: u32,
    end: u32,
    what: transports.Position.What,
) exchanges.Error!void {
    var swap: Swap = .{
        .channel = exchange.channel,
        .position = exchange.positionOf(exchange.step_index, end - 1, what),
    };
    exchange.device_buffers.?.fillSwap(exchange, which, first, end, &swap);
    try exchange.transport.swap(&swap);
}
