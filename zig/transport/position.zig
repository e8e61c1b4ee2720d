//! Positions in the work of a job at which ranks signal each other. The sequence number of a signal
//! follows from its position alone, so no caller counts signals by hand. Each network that
//! exchanges has a channel of its own: its signals and events are independent of those of another
//! network, and two networks may exchange in turn within one step.

const std = @import("std");

/// ControlNets of one job, each with a channel of its own.
pub const control_count_max = 4;

/// One per network that exchanges between ranks.
pub const Channel = enum {
    unet,
    vae,
    vae_encoder,
    control_0,
    control_1,
    control_2,
    control_3,

    pub fn ofControl(i: usize) Channel {
        std.debug.assert(i < control_count_max);
        return @enumFromInt(@intFromEnum(Channel.control_0) + i);
    }
};
pub const channel_count = @typeInfo(Channel).@"enum".fields.len;

/// Of the slots of a channel. Steps that reuse deep features leave out the deep ones: what travels
/// of those is needed in the next full step alone, and has the cached steps before it to arrive.
pub const Depth = enum { outer, deep };
pub const depth_count = @typeInfo(Depth).@"enum".fields.len;

/// Slots of one channel. SDXL's UNet has 155: 39 convolutions, 46 group norms, 70 self-attentions.
pub const slot_count_max = 1024;

/// Slots whose stale values are transferred together. Small copies are bound by their number, large
/// ones by the link's bandwidth: SDXL's 155 slots in ten groups leave a tenth of the bytes to the
/// end of the step.
pub const group_slot_count = 16;
pub const group_count_max = slot_count_max / group_slot_count;

pub const Position = struct {
    step: u32,
    slot: u32,
    /// Slots of a step.
    slot_count: u32,
    what: What = .slot_written,
    /// Of the group that is complete.
    depth: Depth = .outer,

    pub const What = enum(u1) {
        /// The rank has written its shard of `slot`.
        slot_written,
        /// The rank has written all slots up to `slot`, and has read what it needs of them. Groups
        /// are cut where the deep slots begin and end.
        group_complete,
    };

    /// Grows along a step and from step to step; 0 is before everything.
    pub fn sequence(p: Position) u64 {
        std.debug.assert(p.slot < p.slot_count);
        const slots = @as(u64, p.step) * p.slot_count + p.slot;
        return 2 * slots + 1 + @intFromEnum(p.what);
    }

    pub fn group(p: Position) u32 {
        return p.slot / group_slot_count;
    }
};

test "sequence numbers grow with every position of a job" {
    var last: u64 = 0;
    for (0..3) |step| for (0..5) |slot| {
        for ([_]Position.What{ .slot_written, .group_complete }) |what| {
            const position: Position = .{
                .step = @intCast(step),
                .slot = @intCast(slot),
                .slot_count = 5,
                .what = what,
            };
            try std.testing.expectEqual(last + 1, position.sequence());
            last = position.sequence();
        }
    };
}
