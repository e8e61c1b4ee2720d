//! What every rank runs: all that follows from the prompt, then for each step the UNet on its own
//! branches and rows, the gathering of all, the latent update; then the VAE on its own rows. Each
//! rank keeps the whole latent and updates it alike, so nothing but model outputs is sent outside
//! the layers.

const std = @import("std");
const assert = std.debug.assert;
const backends = @import("../backend.zig");
const GraphKey = backends.GraphKey;
const StepCoefficients = backends.StepCoefficients;
const Tensor = @import("../tensor.zig").Tensor;
const Shape = @import("../tensor.zig").Shape;
const Conditioning = @import("../model/unet.zig").Conditioning;
const exchanges = @import("../patch/exchange.zig");
const Exchange = exchanges.Exchange;
const Patch = @import("../patch/layout.zig").Patch;
const gather = @import("gather.zig");
const LatentState = @import("latents.zig").LatentState;
const nchw = @import("nchw.zig");
const prompts = @import("text.zig");
const jobs = @import("../session/job.zig");
const Job = jobs.Job;
const ranks = @import("rank.zig");
const vae_tiling = @import("vae_tiling.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

const no_halo: Exchange.HaloRows = .{ .above = null, .below = null };

/// Runs a job of kind `image`. The outputs `rgb` and `rank_counts` must have been made; every
/// rank writes its own part of them, and rank 0 those of other machines.
pub fn drawImages(rank: *Rank, job: *Job) Error!void {
    const graphs_before = rank.b.graphCounts();
    const text_start = rank.begin(.text);
    const conditioning = try prompts.condition(rank, job);
    if (rank.reporter) |r| job.text_ns = r.since(text_start);

    const denoise_start = rank.begin(.denoise);
    const latent = try denoise(rank, job, conditioning);
    prompts.free(rank, conditioning);
    if (rank.reporter) |r| job.denoise_ns = r.since(denoise_start);
    defer rank.b.free(latent);
    if (rank.index == 0 and job.wants_latents) try rank.saveNchw(job, .latents, latent);

    if (rank.isPlanning()) job.undecoded_bytes = rank.b.scratch.peak;
    const decode_start = rank.begin(.decode);
    try decodeImages(rank, job, latent);
    if (!rank.isPlanning()) {
        const counts = rankCounts(rank, job);
        const graphs = rank.b.graphCounts();
        counts.scratch_bytes = rank.b.scratch.peak;
        counts.graphs_captured = graphs.captured - graphs_before.captured;
        counts.graphs_replayed = graphs.replayed - graphs_before.replayed;
    }
    if (rank.reporter) |r| job.decode_ns = r.since(decode_start);
}

// --- internal ---

/// All steps; the latent that comes back is the caller's.
fn denoise(rank: *Rank, job: *Job, conditioning: Conditioning) Error!Tensor {
    const b = rank.b;
    var state: LatentState = try .init(rank, job);
    const batch: u32 = @intCast(rank.layout.branchesPerRank() * job.seeds.len);
    const timestep = try b.alloc(.vector(batch, 1), .f32);
    defer b.free(timestep);
    const times = try rank.arena.alloc(f32, batch);
    const step_ns: ?[]u64 = if (rank.reporter != null)
        try job.output(u64, .step_ns, job.rows.len)
    else
        null;
    try rank.exchange.open(rank.arena);
    defer rank.exchange.close();
    var gather_bytes: u64 = 0;
    const loop_start = rank.now();
    for (job.rows, 0..) |row, i| {
        const start = rank.now();
        rank.transport.enterStep(@intCast(i + 1));
        @memset(times, row.timestep);
        try b.write(timestep, std.mem.sliceAsBytes(times));
        const own = try predictNoiseRows(
            rank,
            @intCast(i),
            row,
            state.latent,
            timestep,
            conditioning,
        );
        const output = try gather.gatherRows(rank, own, &gather_bytes);
        try state.advance(rank, job, row, output);
        b.free(output);
        if (!try b.isFinite(state.latent)) {
            return rank.notFinite("Step {d} of {d} gave", .{ i + 1, job.rows.len });
        }
        if (rank.reporter) |r| {
            r.step_index.store(@intCast(i + 1), .release);
            step_ns.?[i] = @intCast(rank.now() - start);
        }
    }
    countRank(rank, job, @intCast(rank.now() - loop_start), gather_bytes);
    return state.finish(rank);
}

/// The rows of image `i` that other machines have drawn come to rank 0.
fn bringRows(rank: *Rank, job: *Job, i: usize, decoded: Tensor, rgb: Tensor) Error!void {
    if (rank.here.first > 0) {
        try gather.send(rank, rgb, 0);
        if (job.wants_decoded) try gather.send(rank, decoded, 0);
        return;
    }
    if (rank.index > 0) return;
    for (rank.here.end..rank.layout.rank_count) |at| {
        const other: u32 = @intCast(at);
        const patch = rank.vae_exchange.patches[other];
        var shape = rgb.shape;
        shape.rows = patch.row_count * rank.model.config.vae.factor();
        const their_rgb = try gather.receive(rank, shape, rgb.dtype, other);
        defer rank.b.free(their_rgb);
        const their_decoded = if (job.wants_decoded)
            try gather.receive(rank, shape, decoded.dtype, other)
        else
            null;
        defer if (their_decoded) |tensor| rank.b.free(tensor);
        try saveRows(rank, job, i, patch, their_decoded orelse decoded, their_rgb);
    }
}

/// Rows of image `i` to their place in the outputs that all ranks of a process share.
fn saveRows(
    rank: *Rank,
    job: *Job,
    i: usize,
    patch: Patch,
    decoded: Tensor,
    rgb: Tensor,
) Error!void {
    if (rank.isPlanning()) return;
    const factor = rank.model.config.vae.factor();
    const row_first = patch.row_first * factor;
    const width: usize = decoded.shape.width;
    const positions = job.latent_rows * factor * width;
    const channels: usize = decoded.shape.channels;
    const bytes = @constCast(job.outputs.get(.rgb));
    const first = (i * positions + row_first * width) * channels;
    try rank.b.download(rgb, bytes[first..][0..rgb.byteCount()]);
    if (!job.wants_decoded) return;
    const host = try rank.arena.alloc(f32, decoded.shape.elementCount());
    const turned = try rank.arena.alloc(f32, host.len);
    try rank.b.downloadFloats(decoded, host);
    const own = decoded.shape.positionCount();
    nchw.fromNhwc(turned, host, channels, own);
    const out = @constCast(job.outputs.get(.decoded));
    const values: []f32 = @alignCast(std.mem.bytesAsSlice(f32, out));
    for (0..channels) |c| {
        const at = (i * channels + c) * positions + row_first * width;
        @memcpy(values[at..][0..own], turned[c * own ..][0..own]);
    }
}

/// The UNet on this rank's branches and rows: (branches * images, own rows, width, channels).
fn predictNoiseRows(
    rank: *Rank,
    step_index: u32,
    row: StepCoefficients,
    latent: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
) Error!Tensor {
    const b = rank.b;
    const exchange = rank.exchange;
    const input = try b.scaleRepeat(latent, row.input_scale, rank.layout.branchesPerRank());
    defer b.free(input);
    const patch = exchange.patches[exchange.index];
    if (exchange.isAlone()) {
        return runUnet(rank, step_index, input, no_halo, timestep, conditioning);
    }
    const sample = try rowsOf(rank, input, patch.row_first, patch.row_count);
    defer b.free(sample);
    const below_first = patch.row_first + patch.row_count;
    const above: ?Tensor = if (patch.row_first == 0)
        null
    else
        try rowsOf(rank, input, patch.row_first - 1, 1);
    defer if (above) |tensor| b.free(tensor);
    const below: ?Tensor = if (below_first == input.shape.rows)
        null
    else
        try rowsOf(rank, input, below_first, 1);
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
    const key: GraphKey = .of(.unet, sample, rank.exchange.stepVariant(step_index));
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

fn rowsOf(rank: *Rank, x: Tensor, row_first: u32, row_count: u32) Error!Tensor {
    var shape = x.shape;
    shape.rows = row_count;
    const out = try rank.b.alloc(shape, x.dtype);
    try rank.b.copyRows(out, 0, x, row_first, row_count);
    return out;
}

fn countRank(rank: *Rank, job: *Job, loop_ns: u64, gather_bytes: u64) void {
    if (rank.isPlanning()) return;
    const counted = &rank.exchange.counted;
    rankCounts(rank, job).* = .{
        .compute_ns = loop_ns -| counted.wait_ns,
        .wait_ns = counted.wait_ns,
        .halo_row_bytes = counted.received[@intFromEnum(exchanges.Kind.halo_rows)],
        .statistics_bytes = counted.received[@intFromEnum(exchanges.Kind.statistics)],
        .keys_values_bytes = counted.received[@intFromEnum(exchanges.Kind.keys_values)],
        .gather_bytes = gather_bytes,
        .buffer_bytes = counted.buffer_bytes,
    };
}

/// This rank's place among the counts.
fn rankCounts(rank: *const Rank, job: *const Job) *jobs.RankCounts {
    const bytes = @constCast(job.outputs.get(.rank_counts));
    const counts: []jobs.RankCounts = @alignCast(std.mem.bytesAsSlice(jobs.RankCounts, bytes));
    return &counts[rank.index];
}

/// Each rank decodes its own rows of each image and writes them to their place.
fn decodeImages(rank: *Rank, job: *Job, latent: Tensor) Error!void {
    if (job.vae_tile_latent > 0) return vae_tiling.decodeImages(rank, job, latent);
    const b = rank.b;
    const exchange = rank.vae_exchange;
    const patch = exchange.patches[exchange.index];
    for (job.seeds, 0..) |_, i| {
        const whole = latent.batchSlice(@intCast(i), 1);
        const own = try rowsOf(rank, whole, patch.row_first, patch.row_count);
        defer b.free(own);
        const scaled = try b.scaleRepeat(own, 1 / rank.model.config.vae.scaling_factor, 1);
        defer b.free(scaled);
        if (i == 0) try exchange.open(rank.arena);
        const decoded = try rank.decode(@intCast(i), scaled);
        defer b.free(decoded);
        const rgb = try b.toRgb(decoded);
        defer b.free(rgb);
        try saveRows(rank, job, i, patch, decoded, rgb);
        try bringRows(rank, job, i, decoded, rgb);
        // The next image's parts must not overwrite what a slower rank still reads.
        try rank.transport.meet();
    }
    exchange.close();
}
