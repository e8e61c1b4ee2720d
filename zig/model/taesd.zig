//! The decoder of AutoencoderTiny (TAESD): convolutions without norms, which show a latent at a
//! twentieth of the VAE's cost. It reads the latent in the sampler's scale.
//! Source: diffusers models/autoencoders/vae.py (DecoderTiny, AutoencoderTinyBlock).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Conv3x3 = layers.Conv3x3;
const Context = layers.Context;
const Error = layers.Error;
const TaesdConfig = @import("config.zig").TaesdConfig;

pub const TinyDecoder = struct {
    conv_in: Conv3x3,
    levels: []Level,
    conv_out: Conv3x3,

    /// The keys are diffusers', `decoder.layers.N`; activations and upsamplings count in N.
    pub fn load(
        arena: Allocator,
        view: View,
        config: *const TaesdConfig,
        latent_channels: u32,
    ) weights.Error!TinyDecoder {
        const list = try view.at("decoder");
        const channels = config.channels;
        const levels = try arena.alloc(Level, config.level_count);
        const conv_in: Conv3x3 = try .load(
            try list.index("layers", 0),
            channels,
            latent_channels,
        );
        var next: usize = 2;
        for (levels, 0..) |*level, i| {
            level.upsampler = null;
            if (i > 0) {
                level.upsampler = try .loadUnbiased(
                    try list.index("layers", next + 1),
                    channels,
                    channels,
                );
                next += 2;
            }
            level.blocks = try arena.alloc(Block, config.block_counts[i]);
            for (level.blocks) |*block| {
                block.* = try .load(try list.index("layers", next), channels);
                next += 1;
            }
        }
        const conv_out: Conv3x3 = try .load(try list.index("layers", next), 3, channels);
        return .{ .conv_in = conv_in, .levels = levels, .conv_out = conv_out };
    }

    /// Decodes `latent` (1, rows, width, latent channels), f32 in the sampler's scale, to an image
    /// (1, factor * rows, factor * width, 3) of about -1 to 1.
    pub fn decode(decoder: *const TinyDecoder, ctx: Context, latent: Tensor) Error!Tensor {
        const b = ctx.b;
        const sample = try b.scaleRepeat(latent, 1, 1);
        const clamped = try b.activate(sample, .soft_clamp);
        b.free(sample);
        var hidden = try decoder.conv_in.forward(ctx, clamped, .{ .activation = .relu });
        b.free(clamped);
        for (decoder.levels) |level| {
            if (level.upsampler) |upsampler| {
                const larger = try upsampler.forward(ctx, hidden, .{ .upsample = true });
                b.free(hidden);
                hidden = larger;
            }
            for (level.blocks) |block| {
                const out = try block.forward(ctx, hidden);
                b.free(hidden);
                hidden = out;
            }
        }
        defer b.free(hidden);
        return decoder.conv_out.forward(ctx, hidden, .{ .activation = .to_signed });
    }
};

const Level = struct { upsampler: ?Conv3x3, blocks: []Block };

/// Three convolutions; their sum with the input passes through ReLU.
const Block = struct {
    convs: [3]Conv3x3,

    fn load(view: View, channels: u32) weights.Error!Block {
        var block: Block = undefined;
        for (&block.convs, 0..) |*conv, i| {
            conv.* = try .load(try view.index("conv", 2 * i), channels, channels);
        }
        return block;
    }

    fn forward(block: Block, ctx: Context, x: Tensor) Error!Tensor {
        const first = try block.convs[0].forward(ctx, x, .{ .activation = .relu });
        const second = try block.convs[1].forward(ctx, first, .{ .activation = .relu });
        ctx.b.free(first);
        const sum = try block.convs[2].forward(ctx, second, .{ .residual = x });
        ctx.b.free(second);
        defer ctx.b.free(sum);
        return ctx.b.activate(sum, .relu);
    }
};
