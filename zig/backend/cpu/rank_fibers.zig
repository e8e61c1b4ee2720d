//! Ranks that share fewer cores than they are. Left to the operating system, each would pack every
//! weight for a few rows of its own, and ranks that take turns on a core would push each other's
//! blocks out of its caches. So ranks are fibres here, of as many threads as there are cores, and a
//! rank that comes to a large product waits for the others: products by the same weights are done
//! together, by all threads, and each weight is packed once.
//!
//! Nobody waits for a rank that cannot come: when no fibre can go on, what has come is done.

const std = @import("std");
const assert = std.debug.assert;
const Io = std.Io;
const arguments = @import("arguments.zig");
const blocks = @import("blocks.zig");
const Product = arguments.Product;
const cores = @import("../../system/cores.zig");
const fibres = @import("../../system/fibre.zig");
const ThreadPool = @import("thread_pool.zig").ThreadPool;

/// What a thread of its own would have; pages that are never touched cost nothing.
const stack_bytes = 16 << 20;
/// Below each stack: too deep a call ends in a signal, not in another's memory. Wider than the
/// largest local.
const guard_bytes = 1 << 20;
/// How long a fibre that waits for others goes without looking whether they gave up.
const nap_ns = 50 * std.time.ns_per_ms;
/// Looks for news before a thread sleeps: some 60 microseconds, what other fibres do between two
/// products. None where there are more threads than cores.
const spin_count_max = 2000;

pub const RankFibers = struct {
    pub const member_count_max = arguments.together_max;

    io: Io,
    cancelled: *const std.atomic.Value(bool),
    thread_count: usize,
    spin_count: usize,
    /// By rank, for the memory that kernels work in: a thread uses that of its first fibre.
    pools: [member_count_max]*const ThreadPool = undefined,
    stacks: [member_count_max]Stack = undefined,
    stack_count: usize = 0,

    /// Grows whenever somebody may be able to go on.
    news_count: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),
    mutex: Io.Mutex = .init,

    // Under the mutex.
    members: [member_count_max]Member = undefined,
    member_count: usize = 0,
    /// Threads that run a fibre.
    running_count: usize = 0,
    /// Threads that do a product's tasks, and whether there may be more of these.
    working_count: usize = 0,
    has_tasks: bool = false,

    // What is done together: unchanged while threads work.
    first: *const Work = undefined,
    together: [member_count_max]*Member = undefined,
    together_count: usize = 0,
    task_count: usize = 0,
    next_task: std.atomic.Value(usize) align(std.atomic.cache_line) = .init(0),

    const Stack = []align(std.heap.page_size_min) u8;

    /// What each rank is to do; returns when it has.
    pub const Entry = *const fn (context: *anyopaque, rank: usize) void;

    /// A product on the stack of its rank's fibre.
    pub const Work = struct {
        kernel: arguments.Kernel,
        args: *const anyopaque,
        /// Within `args`.
        product: *Product,
        /// How often `product`'s tasks are done (`arguments.Convolution`).
        phases: usize,
        kernels: *const arguments.Kernels,

        fn isLike(work: *const Work, other: *const Work) bool {
            return work.kernel == other.kernel and work.phases == other.phases and
                work.product.weight == other.product.weight and
                work.product.columns == other.product.columns and
                work.product.depth == other.product.depth;
        }
    };

    /// Until `value` has grown to `count` or somebody has given up, or until a time has come.
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
        /// At a product that has not been begun.
        multiplies: *const Work,
        /// At one that is being done.
        served,
        ended,
    };

    /// A rank's fibre; always on the same thread, so that nothing of a thread's own moves.
    const Member = struct {
        rank: usize,
        thread: usize,
        entry: Entry,
        context: *anyopaque,
        state: State = .ready,
        /// What it becomes when its thread has left it.
        next_state: State = .ready,
        /// Products that it has come to: who has come to fewer is behind.
        product_count: u64 = 0,
        /// Where it goes on, and where its thread does.
        saved: usize,
        home: usize = 0,

        fn leave(member: *Member, state: State) void {
            member.next_state = state;
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
        };
        errdefer fibers.deinit();
        while (fibers.stack_count < options.rank_count) : (fibers.stack_count += 1) {
            fibers.stacks[fibers.stack_count] = mapStack() catch return error.OutOfMemory;
        }
    }

    pub fn deinit(fibers: *RankFibers) void {
        for (fibers.stacks[0..fibers.stack_count]) |stack| std.posix.munmap(stack);
        fibers.* = undefined;
    }

    /// Calls `entry` for each of the ranks 0 to `count`, as fibres of this thread and some more;
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
            };
        }
        fibers.member_count = count;
        var threads: [member_count_max]std.Thread = undefined;
        var started: usize = 1;
        while (started < fibers.thread_count) : (started += 1) {
            threads[started] = std.Thread.spawn(.{}, serve, .{ fibers, started }) catch break;
        }
        fibers.adopt(started);
        fibers.serve(0);
        for (threads[1..started]) |thread| thread.join();
        fibers.member_count = 0;
    }

    /// Whether the rank runs as a fibre now.
    pub fn has(fibers: *const RankFibers, rank: usize) bool {
        return rank < fibers.member_count;
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

    /// Some value has grown, or somebody has given up.
    pub fn notify(fibers: *RankFibers) void {
        _ = fibers.news_count.fetchAdd(1, .seq_cst);
        if (fibers.sleepers.load(.seq_cst) == 0) return;
        fibers.io.futexWake(u32, &fibers.news_count.raw, member_count_max);
    }

    /// Returns when the rank's product is done.
    /// Cancelled: some of it may not have been done, and none is running any more.
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

    /// Fibres of threads that could not be started go to the others.
    fn adopt(fibers: *RankFibers, started: usize) void {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        for (fibers.members[0..fibers.member_count]) |*member| {
            if (member.thread >= started) member.thread = member.rank % started;
        }
        fibers.notify();
    }

    const Next = union(enum) {
        member: *Member,
        /// Those of a product, and whether nobody knows of them yet.
        tasks: enum { new, known },
        sleep: i96,
        ended,
    };

    /// What a thread of the fibers does from beginning to end.
    fn serve(fibers: *RankFibers, thread: usize) void {
        while (true) {
            const seen = fibers.news_count.load(.seq_cst);
            switch (fibers.next(thread)) {
                .member => |member| {
                    beginning = member;
                    fibres.switchTo(&member.home, member.saved);
                    fibers.settle(member);
                },
                .tasks => |tasks| {
                    if (tasks == .new) fibers.notify();
                    fibers.claim(thread);
                },
                .sleep => |until_ns| fibers.sleep(seen, until_ns),
                .ended => return fibers.notify(),
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

    /// Begins what the rank furthest behind waits for, with all that came for the same.
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
        // From the last to the first, which holds what is true of all.
        while (i > 0) {
            i -= 1;
            const member = &members[i];
            if (member.state != .multiplies or !member.state.multiplies.isLike(chosen)) continue;
            const first = member.state.multiplies;
            rows += first.product.rows;
            first.product.rows_together = rows;
            first.product.next = following;
            following = first.product;
            fibers.first = first;
            member.state = .served;
            fibers.together[count] = member;
            count += 1;
        }
        fibers.together_count = count;
        const tasks = blocks.cut(fibers.first.product, fibers.first.kernels, fibers.thread_count);
        fibers.task_count = fibers.first.phases * tasks;
        fibers.next_task.store(0, .monotonic);
        fibers.has_tasks = true;
        return true;
    }

    /// Does tasks until none is left; who ends last lets the ranks go on.
    fn claim(fibers: *RankFibers, thread: usize) void {
        const first = fibers.first;
        const workspace = fibers.pools[thread].callerWorkspace();
        while (!fibers.cancelled.load(.monotonic)) {
            const task = fibers.next_task.fetchAdd(1, .monotonic);
            if (task >= fibers.task_count) break;
            first.kernel(first.args, task, workspace);
        }
        if (fibers.endWork()) fibers.notify();
    }

    /// Whether this thread was the last one that worked: then the ranks are ready.
    fn endWork(fibers: *RankFibers) bool {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        fibers.has_tasks = false;
        fibers.working_count -= 1;
        if (fibers.working_count > 0) return false;
        for (fibers.together[0..fibers.together_count]) |member| member.state = .ready;
        return true;
    }

    /// A fibre has come back to its thread.
    fn settle(fibers: *RankFibers, member: *Member) void {
        fibers.mutex.lockUncancelable(fibers.io);
        defer fibers.mutex.unlock(fibers.io);
        member.state = member.next_state;
        fibers.running_count -= 1;
    }

    /// Until there are news that nobody has seen, or until a time has come.
    fn sleep(fibers: *RankFibers, seen: u32, until_ns: i96) void {
        for (0..fibers.spin_count) |_| {
            if (fibers.news_count.load(.monotonic) != seen) return;
            std.atomic.spinLoopHint();
        }
        const left: Io.Duration = .fromNanoseconds(@max(0, until_ns - fibers.now()));
        const nap: Io.Timeout = .{ .duration = .{ .raw = left, .clock = .awake } };
        _ = fibers.sleepers.fetchAdd(1, .seq_cst);
        defer _ = fibers.sleepers.fetchSub(1, .seq_cst);
        fibers.io.futexWaitTimeout(u32, &fibers.news_count.raw, seen, nap) catch {};
    }
};

/// Whom this thread switches to: a fibre begins without arguments.
threadlocal var beginning: *RankFibers.Member = undefined;

fn beginMember() callconv(.c) noreturn {
    const member = beginning;
    member.entry(member.context, member.rank);
    member.next_state = .ended;
    fibres.jumpTo(member.home);
}
