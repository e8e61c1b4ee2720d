//! Patch parallelism: the rows of an image are dealt to ranks, and the layers that see past their
//! rows exchange halo rows, group norm statistics, keys and values with the other patches, fresh or
//! one step old as the sync mode demands. As in DistriFusion (distrifuser/modules/pp).
//!
//! Read in this order:
//!   patch/layout.zig          which rank computes which rows and which guidance branches
//!   patch/sync_mode.zig       which values a step reads: fresh, one step old, or its own
//!   patch/slots.zig           the calls of the exchange in a network, recorded by the plan
//!   patch/exchange.zig        what layers call
//!   patch/changes.zig         keys and values that travel as changes in few bits
//!   patch/slot_swaps.zig      when shards travel between GPUs
//!   patch/device_buffers.zig  where shards are in GPU memory
//!
//! The transport moves the bytes (transport.zig).

pub const exchange = @import("patch/exchange.zig");
pub const Exchange = exchange.Exchange;
pub const layout = @import("patch/layout.zig");
pub const Layout = layout.Layout;
pub const Patch = layout.Patch;
pub const slots = @import("patch/slots.zig");
pub const sync_mode = @import("patch/sync_mode.zig");
pub const SyncMode = sync_mode.SyncMode;

test {
    _ = @import("patch/exchange_test.zig");
    _ = layout;
    _ = slots;
    _ = sync_mode;
}
