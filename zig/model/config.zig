//! The sizes of a model, as plain numbers: the control plane reads config.json and fills these
//! structs, so nothing here is hard-coded. They cross the ABI and are checked once, on arrival.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const level_count_max = 8;
pub const token_count_max = 77;

pub const HiddenAct = enum(u32) { quick_gelu = 0, gelu = 1 };

/// CLIPTextModel (projection_size 0) or CLIPTextModelWithProjection.
pub const ClipConfig = extern struct {
    vocab_size: u32,
    hidden_size: u32,
    intermediate_size: u32,
    layer_count: u32,
    head_count: u32,
    position_count: u32,
    hidden_act: HiddenAct,
    projection_size: u32,
    layer_norm_epsilon: f32,
};

/// UNet2DConditionModel with `addition_embed_type` "text_time".
pub const UnetConfig = extern struct {
    in_channels: u32,
    out_channels: u32,
    level_count: u32,
    block_out_channels: [level_count_max]u32,
    /// Resnets per down block; an up block has one more.
    layers_per_block: [level_count_max]u32,
    /// Transformer blocks per attention; 0 where the block has no attention. In order of the
    /// blocks.
    down_transformer_layers: [level_count_max]u32,
    up_transformer_layers: [level_count_max]u32,
    mid_transformer_layers: u32,
    /// Per down level: diffusers' `attention_head_dim` holds the number of heads.
    head_counts: [level_count_max]u32,
    cross_attention_dim: u32,
    norm_groups: u32,
    addition_time_embed_dim: u32,
    /// `projection_class_embeddings_input_dim`: six sizes, then the pooled prompt.
    addition_input_dim: u32,
    flip_sin_to_cos: u32,
    frequency_shift: f32,
    norm_epsilon: f32,

    pub fn timeEmbedDim(config: *const UnetConfig) u32 {
        return 4 * config.block_out_channels[0];
    }
};

/// AutoencoderKL.
pub const VaeConfig = extern struct {
    in_channels: u32,
    out_channels: u32,
    latent_channels: u32,
    level_count: u32,
    block_out_channels: [level_count_max]u32,
    layers_per_block: u32,
    norm_groups: u32,
    mid_attention: u32,
    use_quant_conv: u32,
    use_post_quant_conv: u32,
    scaling_factor: f32,
    /// Activations between the VAE's blocks are kept at this of their size, a power of two, since
    /// SDXL's pass what f16 can hold; norms undo it, so the image is the same. 1 where the type
    /// of the activations holds them.
    residual_scale: f32,

    /// Pixels per latent, each way.
    pub fn factor(config: *const VaeConfig) u32 {
        return @as(u32, 1) << @intCast(config.level_count - 1);
    }
};

pub const ModelConfig = extern struct {
    clip: ClipConfig,
    clip_2: ClipConfig,
    unet: UnetConfig,
    vae: VaeConfig,

    /// Latent rows and columns come in multiples of this: the UNet halves them at each level.
    pub fn latentMultiple(config: *const ModelConfig) u32 {
        return @as(u32, 1) << @intCast(config.unet.level_count - 1);
    }
};

pub const Error = error{BadConfig};

/// Everything the graph divides by or indexes with. The control plane has told the user in the
/// file's own words before; this keeps a caller's mistake from becoming a crash.
pub fn check(config: *const ModelConfig, d: *Diagnostics) Error!void {
    try checkClip(&config.clip, d);
    try checkClip(&config.clip_2, d);
    try checkUnet(&config.unet, d);
    try checkVae(&config.vae, d);
    try expect(config.clip_2.projection_size > 0, d, "text_encoder_2 needs a projection");
    try expect(
        config.clip.position_count == config.clip_2.position_count,
        d,
        "both text encoders must read the same number of tokens",
    );
    try expect(
        config.unet.cross_attention_dim == config.clip.hidden_size + config.clip_2.hidden_size,
        d,
        "cross_attention_dim must be the sum of both text encoders' hidden_size",
    );
    try expect(
        config.unet.addition_input_dim ==
            6 * config.unet.addition_time_embed_dim + config.clip_2.projection_size,
        d,
        "projection_class_embeddings_input_dim must hold six sizes and the pooled prompt",
    );
    try expect(
        config.unet.in_channels == config.vae.latent_channels and
            config.unet.out_channels == config.vae.latent_channels,
        d,
        "the UNet and the VAE must have the same latent channels",
    );
}

// --- internal ---

fn checkClip(clip: *const ClipConfig, d: *Diagnostics) Error!void {
    const counts = [_]u32{
        clip.vocab_size, clip.hidden_size,    clip.intermediate_size,
        clip.head_count, clip.position_count,
    };
    for (counts) |count| try expect(count > 0, d, "a text encoder's sizes must be at least 1");
    try expect(clip.layer_count >= 2, d, "a text encoder needs at least 2 layers");
    try expect(clip.hidden_size % clip.head_count == 0, d, "text heads must divide hidden_size");
}

fn checkUnet(unet: *const UnetConfig, d: *Diagnostics) Error!void {
    try expect(isLevelCount(unet.level_count), d, "the UNet must have 1 to 8 levels");
    try expect(unet.norm_groups > 0, d, "norm_num_groups must be at least 1");
    try expect(unet.addition_time_embed_dim % 2 == 0, d, "addition_time_embed_dim must be even");
    try expect(unet.addition_time_embed_dim > 0, d, "addition_time_embed_dim must be at least 2");
    for (0..unet.level_count) |i| {
        const channels = unet.block_out_channels[i];
        const is_divided = channels > 0 and channels % unet.norm_groups == 0;
        try expect(is_divided, d, "norm_num_groups must divide block_out_channels");
        try expect(unet.layers_per_block[i] >= 1, d, "layers_per_block must be at least 1");
        const up = unet.up_transformer_layers[unet.level_count - 1 - i];
        if (unet.down_transformer_layers[i] == 0 and up == 0 and i + 1 < unet.level_count) continue;
        try expect(unet.head_counts[i] >= 1, d, "attention heads must be at least 1");
        try expect(channels % unet.head_counts[i] == 0, d, "attention heads must divide channels");
    }
    try expect(unet.block_out_channels[0] % 2 == 0, d, "the first block's channels must be even");
}

fn checkVae(vae: *const VaeConfig, d: *Diagnostics) Error!void {
    try expect(isLevelCount(vae.level_count), d, "the VAE must have 1 to 8 levels");
    try expect(vae.norm_groups > 0, d, "the VAE's norm_num_groups must be at least 1");
    try expect(vae.layers_per_block >= 1, d, "the VAE's layers_per_block must be at least 1");
    const is_power = std.math.frexp(vae.residual_scale).significand == 0.5;
    try expect(is_power and vae.residual_scale <= 1, d, "the VAE's stream scale must be 1 / 2^n");
    const is_rgb = vae.in_channels == 3 and vae.out_channels == 3;
    try expect(is_rgb, d, "the VAE must read and write RGB");
    for (vae.block_out_channels[0..vae.level_count]) |channels| {
        const is_divided = channels > 0 and channels % vae.norm_groups == 0;
        try expect(is_divided, d, "the VAE's norm_num_groups must divide block_out_channels");
    }
}

fn isLevelCount(count: u32) bool {
    return count >= 1 and count <= level_count_max;
}

fn expect(condition: bool, d: *Diagnostics, comptime sentence: []const u8) Error!void {
    if (condition) return;
    return d.fail(error.BadConfig, "This model's config does not fit: " ++ sentence ++ ".", .{});
}

test "heads must divide the channels of levels with attention alone" {
    var unet = std.mem.zeroes(UnetConfig);
    unet.level_count = 2;
    unet.norm_groups = 4;
    unet.addition_time_embed_dim = 8;
    unet.block_out_channels[0..2].* = .{ 32, 64 };
    unet.layers_per_block[0..2].* = .{ 1, 1 };
    unet.head_counts[0..2].* = .{ 5, 8 };
    var d: Diagnostics = .{};
    try checkUnet(&unet, &d);
    // Up blocks come in the opposite order: the last one is at the first level.
    unet.up_transformer_layers[1] = 1;
    try std.testing.expectError(error.BadConfig, checkUnet(&unet, &d));
    unet.up_transformer_layers[1] = 0;
    unet.head_counts[0..2].* = .{ 8, 5 };
    try std.testing.expectError(error.BadConfig, checkUnet(&unet, &d));
}
