//! What every rank runs: the stages of an image in the order in which it is made, and each
//! component alone for tests and benches.
//!
//! Read in this order:
//!   pipeline/rank.zig        what a rank has: device, layout, exchanges
//!   pipeline/text.zig        prompts to conditioning
//!   pipeline/denoise.zig     the steps
//!   pipeline/latents.zig     the sampler's registers
//!   pipeline/gather.zig      model outputs of all ranks to every rank
//!   pipeline/vae_tiling.zig  the decode in overlapping tiles
//!   pipeline/components.zig  one component alone
//!   pipeline/nchw.zig        channels first, as files and PyTorch have them

const rank_file = @import("pipeline/rank.zig");
pub const Rank = rank_file.Rank;
pub const Reporter = rank_file.Reporter;
pub const Error = rank_file.Error;
pub const Conditioning = @import("model/unet.zig").Conditioning;
const components = @import("pipeline/components.zig");
const denoise = @import("pipeline/denoise.zig");
const Job = @import("session/job.zig").Job;

/// One rank's work for a job.
pub fn run(rank: *Rank, job: *Job) Error!void {
    switch (job.kind) {
        .image => try denoise.drawImages(rank, job),
        .prompt_embeds => try components.embedPrompt(rank, job),
        .noise_prediction => try components.predictNoise(rank, job),
        .decode => try components.decodeSample(rank, job),
        .encode => try components.encodeSample(rank, job),
    }
}

test {
    _ = @import("pipeline/nchw.zig");
}
