//! A model's configuration as plain numbers. TypeScript reads the config files and fills these
//! structs, so no size and no variant is hard-coded. They cross the ABI and are checked once, on
//! arrival.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const level_count_max = 8;
/// Attentions of an up block; it has one layer more than the down block of its level.
pub const attention_count_max = 8;
pub const time_id_count_max = 6;

pub const HiddenAct = enum(u32) { quick_gelu = 0, gelu = 1 };

/// Which hidden state of a text encoder the UNet reads: the input of the last layer or its output.
pub const HiddenState = enum(u32) { penultimate = 0, last = 1 };

/// CLIPTextModel (projection_size 0) or CLIPTextModelWithProjection.
pub const ClipConfig = extern struct {
    /// 0: the model has no such encoder, and the rest is not read.
    is_present: u32,
    vocab_size: u32,
    hidden_size: u32,
    intermediate_size: u32,
    layer_count: u32,
    head_count: u32,
    position_count: u32,
    hidden_act: HiddenAct,
    projection_size: u32,
    layer_norm_epsilon: f32,
    hidden_state: HiddenState,
    /// Whether that state passes through the final layer norm.
    final_norm: u32,
};

/// The encoder whose pooled output (projected end-of-text token) conditions the UNet.
pub const PooledFrom = enum(u32) { text_encoder = 0, text_encoder_2 = 1 };

/// One or two text encoders; their hidden states are concatenated on the channels.
pub const TextConfig = extern struct {
    text_encoder: ClipConfig,
    text_encoder_2: ClipConfig,
    pooled_from: PooledFrom,

    /// The encoders that the model has, in order.
    pub fn encoders(config: *const TextConfig, buffer: *[2]*const ClipConfig) []*const ClipConfig {
        var count: usize = 0;
        for ([_]*const ClipConfig{ &config.text_encoder, &config.text_encoder_2 }) |encoder| {
            if (encoder.is_present == 0) continue;
            buffer[count] = encoder;
            count += 1;
        }
        return buffer[0..count];
    }

    /// Tokens of a prompt's chunk, the same number for all encoders; 0 without encoders.
    pub fn tokenCount(config: *const TextConfig) u32 {
        var buffer: [2]*const ClipConfig = undefined;
        const present = config.encoders(&buffer);
        return if (present.len == 0) 0 else present[0].position_count;
    }

    /// Channels of the concatenated hidden states.
    pub fn hiddenSize(config: *const TextConfig) u32 {
        var buffer: [2]*const ClipConfig = undefined;
        var sum: u32 = 0;
        for (config.encoders(&buffer)) |encoder| sum +|= encoder.hidden_size;
        return sum;
    }

    pub fn pooling(config: *const TextConfig) *const ClipConfig {
        return switch (config.pooled_from) {
            .text_encoder => &config.text_encoder,
            .text_encoder_2 => &config.text_encoder_2,
        };
    }

    /// Channels of the pooled output.
    pub fn pooledSize(config: *const TextConfig) u32 {
        return config.pooling().projection_size;
    }
};

/// UNetMidBlock2DCrossAttn (resnet, attention, resnet), UNetMidBlock2D (one resnet), or no block.
pub const MidBlockKind = enum(u32) { cross_attention = 0, resnet = 1, none = 2 };

/// Transformer blocks of each attention of each block; 0 where the block has no attention.
pub const TransformerLayers = [level_count_max][attention_count_max]u32;

/// UNet2DConditionModel with `addition_embed_type` "text_time".
pub const UnetConfig = extern struct {
    /// Channels of the latent; for inpainting models of latent, mask and masked latent.
    in_channels: u32,
    out_channels: u32,
    level_count: u32,
    block_out_channels: [level_count_max]u32,
    /// Resnets per down block; an up block has one more.
    layers_per_block: [level_count_max]u32,
    /// In order of the blocks, so the first up block is at the last level.
    down_transformer_layers: TransformerLayers,
    up_transformer_layers: TransformerLayers,
    mid_block: MidBlockKind,
    /// Read where the mid block has attention.
    mid_transformer_layers: u32,
    /// Heads per down level (diffusers' `attention_head_dim`, which holds this number).
    head_counts: [level_count_max]u32,
    cross_attention_dim: u32,
    norm_groups: u32,
    addition_time_embed_dim: u32,
    /// Length of diffusers' add_time_ids: 6 sizes, or for refiners 4 sizes and an aesthetic score.
    time_id_count: u32,
    /// `projection_class_embeddings_input_dim`: the pooled prompt, then the embedded time ids.
    addition_input_dim: u32,
    flip_sin_to_cos: u32,
    frequency_shift: f32,
    norm_epsilon: f32,

    pub fn timeEmbedDim(config: *const UnetConfig) u32 {
        return 4 * config.block_out_channels[0];
    }

    /// Transformer blocks of each attention of down block `i`; empty for a block without attention.
    pub fn downAttentions(config: *const UnetConfig, i: usize) []const u32 {
        const depths = config.down_transformer_layers[i][0..config.layers_per_block[i]];
        return if (depths[0] == 0) &.{} else depths;
    }

    /// The same of up block `i`.
    pub fn upAttentions(config: *const UnetConfig, i: usize) []const u32 {
        const level = config.level_count - 1 - i;
        const depths = config.up_transformer_layers[i][0 .. config.layers_per_block[level] + 1];
        return if (depths[0] == 0) &.{} else depths;
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
    /// Scale of the VAE's residual stream, a power of two: SDXL's activations there exceed the
    /// range of f16, so they are stored times this factor. Norms cancel it, so the image is the
    /// same. 1 for other activation types.
    residual_scale: f32,

    /// Pixels per latent position, in each direction.
    pub fn factor(config: *const VaeConfig) u32 {
        return @as(u32, 1) << @intCast(config.level_count - 1);
    }
};

/// The decoder of AutoencoderTiny (TAESD). Its latent has the VAE's channels.
pub const TaesdConfig = extern struct {
    /// 0: there is none, and the rest is not read.
    is_present: u32,
    /// Of all layers but the ends.
    channels: u32,
    level_count: u32,
    /// Blocks of each level, the deepest first; each level but the first begins with an upsampling.
    block_counts: [level_count_max]u32,
};

/// Kinds of hints that a union ControlNet tells apart.
pub const control_type_count_max = 16;

/// ControlNetModel, or ControlNetUnionModel.
pub const ControlNetConfig = extern struct {
    /// Its first half: up blocks are not read.
    unet: UnetConfig,
    /// Of the hint image.
    conditioning_channels: u32,
    /// conditioning_embedding_out_channels, which halve the image from one to the next.
    embedding_level_count: u32,
    embedding_channels: [level_count_max]u32,
    /// num_control_type; 0 for a ControlNetModel.
    control_type_count: u32,
    /// num_trans_layer
    type_layer_count: u32,

    /// Refuses one that is for another model.
    pub fn check(
        net: *const ControlNetConfig,
        model: *const ModelConfig,
        d: *Diagnostics,
    ) Error!void {
        try checkUnet(&net.unet, d);
        const own, const unet = .{ &net.unet, &model.unet };
        const levels = unet.level_count;
        const sentence = "the ControlNet must have the sizes of the UNet's first half";
        try expect(own.level_count == levels, d, sentence);
        const widths = std.mem.eql(u32, &own.block_out_channels, &unet.block_out_channels);
        try expect(widths, d, sentence);
        const layers = std.mem.eql(u32, &own.layers_per_block, &unet.layers_per_block);
        try expect(layers, d, sentence);
        const reads = own.cross_attention_dim == unet.cross_attention_dim and
            own.addition_input_dim == unet.addition_input_dim and
            own.time_id_count == unet.time_id_count and
            own.addition_time_embed_dim == unet.addition_time_embed_dim;
        try expect(reads, d, "the ControlNet must read the model's prompts");
        const latent = own.in_channels == model.vae.latent_channels;
        try expect(latent, d, "the ControlNet must read the VAE's latent channels");
        const count = net.embedding_level_count;
        const has_levels = isLevelCount(count) and model.vae.factor() == @as(u32, 1) <<
            @intCast(count - 1);
        try expect(has_levels, d, "the ControlNet must halve hints to the latent's size");
        for (net.embedding_channels[0..count]) |each| {
            try expect(each > 0, d, "the ControlNet's embedding must have channels");
        }
        try expect(net.conditioning_channels == 3, d, "the ControlNet must read RGB");
        const has_room = net.control_type_count <= control_type_count_max;
        try expect(has_room, d, "a ControlNet tells at most 16 types of hints apart");
    }
};

/// T2IAdapter of the type full_adapter_xl.
pub const T2iAdapterConfig = extern struct {
    /// Of the hint image.
    in_channels: u32,
    level_count: u32,
    channels: [level_count_max]u32,
    /// num_res_blocks
    block_count: u32,
    downscale_factor: u32,

    /// Refuses one that is for another model: its features are added behind three down blocks, of
    /// which the first has no attention, and behind the mid block.
    pub fn check(
        adapter: *const T2iAdapterConfig,
        model: *const ModelConfig,
        d: *Diagnostics,
    ) Error!void {
        const unet = &model.unet;
        const has_levels = adapter.level_count == 4 and unet.level_count == 3 and
            unet.downAttentions(0).len == 0 and unet.downAttentions(1).len > 0 and
            unet.downAttentions(2).len > 0 and unet.mid_block != .none;
        try expect(has_levels, d, "the T2I-Adapter must have features for SDXL's blocks");
        for (0..adapter.level_count) |i| {
            const is_same = adapter.channels[i] == unet.block_out_channels[@min(i, 2)];
            try expect(is_same, d, "the T2I-Adapter must have the channels of the UNet");
        }
        const is_half = adapter.downscale_factor == 2 * model.vae.factor();
        try expect(is_half, d, "the T2I-Adapter must begin at half the latent's size");
        const is_image = adapter.in_channels == 1 or adapter.in_channels == 3;
        try expect(is_image, d, "the T2I-Adapter must read RGB or grey");
    }
};

/// CLIPVisionModelWithProjection.
pub const ClipVisionConfig = extern struct {
    hidden_size: u32,
    intermediate_size: u32,
    layer_count: u32,
    head_count: u32,
    /// Pixels of a side of the image, and of a patch.
    image_size: u32,
    patch_size: u32,
    hidden_act: HiddenAct,
    projection_size: u32,
    layer_norm_epsilon: f32,

    pub fn patchCount(config: *const ClipVisionConfig) u32 {
        const side = config.image_size / config.patch_size;
        return side * side;
    }

    /// RGB of a patch.
    pub fn patchValues(config: *const ClipVisionConfig) u32 {
        return 3 * config.patch_size * config.patch_size;
    }

    pub fn check(
        config: *const ClipVisionConfig,
        _: *const ModelConfig,
        d: *Diagnostics,
    ) Error!void {
        const sizes = [_]u32{
            config.hidden_size, config.intermediate_size, config.head_count,
            config.image_size,  config.patch_size,        config.projection_size,
        };
        for (sizes) |size| try expect(isSize(size), d, "the image encoder must have sizes");
        const heads = config.hidden_size % config.head_count == 0;
        try expect(heads, d, "the image encoder's heads must divide its channels");
        const patches = config.image_size % config.patch_size == 0 and config.image_size <= 4096;
        try expect(patches, d, "the image encoder's patches must divide its image");
        const layers = config.layer_count >= 2 and isSize(config.layer_count);
        try expect(layers, d, "the image encoder needs at least 2 layers");
    }
};

pub const IpProjection = enum(u32) {
    /// ImageProjection: a linear layer of the image's embedding.
    plain = 0,
    /// IPAdapterPlusImageProjection: a resampler of the penultimate states.
    plus = 1,
};

pub const IpAdapterConfig = extern struct {
    projection: IpProjection,
    token_count: u32,
    /// Channels of what the encoder gives.
    embed_size: u32,
    /// Of the resampler, like the rest; not read of plain ones.
    hidden_size: u32,
    layer_count: u32,
    head_count: u32,
    /// Channels of all its heads, and of its feed-forward layers.
    inner_size: u32,
    feed_forward_size: u32,

    pub fn check(
        config: *const IpAdapterConfig,
        _: *const ModelConfig,
        d: *Diagnostics,
    ) Error!void {
        const sizes = [_]u32{ config.token_count, config.embed_size };
        for (sizes) |size| try expect(isSize(size), d, "the IP-Adapter must have sizes");
        if (config.projection == .plain) return;
        const inner = [_]u32{
            config.hidden_size, config.layer_count,       config.head_count,
            config.inner_size,  config.feed_forward_size,
        };
        const sentence = "the IP-Adapter's resampler must have sizes";
        for (inner) |size| try expect(isSize(size), d, sentence);
        const heads = config.inner_size % config.head_count == 0;
        try expect(heads, d, "the heads of the IP-Adapter's resampler must divide its channels");
    }

    /// Channels that it reads of its image encoder.
    pub fn reads(config: *const IpAdapterConfig, encoder: *const ClipVisionConfig) bool {
        return config.embed_size == switch (config.projection) {
            .plain => encoder.projection_size,
            .plus => encoder.hidden_size,
        };
    }
};

pub const UpscalerKind = enum(u32) { rrdbnet = 0, compact = 1 };

/// RRDBNet (ESRGAN, Real-ESRGAN) or SRVGGNetCompact.
pub const UpscalerConfig = extern struct {
    kind: UpscalerKind,
    /// RRDBs; of compact ones the convolutions between the first and the last.
    block_count: u32,
    features: u32,
    /// Channels that each convolution of a dense block adds; not read for compact ones.
    growth: u32,
    /// Rows and columns of pixels that are one position of the first convolution (pixel unshuffle).
    unshuffle: u32,
    /// Doublings on the way; not read for compact ones.
    upsample_count: u32,
    /// Rows and columns of pixels that the last convolution gives of a position (pixel shuffle); 1
    /// for RRDBNet.
    shuffle: u32,

    pub fn inChannels(config: *const UpscalerConfig) u32 {
        return 3 * config.unshuffle * config.unshuffle;
    }

    pub fn outChannels(config: *const UpscalerConfig) u32 {
        return 3 * config.shuffle * config.shuffle;
    }

    /// Pixels of the result per pixel of the image, in each direction.
    pub fn scale(config: *const UpscalerConfig) u32 {
        return config.positionPixels() / config.unshuffle;
    }

    /// Any model takes any upscaler.
    pub fn check(config: *const UpscalerConfig, _: *const ModelConfig, d: *Diagnostics) Error!void {
        const counts = [_]u32{ config.block_count, config.features };
        for (counts) |count| try expect(count > 0, d, "an upscaler must have blocks and channels");
        const units = [_]u32{ config.unshuffle, config.shuffle };
        for (units) |unit| {
            const is_unit = unit >= 1 and unit <= upscaler_unit_max and std.math.isPowerOfTwo(unit);
            try expect(is_unit or config.kind == .compact and unit == 3, d, upscaler_sentence);
        }
        const is_fit = switch (config.kind) {
            .rrdbnet => config.upsample_count <= 3 and config.shuffle == 1 and config.growth > 0,
            .compact => config.unshuffle == 1,
        };
        try expect(is_fit, d, upscaler_sentence);
        const is_whole = config.positionPixels() >= config.unshuffle;
        try expect(is_whole, d, upscaler_sentence);
    }

    fn positionPixels(config: *const UpscalerConfig) u32 {
        return switch (config.kind) {
            .rrdbnet => @as(u32, 1) << @intCast(config.upsample_count),
            .compact => config.shuffle,
        };
    }
};

const upscaler_unit_max = 8;
const upscaler_sentence = "an upscaler must enlarge by a whole number";

pub const ModelConfig = extern struct {
    text: TextConfig,
    unet: UnetConfig,
    vae: VaeConfig,
    taesd: TaesdConfig,

    /// Rows and columns of the latent must be multiples of this: each UNet level halves them.
    pub fn latentMultiple(config: *const ModelConfig) u32 {
        return @as(u32, 1) << @intCast(config.unet.level_count - 1);
    }

    /// Whether the UNet reads a mask and a masked latent beside the latent (inpainting).
    pub fn readsMask(config: *const ModelConfig) bool {
        return config.unet.in_channels != config.vae.latent_channels;
    }
};

pub const Error = error{BadConfig};

/// Checks every number that the networks divide by or index with. TypeScript has already reported
/// errors of config files in the file's terms; this turns a caller's mistake into an error.
pub fn check(config: *const ModelConfig, d: *Diagnostics) Error!void {
    try checkText(&config.text, d);
    try checkUnet(&config.unet, d);
    try checkVae(&config.vae, d);
    try checkTaesd(config, d);
    try expect(
        config.unet.cross_attention_dim == config.text.hiddenSize(),
        d,
        "cross_attention_dim must be the sum of the text encoders' hidden_size",
    );
    const embedded = config.unet.time_id_count *| config.unet.addition_time_embed_dim;
    try expect(
        config.unet.addition_input_dim == embedded +| config.text.pooledSize(),
        d,
        "projection_class_embeddings_input_dim must hold the time ids and the pooled prompt",
    );
    const latent = config.vae.latent_channels;
    try expect(
        config.unet.in_channels == latent or config.unet.in_channels == 2 *| latent +| 1,
        d,
        "the UNet must read the VAE's latent channels, or with a mask twice as many and one",
    );
    try expect(
        config.unet.out_channels == latent,
        d,
        "the UNet must give the VAE's latent channels",
    );
}

// --- internal ---

fn checkText(text: *const TextConfig, d: *Diagnostics) Error!void {
    var buffer: [2]*const ClipConfig = undefined;
    const encoders = text.encoders(&buffer);
    try expect(encoders.len > 0, d, "a model needs a text encoder");
    for (encoders) |encoder| try checkClip(encoder, d);
    try expect(
        encoders[0].position_count == encoders[encoders.len - 1].position_count,
        d,
        "both text encoders must read the same number of tokens",
    );
    const pooling = text.pooling();
    const pools = pooling.is_present != 0 and pooling.projection_size > 0;
    try expect(pools, d, "the text encoder that pools needs a projection");
    // The last layer's input is the hidden state that the UNet reads.
    const goes_on = pooling.hidden_state == .last or pooling.final_norm == 0;
    try expect(goes_on, d, "the text encoder that pools cannot norm its penultimate state");
}

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
    const has_time_ids = unet.time_id_count >= 1 and unet.time_id_count <= time_id_count_max;
    try expect(has_time_ids, d, "the UNet must read 1 to 6 time ids");
    try expect(unet.addition_time_embed_dim > 0, d, "addition_time_embed_dim must be at least 2");
    for (0..unet.level_count) |i| {
        const channels = unet.block_out_channels[i];
        const is_divided = channels > 0 and channels % unet.norm_groups == 0;
        try expect(is_divided, d, "norm_num_groups must divide block_out_channels");
        const layer_count = unet.layers_per_block[i];
        const has_room = layer_count >= 1 and layer_count < attention_count_max;
        try expect(has_room, d, "layers_per_block must be 1 to 7");
        if (!try checkAttentions(unet, i, d)) continue;
        try expect(unet.head_counts[i] >= 1, d, "attention heads must be at least 1");
        try expect(channels % unet.head_counts[i] == 0, d, "attention heads must divide channels");
    }
    try expect(unet.block_out_channels[0] % 2 == 0, d, "the first block's channels must be even");
}

/// Whether level `i` has attention: in its down block, its up block or below.
fn checkAttentions(unet: *const UnetConfig, i: usize, d: *Diagnostics) Error!bool {
    const downs = unet.downAttentions(i);
    const ups = unet.upAttentions(unet.level_count - 1 - i);
    for ([_][]const u32{ downs, ups }) |depths| {
        const is_whole = std.mem.indexOfScalar(u32, depths, 0) == null;
        try expect(is_whole, d, "all attentions of a block must have transformer blocks");
    }
    const attends_below = i + 1 == unet.level_count and unet.mid_block == .cross_attention;
    const has_layers = !attends_below or unet.mid_transformer_layers > 0;
    try expect(has_layers, d, "the mid block's attention must have transformer blocks");
    return downs.len > 0 or ups.len > 0 or attends_below;
}

fn checkVae(vae: *const VaeConfig, d: *Diagnostics) Error!void {
    try expect(isLevelCount(vae.level_count), d, "the VAE must have 1 to 8 levels");
    try expect(vae.norm_groups > 0, d, "the VAE's norm_num_groups must be at least 1");
    try expect(vae.layers_per_block >= 1, d, "the VAE's layers_per_block must be at least 1");
    const is_power = std.math.frexp(vae.residual_scale).significand == 0.5;
    try expect(is_power and vae.residual_scale <= 1, d, "the VAE's residual scale must be 1 / 2^n");
    const is_rgb = vae.in_channels == 3 and vae.out_channels == 3;
    try expect(is_rgb, d, "the VAE must read and write RGB");
    for (vae.block_out_channels[0..vae.level_count]) |channels| {
        const is_divided = channels > 0 and channels % vae.norm_groups == 0;
        try expect(is_divided, d, "the VAE's norm_num_groups must divide block_out_channels");
    }
}

fn checkTaesd(config: *const ModelConfig, d: *Diagnostics) Error!void {
    const taesd = &config.taesd;
    if (taesd.is_present == 0) return;
    const has_size = taesd.channels > 0 and taesd.level_count == config.vae.level_count;
    try expect(has_size, d, "TAESD must give images of the VAE's size");
}

/// Products of a few of them fit 32 bits.
fn isSize(size: u32) bool {
    return size > 0 and size <= 1 << 16;
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
    unet.time_id_count = 6;
    unet.block_out_channels[0..2].* = .{ 32, 64 };
    unet.layers_per_block[0..2].* = .{ 1, 1 };
    unet.head_counts[0..2].* = .{ 5, 8 };
    unet.mid_transformer_layers = 1;
    var d: Diagnostics = .{};
    try checkUnet(&unet, &d);
    // Up blocks come in the opposite order: the last one is at the first level.
    unet.up_transformer_layers[1][0..2].* = .{ 1, 1 };
    try std.testing.expectError(error.BadConfig, checkUnet(&unet, &d));
    unet.up_transformer_layers[1][0..2].* = .{ 0, 0 };
    unet.head_counts[0..2].* = .{ 8, 5 };
    try std.testing.expectError(error.BadConfig, checkUnet(&unet, &d));
    unet.mid_block = .resnet;
    try checkUnet(&unet, &d);
}

test "a block has attention in every layer or in none" {
    var unet = std.mem.zeroes(UnetConfig);
    unet.level_count = 1;
    unet.layers_per_block[0] = 2;
    unet.mid_block = .none;
    var d: Diagnostics = .{};
    try std.testing.expect(!try checkAttentions(&unet, 0, &d));
    unet.up_transformer_layers[0][0..3].* = .{ 4, 4, 10 };
    try std.testing.expect(try checkAttentions(&unet, 0, &d));
    try std.testing.expectEqualSlices(u32, &.{ 4, 4, 10 }, unet.upAttentions(0));
    unet.up_transformer_layers[0][2] = 0;
    try std.testing.expectError(error.BadConfig, checkAttentions(&unet, 0, &d));
    unet.up_transformer_layers[0][2] = 1;
    unet.mid_block = .cross_attention;
    try std.testing.expectError(error.BadConfig, checkAttentions(&unet, 0, &d));
}
