//! A session: one model on one machine, its ranks, and at most one job at a time. Callers submit
//! and poll; a coordinator thread loads, plans, and runs the ranks. Errors end the job, not the
//! session.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const machines = @import("devices.zig");
const Machine = machines.Machine;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const drain_limit_ns = @import("backend.zig").cudas.drain_limit_ns;
const Exchange = @import("patch/exchange.zig").Exchange;
const layouts = @import("patch/layout.zig");
const Layout = layouts.Layout;
const RankRange = layouts.RankRange;
const rank_count_max = layouts.rank_count_max;
const RankStates = @import("patch/rank_states.zig").RankStates;
const Loopback = @import("transport.zig").Loopback;
const Transport = @import("transport.zig").Transport;
const Scratch = @import("scratch.zig").Scratch;
const Shift = @import("session/rank_threads.zig").Shift;
const OpTrace = @import("backend/op_trace.zig").OpTrace;
const jobs = @import("session/job.zig");
const Job = jobs.Job;
const denoise = @import("pipeline/denoise.zig");
const frame = @import("session/job_frame.zig");
const parts = @import("pipeline/components.zig");
const plan_cache = @import("session/plan.zig");
const rank_file = @import("pipeline/rank.zig");
const Rank = rank_file.Rank;
const models = @import("model.zig");
const Model = models.Model;

/// Of `drain_limit_ns`: two queues of a rank, and what comes before and after.
const close_limit_factor = 4;

pub const State = enum(u32) { loading = 0, ready = 1, running = 2, done = 3, failed = 4 };

/// Why a session or a job failed.
pub const Error = Model.Error || rank_file.Error || machines.Error || error{NotDealable};

pub const Options = struct {
    /// Of all machines; `machine.here` are those of this process.
    rank_count: u32,
    machine: machines.Options,
    config: models.ModelConfig,
    files: models.Files,
    /// Holds the paths of `files` and of `machine`; the session frees it.
    files_arena: std.heap.ArenaAllocator,
    /// The image that will be asked for first: what cannot fit is refused before loading.
    latent_rows: u32,
    latent_width: u32,
    branch_count: u32,
    split_batch: bool,
    /// Images of one batch.
    image_count: u32,
    /// As in a job.
    vae_tile_latent: u32,
};

pub const Session = struct {
    gpa: Allocator,
    io: Io,
    options: Options,
    model: Model = undefined,
    machine: Machine,
    state: std.atomic.Value(u32) = .init(@intFromEnum(State.loading)),
    failure: ?Error = null,
    diagnostics: Diagnostics = .{},
    cancelled: std.atomic.Value(bool) = .init(false),
    closing: std.atomic.Value(bool) = .init(false),
    /// 1 when the coordinator has freed everything.
    ended: std.atomic.Value(u32) = .init(0),
    /// Of the last job.
    stall_limit_ns: std.atomic.Value(i64) = .init(std.math.maxInt(i64)),
    /// Counts submissions; the coordinator sleeps on it.
    wake: std.atomic.Value(u32) = .init(0),
    reporter: rank_file.Reporter,
    loaded: std.atomic.Value(bool) = .init(false),
    job: ?Job = null,
    scratch_bytes: std.atomic.Value(u64) = .init(0),
    weight_bytes: std.atomic.Value(u64) = .init(0),
    /// Of the weights that must be copied: how many bytes there are, and how many are done.
    copy_bytes: std.atomic.Value(u64) = .init(0),
    copied_bytes: std.atomic.Value(u64) = .init(0),
    /// In use on the first GPU after the last job; 0 on the CPU.
    device_bytes: std.atomic.Value(u64) = .init(0),
    working_ranks: std.atomic.Value(u32) = .init(0),
    coordinator: std.Thread = undefined,
    plans: plan_cache.PlanCache = .{},

    /// Returns at once; loading goes on in the background.
    pub fn open(gpa: Allocator, io: Io, options: Options) Error!*Session {
        const session = try gpa.create(Session);
        errdefer gpa.destroy(session);
        session.init(gpa, io, options);
        session.coordinator = std.Thread.spawn(.{}, coordinate, .{session}) catch
            return error.ThreadsUnavailable;
        return session;
    }

    /// A session that nothing runs in yet. Must not move.
    pub fn init(session: *Session, gpa: Allocator, io: Io, options: Options) void {
        session.* = .{
            .gpa = gpa,
            .io = io,
            .options = options,
            .reporter = .{ .io = io },
            .machine = .{
                .gpa = gpa,
                .io = io,
                .options = options.machine,
                .diagnostics = &session.diagnostics,
                .cancelled = &session.cancelled,
                .arena = .init(gpa),
            },
        };
    }

    /// Stops what runs and frees everything. Where the driver does not answer, its thread is given
    /// up with all that it may still touch, so that the process goes on.
    pub fn close(session: *Session) void {
        session.closing.store(true, .release);
        session.cancelled.store(true, .release);
        session.wakeCoordinator();
        if (!session.waitForEnd()) return session.coordinator.detach();
        session.coordinator.join();
        if (session.job) |*job| job.deinit();
        session.options.files_arena.deinit();
        session.gpa.destroy(session);
    }

    pub fn currentState(session: *const Session) State {
        return @enumFromInt(session.state.load(.acquire));
    }

    /// Takes `job`. False, and `job` stays the caller's, while another runs or if loading failed.
    pub fn submit(session: *Session, job: Job) bool {
        switch (session.currentState()) {
            .loading, .running => return false,
            .ready, .done => {},
            .failed => if (!session.loaded.load(.acquire)) return false,
        }
        if (session.job) |*old| old.deinit();
        session.job = job;
        session.stall_limit_ns.store(@intCast(job.hooks.stall_limit_ns), .release);
        session.failure = null;
        session.diagnostics.reset();
        session.cancelled.store(false, .release);
        session.reporter.step_index.store(0, .release);
        // Until a rank begins: a poll must not see the stage in which the last job ended.
        session.reporter.stage.store(@intFromEnum(job.kind.firstStage()), .release);
        session.state.store(@intFromEnum(State.running), .release);
        session.wakeCoordinator();
        return true;
    }

    pub fn cancel(session: *Session) void {
        session.cancelled.store(true, .release);
    }

    // --- internal ---

    fn wakeCoordinator(session: *Session) void {
        _ = session.wake.fetchAdd(1, .acq_rel);
        session.io.futexWake(u32, &session.wake.raw, 1);
    }

    /// False when the coordinator has not ended within the limit: some time for the queues of GPUs
    /// to end, which one after the other are given up.
    fn waitForEnd(session: *Session) bool {
        const stall_limit_ns = session.stall_limit_ns.load(.acquire);
        const limit_ns = close_limit_factor * @min(drain_limit_ns, stall_limit_ns);
        const start = Io.Timestamp.now(session.io, .awake).toNanoseconds();
        while (session.ended.load(.acquire) == 0) {
            const waited = Io.Timestamp.now(session.io, .awake).toNanoseconds() - start;
            if (waited > limit_ns) return false;
            const nap: Io.Timeout = .{ .duration = .{
                .raw = .fromMilliseconds(50),
                .clock = .awake,
            } };
            session.io.futexWaitTimeout(u32, &session.ended.raw, 0, nap) catch {};
        }
        return true;
    }

    fn coordinate(session: *Session) void {
        defer {
            session.ended.store(1, .release);
            session.io.futexWake(u32, &session.ended.raw, 1);
        }
        var seen = session.wake.load(.acquire);
        if (session.load()) {
            session.loaded.store(true, .release);
            session.state.store(@intFromEnum(State.ready), .release);
        } else |err| session.finish(err);
        while (!session.closing.load(.acquire)) {
            const count = session.wake.load(.acquire);
            if (count == seen) {
                session.io.futexWaitUncancelable(u32, &session.wake.raw, seen);
                continue;
            }
            seen = count;
            if (session.currentState() != .running) continue;
            session.finish(if (session.runJob()) |_| null else |err| err);
        }
        session.unload();
    }

    fn finish(session: *Session, failure: ?Error) void {
        session.failure = failure;
        const state: State = if (failure == null) .done else .failed;
        session.state.store(@intFromEnum(state), .release);
    }

    fn load(session: *Session) Error!void {
        const o = &session.options;
        try session.model.open(
            session.gpa,
            session.io,
            &o.config,
            o.files,
            &session.diagnostics,
        );
        errdefer session.model.close();
        const weights = session.model.weightBytes();
        session.weight_bytes.store(weights.mapped + weights.copied, .release);
        session.copy_bytes.store(weights.copied, .release);
        var first = try frame.firstJob(session.gpa, &session.options);
        defer first.deinit();
        const layout = try session.layoutOf(&first);
        const planned = try session.plan(&layout, &first);
        session.working_ranks.store(layout.rank_count, .release);
        const here = session.rangeOf(&layout);
        // GPUs tell what is free once they are open; on the CPU it is refused before.
        const needs: Machine.Needs = .{
            .scratch = planned.bytes[here.first..here.end],
            .weight_bytes = weights.mapped + weights.copied,
            .undecoded = frame.undecodedOf(&layout, &first, planned),
        };
        if (o.machine.kind == .cpu) try session.checkFits(needs);
        try session.machine.open(layout.rank_count);
        errdefer session.machine.close();
        if (o.machine.kind == .cuda) try session.checkFits(needs);
        try session.machine.loadWeights(&session.model, &session.copied_bytes);
    }

    fn unload(session: *Session) void {
        if (!session.loaded.load(.acquire)) return;
        session.machine.close();
        session.model.close();
    }

    /// Scratch bytes that each rank needs.
    fn plan(session: *Session, layout: *const Layout, job: *const Job) Error!plan_cache.Plan {
        const key = plan_cache.keyOf(layout, job);
        if (session.plans.get(key)) |known| return known;
        var result: plan_cache.Plan = .{};
        for (result.bytes[0..layout.rank_count], 0..) |*rank_bytes, i| {
            const one = try session.planRank(layout, job, @intCast(i), null);
            rank_bytes.* = one.scratch_bytes;
            if (i == 0) result.undecoded_bytes = one.undecoded_bytes;
        }
        session.plans.put(key, result);
        return result;
    }

    pub const RankPlan = struct {
        scratch_bytes: usize,
        /// Before the decoding.
        undecoded_bytes: usize,
        /// What the patches of the UNet keep for each other.
        exchange_bytes: usize,
    };

    /// The graph itself, run by one rank over a device that only counts.
    pub fn planRank(
        session: *Session,
        layout: *const Layout,
        job: *const Job,
        index: u32,
        op_trace: ?*OpTrace,
    ) Error!RankPlan {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        var planned = job.*;
        planned.arena = .init(session.gpa);
        defer planned.deinit();
        planned.outputs = .initFill(&.{});
        try frame.completePlan(&planned, &session.options.config);
        var scratch: Scratch = .planning();
        const rank_states = try session.seat(arena.allocator(), layout, &planned);
        var rank = session.rankAt(index, rank_states, layout, .plan, arena.allocator());
        var device = session.machine.planned();
        device.op_trace = op_trace;
        rank.b = .{ .scratch = &scratch, .device = .{ .plan = device } };
        rank.exchange.b = rank.b;
        rank.vae_exchange.b = rank.b;
        try runKind(&rank, &planned);
        if (op_trace) |counting| counting.leave(&scratch);
        return .{
            .scratch_bytes = scratch.peak,
            .undecoded_bytes = planned.undecoded_bytes,
            .exchange_bytes = rank.exchange.counted.buffer_bytes,
        };
    }

    fn checkFits(session: *Session, needs: Machine.Needs) Error!void {
        var total: u64 = 0;
        for (needs.scratch) |bytes| total += bytes;
        session.scratch_bytes.store(total, .release);
        try session.machine.checkFits(needs);
    }

    fn runJob(session: *Session) Error!void {
        const job = &session.job.?;
        const layout = try session.layoutOf(job);
        session.working_ranks.store(layout.rank_count, .release);
        try session.machine.prepare();
        const planned = try session.plan(&layout, job);
        const here = session.rangeOf(&layout);
        const bytes = planned.bytes[here.first..here.end];
        try session.checkFits(.{
            .scratch = bytes,
            .weight_bytes = 0,
            .undecoded = frame.undecodedOf(&layout, job, planned),
        });
        for (session.machine.ranks[0..bytes.len], bytes) |*rank, needed| {
            try rank.reserve(session.gpa, needed);
        }
        if (job.kind == .image) try frame.makeOutputs(job, &layout, &session.options.config);
        try session.runRanks(job, &layout);
        session.device_bytes.store(session.machine.usedBytes(), .release);
    }

    /// The ranks of this process.
    fn rangeOf(session: *const Session, layout: *const Layout) RankRange {
        if (layout.rank_count == session.options.rank_count) return session.options.machine.here;
        return .{ .first = 0, .end = layout.rank_count };
    }

    /// Images are shared by all ranks; the parts alone are one rank's work.
    pub fn layoutOf(session: *Session, job: *const Job) Error!Layout {
        if (job.kind != .image) return .single(1, job.latent_rows);
        return Layout.init(.{
            .rank_count = session.options.rank_count,
            .branch_count = job.branch_count,
            .split_batch = job.split_batch,
            .rows = job.latent_rows,
            .unit = session.options.config.latentMultiple(),
        }) catch session.diagnostics.fail(error.NotDealable, "{d} rows of the latent cannot be " ++
            "dealt to {d} ranks. Ask for fewer ranks or a taller image.", .{
            job.latent_rows, session.options.rank_count,
        });
    }

    fn seat(
        session: *Session,
        arena: Allocator,
        layout: *const Layout,
        job: *const Job,
    ) !RankStates {
        const slot_count = session.model.unet.context_slot_count;
        const is_cuda = session.options.machine.kind == .cuda;
        return .init(arena, session.io, layout, job, slot_count, is_cuda);
    }

    /// The rank of a layout, without its device.
    fn rankAt(
        session: *Session,
        index: u32,
        rank_states: RankStates,
        layout: *const Layout,
        transport: Transport,
        arena: Allocator,
    ) Rank {
        return .{
            .index = index,
            .here = session.rangeOf(layout),
            .layout = layout,
            .model = &session.model,
            .b = undefined,
            .io = session.io,
            .exchange = &rank_states.unet[index],
            .vae_exchange = &rank_states.vae[index],
            .prompts = rank_states.prompts,
            .transport = transport,
            .diagnostics = &session.diagnostics,
            .arena = arena,
        };
    }

    fn runRanks(session: *Session, job: *Job, layout: *const Layout) Error!void {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const rank_states = try session.seat(arena.allocator(), layout, job);
        if (job.hooks.alone > 0) return session.runAlone(job, layout, rank_states);
        // Before any rank runs: they look at each other's.
        const here = session.rangeOf(layout);
        for (session.machine.ranks[0..here.count()], here.first..) |rank, i| {
            if (rank_states.unet[i].device_buffers) |buffers| buffers.cuda = rank.device.cuda;
            if (rank_states.vae[i].device_buffers) |buffers| buffers.cuda = rank.device.cuda;
        }
        var loopback: Loopback = .init(
            session.io,
            layout.rank_count,
            &session.diagnostics,
            job.hooks,
        );
        loopback.here = here;
        loopback.fibers = session.machine.fibers;
        var shift: Shift = .{
            .session = session,
            .job = job,
            .layout = layout,
            .rank_states = rank_states,
            .loopback = &loopback,
        };
        shift.run();
        return frame.firstFailure(&shift.failures);
    }

    /// One rank, as if the others had sent zeros and took nothing.
    fn runAlone(
        session: *Session,
        job: *Job,
        layout: *const Layout,
        rank_states: RankStates,
    ) Error!void {
        const index = job.hooks.alone - 1;
        var failure: ?Error = null;
        session.runRank(job, layout, rank_states, .plan, index, &failure);
        if (failure) |err| return err;
    }

    /// For `shift.zig`.
    pub fn runRank(
        session: *Session,
        job: *Job,
        layout: *const Layout,
        rank_states: RankStates,
        transport: Transport,
        index: u32,
        failure: *?Error,
    ) void {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const here = session.rangeOf(layout);
        const device = &session.machine.ranks[index - here.first];
        var scratch = device.scratch();
        var rank = session.rankAt(index, rank_states, layout, transport, arena.allocator());
        rank.b = .{ .scratch = &scratch, .device = device.device };
        const reports = index == here.first or transport == .plan;
        rank.reporter = if (reports) &session.reporter else null;
        for ([_]*Exchange{ rank.exchange, rank.vae_exchange }, [_][]Exchange{
            rank_states.unet, rank_states.vae,
        }) |exchange, peers| {
            exchange.b = rank.b;
            exchange.transport = transport;
            exchange.peers = peers;
        }
        if (device.device == .cuda) {
            const cuda = device.device.cuda;
            cuda.stall_limit_ns = job.hooks.stall_limit_ns;
            cuda.job_failed = transport.failed();
        }
        defer if (device.device == .cuda) {
            device.device.cuda.job_failed = null;
        };
        device.enter() catch |err| {
            failure.* = err;
            return transport.abort();
        };
        runKind(&rank, job) catch |err| {
            failure.* = err;
            transport.abort();
            device.recover();
        };
    }
};

fn runKind(rank: *Rank, job: *Job) Error!void {
    switch (job.kind) {
        .image => try denoise.drawImages(rank, job),
        .prompt_embeds => try parts.embedPrompt(rank, job),
        .noise_prediction => try parts.predictNoise(rank, job),
        .decode => try parts.decodeSample(rank, job),
        .encode => try parts.encodeSample(rank, job),
    }
}
