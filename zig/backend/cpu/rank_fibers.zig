//! Cooperative scheduler for more ranks than cores. As threads, each rank would pack every weight
//! for its few rows, and ranks on one core would evict each other's blocks from its caches. So
//! ranks run as fibers on one thread per core, and a rank that reaches a large GEMM waits for the
//! others: GEMMs with the same weights are batched over all threads, and each weight is packed
//! once.
//!
//! A GEMM starts with the ranks that have reached it as soon as no other fiber can make progress;
//! it never waits for all ranks.

const std = @import("std");
const assert = std.debug.assert;
const Io = std.Io;
const arguments = @import("arguments.zig");
const blocks = @import("blocks.zig");
const Product = arguments.Product;
const cores = @import("../../system/cores.zig");
const fibres = @import("../../system/fibre.zig");
const placement = @import("../../system/placement.zig");
const ThreadPool = @import("thread_pool.zig").ThreadPool;

/// Stack size, as of a thread; untouched pages cost nothing.
const stack_bytes = 16 << 20;
/// Guard below each stack: a stack overflow ends in a signal instead of corrupting another stack.
/// Wider than the largest local.
const guard_bytes = 1 << 20;
/// Interval at which a waiting fiber checks whether other ranks failed.
const nap_ns = 50 * std.time.ns_per_ms;
/// Spins before a thread sleeps: some 60 microseconds, the time of other fibers between two GEMMs.
/// None where there are more threads than cores.
const spin_count_max = 2000;

pub const RankFibers = struct {
    pub const member_count_max = arguments.together_max;

    io: Io,
    cancelled: *const std.atomic.Value(bool),
    thread_count: usize,
    spin_count: usize,
    /// Thread pools by rank, for kernel workspaces: a thread uses that of its first fiber.
    pools: [member_count_max]*const ThreadPool = undefined,
    stacks: [member_count_max]Stack = undefined,
    /// By stack, for valgrind.
    stack_ids: [member_count_max]usize = undefined,
    stack_count: usize = 0,
    /// CPU time of each rank: of its fiber, and of batched GEMMs its part of the rows. Written by
    /// the thread that runs the fiber, or under the mutex while the fiber waits for a GEMM.
    own_ns: [member_count_max]u64 = @splat(0),
    /// By thread; unused where there are more threads than cores.
    seats: [member_count_max]placement.Seat = @splat(.{}),
    is_placed: bool,

    /// Incremented whenever a fiber may have become runnable.
    news_count: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),
    mutex: Io.Mutex = .init,

    // Protected by the mutex.
    members: [member_count_max]Member = undefined,
    member_count: usize = 0,
    /// Threads that currently run a fiber.
    running_count: usize = 0,
    /// Threads that run tasks of the batched GEMM, and whether others may join.
    working_count: usize = 0,
    has_tasks: bool = false,

    // The batched GEMM: constant while threads work on it.
    first: *const Work = undefined,
    together: [member_count_max]*Member = undefined,
    together_count: usize = 0,
    /// Their rows, and the CPU time of the threads that have left it (under the mutex).
    together_rows: usize = 0,
    together_ns: u64 = 0,
    task_count: usize = 0,
    next_task: std.atomic.Value(usize) align(std.atomic.cache_line) = .init(0),

    const Stack = []align(std.heap.page_size_min) u8;

    /// Entry function of each rank's fiber.
    pub const Entry = *const fn (context: *anyopaque, rank: usize) void;

    /// A GEMM that a rank has reached; on the stack of its fiber.
    pub const Work = struct {
        kernel: arguments.Kernel,
        args: *const anyopaque,
        /// Points into `args`.
        product: *Product,
        /// Number of phases, each of which runs all tasks of `product` (`arguments.Convolution`).
        phases: usize,
        limits: arguments.BlockLimits,

        fn isLike(work: *const Work, other: *const Work) bool {
            return work.kernel == other.kernel and work.phases == other.phases and
                work.product.weight == other.product.weight and
                work.product.columns == other.product.columns and
                work.product.depth == other.product.depth;
        }
    };

    /// Condition of a waiting fiber: `value` has reached `count`, a rank has failed, or a deadline.
    const Wait = struct {
        value: *const std.atomic.Value(u64),
        count: u64,
        aborted: *const std.atomic.Value(bool),
        until_ns: i96,

        fn isOver(wait: *const Wait) bool {
            return wait.value.load(.acquire) >= wait.count or wait.aborted.load(.acquire);
        }
    };

    const State = union(enum) {
        ready,
        running,
        waits: Wait,
        /// Waits at a GEMM that has not started.
        multiplies: *const Work,
        /// Waits at a GEMM that is running.
        served,
        ended,
    };

    /// A rank's fiber; always on the same thread, so that thread-local state stays valid.
    const Member = struct {
        rank: usize,
        thread: usize,
        entry: Entry,
        context: *anyopaque,
        state: State = .ready,
        /// State to enter once its thread has switched away.
        next_state: State = .ready,
        /// Number of GEMMs that it has reached; the lowest is furthest behind.
        product_count: u64 = 0,
        /// Of the GEMM that it waits at.
        rows: usize = 0,
        /// CPU time of its thread when it began to run.
        entered_ns: u64 = 0,
        /// Saved stack pointers of the fiber and of its thread.
        saved: usize,
        home: usize = 0,
        watched: fibres.Watched,
        watched_home: fibres.Watched,

        fn leave(member: *Member, state: State) void {
            member.next_state = state;
            member.watched_home.enter();
            fibres.switchTo(&member.saved, member.home);
        }
    };

    /// `fibers` must not move.
    pub fn init(fibers: *RankFibers, options: struct {
        io: Io,
        cancelled: *const std.atomic.Value(bool),
        thread_count: usize,
        rank_count: usize,
    }) error{OutOfMemory}!void {
        assert(options.thread_count < options.rank_count);
        assert(options.rank_count <= member_count_max);
        const core_count = cores.count(options.io);
        fibers.* = .{
            .io = options.io,
            .cancelled = options.cancelled,
            .thread_count = options.thread_count,
            .spin_count = if (options.thread_count > core_count) 0 else spin_count_max,
            .is_placed = options.thread_count <= core_count,
        };
        errdefer fibers.deinit();
        while (fibers.stack_count < options.rank_count) : (fibers.stack_count += 1) {
            const stack = mapStack() catch return error.OutOfMemory;
            fibers.stacks[fibers.stack_count] = stack;
            fibers.stack_ids[fibers.stack_count] = fibres.announce(stack);
        }
    }

    pub fn deinit(fibers: *RankFibers) void {
        const count = fibers.stack_count;
        for (fibers.stacks[0..count], fibers.stack_ids[0..count]) |stack, id| {
            fibres.forget(id);
            std.posix.munmap(stack);
        }
        fibers.* = undefined;
    }

    /// Calls `entry` for each of the ranks 0 to `count`, as fibers on this thread and further ones;
    /// returns when all have returned.
    pub fn run(fibers: *RankFibers, count: usize, context: *anyopaque, entry: Entry) void {
        assert(count <= fibers.stack_count);
        for (fibers.members[0..count], fibers.stacks[0..count], 0..) |*member, stack, rank| {
            member.* = .{
                .rank = rank,
                .thread = rank % fibers.thread_count,
                .entry = entry,
                .context = context,
                .saved = fibres.prepare(@intFromPtr(stack.ptr) + stack.len, beginMember),
                .watched = .init(),
                .watched_home = undefined,
            };
        }
        defer for (fibers.members[0..count]) |*member| member.watched.deinit();
        fibers.member_count = count;
        var threads: [member_count_max]std.Thread = undefined;
        var started: usize = 1;
        while (started < fibers.thread_count) : (started += 1) {
            threads[started] = std.Thread.spawn(.{}, serve, .{ fibers, started }) catch break;
        }
        fibers.reassign(started);
        fibers.serve(0);
        for (threads[1..started]) |thread| thread.join();
        fibers.member_count = 0;
    }

    /// Whether the rank currently runs as a fiber.
    pub fn has(fibers: *const RankFibers, rank: usize) bool {
        return rank < fibers.member_count;
    }

    /// CPU time of a rank so far; the rank's fiber calls it.
    pub fn ownNs(fibers: *const RankFibers, rank: usize) u64 {
        return fibers.own_ns[rank] + threadNs(fibers.io) - fibers.members[rank].entered_ns;
    }

    /// Returns when `value` has grown to `count`, when `aborted` is set, or after a while.
    pub fn waitFor(
        fibers: *RankFibers,
        rank: usize,
        value: *const std.atomic.Value(u64),
        count: u64,
        aborted: *const std.atomic.Value(bool),
    ) void {
        fibers.members[rank].leave(.{ .waits = .{
            .value = value,
            .count = count,
            .aborted = aborted,
            .until_ns = fibers.now() + nap_ns,
        } });
    }

    /// Wakes waiters after a value has grown or a rank has failed.
    pub fn notify(fibers: *RankFibers) void {
        _ = fibers.news_count.fetchAdd(1, .seq_cst);
        if (fibers.sleepers.load(.seq_cst) == 0) return;
        fibers.io.futexWake(u32, &fibers.news_count.raw, member_count_max);
    }

    /// Returns when the rank's GEMM is done. `Cancelled`: some tasks may not have run, and none is
    /// running any more.
    pub fn multiply(fibers: *RankFibers, rank: usize, product: Work) error{Cancelled}!void {
        const member = &fibers.members[rank];
        member.product_count += 1;
        member.leave(.{ .multiplies = &product });
        if (fibers.cancelled.load(.monotonic)) return error.Cancelled;
    }

    // --- internal ---

    fn mapStack() !Stack {
        const mapping = try std.posix.mmap(
            null,
            guard_bytes + stack_bytes,
            .{ .READ = true, .WRITE = true },
            .{ .TYPE = .PRIVATE, .ANONYMOUS = true },
            -1,
            0,
        );
        errdefer std.posix.munmap(mapping);
        if (std.c.mprotect(mapping.ptr, guard_bytes, .{}) != 0) return error.OutOfMemory;
        return mapping;
    }

    fn now(fibers: *const RankFibers) i96 {
        return Io.Timestamp.now(fibers.io, .awake).toNanoseconds();
    }

    /// Reassigns the fibers of threads that could not be started.
    fn reassign(fibers: *RankFibers, started: usize) void {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        for (fibers.members[0..fibers.member_count]) |*member| {
            if (member.thread >= started) member.thread = member.rank % started;
        }
        fibers.notify();
    }

    const Next = union(enum) {
        member: *Member,
        /// Run tasks of a batched GEMM; whether the other threads must be notified.
        tasks: enum { new, known },
        sleep: i96,
        ended,
    };

    /// Main loop of a thread.
    fn serve(fibers: *RankFibers, thread: usize) void {
        while (true) {
            const seen = fibers.news_count.load(.seq_cst);
            switch (fibers.next(thread)) {
                .member => |member| {
                    fibers.enter(thread);
                    beginning = member;
                    member.entered_ns = threadNs(fibers.io);
                    member.watched_home = .current();
                    member.watched.enter();
                    fibres.switchTo(&member.home, member.saved);
                    fibers.own_ns[member.rank] += threadNs(fibers.io) - member.entered_ns;
                    fibers.settle(member);
                },
                .tasks => |tasks| {
                    if (tasks == .new) fibers.notify();
                    fibers.claim(thread);
                },
                .sleep => |until_ns| fibers.sleep(thread, seen, until_ns),
                .ended => {
                    fibers.seats[thread].leave();
                    return fibers.notify();
                },
            }
        }
    }

    fn next(fibers: *RankFibers, thread: usize) Next {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        if (fibers.has_tasks) {
            fibers.working_count += 1;
            return .{ .tasks = .known };
        }
        const time = fibers.now();
        var until_ns = time + nap_ns;
        var first: ?*Member = null;
        var have_all_ended = true;
        var is_anyone_coming = fibers.running_count > 0 or fibers.working_count > 0;
        for (fibers.members[0..fibers.member_count]) |*member| {
            if (member.state != .ended) have_all_ended = false;
            var can_go = fibers.canGo(member);
            if (can_go) is_anyone_coming = true;
            if (member.thread != thread) continue;
            if (member.state == .waits) {
                until_ns = @min(until_ns, member.state.waits.until_ns);
                can_go = can_go or time >= member.state.waits.until_ns;
            }
            if (!can_go) continue;
            if (first == null or member.product_count < first.?.product_count) first = member;
        }
        if (have_all_ended) return .ended;
        if (first) |member| {
            member.state = .running;
            fibers.running_count += 1;
            return .{ .member = member };
        }
        if (is_anyone_coming or !fibers.begin()) return .{ .sleep = until_ns };
        fibers.working_count += 1;
        return .{ .tasks = .new };
    }

    fn canGo(fibers: *const RankFibers, member: *const Member) bool {
        return switch (member.state) {
            .ready => true,
            .waits => |*wait| wait.isOver(),
            .multiplies => fibers.cancelled.load(.monotonic),
            .running, .served, .ended => false,
        };
    }

    /// Starts the GEMM of the rank furthest behind, with all ranks that wait for the same one.
    fn begin(fibers: *RankFibers) bool {
        const members = fibers.members[0..fibers.member_count];
        var behind: ?*Member = null;
        for (members) |*member| {
            if (member.state != .multiplies) continue;
            if (behind == null or member.product_count < behind.?.product_count) behind = member;
        }
        const chosen = (behind orelse return false).state.multiplies;
        var count: usize = 0;
        var rows: usize = 0;
        var following: ?*const Product = null;
        var i = members.len;
        // From the last to the first, which holds the shared values.
        while (i > 0) {
            i -= 1;
            const member = &members[i];
            if (member.state != .multiplies or !member.state.multiplies.isLike(chosen)) continue;
            const first = member.state.multiplies;
            rows += first.product.rows;
            member.rows = first.product.rows;
            first.product.rows_together = rows;
            first.product.next = following;
            following = first.product;
            fibers.first = first;
            member.state = .served;
            fibers.together[count] = member;
            count += 1;
        }
        fibers.together_count = count;
        fibers.together_rows = rows;
        fibers.together_ns = 0;
        const tasks = blocks.cut(fibers.first.product, fibers.first.limits, fibers.thread_count);
        fibers.task_count = fibers.first.phases * tasks;
        fibers.next_task.store(0, .monotonic);
        fibers.has_tasks = true;
        return true;
    }

    /// Runs tasks until none is left; the last thread makes the ranks runnable.
    fn claim(fibers: *RankFibers, thread: usize) void {
        const first = fibers.first;
        const workspace = fibers.pools[thread].callerWorkspace();
        const start = threadNs(fibers.io);
        while (!fibers.cancelled.load(.monotonic)) {
            fibers.enter(thread);
            const task = fibers.next_task.fetchAdd(1, .monotonic);
            if (task >= fibers.task_count) break;
            first.kernel(first.args, task, workspace);
        }
        if (fibers.endWork(threadNs(fibers.io) - start)) fibers.notify();
    }

    /// Whether this thread was the last one working: then the ranks are runnable.
    fn endWork(fibers: *RankFibers, spent_ns: u64) bool {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        fibers.has_tasks = false;
        fibers.working_count -= 1;
        fibers.together_ns += spent_ns;
        if (fibers.working_count > 0) return false;
        for (fibers.together[0..fibers.together_count]) |member| {
            fibers.own_ns[member.rank] += fibers.together_ns * member.rows / fibers.together_rows;
            member.state = .ready;
        }
        return true;
    }

    /// Updates the state of a fiber that has switched back to its thread.
    fn settle(fibers: *RankFibers, member: *Member) void {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        member.state = member.next_state;
        fibers.running_count -= 1;
    }

    /// Before a thread runs a fiber or a task.
    fn enter(fibers: *RankFibers, thread: usize) void {
        if (fibers.is_placed) fibers.seats[thread].enter();
    }

    /// Sleeps until `news` changes or a deadline passes.
    fn sleep(fibers: *RankFibers, thread: usize, seen: u32, until_ns: i96) void {
        fibers.seats[thread].leave();
        for (0..fibers.spin_count) |_| {
            if (fibers.news_count.load(.monotonic) != seen) return;
            std.atomic.spinLoopHint();
        }
        var left_ns = @max(0, until_ns - fibers.now());
        const seats = fibers.seats[0..fibers.thread_count];
        if (fibers.is_placed and placement.lend(seats)) left_ns = @min(left_ns, placement.nap_ns);
        const left: Io.Duration = .fromNanoseconds(left_ns);
        const nap: Io.Timeout = .{ .duration = .{ .raw = left, .clock = .awake } };
        _ = fibers.sleepers.fetchAdd(1, .seq_cst);
        defer _ = fibers.sleepers.fetchSub(1, .seq_cst);
        fibers.io.futexWaitTimeout(u32, &fibers.news_count.raw, seen, nap) catch {};
    }
};

/// CPU time of the calling thread.
fn threadNs(io: Io) u64 {
    return @intCast(Io.Timestamp.now(io, .cpu_thread).toNanoseconds());
}

/// The fiber that this thread switches to: a fiber starts without arguments.
threadlocal var beginning: *RankFibers.Member = undefined;

fn beginMember() callconv(.c) noreturn {
    const member = beginning;
    member.entry(member.context, member.rank);
    member.next_state = .ended;
    member.watched_home.enter();
    fibres.jumpTo(member.home);
}
