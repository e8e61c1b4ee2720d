//! The denoise stage: in each step every rank runs the UNet on its own guidance branches and rows,
//! gathers the outputs of all ranks, and updates its own copy of the whole latent. The copies stay
//! equal, so apart from the layers' exchanges only model outputs are sent. Steps outside the
//! guidance window compute the prompt's branches alone, and all ranks share their rows.

const std = @import("std");
const backend = @import("../backend.zig");
const GraphKey = backend.GraphKey;
const StepCoefficients = backend.StepCoefficients;
const Tensor = @import("../tensor.zig").Tensor;
const Conditioning = @import("../model/conditioning.zig").Conditioning;
const Conditionings = @import("text.zig").Conditionings;
const Balance = @import("balance.zig").Balance;
const exchanges = @import("../patch/exchange.zig");
const Exchange = exchanges.Exchange;
const Additions = @import("../model/additions.zig").Additions;
const Branches = @import("../patch/layout.zig").Branches;
const Controls = @import("controls.zig").Controls;
const gather = @import("gather.zig");
const image_prompts = @import("image_prompts.zig");
const LatentState = @import("latents.zig").LatentState;
const Moments = @import("source.zig").Moments;
const previews = @import("preview.zig");
const reuses = @import("reuse.zig");
const Reuse = reuses.Reuse;
const StepReuses = reuses.StepReuses;
const Signals = @import("decisions.zig").Signals;
const slots = @import("../patch/slots.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

const no_halo: Exchange.HaloRows = .{ .above = null, .below = null };

/// Runs all steps and returns the latent (images, rows, width, channels), which the caller frees.
/// `moments` are those of the image that the job starts from.
pub fn denoise(rank: *Rank, conditionings: Conditionings, moments: Moments) Error!Tensor {
    const job = rank.job;
    if (job.outer_skips > 0) try rank.transport.openDeep();
    var state: LatentState = try .init(rank, moments);
    var signals: Signals = try .init(rank);
    var reuse: StepReuses = try .init(rank);
    defer reuse.deinit(rank);
    var controls: Controls = try .init(rank);
    defer controls.deinit(rank);
    var counts: LoopCounts = .{};
    var ends: StepEnds = try .init(rank);
    var balance: Balance = .init(rank);
    var warmup: Warmup = .{};
    const own_start = ownNs(rank);
    const waited_start = rank.transport.waitedNs();
    const conditions = state.source.conditions;
    var run: Run = try .open(rank, conditionings, conditions, &reuse, &controls, 0);
    defer run.close(rank, &reuse);
    rank.enterSteps();
    for (job.steps, 0..) |step, i| {
        rank.transport.enterStep(@intCast(i + 1));
        const shares = try balance.sharesAt(rank, i);
        if (shares != null or (i > 0 and job.branchesAt(i) != job.branchesAt(i - 1))) {
            run.close(rank, &reuse);
            if (shares) |dealt| try rank.deal(dealt);
            const first: u32 = @intCast(i);
            run = try .open(rank, conditionings, conditions, &reuse, &controls, first);
        }
        const parts = reuse.next(rank, i, &signals);
        const masked = try state.maskedInput(rank, i);
        defer if (masked) |tensor| rank.b.free(tensor);
        const input = masked orelse state.latent;
        const own = if (rank.layout.isIdle(rank.index))
            try nothing(rank, input)
        else
            try run.predictTimed(rank, @intCast(i), step, parts, input, &counts, &balance);
        const output = try gather.gatherRows(rank, own, &counts.gather_bytes);
        try signals.observe(rank, input, output, job.cleanMix(i));
        try warmup.observe(rank, @intCast(i), signals.clean_change);
        const estimate: ?Tensor = if (previews.isDue(rank, i + 1))
            try state.estimate(rank, i, input, output, job.cleanMix(i))
        else
            null;
        defer if (estimate) |tensor| rank.b.free(tensor);
        try state.advance(rank, i, input, output);
        rank.b.free(output);
        try rank.b.beginFiniteCheck(state.latent, .ofStep(i));
        // A preview waits for its step in any case.
        const runs_ahead = rank.b.isCuda() and estimate == null;
        try ends.reach(rank, if (runs_ahead) i else i + 1);
        if (estimate) |tensor| try previews.show(rank, tensor, i + 1);
    }
    try ends.reach(rank, job.steps.len);
    counts.own_ns = ownNs(rank) -| own_start;
    counts.wait_ns = rank.transport.waitedNs() - waited_start;
    saveStats(rank, counts);
    return state.finish(rank);
}

// --- internal ---

/// The ends of steps, which are looked at in their order. On GPUs the host looks at a step when the
/// next one is queued, so that no GPU waits for it.
const StepEnds = struct {
    step_ns: []u64,
    count: usize = 0,
    /// When the last one was seen.
    last: i96,

    fn init(rank: *Rank) Error!StepEnds {
        const step_ns: []u64 = if (rank.reporter != null)
            try rank.result.alloc(u64, .step_ns, rank.job.steps.len)
        else
            &.{};
        return .{ .step_ns = step_ns, .last = rank.now() };
    }

    /// Waits until `count` steps have ended; each must have given finite numbers.
    fn reach(ends: *StepEnds, rank: *Rank, count: usize) Error!void {
        while (ends.count < count) {
            const i = ends.count;
            if (!try rank.b.endFiniteCheck(.ofStep(i))) {
                return rank.notFinite("Step {d} of {d} gave", .{ i + 1, rank.job.steps.len });
            }
            ends.count += 1;
            const start = ends.last;
            ends.last = rank.now();
            const reporter = rank.reporter orelse continue;
            ends.step_ns[i] = @intCast(ends.last - start);
            reporter.step_index.store(@intCast(i + 1), .release);
        }
    }
};

/// Ends the warm-up where the model's output has come to rest.
const Warmup = struct {
    has_ended: bool = false,

    /// Fewer steps of warm-up are no base for the extrapolation of halo rows.
    const step_count_min = 2;

    fn observe(warmup: *Warmup, rank: *Rank, step: u32, change: ?f64) Error!void {
        const job = rank.job;
        if (job.warmup_threshold == 0 or rank.isPlanning() or warmup.has_ended) return;
        const is_last = step == job.warmup_steps or step + 1 == job.steps.len;
        const rests = step >= step_count_min and (change orelse 1) < job.warmup_threshold;
        if (!is_last and !rests) return;
        warmup.has_ended = true;
        for (rank.exchanges) |exchange| {
            if (exchange.channel != .vae) exchange.warmup_steps = step;
        }
        if (rank.reporter == null) return;
        (try rank.result.alloc(u64, .warmup, 1))[0] = step;
    }
};

/// What an idle rank gives to the gather, where nobody reads it.
fn nothing(rank: *Rank, latent: Tensor) Error!Tensor {
    var shape = latent.shape;
    shape.batch *= rank.layout.branchesPerRank();
    shape.rows = gather.rowsOf(rank.layout, rank.index);
    return rank.b.alloc(shape, rank.b.activationType());
}

/// Steps one after the other that compute the same branches. Between runs the patches may change,
/// so each begins with an exchange of its own.
const Run = struct {
    /// One per set of prompts.
    conditionings: []const Conditioning,
    branch_first: u32 = 0,
    timestep: ?Tensor = null,
    times: []f32 = &.{},
    /// What the UNet reads beside the latent, for all own branches.
    conditions: ?Tensor = null,
    controls: *Controls,

    fn open(
        rank: *Rank,
        conditionings: Conditionings,
        conditions: ?Tensor,
        reuse: *StepReuses,
        controls: *Controls,
        step_first: u32,
    ) Error!Run {
        const branches = rank.job.branchesAt(step_first);
        rank.choose(branches);
        var run: Run = .{
            .conditionings = conditionings.sets.get(branches),
            .controls = controls,
        };
        try reuse.openRun(rank);
        if (rank.layout.isIdle(rank.index)) {
            try rank.transport.endOpen();
            return run;
        }
        const range = rank.layout.branchesOf(rank.index);
        const batch: u32 = @intCast(range.count * rank.job.seeds.len);
        run.branch_first = range.first;
        run.timestep = try rank.b.alloc(.vector(batch, 1), .f32);
        run.times = try rank.arena.alloc(f32, batch);
        if (conditions) |own| {
            run.conditions = try rank.b.scaleRepeat(own, 1, rank.layout.branchesPerRank());
        }
        const sample = reuses.sampleShape(rank, rank.layout);
        try controls.openRun(rank, sample, step_first);
        try rank.exchange.open(rank.arena, step_first);
        try rank.transport.endOpen();
        return run;
    }

    fn close(run: *Run, rank: *Rank, reuse: *StepReuses) void {
        rank.exchange.close();
        run.controls.closeRun(rank);
        reuse.closeRun(rank);
        if (run.conditions) |conditions| rank.b.free(conditions);
        if (run.timestep) |timestep| rank.b.free(timestep);
        run.conditions = null;
        run.timestep = null;
    }

    /// As `predictNoiseRows`, with the time that this rank takes for it.
    fn predictTimed(
        run: *const Run,
        rank: *Rank,
        step_index: u32,
        step: StepCoefficients,
        reuse: Reuse,
        latent: Tensor,
        counts: *LoopCounts,
        balance: *Balance,
    ) Error!Tensor {
        const is_timed = balance.times(rank);
        if (is_timed) try rank.b.finish();
        const start = ownNs(rank);
        const out = try run.predictNoiseRows(rank, step_index, step, reuse, latent, counts);
        if (is_timed) try rank.b.finish();
        const own_ns = ownNs(rank) -| start;
        const slow_ns = rank.job.hooks.slow(rank.io, rank.index, own_ns);
        counts.slow_ns += slow_ns;
        balance.count(rank, own_ns + slow_ns);
        return out;
    }

    /// Runs the UNet on this rank's branches and rows; returns (own branches * images, own rows,
    /// width, channels).
    fn predictNoiseRows(
        run: *const Run,
        rank: *Rank,
        step_index: u32,
        step: StepCoefficients,
        reuse: Reuse,
        latent: Tensor,
        counts: *LoopCounts,
    ) Error!Tensor {
        const b = rank.b;
        @memset(run.times, step.timestep);
        try b.write(run.timestep.?, std.mem.sliceAsBytes(run.times));
        const exchange = rank.exchange;
        const scaled = try b.scaleRepeat(latent, step.input_scale, rank.layout.branchesPerRank());
        defer b.free(scaled);
        const patch = exchange.patches[exchange.index];
        counts.unet_rows += @as(u64, scaled.shape.batch) * patch.row_count;
        if (run.controls.uses.len > 0) {
            const rows = try rowsOf(rank, scaled);
            defer rows.free(rank);
            const set = rank.job.setOfStep(step_index);
            try run.controls.run(rank, step_index, .{
                .sample = rows.sample,
                .halo = rows.halo,
                .timestep = run.timestep.?,
                .conditioning = run.conditionings[set],
                .set = set,
                .branch_first = run.branch_first,
                .reuse = &reuse,
            });
        }
        exchange.enterStep(step_index, if (reuse.deep == .reuse) .outer else .all);
        const conditions = run.conditions orelse {
            return run.runUnet(rank, step_index, reuse, scaled);
        };
        const joined = try b.concatChannels(&.{ scaled, conditions });
        defer b.free(joined);
        return run.runUnet(rank, step_index, reuse, joined);
    }

    /// Runs the UNet on this rank's rows of `input`, the latent and what is read beside it.
    fn runUnet(
        run: *const Run,
        rank: *Rank,
        step_index: u32,
        reuse: Reuse,
        input: Tensor,
    ) Error!Tensor {
        const rows = try rowsOf(rank, input);
        defer rows.free(rank);
        const set = rank.job.setOfStep(step_index);
        var conditioning = run.conditionings[set];
        var key: GraphKey = .of(.unet, rows.sample, rank.exchange.stepVariant());
        key.conditioning = set;
        key.branch_first = run.branch_first;
        key.context_tokens, key.context_tokens_second = conditioning.tokenCounts();
        key.step.deep = reuse.deep;
        key.step.outer_skips = reuse.outer_skips;
        key.step.cross = reuse.cross;
        const additions = run.controls.additionsAt(step_index, &key);
        var seen: image_prompts.Seen = undefined;
        conditioning.images = seen.at(rank.job, step_index, conditioning.images, &key);
        const args = .{ rank, rows, run.timestep.?, conditioning, additions, &reuse };
        return rank.b.runGraphed(key, forwardUnet, args);
    }
};

/// This rank's rows of an input, and the rows next to them: every rank has the whole latent.
const Rows = struct {
    sample: Tensor,
    halo: Exchange.HaloRows,
    /// Whether the sample is the input itself.
    is_whole: bool,

    fn free(rows: Rows, rank: *Rank) void {
        if (rows.is_whole) return;
        if (rows.halo.below) |tensor| rank.b.free(tensor);
        if (rows.halo.above) |tensor| rank.b.free(tensor);
        rank.b.free(rows.sample);
    }
};

fn rowsOf(rank: *Rank, input: Tensor) Error!Rows {
    const exchange = rank.exchange;
    if (exchange.isSinglePatch()) return .{ .sample = input, .halo = no_halo, .is_whole = true };
    const patch = exchange.patches[exchange.index];
    const below_first = patch.row_first + patch.row_count;
    const sample = try rank.copyOfRows(input, patch.row_first, patch.row_count);
    const above: ?Tensor =
        if (patch.row_first == 0) null else try rank.copyOfRows(input, patch.row_first - 1, 1);
    const below: ?Tensor =
        if (below_first == input.shape.rows) null else try rank.copyOfRows(input, below_first, 1);
    return .{ .sample = sample, .halo = .{ .above = above, .below = below }, .is_whole = false };
}

/// A clock of what this rank computes itself, which stands still while it waits for others. On the
/// CPU, where ranks and other programs share cores, it counts CPU time.
fn ownNs(rank: *const Rank) u64 {
    if (!rank.b.isCuda() and rank.layout.rank_count > 1) return rank.transport.ownNs();
    const now: u64 = @intCast(@max(0, rank.now()));
    return now -| rank.transport.waitedNs();
}

fn forwardUnet(
    rank: *Rank,
    rows: Rows,
    timestep: Tensor,
    conditioning: Conditioning,
    additions: Additions,
    reuse: *const Reuse,
) Error!Tensor {
    try rank.exchange.beginStep();
    const out = try rank.model.unet.forward(
        rank.context(),
        rows.sample,
        rows.halo,
        timestep,
        conditioning,
        additions,
        reuse,
    );
    try rank.exchange.endStep();
    return out;
}

/// Totals of the denoising loop.
const LoopCounts = struct {
    own_ns: u64 = 0,
    /// What a rank has slept that a test slows: no CPU time.
    slow_ns: u64 = 0,
    wait_ns: u64 = 0,
    gather_bytes: u64 = 0,
    unet_rows: u64 = 0,
};

fn saveStats(rank: *Rank, loop: LoopCounts) void {
    if (rank.isPlanning()) return;
    var received: @FieldType(exchanges.Counters, "received") = @splat(0);
    var buffer_bytes: u64 = 0;
    for (std.enums.values(Branches)) |branches| {
        var bytes: u64 = 0;
        for (0..1 + rank.job.controls.len) |i| {
            const exchange = rank.exchanges[slots.networkOfStep(i, branches)];
            for (&received, exchange.counters.received) |*sum, count| sum.* += count;
            bytes += exchange.counters.buffer_bytes;
        }
        buffer_bytes = @max(buffer_bytes, bytes);
    }
    rank.stats().* = .{
        .compute_ns = loop.own_ns + if (rank.b.isCuda()) 0 else loop.slow_ns,
        .wait_ns = loop.wait_ns,
        .halo_row_bytes = received[@intFromEnum(exchanges.Kind.halo_rows)],
        .statistics_bytes = received[@intFromEnum(exchanges.Kind.statistics)],
        .keys_values_bytes = received[@intFromEnum(exchanges.Kind.keys_values)] +
            received[@intFromEnum(exchanges.Kind.changes)],
        .gather_bytes = loop.gather_bytes,
        .buffer_bytes = buffer_bytes,
        .unet_rows = loop.unet_rows,
    };
}
