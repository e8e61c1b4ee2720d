//! Single components of the model, for tests and benches. One rank runs the component over the
//! whole image; its outputs are outputs of the job.

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;
const Shape = @import("../tensor.zig").Shape;
const Exchange = @import("../patch/exchange.zig").Exchange;
const decode = @import("decode.zig");
const emphasis = @import("emphasis.zig");
const Sequences = @import("../model/layers.zig").Sequences;
const nchw = @import("nchw.zig");
const PromptInputs = @import("../model/conditioning.zig").PromptInputs;
const previews = @import("preview.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const text = @import("text.zig");
const vae_tiling = @import("vae_tiling.zig");

const no_halo: Exchange.HaloRows = .{ .above = null, .below = null };

/// Text encoders: prompts that take turns in an image, all with as many chunks, to `prompt_embeds`
/// (prompts, chunks * tokens, channels) and `pooled` (prompts, projection_size).
pub fn embedPrompts(rank: *Rank) Error!void {
    const c = &rank.model.config;
    const b = rank.b;
    const prompts = rank.job.prompts;
    const prompt_count: u32 = @intCast(prompts.len);
    const position_count = c.text.tokenCount();
    const chunk_count = prompts[0].chunkCount(position_count);
    const channels = c.unet.cross_attention_dim;
    const shape: Shape = .tokens(prompt_count * chunk_count, position_count, channels);
    const embeds = try b.alloc(shape, b.activationType());
    defer b.free(embeds);
    const pooled_shape: Shape = .vector(prompt_count, c.text.pooledSize());
    const pooled = try b.alloc(pooled_shape, b.activationType());
    defer b.free(pooled);
    const empty = try text.emptyStates(rank, embeds, pooled.batchSlice(0, 1));
    const states = try rank.arena.alloc(Tensor, prompts.len);
    for (states, prompts, 0..) |*state, tokens, i| {
        const at: u32 = @intCast(i);
        state.* = embeds.batchSlice(at * chunk_count, chunk_count);
        try text.encode(rank, tokens, state.*, pooled.batchSlice(at, 1));
    }
    try emphasis.apply(rank, prompts, states, empty);
    const embeds_out = try rank.result.alloc(f32, .prompt_embeds, shape.elementCount());
    try b.downloadFloats(embeds, embeds_out);
    const pooled_out = try rank.result.alloc(f32, .pooled, pooled_shape.elementCount());
    try b.downloadFloats(pooled, pooled_out);
}

/// UNet: `sample` (batch, channels, rows, width), `timestep`, `prompt_embeds`, `pooled` and
/// `time_ids_list` (batch, time_id_count) to `noise_prediction`, the arguments of diffusers' UNet.
pub fn predictNoise(rank: *Rank) Error!void {
    const c = &rank.model.config;
    const b = rank.b;
    const job = rank.job;
    const batch = job.batch;
    const shape = rank.latentShape(batch).withChannels(c.unet.in_channels);
    const token_count: u32 = @intCast(
        job.prompt_embeds.len / (batch * c.unet.cross_attention_dim),
    );
    const sample = try rank.uploadNchw(shape, job.sample);
    defer b.free(sample);
    const embeds_shape: Shape = .tokens(batch, token_count, c.unet.cross_attention_dim);
    const embeds = try b.uploadFloats(embeds_shape, job.prompt_embeds);
    defer b.free(embeds);
    const pooled_shape: Shape = .vector(batch, c.text.pooledSize());
    const pooled = try b.uploadFloats(pooled_shape, job.pooled);
    defer b.free(pooled);
    const ids_bytes = std.mem.sliceAsBytes(job.time_ids_list);
    const id_count = batch * c.unet.time_id_count;
    const time_ids = try b.upload(.vector(id_count, 1), .f32, ids_bytes);
    defer b.free(time_ids);
    const times = try rank.arena.alloc(f32, batch);
    @memset(times, job.timestep);
    const timestep = try b.upload(.vector(batch, 1), .f32, std.mem.sliceAsBytes(times));
    defer b.free(timestep);
    const slots = try rank.arena.alloc(Sequences, rank.model.unet.context_slot_count);
    const ctx = rank.context();
    const unet = &rank.model.unet;
    const inputs: PromptInputs = .{
        .embeds = .{ .first = embeds },
        .pooled = pooled,
        .time_ids = time_ids,
    };
    const conditioning = try unet.condition(ctx, inputs, slots);
    defer conditioning.free(b);
    const start = rank.begin(.denoise);
    const out = try unet.forward(ctx, sample, no_halo, timestep, conditioning, .{}, &.{});
    try b.finish();
    if (rank.reporter) |r| rank.result.denoise_ns = r.since(start);
    defer b.free(out);
    try rank.saveNchw(.noise_prediction, out);
}

/// VAE decoder: `sample` (1, latent_channels, rows, width), divided by the scaling factor, to
/// `decoded` (1, 3, factor * rows, factor * width), not clamped, and `rgb`.
pub fn decodeSample(rank: *Rank) Error!void {
    const start = rank.begin(.decode);
    const latent = try rank.uploadNchw(rank.latentShape(1), rank.job.sample);
    defer rank.b.free(latent);
    if (rank.job.vae_tile_latent > 0) {
        try vae_tiling.decodeSample(rank, latent);
        if (rank.reporter) |r| rank.result.decode_ns = r.since(start);
        return;
    }
    const decoded = try decode.decode(rank, 0, latent);
    defer rank.b.free(decoded);
    if (rank.reporter) |r| rank.result.decode_ns = r.since(start);
    try rank.saveNchw(.decoded, decoded);
    const rgb = try rank.b.toRgb(decoded);
    defer rank.b.free(rgb);
    if (rank.isPlanning()) return;
    try rank.b.download(rgb, try rank.result.alloc(u8, .rgb, rgb.shape.elementCount()));
}

/// TAESD: `sample` (1, latent_channels, rows, width), in the sampler's scale, to `decoded` and
/// `rgb` as above.
pub fn decodePreview(rank: *Rank) Error!void {
    const b = rank.b;
    const job = rank.job;
    const shape = rank.latentShape(1);
    const host = try rank.arena.alloc(f32, job.sample.len);
    nchw.toNhwc(host, job.sample, shape.channels, shape.positionCount());
    const latent = try b.upload(shape, .f32, std.mem.sliceAsBytes(host));
    defer b.free(latent);
    const decoded = try previews.decode(rank, &rank.model.taesd.?, latent);
    defer b.free(decoded);
    try rank.saveNchw(.decoded, decoded);
    const rgb = try b.toRgb(decoded);
    defer b.free(rgb);
    if (rank.isPlanning()) return;
    try b.download(rgb, try rank.result.alloc(u8, .rgb, rgb.shape.elementCount()));
}
