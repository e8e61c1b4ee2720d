//! Watches the ranks of a job that uses NCCL. A rank's thread inside ncclGroupEnd sees neither that
//! another rank has failed nor that the job is cancelled, and it may wait there for a process that
//! is gone: whoever fails aborts every communicator of its process, and this thread does so for
//! what no rank notices.

const std = @import("std");
const Io = std.Io;
const Endpoint = @import("endpoint.zig").Endpoint;
const LocalRanks = @import("local_ranks.zig").LocalRanks;

/// Between two looks; a failure is rare, and its sentence can wait for so long.
const look_ms = 20;

pub const Watch = struct {
    local: *LocalRanks,
    /// Of the ranks of this process.
    endpoints: []const *Endpoint,
    cancelled: *const std.atomic.Value(bool),
    is_over: std.atomic.Value(u32) = .init(0),
    thread: ?std.Thread = null,

    /// Must not move until `stop`.
    pub fn start(watch: *Watch) error{ThreadsUnavailable}!void {
        watch.thread = std.Thread.spawn(.{}, main, .{watch}) catch return error.ThreadsUnavailable;
    }

    /// When all ranks have ended.
    pub fn stop(watch: *Watch) void {
        const thread = watch.thread orelse return;
        watch.is_over.store(1, .release);
        watch.local.io.futexWake(u32, &watch.is_over.raw, 1);
        thread.join();
        watch.thread = null;
    }

    // --- internal ---

    fn main(watch: *Watch) void {
        const io = watch.local.io;
        const timeout: Io.Timeout = .{ .duration = .{
            .raw = .fromMilliseconds(look_ms),
            .clock = .awake,
        } };
        while (watch.is_over.load(.acquire) == 0) {
            if (watch.endsRanks()) {
                watch.local.abort();
                for (watch.endpoints) |endpoint| endpoint.abort();
                return;
            }
            io.futexWaitTimeout(u32, &watch.is_over.raw, 0, timeout) catch {};
        }
    }

    fn endsRanks(watch: *Watch) bool {
        if (watch.cancelled.load(.monotonic)) return true;
        if (watch.local.aborted.load(.acquire)) return true;
        const limit_ns = watch.local.hooks.stall_limit_ns;
        for (watch.endpoints) |endpoint| {
            const entered_ns = endpoint.enteredNs();
            if (entered_ns == 0) continue;
            if (endpoint.nowNs() - entered_ns <= limit_ns) continue;
            endpoint.is_stalled.store(true, .release);
            watch.local.reportUnanswered(endpoint.cuda.rank);
            return true;
        }
        return false;
    }
};
