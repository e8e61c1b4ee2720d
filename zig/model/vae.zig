//! AutoencoderKL: decodes latents to images and encodes images to latents. Group norms and the mid
//! block's attention depend on the whole image, so ranks that decode patches exchange data in these
//! layers; the result is exact.
//! Source: diffusers models/autoencoders/autoencoder_kl.py, vae.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const VaeConfig = @import("config.zig").VaeConfig;
const resnets = @import("resnet.zig");
const ResnetBlock2D = resnets.ResnetBlock2D;

const norm_epsilon = 1e-6;

pub const Vae = struct {
    config: VaeConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: ?layers.Linear,
    post_quant_conv: ?layers.Linear,

    pub fn load(arena: Allocator, view: View, config: *const VaeConfig) weights.Error!Vae {
        const latent = config.latent_channels;
        return .{
            .config = config.*,
            .encoder = try .load(arena, try view.at("encoder"), config),
            .decoder = try .load(arena, try view.at("decoder"), config),
            .quant_conv = if (config.use_quant_conv == 0)
                null
            else
                try .load(try view.at("quant_conv"), 2 * latent, 2 * latent, .bias),
            .post_quant_conv = if (config.use_post_quant_conv == 0)
                null
            else
                try .load(try view.at("post_quant_conv"), latent, latent, .bias),
        };
    }

    /// Decodes `latent` (batch, rows, width, latent_channels), already divided by the scaling
    /// factor, to an image (batch, factor * rows, factor * width, 3) of about -1 to 1.
    pub fn decode(vae: *const Vae, ctx: Context, latent: Tensor) Error!Tensor {
        const convolution = vae.post_quant_conv orelse return vae.decoder.forward(ctx, latent);
        const hidden = try convolution.forward(ctx, latent, .{});
        defer ctx.b.free(hidden);
        return vae.decoder.forward(ctx, hidden);
    }

    /// Encodes `image` (batch, rows, width, 3) of -1 to 1 to the moments of the latent's
    /// distribution: (batch, rows / factor, width / factor, 2 * latent_channels), means, then log
    /// variances.
    pub fn encode(vae: *const Vae, ctx: Context, image: Tensor) Error!Tensor {
        const moments = try vae.encoder.forward(ctx, image);
        const convolution = vae.quant_conv orelse return moments;
        defer ctx.b.free(moments);
        return convolution.forward(ctx, moments, .{});
    }
};

const Decoder = struct {
    conv_in: layers.Conv3x3,
    mid_block: MidBlock,
    up_blocks: []UpBlock,
    conv_norm_out: layers.GroupNorm,
    conv_out: layers.Conv3x3,

    fn load(arena: Allocator, view: View, c: *const VaeConfig) weights.Error!Decoder {
        const deepest = c.block_out_channels[c.level_count - 1];
        const first = c.block_out_channels[0];
        const blocks = try arena.alloc(UpBlock, c.level_count);
        for (blocks, 0..) |*block, i| {
            block.* = try loadUpBlock(arena, try view.index("up_blocks", i), c, i);
        }
        return .{
            .conv_in = try .loadScaled(try view.at("conv_in"), deepest, c.latent_channels, .{
                .product = c.residual_scale,
                .bias = c.residual_scale,
            }),
            .mid_block = try .load(try view.at("mid_block"), c),
            .up_blocks = blocks,
            .conv_norm_out = try .load(
                try view.at("conv_norm_out"),
                first,
                c.norm_groups,
                residualEpsilon(c),
            ),
            .conv_out = try .load(try view.at("conv_out"), c.out_channels, first),
        };
    }

    fn loadUpBlock(
        arena: Allocator,
        view: View,
        c: *const VaeConfig,
        i: usize,
    ) weights.Error!UpBlock {
        const level = c.level_count - 1 - i;
        const out = c.block_out_channels[level];
        const previous = c.block_out_channels[@min(level + 1, c.level_count - 1)];
        const list = try arena.alloc(ResnetBlock2D, c.layers_per_block + 1);
        for (list, 0..) |*resnet, j| {
            const in = if (j == 0) previous else out;
            resnet.* = try loadResnet(try view.index("resnets", j), c, in, out);
        }
        return .{
            .resnets = list,
            .upsampler = if (level == 0)
                null
            else
                try .load(try view.index("upsamplers", 0), out, c.residual_scale),
        };
    }

    fn forward(decoder: *const Decoder, ctx: Context, latent: Tensor) Error!Tensor {
        const first = try decoder.conv_in.forward(ctx, latent, .{});
        var hidden = try decoder.mid_block.forward(ctx, first);
        ctx.b.free(first);
        for (decoder.up_blocks) |block| {
            for (block.resnets) |resnet| hidden = try advance(ctx, hidden, resnet);
            if (block.upsampler) |upsampler| {
                const larger = try upsampler.forward(ctx, hidden);
                ctx.b.free(hidden);
                hidden = larger;
            }
        }
        const normed = try decoder.conv_norm_out.forward(ctx, hidden, .silu);
        ctx.b.free(hidden);
        defer ctx.b.free(normed);
        return decoder.conv_out.forward(ctx, normed, .{});
    }
};

const Encoder = struct {
    conv_in: layers.Conv3x3,
    down_blocks: []DownBlock,
    mid_block: MidBlock,
    conv_norm_out: layers.GroupNorm,
    conv_out: layers.Conv3x3,

    fn load(arena: Allocator, view: View, c: *const VaeConfig) weights.Error!Encoder {
        const deepest = c.block_out_channels[c.level_count - 1];
        const blocks = try arena.alloc(DownBlock, c.level_count);
        for (blocks, 0..) |*block, i| {
            block.* = try loadDownBlock(arena, try view.index("down_blocks", i), c, i);
        }
        return .{
            .conv_in = try .loadScaled(
                try view.at("conv_in"),
                c.block_out_channels[0],
                c.in_channels,
                .{ .product = c.residual_scale, .bias = c.residual_scale },
            ),
            .down_blocks = blocks,
            .mid_block = try .load(try view.at("mid_block"), c),
            .conv_norm_out = try .load(
                try view.at("conv_norm_out"),
                deepest,
                c.norm_groups,
                residualEpsilon(c),
            ),
            .conv_out = try .load(try view.at("conv_out"), 2 * c.latent_channels, deepest),
        };
    }

    fn loadDownBlock(
        arena: Allocator,
        view: View,
        c: *const VaeConfig,
        i: usize,
    ) weights.Error!DownBlock {
        const out = c.block_out_channels[i];
        const list = try arena.alloc(ResnetBlock2D, c.layers_per_block);
        for (list, 0..) |*resnet, j| {
            const in = if (j > 0) out else c.block_out_channels[i -| 1];
            resnet.* = try loadResnet(try view.index("resnets", j), c, in, out);
        }
        return .{
            .resnets = list,
            .downsampler = if (i + 1 == c.level_count)
                null
            else
                try .load(
                    try view.index("downsamplers", 0),
                    out,
                    resnets.Downsample2D.padding_vae,
                    c.residual_scale,
                ),
        };
    }

    fn forward(encoder: *const Encoder, ctx: Context, image: Tensor) Error!Tensor {
        var hidden = try encoder.conv_in.forward(ctx, image, .{});
        for (encoder.down_blocks) |block| {
            for (block.resnets) |resnet| hidden = try advance(ctx, hidden, resnet);
            if (block.downsampler) |downsampler| {
                const smaller = try downsampler.forward(ctx, hidden);
                ctx.b.free(hidden);
                hidden = smaller;
            }
        }
        const deepest = try encoder.mid_block.forward(ctx, hidden);
        ctx.b.free(hidden);
        const normed = try encoder.conv_norm_out.forward(ctx, deepest, .silu);
        ctx.b.free(deepest);
        defer ctx.b.free(normed);
        return encoder.conv_out.forward(ctx, normed, .{});
    }
};

const UpBlock = struct { resnets: []ResnetBlock2D, upsampler: ?resnets.Upsample2D };
const DownBlock = struct { resnets: []ResnetBlock2D, downsampler: ?resnets.Downsample2D };

/// UNetMidBlock2D: resnet, attention with one head over all positions, resnet.
const MidBlock = struct {
    resnet_0: ResnetBlock2D,
    attention: ?SpatialAttention,
    resnet_1: ResnetBlock2D,

    fn load(view: View, c: *const VaeConfig) weights.Error!MidBlock {
        const channels = c.block_out_channels[c.level_count - 1];
        return .{
            .resnet_0 = try loadResnet(try view.index("resnets", 0), c, channels, channels),
            .attention = if (c.mid_attention == 0)
                null
            else
                try .load(try view.index("attentions", 0), channels, c),
            .resnet_1 = try loadResnet(try view.index("resnets", 1), c, channels, channels),
        };
    }

    fn forward(block: MidBlock, ctx: Context, x: Tensor) Error!Tensor {
        var hidden = try block.resnet_0.forward(ctx, x, null);
        if (block.attention) |attention| {
            const attended = try attention.forward(ctx, hidden);
            ctx.b.free(hidden);
            hidden = attended;
        }
        defer ctx.b.free(hidden);
        return block.resnet_1.forward(ctx, hidden, null);
    }
};

const SpatialAttention = struct {
    group_norm: layers.GroupNorm,
    attention: layers.Attention,

    /// Older files name the matrices query, key, value and proj_attn.
    fn load(view: View, channels: u32, c: *const VaeConfig) weights.Error!SpatialAttention {
        const is_old = try view.has("query.weight");
        return .{
            .group_norm = try .load(
                try view.at("group_norm"),
                channels,
                c.norm_groups,
                residualEpsilon(c),
            ),
            .attention = try .load(view, .{
                .keys = if (is_old) layers.old_vae_keys else layers.diffusers_keys,
                .channels = channels,
                .context_channels = channels,
                .head_count = 1,
                .bias = .bias,
                .out_scale = .{ .product = c.residual_scale, .bias = c.residual_scale },
            }),
        };
    }

    fn forward(block: SpatialAttention, ctx: Context, x: Tensor) Error!Tensor {
        const normed = try block.group_norm.forward(ctx, x, .none);
        defer ctx.b.free(normed);
        return block.attention.selfAttention(ctx, normed, x);
    }
};

/// Epsilon of the group norms that read the residual stream. Activations there are stored times
/// `residual_scale`, so their variance has the scale's square as a factor.
fn residualEpsilon(c: *const VaeConfig) f32 {
    return norm_epsilon * c.residual_scale * c.residual_scale;
}

fn loadResnet(view: View, c: *const VaeConfig, in: u32, out: u32) weights.Error!ResnetBlock2D {
    return .load(view, .{
        .in_channels = in,
        .out_channels = out,
        .time_embed_dim = 0,
        .norm_groups = c.norm_groups,
        .epsilon = norm_epsilon,
        .residual_scale = c.residual_scale,
    });
}

/// Returns `resnet`'s output and frees its input `x`.
fn advance(ctx: Context, x: Tensor, resnet: ResnetBlock2D) Error!Tensor {
    defer ctx.b.free(x);
    return resnet.forward(ctx, x, null);
}
