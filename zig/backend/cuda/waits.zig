//! Waits of the host for a GPU's work: they poll instead of blocking in the driver, where a wait
//! for a rank that never answers would last for ever. A wait ends with the work, when the job is
//! cancelled or another rank has failed, or at the stall limit.

const std = @import("std");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const drivers = @import("../../nvidia/driver.zig");

pub const Error = error{ Cancelled, GpuFailed };

/// A step is often done within a moment; then asking again costs less than sleeping.
const poll_spin_ns = 200 * std.time.ns_per_us;
const poll_sleep_us = 50;

/// Of one rank.
pub const Waits = struct {
    diagnostics: *Diagnostics,
    cancelled: *const std.atomic.Value(bool),
    /// For messages.
    rank: u32 = 0,
    device: drivers.Device = 0,
    /// Set when another rank of the job has failed; null between jobs.
    job_failed: ?*const std.atomic.Value(bool) = null,
    stall_limit_ns: i96 = 30 * 60 * std.time.ns_per_s,
    /// The end of the message about work that does not end, for whoever knows more about it.
    stall_advice: []const u8 = "nvidia-smi shows whether the GPU still responds.",

    pub fn isStopped(waits: *const Waits) bool {
        if (waits.cancelled.load(.monotonic)) return true;
        return if (waits.job_failed) |failed| failed.load(.acquire) else false;
    }

    /// The driver's answer once the stream has ended. Fails where the job has stopped, even if the
    /// stream has ended: an abort lets it go on without the data that it waited for.
    pub fn untilIdle(
        waits: *const Waits,
        driver: *const drivers.Driver,
        stream: drivers.Stream,
    ) Error!drivers.Result {
        const query = driver.cuStreamQuery;
        return waits.answer(poll(query, stream, waits.stall_limit_ns, waits));
    }

    /// The same for an event.
    pub fn untilReached(
        waits: *const Waits,
        driver: *const drivers.Driver,
        event: drivers.Event,
    ) Error!drivers.Result {
        const query = driver.cuEventQuery;
        return waits.answer(poll(query, event, waits.stall_limit_ns, waits));
    }

    // --- internal ---

    fn answer(waits: *const Waits, result: drivers.Result) Error!drivers.Result {
        switch (result) {
            .success, .not_ready => if (waits.isStopped()) return error.Cancelled,
            else => return result,
        }
        if (result == .success) return result;
        const seconds = @as(f64, @floatFromInt(waits.stall_limit_ns)) / 1e9;
        const sentence = "Rank {d} stalled on GPU {d}: its stream did not finish within " ++
            "{d:.1} s. No image was written. {s}";
        return waits.diagnostics.fail(error.GpuFailed, sentence, .{
            waits.rank, waits.device, seconds, waits.stall_advice,
        });
    }
};

/// Asks until the answer is not `.not_ready`, the limit is over or `stops` does.
pub fn poll(
    query: anytype,
    handle: anytype,
    limit_ns: i96,
    stops: ?*const Waits,
) drivers.Result {
    const io = std.Io.Threaded.global_single_threaded.io();
    const start = std.Io.Timestamp.now(io, .awake).toNanoseconds();
    while (true) {
        const result = query(handle);
        if (result != .not_ready) return result;
        if (stops) |waits| if (waits.isStopped()) return result;
        const waited = std.Io.Timestamp.now(io, .awake).toNanoseconds() - start;
        if (waited > limit_ns) return result;
        if (waited < poll_spin_ns) continue;
        io.sleep(.fromMicroseconds(poll_sleep_us), .awake) catch {};
    }
}
