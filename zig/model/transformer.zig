//! Transformer2DModel of the UNet: self-attention over the image's positions, cross-attention to
//! the prompt, feed-forward. `Conditioning` holds the prompt's keys and values, computed once per
//! prompt, in the order in which the blocks were loaded.
//! Source: diffusers models/transformers/transformer_2d.py, models/attention.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const Reuse = @import("reuse.zig").Reuse;

const norm_epsilon_2d = 1e-6;
const norm_epsilon_block = 1e-5;

/// What the cross-attentions read.
pub const Prompt = struct {
    /// By the number of each, (batch, 1, tokens, 2 * channels), or half of it.
    keys_values: []const layers.Sequences,
    /// Of each IP-Adapter that this step uses, in the same order, (batch, 1, tokens, 2 * channels).
    images: []const []const Tensor = &.{},
    reuse: *const Reuse,

    /// Of one cross-attention.
    fn imagesOf(prompt: Prompt, slot: u32, buffer: *[image_use_count_max]Tensor) []const Tensor {
        for (prompt.images, buffer[0..prompt.images.len]) |of_use, *image| image.* = of_use[slot];
        return buffer[0..prompt.images.len];
    }
};

/// IP-Adapters of a job.
pub const image_use_count_max = 4;

/// Numbers the cross-attentions: the index of each one's keys and values in `Conditioning`.
pub const ContextSlots = struct {
    count: u32 = 0,

    fn next(slots: *ContextSlots) u32 {
        defer slots.count += 1;
        return slots.count;
    }
};

pub const Transformer2D = struct {
    norm: layers.GroupNorm,
    proj_in: layers.Linear,
    transformer_blocks: []BasicTransformerBlock,
    proj_out: layers.Linear,

    pub const Options = struct {
        channels: u32,
        head_count: u32,
        block_count: u32,
        cross_attention_dim: u32,
        norm_groups: u32,
        slots: *ContextSlots,
    };

    pub fn load(arena: Allocator, whole: View, o: Options) weights.Error!Transformer2D {
        var view = whole;
        view.may_be_int8 = true;
        const blocks = try arena.alloc(BasicTransformerBlock, o.block_count);
        for (blocks, 0..) |*block, i| {
            block.* = try .load(try view.index("transformer_blocks", i), o);
        }
        return .{
            .norm = try .load(try view.at("norm"), o.channels, o.norm_groups, norm_epsilon_2d),
            .proj_in = try .load(try view.at("proj_in"), o.channels, o.channels, .bias),
            .transformer_blocks = blocks,
            .proj_out = try .load(try view.at("proj_out"), o.channels, o.channels, .bias),
        };
    }

    /// Maps `x` (batch, rows, width, channels) to the same shape.
    pub fn forward(model: Transformer2D, ctx: Context, x: Tensor, prompt: Prompt) Error!Tensor {
        const normed = try model.norm.forward(ctx, x, .none);
        var hidden = try model.proj_in.forward(ctx, normed, .{});
        ctx.b.free(normed);
        for (model.transformer_blocks) |block| {
            const next = try block.forward(ctx, hidden, prompt);
            ctx.b.free(hidden);
            hidden = next;
        }
        defer ctx.b.free(hidden);
        return model.proj_out.forward(ctx, hidden, .{ .residual = x });
    }
};

pub const BasicTransformerBlock = struct {
    norm1: layers.LayerNorm,
    attn1: layers.Attention,
    norm2: layers.LayerNorm,
    attn2: layers.Attention,
    norm3: layers.LayerNorm,
    ff: FeedForward,
    context_slot: u32,

    fn load(view: View, o: Transformer2D.Options) weights.Error!BasicTransformerBlock {
        const c = o.channels;
        return .{
            .norm1 = try .load(try view.at("norm1"), c, norm_epsilon_block),
            .attn1 = try .load(try view.at("attn1"), .{
                .keys = layers.diffusers_keys,
                .channels = c,
                .context_channels = c,
                .head_count = o.head_count,
                .bias = .no_bias,
            }),
            .norm2 = try .load(try view.at("norm2"), c, norm_epsilon_block),
            .attn2 = try .load(try view.at("attn2"), .{
                .keys = layers.diffusers_keys,
                .channels = c,
                .context_channels = o.cross_attention_dim,
                .head_count = o.head_count,
                .bias = .no_bias,
            }),
            .norm3 = try .load(try view.at("norm3"), c, norm_epsilon_block),
            .ff = try .load(try view.at("ff"), c),
            .context_slot = o.slots.next(),
        };
    }

    fn forward(
        block: BasicTransformerBlock,
        ctx: Context,
        x: Tensor,
        prompt: Prompt,
    ) Error!Tensor {
        const normed1 = try block.norm1.forward(ctx, x);
        const hidden1 = try block.attn1.selfAttention(ctx, normed1, x);
        ctx.b.free(normed1);
        defer ctx.b.free(hidden1);
        const hidden2 = try block.crossAttention(ctx, hidden1, prompt);
        defer ctx.b.free(hidden2);
        const normed3 = try block.norm3.forward(ctx, hidden2);
        defer ctx.b.free(normed3);
        return block.ff.forward(ctx, normed3, hidden2);
    }

    fn crossAttention(
        block: BasicTransformerBlock,
        ctx: Context,
        x: Tensor,
        prompt: Prompt,
    ) Error!Tensor {
        const reuse = prompt.reuse;
        if (reuse.cross == .reuse) return ctx.b.add(x, reuse.outputs[block.context_slot]);
        const keys_values = prompt.keys_values[block.context_slot];
        var buffer: [image_use_count_max]Tensor = undefined;
        const seen = prompt.imagesOf(block.context_slot, &buffer);
        const normed = try block.norm2.forward(ctx, x);
        if (reuse.cross == .compute) {
            defer ctx.b.free(normed);
            return block.attn2.crossAttention(ctx, normed, keys_values, seen, x);
        }
        const out = try block.attn2.crossAttention(ctx, normed, keys_values, seen, null);
        ctx.b.free(normed);
        defer ctx.b.free(out);
        const kept = reuse.outputs[block.context_slot];
        const images = reuse.mean_images;
        if (images == 0) {
            try ctx.b.copy(kept, out);
        } else for (0..kept.shape.batch / images) |i| {
            const at: u32 = @intCast(i * images);
            const negative = out.batchSlice(0, images);
            const prompts = out.batchSlice(at + images, images);
            try ctx.b.averageInto(kept.batchSlice(at, images), negative, prompts);
        }
        return ctx.b.add(x, out);
    }
};

/// Feed-forward with GEGLU: 4 * channels inside, and as many for the gate.
const FeedForward = struct {
    net_0_proj: layers.Linear,
    net_2: layers.Linear,

    fn load(view: View, channels: u32) weights.Error!FeedForward {
        return .{
            .net_0_proj = try .load(try view.at("net.0.proj"), 8 * channels, channels, .bias),
            .net_2 = try .load(try view.at("net.2"), channels, 4 * channels, .bias),
        };
    }

    fn forward(ff: FeedForward, ctx: Context, x: Tensor, residual: Tensor) Error!Tensor {
        const gated = try ctx.b.linearGeglu(x, ff.net_0_proj.weight, ff.net_0_proj.bias.?);
        defer ctx.b.free(gated);
        return ff.net_2.forward(ctx, gated, .{ .residual = residual });
    }
};
