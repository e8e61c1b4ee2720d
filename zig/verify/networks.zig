//! The networks of the tiny model: text encoders, UNet and VAE in one call each, against what
//! diffusers computed in f32, or, where that takes too long, against the CPU on smaller inputs.

const std = @import("std");
const Allocator = std.mem.Allocator;
const goldens = @import("golden.zig");
const pipeline = @import("../pipeline.zig");
const records = @import("records.zig");
const DType = @import("../tensor.zig").DType;
const Job = pipeline.Job;
const Output = pipeline.Output;

pub const Network = enum {
    text_encoders,
    unet,
    vae_decode,
    vae_encode,

    pub fn title(network: Network) []const u8 {
        return switch (network) {
            .text_encoders => "text encoders",
            .unet => "UNet",
            .vae_decode => "VAE decoding",
            .vae_encode => "VAE encoding",
        };
    }

    /// What is compared, and its name among the records.
    pub fn outputs(network: Network) []const Compared {
        return switch (network) {
            .text_encoders => &.{
                .{ .output = .prompt_embeds, .record = "text.prompt_embeds" },
                .{ .output = .pooled, .record = "text.pooled" },
            },
            .unet => &.{.{ .output = .noise_prediction, .record = "unet.out" }},
            .vae_decode => &.{.{ .output = .decoded, .record = "vae.image" }},
            .vae_encode => &.{.{ .output = .latents, .record = "vae.encode_mean" }},
        };
    }
};

pub const Compared = struct { output: Output, record: []const u8 };

/// A hundred layers one after the other: a few 1e-3 of relative L2 where each rounds to f16's 11
/// bits, and eight times as much where it rounds to bf16's 8. On the CPU sums in f32, in another
/// order.
pub fn allowedOf(activation: DType) f64 {
    return switch (activation) {
        .f16 => 5e-3,
        .bf16 => 4e-2,
        else => 2e-5,
    };
}

/// Rows and columns of the latent that diffusers was given.
pub const recorded_side = 32;
/// Those of comparisons with the CPU alone; the text encoders' are the same.
pub const small_side = 8;

/// One call of a network with the recorded inputs, or as many of their numbers as a latent of
/// `side` takes.
pub fn jobOf(gpa: Allocator, network: Network, side: u32) !Job {
    var job: Job = .{
        .arena = .init(gpa),
        .kind = switch (network) {
            .text_encoders => .prompt_embeds,
            .unet => .noise_prediction,
            .vae_decode => .decode,
            .vae_encode => .encode,
        },
        .latent_rows = side,
        .latent_width = side,
    };
    errdefer job.deinit();
    const a = job.arena.allocator();
    const latent_count = goldens.latent_channels * side * side;
    switch (network) {
        .text_encoders => {
            const prompts = try a.alloc(pipeline.Tokens, 1);
            prompts[0] = prompt;
            job.prompts = prompts;
        },
        .unet => {
            const batch = 2;
            const context = batch * goldens.token_count * goldens.context_size;
            const pooled = batch * goldens.pooled_size;
            job.batch = batch;
            job.timestep = 601;
            job.sample = try input(a, "golden/unet.sample", batch * latent_count, 1.7);
            job.prompt_embeds = try input(a, "golden/unet.encoder_hidden_states", context, 1.7);
            job.pooled = try input(a, "golden/unet.text_embeds", pooled, 1.7);
            job.time_ids_list = &(.{ 256, 256, 0, 0, 256, 256 } ** batch);
        },
        .vae_decode => {
            const latent = try input(a, "golden/vae.latent", latent_count, 1.4);
            for (latent) |*x| x.* = @floatCast(@as(f64, x.*) / goldens.scaling_factor);
            job.sample = latent;
        },
        .vae_encode => {
            const pixels = 3 * 64 * side * side;
            job.sample = try input(a, "golden/vae.encode_image", pixels, 1);
        },
    }
    return job;
}

/// "a photo of a red circle above a blue square".
pub const prompt: pipeline.Tokens = .{
    .ids = &(words ++ @as([65]i32, @splat(821))),
    .ids_2 = &(words ++ @as([65]i32, @splat(0))),
    .end_index = words.len - 1,
};

// --- internal ---

const words = [_]i32{ 820, 320, 774, 764, 320, 565, 660, 581, 320, 634, 799, 821 };
const input = records.formulaInput;
