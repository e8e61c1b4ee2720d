//! What tests inject into a transport: random delays before every post, a rank that fails or stalls at
//! a step, a shorter limit for waiting. A product run injects nothing and waits long.

const std = @import("std");
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Fault = enum(u32) { none = 0, fail = 1, stall = 2 };

/// A rank may compute for minutes between two posts on a slow machine with a large picture.
const stall_limit_default_ns = 30 * 60 * std.time.ns_per_s;
const delay_max_us = 300;

pub const Hooks = struct {
    /// 0 for no delays.
    delay_seed: u32 = 0,
    fault: Fault = .none,
    fault_rank: u32 = 0,
    /// Counted from 1, as messages do.
    fault_step: u32 = 0,
    stall_limit_ns: i96 = stall_limit_default_ns,

    pub fn before(
        hooks: *const Hooks,
        io: Io,
        rank: u32,
        step: u32,
        count: u64,
        aborted: *const std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) error{ Cancelled, RankFailed }!void {
        if (hooks.delay_seed != 0) hooks.delay(io, rank, count);
        if (hooks.fault == .none or rank != hooks.fault_rank or step != hooks.fault_step) return;
        if (hooks.fault == .fail) {
            return diagnostics.fail(error.RankFailed, "Rank {d} failed at step {d}. No picture " ++
                "was written.", .{ rank, step });
        }
        while (!aborted.load(.acquire)) io.sleep(.fromMilliseconds(1), .awake) catch {};
        return error.Cancelled;
    }

    fn delay(hooks: *const Hooks, io: Io, rank: u32, count: u64) void {
        const key = [_]u64{ hooks.delay_seed, rank, count };
        const mixed = std.hash.Wyhash.hash(0, std.mem.asBytes(&key));
        // Most posts go through at once, so that runs stay short and orders vary.
        if (mixed % 8 != 0) return;
        io.sleep(.fromMicroseconds(@intCast(mixed / 8 % delay_max_us)), .awake) catch {};
    }
};

test "a fault strikes one rank at one step" {
    const aborted: std.atomic.Value(bool) = .init(false);
    var d: Diagnostics = .{};
    const hooks: Hooks = .{ .fault = .fail, .fault_rank = 1, .fault_step = 3, .delay_seed = 9 };
    const io = std.testing.io;
    try hooks.before(io, 0, 3, 7, &aborted, &d);
    try hooks.before(io, 1, 2, 8, &aborted, &d);
    try std.testing.expectError(error.RankFailed, hooks.before(io, 1, 3, 9, &aborted, &d));
    try std.testing.expectEqualStrings("Rank 1 failed at step 3. No picture was written.", d.message());
}
