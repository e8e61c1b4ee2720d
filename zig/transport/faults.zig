//! What tests inject into a transport: random delays before signals, a rank that fails or stalls at
//! a step, a shorter limit for waits. A product run injects nothing and waits long.

const std = @import("std");
const Io = std.Io;
const RankFibers = @import("../backend/cpu/rank_fibers.zig").RankFibers;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Fault = enum(u32) { none = 0, fail = 1, stall = 2 };

/// A rank may compute for minutes between two signals on a slow machine with a large image.
const stall_limit_default_ns = 30 * 60 * std.time.ns_per_s;
const delay_max_us = 300;

pub const Hooks = struct {
    /// 0 for no delays.
    delay_seed: u32 = 0,
    fault: Fault = .none,
    fault_rank: u32 = 0,
    /// Counted from 1, as in error messages.
    fault_step: u32 = 0,
    stall_limit_ns: i96 = stall_limit_default_ns,
    /// Not 0: this rank, counted from 1, is the only one that runs.
    only_rank: u32 = 0,
    /// Not 0: this rank, counted from 1, takes so many hundredths of its time for the UNet more.
    slow_rank: u32 = 0,
    slow_percent: u32 = 0,

    /// A signal that a rank is about to send.
    pub const Signal = struct {
        io: Io,
        /// Runs the rank; null where it is a thread.
        fibers: ?*RankFibers = null,
        rank: u32,
        step: u32,
        sequence: u64,
        aborted: *const std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    };

    pub fn before(hooks: *const Hooks, signal: Signal) error{ Cancelled, RankFailed }!void {
        if (hooks.delay_seed != 0) hooks.delay(signal.io, signal.rank, signal.sequence);
        if (hooks.fault == .none) return;
        if (signal.rank != hooks.fault_rank or signal.step != hooks.fault_step) return;
        if (hooks.fault == .fail) {
            const sentence = "Rank {d} failed at step {d}. No image was written.";
            const d = signal.diagnostics;
            return d.fail(error.RankFailed, sentence, .{ signal.rank, signal.step });
        }
        const never: std.atomic.Value(u64) = .init(0);
        while (!signal.aborted.load(.acquire)) {
            if (signal.fibers) |fibers| {
                fibers.waitFor(signal.rank, &never, 1, signal.aborted);
            } else signal.io.sleep(.fromMilliseconds(1), .awake) catch {};
        }
        return error.Cancelled;
    }

    /// A rank has taken `own_ns` for its rows; a slow one takes more, asleep. Returns how much.
    pub fn slow(hooks: *const Hooks, io: Io, rank: u32, own_ns: u64) u64 {
        if (hooks.slow_rank != rank + 1) return 0;
        const more = own_ns / 100 * hooks.slow_percent;
        io.sleep(.fromNanoseconds(@intCast(more)), .awake) catch {};
        return more;
    }

    fn delay(hooks: *const Hooks, io: Io, rank: u32, sequence: u64) void {
        const key = [_]u64{ hooks.delay_seed, rank, sequence };
        const mixed = std.hash.Wyhash.hash(0, std.mem.asBytes(&key));
        // Most signals are not delayed, so that runs stay short and orders vary.
        if (mixed % 8 != 0) return;
        io.sleep(.fromMicroseconds(@intCast(mixed / 8 % delay_max_us)), .awake) catch {};
    }
};

test "a fault is injected into one rank at one step" {
    const aborted: std.atomic.Value(bool) = .init(false);
    var d: Diagnostics = .{};
    const hooks: Hooks = .{ .fault = .fail, .fault_rank = 1, .fault_step = 3, .delay_seed = 9 };
    var signal: Hooks.Signal = .{
        .io = std.testing.io,
        .rank = 0,
        .step = 3,
        .sequence = 7,
        .aborted = &aborted,
        .diagnostics = &d,
    };
    try hooks.before(signal);
    signal.rank = 1;
    signal.step = 2;
    try hooks.before(signal);
    signal.step = 3;
    try std.testing.expectError(error.RankFailed, hooks.before(signal));
    const sentence = "Rank 1 failed at step 3. No image was written.";
    try std.testing.expectEqualStrings(sentence, d.message());
}
