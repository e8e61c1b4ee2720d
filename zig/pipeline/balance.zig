//! Rows dealt by the speed of ranks (`--balance`): at a step of the job's choice by its shares, or
//! after the first steps by the time that each rank took for its own rows (on the CPU, its CPU
//! time). Every rank gets the times of all ranks and computes the same shares from them, so all
//! deal alike.

const std = @import("std");
const gather = @import("gather.zig");
const layouts = @import("../patch/layout.zig");
const Shares = layouts.Shares;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// Steps that are timed. On the CPU the time that a rank waits for others is known, and the first
/// step is left out. GPUs wait for each other in their streams, except in stale steps: of these the
/// first are left out, in which graphs are captured.
const timed_count = 3;
const untimed_count = struct {
    const cpu = 1;
    const cuda = 3;
};
/// Rows are left as they are unless a step is to take less than this of its time: equal ranks never
/// measure quite the same.
const step_gain = 0.9;

pub const Balance = struct {
    /// Of this rank: steps that count, and of those that are timed the least time per row.
    step_count: u32 = 0,
    ns_per_row: f64 = std.math.inf(f64),
    is_measuring: bool,

    pub fn init(rank: *const Rank) Balance {
        const measures = rank.job.measures_balance and !rank.isPlanning();
        return .{ .is_measuring = measures and rank.transport != .none };
    }

    /// Whether the coming step is timed.
    pub fn times(balance: *const Balance, rank: *const Rank) bool {
        return balance.is_measuring and balance.step_count >= untimedOf(rank);
    }

    /// After a step: counts it, with its time where it was timed.
    pub fn count(balance: *Balance, rank: *const Rank, ns: u64) void {
        if (!balance.is_measuring) return;
        if (rank.b.isCuda() and rank.exchange.isSynchronous()) return;
        if (balance.times(rank)) {
            const patch = rank.exchange.patches[rank.exchange.index];
            const rows: f64 = @floatFromInt(patch.row_count);
            const per_row = @as(f64, @floatFromInt(ns)) / rows;
            balance.ns_per_row = @min(balance.ns_per_row, per_row);
        }
        balance.step_count += 1;
    }

    /// The shares by which rows are dealt before step `i`; null where they stay.
    pub fn sharesAt(balance: *Balance, rank: *Rank, i: usize) Error!?Shares {
        // A plan's steps are one of each kind, with numbers of their own.
        if (rank.isPlanning()) return null;
        const job = rank.job;
        if (job.dealsByShares() and i > 0 and i == job.balance_step) return job.shares();
        const last = untimedOf(rank) + timed_count;
        if (!balance.is_measuring or balance.step_count < last) return null;
        balance.is_measuring = false;
        var speeds: [layouts.rank_count_max]f64 = undefined;
        const own: f32 = @floatCast(balance.ns_per_row);
        try gather.gatherNumbers(rank, own, speeds[0..rank.layout.rank_count]);
        for (speeds[0..rank.layout.rank_count]) |*speed| speed.* = 1 / speed.*;
        const dealt = sharesOf(speeds[0..rank.layout.rank_count], rank.unitCount()) orelse {
            return null;
        };
        if (rank.reporter != null) {
            const saved = try rank.result.alloc(u64, .dealt, 1 + dealt.count);
            saved[0] = i;
            for (saved[1..], dealt.slice()) |*to, share| to.* = share;
        }
        return dealt;
    }

    fn untimedOf(rank: *const Rank) u32 {
        return if (rank.b.isCuda()) untimed_count.cuda else untimed_count.cpu;
    }
};

/// Units of rows by speed, which as shares give the same again; null where ranks are about equal.
fn sharesOf(speeds: []const f64, unit_count: u32) ?Shares {
    const fastest = std.mem.max(f64, speeds);
    var shares: Shares = .even(@intCast(speeds.len));
    const even = layouts.unitsBy(shares, unit_count, unit_count);
    for (shares.list[0..speeds.len], speeds) |*share, speed| {
        const whole = @round(speed / fastest * layouts.share_max);
        share.* = @intFromFloat(std.math.clamp(whole, 1, layouts.share_max));
    }
    const limit = layouts.measuredUnitsMax(unit_count, shares.count);
    const dealt = layouts.unitsBy(shares, unit_count, limit);
    return if (stepTime(dealt, speeds) < step_gain * stepTime(even, speeds)) dealt else null;
}

/// A step lasts as long as the rank that is done last.
fn stepTime(units: Shares, speeds: []const f64) f64 {
    var most: f64 = 0;
    for (units.slice(), speeds) |count, speed| {
        most = @max(most, @as(f64, @floatFromInt(count)) / speed);
    }
    return most;
}

test "units follow speeds up to the limit, and give themselves again" {
    const shares = sharesOf(&.{ 1, 1, 1, 0.5 }, 16).?;
    try std.testing.expectEqualSlices(u32, &.{ 5, 5, 4, 2 }, shares.slice());
    const again = layouts.unitsBy(shares, 16, 16);
    try std.testing.expectEqualSlices(u32, shares.slice(), again.slice());
    const limited = sharesOf(&.{ 9, 1, 1, 1 }, 16).?;
    try std.testing.expectEqual(8, limited.list[0]);
}

test "ranks that are equal but for noise keep equal parts" {
    var prng: std.Random.DefaultPrng = .init(5);
    for (1..8) |count| for ([_]u32{ 8, 16, 31, 64 }) |unit_count| {
        var speeds: [8]f64 = undefined;
        for (speeds[0..count]) |*speed| speed.* = 1 - 0.09 * prng.random().float(f64);
        try std.testing.expectEqual(null, sharesOf(speeds[0..count], unit_count));
    };
    // A unit is too coarse to mend this.
    try std.testing.expectEqual(null, sharesOf(&.{ 1, 0.7 }, 4));
}
