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
const RankRange = layouts.RankRange;
const states_file = @import("session/rank_states.zig");
const RankStates = states_file.RankStates;
const Loopback = @import("transport.zig").Loopback;
const Transport = @import("transport.zig").Transport;
const Shift = @import("session/rank_threads.zig").Shift;
const jobs = @import("session/job.zig");
const Job = jobs.Job;
const frame = @import("session/job_frame.zig");
const pipeline = @import("pipeline.zig");
const plans_file = @import("session/plan.zig");
const Plan = plans_file.Plan;
const PlanCache = plans_file.PlanCache;
const Planner = plans_file.Planner;
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
    coordinator: std.Thread = undefined,
    plans: PlanCache = .{},

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
        session.plans.deinit();
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

    /// Runs of the UNet's graph for plans, since the model was opened.
    pub fn unetDryRunCount(session: *const Session) u32 {
        if (!session.loaded.load(.acquire)) return 0;
        return session.model.unet.dry_run_count.load(.monotonic);
    }

    /// What was ignored in the model's files; see `Model.warnings`. "" until it is loaded.
    pub fn warnings(session: *const Session) []const u8 {
        return if (session.loaded.load(.acquire)) session.model.warnings else "";
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
        const stop = &session.cancelled;
        const d = &session.diagnostics;
        try session.model.open(session.gpa, session.io, &o.config, o.files, stop, d);
        errdefer session.model.close();
        const weights = session.model.weightBytes();
        session.weight_bytes.store(weights.mapped + weights.copied, .release);
        session.copy_bytes.store(weights.copied, .release);
        var first = try frame.firstJob(session.gpa, &session.options);
        defer first.deinit();
        const plan = try session.plans.get(&session.planner(), &first);
        const here = session.localRanks(plan);
        // GPUs tell what is free once they are open; on the CPU it is refused before.
        const needs: Machine.Needs = .{
            .scratch = plan.scratch_bytes[here.first..here.end],
            .weight_bytes = weights.mapped + weights.copied,
            .undecoded = plan.scratchWithTiles(&first),
        };
        if (o.machine.kind == .cpu) try session.checkFits(needs);
        try session.machine.open(plan.layout.rank_count);
        errdefer session.machine.close();
        if (o.machine.kind == .cuda) try session.checkFits(needs);
        const loaded = session.machine.loadWeights(&session.model, &session.copied_bytes);
        try session.model.checkUnchanged();
        return loaded;
    }

    fn unload(session: *Session) void {
        if (!session.loaded.load(.acquire)) return;
        session.machine.close();
        session.model.close();
    }

    pub fn planner(session: *Session) Planner {
        return .{
            .gpa = session.gpa,
            .io = session.io,
            .model = &session.model,
            .diagnostics = &session.diagnostics,
            .rank_count = session.options.rank_count,
            .local_ranks = session.options.machine.here,
            .device = session.machine.planned(),
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
        try session.machine.prepare();
        const plan = try session.plans.get(&session.planner(), job);
        const here = session.localRanks(plan);
        const bytes = plan.scratch_bytes[here.first..here.end];
        try session.checkFits(.{
            .scratch = bytes,
            .weight_bytes = 0,
            .undecoded = plan.scratchWithTiles(job),
        });
        for (session.machine.ranks[0..bytes.len], bytes) |*rank, needed| {
            try rank.reserve(session.gpa, needed);
        }
        if (job.kind == .image) try frame.makeOutputs(job, &plan.layout, &session.options.config);
        const ran = session.runRanks(job, plan);
        // GPUs have copies of their own; the CPU reads the mapped files in every step.
        if (session.options.machine.kind == .cpu) try session.model.checkUnchanged();
        try ran;
        session.device_bytes.store(session.machine.usedBytes(), .release);
    }

    fn localRanks(session: *const Session, plan: *const Plan) RankRange {
        return plan.localRanks(session.options.rank_count, session.options.machine.here);
    }

    /// The rank of a layout, without its device.
    fn rankAt(
        session: *Session,
        index: u32,
        rank_states: RankStates,
        plan: *const Plan,
        transport: Transport,
        arena: Allocator,
    ) Rank {
        return .{
            .index = index,
            .here = session.localRanks(plan),
            .layout = &plan.layout,
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

    fn runRanks(session: *Session, job: *Job, plan: *const Plan) Error!void {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const shape: states_file.Shape = .{
            .layout = &plan.layout,
            .vae_patches = &plan.vae_patches,
            .context_slot_count = session.model.unet.context_slot_count,
            .is_cuda = session.options.machine.kind == .cuda,
        };
        const lists = plan.slot_lists;
        const rank_states: RankStates = try .init(arena.allocator(), session.io, shape, job, lists);
        if (job.hooks.alone > 0) return session.runAlone(job, plan, rank_states);
        // Before any rank runs: they read each other's.
        const here = session.localRanks(plan);
        for (session.machine.ranks[0..here.count()], here.first..) |rank, i| {
            if (rank_states.unet[i].device_buffers) |buffers| buffers.cuda = rank.device.cuda;
            if (rank_states.vae[i].device_buffers) |buffers| buffers.cuda = rank.device.cuda;
        }
        var loopback: Loopback = .init(
            session.io,
            plan.layout.rank_count,
            &session.diagnostics,
            job.hooks,
        );
        loopback.here = here;
        loopback.fibers = session.machine.fibers;
        var shift: Shift = .{
            .session = session,
            .job = job,
            .plan = plan,
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
        plan: *const Plan,
        rank_states: RankStates,
    ) Error!void {
        const index = job.hooks.alone - 1;
        var failure: ?Error = null;
        session.runRank(job, plan, rank_states, .plan, index, &failure);
        if (failure) |err| return err;
    }

    /// For `shift.zig`.
    pub fn runRank(
        session: *Session,
        job: *Job,
        plan: *const Plan,
        rank_states: RankStates,
        transport: Transport,
        index: u32,
        failure: *?Error,
    ) void {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const here = session.localRanks(plan);
        const device = &session.machine.ranks[index - here.first];
        var scratch = device.scratch();
        var rank = session.rankAt(index, rank_states, plan, transport, arena.allocator());
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
        pipeline.run(&rank, job) catch |err| {
            failure.* = err;
            transport.abort();
            device.recover();
        };
    }
};
