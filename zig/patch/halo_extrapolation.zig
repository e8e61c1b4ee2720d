//! Stale halo rows extrapolated from their last two steps: the change of a neighbour's row is
//! predicted from the row of this patch that touches it (`Backend.extrapolateRows`).

const exchanges = @import("exchange.zig");
const Error = exchanges.Error;
const Exchange = exchanges.Exchange;
const HaloRows = Exchange.HaloRows;
const shards = @import("shards.zig");
const StepHistory = @import("step_history.zig").StepHistory;
const Tensor = @import("../tensor.zig").Tensor;

/// Whether the entered step reads stale halo rows of which two earlier steps are kept.
pub fn applies(exchange: *const Exchange, steps: *const StepHistory) bool {
    if (!exchange.extrapolates_halos or exchange.peers.len == 0) return false;
    if (steps.count < 3) return false;
    return exchange.freshnessOf(.halo_rows) == .one_step_old;
}

/// Copies of halo rows, extrapolated where they are stale. Steps that extrapolate nothing copy all
/// the same: every step must allocate the same memory.
pub fn extrapolated(exchange: *Exchange, slot: u32, old: HaloRows) Error!HaloRows {
    const batch = (old.above orelse old.below.?).shape.batch;
    var halo: HaloRows = .{ .above = null, .below = null, .is_copy = true };
    if (old.above) |rows| {
        halo.above = try extrapolatedRows(exchange, slot, exchange.index - 1, rows, batch, 0);
    }
    if (old.below) |rows| {
        halo.below = try extrapolatedRows(exchange, slot, exchange.index + 1, rows, 0, batch);
    }
    return halo;
}

// --- internal ---

/// `theirs` and `ours` are the first batch index of the touching rows within a shard.
fn extrapolatedRows(
    exchange: *Exchange,
    slot: u32,
    other: u32,
    old: Tensor,
    theirs: u32,
    ours: u32,
) Error!Tensor {
    const batch = old.shape.batch;
    if (!applies(exchange, exchange.history())) {
        const out = try exchange.b.alloc(old.shape, old.dtype);
        try exchange.b.copy(out, old);
        return out;
    }
    const own = exchange.index;
    return exchange.b.extrapolateRows(.{
        .old = old,
        .older = shards.arrived(exchange, slot, other, .older).batchSlice(theirs, batch),
        .own_now = shards.arrived(exchange, slot, own, .now).batchSlice(ours, batch),
        .own_old = shards.arrived(exchange, slot, own, .old).batchSlice(ours, batch),
        .own_older = shards.arrived(exchange, slot, own, .older).batchSlice(ours, batch),
    });
}
