//! The code that every rank runs: the stages of an image job in their order, and single components
//! for tests and benches.
//!
//! Read in this order:
//!   pipeline/job.zig         the request, copied
//!   pipeline/result.zig      outputs, timings, statistics
//!   pipeline/rank.zig        state of a rank: device, layout, exchanges
//!   pipeline/text.zig        prompts to conditioning
//!   pipeline/emphasis.zig    weights of tokens
//!   pipeline/denoise.zig     the denoising loop
//!   pipeline/balance.zig     rows dealt by the speed of ranks
//!   pipeline/decisions.zig   numbers that steps decide by, equal on all ranks
//!   pipeline/controls.zig    networks that hint images steer the UNet with
//!   pipeline/image_prompts.zig  what IP-Adapters see, as keys and values
//!   pipeline/latents.zig     the sampler's registers
//!   pipeline/source.zig      the image that a job starts from, and its mask
//!   pipeline/mask_step.zig   where steps mix in what a mask keeps
//!   pipeline/kept.zig        that, as tensors
//!   pipeline/noise.zig       the noise of the first latent and of steps
//!   pipeline/preview.zig     estimates of the image for previews
//!   pipeline/gather.zig      all-gather of model outputs
//!   pipeline/decode.zig      latents to pixels
//!   pipeline/tiles.zig       overlapping tiles of a latent, and their blending
//!   pipeline/vae_tiling.zig  decoding in tiles
//!   pipeline/encode.zig      pixels to latents
//!   pipeline/tiled_encode.zig  likewise in tiles
//!   pipeline/upscale.zig     an image enlarged by a network, in tiles
//!   pipeline/components.zig  single components
//!   pipeline/nchw.zig        conversion from and to NCHW

pub const Conditioning = @import("model/conditioning.zig").Conditioning;
const jobs = @import("pipeline/job.zig");
pub const Job = jobs.Job;
pub const Kind = jobs.Kind;
pub const IpAdapterUse = @import("pipeline/job.zig").IpAdapterUse;
pub const ControlHint = jobs.ControlHint;
pub const ControlUse = jobs.ControlUse;
pub const Tokens = jobs.Tokens;
pub const DeepPlan = jobs.DeepPlan;
pub const StepReuse = jobs.StepReuse;
pub const MaskedLatent = @import("pipeline/mask_step.zig").MaskedLatent;
pub const MaskStep = @import("pipeline/mask_step.zig").MaskStep;
pub const NoiseLevel = @import("pipeline/mask_step.zig").NoiseLevel;
pub const Upscale = jobs.Upscale;
pub const upscale_tile_min = upscaling.tile_min;
pub const upscaleTileCount = upscaling.tileCount;
pub const Emphasis = @import("pipeline/emphasis.zig").Emphasis;
pub const NoiseSource = @import("pipeline/noise.zig").NoiseSource;
const results = @import("pipeline/result.zig");
pub const Result = results.Result;
pub const Output = results.Output;
pub const RankStats = results.RankStats;
const ranks = @import("pipeline/rank.zig");
pub const Rank = ranks.Rank;
pub const Reporter = ranks.Reporter;
pub const Preview = @import("pipeline/preview.zig").Preview;
pub const Error = ranks.Error;
const components = @import("pipeline/components.zig");
const decode = @import("pipeline/decode.zig");
const denoise = @import("pipeline/denoise.zig");
const encode = @import("pipeline/encode.zig");
const sources = @import("pipeline/source.zig");
const text = @import("pipeline/text.zig");
const upscaling = @import("pipeline/upscale.zig");

/// Runs a job on one rank.
pub fn run(rank: *Rank) Error!void {
    switch (rank.job.kind) {
        .image => try generateImages(rank),
        .prompt_embeds => try components.embedPrompts(rank),
        .noise_prediction => try components.predictNoise(rank),
        .decode => try components.decodeSample(rank),
        .decode_preview => try components.decodePreview(rank),
        .encode => {
            _ = rank.begin(.encode);
            try encode.encodeSample(rank);
        },
        .upscale => try upscaling.run(rank),
    }
}

// --- internal ---

/// `Result.allocShared` has allocated the shared outputs: every rank writes its own rows, and rank
/// 0 the rows of other processes.
fn generateImages(rank: *Rank) Error!void {
    const graphs_before = rank.b.graphCounts();
    const text_start = rank.begin(.text);
    const conditionings = try text.condition(rank);
    if (rank.reporter) |r| rank.result.text_ns = r.since(text_start);

    const moments = try encodeSource(rank);

    const denoise_start = rank.begin(.denoise);
    const latent = try denoise.denoise(rank, conditionings, moments);
    text.free(rank, conditionings);
    if (rank.reporter) |r| rank.result.denoise_ns = r.since(denoise_start);
    defer rank.b.free(latent);
    // Every process has them.
    const is_first = rank.index == rank.local_ranks.first;
    if (is_first and rank.job.wants_latents) try rank.saveNchw(.latents, latent);

    if (!rank.job.skips_decode) {
        const decode_start = rank.begin(.decode);
        try decode.decodeImages(rank, latent);
        if (rank.reporter) |r| rank.result.decode_ns = r.since(decode_start);
    }
    if (rank.isPlanning()) return;
    const graphs = rank.b.graphCounts();
    const stats = rank.stats();
    stats.scratch_bytes = rank.b.scratch.peak;
    stats.graphs_captured = graphs.captured - graphs_before.captured;
    stats.graphs_replayed = graphs.replayed - graphs_before.replayed;
}

fn encodeSource(rank: *Rank) Error!sources.Moments {
    if (!rank.job.hasImage()) return .{};
    const start = rank.begin(.encode);
    const moments: sources.Moments = try .init(rank);
    if (rank.reporter) |r| rank.result.encode_ns = r.since(start);
    return moments;
}

test {
    _ = @import("pipeline/balance.zig");
    _ = @import("pipeline/emphasis.zig");
    _ = @import("pipeline/nchw.zig");
    _ = @import("pipeline/tiles.zig");
    _ = upscaling;
}
