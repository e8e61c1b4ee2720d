//! The ranks of one process at one job: fibres where they share cores, else a thread each.

const std = @import("std");
const assert = std.debug.assert;
const Job = @import("job.zig").Job;
const layouts = @import("../patch/layout.zig");
const Plan = @import("plan.zig").Plan;
const RankStates = @import("rank_states.zig").RankStates;
const sessions = @import("../session.zig");
const transports = @import("../transport.zig");

pub const Shift = struct {
    session: *sessions.Session,
    job: *Job,
    plan: *const Plan,
    rank_states: RankStates,
    loopback: *transports.Loopback,
    failures: [layouts.rank_count_max]?sessions.Error = @splat(null),

    /// Returns when all have ended; `failures` tells how.
    pub fn run(shift: *Shift) void {
        const fibers = shift.loopback.fibers orelse return shift.runThreads();
        assert(shift.loopback.here.first == 0);
        fibers.run(shift.loopback.here.count(), shift, runFibre);
    }

    // --- internal ---

    fn runFibre(context: *anyopaque, rank: usize) void {
        const shift: *Shift = @ptrCast(@alignCast(context));
        shift.runRank(@intCast(rank));
    }

    /// The first on this thread, the others on threads of their own.
    fn runThreads(shift: *Shift) void {
        const here = shift.loopback.here;
        var threads: [layouts.rank_count_max]std.Thread = undefined;
        var started: u32 = here.first + 1;
        while (started < here.end) : (started += 1) {
            threads[started] = std.Thread.spawn(.{}, runRank, .{ shift, started }) catch {
                shift.failures[here.first] = error.ThreadsUnavailable;
                shift.loopback.abort();
                break;
            };
        }
        if (shift.failures[here.first] == null) shift.runRank(here.first);
        for (threads[here.first + 1 .. started]) |thread| thread.join();
    }

    fn runRank(shift: *Shift, index: u32) void {
        const port: transports.Transport = .portOf(shift.loopback, index);
        const failure = &shift.failures[index];
        shift.session.runRank(shift.job, shift.plan, shift.rank_states, port, index, failure);
    }
};
