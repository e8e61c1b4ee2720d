//! Keeps the computing threads of this process running beside other programs, on Linux.
//!
//! The scheduler may leave two of them on one core for seconds, beside a core with a program of low
//! priority: a thread that finds another one on its core moves to a core without any (`enter`).
//! And a thread that was interrupted in a task waits for its core while those that have no task
//! left let theirs idle: they give it away first (`lend`). Affinity masks are as before afterwards,
//! so `taskset` and cpusets hold, and the scheduler remains free to move threads on.
//! Sources: Linux, sched_setaffinity(2), clock_getres(2), kernel/sched/core.c (affine_move_task).

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;

const core_count_max = 1024;
const word_bits = @bitSizeOf(usize);
const Mask = [core_count_max / word_bits]usize;
const is_supported = builtin.os.tag == .linux;

/// Time between two looks at a thread's CPU clock, which stands still while the thread waits for a
/// core.
const look_ns = 3000;

/// Interval at which a thread without a task looks whether one with a task waits for a core.
pub const nap_ns = 300 * std.time.ns_per_us;

const Count = struct { value: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0) };

/// Computing threads of this process by core, as each has last seen it.
var counts: [core_count_max]Count = @splat(.{});

const no_core = std.math.maxInt(u32);

/// A thread of several that share tasks.
pub const Seat = struct {
    /// Its kernel id; 0 while it has no task.
    thread: std.atomic.Value(i32) align(std.atomic.cache_line) = .init(0),
    /// Locks the thread's mask: two that read and write it at once might leave a narrower one.
    is_moving: std.atomic.Value(bool) = .init(false),
    /// Used by the thread itself.
    core: u32 = no_core,

    /// Before the thread takes a task: a thread that must wait for a core does so without one.
    pub fn enter(seat: *Seat) void {
        if (!is_supported) return;
        const core = currentCore() orelse return;
        if (core != seat.core) {
            seat.release();
            _ = counts[core].value.fetchAdd(1, .monotonic);
            seat.core = core;
        }
        if (counts[core].value.load(.monotonic) > 1) seat.moveToFreeCore();
        if (seat.thread.load(.monotonic) == 0) {
            seat.thread.store(@bitCast(std.Thread.getCurrentId()), .release);
        }
    }

    /// The thread has no task left.
    pub fn leave(seat: *Seat) void {
        if (!is_supported) return;
        seat.thread.store(0, .release);
        seat.release();
    }

    // --- internal ---

    fn release(seat: *Seat) void {
        if (seat.core == no_core) return;
        _ = counts[seat.core].value.fetchSub(1, .monotonic);
        seat.core = no_core;
    }

    fn moveToFreeCore(seat: *Seat) void {
        if (seat.is_moving.swap(true, .acquire)) return;
        defer seat.is_moving.store(false, .release);
        const allowed = maskOf(0) orelse return;
        const core = claimFree(&allowed) orelse return;
        seat.release();
        seat.core = core;
        moveTo(0, core, &allowed);
    }
};

/// Whether a thread of `seats` has a task. One that waits for a core moves to that of the caller,
/// which must sleep next.
pub fn lend(seats: []Seat) bool {
    if (!is_supported) return false;
    var has_any = false;
    for (seats) |*seat| {
        const thread = seat.thread.load(.acquire);
        if (thread == 0) continue;
        has_any = true;
        if (seat.is_moving.swap(true, .acquire)) continue;
        defer seat.is_moving.store(false, .release);
        if (!isWaiting(thread)) continue;
        const core = currentCore() orelse continue;
        const allowed = maskOf(thread) orelse continue;
        if (!has(&allowed, core) or seat.thread.load(.acquire) != thread) continue;
        moveTo(thread, core, &allowed);
        break;
    }
    return has_any;
}

/// Whether a thread with a task runs on no core.
fn isWaiting(thread: i32) bool {
    const before = cpuTime(thread) orelse return false;
    const start = monotonicTime();
    while (monotonicTime() -% start < look_ns) std.atomic.spinLoopHint();
    return before == cpuTime(thread) orelse return false;
}

fn cpuTime(thread: i32) ?u64 {
    // CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED, as in glibc's pthread_getcpuclockid.
    const clock: i32 = (~thread << 3) | 6;
    var time: linux.timespec = undefined;
    const clock_word: usize = @bitCast(@as(isize, clock));
    const result = linux.syscall2(.clock_gettime, clock_word, @intFromPtr(&time));
    if (linux.errno(result) != .SUCCESS) return null;
    return nanoseconds(time);
}

fn monotonicTime() u64 {
    var time: linux.timespec = undefined;
    if (linux.errno(linux.clock_gettime(.MONOTONIC, &time)) != .SUCCESS) return 0;
    return nanoseconds(time);
}

fn nanoseconds(time: linux.timespec) u64 {
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// 0: the calling thread.
fn maskOf(thread: i32) ?Mask {
    var mask: Mask = @splat(0);
    const id: usize = @bitCast(@as(isize, thread));
    const size = linux.syscall3(.sched_getaffinity, id, @sizeOf(Mask), @intFromPtr(&mask));
    return if (linux.errno(size) == .SUCCESS) mask else null;
}

/// The thread moves at once, and may be moved on from there.
fn moveTo(thread: i32, core: u32, allowed: *const Mask) void {
    var only: Mask = @splat(0);
    only[core / word_bits] = @as(usize, 1) << @intCast(core % word_bits);
    const id: usize = @bitCast(@as(isize, thread));
    for ([_]*const Mask{ &only, allowed }) |mask| {
        _ = linux.syscall3(.sched_setaffinity, id, @sizeOf(Mask), @intFromPtr(mask));
    }
}

/// An allowed core without a computing thread, counted as the caller's.
fn claimFree(allowed: *const Mask) ?u32 {
    for (&counts, 0..) |*count, core| {
        if (!has(allowed, core)) continue;
        const before = count.value.cmpxchgStrong(0, 1, .monotonic, .monotonic);
        if (before == null) return @intCast(core);
    }
    return null;
}

fn has(mask: *const Mask, core: usize) bool {
    return mask[core / word_bits] >> @intCast(core % word_bits) & 1 == 1;
}

fn currentCore() ?u32 {
    const core = sched_getcpu();
    return if (core < 0 or core >= core_count_max) null else @intCast(core);
}

extern "c" fn sched_getcpu() c_int;

test "a thread leaves a core with another one, and its mask is as before" {
    if (!is_supported) return error.SkipZigTest;
    const before = maskOf(0) orelse return error.SkipZigTest;
    var seat: Seat = .{};
    seat.enter();
    const first = seat.core;
    seat.enter();
    try std.testing.expect(seat.core == first or counts[first].value.load(.monotonic) == 0);
    // As if another thread were on every core but one.
    const free = lastOf(&before);
    for (&counts, 0..) |*count, core| {
        if (core != free) _ = count.value.fetchAdd(1, .monotonic);
    }
    seat.enter();
    try std.testing.expectEqual(free, seat.core);
    try std.testing.expectEqual(before, maskOf(0));
    seat.leave();
    for (&counts, 0..) |*count, core| {
        if (core != free) _ = count.value.fetchSub(1, .monotonic);
    }
    for (&counts) |*count| try std.testing.expectEqual(0, count.value.load(.monotonic));
}

test "a thread bound to a core stays there" {
    if (!is_supported) return error.SkipZigTest;
    const before = maskOf(0) orelse return error.SkipZigTest;
    const core = lastOf(&before);
    var only: Mask = @splat(0);
    only[core / word_bits] = @as(usize, 1) << @intCast(core % word_bits);
    moveTo(0, core, &only);
    defer moveTo(0, core, &before);
    _ = counts[core].value.fetchAdd(1, .monotonic);
    defer _ = counts[core].value.fetchSub(1, .monotonic);
    var seat: Seat = .{};
    seat.enter();
    defer seat.leave();
    try std.testing.expectEqual(core, seat.core);
    try std.testing.expectEqual(core, currentCore());
    try std.testing.expectEqual(only, maskOf(0));
}

const Sleeper = struct {
    seat: [1]Seat = .{.{}},
    ready: std.Io.Event = .unset,
    done: std.Io.Event = .unset,
    mask: ?Mask = null,

    /// Enters, sleeps with its task as a thread that waits for a core, and leaves.
    fn run(sleeper: *Sleeper) void {
        sleeper.seat[0].enter();
        sleeper.ready.set(std.testing.io);
        sleeper.done.waitUncancelable(std.testing.io);
        sleeper.mask = maskOf(0);
        sleeper.seat[0].leave();
    }
};

test "a thread that waits with a task keeps its mask when it gets another's core" {
    if (!is_supported) return error.SkipZigTest;
    const before = maskOf(0) orelse return error.SkipZigTest;
    var sleeper: Sleeper = .{};
    try std.testing.expect(!lend(&sleeper.seat));
    const thread = try std.Thread.spawn(.{}, Sleeper.run, .{&sleeper});
    sleeper.ready.waitUncancelable(std.testing.io);
    for (0..50) |_| try std.testing.expect(lend(&sleeper.seat));
    sleeper.done.set(std.testing.io);
    thread.join();
    try std.testing.expectEqual(before, sleeper.mask);
    try std.testing.expect(!lend(&sleeper.seat));
}

fn lastOf(mask: *const Mask) u32 {
    var last: u32 = 0;
    for (0..core_count_max) |core| {
        if (has(mask, core)) last = @intCast(core);
    }
    return last;
}
