//! What a mask keeps of the image that a job starts from, as tensors of a rank, which each have the
//! whole latent. `mask_step.zig` says where it is mixed in.

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;
const mask_steps = @import("mask_step.zig");
const MaskStep = mask_steps.MaskStep;
const NoiseLevel = mask_steps.NoiseLevel;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

pub const Kept = struct {
    /// The image's latents and the first noise, without a factor: (images, rows, width, channels).
    known: Tensor,
    noise: Tensor,
    /// (1, rows, width, 1): 1 where the image is new, 0 where it is kept.
    mask: Tensor,

    /// Of latents of this shape, on the host.
    pub fn init(
        rank: *Rank,
        latent: Tensor,
        values: struct { known: []const f32, noise: []const f32 },
    ) Error!Kept {
        const b = rank.b;
        const mask_shape = rank.latentShape(1).withChannels(1);
        return .{
            .known = try b.upload(latent.shape, .f32, std.mem.sliceAsBytes(values.known)),
            .noise = try b.upload(latent.shape, .f32, std.mem.sliceAsBytes(values.noise)),
            .mask = try b.upload(mask_shape, .f32, std.mem.sliceAsBytes(rank.job.latent_mask)),
        };
    }

    pub fn free(kept: *const Kept, rank: *Rank) void {
        for ([_]Tensor{ kept.known, kept.noise, kept.mask }) |tensor| rank.b.free(tensor);
    }

    /// Where a step mixes it in; one that is planned does so everywhere.
    pub fn stepAt(_: *const Kept, rank: *const Rank, step: usize) MaskStep {
        return if (rank.isPlanning()) .all else rank.job.mask_steps[step];
    }

    /// Where the mask keeps the image, `latent` becomes its latent with so much noise.
    pub fn cover(kept: *const Kept, rank: *Rank, latent: Tensor, level: NoiseLevel) Error!void {
        try rank.b.maskBlend(.{
            .latent = latent,
            .known = kept.known,
            .noise = kept.noise,
            .mask = kept.mask,
            .signal = level.signal,
            .noise_scale = level.noise,
        });
    }
};
