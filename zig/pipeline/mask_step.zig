//! How a mask keeps a part of the image that a job starts from. Tools mix that in at different
//! places of a step: into the latent that the UNet reads, into the clean latent that its output
//! predicts, or into the latent after the step.

const std = @import("std");
const StepCoefficients = @import("../backend.zig").StepCoefficients;

/// What the masked part of the image's latent is (A1111: masked content).
pub const MaskedLatent = enum(u32) {
    image = 0,
    /// The first noise.
    noise = 1,
    zeros = 2,
    /// That of the image with its masked part in grey.
    grey = 3,
};

/// A latent with noise: factors of the clean one and of the first noise.
pub const NoiseLevel = extern struct { signal: f32 = 1, noise: f32 = 0 };

/// Where a step mixes in what the mask keeps.
pub const MaskStep = extern struct {
    /// Into the latent that the UNet reads, which the sampler's stays without.
    blends_input: u32 = 0,
    /// Into the clean latent that the guided output predicts, which the sampler then reads.
    blends_clean: u32 = 0,
    /// Into the latent after the step.
    blends_latent: u32 = 0,
    input: NoiseLevel = .{},
    latent: NoiseLevel = .{},
    /// Factors of the latent that the UNet reads and of its guided output, whose sum is the clean
    /// latent; read with `blends_clean`.
    clean_from_sample: f32 = 1,
    clean_from_output: f32 = 1,

    /// A step that does everything.
    pub const all: MaskStep = .{ .blends_input = 1, .blends_clean = 1, .blends_latent = 1 };

    /// The coefficients of a step whose model output is the clean latent.
    pub fn ofClean(mask_step: MaskStep, step: StepCoefficients) StepCoefficients {
        const from_sample: f64 = mask_step.clean_from_sample;
        const from_output: f64 = mask_step.clean_from_output;
        const of_model: f64 = step.output_from_model;
        const of_sample: f64 = step.output_from_sample;
        var result = step;
        result.output_from_sample = @floatCast(of_sample - of_model * from_sample / from_output);
        result.output_from_model = @floatCast(of_model / from_output);
        return result;
    }
};

test "a step from the clean latent is that from the model's output" {
    var step = std.mem.zeroes(StepCoefficients);
    step.output_from_sample = 0.25;
    step.output_from_model = 3;
    const mask_step: MaskStep = .{ .clean_from_sample = 0.5, .clean_from_output = -2 };
    const clean = mask_step.ofClean(step);
    const x: f32, const e: f32 = .{ 7, 11 };
    const predicted = mask_step.clean_from_sample * x + mask_step.clean_from_output * e;
    try std.testing.expectEqual(
        step.output_from_sample * x + step.output_from_model * e,
        clean.output_from_sample * x + clean.output_from_model * predicted,
    );
}
