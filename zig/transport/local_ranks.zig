//! Host-side synchronization of the ranks of one process, which are threads or fibers: sequence
//! numbers that a rank signals and others wait for, a barrier, and an abort. Every transport uses
//! it. A rank that fails calls `abort` so that no other rank waits for it; a rank that stalls is
//! named. Ranks of other processes do not appear here: only NCCL reaches them.

const std = @import("std");
const assert = std.debug.assert;
const Io = std.Io;
const RankFibers = @import("../backend/cpu/rank_fibers.zig").RankFibers;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Tensor = @import("../tensor.zig").Tensor;
const faults = @import("faults.zig");
const position = @import("position.zig");
const Channel = position.Channel;
const ranks = @import("ranks.zig");
const rank_count_max = ranks.rank_count_max;
const RankRange = ranks.RankRange;

pub const Error = error{ Cancelled, RankStalled, RankFailed };

/// Spins before a wait sleeps: another rank is often only a moment behind.
const spin_count = 200;
/// A sleeping rank looks at the abort flag at least this often.
const sleep_max_ms = 50;

const no_rank = std.math.maxInt(u32);

/// Futex that waiters sleep on. Signals and barriers use separate ones, so that a barrier wait is
/// not woken by every signal (`zig build signals` measures the cost).
const WakeEvent = struct {
    /// Incremented by every change that a waiter may wait for.
    changes: std.atomic.Value(u32) = .init(0),
    waiters: std.atomic.Value(u32) = .init(0),

    fn notify(event: *WakeEvent, io: Io) void {
        _ = event.changes.fetchAdd(1, .seq_cst);
        if (event.waiters.load(.seq_cst) == 0) return;
        io.futexWake(u32, &event.changes.raw, rank_count_max);
    }
};

const Counter = std.atomic.Value(u64);

pub const LocalRanks = struct {
    io: Io,
    /// Ranks of all processes.
    rank_count: u32,
    /// Ranks of this process.
    range: RankRange,
    diagnostics: *Diagnostics,
    hooks: faults.Hooks,
    /// Runs the ranks, from rank 0 on; null where each rank has a thread.
    fibers: ?*RankFibers = null,
    /// The last sequence number that each rank has signalled on each channel.
    signals: [position.channel_count][rank_count_max]Counter = @splat(@splat(.init(0))),
    signal_event: WakeEvent = .{},
    /// The number of barriers that each rank has reached.
    barriers: [rank_count_max]Counter = @splat(.init(0)),
    barrier_event: WakeEvent = .{},
    gathered: [rank_count_max]Tensor = undefined,
    aborted: std.atomic.Value(bool) = .init(false),
    /// The rank that each rank waits for; `no_rank` while it computes.
    waits_for: [rank_count_max]std.atomic.Value(u32) = @splat(.init(no_rank)),
    /// Time that each rank has waited for others; written by that rank alone.
    wait_ns: [rank_count_max]u64 = @splat(0),
    /// CPU time of each rank's thread in these waits.
    wait_cpu_ns: [rank_count_max]u64 = @splat(0),
    /// The step of each rank, counted from 1, for error messages.
    steps: [rank_count_max]std.atomic.Value(u32) = @splat(.init(0)),

    pub fn init(
        io: Io,
        rank_count: u32,
        diagnostics: *Diagnostics,
        hooks: faults.Hooks,
    ) LocalRanks {
        assert(rank_count >= 1 and rank_count <= rank_count_max);
        return .{
            .io = io,
            .rank_count = rank_count,
            .range = .{ .first = 0, .end = rank_count },
            .diagnostics = diagnostics,
            .hooks = hooks,
        };
    }

    /// Rank `rank` has reached `sequence` on a channel.
    pub fn signal(local: *LocalRanks, rank: u32, channel: Channel, sequence: u64) Error!void {
        try local.injectFaults(rank, sequence);
        const reached = &local.signals[@intFromEnum(channel)][rank];
        assert(reached.raw < sequence);
        reached.store(sequence, .release);
        local.notify(&local.signal_event);
    }

    /// Returns when rank `other` has signalled `sequence` or a later number.
    pub fn waitFor(
        local: *LocalRanks,
        rank: u32,
        channel: Channel,
        other: u32,
        sequence: u64,
    ) Error!void {
        const reached = &local.signals[@intFromEnum(channel)][other];
        return local.waitUntil(&local.signal_event, reached, sequence, rank, other);
    }

    /// The tensors of all local ranks, valid until the next barrier. Those of other processes are
    /// undefined.
    pub fn gather(local: *LocalRanks, rank: u32, own: Tensor) Error![]const Tensor {
        try local.injectFaults(rank, local.barriers[rank].raw);
        local.gathered[rank] = own;
        try local.barrier(rank);
        return local.gathered[0..local.rank_count];
    }

    /// Returns when every local rank has reached the same barrier.
    pub fn barrier(local: *LocalRanks, rank: u32) Error!void {
        const count = local.barriers[rank].raw + 1;
        local.barriers[rank].store(count, .release);
        local.notify(&local.barrier_event);
        for (local.range.first..local.range.end) |other| {
            const reached = &local.barriers[other];
            try local.waitUntil(&local.barrier_event, reached, count, rank, @intCast(other));
        }
    }

    /// Wakes every rank that waits; from now on each wait fails.
    pub fn abort(local: *LocalRanks) void {
        local.aborted.store(true, .release);
        local.notify(&local.signal_event);
        local.notify(&local.barrier_event);
    }

    /// The sentence about a rank inside NCCL whose other ranks do not come.
    pub fn reportUnanswered(local: *LocalRanks, rank: u32) void {
        const seconds = @as(f64, @floatFromInt(local.hooks.stall_limit_ns)) / 1e9;
        const sentence = "Rank {d} stalled at step {d}: other ranks did not come to its " ++
            "transfer within {d:.1} s. No image was written. NCCL_DEBUG=INFO shows how they " ++
            "connect.";
        local.diagnostics.fail(error.RankStalled, sentence, .{
            rank, local.steps[rank].load(.monotonic), seconds,
        }) catch {};
    }

    /// CPU time of a rank so far, without what it has spent waiting; the rank itself calls it. A
    /// neighbour that takes the core does not count.
    pub fn ownNs(local: *const LocalRanks, rank: u32) u64 {
        if (local.fibers) |fibers| return fibers.ownNs(rank);
        return local.threadNs() - local.wait_cpu_ns[rank];
    }

    // --- internal ---

    fn notify(local: *LocalRanks, event: *WakeEvent) void {
        if (local.fibers) |fibers| fibers.notify() else event.notify(local.io);
    }

    fn threadNs(local: *const LocalRanks) u64 {
        if (local.fibers != null) return 0;
        return @intCast(Io.Timestamp.now(local.io, .cpu_thread).toNanoseconds());
    }

    fn injectFaults(local: *LocalRanks, rank: u32, sequence: u64) Error!void {
        try local.hooks.before(.{
            .io = local.io,
            .fibers = local.fibers,
            .rank = rank,
            .step = local.steps[rank].load(.monotonic),
            .sequence = sequence,
            .aborted = &local.aborted,
            .diagnostics = local.diagnostics,
        });
    }

    fn waitUntil(
        local: *LocalRanks,
        event: *WakeEvent,
        value: *const Counter,
        count: u64,
        rank: u32,
        other: u32,
    ) Error!void {
        const start = Io.Timestamp.now(local.io, .awake).toNanoseconds();
        const start_cpu = local.threadNs();
        defer {
            const end = Io.Timestamp.now(local.io, .awake).toNanoseconds();
            local.wait_ns[rank] += @intCast(end - start);
            local.wait_cpu_ns[rank] += local.threadNs() - start_cpu;
        }
        for (0..if (local.fibers == null) spin_count else 0) |_| {
            if (value.load(.acquire) >= count) break;
            std.atomic.spinLoopHint();
        }
        local.waits_for[rank].store(other, .release);
        defer local.waits_for[rank].store(no_rank, .release);
        while (value.load(.acquire) < count) {
            if (local.aborted.load(.acquire)) return error.Cancelled;
            const waited = Io.Timestamp.now(local.io, .awake).toNanoseconds() - start;
            if (waited > local.hooks.stall_limit_ns) return local.failStalled(rank);
            if (local.fibers) |fibers| {
                fibers.waitFor(rank, value, count, &local.aborted);
            } else local.sleep(event, value, count);
        }
        if (local.aborted.load(.acquire)) return error.Cancelled;
    }

    fn sleep(local: *LocalRanks, event: *WakeEvent, value: *const Counter, count: u64) void {
        _ = event.waiters.fetchAdd(1, .seq_cst);
        defer _ = event.waiters.fetchSub(1, .seq_cst);
        const seen = event.changes.load(.seq_cst);
        // Read the value again now that this waiter is announced: a signal sent before that would
        // not wake it.
        if (value.load(.seq_cst) >= count or local.aborted.load(.seq_cst)) return;
        const timeout: Io.Timeout = .{ .duration = .{
            .raw = .fromMilliseconds(sleep_max_ms),
            .clock = .awake,
        } };
        local.io.futexWaitTimeout(u32, &event.changes.raw, seen, timeout) catch {};
    }

    /// Names the rank at the end of the chain of waits: the others only wait for it.
    fn failStalled(local: *LocalRanks, rank: u32) Error {
        var other = rank;
        for (0..local.rank_count) |_| {
            const next = local.waits_for[other].load(.acquire);
            if (next == no_rank) break;
            other = next;
        }
        const seconds = @as(f64, @floatFromInt(local.hooks.stall_limit_ns)) / 1e9;
        return local.diagnostics.fail(error.RankStalled, "Rank {d} stalled at step {d}: it " ++
            "did not answer for {d:.1} s. No image was written.", .{
            other, local.steps[other].load(.monotonic), seconds,
        });
    }
};

/// The place of one rank among the local ranks: what a transport holds for the host's side.
pub const Port = struct {
    local: *LocalRanks,
    rank: u32,

    pub fn signal(port: Port, channel: Channel, p: position.Position) Error!void {
        return port.local.signal(port.rank, channel, p.sequence());
    }

    pub fn waitFor(port: Port, channel: Channel, other: u32, p: position.Position) Error!void {
        return port.local.waitFor(port.rank, channel, other, p.sequence());
    }

    pub fn gather(port: Port, own: Tensor) Error![]const Tensor {
        return port.local.gather(port.rank, own);
    }

    pub fn barrier(port: Port) Error!void {
        return port.local.barrier(port.rank);
    }
};

test "a rank waits for the sequence numbers of another, channel by channel" {
    var d: Diagnostics = .{};
    var local: LocalRanks = .init(std.testing.io, 2, &d, .{ .stall_limit_ns = 0 });
    try local.signal(1, .unet, 4);
    try local.waitFor(0, .unet, 1, 3);
    try local.waitFor(0, .unet, 1, 4);
    try std.testing.expectError(error.RankStalled, local.waitFor(0, .unet, 1, 5));
    // Another network counts on its own.
    try std.testing.expectError(error.RankStalled, local.waitFor(0, .vae, 1, 1));
    try local.signal(1, .vae, 1);
    try local.waitFor(0, .vae, 1, 1);
    local.abort();
    try std.testing.expectError(error.Cancelled, local.waitFor(0, .unet, 1, 4));
}
