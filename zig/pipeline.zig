//! What every rank runs: the stages of an image in the order in which it is made, and each
//! component alone for tests and benches.
//!
//! Read in this order:
//!   pipeline/job.zig         what was asked
//!   pipeline/result.zig      what came of it
//!   pipeline/rank.zig        what a rank has: device, layout, exchanges
//!   pipeline/text.zig        prompts to conditioning
//!   pipeline/denoise.zig     the steps
//!   pipeline/latents.zig     the sampler's registers
//!   pipeline/preview.zig     intermediate latents, where somebody asks for them
//!   pipeline/gather.zig      model outputs of all ranks to every rank
//!   pipeline/decode.zig      latents to pixels
//!   pipeline/vae_tiling.zig  the decode in overlapping tiles
//!   pipeline/encode.zig      pixels to latents
//!   pipeline/components.zig  one component alone
//!   pipeline/nchw.zig        channels first, as files and PyTorch have them

pub const Conditioning = @import("model/unet.zig").Conditioning;
const jobs = @import("pipeline/job.zig");
pub const Job = jobs.Job;
pub const Kind = jobs.Kind;
pub const Tokens = jobs.Tokens;
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
const text = @import("pipeline/text.zig");

/// One rank's work for a job.
pub fn run(rank: *Rank) Error!void {
    switch (rank.job.kind) {
        .image => try generateImages(rank),
        .prompt_embeds => try components.embedPrompt(rank),
        .noise_prediction => try components.predictNoise(rank),
        .decode => try components.decodeSample(rank),
        .encode => {
            _ = rank.begin(.encode);
            try encode.encodeSample(rank);
        },
    }
}

// --- internal ---

/// The shared outputs have been allocated (`Result.allocShared`): every rank writes its own part of
/// them, and rank 0 those of other processes.
fn generateImages(rank: *Rank) Error!void {
    const graphs_before = rank.b.graphCounts();
    const text_start = rank.begin(.text);
    const conditioning = try text.condition(rank);
    if (rank.reporter) |r| rank.result.text_ns = r.since(text_start);

    const denoise_start = rank.begin(.denoise);
    const latent = try denoise.denoise(rank, conditioning);
    text.free(rank, conditioning);
    if (rank.reporter) |r| rank.result.denoise_ns = r.since(denoise_start);
    defer rank.b.free(latent);
    if (rank.index == 0 and rank.job.wants_latents) try rank.saveNchw(.latents, latent);

    const decode_start = rank.begin(.decode);
    try decode.decodeImages(rank, latent);
    if (rank.reporter) |r| rank.result.decode_ns = r.since(decode_start);
    if (rank.isPlanning()) return;
    const graphs = rank.b.graphCounts();
    const stats = rank.stats();
    stats.scratch_bytes = rank.b.scratch.peak;
    stats.graphs_captured = graphs.captured - graphs_before.captured;
    stats.graphs_replayed = graphs.replayed - graphs_before.replayed;
}

test {
    _ = @import("pipeline/nchw.zig");
}
