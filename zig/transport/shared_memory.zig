//! Ranks that are threads or fibres of this process and see each other's memory. A rank tells how
//! far it has written its own buffers; readers wait for that and read in place, so nothing is
//! copied or queued. A rank that fails calls `abort`, so that nobody waits for it; one that stalls
//! is named. Ranks of other processes have no place here: they are met by messages alone.

const std = @import("std");
const assert = std.debug.assert;
const Io = std.Io;
const RankFibers = @import("../backend/cpu/rank_fibers.zig").RankFibers;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Tensor = @import("../tensor.zig").Tensor;
const layouts = @import("../patch/layout.zig");
const rank_count_max = layouts.rank_count_max;
const RankRange = layouts.RankRange;
const faults = @import("faults.zig");

pub const Error = error{ Cancelled, RankStalled, RankFailed };

/// Spins before a wait sleeps: a neighbour is often only a moment behind.
const spin_count = 200;

const nobody = std.math.maxInt(u32);

/// What waiters for one kind of news sleep on. Posts and meetings have one each: who waits for the
/// end of a step must not be woken by every part of it (`zig build posts` measures that).
const WakeEvent = struct {
    /// Grows with every change that somebody may wait for.
    changes: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),

    fn ring(bell: *WakeEvent, io: Io) void {
        _ = bell.changes.fetchAdd(1, .seq_cst);
        if (bell.sleepers.load(.seq_cst) == 0) return;
        io.futexWake(u32, &bell.changes.raw, rank_count_max);
    }
};

pub const Loopback = struct {
    io: Io,
    rank_count: u32,
    /// Who is of this process.
    here: RankRange,
    diagnostics: *Diagnostics,
    hooks: faults.Hooks,
    /// Whose fibres the ranks are, from rank 0 on; null where they are threads.
    fibers: ?*RankFibers = null,
    /// How much of its own each rank has written; it only grows.
    written: [rank_count_max]std.atomic.Value(u64) = @splat(.init(0)),
    posted: WakeEvent = .{},
    /// Meetings that each rank has come to.
    meetings: [rank_count_max]std.atomic.Value(u64) = @splat(.init(0)),
    met: WakeEvent = .{},
    gathered: [rank_count_max]Tensor = undefined,
    aborted: std.atomic.Value(bool) = .init(false),
    /// Whom each rank waits for, `nobody` while it works.
    waits_for: [rank_count_max]std.atomic.Value(u32) = @splat(.init(nobody)),
    /// The step of each rank, for messages.
    steps: [rank_count_max]std.atomic.Value(u32) = @splat(.init(0)),

    pub fn init(
        io: Io,
        rank_count: u32,
        diagnostics: *Diagnostics,
        hooks: faults.Hooks,
    ) Loopback {
        assert(rank_count >= 1 and rank_count <= rank_count_max);
        return .{
            .io = io,
            .rank_count = rank_count,
            .here = .{ .first = 0, .end = rank_count },
            .diagnostics = diagnostics,
            .hooks = hooks,
        };
    }

    /// Rank `rank` has written everything up to `count`.
    pub fn post(loopback: *Loopback, rank: u32, count: u64) Error!void {
        try loopback.injectFaults(rank, count);
        assert(loopback.written[rank].raw < count);
        loopback.written[rank].store(count, .release);
        loopback.ring(&loopback.posted);
    }

    /// Returns when rank `other` has written everything up to `count`.
    pub fn waitFor(loopback: *Loopback, rank: u32, other: u32, count: u64) Error!void {
        const written = &loopback.written[other];
        return loopback.waitUntil(&loopback.posted, written, count, rank, other);
    }

    /// Every rank hands over a tensor and gets all of this process, which stay valid until the next
    /// meeting; in the places of the others there is nothing.
    pub fn gather(loopback: *Loopback, rank: u32, mine: Tensor) Error![]const Tensor {
        try loopback.injectFaults(rank, loopback.meetings[rank].raw);
        loopback.gathered[rank] = mine;
        try loopback.meet(rank);
        return loopback.gathered[0..loopback.rank_count];
    }

    /// Returns when every rank of this process has come here as often as this one.
    pub fn meet(loopback: *Loopback, rank: u32) Error!void {
        const count = loopback.meetings[rank].raw + 1;
        loopback.meetings[rank].store(count, .release);
        loopback.ring(&loopback.met);
        for (loopback.here.first..loopback.here.end) |other| {
            const meetings = &loopback.meetings[other];
            try loopback.waitUntil(&loopback.met, meetings, count, rank, @intCast(other));
        }
    }

    /// Wakes every rank that waits; from now on each wait fails.
    pub fn abort(loopback: *Loopback) void {
        loopback.aborted.store(true, .release);
        loopback.ring(&loopback.posted);
        loopback.ring(&loopback.met);
    }

    // --- internal ---

    fn ring(loopback: *Loopback, bell: *WakeEvent) void {
        if (loopback.fibers) |fibers| fibers.notify() else bell.ring(loopback.io);
    }

    fn injectFaults(loopback: *Loopback, rank: u32, count: u64) Error!void {
        try loopback.hooks.before(.{
            .io = loopback.io,
            .fibers = loopback.fibers,
            .rank = rank,
            .step = loopback.steps[rank].load(.monotonic),
            .count = count,
            .aborted = &loopback.aborted,
            .diagnostics = loopback.diagnostics,
        });
    }

    fn waitUntil(
        loopback: *Loopback,
        bell: *WakeEvent,
        value: *const std.atomic.Value(u64),
        count: u64,
        rank: u32,
        other: u32,
    ) Error!void {
        for (0..if (loopback.fibers == null) spin_count else 0) |_| {
            if (value.load(.acquire) >= count) break;
            std.atomic.spinLoopHint();
        }
        const start = Io.Timestamp.now(loopback.io, .awake).toNanoseconds();
        loopback.waits_for[rank].store(other, .release);
        defer loopback.waits_for[rank].store(nobody, .release);
        while (value.load(.acquire) < count) {
            if (loopback.aborted.load(.acquire)) return error.Cancelled;
            const waited = Io.Timestamp.now(loopback.io, .awake).toNanoseconds() - start;
            if (waited > loopback.hooks.stall_limit_ns) return loopback.failStalled(rank);
            if (loopback.fibers) |fibers| {
                fibers.waitFor(rank, value, count, &loopback.aborted);
            } else loopback.sleep(bell, value, count);
        }
        if (loopback.aborted.load(.acquire)) return error.Cancelled;
    }

    fn sleep(
        loopback: *Loopback,
        bell: *WakeEvent,
        value: *const std.atomic.Value(u64),
        count: u64,
    ) void {
        _ = bell.sleepers.fetchAdd(1, .seq_cst);
        defer _ = bell.sleepers.fetchSub(1, .seq_cst);
        const seen = bell.changes.load(.seq_cst);
        // Looked at again after announcing the sleep: a post in between would not wake anyone.
        if (value.load(.seq_cst) >= count or loopback.aborted.load(.seq_cst)) return;
        const nap: Io.Timeout = .{ .duration = .{
            .raw = .fromMilliseconds(50),
            .clock = .awake,
        } };
        loopback.io.futexWaitTimeout(u32, &bell.changes.raw, seen, nap) catch {};
    }

    /// Names the rank at the end of the chain of waits: the others only wait for it.
    fn failStalled(loopback: *Loopback, rank: u32) Error {
        var other = rank;
        for (0..loopback.rank_count) |_| {
            const next = loopback.waits_for[other].load(.acquire);
            if (next == nobody) break;
            other = next;
        }
        const seconds = @as(f64, @floatFromInt(loopback.hooks.stall_limit_ns)) / 1e9;
        return loopback.diagnostics.fail(error.RankStalled, "Rank {d} stalled at step {d}: it " ++
            "did not answer for {d:.1} s. No image was written.", .{
            other, loopback.steps[other].load(.monotonic), seconds,
        });
    }
};
