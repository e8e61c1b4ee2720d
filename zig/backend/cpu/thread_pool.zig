//! The threads of one rank: the caller and its helpers share the tasks of one operation at a time.
//! A helper joins only while tasks are left, so the caller never waits for a thread that the
//! operating system has not woken yet, and small operations cost what they cost on one thread.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const arguments = @import("arguments.zig");
const cores = @import("../../system/cores.zig");
const huge_pages = @import("../../system/huge_pages.zig");

/// Looks at the state word before a thread sleeps: some 30 microseconds, the pause between two
/// operations. None when there are more threads than cores: looking would then cost someone's work.
const spin_count_max = 1000;
const stack_bytes = 1 << 20;

/// Threads of all teams of this process, callers included.
var threads_alive: std.atomic.Value(usize) = .init(0);

/// What helpers wait on: the number of the operation, whether it still has tasks, who works on it.
const State = packed struct(u32) { active: u15 = 0, open: bool = false, generation: u16 = 0 };

pub const Team = struct {
    gpa: Allocator,
    io: Io,
    cancelled: *const std.atomic.Value(bool),
    thread_count: usize,
    core_count: usize,
    helpers: []std.Thread,
    workspaces: []align(64) u8,
    workspace_bytes: usize,

    state: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0),
    /// Helpers asleep on `state`, or about to be.
    sleeping: std.atomic.Value(u32) = .init(0),
    caller_waits: std.atomic.Value(bool) = .init(false),
    stopping: std.atomic.Value(bool) = .init(false),
    next_task: std.atomic.Value(usize) align(std.atomic.cache_line) = .init(0),

    // The operation; written before `state` opens, read after joining.
    kernel: arguments.Kernel = undefined,
    args: *const anyopaque = undefined,
    task_count: usize = 0,

    pub const Options = struct {
        thread_count: usize,
        workspace_bytes: usize,
        cancelled: *const std.atomic.Value(bool),
    };

    /// `team` must not move. One thread means that the caller works alone.
    pub fn init(team: *Team, gpa: Allocator, io: Io, options: Options) !void {
        const count = @max(1, options.thread_count);
        const bytes = std.mem.alignForward(usize, options.workspace_bytes, 4096);
        const workspaces = try huge_pages.alloc(gpa, count * bytes);
        errdefer huge_pages.free(gpa, workspaces);
        // Unused corners of a tile are computed and thrown away: let them be ordinary numbers.
        @memset(workspaces, 0);
        const helpers = try gpa.alloc(std.Thread, count - 1);
        errdefer gpa.free(helpers);
        team.* = .{
            .gpa = gpa,
            .io = io,
            .cancelled = options.cancelled,
            .thread_count = count,
            .core_count = cores.count(io),
            .helpers = helpers,
            .workspaces = workspaces,
            .workspace_bytes = bytes,
        };
        var started: usize = 0;
        errdefer team.stop(started);
        for (helpers, 0..) |*helper, i| {
            helper.* = try std.Thread.spawn(.{ .stack_size = stack_bytes }, work, .{ team, i + 1 });
            started += 1;
        }
        _ = threads_alive.fetchAdd(count, .monotonic);
    }

    pub fn deinit(team: *Team) void {
        _ = threads_alive.fetchSub(team.thread_count, .monotonic);
        team.stop(team.helpers.len);
        team.gpa.free(team.helpers);
        huge_pages.free(team.gpa, team.workspaces);
        team.* = undefined;
    }

    /// Does tasks 0..task_count, each once, in any order, on any thread; returns when all are done.
    /// Cancelled: some may not have been done, and none is running any more.
    pub fn run(
        team: *Team,
        kernel: arguments.Kernel,
        args: *const anyopaque,
        task_count: usize,
    ) error{Cancelled}!void {
        team.kernel = kernel;
        team.args = args;
        team.task_count = task_count;
        team.next_task.store(0, .monotonic);
        const shared = task_count > 1 and team.helpers.len > 0;
        if (shared) team.open(task_count - 1);
        team.claim(0);
        if (shared) team.close();
        if (team.cancelled.load(.monotonic)) return error.Cancelled;
    }

    /// Memory for kernels that a crew's thread runs, while no operation of this team does.
    pub fn callerWorkspace(team: *const Team) [*]align(64) u8 {
        return @alignCast(team.workspaces.ptr);
    }

    // --- internal ---

    fn open(team: *Team, useful_count: usize) void {
        const before: State = @bitCast(team.state.load(.monotonic));
        const state: State = .{ .open = true, .generation = before.generation +% 1 };
        team.state.store(@bitCast(state), .seq_cst);
        // Either a helper sees the new state before it sleeps, or it is counted here.
        if (team.sleeping.load(.seq_cst) == 0) return;
        const wake_count: u32 = @intCast(@min(useful_count, team.helpers.len));
        team.io.futexWake(u32, &team.state.raw, wake_count);
    }

    /// Lets nobody join any more and waits for those who did.
    fn close(team: *Team) void {
        const open_bit: u32 = @bitCast(State{ .open = true });
        var value = team.state.fetchAnd(~open_bit, .acquire) & ~open_bit;
        var spins: usize = team.spinCount();
        while (@as(State, @bitCast(value)).active > 0) {
            if (spins > 0) {
                spins -= 1;
                std.atomic.spinLoopHint();
            } else {
                team.caller_waits.store(true, .seq_cst);
                value = team.state.load(.seq_cst);
                if (@as(State, @bitCast(value)).active == 0) break;
                team.io.futexWaitUncancelable(u32, &team.state.raw, value);
            }
            value = team.state.load(.acquire);
        }
        team.caller_waits.store(false, .monotonic);
    }

    fn claim(team: *Team, thread_index: usize) void {
        const workspace = team.workspaces[thread_index * team.workspace_bytes ..].ptr;
        while (!team.cancelled.load(.monotonic)) {
            const task = team.next_task.fetchAdd(1, .monotonic);
            if (task >= team.task_count) return;
            team.kernel(team.args, task, @alignCast(workspace));
        }
    }

    fn work(team: *Team, thread_index: usize) void {
        var seen: u16 = 0;
        while (true) {
            const value = team.waitForTasks(seen) orelse return;
            // Joining fails if the state moved on: look again.
            if (team.state.cmpxchgWeak(value, value + 1, .acquire, .monotonic) != null) continue;
            seen = @as(State, @bitCast(value)).generation;
            team.claim(thread_index);
            _ = team.state.fetchSub(1, .seq_cst);
            if (team.caller_waits.load(.seq_cst)) {
                team.io.futexWake(u32, &team.state.raw, std.math.maxInt(u32));
            }
        }
    }

    /// The state of an open operation other than `seen`; null when the team stops.
    fn waitForTasks(team: *Team, seen: u16) ?u32 {
        var spins: usize = team.spinCount();
        while (true) {
            // In this order: who sees the word that `stop` writes must see that the team stops,
            // or it would sleep on that very word.
            const value = team.state.load(.acquire);
            if (team.stopping.load(.acquire)) return null;
            const state: State = @bitCast(value);
            if (state.open and state.generation != seen) return value;
            if (spins > 0) {
                spins -= 1;
                std.atomic.spinLoopHint();
                continue;
            }
            _ = team.sleeping.fetchAdd(1, .seq_cst);
            team.io.futexWaitUncancelable(u32, &team.state.raw, value);
            _ = team.sleeping.fetchSub(1, .monotonic);
        }
    }

    fn spinCount(team: *const Team) usize {
        return if (threads_alive.load(.monotonic) > team.core_count) 0 else spin_count_max;
    }

    fn stop(team: *Team, helper_count: usize) void {
        team.stopping.store(true, .release);
        // The word must change, or a helper about to sleep would miss this.
        const before: State = @bitCast(team.state.load(.monotonic));
        const state: State = .{ .generation = before.generation +% 1 };
        team.state.store(@bitCast(state), .seq_cst);
        team.io.futexWake(u32, &team.state.raw, std.math.maxInt(u32));
        for (team.helpers[0..helper_count]) |helper| helper.join();
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
        var team: Team = undefined;
        try team.init(std.testing.allocator, std.testing.io, .{
            .thread_count = thread_count,
            .workspace_bytes = 64,
            .cancelled = &cancelled,
        });
        defer team.deinit();
        @memset(counts, .init(0));
        const args: TestArgs = .{ .counts = counts };
        var expected: u32 = 0;
        for ([_]usize{ 1, 2, 1000, 7 } ** 50) |task_count| {
            try team.run(countTask, &args, task_count);
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

test "a cancelled operation stops between tasks, and the team lives on" {
    var cancelled: std.atomic.Value(bool) = .init(false);
    var done: std.atomic.Value(u32) = .init(0);
    var team: Team = undefined;
    try team.init(std.testing.allocator, std.testing.io, .{
        .thread_count = 2,
        .workspace_bytes = 64,
        .cancelled = &cancelled,
    });
    defer team.deinit();
    const args: CancelArgs = .{ .cancelled = &cancelled, .done = &done };
    try std.testing.expectError(error.Cancelled, team.run(cancelTask, &args, 1_000_000));
    try std.testing.expect(done.load(.monotonic) < 1_000_000);
    try std.testing.expectError(error.Cancelled, team.run(cancelTask, &args, 1));
    cancelled.store(false, .monotonic);
    try team.run(cancelTask, &args, 5);
}
