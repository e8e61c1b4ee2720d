//! Single components of the model, for tests and benches. One rank runs the component over the
//! whole image; its outputs are outputs of the job.

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;
const Shape = @import("../tensor.zig").Shape;
const Exchange = @import("../patch/exchange.zig").Exchange;
const decode = @import("decode.zig");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const text = @import("text.zig");
const vae_tiling = @import("vae_tiling.zig");

const no_halo: Exchange.HaloRows = .{ .above = null, .below = null };

/// Text encoders: the first prompt to `prompt_embeds` (1, tokens, channels) and `pooled`
/// (1, projection_size).
pub fn embedPrompt(rank: *Rank) Error!void {
    const c = &rank.model.config;
    const b = rank.b;
    const shape: Shape = .tokens(1, c.text.tokenCount(), c.unet.cross_attention_dim);
    const embeds = try b.alloc(shape, b.activationType());
    defer b.free(embeds);
    const pooled = try b.alloc(.vector(1, c.text.pooledSize()), b.activationType());
    defer b.free(pooled);
    try text.encode(rank, rank.job.prompts[0], embeds, pooled);
    const embeds_out = try rank.result.alloc(f32, .prompt_embeds, shape.elementCount());
    try b.downloadFloats(embeds, embeds_out);
    const pooled_out = try rank.result.alloc(f32, .pooled, c.text.pooledSize());
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
    const slots = try rank.arena.alloc(Tensor, rank.model.unet.context_slot_count);
    const ctx = rank.context();
    const unet = &rank.model.unet;
    const conditioning = try unet.condition(ctx, embeds, pooled, time_ids, slots);
    defer b.free(conditioning.addition);
    defer for (slots) |tensor| b.free(tensor);
    const start = rank.begin(.denoise);
    const out = try unet.forward(ctx, sample, no_halo, timestep, conditioning);
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
