//! Runs the local ranks of a job: one thread per rank, or fibers when there are more ranks than
//! cores. Returns the error of the rank that failed first.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const RankFibers = @import("../backend.zig").cpus.RankFibers;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Exchange = @import("../patch/exchange.zig").Exchange;
const rank_count_max = @import("../patch/layout.zig").rank_count_max;
const RankRange = @import("../patch/layout.zig").RankRange;
const Model = @import("../model.zig").Model;
const Network = @import("../model.zig").Network;
const pipeline = @import("../pipeline.zig");
const Plan = @import("plan.zig").Plan;
const RankDevice = @import("../devices/rank_device.zig").RankDevice;
const RankStates = @import("rank_states.zig").RankStates;
const slots = @import("../patch/slots.zig");
const transports = @import("../transport.zig");
const Transport = transports.Transport;

pub const Error = pipeline.Error || error{ThreadsUnavailable};

pub const RankThreads = struct {
    gpa: Allocator,
    io: Io,
    model: *const Model,
    networks: []const *const Network,
    /// Of the local ranks, in order.
    devices: []RankDevice,
    /// Null where every rank has a thread.
    fibers: ?*RankFibers,
    is_cuda: bool,
    connection: transports.Connection,
    local_ranks: RankRange,
    plan: *const Plan,
    job: *const pipeline.Job,
    result: *pipeline.Result,
    reporter: *pipeline.Reporter,
    diagnostics: *Diagnostics,

    states: RankStates = undefined,
    failures: [rank_count_max]?Error = @splat(null),

    /// Returns when all local ranks have ended.
    pub fn run(threads: *RankThreads) Error!void {
        var arena: std.heap.ArenaAllocator = .init(threads.gpa);
        defer arena.deinit();
        threads.states = try .init(
            arena.allocator(),
            .{
                .plan = threads.plan,
                .model = threads.model,
                .networks = threads.networks,
                .is_cuda = threads.is_cuda,
            },
            threads.job,
        );
        const job = threads.job;
        const local = threads.local_ranks;
        if (job.hooks.only_rank > 0) {
            threads.runRank(job.hooks.only_rank - 1, .none);
            return threads.firstFailure();
        }
        var ranks: transports.LocalRanks = .init(
            threads.io,
            threads.plan.layout.rank_count,
            threads.diagnostics,
            job.hooks,
        );
        ranks.range = local;
        ranks.fibers = threads.fibers;
        var local_run: LocalRun = .{ .threads = threads, .ranks = &ranks };
        local_run.run();
        return threads.firstFailure();
    }

    // --- internal ---

    fn runRank(threads: *RankThreads, index: u32, transport: Transport) void {
        const device = &threads.devices[index - threads.local_ranks.first];
        const failure = &threads.failures[index];
        var arena: std.heap.ArenaAllocator = .init(threads.gpa);
        defer arena.deinit();
        var scratch = device.scratch();
        var rank = threads.rankAt(index, transport, arena.allocator()) catch |err| {
            failure.* = err;
            return transport.abort();
        };
        rank.b = .{ .scratch = &scratch, .device = device.device };
        for (threads.states.exchanges) |peers| {
            const exchange = &peers[index];
            exchange.b = rank.b;
            exchange.transport = transport;
            exchange.peers = peers;
        }
        if (device.device == .cuda) {
            const cuda = device.device.cuda;
            cuda.waits.stall_limit_ns = threads.job.hooks.stall_limit_ns;
            cuda.waits.job_failed = transport.failed();
        }
        defer if (device.device == .cuda) {
            device.device.cuda.waits.job_failed = null;
        };
        if (device.device == .cpu) device.device.cpu.uses_winograd = threads.job.winograd;
        device.enter() catch |err| {
            failure.* = err;
            return transport.abort();
        };
        pipeline.run(&rank) catch |err| {
            failure.* = err;
            transport.abort();
            device.recover();
        };
    }

    /// The rank without its device.
    fn rankAt(
        threads: *RankThreads,
        index: u32,
        transport: Transport,
        arena: Allocator,
    ) Allocator.Error!pipeline.Rank {
        const states = &threads.states;
        const exchanges = try arena.alloc(*Exchange, states.exchanges.len);
        for (exchanges, states.exchanges) |*own, list| own.* = &list[index];
        const reports = index == threads.local_ranks.first or transport == .none;
        return .{
            .index = index,
            .local_ranks = threads.local_ranks,
            .layouts = .init(.{
                .all = &threads.plan.layout,
                .together = &threads.plan.together,
                .positive = &threads.plan.positive,
            }),
            .layout = &threads.plan.layout,
            .job = threads.job,
            .result = threads.result,
            .model = threads.model,
            .b = undefined,
            .io = threads.io,
            .networks = threads.networks,
            .exchanges = exchanges,
            .exchange = exchanges[slots.networkOfUnet(.all)],
            .vae_exchange = exchanges[slots.network_vae],
            .encoder_exchange = exchanges[slots.network_vae_encoder],
            .prompts = states.prompts,
            .transport = transport,
            .diagnostics = threads.diagnostics,
            .arena = arena,
            .reporter = if (reports) threads.reporter else null,
        };
    }

    /// Ranks aborted because a peer failed return Cancelled; the peer's error is reported instead.
    fn firstFailure(threads: *const RankThreads) Error!void {
        var cancelled = false;
        for (threads.failures) |maybe| {
            const failure = maybe orelse continue;
            if (failure != error.Cancelled) return failure;
            cancelled = true;
        }
        if (cancelled) return error.Cancelled;
    }
};

/// The ranks of this process.
const LocalRun = struct {
    threads: *RankThreads,
    ranks: *transports.LocalRanks,

    fn run(local: *LocalRun) void {
        const fibers = local.threads.fibers orelse return local.runThreads();
        assert(local.threads.local_ranks.first == 0);
        fibers.run(local.threads.local_ranks.count(), local, runFiber);
    }

    /// The first rank on this thread, the others on threads of their own.
    fn runThreads(local: *LocalRun) void {
        const range = local.threads.local_ranks;
        const failure = &local.threads.failures[range.first];
        var watch = local.threads.connection.watch(local.ranks);
        if (watch) |*w| w.start() catch |err| {
            failure.* = err;
            return;
        };
        defer if (watch) |*w| w.stop();
        var handles: [rank_count_max]std.Thread = undefined;
        var started: u32 = range.first + 1;
        while (started < range.end) : (started += 1) {
            handles[started] = std.Thread.spawn(.{}, runRank, .{ local, started }) catch {
                failure.* = error.ThreadsUnavailable;
                local.ranks.abort();
                break;
            };
        }
        if (failure.* == null) local.runRank(range.first);
        for (handles[range.first + 1 .. started]) |handle| handle.join();
    }

    fn runFiber(context: *anyopaque, rank: usize) void {
        const local: *LocalRun = @ptrCast(@alignCast(context));
        local.runRank(@intCast(rank));
    }

    fn runRank(local: *LocalRun, index: u32) void {
        const transport = local.threads.connection.transportOf(local.ranks, index);
        local.threads.runRank(index, transport);
    }
};
