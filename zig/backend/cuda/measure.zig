//! Times alternatives on the GPU, so that libraries' guesses about their own algorithms need not be
//! believed. Waits for the stream: never while it is captured.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const Driver = drivers.Driver;
const waits_file = @import("waits.zig");
const Waits = waits_file.Waits;

/// Alternatives asked for: the libraries list the likely ones first.
pub const alternatives_max = 8;
/// Runs between two marks, and how often; the least time counts, since nothing makes a run faster
/// than it is.
const runs_per_sample = 3;
const samples = 3;
/// No more samples after so many milliseconds: noise is small beside them, and a first image
/// waits.
const enough_ms = 4;

pub const Timer = struct {
    driver: *const Driver,
    /// Ends the wait for a stream that stands behind what another rank never sends; null waits on.
    waits: ?*const Waits,
    start: drivers.Event,
    end: drivers.Event,

    /// Null where the GPU gives no events: then the first alternative will do.
    pub fn init(driver: *const Driver, waits: ?*const Waits) ?Timer {
        var start: ?drivers.Event = null;
        var end: ?drivers.Event = null;
        if (driver.cuEventCreate(&start, 0) != .success) return null;
        if (driver.cuEventCreate(&end, 0) != .success) {
            _ = driver.cuEventDestroy_v2(start.?);
            return null;
        }
        return .{ .driver = driver, .waits = waits, .start = start.?, .end = end.? };
    }

    pub fn deinit(timer: *Timer) void {
        _ = timer.driver.cuEventDestroy_v2(timer.start);
        _ = timer.driver.cuEventDestroy_v2(timer.end);
    }

    /// Milliseconds of one run, or null where the alternative fails. `runner.run(index)` queues it
    /// and returns whether that went well.
    pub fn time(
        timer: *Timer,
        stream: drivers.Stream,
        runner: anytype,
        index: usize,
    ) waits_file.Error!?f32 {
        const d = timer.driver;
        // The first run loads what it needs.
        if (!runner.run(index)) return null;
        var least: f32 = std.math.inf(f32);
        var spent: f32 = 0;
        for (0..samples) |_| {
            if (d.cuEventRecord(timer.start, stream) != .success) return null;
            for (0..runs_per_sample) |_| if (!runner.run(index)) return null;
            if (d.cuEventRecord(timer.end, stream) != .success) return null;
            if (try timer.wait() != .success) return null;
            var milliseconds: f32 = 0;
            if (d.cuEventElapsedTime(&milliseconds, timer.start, timer.end) != .success) {
                return null;
            }
            least = @min(least, milliseconds);
            spent += milliseconds;
            if (spent > enough_ms) break;
        }
        return least / runs_per_sample;
    }

    fn wait(timer: *Timer) waits_file.Error!drivers.Result {
        if (timer.waits) |waits| return waits.untilReached(timer.driver, timer.end);
        return timer.driver.cuEventSynchronize(timer.end);
    }
};

/// The fastest of `count` alternatives; the first where none can be timed.
pub fn fastest(
    driver: *const Driver,
    stream: drivers.Stream,
    waits: ?*const Waits,
    runner: anytype,
    count: usize,
) waits_file.Error!usize {
    var timer = Timer.init(driver, waits) orelse return 0;
    defer timer.deinit();
    var best: usize = 0;
    var best_time: f32 = std.math.inf(f32);
    for (0..count) |index| {
        const milliseconds = try timer.time(stream, runner, index) orelse continue;
        if (milliseconds < best_time) {
            best = index;
            best_time = milliseconds;
        }
    }
    return best;
}

/// Whether waiting for the stream is allowed.
pub fn isCapturing(driver: *const Driver, stream: drivers.Stream) bool {
    var status: drivers.CaptureStatus = .none;
    return driver.cuStreamIsCapturing(stream, &status) != .success or status != .none;
}

/// What cuBLASLt's kernels ask of addresses at most: the widest access of a thread.
pub const alignment_max = 16;

/// The greatest power of two up to `alignment_max` that an address is a multiple of. Clamped, since
/// equal layers lie at other places of the arena and would be measured again.
pub fn alignmentOf(address: drivers.Address) u16 {
    return @as(u16, 1) << @intCast(@ctz(address | alignment_max));
}

test "alignment is the power of two that divides" {
    try std.testing.expectEqual(@as(u16, 16), alignmentOf(0x7f00_0000));
    try std.testing.expectEqual(@as(u16, 16), alignmentOf(0x7f00_0040));
    try std.testing.expectEqual(@as(u16, 16), alignmentOf(0x7f00_0010));
    try std.testing.expectEqual(@as(u16, 8), alignmentOf(0x7f00_0108));
    try std.testing.expectEqual(@as(u16, 2), alignmentOf(0x7f00_0102));
}
