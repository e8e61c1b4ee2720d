//! ResnetBlock2D, Downsample2D and Upsample2D, shared by UNet and VAE.
//! Source: diffusers models/resnet.py, downsampling.py, upsampling.py.

const backend = @import("../backend.zig");
const Exchange = @import("../patch/exchange.zig").Exchange;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;

pub const TimeEmbedding = struct {
    /// (batch, 1, 1, time_embed_dim) after SiLU.
    vector: Tensor,
    /// What every block makes of it, where all are one product; else empty.
    projected: []const Tensor = &.{},
};

pub const ResnetBlock2D = struct {
    norm1: layers.GroupNorm,
    conv1: layers.Conv3x3,
    time_emb_proj: ?layers.Linear,
    norm2: layers.GroupNorm,
    conv2: layers.Conv3x3,
    conv_shortcut: ?layers.Linear,
    /// Its place in `TimeEmbedding.projected`.
    embedding_index: u32 = 0,

    pub const Options = struct {
        in_channels: u32,
        out_channels: u32,
        /// 0 in the VAE, whose resnets have no time embedding.
        time_embed_dim: u32,
        norm_groups: u32,
        epsilon: f32,
        /// Factor at which `x` and the result are stored (`VaeConfig.residual_scale`).
        residual_scale: f32 = 1,
    };

    pub fn load(view: View, o: Options) weights.Error!ResnetBlock2D {
        const out = o.out_channels;
        return .{
            .norm1 = try .load(
                try view.at("norm1"),
                o.in_channels,
                o.norm_groups,
                o.epsilon * o.residual_scale * o.residual_scale,
            ),
            .conv1 = try .load(try view.at("conv1"), out, o.in_channels),
            .time_emb_proj = if (o.time_embed_dim == 0)
                null
            else
                try .load(try view.at("time_emb_proj"), out, o.time_embed_dim, .bias),
            .norm2 = try .load(try view.at("norm2"), out, o.norm_groups, o.epsilon),
            .conv2 = try .loadScaled(try view.at("conv2"), out, out, .{
                .product = o.residual_scale,
                .bias = o.residual_scale,
            }),
            .conv_shortcut = if (o.in_channels == out)
                null
            else
                try .loadScaled(try view.at("conv_shortcut"), out, o.in_channels, .{
                    .bias = o.residual_scale,
                }),
        };
    }

    /// Maps `x` (batch, rows, width, in_channels) to (batch, rows, width, out_channels).
    /// `time_embedding` is null in the VAE.
    pub fn forward(
        block: ResnetBlock2D,
        ctx: Context,
        x: Tensor,
        time_embedding: ?TimeEmbedding,
    ) Error!Tensor {
        const normed = try block.firstHalf(ctx, x, time_embedding);
        defer ctx.b.free(normed);
        const shortcut = block.conv_shortcut orelse {
            return block.conv2.forward(ctx, normed, .{ .residual = x });
        };
        const residual = try shortcut.forward(ctx, x, .{});
        defer ctx.b.free(residual);
        return block.conv2.forward(ctx, normed, .{ .residual = residual });
    }

    /// Up to the input of the second convolution.
    fn firstHalf(
        block: ResnetBlock2D,
        ctx: Context,
        x: Tensor,
        time_embedding: ?TimeEmbedding,
    ) Error!Tensor {
        const projected = if (time_embedding) |time| time.projected else &.{};
        const is_projected = projected.len > 0;
        const channel_bias: ?Tensor = if (is_projected)
            projected[block.embedding_index]
        else if (block.time_emb_proj) |projection|
            try projection.forward(ctx, time_embedding.?.vector, .{})
        else
            null;
        defer if (!is_projected) if (channel_bias) |vector| ctx.b.free(vector);
        const normed = try block.norm1.forward(ctx, x, .silu);
        const in_norm = ctx.b.addsInNorms();
        const first = try block.conv1.forward(ctx, normed, .{
            .channel_bias = if (in_norm) null else channel_bias,
        });
        ctx.b.free(normed);
        defer ctx.b.free(first);
        return block.norm2.forwardSum(ctx, first, if (in_norm) channel_bias else null, .silu);
    }
};

/// A 3x3 convolution of stride 2: halves rows and width.
pub const Downsample2D = struct {
    conv: layers.Conv3x3,
    padding: backend.Padding,

    /// Padding of the UNet, on all sides.
    pub const padding_unet: backend.Padding = .{ .top = 1, .bottom = 1, .left = 1, .right = 1 };
    /// Padding of the VAE's encoder, below and to the right only.
    pub const padding_vae: backend.Padding = .{ .top = 0, .bottom = 1, .left = 0, .right = 1 };

    pub fn load(
        view: View,
        channels: u32,
        padding: backend.Padding,
        residual_scale: f32,
    ) weights.Error!Downsample2D {
        const conv: layers.Conv3x3 = try .loadScaled(try view.at("conv"), channels, channels, .{
            .bias = residual_scale,
        });
        return .{ .conv = conv, .padding = padding };
    }

    pub fn forward(block: Downsample2D, ctx: Context, x: Tensor) Error!Tensor {
        const options: backend.ConvOptions = .{ .stride = 2, .padding = block.padding };
        const halo = try ctx.exchange.haloRows(x);
        defer ctx.exchange.releaseHaloRows(halo);
        // Without padding above, the rows there are not read.
        const read: Exchange.HaloRows = .{
            .above = if (block.padding.top == 0) null else halo.above,
            .below = halo.below,
        };
        return block.conv.forwardBetween(ctx, x, read, options);
    }
};

/// Nearest-neighbour upsampling by 2 in rows and width, then a 3x3 convolution.
pub const Upsample2D = struct {
    conv: layers.Conv3x3,

    pub fn load(view: View, channels: u32, residual_scale: f32) weights.Error!Upsample2D {
        const scale: layers.Scale = .{ .bias = residual_scale };
        return .{ .conv = try .loadScaled(try view.at("conv"), channels, channels, scale) };
    }

    pub fn forward(block: Upsample2D, ctx: Context, x: Tensor) Error!Tensor {
        return block.conv.forward(ctx, x, .{ .upsample = true });
    }
};
