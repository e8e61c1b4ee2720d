//! A session: one model on one machine, its ranks, and at most one job at a time. Callers submit
//! and poll; a coordinator thread loads, plans, and runs the ranks. Errors end the job, not the
//! session.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Cpu = @import("backend.zig").Cpu;
const Compute = @import("backend.zig").Compute;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const StepRow = @import("backend.zig").StepRow;
const Exchange = @import("patch/exchange.zig").Exchange;
const layouts = @import("patch/layout.zig");
const Layout = layouts.Layout;
const Bands = layouts.Bands;
const rank_count_max = layouts.rank_count_max;
const modes = @import("patch/mode.zig");
const Loopback = @import("transport.zig").Loopback;
const Transport = @import("transport.zig").Transport;
const RankDevice = @import("rank_device.zig").RankDevice;
const Scratch = @import("scratch.zig").Scratch;
const jobs = @import("job.zig");
const Job = jobs.Job;
const denoise = @import("denoise.zig");
const parts = @import("parts.zig");
const rank_file = @import("rank.zig");
const Rank = rank_file.Rank;
const memory = @import("memory.zig");
const models = @import("model.zig");
const Model = models.Model;

pub const State = enum(u32) { loading = 0, ready = 1, running = 2, done = 3, failed = 4 };

/// Why a session or a job failed.
pub const Error = Model.Error || rank_file.Error || error{
    NotEnoughMemory,
    ThreadsUnavailable,
    NotDealable,
};

pub const Options = struct {
    rank_count: u32,
    /// Threads of all ranks together; 0 means one per core.
    thread_count: u32,
    config: models.ModelConfig,
    files: models.Files,
    /// Holds the paths of `files`; the session frees it.
    files_arena: std.heap.ArenaAllocator,
    /// The picture that will be asked for first: what cannot fit is refused before loading.
    latent_rows: u32,
    latent_width: u32,
    branch_count: u32,
    split_batch: bool,
    /// Pictures of one batch.
    picture_count: u32,
    /// As in a job.
    vae_tile_latent: u32,
    /// Of CPU ranks.
    compute: Compute = .f32,
};

pub const Session = struct {
    gpa: Allocator,
    io: Io,
    options: Options,
    model: Model = undefined,
    ranks: []RankDevice = &.{},
    state: std.atomic.Value(u32) = .init(@intFromEnum(State.loading)),
    failure: ?Error = null,
    diagnostics: Diagnostics = .{},
    cancelled: std.atomic.Value(bool) = .init(false),
    closing: std.atomic.Value(bool) = .init(false),
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
    working_ranks: std.atomic.Value(u32) = .init(0),
    coordinator: std.Thread = undefined,

    /// Returns at once; loading goes on in the background.
    pub fn open(gpa: Allocator, io: Io, options: Options) Error!*Session {
        const session = try gpa.create(Session);
        errdefer gpa.destroy(session);
        session.* = .{ .gpa = gpa, .io = io, .options = options, .reporter = .{ .io = io } };
        session.coordinator = std.Thread.spawn(.{}, coordinate, .{session}) catch
            return error.ThreadsUnavailable;
        return session;
    }

    /// Stops what runs and frees everything.
    pub fn close(session: *Session) void {
        session.closing.store(true, .release);
        session.cancelled.store(true, .release);
        session.wakeCoordinator();
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
        session.failure = null;
        session.diagnostics.reset();
        session.cancelled.store(false, .release);
        session.reporter.step_index.store(0, .release);
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

    fn coordinate(session: *Session) void {
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
        var first: Job = .{
            .arena = .init(session.gpa),
            .kind = .picture,
            .latent_rows = o.latent_rows,
            .latent_width = o.latent_width,
            .branch_count = o.branch_count,
            .split_batch = o.split_batch,
            .vae_tile_latent = o.vae_tile_latent,
        };
        defer first.deinit();
        first.seeds = try first.arena.allocator().alloc(u64, o.picture_count);
        const layout = try session.layoutOf(&first);
        const scratch = try session.plan(&layout, &first);
        try session.checkFits(&layout, scratch, weights.mapped + weights.copied);
        session.working_ranks.store(layout.rank_count, .release);
        try session.openRanks(layout.rank_count);
        errdefer session.closeRanks();
        for (&session.model.stores.values) |*store| {
            try store.materialize(&session.cancelled, &session.copied_bytes);
        }
    }

    fn unload(session: *Session) void {
        if (!session.loaded.load(.acquire)) return;
        session.closeRanks();
        session.model.close();
    }

    fn openRanks(session: *Session, count: u32) Error!void {
        const total = if (session.options.thread_count > 0)
            session.options.thread_count
        else
            @as(u32, @intCast(std.Thread.getCpuCount() catch 1));
        const ranks = try session.gpa.alloc(RankDevice, count);
        errdefer session.gpa.free(ranks);
        var opened: usize = 0;
        errdefer for (ranks[0..opened]) |*rank| rank.close(session.gpa);
        for (ranks, 0..) |*rank, i| {
            // What does not divide evenly goes to the first ranks.
            const threads = total / count + @intFromBool(i < total % count);
            rank.* = .{ .cpu = Cpu.init(session.gpa, session.io, .{
                .thread_count = @max(1, threads),
                .compute = session.options.compute,
                .cancelled = &session.cancelled,
            }) catch |err| switch (err) {
                error.OutOfMemory => return error.OutOfMemory,
                else => return error.ThreadsUnavailable,
            } };
            opened += 1;
        }
        session.ranks = ranks;
    }

    fn closeRanks(session: *Session) void {
        for (session.ranks) |*rank| rank.close(session.gpa);
        session.gpa.free(session.ranks);
    }

    /// Scratch bytes that each rank needs: the graph itself, run over a device that only counts.
    fn plan(session: *Session, layout: *const Layout, job: *const Job) Error![rank_count_max]usize {
        var bytes: [rank_count_max]usize = @splat(0);
        for (bytes[0..layout.rank_count], 0..) |*rank_bytes, i| {
            var arena: std.heap.ArenaAllocator = .init(session.gpa);
            defer arena.deinit();
            var planned = job.*;
            planned.arena = .init(session.gpa);
            defer planned.deinit();
            planned.outputs = .initFill(&.{});
            try completePlan(&planned, &session.options.config);
            var scratch: Scratch = .planning();
            const seats = try session.seat(arena.allocator(), layout, &planned);
            var rank = session.rankAt(@intCast(i), seats, layout, .plan, arena.allocator());
            rank.b = .{ .scratch = &scratch, .device = .{ .plan = .{ .activation = .f32 } } };
            rank.exchange.b = rank.b;
            rank.vae_exchange.b = rank.b;
            try runKind(&rank, &planned);
            rank_bytes.* = scratch.peak;
        }
        return bytes;
    }

    /// Refuses what the machine cannot hold, before anything is touched.
    fn checkFits(
        session: *Session,
        layout: *const Layout,
        scratch: [rank_count_max]usize,
        weight_bytes: usize,
    ) Error!void {
        var total: u64 = 0;
        for (scratch[0..layout.rank_count]) |bytes| total += bytes;
        session.scratch_bytes.store(total, .release);
        var held: u64 = 0;
        for (session.ranks) |rank| held += rank.memory.len;
        const work = total -| held;
        const need = work + weight_bytes;
        const there = memory.available(session.io) orelse return;
        if (need <= there) return;
        const gib = 1024.0 * 1024.0 * 1024.0;
        const sentence = "This picture needs {d:.2} GiB more than is in use ({d:.2} for the " ++
            "weights, {d:.2} for the work, ranks: {d}), and {d:.2} GiB are free. " ++
            "Choose a smaller size or fewer ranks.";
        return session.diagnostics.fail(error.NotEnoughMemory, sentence, .{
            asFloat(need) / gib,
            asFloat(weight_bytes) / gib,
            asFloat(work) / gib,
            layout.rank_count,
            asFloat(there) / gib,
        });
    }

    fn runJob(session: *Session) Error!void {
        const job = &session.job.?;
        const layout = try session.layoutOf(job);
        session.working_ranks.store(layout.rank_count, .release);
        const scratch = try session.plan(&layout, job);
        try session.checkFits(&layout, scratch, 0);
        for (session.ranks[0..layout.rank_count], scratch[0..layout.rank_count]) |*rank, bytes| {
            try rank.reserve(session.gpa, bytes);
        }
        if (job.kind == .picture) try makeOutputs(job, &layout, &session.options.config);
        try session.runRanks(job, &layout);
    }

    /// Pictures are shared by all ranks; the parts alone are one rank's work.
    fn layoutOf(session: *Session, job: *const Job) Error!Layout {
        if (job.kind != .picture) return .single(1, job.latent_rows);
        return Layout.init(.{
            .rank_count = session.options.rank_count,
            .branch_count = job.branch_count,
            .split_batch = job.split_batch,
            .rows = job.latent_rows,
            .unit = session.options.config.latentMultiple(),
        }) catch session.diagnostics.fail(error.NotDealable, "{d} rows of the latent cannot be " ++
            "dealt to {d} ranks. Ask for fewer ranks or a taller picture.", .{
            job.latent_rows, session.options.rank_count,
        });
    }

    /// Every rank's exchanges, which know each other.
    fn seat(
        session: *Session,
        arena: Allocator,
        layout: *const Layout,
        job: *const Job,
    ) Error!Seats {
        const vae_bands = try arena.create(Bands);
        vae_bands.* = Bands.deal(job.latent_rows, 1, layout.rank_count) catch
            return error.NotDealable;
        const unet = try arena.alloc(Exchange, layout.rank_count);
        const vae = try arena.alloc(Exchange, layout.rank_count);
        for (unet, vae, 0..) |*in_unet, *in_vae, i| {
            const rank: u32 = @intCast(i);
            in_unet.* = .{
                .b = undefined,
                .io = session.io,
                .transport = .plan,
                .bands = layout.bands.slice(),
                .index = layout.bandOf(rank),
                .rank_first = layout.groupOf(rank) * layout.bands.count,
                .mode = job.mode,
                .warmup_steps = job.warmup_steps,
                .predicts_borders = job.predicts_borders and
                    modes.freshness(job.mode, .border_rows, false) == .one_step_old,
                .bessel_variance = job.bessel_variance,
            };
            in_vae.* = .{
                .b = undefined,
                .io = session.io,
                .transport = .plan,
                .bands = vae_bands.slice(),
                .index = rank,
                .rank_first = 0,
                .mode = .full_sync,
                .warmup_steps = 0,
            };
        }
        return .{ .unet = unet, .vae = vae };
    }

    /// The rank of a layout, without its device.
    fn rankAt(
        session: *Session,
        index: u32,
        seats: Seats,
        layout: *const Layout,
        transport: Transport,
        arena: Allocator,
    ) Rank {
        return .{
            .index = index,
            .layout = layout,
            .model = &session.model,
            .b = undefined,
            .io = session.io,
            .exchange = &seats.unet[index],
            .vae_exchange = &seats.vae[index],
            .transport = transport,
            .diagnostics = &session.diagnostics,
            .arena = arena,
        };
    }

    fn runRanks(session: *Session, job: *Job, layout: *const Layout) Error!void {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const seats = try session.seat(arena.allocator(), layout, job);
        var loopback: Loopback = .init(
            session.io,
            layout.rank_count,
            &session.diagnostics,
            job.hooks,
        );
        var threads: [rank_count_max]std.Thread = undefined;
        var failures: [rank_count_max]?Error = @splat(null);
        var started: u32 = 1;
        while (started < layout.rank_count) : (started += 1) {
            threads[started] = std.Thread.spawn(.{}, runRank, .{
                session, job, layout, seats, &loopback, started, &failures[started],
            }) catch {
                failures[0] = error.ThreadsUnavailable;
                loopback.abort();
                break;
            };
        }
        if (failures[0] == null) {
            session.runRank(job, layout, seats, &loopback, 0, &failures[0]);
        }
        for (threads[1..started]) |thread| thread.join();
        return firstFailure(failures[0..layout.rank_count]);
    }

    fn runRank(
        session: *Session,
        job: *Job,
        layout: *const Layout,
        seats: Seats,
        loopback: *Loopback,
        index: u32,
        failure: *?Error,
    ) void {
        var arena: std.heap.ArenaAllocator = .init(session.gpa);
        defer arena.deinit();
        const device = &session.ranks[index];
        var scratch: Scratch = .init(device.memory);
        const transport: Transport = .{ .loopback = .{ .shared = loopback, .rank = index } };
        var rank = session.rankAt(index, seats, layout, transport, arena.allocator());
        rank.b = .{ .scratch = &scratch, .device = .{ .cpu = device.cpu } };
        rank.reporter = if (index == 0) &session.reporter else null;
        for ([_]*Exchange{ rank.exchange, rank.vae_exchange }, [_][]Exchange{
            seats.unet, seats.vae,
        }) |exchange, peers| {
            exchange.b = rank.b;
            exchange.transport = transport;
            exchange.peers = peers;
        }
        runKind(&rank, job) catch |err| {
            failure.* = err;
            transport.abort();
        };
    }
};

/// The exchanges of every rank, inside the UNet and inside the VAE.
const Seats = struct { unet: []Exchange, vae: []Exchange };

fn runKind(rank: *Rank, job: *Job) Error!void {
    switch (job.kind) {
        .picture => try denoise.drawPictures(rank, job),
        .prompt_embeds => try parts.embedPrompt(rank, job),
        .noise_prediction => try parts.predictNoise(rank, job),
        .decode => try parts.decodeSample(rank, job),
        .encode => try parts.encodeSample(rank, job),
    }
}

/// What all ranks write to together.
fn makeOutputs(job: *Job, layout: *const Layout, config: *const models.ModelConfig) Error!void {
    const factor: usize = config.vae.factor();
    const pixels = job.latent_rows * factor * job.latent_width * factor;
    _ = try job.output(u8, .rgb, job.seeds.len * pixels * config.vae.out_channels);
    if (job.wants_image) {
        _ = try job.output(f32, .image, job.seeds.len * pixels * config.vae.out_channels);
    }
    _ = try job.output(jobs.RankCounts, .rank_counts, layout.rank_count);
}

/// A rank that was only woken by another's failure says Cancelled: the other's reason counts.
fn firstFailure(failures: []const ?Error) Error!void {
    var cancelled = false;
    for (failures) |maybe| {
        const failure = maybe orelse continue;
        if (failure != error.Cancelled) return failure;
        cancelled = true;
    }
    if (cancelled) return error.Cancelled;
}

/// A plan needs the shape of every input, one step, and no values.
fn completePlan(job: *Job, config: *const models.ModelConfig) Allocator.Error!void {
    const arena = job.arena.allocator();
    if (job.rows.len > 1) job.rows = job.rows[0..1];
    if (job.kind != .picture) return;
    if (job.rows.len == 0) {
        const row = try arena.create(StepRow);
        row.* = std.mem.zeroes(StepRow);
        job.rows = row[0..1];
    }
    if (job.prompt.ids.len > 0) return;
    const ids = try arena.alloc(i32, config.clip.position_count);
    @memset(ids, 0);
    job.prompt = .{ .ids = ids, .ids_2 = ids };
    job.negative = job.prompt;
}

fn asFloat(bytes: u64) f64 {
    return @floatFromInt(bytes);
}
