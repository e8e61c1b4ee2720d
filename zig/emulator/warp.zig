//! Warp functions: shuffles, votes, matrix products. Lanes bring their operands; the last of those
//! that the mask names computes what all of them get (cuda/host/threads.h, mma.h).

const std = @import("std");
const block = @import("block.zig");

pub const lane_count = 32;

pub const Meeting = fn (operands: [*]const ?*anyopaque, present: u32) callconv(.c) void;

pub const Warp = struct {
    operands: [lane_count]?*anyopaque,
    /// Lanes at a meeting, and lanes that have not ended.
    waiting: u32,
    alive: u32,
    /// Of those that wait, one, and whether all came to its meeting: they then need no comparison.
    example: u5,
    do_all_agree: bool,

    /// `thread_count`: of the block, from this warp on.
    pub fn begin(warp: *Warp, thread_count: usize) void {
        warp.waiting = 0;
        warp.example = 0;
        warp.do_all_agree = true;
        warp.alive = if (thread_count >= lane_count)
            std.math.maxInt(u32)
        else
            (@as(u32, 1) << @intCast(thread_count)) - 1;
    }

    /// The lane that runs came to a meeting. True where it was the last: then all others are ready.
    pub fn arrive(warp: *Warp, lane: u5, operands: *anyopaque) bool {
        warp.operands[lane] = operands;
        if (warp.waiting == 0) {
            warp.example = lane;
            warp.do_all_agree = true;
        } else if (warp.do_all_agree) {
            const first = block.current / lane_count * lane_count;
            const example = &block.threads[first + @as(usize, warp.example)];
            warp.do_all_agree = areAlike(&block.threads[block.current], example);
        }
        warp.waiting |= @as(u32, 1) << lane;
        return warp.meet(lane, true);
    }

    /// A lane ended: the others no longer wait for it.
    pub fn leave(warp: *Warp, lane: usize) void {
        warp.alive &= ~(@as(u32, 1) << @intCast(lane));
        var left = warp.waiting;
        while (left != 0) {
            const waiting: u5 = @intCast(@ctz(left));
            left &= left - 1;
            if (warp.waiting >> waiting & 1 == 1) _ = warp.meet(waiting, false);
        }
    }

    /// Lanes that a mask names and that have ended are not waited for.
    fn meet(warp: *Warp, lane: u5, is_running: bool) bool {
        const first = block.current / lane_count * lane_count;
        const here = &block.threads[first + @as(usize, lane)];
        const wanted = here.mask & warp.alive;
        if (warp.waiting & wanted != wanted) return false;
        if (!warp.do_all_agree) checkAgreement(here, first, wanted);
        here.meeting.?(&warp.operands, wanted);
        warp.waiting &= ~wanted;
        var left = if (is_running) wanted & ~(@as(u32, 1) << lane) else wanted;
        while (left != 0) : (left &= left - 1) block.makeReady(first + @as(usize, @ctz(left)));
        if (is_running) here.progress = .ready;
        return true;
    }
};

// --- internal ---

fn areAlike(a: *const block.Thread, b: *const block.Thread) bool {
    return a.meeting == b.meeting and a.mask == b.mask and a.line == b.line;
}

/// Ends the block unless all `wanted` lanes of the warp that begins at thread `first` are where
/// `here` is.
fn checkAgreement(here: *const block.Thread, first: usize, wanted: u32) void {
    var left = wanted;
    while (left != 0) : (left &= left - 1) {
        const other = &block.threads[first + @as(usize, @ctz(left))];
        if (areAlike(other, here)) continue;
        block.fail(.launch_failed, "lanes of one warp are at line {d} with mask {x:0>8} and " ++
            "at line {d} with mask {x:0>8}", .{ here.line, here.mask, other.line, other.mask });
    }
}
