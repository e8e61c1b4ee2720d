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
const Team = @import("thread_pool.zig").Team;

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

pub const Crew = struct {
    pub const member_count_max = arguments.together_max;

    io: Io,
    cancelled: *const std.atomic.Value(bool),
    thread_count: usize,
    spin_count: usize,
    /// By rank, for the memory that kernels work in: a thread uses that of its first fibre.
    teams: [member_count_max]*const Team = undefined,
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

    /// `crew` must not move.
    pub fn init(crew: *Crew, options: struct {
        io: Io,
        cancelled: *const std.atomic.Value(bool),
        thread_count: usize,
        rank_count: usize,
    }) error{OutOfMemory}!void {
        assert(options.thread_count < options.rank_count);
        assert(options.rank_count <= member_count_max);
        const core_count = cores.count(options.io);
        crew.* = .{
            .io = options.io,
            .cancelled = options.cancelled,
            .thread_count = options.thread_count,
            .spin_count = if (options.thread_count > core_count) 0 else spin_count_max,
        };
        errdefer crew.deinit();
        while (crew.stack_count < options.rank_count) : (crew.stack_count += 1) {
            crew.stacks[crew.stack_count] = mapStack() catch return error.OutOfMemory;
        }
    }

    pub fn deinit(crew: *Crew) void {
        for (crew.stacks[0..crew.stack_count]) |stack| std.posix.munmap(stack);
        crew.* = undefined;
    }

    /// Calls `entry` for each of the ranks 0 to `count`, as fibres of this thread and some more;
    /// returns when all have returned.
    pub fn run(crew: *Crew, count: usize, context: *anyopaque, entry: Entry) void {
        assert(count <= crew.stack_count);
        for (crew.members[0..count], crew.stacks[0..count], 0..) |*member, stack, rank| {
            member.* = .{
                .rank = rank,
                .thread = rank % crew.thread_count,
                .entry = entry,
                .context = context,
                .saved = fibres.prepare(@intFromPtr(stack.ptr) + stack.len, beginMember),
            };
        }
        crew.member_count = count;
        var threads: [member_count_max]std.Thread = undefined;
        var started: usize = 1;
        while (started < crew.thread_count) : (started += 1) {
            threads[started] = std.Thread.spawn(.{}, serve, .{ crew, started }) catch break;
        }
        crew.adopt(started);
        crew.serve(0);
        for (threads[1..started]) |thread| thread.join();
        crew.member_count = 0;
    }

    /// Whether the rank runs as a fibre now.
    pub fn has(crew: *const Crew, rank: usize) bool {
        return rank < crew.member_count;
    }

    /// Returns when `value` has grown to `count`, when `aborted` is set, or after a while.
    pub fn waitFor(
        crew: *Crew,
        rank: usize,
        value: *const std.atomic.Value(u64),
        count: u64,
        aborted: *const std.atomic.Value(bool),
    ) void {
        crew.members[rank].leave(.{ .waits = .{
            .value = value,
            .count = count,
            .aborted = aborted,
            .until_ns = crew.now() + nap_ns,
        } });
    }

    /// Some value has grown, or somebody has given up.
    pub fn tellNews(crew: *Crew) void {
        _ = crew.news_count.fetchAdd(1, .seq_cst);
        if (crew.sleepers.load(.seq_cst) == 0) return;
        crew.io.futexWake(u32, &crew.news_count.raw, member_count_max);
    }

    /// Returns when the rank's product is done.
    /// Cancelled: some of it may not have been done, and none is running any more.
    pub fn multiply(crew: *Crew, rank: usize, product: Work) error{Cancelled}!void {
        const member = &crew.members[rank];
        member.product_count += 1;
        member.leave(.{ .multiplies = &product });
        if (crew.cancelled.load(.monotonic)) return error.Cancelled;
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

    fn now(crew: *const Crew) i96 {
        return Io.Timestamp.now(crew.io, .awake).toNanoseconds();
    }

    /// Fibres of threads that could not be started go to the others.
    fn adopt(crew: *Crew, started: usize) void {
        crew.mutex.lockUncancelable(crew.io);
        defer crew.mutex.unlock(crew.io);
        for (crew.members[0..crew.member_count]) |*member| {
            if (member.thread >= started) member.thread = member.rank % started;
        }
        crew.tellNews();
    }

    const Next = union(enum) {
        member: *Member,
        /// Those of a product, and whether nobody knows of them yet.
        tasks: enum { new, known },
        sleep: i96,
        ended,
    };

    /// What a thread of the crew does from beginning to end.
    fn serve(crew: *Crew, thread: usize) void {
        while (true) {
            const seen = crew.news_count.load(.seq_cst);
            switch (crew.next(thread)) {
                .member => |member| {
                    beginning = member;
                    fibres.switchTo(&member.home, member.saved);
                    crew.settle(member);
                },
                .tasks => |tasks| {
                    if (tasks == .new) crew.tellNews();
                    crew.claim(thread);
                },
                .sleep => |until_ns| crew.sleep(seen, until_ns),
                .ended => return crew.tellNews(),
            }
        }
    }

    fn next(crew: *Crew, thread: usize) Next {
        crew.mutex.lockUncancelable(crew.io);
        defer crew.mutex.unlock(crew.io);
        if (crew.has_tasks) {
            crew.working_count += 1;
            return .{ .tasks = .known };
        }
        const time = crew.now();
        var until_ns = time + nap_ns;
        var first: ?*Member = null;
        var have_all_ended = true;
        var is_anyone_coming = crew.running_count > 0 or crew.working_count > 0;
        for (crew.members[0..crew.member_count]) |*member| {
            if (member.state != .ended) have_all_ended = false;
            var can_go = crew.canGo(member);
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
            crew.running_count += 1;
            return .{ .member = member };
        }
        if (is_anyone_coming or !crew.begin()) return .{ .sleep = until_ns };
        crew.working_count += 1;
        return .{ .tasks = .new };
    }

    fn canGo(crew: *const Crew, member: *const Member) bool {
        return switch (member.state) {
            .ready => true,
            .waits => |*wait| wait.isOver(),
            .multiplies => crew.cancelled.load(.monotonic),
            .running, .served, .ended => false,
        };
    }

    /// Begins what the rank furthest behind waits for, with all that came for the same.
    fn begin(crew: *Crew) bool {
        const members = crew.members[0..crew.member_count];
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
            crew.first = first;
            member.state = .served;
            crew.together[count] = member;
            count += 1;
        }
        crew.together_count = count;
        const tasks = blocks.cut(crew.first.product, crew.first.kernels, crew.thread_count);
        crew.task_count = crew.first.phases * tasks;
        crew.next_task.store(0, .monotonic);
        crew.has_tasks = true;
        return true;
    }

    /// Does tasks until none is left; who ends last lets the ranks go on.
    fn claim(crew: *Crew, thread: usize) void {
        const first = crew.first;
        const workspace = crew.teams[thread].callerWorkspace();
        while (!crew.cancelled.load(.monotonic)) {
            const task = crew.next_task.fetchAdd(1, .monotonic);
            if (task >= crew.task_count) break;
            first.kernel(first.args, task, workspace);
        }
        if (crew.endWork()) crew.tellNews();
    }

    /// Whether this thread was the last one that worked: then the ranks are ready.
    fn endWork(crew: *Crew) bool {
        crew.mutex.lockUncancelable(crew.io);
        defer crew.mutex.unlock(crew.io);
        crew.has_tasks = false;
        crew.working_count -= 1;
        if (crew.working_count > 0) return false;
        for (crew.together[0..crew.together_count]) |member| member.state = .ready;
        return true;
    }

    /// A fibre has come back to its thread.
    fn settle(crew: *Crew, member: *Member) void {
        crew.mutex.lockUncancelable(crew.io);
        defer crew.mutex.unlock(crew.io);
        member.state = member.next_state;
        crew.running_count -= 1;
    }

    /// Until there are news that nobody has seen, or until a time has come.
    fn sleep(crew: *Crew, seen: u32, until_ns: i96) void {
        for (0..crew.spin_count) |_| {
            if (crew.news_count.load(.monotonic) != seen) return;
            std.atomic.spinLoopHint();
        }
        const left: Io.Duration = .fromNanoseconds(@max(0, until_ns - crew.now()));
        const nap: Io.Timeout = .{ .duration = .{ .raw = left, .clock = .awake } };
        _ = crew.sleepers.fetchAdd(1, .seq_cst);
        defer _ = crew.sleepers.fetchSub(1, .seq_cst);
        crew.io.futexWaitTimeout(u32, &crew.news_count.raw, seen, nap) catch {};
    }
};

/// Whom this thread switches to: a fibre begins without arguments.
threadlocal var beginning: *Crew.Member = undefined;

fn beginMember() callconv(.c) noreturn {
    const member = beginning;
    member.entry(member.context, member.rank);
    member.next_state = .ended;
    fibres.jumpTo(member.home);
}
