//! Thread pool of one rank: the caller and its workers share the tasks of one operation at a time.
//! A worker joins only while tasks are left, so the caller never waits for a thread that the
//! operating system has not woken yet, and small operations cost no more than on one thread.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const arguments = @import("arguments.zig");
const cores = @import("../../system/cores.zig");
const huge_pages = @import("../../system/huge_pages.zig");
const placement = @import("../../system/placement.zig");

/// Spins on the state word before a thread sleeps: some 30 microseconds, the pause between two
/// operations. None when there are more threads than cores: spinning would take a core from others.
const spin_count_max = 1000;
const stack_bytes = 1 << 20;

/// Threads of all pools of this process, callers included.
var threads_alive: std.atomic.Value(usize) = .init(0);

/// State word (futex) of the workers: operation number, whether tasks are left, number of workers.
const State = packed struct(u32) { active: u15 = 0, open: bool = false, generation: u16 = 0 };

pub const ThreadPool = struct {
    gpa: Allocator,
    io: Io,
    cancelled: *const std.atomic.Value(bool),
    thread_count: usize,
    core_count: usize,
    is_fiber: bool,
    workers: []std.Thread,
    workspaces: []align(64) u8,
    workspace_bytes: usize,
    /// By thread, the caller's first.
    seats: []placement.Seat,

    state: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0),
    /// Workers asleep on `state`, or about to be.
    sleeping: std.atomic.Value(u32) = .init(0),
    caller_waits: std.atomic.Value(bool) = .init(false),
    stopping: std.atomic.Value(bool) = .init(false),
    next_task: std.atomic.Value(usize) align(std.atomic.cache_line) = .init(0),

    // The operation: written before `state` is opened, read after joining.
    kernel: arguments.Kernel = undefined,
    args: *const anyopaque = undefined,
    task_count: usize = 0,

    pub const Options = struct {
        thread_count: usize,
        workspace_bytes: usize,
        /// Whether its caller shares a thread with others: `RankFibers` places that thread.
        is_fiber: bool = false,
        cancelled: *const std.atomic.Value(bool),
    };

    /// `pool` must not move. One thread means that the caller works alone.
    pub fn init(pool: *ThreadPool, gpa: Allocator, io: Io, options: Options) !void {
        const count = @max(1, options.thread_count);
        const bytes = std.mem.alignForward(usize, options.workspace_bytes, 4096);
        const workspaces = try huge_pages.alloc(gpa, count * bytes);
        errdefer huge_pages.free(gpa, workspaces);
        // Unused corners of a tile are computed and discarded: initialise them to normal numbers.
        @memset(workspaces, 0);
        const workers = try gpa.alloc(std.Thread, count - 1);
        errdefer gpa.free(workers);
        const seats = try gpa.alloc(placement.Seat, count);
        errdefer gpa.free(seats);
        @memset(seats, .{});
        pool.* = .{
            .gpa = gpa,
            .io = io,
            .cancelled = options.cancelled,
            .thread_count = count,
            .core_count = cores.count(io),
            .is_fiber = options.is_fiber,
            .workers = workers,
            .workspaces = workspaces,
            .workspace_bytes = bytes,
            .seats = seats,
        };
        var started: usize = 0;
        errdefer pool.stop(started);
        for (workers, 0..) |*worker, i| {
            worker.* = try std.Thread.spawn(.{ .stack_size = stack_bytes }, work, .{ pool, i + 1 });
            started += 1;
        }
        _ = threads_alive.fetchAdd(count, .monotonic);
    }

    pub fn deinit(pool: *ThreadPool) void {
        _ = threads_alive.fetchSub(pool.thread_count, .monotonic);
        pool.stop(pool.workers.len);
        pool.gpa.free(pool.workers);
        pool.gpa.free(pool.seats);
        huge_pages.free(pool.gpa, pool.workspaces);
        pool.* = undefined;
    }

    /// Runs tasks 0..task_count, each once, in any order, on any thread; returns when all are done.
    /// `Cancelled`: some tasks may not have run, and none is running any more.
    pub fn run(
        pool: *ThreadPool,
        kernel: arguments.Kernel,
        args: *const anyopaque,
        task_count: usize,
    ) error{Cancelled}!void {
        pool.kernel = kernel;
        pool.args = args;
        pool.task_count = task_count;
        pool.next_task.store(0, .monotonic);
        const shared = task_count > 1 and pool.workers.len > 0;
        if (shared) pool.open(task_count - 1);
        pool.claim(0);
        if (shared) pool.close();
        if (pool.cancelled.load(.monotonic)) return error.Cancelled;
    }

    /// Workspace for kernels on a thread of `RankFibers`, while this pool runs no operation.
    pub fn callerWorkspace(pool: *const ThreadPool) [*]align(64) u8 {
        return @alignCast(pool.workspaces.ptr);
    }

    // --- internal ---

    fn open(pool: *ThreadPool, useful_count: usize) void {
        const before: State = @bitCast(pool.state.load(.monotonic));
        const state: State = .{ .open = true, .generation = before.generation +% 1 };
        pool.state.store(@bitCast(state), .seq_cst);
        // Either a worker sees the new state before it sleeps, or it is counted here.
        if (pool.sleeping.load(.seq_cst) == 0) return;
        const wake_count: u32 = @intCast(@min(useful_count, pool.workers.len));
        pool.io.futexWake(u32, &pool.state.raw, wake_count);
    }

    /// Closes the operation to further workers and waits for those that joined.
    fn close(pool: *ThreadPool) void {
        const open_bit: u32 = @bitCast(State{ .open = true });
        var value = pool.state.fetchAnd(~open_bit, .acquire) & ~open_bit;
        var spins: usize = pool.spinCount();
        while (@as(State, @bitCast(value)).active > 0) {
            if (spins > 0) {
                spins -= 1;
                std.atomic.spinLoopHint();
            } else {
                pool.caller_waits.store(true, .seq_cst);
                value = pool.state.load(.seq_cst);
                if (@as(State, @bitCast(value)).active == 0) break;
                pool.sleep(value);
            }
            value = pool.state.load(.acquire);
        }
        pool.caller_waits.store(false, .monotonic);
    }

    fn claim(pool: *ThreadPool, thread_index: usize) void {
        const workspace = pool.workspaces[thread_index * pool.workspace_bytes ..].ptr;
        const seat = &pool.seats[thread_index];
        const is_placed = pool.isPlaced();
        defer if (is_placed) seat.leave();
        while (!pool.cancelled.load(.monotonic)) {
            if (is_placed) seat.enter();
            const task = pool.next_task.fetchAdd(1, .monotonic);
            if (task >= pool.task_count) return;
            pool.kernel(pool.args, task, @alignCast(workspace));
        }
    }

    fn work(pool: *ThreadPool, thread_index: usize) void {
        var seen: u16 = 0;
        while (true) {
            const value = pool.waitForTasks(seen) orelse return;
            // Joining fails if the state has changed: read it again.
            if (pool.state.cmpxchgWeak(value, value + 1, .acquire, .monotonic) != null) continue;
            seen = @as(State, @bitCast(value)).generation;
            pool.claim(thread_index);
            _ = pool.state.fetchSub(1, .seq_cst);
            if (pool.caller_waits.load(.seq_cst)) {
                pool.io.futexWake(u32, &pool.state.raw, std.math.maxInt(u32));
            }
        }
    }

    /// The state of an open operation other than `seen`; null when the pool stops.
    fn waitForTasks(pool: *ThreadPool, seen: u16) ?u32 {
        var spins: usize = pool.spinCount();
        while (true) {
            // Read in this order: a worker that sees the word written by `stop` must also see that
            // the pool stops, or it would sleep on that word.
            const value = pool.state.load(.acquire);
            if (pool.stopping.load(.acquire)) return null;
            const state: State = @bitCast(value);
            if (state.open and state.generation != seen) return value;
            if (spins > 0) {
                spins -= 1;
                std.atomic.spinLoopHint();
                continue;
            }
            _ = pool.sleeping.fetchAdd(1, .seq_cst);
            pool.sleep(value);
            _ = pool.sleeping.fetchSub(1, .monotonic);
        }
    }

    /// Until the state word differs from `value`, or for a while: threads with tasks may need this
    /// one's core meanwhile.
    fn sleep(pool: *ThreadPool, value: u32) void {
        const is_working = pool.isPlaced() and placement.lend(pool.seats);
        if (!is_working) return pool.io.futexWaitUncancelable(u32, &pool.state.raw, value);
        const nap: Io.Duration = .fromNanoseconds(placement.nap_ns);
        const timeout: Io.Timeout = .{ .duration = .{ .raw = nap, .clock = .awake } };
        pool.io.futexWaitTimeout(u32, &pool.state.raw, value, timeout) catch {};
    }

    fn spinCount(pool: *const ThreadPool) usize {
        return if (pool.haveCores()) spin_count_max else 0;
    }

    fn isPlaced(pool: *const ThreadPool) bool {
        return !pool.is_fiber and pool.haveCores();
    }

    /// Whether there is a core for every thread.
    fn haveCores(pool: *const ThreadPool) bool {
        return threads_alive.load(.monotonic) <= pool.core_count;
    }

    fn stop(pool: *ThreadPool, worker_count: usize) void {
        pool.stopping.store(true, .release);
        // Change the word, or a worker about to sleep would miss the stop.
        const before: State = @bitCast(pool.state.load(.monotonic));
        const state: State = .{ .generation = before.generation +% 1 };
        pool.state.store(@bitCast(state), .seq_cst);
        pool.io.futexWake(u32, &pool.state.raw, std.math.maxInt(u32));
        for (pool.workers[0..worker_count]) |worker| worker.join();
    }
};

const TestArgs = struct { counts: []std.atomic.Value(u32) };

fn countTask(args: *const anyopaque, task: usize, workspace: [*]align(64) u8) callconv(.c) void {
    const test_args: *const TestArgs = @ptrCast(@alignCast(args));
    workspace[task % 64] +%= 1;
    _ = test_args.counts[task].fetchAdd(1, .monotonic);
}

test "every task is done once, for any number of threads" {
    const counts = try std.testing.allocator.alloc(std.atomic.Value(u32), 1000);
    defer std.testing.allocator.free(counts);
    const cancelled: std.atomic.Value(bool) = .init(false);
    for ([_]usize{ 1, 2, 3, 9 }) |thread_count| {
        var pool: ThreadPool = undefined;
        try pool.init(std.testing.allocator, std.testing.io, .{
            .thread_count = thread_count,
            .workspace_bytes = 64,
            .cancelled = &cancelled,
        });
        defer pool.deinit();
        @memset(counts, .init(0));
        const args: TestArgs = .{ .counts = counts };
        var expected: u32 = 0;
        for ([_]usize{ 1, 2, 1000, 7 } ** 50) |task_count| {
            try pool.run(countTask, &args, task_count);
            expected += 1;
            try std.testing.expectEqual(expected, counts[0].load(.monotonic));
        }
        try std.testing.expectEqual(50, counts[999].load(.monotonic));
        try std.testing.expectEqual(100, counts[6].load(.monotonic));
    }
}

const CancelArgs = struct { cancelled: *std.atomic.Value(bool), done: *std.atomic.Value(u32) };

fn cancelTask(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const cancel_args: *const CancelArgs = @ptrCast(@alignCast(args));
    if (task == 10) cancel_args.cancelled.store(true, .monotonic);
    _ = cancel_args.done.fetchAdd(1, .monotonic);
}

test "a cancelled operation stops between tasks, and the pool lives on" {
    var cancelled: std.atomic.Value(bool) = .init(false);
    var done: std.atomic.Value(u32) = .init(0);
    var pool: ThreadPool = undefined;
    try pool.init(std.testing.allocator, std.testing.io, .{
        .thread_count = 2,
        .workspace_bytes = 64,
        .cancelled = &cancelled,
    });
    defer pool.deinit();
    const args: CancelArgs = .{ .cancelled = &cancelled, .done = &done };
    try std.testing.expectError(error.Cancelled, pool.run(cancelTask, &args, 1_000_000));
    try std.testing.expect(done.load(.monotonic) < 1_000_000);
    try std.testing.expectError(error.Cancelled, pool.run(cancelTask, &args, 1));
    cancelled.store(false, .monotonic);
    try pool.run(cancelTask, &args, 5);
}
