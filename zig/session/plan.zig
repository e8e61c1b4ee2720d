//! The plan of an image's shape: who computes what, the slots of each network, how much scratch
//! each rank needs. It is made once per shape by running the pipeline over the dry-run device, kept
//! in a cache, and read by everybody: memory checks, arenas, exchanges.
//!
//! A rank's graph runs twice. The first pass records the slots where patches exchange data; the
//! second opens the exchanges with them and adds up the scratch.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backend = @import("../backend.zig");
const StepCoefficients = backend.StepCoefficients;
const OpTrace = @import("../backend/op_trace.zig").OpTrace;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Job = pipeline.Job;
const layouts = @import("../patch/layout.zig");
const Layout = layouts.Layout;
const Patches = layouts.Patches;
const RankRange = layouts.RankRange;
const rank_count_max = layouts.rank_count_max;
const models = @import("../model.zig");
const Network = models.Network;
const control_count_max = @import("../transport.zig").control_count_max;
const pipeline = @import("../pipeline.zig");
const rank_states = @import("rank_states.zig");
const Scratch = @import("../scratch.zig").Scratch;
const slots = @import("../patch/slots.zig");
const Compression = @import("../patch/sync_mode.zig").Compression;
const SyncMode = @import("../patch/sync_mode.zig").SyncMode;

/// Sizes, modes and batches that one session alternates between; the oldest plan is dropped.
const entry_count_max = 16;

pub const Error = pipeline.Error;

/// Everything in a job that its plan depends on.
pub const Key = struct {
    kind: pipeline.Kind,
    latent_rows: u32,
    latent_width: u32,
    branch_count: u32,
    /// Of its steps.
    shares: layouts.Shares,
    balance_step: u32,
    measures_balance: bool,
    kinds: StepKinds,
    outer_skips: u32,
    split_batch: bool,
    image_count: usize,
    sync_mode: SyncMode,
    extrapolate_halos: bool,
    compress_exchange: Compression,
    vae_tile_latent: u32,
    wants_decoded: bool,
    skips_decode: bool,
    has_previews: bool,
    has_negative: bool,
    has_injected: bool,
    has_image: bool,
    has_mask: bool,
    /// Whether an image starts from noise alone.
    is_new: bool,
    /// Of each branch's prompts: ids, which are as many in every prompt of it.
    prompt_ids: [2]usize,
    prompt_count: usize,
    clip_skip: u32,
    /// The networks beside the model, as the uses name them; 0 for none.
    control_networks: [control_count_max]u32,
    ip_adapters: [models.image_use_count_max]IpAdapterKey,
    upscale: pipeline.Upscale,
    /// Of the network that enlarges; 0 for none.
    upscaler: u32,
    /// Of a component's own job.
    batch: u32,
    prompt_embeds_len: usize,

    pub fn of(job: *const Job, networks: []const *const Network) Key {
        return .{
            .kind = job.kind,
            .latent_rows = job.latent_rows,
            .latent_width = job.latent_width,
            .branch_count = job.branch_count,
            .shares = job.shares(),
            .balance_step = job.balance_step,
            .measures_balance = job.measures_balance,
            .kinds = .of(job),
            .outer_skips = job.outer_skips,
            .split_batch = job.split_batch,
            .image_count = job.seeds.len,
            .sync_mode = job.sync_mode,
            .extrapolate_halos = job.extrapolate_halos,
            .compress_exchange = job.compress_exchange,
            .vae_tile_latent = job.vae_tile_latent,
            .wants_decoded = job.wants_decoded,
            .skips_decode = job.skips_decode,
            .has_previews = job.preview_steps > 0,
            .has_negative = for (job.negatives) |tokens| {
                if (tokens != null) break true;
            } else false,
            .has_injected = job.hasInjected(),
            .has_image = job.hasImage(),
            .has_mask = job.hasMask(),
            .is_new = job.image_scale == 0,
            .prompt_ids = .{ job.idCount(false), job.idCount(true) },
            .prompt_count = job.prompts.len,
            .clip_skip = job.clipSkip(),
            .control_networks = networksOf(job, networks),
            .ip_adapters = ipAdaptersOf(job, networks),
            .upscale = job.upscale,
            .upscaler = if (job.kind == .upscale) networks[0].id else 0,
            .batch = job.batch,
            .prompt_embeds_len = job.prompt_embeds.len,
        };
    }
};

fn networksOf(job: *const Job, networks: []const *const Network) [control_count_max]u32 {
    var ids: [control_count_max]u32 = @splat(0);
    for (ids[0..job.controls.len], job.controls) |*id, use| id.* = networks[use.network_index].id;
    return ids;
}

/// The networks of a use, and the images that it sees.
const IpAdapterKey = struct { adapter: u32 = 0, encoder: u32 = 0, image_count: usize = 0 };

fn ipAdaptersOf(
    job: *const Job,
    networks: []const *const Network,
) [models.image_use_count_max]IpAdapterKey {
    var keys: [models.image_use_count_max]IpAdapterKey = @splat(.{});
    for (keys[0..job.ip_adapters.len], job.ip_adapters) |*key, use| key.* = .{
        .adapter = networks[use.adapter_index].id,
        .encoder = networks[use.encoder_index].id,
        .image_count = use.scales.len,
    };
    return keys;
}

pub const Plan = struct {
    arena: std.heap.ArenaAllocator,
    layout: Layout,
    /// Of steps whose ranks compute all branches of their rows.
    together: Layout,
    /// Of steps without guidance.
    positive: Layout,
    /// Rows of the latent that each rank encodes and decodes.
    vae_patches: Patches,
    /// Arena bytes of each rank.
    scratch_bytes: [rank_count_max]usize = @splat(0),
    /// Of each rank.
    slot_lists: []slots.SlotLists,

    pub fn deinit(plan: *Plan) void {
        plan.arena.deinit();
        plan.* = undefined;
    }

    /// The ranks of a process. A job of fewer ranks than the session's runs in one process.
    pub fn localRanks(plan: *const Plan, session_rank_count: u32, local: RankRange) RankRange {
        if (plan.layout.rank_count == session_rank_count) return local;
        return .{ .first = 0, .end = plan.layout.rank_count };
    }
};

/// What one rank's dry run found.
pub const RankPlan = struct {
    scratch_bytes: usize,
    /// What the patches of the UNet keep for each other.
    exchange_bytes: usize,
};

/// Makes plans. It computes nothing and touches neither devices nor the data of weights.
pub const Planner = struct {
    gpa: Allocator,
    io: Io,
    model: *const models.Model,
    /// Those of the job.
    networks: []const *const Network = &.{},
    diagnostics: *Diagnostics,
    /// The session's ranks, and those of this process.
    rank_count: u32,
    local_ranks: RankRange,
    device: backend.Planned,

    pub fn plan(planner: *const Planner, job: *const Job) Error!Plan {
        var arena: std.heap.ArenaAllocator = .init(planner.gpa);
        errdefer arena.deinit();
        var result = try planner.unrecorded(job, arena.allocator());
        const rank_count = result.layout.rank_count;
        const deals_later = job.dealsByShares() or job.measures_balance;
        for (result.scratch_bytes[0..rank_count], 0..) |*bytes, i| {
            const index: u32 = @intCast(i);
            if (rank_count > 1) try planner.record(arena.allocator(), &result, job, index);
            bytes.* = (try planner.trace(&result, job, index, null)).scratch_bytes;
            if (rank_count > 1 and deals_later) {
                bytes.* = @max(bytes.*, try planner.laterScratch(job, index));
            }
        }
        result.arena = arena;
        return result;
    }

    /// The layouts of a plan.
    fn unrecorded(planner: *const Planner, job: *const Job, arena: Allocator) Error!Plan {
        const layout = try planner.layoutOf(job);
        const slot_lists = try arena.alloc(slots.SlotLists, layout.rank_count);
        @memset(slot_lists, &.{});
        return .{
            .arena = undefined,
            .layout = layout,
            .together = planner.otherLayout(job, layout, .together),
            .positive = planner.otherLayout(job, layout, .positive),
            .vae_patches = vaePatches(job, layout) catch |err|
                return planner.refuse(err, job),
            .slot_lists = slot_lists,
        };
    }

    /// Dealt by the same shares, except where these come later.
    fn vaePatches(job: *const Job, layout: Layout) !Patches {
        if (job.kind != .image) return layout.patches;
        return .deal(job.firstShares(), job.latent_rows, 1, layout.rank_count);
    }

    /// The scratch of one rank with the rows that it may have later.
    fn laterScratch(planner: *const Planner, job: *const Job, index: u32) Error!usize {
        var later = job.*;
        later.balance_step = 0;
        later.measures_balance = false;
        const measured = planner.mostOf(job, index);
        if (job.measures_balance) later.rank_shares = measured.slice();
        var arena: std.heap.ArenaAllocator = .init(planner.gpa);
        defer arena.deinit();
        var other = try planner.unrecorded(&later, arena.allocator());
        try planner.record(arena.allocator(), &other, &later, index);
        return (try planner.trace(&other, &later, index, null)).scratch_bytes;
    }

    /// Units of rows where one rank has the most that measuring may give it.
    fn mostOf(planner: *const Planner, job: *const Job, index: u32) layouts.Shares {
        const unit_count = job.latent_rows / planner.model.config.latentMultiple();
        const most = layouts.measuredUnitsMax(unit_count, planner.rank_count);
        var others: layouts.Shares = .{ .count = planner.rank_count };
        @memset(others.list[0..others.count], 1);
        others.list[index] = 0;
        for (0..unit_count - most - (others.count - 1)) |i| {
            const turn = i % (others.count - 1);
            others.list[if (turn < index) turn else turn + 1] += 1;
        }
        others.list[index] = most;
        return others;
    }

    /// One rank's graph over the dry-run device, with the slots that the plan has of it.
    pub fn trace(
        planner: *const Planner,
        plan_: *const Plan,
        job: *const Job,
        index: u32,
        op_trace: ?*OpTrace,
    ) Error!RankPlan {
        var dry_run: DryRun = try .init(planner, plan_, job, index);
        defer dry_run.deinit();
        dry_run.device.op_trace = op_trace;
        var rank = try dry_run.open(planner, plan_);
        try pipeline.run(&rank);
        if (op_trace) |counting| counting.leave(&dry_run.scratch);
        return .{
            .scratch_bytes = dry_run.scratch.peak,
            .exchange_bytes = dry_run.exchangeBytes(),
        };
    }

    // --- internal ---

    /// All ranks work on images, those of a process on tiles; a component alone is one rank's work.
    fn layoutOf(planner: *const Planner, job: *const Job) Error!Layout {
        if (job.kind == .upscale) {
            var layout: Layout = .single(1, job.latent_rows);
            layout.rank_count = planner.local_ranks.count();
            return layout;
        }
        if (job.kind != .image) return .single(1, job.latent_rows);
        return Layout.init(planner.layoutOptions(job)) catch |err| planner.refuse(err, job);
    }

    fn otherLayout(
        planner: *const Planner,
        job: *const Job,
        layout: Layout,
        branches: layouts.Branches,
    ) Layout {
        if (layout.branch_count == 1) return layout;
        const options = planner.layoutOptions(job);
        return if (branches == .together) .ofTogether(options) else .ofPositive(options);
    }

    fn layoutOptions(planner: *const Planner, job: *const Job) layouts.Options {
        return .{
            .rank_count = planner.rank_count,
            .branch_count = job.branch_count,
            .split_batch = job.split_batch,
            .rows = job.latent_rows,
            .unit = planner.model.config.latentMultiple(),
            .shares = job.firstShares(),
        };
    }

    fn refuse(planner: *const Planner, err: error{NotDealable}, job: *const Job) Error {
        return planner.diagnostics.fail(err, "{d} latent rows cannot be split over {d} " ++
            "ranks. Use fewer ranks or a taller image.", .{
            job.latent_rows, planner.rank_count,
        });
    }

    /// Fills the plan's slots of one rank, in the plan's `arena`.
    fn record(
        planner: *const Planner,
        arena: Allocator,
        plan_: *Plan,
        job: *const Job,
        index: u32,
    ) Error!void {
        var dry_run: DryRun = try .init(planner, plan_, job, index);
        defer dry_run.deinit();
        var rank = try dry_run.open(planner, plan_);
        const recorders = try arena.alloc(slots.Recorder, dry_run.exchanges.len);
        for (recorders, dry_run.exchanges) |*recorder, *exchange| {
            recorder.* = .{ .arena = arena };
            exchange.recorder = recorder;
        }
        try pipeline.run(&rank);
        const lists = try arena.alloc([]const slots.Slot, recorders.len);
        for (lists, recorders) |*list, *recorder| list.* = recorder.list.items;
        plan_.slot_lists[index] = lists;
    }
};

/// A rank whose device only counts. Must not move once it is open.
const DryRun = struct {
    arena: std.heap.ArenaAllocator,
    index: u32,
    /// Its memory is the caller's and `arena`'s.
    job: Job,
    result: pipeline.Result,
    device: backend.Planned,
    scratch: Scratch,
    exchanges: []Exchange = &.{},

    fn init(
        planner: *const Planner,
        plan: *const Plan,
        job: *const Job,
        index: u32,
    ) Allocator.Error!DryRun {
        std.debug.assert(index < plan.layout.rank_count);
        var dry_run: DryRun = .{
            .arena = .init(planner.gpa),
            .index = index,
            .job = job.*,
            .result = .init(planner.gpa),
            .device = planner.device,
            .scratch = .planning(),
        };
        errdefer dry_run.arena.deinit();
        try completeJob(dry_run.arena.allocator(), &dry_run.job);
        return dry_run;
    }

    fn deinit(dry_run: *DryRun) void {
        dry_run.result.deinit();
        dry_run.arena.deinit();
    }

    /// What the patches keep for each other in a step: the most, since its branches are one kind.
    fn exchangeBytes(dry_run: *const DryRun) u64 {
        var most: u64 = 0;
        for (std.enums.values(layouts.Branches)) |branches| {
            var bytes: u64 = 0;
            for (0..1 + dry_run.job.controls.len) |i| {
                const exchange = &dry_run.exchanges[slots.networkOfStep(i, branches)];
                bytes += exchange.counters.buffer_bytes;
            }
            most = @max(most, bytes);
        }
        return most;
    }

    fn open(
        dry_run: *DryRun,
        planner: *const Planner,
        plan: *const Plan,
    ) Allocator.Error!pipeline.Rank {
        const arena = dry_run.arena.allocator();
        const shape: rank_states.Shape = .{
            .plan = plan,
            .model = planner.model,
            .networks = planner.networks,
            .is_cuda = planner.device.is_cuda,
        };
        const index = dry_run.index;
        dry_run.exchanges = try rank_states.exchangesOf(arena, shape, &dry_run.job, index);
        const prompts = try arena.alloc([]pipeline.Conditioning, plan.layout.rank_count);
        prompts[index] = try rank_states.emptyConditionings(arena, shape, &dry_run.job);
        const b: backend.Backend = .{
            .scratch = &dry_run.scratch,
            .device = .{ .plan = dry_run.device },
        };
        const exchanges = try arena.alloc(*Exchange, dry_run.exchanges.len);
        for (exchanges, dry_run.exchanges) |*own, *each| {
            each.b = b;
            own.* = each;
        }
        return .{
            .index = index,
            .local_ranks = plan.localRanks(planner.rank_count, planner.local_ranks),
            .layouts = .init(.{
                .all = &plan.layout,
                .together = &plan.together,
                .positive = &plan.positive,
            }),
            .layout = &plan.layout,
            .job = &dry_run.job,
            .result = &dry_run.result,
            .model = planner.model,
            .b = b,
            .io = planner.io,
            .networks = planner.networks,
            .exchanges = exchanges,
            .exchange = exchanges[slots.networkOfUnet(.all)],
            .vae_exchange = exchanges[slots.network_vae],
            .encoder_exchange = exchanges[slots.network_vae_encoder],
            .prompts = prompts,
            .transport = .none,
            .diagnostics = planner.diagnostics,
            .arena = arena,
        };
    }
};

/// A dry run needs the shape of every input, a step of each kind, and no values.
fn completeJob(arena: Allocator, job: *Job) Allocator.Error!void {
    if (job.steps.len > 1) try keepDifferentSteps(arena, job);
    // Every network is part of every step that is left.
    const controls = try arena.dupe(pipeline.ControlUse, job.controls);
    for (controls) |*use| use.steps = .all;
    job.controls = controls;
    const ip_adapters = try arena.dupe(pipeline.IpAdapterUse, job.ip_adapters);
    for (ip_adapters) |*use| use.steps = .all;
    job.ip_adapters = ip_adapters;
    if (job.kind != .image) return;
    if (job.steps.len == 0) {
        const step = try arena.create(StepCoefficients);
        step.* = std.mem.zeroes(StepCoefficients);
        step.guidance_factor = 1;
        job.steps = step[0..1];
    }
    if (job.branch_count > 1 and job.guidance_scales.len == 0) {
        const scale_count = job.seeds.len * job.promptCount();
        const scales = try arena.alloc(f32, scale_count);
        @memset(scales, 1);
        job.guidance_scales = scales;
    }
    if (job.negatives.len > 0) return;
    const negatives = try arena.alloc(?pipeline.Tokens, job.prompts.len / job.promptCount());
    for (negatives, job.prompts[0..negatives.len]) |*negative, tokens| negative.* = tokens;
    job.negatives = negatives;
}

/// Keeps the first step of each kind that the job has.
fn keepDifferentSteps(arena: Allocator, job: *Job) Allocator.Error!void {
    const kinds: StepKinds = .of(job);
    var steps: std.ArrayList(StepCoefficients) = .empty;
    var reuse: std.ArrayList(pipeline.StepReuse) = .empty;
    for (std.enums.values(layouts.Branches)) |branches| {
        for (std.enums.values(backend.Part)) |cross| {
            for ([_]pipeline.DeepPlan{ .full, .cached }) |deep| {
                if (!kinds.has(branches, cross, deep)) continue;
                const step = for (job.steps, 0..) |step, i| {
                    if (job.branchesAt(i) == branches) break step;
                } else unreachable;
                try steps.append(arena, step);
                try reuse.append(arena, .{ .deep = deep, .cross = cross });
            }
        }
    }
    job.steps = steps.items;
    if (job.step_reuse.len > 0) job.step_reuse = reuse.items;
}

/// What the steps of a job compute, each combination once.
const StepKinds = struct {
    bits: u32 = 0,

    fn of(job: *const Job) StepKinds {
        var kinds: StepKinds = .{};
        for (0..job.steps.len) |i| {
            const branches = job.branchesAt(i);
            const reuse = job.reuseAt(i);
            kinds.bits |= bitOf(branches, reuse.cross, .full);
            if (reuse.deep == .full or reuse.cross == .keep) continue;
            kinds.bits |= bitOf(branches, reuse.cross, .cached);
        }
        return kinds;
    }

    fn has(
        kinds: StepKinds,
        branches: layouts.Branches,
        cross: backend.Part,
        deep: pipeline.DeepPlan,
    ) bool {
        return kinds.bits & bitOf(branches, cross, deep) != 0;
    }

    fn bitOf(branches: layouts.Branches, cross: backend.Part, deep: pipeline.DeepPlan) u32 {
        const cross_count = std.enums.values(backend.Part).len;
        const number = @as(usize, @intFromEnum(branches)) * cross_count + @intFromEnum(cross);
        return @as(u32, 1) << @intCast(2 * number + @intFromEnum(deep));
    }
};

test "each combination of what a step computes has a bit of its own" {
    var seen: u32 = 0;
    for (std.enums.values(layouts.Branches)) |branches| {
        for (std.enums.values(backend.Part)) |cross| {
            for ([_]pipeline.DeepPlan{ .full, .cached }) |deep| {
                const bit = StepKinds.bitOf(branches, cross, deep);
                try std.testing.expectEqual(0, seen & bit);
                seen |= bit;
            }
        }
    }
    try std.testing.expectEqual(18, @popCount(seen));
}

/// The latest plans, each under its own key. Plans stay where they are until they are dropped.
pub const PlanCache = struct {
    entries: [entry_count_max]struct { key: Key, plan: Plan } = undefined,
    count: usize = 0,
    oldest: usize = 0,
    /// Plans made so far, each with a layout of its own.
    plan_count: std.atomic.Value(u32) = .init(0),

    pub fn deinit(cache: *PlanCache) void {
        for (cache.entries[0..cache.count]) |*entry| entry.plan.deinit();
        cache.count = 0;
    }

    /// Valid until as many other shapes have been planned as the cache holds.
    pub fn get(cache: *PlanCache, planner: *const Planner, job: *const Job) Error!*const Plan {
        const key: Key = .of(job, planner.networks);
        if (cache.find(&key)) |known| return known;
        _ = cache.plan_count.fetchAdd(1, .monotonic);
        return cache.put(key, try planner.plan(job));
    }

    // --- internal ---

    fn find(cache: *const PlanCache, key: *const Key) ?*const Plan {
        for (cache.entries[0..cache.count]) |*entry| {
            if (std.meta.eql(entry.key, key.*)) return &entry.plan;
        }
        return null;
    }

    fn put(cache: *PlanCache, key: Key, plan: Plan) *const Plan {
        const i = if (cache.count < entry_count_max) cache.count else cache.oldest;
        if (cache.count < entry_count_max) cache.count += 1 else cache.entries[i].plan.deinit();
        cache.oldest = (i + 1) % entry_count_max;
        cache.entries[i] = .{ .key = key, .plan = plan };
        return &cache.entries[i].plan;
    }
};

test "the latest plans are kept, each under its own key" {
    const gpa = std.testing.allocator;
    var cache: PlanCache = .{};
    defer cache.deinit();
    const total = entry_count_max + 3;
    var keys: [total]Key = undefined;
    for (&keys, 0..) |*key, i| {
        var job: Job = .{
            .arena = .init(gpa),
            .kind = .image,
            .latent_rows = @intCast(8 + i),
            .latent_width = 8,
        };
        defer job.deinit();
        key.* = .of(&job, &.{});
        var arena: std.heap.ArenaAllocator = .init(gpa);
        const lists = try arena.allocator().alloc(slots.SlotLists, 1);
        const rows: u32 = @intCast(8 + i);
        _ = cache.put(key.*, .{
            .arena = arena,
            .layout = .single(1, rows),
            .together = .single(1, rows),
            .positive = .single(1, rows),
            .vae_patches = try .deal(.{}, rows, 1, 1),
            .scratch_bytes = @splat(i),
            .slot_lists = lists,
        });
    }
    for (keys[0..3]) |*key| try std.testing.expectEqual(null, cache.find(key));
    for (keys[3..], 3..) |*key, i| {
        try std.testing.expectEqual(i, cache.find(key).?.scratch_bytes[0]);
    }
}

test "sides turned round are another shape" {
    var job: Job = .{
        .arena = undefined,
        .kind = .image,
        .latent_rows = 12,
        .latent_width = 8,
    };
    const tall: Key = .of(&job, &.{});
    std.mem.swap(u32, &job.latent_rows, &job.latent_width);
    try std.testing.expect(!std.meta.eql(tall, Key.of(&job, &.{})));
}
