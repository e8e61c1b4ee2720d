//! A session: one model, the devices of this process, and at most one job at a time. Callers submit
//! and poll; a coordinator thread loads, plans, and runs the ranks. An error of a job leaves the
//! session usable, except where `State.lost` says otherwise.
//!
//! Read in this order:
//!   session/first.zig         what will be asked for first
//!   session/plan.zig          layout, slots and scratch of an image's shape; the cache of plans
//!   session/memory_advice.zig what makes an image fit that does not
//!   session/networks.zig      networks beside the model: opened, loaded and kept
//!   session/rank_states.zig   what the ranks of a job read of each other
//!   session/rank_threads.zig  runs the local ranks of a job
//!   session/weight_notes.zig  how weights are kept that files have in 8 bits
//!   session/plan_report.zig   the plan as JSON, without a session

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const devices = @import("devices.zig");
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const DType = @import("tensor.zig").DType;
const drain_limit_ns = @import("backend.zig").cudas.drain_limit_ns;
const RankRange = @import("patch/layout.zig").RankRange;
const models = @import("model.zig");
const Model = models.Model;
const pipeline = @import("pipeline.zig");
const Job = pipeline.Job;
const Advisor = @import("session/memory_advice.zig").Advisor;
const firsts = @import("session/first.zig");
pub const First = firsts.First;
pub const FirstImage = firsts.FirstImage;
const network_files = @import("session/networks.zig");
const Network = network_files.Network;
const Networks = network_files.Networks;
const plans = @import("session/plan.zig");
const Plan = plans.Plan;
const RankThreads = @import("session/rank_threads.zig").RankThreads;
const weight_notes = @import("session/weight_notes.zig");

/// Closing waits this many times `drain_limit_ns`: two streams per rank plus slack.
const close_limit_factor = 4;

pub const State = enum(u32) {
    loading = 0,
    ready = 1,
    running = 2,
    done = 3,
    /// The last job failed and the next one may succeed; or loading failed.
    failed = 4,
    /// The last job failed in a way that ends the session: a GPU crashed, or did not answer and was
    /// given up, the processes of a distributed job lost each other, or the model's files were
    /// changed or lost.
    lost = 5,
    /// Nothing is left to wait for after `close`: everything but the session itself has been freed,
    /// or a driver does not answer.
    closed = 6,
};

/// Why a session or a job failed.
pub const Error = Model.Error || pipeline.Error || devices.Error || network_files.Error;

pub const Options = struct {
    /// Ranks of all processes; those of this one are `devices.local_ranks`.
    rank_count: u32,
    devices: devices.Options,
    config: models.ModelConfig,
    files: models.Files,
    /// Holds the paths of `files` and of `devices`; the session frees it.
    files_arena: std.heap.ArenaAllocator,
    /// What cannot fit of it is refused before loading.
    first: First,
    /// Rows and columns of the latent in a tile of the VAE; 0 where tiles are not to be had.
    tile_latent: u32 = 0,
    /// Loads nothing: the session is ready once `first` is known to fit.
    checks_only: bool = false,
    /// Memory that must be free beside it on each device, for another session.
    beside_bytes: u64 = 0,
};

pub const Session = struct {
    gpa: Allocator,
    io: Io,
    options: Options,
    model: Model = undefined,
    devices: devices.Devices,
    state: std.atomic.Value(u32) = .init(@intFromEnum(State.loading)),
    failure: ?Error = null,
    diagnostics: Diagnostics = .{},
    cancelled: std.atomic.Value(bool) = .init(false),
    closing: std.atomic.Value(bool) = .init(false),
    close_start_ns: i96 = 0,
    /// Limit of the wait for a GPU's work to end, as the last job sets it.
    stall_limit_ns: i96 = std.math.maxInt(i96),
    /// Counts submissions and the request to close; the coordinator sleeps on it.
    wake: std.atomic.Value(u32) = .init(0),
    reporter: pipeline.Reporter,
    loaded: std.atomic.Value(bool) = .init(false),
    /// The latest job, with its result.
    job: ?Job = null,
    result: pipeline.Result,
    scratch_bytes: std.atomic.Value(u64) = .init(0),
    /// Of `first`, in free memory on the device with most.
    needed_bytes: std.atomic.Value(u64) = .init(0),
    /// Weights that loading must copy: all bytes, and those copied so far.
    copy_bytes: std.atomic.Value(u64) = .init(0),
    copied_bytes: std.atomic.Value(u64) = .init(0),
    /// Memory in use on the first GPU after the last job; 0 on the CPU.
    device_bytes: std.atomic.Value(u64) = .init(0),
    /// Made by `load`.
    adapted: devices.AdaptedWeights = undefined,
    adapt_progress: devices.AdaptProgress = .{},
    networks: Networks,
    coordinator: std.Thread = undefined,
    plans: plans.PlanCache = .{},
    /// Allocated with the model.
    weight_notes: []const u8 = "",
    /// Likewise.
    all_warnings: []const u8 = "",

    /// Returns at once; loading goes on in the background.
    pub fn open(gpa: Allocator, io: Io, options: Options) Error!*Session {
        const session = try gpa.create(Session);
        errdefer gpa.destroy(session);
        session.init(gpa, io, options);
        session.coordinator = std.Thread.spawn(.{}, coordinate, .{session}) catch
            return error.ThreadsUnavailable;
        return session;
    }

    /// A session without a coordinator. Must not move.
    pub fn init(session: *Session, gpa: Allocator, io: Io, options: Options) void {
        session.* = .{
            .gpa = gpa,
            .io = io,
            .options = options,
            .reporter = .{ .io = io, .preview = .{ .gpa = gpa, .io = io } },
            .result = .init(gpa),
            .networks = .{
                .gpa = gpa,
                .io = io,
                .diagnostics = &session.diagnostics,
                .cancelled = &session.cancelled,
            },
            .devices = .{
                .gpa = gpa,
                .io = io,
                .options = options.devices,
                .diagnostics = &session.diagnostics,
                .cancelled = &session.cancelled,
                .arena = .init(gpa),
            },
        };
    }

    /// Cancels the running job and starts to free everything. Returns at once: the state becomes
    /// `closed` when that is done. From here on only `currentState` and `free` may be called.
    pub fn close(session: *Session) void {
        if (session.closing.load(.acquire)) return;
        session.close_start_ns = session.now();
        session.closing.store(true, .release);
        session.cancelled.store(true, .release);
        session.wakeCoordinator();
    }

    /// Frees a closed session. False where a driver does not answer: the session is left behind
    /// with its coordinator and all that it may still touch, so that the process goes on.
    pub fn free(session: *Session) bool {
        if (!session.hasEnded()) {
            session.coordinator.detach();
            return false;
        }
        session.coordinator.join();
        if (session.job) |*job| job.deinit();
        session.result.deinit();
        session.reporter.preview.deinit();
        session.plans.deinit();
        session.options.files_arena.deinit();
        session.gpa.destroy(session);
        return true;
    }

    pub fn currentState(session: *const Session) State {
        if (session.closing.load(.acquire) and !session.hasEnded()) {
            const limit_ns = close_limit_factor * @min(drain_limit_ns, session.stall_limit_ns);
            if (session.now() - session.close_start_ns > limit_ns) return .closed;
        }
        return @enumFromInt(session.state.load(.acquire));
    }

    /// Takes `job`. False, and `job` stays the caller's, while another runs or where none can run.
    pub fn submit(session: *Session, job: Job) bool {
        switch (session.currentState()) {
            .loading, .running, .lost, .closed => return false,
            .ready, .done, .failed => if (!session.loaded.load(.acquire)) return false,
        }
        if (session.job) |*old| old.deinit();
        session.job = job;
        session.stall_limit_ns = job.hooks.stall_limit_ns;
        session.result.deinit();
        session.result = .init(session.gpa);
        session.failure = null;
        session.diagnostics.reset();
        session.cancelled.store(false, .release);
        session.reporter.step_index.store(0, .release);
        session.reporter.step_count.store(0, .release);
        session.reporter.preview.reset();
        session.adapt_progress.reset();
        // Until a rank begins, a poll must not see the last stage of the previous job.
        session.reporter.stage.store(@intFromEnum(job.firstStage()), .release);
        session.state.store(@intFromEnum(State.running), .release);
        session.wakeCoordinator();
        return true;
    }

    pub fn cancel(session: *Session) void {
        session.cancelled.store(true, .release);
    }

    /// Dry runs of the UNet's graph since the model was opened.
    pub fn unetDryRunCount(session: *const Session) u32 {
        return if (session.hasModel()) session.model.unet.dry_run_count.load(.monotonic) else 0;
    }

    /// How weights are kept that files have in 8 bits; see `weight_notes.zig`. "" until the model
    /// is loaded.
    pub fn weightNotes(session: *const Session) []const u8 {
        return if (session.hasModel()) session.weight_notes else "";
    }

    /// What was ignored in the model's files (see `Model.warnings`), and what is amiss between
    /// GPUs. "" until the model is loaded.
    pub fn warnings(session: *const Session) []const u8 {
        return if (session.hasModel()) session.all_warnings else "";
    }

    /// For jobs with these networks.
    pub fn planner(session: *Session, networks: []const *const Network) plans.Planner {
        return .{
            .gpa = session.gpa,
            .io = session.io,
            .model = &session.model,
            .networks = networks,
            .diagnostics = &session.diagnostics,
            .rank_count = session.options.rank_count,
            .local_ranks = session.options.devices.local_ranks,
            .device = session.devices.planned(),
        };
    }

    // --- internal ---

    /// Whether the model may be read: it is loaded and not about to be freed.
    fn hasModel(session: *const Session) bool {
        return session.loaded.load(.acquire) and !session.closing.load(.acquire);
    }

    /// Whether the coordinator has freed everything.
    fn hasEnded(session: *const Session) bool {
        return session.state.load(.acquire) == @intFromEnum(State.closed);
    }

    fn now(session: *const Session) i96 {
        return Io.Timestamp.now(session.io, .awake).toNanoseconds();
    }

    fn wakeCoordinator(session: *Session) void {
        _ = session.wake.fetchAdd(1, .acq_rel);
        session.io.futexWake(u32, &session.wake.raw, 1);
    }

    fn coordinate(session: *Session) void {
        var seen = session.wake.load(.acquire);
        if (session.load()) {
            session.loaded.store(!session.options.checks_only, .release);
            session.state.store(@intFromEnum(State.ready), .release);
        } else |err| session.fail(err, .failed);
        while (!session.closing.load(.acquire)) {
            const count = session.wake.load(.acquire);
            if (count == seen) {
                session.io.futexWaitUncancelable(u32, &session.wake.raw, seen);
                continue;
            }
            seen = count;
            if (session.state.load(.acquire) != @intFromEnum(State.running)) continue;
            if (session.runJob()) {
                session.state.store(@intFromEnum(State.done), .release);
            } else |err| session.fail(err, if (session.isLostBy(err)) .lost else .failed);
        }
        session.unload();
        session.state.store(@intFromEnum(State.closed), .release);
    }

    /// Whether no further job can run: a device was given up, or weights are not what they were.
    fn isLostBy(session: *Session, err: Error) bool {
        if (session.devices.isLost()) return true;
        if (err != error.BadWeights) return false;
        session.model.checkUnchanged() catch return true;
        session.devices.int8.checkUnchanged(session.io, &session.diagnostics) catch return true;
        return false;
    }

    fn fail(session: *Session, err: Error, state: State) void {
        session.failure = err;
        session.state.store(@intFromEnum(state), .release);
    }

    fn load(session: *Session) Error!void {
        const o = &session.options;
        const stop = &session.cancelled;
        const d = &session.diagnostics;
        try session.model.open(session.gpa, session.io, &o.config, o.files, stop, d);
        errdefer session.model.close();
        errdefer session.networks.deinit();
        if (o.devices.compute_dtype == .int8) session.model.useInt8();
        session.copy_bytes.store(session.model.weightBytes().copied, .release);
        var first = (try o.first.job(.image, session.gpa)).?;
        defer first.deinit();
        const networks = try session.openNetworks(&first, null);
        const plan = try session.plans.get(&session.planner(networks), &first);
        // The free memory of a GPU is known once it is open; on the CPU it is checked before.
        const is_cpu = o.devices.kind == .cpu;
        const activation = if (is_cpu) null else o.devices.activation_dtype;
        if (is_cpu) try session.checkFirst(activation);
        if (is_cpu and o.checks_only) return session.closeChecked();
        try session.devices.open(plan.layout.rank_count);
        errdefer session.devices.close();
        if (!is_cpu) try session.checkFirst(activation);
        if (o.checks_only) {
            session.devices.close();
            return session.closeChecked();
        }
        const loaded = session.devices.loadWeights(&session.model, stop, &session.copied_bytes);
        try session.model.checkUnchanged();
        try loaded;
        const arena = session.model.arena.allocator();
        session.weight_notes = try weight_notes.write(arena, &session.model, activation);
        session.all_warnings = try warningsOf(arena, &session.model, &session.devices);
        const progress = &session.adapt_progress;
        session.adapted =
            session.devices.adaptedWeights(&session.model, &session.cancelled, progress);
    }

    /// The end of a session that only checks.
    fn closeChecked(session: *Session) void {
        session.networks.deinit();
        session.model.close();
    }

    /// Refuses what does not fit of what will be asked for first, each pass by itself: what the
    /// others have loaded is freed for it.
    fn checkFirst(session: *Session, activation: ?DType) Error!void {
        for (std.enums.values(firsts.Pass)) |pass| {
            var job = try session.options.first.job(pass, session.gpa) orelse continue;
            defer job.deinit();
            const networks = try session.openNetworks(&job, null);
            const planning = session.planner(networks);
            const plan = try session.plans.get(&planning, &job);
            const local = session.localRanks(plan);
            const scratch = plan.scratch_bytes[local.first..local.end];
            var needs = try session.needsOf(scratch, activation, networks);
            const own = session.devices.bytesOf(needs);
            _ = session.needed_bytes.fetchMax(own, .monotonic);
            needs.beside_bytes = session.options.beside_bytes;
            try session.checkFits(&job, &planning, needs);
        }
    }

    /// Of loading and the first image; `activation` is null on the CPU.
    fn needsOf(
        session: *Session,
        scratch: []const usize,
        activation: ?DType,
        networks: []const *Network,
    ) Error!devices.Needs {
        const own = session.devices.placeWeights(&session.model);
        const adapters = session.options.first.adapters;
        const merged =
            try devices.mergedBytes(session.gpa, &session.model, adapters, activation);
        const beside = Networks.missingBytes(networks, &session.devices);
        return .{ .scratch = scratch, .weight_bytes = own + merged + beside };
    }

    fn unload(session: *Session) void {
        if (!session.loaded.load(.acquire)) return;
        session.adapted.deinit();
        session.networks.deinit();
        session.devices.close();
        session.model.close();
    }

    /// Refuses what does not fit into free memory, before anything is allocated.
    fn checkFits(
        session: *Session,
        job: *const Job,
        planning: *const plans.Planner,
        needs: devices.Needs,
    ) Error!void {
        var total: u64 = 0;
        for (needs.scratch) |bytes| total += bytes;
        session.scratch_bytes.store(total, .release);
        const shortage = try session.devices.shortage(needs) orelse return;
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const advisor: Advisor = .{
            .planner = planning,
            .devices = &session.devices,
            .job = job,
            .tile_latent = session.options.tile_latent,
            .weight_bytes = needs.weight_bytes + needs.beside_bytes,
        };
        const advice = try advisor.sentence(arena.allocator());
        const what = if (job.kind == .upscale) "upscaler" else "image";
        return shortage.fail(&session.diagnostics, what, advice);
    }

    fn runJob(session: *Session) Error!void {
        const job = &session.job.?;
        try session.devices.prepare();
        const networks = try session.openNetworks(job, &session.devices);
        const planning = session.planner(networks);
        const plan = try session.plans.get(&planning, job);
        const local = session.localRanks(plan);
        const scratch = plan.scratch_bytes[local.first..local.end];
        const needs: devices.Needs = .{
            .scratch = scratch,
            .weight_bytes = try session.adapted.missingBytes(job.adapters) +
                Networks.missingBytes(networks, &session.devices),
        };
        // What other jobs have left is the first to go: networks, then sets of adapters.
        while (try session.devices.shortage(needs) != null) {
            if (session.networks.release(networks, &session.devices)) continue;
            if (!try session.adapted.release(job.adapters)) break;
        }
        try session.checkFits(job, &planning, needs);
        try session.adapt(job);
        try session.loadNetworks(networks);
        for (session.devices.ranks[0..scratch.len], scratch) |*rank, bytes| {
            try rank.reserve(session.gpa, bytes);
        }
        const vae = &session.model.config.vae;
        if (job.kind == .image) try session.result.allocShared(job, plan.layout.rank_count, vae);
        if (job.kind == .upscale) {
            const scale = networks[0].graph.upscaler.config.scale();
            try session.result.allocEnlarged(job, scale);
        }
        var threads: RankThreads = .{
            .gpa = session.gpa,
            .io = session.io,
            .model = &session.model,
            .networks = networks,
            .devices = session.devices.ranks,
            .fibers = session.devices.fibers(),
            .connection = session.devices.connection(),
            .is_cuda = session.options.devices.kind == .cuda,
            .local_ranks = local,
            .plan = plan,
            .job = job,
            .result = &session.result,
            .reporter = &session.reporter,
            .diagnostics = &session.diagnostics,
        };
        const ran = threads.run();
        // GPUs have copies of their own; the CPU reads the mapped files in every step.
        if (session.options.devices.kind == .cpu) {
            try session.model.checkUnchanged();
            try session.devices.int8.checkUnchanged(session.io, &session.diagnostics);
            try Networks.checkUnchanged(networks);
        }
        try ran;
        session.device_bytes.store(session.devices.usedBytes(), .release);
    }

    /// The networks that a job names; their list lasts as long as the job.
    fn openNetworks(
        session: *Session,
        job: *Job,
        device: ?*devices.Devices,
    ) Error![]const *Network {
        const arena = job.arena.allocator();
        return session.networks.open(arena, job.networks, &session.model.config, device);
    }

    fn loadNetworks(session: *Session, networks: []const *Network) Error!void {
        const bytes = Networks.missingBytes(networks, &session.devices);
        if (bytes == 0) return;
        _ = session.reporter.begin(.load);
        session.copy_bytes.store(bytes, .release);
        session.copied_bytes.store(0, .release);
        try session.networks.load(networks, &session.devices, &session.copied_bytes);
        _ = session.reporter.begin(session.job.?.firstStage());
    }

    /// Makes the weights what the job asks for.
    fn adapt(session: *Session, job: *const Job) Error!void {
        const start = session.reporter.now();
        try session.adapted.use(job.adapters);
        session.result.adapt_ns = session.reporter.since(start);
    }

    fn localRanks(session: *const Session, plan: *const Plan) RankRange {
        return plan.localRanks(session.options.rank_count, session.options.devices.local_ranks);
    }
};

/// Sentences, each with a 0 byte behind it.
fn warningsOf(
    arena: Allocator,
    model: *const Model,
    used: *const devices.Devices,
) Allocator.Error![]const u8 {
    const note = used.connectionNote();
    if (note.len == 0) return model.warnings;
    return std.mem.concat(arena, u8, &.{ model.warnings, note, "\x00" });
}

test {
    _ = weight_notes;
    _ = plans;
}
