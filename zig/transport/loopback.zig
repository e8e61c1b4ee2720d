//! Ranks that are threads of this process and see each other's memory: each posts where its part
//! lies, all meet, each copies what it needs, all meet again before a part may change.
//! A rank that fails calls `abort`, so that nobody waits for it.

const std = @import("std");
const assert = std.debug.assert;
const Io = std.Io;
const backends = @import("../backend.zig");
const Tensor = @import("../tensor.zig").Tensor;

pub const rank_count_max = 16;

pub const Loopback = struct {
    io: Io,
    rank_count: u32,
    posted: [rank_count_max]Tensor = undefined,
    arrived: std.atomic.Value(u32) = .init(0),
    /// Counts meetings; ranks sleep on it.
    generation: std.atomic.Value(u32) = .init(0),
    aborted: std.atomic.Value(bool) = .init(false),

    pub fn init(io: Io, rank_count: u32) Loopback {
        assert(rank_count >= 1 and rank_count <= rank_count_max);
        return .{ .io = io, .rank_count = rank_count };
    }

    /// `out` holds every rank's `mine`, in the order of the ranks, along the batch.
    pub fn allGather(
        loopback: *Loopback,
        b: backends.Backend,
        rank: u32,
        out: Tensor,
        mine: Tensor,
    ) backends.Error!void {
        loopback.posted[rank] = mine;
        try loopback.meet();
        for (0..loopback.rank_count) |i| {
            const part = loopback.posted[i];
            assert(part.shape.eql(mine.shape));
            const first: u32 = @intCast(i * mine.shape.batch);
            try b.copy(out.batchSlice(first, mine.shape.batch), part);
        }
        try loopback.meet();
    }

    /// Wakes every rank that waits; from now on each meeting fails.
    pub fn abort(loopback: *Loopback) void {
        loopback.aborted.store(true, .release);
        _ = loopback.generation.fetchAdd(1, .acq_rel);
        loopback.io.futexWake(u32, &loopback.generation.raw, rank_count_max);
    }

    // --- internal ---

    fn meet(loopback: *Loopback) error{Cancelled}!void {
        const generation = loopback.generation.load(.acquire);
        if (loopback.arrived.fetchAdd(1, .acq_rel) + 1 == loopback.rank_count) {
            loopback.arrived.store(0, .release);
            _ = loopback.generation.fetchAdd(1, .acq_rel);
            loopback.io.futexWake(u32, &loopback.generation.raw, rank_count_max);
        } else {
            while (loopback.generation.load(.acquire) == generation) {
                if (loopback.aborted.load(.acquire)) break;
                loopback.io.futexWaitUncancelable(u32, &loopback.generation.raw, generation);
            }
        }
        if (loopback.aborted.load(.acquire)) return error.Cancelled;
    }
};
