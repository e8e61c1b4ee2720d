//! The UNet's down, mid and up blocks, and their loader. A ControlNet has the same down and mid
//! blocks.
//! Source: diffusers models/unets/unet_2d_blocks.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const UnetConfig = @import("config.zig").UnetConfig;
const resnets = @import("resnet.zig");
const Reuse = @import("reuse.zig").Reuse;
const ResnetBlock2D = resnets.ResnetBlock2D;
const transformers = @import("transformer.zig");
const Transformer2D = transformers.Transformer2D;

/// The prompts' keys and values for every cross-attention, and whether these are computed.
pub const Prompt = transformers.Prompt;

/// Limit of skip connections that are alive at once: (layers + 1) per level.
const skip_count_max = 128;

/// DownBlock2D, or CrossAttnDownBlock2D with attentions.
pub const DownBlock = struct {
    resnets: []ResnetBlock2D,
    attentions: []Transformer2D,
    downsampler: ?resnets.Downsample2D,

    /// Pushes every hidden state on `skips`, which keep them alive; `x` is the newest skip already.
    /// `features` are added to the last one: of a block with attention before its downsampler, of
    /// another behind it.
    pub fn forward(
        block: DownBlock,
        ctx: Context,
        x: Tensor,
        time: resnets.TimeEmbedding,
        prompt: Prompt,
        skips: *Skips,
        features: []const ScaledTensor,
    ) Error!Tensor {
        var hidden = x;
        const is_attended = block.attentions.len > 0;
        const is_last_plain = !is_attended and block.downsampler == null;
        for (block.resnets, 0..) |resnet, i| {
            if (skips.isOuterEnd()) return hidden;
            hidden = try resnet.forward(ctx, hidden, time);
            if (is_attended) {
                const attended = try block.attentions[i].forward(ctx, hidden, prompt);
                ctx.b.free(hidden);
                hidden = attended;
            }
            const is_last = i + 1 == block.resnets.len and (is_attended or is_last_plain);
            if (is_last) try addAll(ctx, hidden, features);
            try skips.push(ctx, hidden);
        }
        if (skips.isOuterEnd()) return hidden;
        if (block.downsampler) |downsampler| {
            hidden = try downsampler.forward(ctx, hidden);
            if (!is_attended) try addAll(ctx, hidden, features);
            try skips.push(ctx, hidden);
        }
        return hidden;
    }
};

/// A tensor that is added times a factor.
pub const ScaledTensor = struct { tensor: Tensor, factor: f32 };

/// Adds all `addends` to `x`.
pub fn addAll(ctx: Context, x: Tensor, addends: []const ScaledTensor) Error!void {
    for (addends) |addend| try ctx.b.accumulate(x, addend.tensor, addend.factor);
}

/// UNetMidBlock2DCrossAttn, or UNetMidBlock2D without attention, which ends after its first resnet;
/// does not free `x`.
pub const MidBlock = struct {
    resnet_0: ResnetBlock2D,
    attended: ?struct { attention: Transformer2D, resnet_1: ResnetBlock2D },

    pub fn attentions(block: *const MidBlock) []const Transformer2D {
        return if (block.attended) |*rest| (&rest.attention)[0..1] else &.{};
    }

    pub fn forward(
        block: MidBlock,
        ctx: Context,
        x: Tensor,
        time: resnets.TimeEmbedding,
        prompt: Prompt,
    ) Error!Tensor {
        const first = try block.resnet_0.forward(ctx, x, time);
        const rest = block.attended orelse return first;
        const attended = try rest.attention.forward(ctx, first, prompt);
        ctx.b.free(first);
        defer ctx.b.free(attended);
        return rest.resnet_1.forward(ctx, attended, time);
    }
};

/// UpBlock2D, or CrossAttnUpBlock2D with attentions.
pub const UpBlock = struct {
    resnets: []ResnetBlock2D,
    attentions: []Transformer2D,
    upsampler: ?resnets.Upsample2D,

    /// Pops one skip per resnet; frees these and `x`. A cached step has no `x` before the layer
    /// that reads the last outer skip, and begins there.
    pub fn forward(
        block: UpBlock,
        ctx: Context,
        x: ?Tensor,
        time: resnets.TimeEmbedding,
        prompt: Prompt,
        skips: *Skips,
    ) Error!?Tensor {
        var maybe = x;
        for (block.resnets, 0..) |resnet, i| {
            var hidden = try skips.featureAt(ctx, maybe) orelse continue;
            const skip = skips.pop();
            const joined = try ctx.b.concatChannels(&.{ hidden, skip });
            // Without a mid block, the first input is the newest skip itself.
            if (hidden.address != skip.address and !skips.isKept(hidden)) ctx.b.free(hidden);
            ctx.b.free(skip);
            hidden = try resnet.forward(ctx, joined, time);
            ctx.b.free(joined);
            if (block.attentions.len > 0) {
                const attended = try block.attentions[i].forward(ctx, hidden, prompt);
                ctx.b.free(hidden);
                hidden = attended;
            }
            maybe = hidden;
        }
        const hidden = maybe orelse return null;
        const upsampler = block.upsampler orelse return hidden;
        defer ctx.b.free(hidden);
        return try upsampler.forward(ctx, hidden);
    }
};

/// Stack of skip connections. A block frees the tensors that it pops. It knows where the outer
/// blocks end and begin again: a step that keeps deep features copies them there, a cached step
/// leaves out what is between.
pub const Skips = struct {
    reuse: *const Reuse,
    list: [skip_count_max]Tensor = undefined,
    count: u32 = 0,
    /// In a cached step: layers of the up blocks that are left to leave out.
    left_out: u32 = 0,

    pub fn push(skips: *Skips, ctx: Context, x: Tensor) Error!void {
        skips.list[skips.count] = x;
        skips.count += 1;
        const is_end = skips.count == skips.reuse.outer_skips;
        if (is_end and skips.reuse.deep == .keep) try ctx.exchange.enterDeep();
    }

    pub fn pop(skips: *Skips) Tensor {
        skips.count -= 1;
        return skips.list[skips.count];
    }

    /// Whether a cached step has all its skips.
    pub fn isOuterEnd(skips: *const Skips) bool {
        return skips.reuse.deep == .reuse and skips.count == skips.reuse.outer_skips;
    }

    /// The input of the next layer of the up blocks, where `x` is what the layer before gave; null
    /// where a cached step leaves it out.
    fn featureAt(skips: *Skips, ctx: Context, x: ?Tensor) Error!?Tensor {
        const reuse = skips.reuse;
        if (skips.left_out > 0) {
            skips.left_out -= 1;
            return null;
        }
        if (skips.count != reuse.outer_skips) return x;
        switch (reuse.deep) {
            .compute => return x,
            .keep => {
                try ctx.exchange.leaveDeep();
                try ctx.b.copy(reuse.feature.?, x.?);
                return x;
            },
            .reuse => {
                try ctx.exchange.skipDeep();
                return reuse.feature;
            },
        }
    }

    fn isKept(skips: *const Skips, x: Tensor) bool {
        return skips.reuse.deep == .reuse and x.address == skips.reuse.feature.?.address;
    }
};

/// Loads blocks, and derives the channels of their inputs, skips and outputs from the config.
pub const Loader = struct {
    arena: Allocator,
    config: *const UnetConfig,
    slots: *transformers.ContextSlots,

    pub fn downBlock(loader: Loader, view: View, i: usize) weights.Error!DownBlock {
        const c = loader.config;
        const out = c.block_out_channels[i];
        const list = try loader.arena.alloc(ResnetBlock2D, c.layers_per_block[i]);
        for (list, 0..) |*resnet, j| {
            const in = if (j > 0) out else c.block_out_channels[i -| 1];
            resnet.* = try loader.loadResnet(try view.index("resnets", j), in, out);
        }
        const is_last = i + 1 == c.level_count;
        const padding = resnets.Downsample2D.padding_unet;
        return .{
            .resnets = list,
            .attentions = try loader.loadAttentions(view, i, c.downAttentions(i)),
            .downsampler = if (is_last)
                null
            else
                try .load(try view.index("downsamplers", 0), out, padding, 1),
        };
    }

    /// Null for a UNet without one; `unet` is the view of the whole network.
    pub fn midBlock(loader: Loader, unet: View) weights.Error!?MidBlock {
        const c = loader.config;
        if (c.mid_block == .none) return null;
        const view = try unet.at("mid_block");
        const level = c.level_count - 1;
        const channels = c.block_out_channels[level];
        const first = try loader.loadResnet(try view.index("resnets", 0), channels, channels);
        if (c.mid_block == .resnet) return .{ .resnet_0 = first, .attended = null };
        return .{ .resnet_0 = first, .attended = .{
            .attention = try loader.loadAttention(
                try view.index("attentions", 0),
                level,
                c.mid_transformer_layers,
            ),
            .resnet_1 = try loader.loadResnet(try view.index("resnets", 1), channels, channels),
        } };
    }

    pub fn upBlock(loader: Loader, view: View, i: usize) weights.Error!UpBlock {
        const c = loader.config;
        const level = c.level_count - 1 - i;
        const out = c.block_out_channels[level];
        // Channels of the input: from the next deeper level, or from the mid block.
        const previous = c.block_out_channels[@min(level + 1, c.level_count - 1)];
        const list = try loader.arena.alloc(ResnetBlock2D, c.layers_per_block[level] + 1);
        for (list, 0..) |*resnet, j| {
            const in = if (j == 0) previous else out;
            // The last skip comes from the level above (or conv_in), the others from this one.
            const skip = if (j + 1 == list.len) c.block_out_channels[level -| 1] else out;
            resnet.* = try loader.loadResnet(try view.index("resnets", j), in + skip, out);
        }
        const is_last = level == 0;
        return .{
            .resnets = list,
            .attentions = try loader.loadAttentions(view, level, c.upAttentions(i)),
            .upsampler = if (is_last) null else try .load(try view.index("upsamplers", 0), out, 1),
        };
    }

    // --- internal ---

    fn loadResnet(loader: Loader, view: View, in: u32, out: u32) weights.Error!ResnetBlock2D {
        return .load(view, .{
            .in_channels = in,
            .out_channels = out,
            .time_embed_dim = loader.config.timeEmbedDim(),
            .norm_groups = loader.config.norm_groups,
            .epsilon = loader.config.norm_epsilon,
        });
    }

    fn loadAttentions(
        loader: Loader,
        view: View,
        level: usize,
        block_counts: []const u32,
    ) weights.Error![]Transformer2D {
        const list = try loader.arena.alloc(Transformer2D, block_counts.len);
        for (list, block_counts, 0..) |*attention, block_count, j| {
            attention.* = try loader.loadAttention(
                try view.index("attentions", j),
                level,
                block_count,
            );
        }
        return list;
    }

    fn loadAttention(
        loader: Loader,
        view: View,
        level: usize,
        block_count: u32,
    ) weights.Error!Transformer2D {
        const c = loader.config;
        return .load(loader.arena, view, .{
            .channels = c.block_out_channels[level],
            .head_count = c.head_counts[level],
            .block_count = block_count,
            .cross_attention_dim = c.cross_attention_dim,
            .norm_groups = c.norm_groups,
            .slots = loader.slots,
        });
    }
};
