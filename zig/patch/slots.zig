//! The slots of a network: the places in its graph where patches exchange data, in the order in
//! which the layers run, the same in every step. The plan of an image records them once
//! (session/plan.zig); every exchange of that shape is opened with them.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Kind = @import("sync_mode.zig").Kind;
const Shape = @import("../tensor.zig").Shape;
const DType = @import("../tensor.zig").DType;

/// SDXL has 155 (39 convolutions, 46 group norms, 70 self-attentions).
pub const slot_count_max = 1024;

/// The networks that exchange data between patches, in the order in which an image runs them.
pub const Network = enum { unet, vae };
pub const SlotLists = std.EnumArray(Network, []const Slot);

/// What a rank writes at one place of the graph; the other patches write the same kind there.
pub const Slot = struct {
    kind: Kind,
    shape: Shape,
    dtype: DType,

    pub fn byteCount(slot: Slot) u64 {
        return slot.shape.elementCount() * slot.dtype.size();
    }

    pub fn eql(slot: Slot, other: Slot) bool {
        return slot.kind == other.kind and slot.dtype == other.dtype and
            slot.shape.eql(other.shape);
    }
};

/// Collects the slots that layers ask for while the graph runs over the dry-run device.
pub const Recorder = struct {
    arena: Allocator,
    list: std.ArrayList(Slot) = .empty,

    /// Slot `index` of the step. A second step, or a second image, must ask for the same.
    pub fn add(recorder: *Recorder, index: u32, slot: Slot) Allocator.Error!void {
        assert(index < slot_count_max);
        if (index < recorder.list.items.len) {
            return assert(recorder.list.items[index].eql(slot));
        }
        assert(index == recorder.list.items.len);
        try recorder.list.append(recorder.arena, slot);
    }
};

/// Numbers of the signals that a rank sends for one network. A rank's numbers only grow during a
/// job, so each network gets a range of its own.
pub const Sequence = struct {
    /// Signals before the network's first step.
    first: u64 = 0,
    /// Signals in one step.
    per_step: u64 = 0,
    per_slot: u64 = 1,

    /// The signal "slot is written"; further ones of the slot follow it.
    pub fn at(sequence: Sequence, step_index: u64, slot: u64) u64 {
        assert(slot * sequence.per_slot < sequence.per_step);
        return sequence.first + step_index * sequence.per_step + slot * sequence.per_slot + 1;
    }

    /// Signals up to the end of the network's last step.
    pub fn end(sequence: Sequence, step_count: u64) u64 {
        return sequence.first + step_count * sequence.per_step;
    }
};

pub const Sequences = std.EnumArray(Network, Sequence);

/// The ranges of a rank's networks in a job of `step_count` steps. On GPUs a slot has two signals:
/// one after it is written, one at the end of a group of slots.
pub fn sequences(slots: *const SlotLists, step_count: u64, is_cuda: bool) Sequences {
    const per_slot: u64 = if (is_cuda) 2 else 1;
    var result: Sequences = .initUndefined();
    var first: u64 = 0;
    for (std.enums.values(Network)) |network| {
        const sequence: Sequence = .{
            .first = first,
            .per_step = per_slot * slots.get(network).len,
            .per_slot = per_slot,
        };
        result.set(network, sequence);
        first = sequence.end(if (network == .unet) step_count else 0);
    }
    return result;
}

test "the signals of a job have distinct, growing numbers" {
    const slot: Slot = .{ .kind = .statistics, .shape = .vector(1, 2), .dtype = .f64 };
    const slots: SlotLists = .init(.{ .unet = &.{ slot, slot, slot }, .vae = &.{ slot, slot } });
    const of_cpu = sequences(&slots, 4, false);
    const of_gpu = sequences(&slots, 4, true);
    var last_cpu: u64 = 0;
    var last_gpu: u64 = 0;
    for (std.enums.values(Network), [_]u64{ 4, 2 }) |network, step_count| {
        for (0..step_count) |step| {
            for (0..slots.get(network).len) |i| {
                const on_cpu = of_cpu.get(network).at(step, i);
                const on_gpu = of_gpu.get(network).at(step, i);
                try std.testing.expectEqual(last_cpu + 1, on_cpu);
                try std.testing.expectEqual(last_gpu + 1, on_gpu);
                last_cpu = on_cpu;
                last_gpu = on_gpu + 1;
            }
        }
    }
}

test "a recorder takes each slot once, however often the graph runs" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const slot: Slot = .{ .kind = .halo_rows, .shape = .tokens(1, 4, 8), .dtype = .f32 };
    var recorder: Recorder = .{ .arena = arena.allocator() };
    for (0..2) |_| for (0..3) |i| try recorder.add(@intCast(i), slot);
    try std.testing.expectEqual(3, recorder.list.items.len);
}
