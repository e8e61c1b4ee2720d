//! What a patch reads from its neighbours in each step: fresh values, those of the step before, or
//! none. The names and their meaning are DistriFusion's (distrifuser/modules/pp).

const std = @import("std");

pub const Kind = enum {
    halo_rows,
    statistics,
    keys_values,
    /// What is sent in the place of keys and values where they are compressed.
    changes,
};
pub const kind_count = @typeInfo(Kind).@"enum".fields.len;

/// How keys and values travel: whole, or the change since they were sent last in few bits.
/// Receivers add it to what they have; the sender does the same, and sends with the next change
/// what the bits have lost. As CompactFusion (arXiv 2507.17511).
pub const Compression = enum(u32) {
    none = 0,
    int8 = 1,
    int4 = 2,

    pub fn bits(compression: Compression) u32 {
        return switch (compression) {
            .none => unreachable,
            .int8 => 8,
            .int4 => 4,
        };
    }
};

pub const SyncMode = enum(u32) {
    /// Everything one step old; group statistics corrected by what this patch's own have changed.
    corrected_async_gn = 0,
    /// Everything one step old; group statistics mix this patch's fresh with the others' old ones.
    stale_gn = 1,
    /// Halo rows, keys and values one step old; group statistics fresh.
    sync_gn = 2,
    /// Halo rows, keys and values one step old; each patch its own group statistics.
    separate_gn = 3,
    /// Everything fresh: equal to one rank.
    full_sync = 4,
    /// Halo rows, keys and values stay those of the last synchronous step; own group statistics.
    no_sync = 5,

    /// Whether some step may read old values while new ones are written.
    pub fn readsOldValues(mode: SyncMode) bool {
        return mode != .full_sync;
    }
};

pub const Freshness = enum {
    /// Wait for this step's values.
    fresh,
    /// Those of the step before.
    one_step_old,
    /// Those of the last synchronous step.
    last_synchronous,
    /// This patch's alone.
    own,
};

/// The last step that is synchronous in every mode, of those from `first` on: the job's first step
/// and `warmup_steps` after it are, and each `first`, before which other branches were computed.
pub fn lastSynchronous(first: u32, warmup_steps: u32) u32 {
    return @max(first, warmup_steps);
}

pub fn freshness(mode: SyncMode, kind: Kind, synchronous: bool) Freshness {
    if (synchronous) return .fresh;
    return switch (mode) {
        .full_sync => .fresh,
        .corrected_async_gn, .stale_gn => .one_step_old,
        .sync_gn => if (kind == .statistics) .fresh else .one_step_old,
        .separate_gn => if (kind == .statistics) .own else .one_step_old,
        .no_sync => if (kind == .statistics) .own else .last_synchronous,
    };
}

test "warm-up counts the steps after the first" {
    try std.testing.expectEqual(0, lastSynchronous(0, 0));
    try std.testing.expectEqual(4, lastSynchronous(0, 4));
    try std.testing.expectEqual(4, lastSynchronous(2, 4));
    try std.testing.expectEqual(7, lastSynchronous(7, 4));
}
