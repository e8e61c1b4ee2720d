//! The slots of a network: the places in its graph where patches exchange data, in the order in
//! which the layers run, the same in every step. The plan of an image records them once
//! (session/plan.zig); every exchange of that shape is opened with them.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Branches = @import("layout.zig").Branches;
const Kind = @import("sync_mode.zig").Kind;
const Shape = @import("../tensor.zig").Shape;
const DType = @import("../tensor.zig").DType;
const transports = @import("../transport.zig");

const slot_count_max = transports.slot_count_max;
/// Numbers of the networks that exchange data between patches: the VAE's decoder and encoder, then
/// the UNet and each ControlNet of the job, which have other patches, or fewer branches, in some
/// steps.
pub const network_vae = 0;
pub const network_vae_encoder = 1;
const network_unet: usize = 2;
const branches_count = @typeInfo(Branches).@"enum".fields.len;

/// Of the UNet (0) and each ControlNet behind it.
pub fn networkOfStep(i: usize, branches: Branches) usize {
    return network_unet + i * branches_count + @intFromEnum(branches);
}

pub fn networkOfUnet(branches: Branches) usize {
    return networkOfStep(0, branches);
}

pub fn networkOfControl(i: usize, branches: Branches) usize {
    return networkOfStep(1 + i, branches);
}

pub fn networkCount(control_count: usize) usize {
    return network_unet + (1 + control_count) * branches_count;
}

/// Of each network.
pub const SlotLists = []const []const Slot;

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

test "a recorder takes each slot once, however often the graph runs" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const slot: Slot = .{ .kind = .halo_rows, .shape = .tokens(1, 4, 8), .dtype = .f32 };
    var recorder: Recorder = .{ .arena = arena.allocator() };
    for (0..2) |_| for (0..3) |i| try recorder.add(@intCast(i), slot);
    try std.testing.expectEqual(3, recorder.list.items.len);
}
