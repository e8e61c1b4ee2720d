//! The denoise stage: in each step every rank runs the UNet on its own guidance branches and rows,
//! gathers the outputs of all ranks, and updates its own copy of the whole latent. The copies stay
//! equal, so apart from the layers' exchanges only model outputs are sent.

const std = @import("std");
const backend = @import("../backend.zig");
const GraphKey = backend.GraphKey;
const StepCoefficients = backend.StepCoefficients;
const Tensor = @import("../tensor.zig").Tensor;
const Conditioning = @import("../model/unet.zig").Conditioning;
const exchanges = @import("../patch/exchange.zig");
const Exchange = exchanges.Exchange;
const gather = @import("gather.zig");
const LatentState = @import("latents.zig").LatentState;
const previews = @import("preview.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

const no_halo: Exchange.HaloRows = .{ .above = null, .below = null };

/// Runs all steps and returns the latent (images, rows, width, channels), which the caller frees.
pub fn denoise(rank: *Rank, conditionings: []const Conditioning) Error!Tensor {
    const b = rank.b;
    const job = rank.job;
    var state: LatentState = try .init(rank);
    const batch: u32 = @intCast(rank.layout.branchesPerRank() * job.seeds.len);
    const timestep = try b.alloc(.vector(batch, 1), .f32);
    defer b.free(timestep);
    const times = try rank.arena.alloc(f32, batch);
    const step_ns: ?[]u64 = if (rank.reporter != null)
        try rank.result.alloc(u64, .step_ns, job.steps.len)
    else
        null;
    try rank.exchange.open(rank.arena);
    defer rank.exchange.close();
    var gather_bytes: u64 = 0;
    const loop_start = rank.now();
    const waited_start = rank.transport.waitedNs();
    for (job.steps, 0..) |step, i| {
        const start = rank.now();
        rank.transport.enterStep(@intCast(i + 1));
        @memset(times, step.timestep);
        try b.write(timestep, std.mem.sliceAsBytes(times));
        const own = try predictNoiseRows(
            rank,
            @intCast(i),
            step,
            state.latent,
            timestep,
            conditionings[job.setOfStep(i)],
        );
        const output = try gather.gatherRows(rank, own, &gather_bytes);
        const estimate: ?Tensor = if (previews.isDue(rank, i + 1))
            try state.estimate(rank, step, output, job.cleanMix(i))
        else
            null;
        defer if (estimate) |tensor| b.free(tensor);
        try state.advance(rank, step, output);
        b.free(output);
        if (!try b.isFinite(state.latent)) {
            return rank.notFinite("Step {d} of {d} gave", .{ i + 1, job.steps.len });
        }
        if (rank.reporter) |r| {
            r.step_index.store(@intCast(i + 1), .release);
            step_ns.?[i] = @intCast(rank.now() - start);
        }
        if (estimate) |tensor| try previews.show(rank, tensor, i + 1);
    }
    saveStats(rank, .{
        .loop_ns = @intCast(rank.now() - loop_start),
        .wait_ns = rank.transport.waitedNs() - waited_start,
        .gather_bytes = gather_bytes,
    });
    return state.finish(rank);
}

// --- internal ---

/// Runs the UNet on this rank's branches and rows; returns (own branches * images, own rows, width,
/// channels).
fn predictNoiseRows(
    rank: *Rank,
    step_index: u32,
    step: StepCoefficients,
    latent: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
) Error!Tensor {
    const b = rank.b;
    const exchange = rank.exchange;
    const input = try b.scaleRepeat(latent, step.input_scale, rank.layout.branchesPerRank());
    defer b.free(input);
    const patch = exchange.patches[exchange.index];
    if (exchange.isSinglePatch()) {
        return runUnet(rank, step_index, input, no_halo, timestep, conditioning);
    }
    const sample = try rank.copyOfRows(input, patch.row_first, patch.row_count);
    defer b.free(sample);
    const below_first = patch.row_first + patch.row_count;
    const above: ?Tensor = if (patch.row_first == 0)
        null
    else
        try rank.copyOfRows(input, patch.row_first - 1, 1);
    defer if (above) |tensor| b.free(tensor);
    const below: ?Tensor = if (below_first == input.shape.rows)
        null
    else
        try rank.copyOfRows(input, below_first, 1);
    defer if (below) |tensor| b.free(tensor);
    const halo: Exchange.HaloRows = .{ .above = above, .below = below };
    return runUnet(rank, step_index, sample, halo, timestep, conditioning);
}

fn runUnet(
    rank: *Rank,
    step_index: u32,
    sample: Tensor,
    halo: Exchange.HaloRows,
    timestep: Tensor,
    conditioning: Conditioning,
) Error!Tensor {
    const args = .{ rank, step_index, sample, halo, timestep, conditioning };
    var key: GraphKey = .of(.unet, sample, rank.exchange.stepVariant(step_index));
    key.context_tokens, key.context_tokens_second = conditioning.tokenCounts();
    key.conditioning = rank.job.setOfStep(step_index);
    return rank.b.runGraphed(key, forwardUnet, args);
}

fn forwardUnet(
    rank: *Rank,
    step_index: u32,
    sample: Tensor,
    halo: Exchange.HaloRows,
    timestep: Tensor,
    conditioning: Conditioning,
) Error!Tensor {
    try rank.exchange.beginStep(step_index);
    const unet = &rank.model.unet;
    const out = try unet.forward(rank.context(), sample, halo, timestep, conditioning);
    try rank.exchange.endStep();
    return out;
}

/// Totals of the denoising loop.
const LoopCounts = struct { loop_ns: u64, wait_ns: u64, gather_bytes: u64 };

fn saveStats(rank: *Rank, loop: LoopCounts) void {
    if (rank.isPlanning()) return;
    const counters = &rank.exchange.counters;
    rank.stats().* = .{
        .compute_ns = loop.loop_ns -| loop.wait_ns,
        .wait_ns = loop.wait_ns,
        .halo_row_bytes = counters.received[@intFromEnum(exchanges.Kind.halo_rows)],
        .statistics_bytes = counters.received[@intFromEnum(exchanges.Kind.statistics)],
        .keys_values_bytes = counters.received[@intFromEnum(exchanges.Kind.keys_values)],
        .gather_bytes = loop.gather_bytes,
        .buffer_bytes = counters.buffer_bytes,
    };
}
