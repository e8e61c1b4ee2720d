//! ControlNetModel and ControlNetUnionModel as SDXL has them: the first half of a UNet, which reads
//! a hint image beside the latent, and gives a residual for each skip connection and for the mid
//! block. `embedHint` and `condition` compute once what does not depend on the step.
//! Source: diffusers models/controlnets/controlnet.py, controlnet_union.py.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Backend = @import("../backend.zig").Backend;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const ControlNetConfig = @import("config.zig").ControlNetConfig;
const conditionings = @import("conditioning.zig");
const Conditioning = conditionings.Conditioning;
const controlnet_union = @import("controlnet_union.zig");
const ControlNetUnion = controlnet_union.ControlNetUnion;
const ControlTypes = controlnet_union.ControlTypes;
const Residuals = @import("additions.zig").Residuals;
const Reuse = @import("reuse.zig").Reuse;
const time_embeddings = @import("time_embedding.zig");
const ContextSlots = @import("transformer.zig").ContextSlots;
const unet_blocks = @import("unet_blocks.zig");

pub const ControlNet = struct {
    config: ControlNetConfig,
    conv_in: layers.Conv3x3,
    time_embedding: time_embeddings.TimestepEmbedding,
    add_embedding: time_embeddings.TimestepEmbedding,
    controlnet_cond_embedding: ConditioningEmbedding,
    down_blocks: []unet_blocks.DownBlock,
    mid_block: ?unet_blocks.MidBlock,
    controlnet_down_blocks: []layers.Linear,
    controlnet_mid_block: layers.Linear,
    projections: time_embeddings.Projections,
    context_slot_count: u32,
    /// Null for a model of one kind of hint.
    type_embedding: ?ControlNetUnion,

    pub fn load(
        arena: Allocator,
        view: View,
        config: *const ControlNetConfig,
    ) weights.Error!ControlNet {
        const c = &config.unet;
        var slots: ContextSlots = .{};
        const loader: unet_blocks.Loader = .{ .arena = arena, .config = c, .slots = &slots };
        const down_blocks = try arena.alloc(unet_blocks.DownBlock, c.level_count);
        for (down_blocks, 0..) |*block, i| {
            block.* = try loader.downBlock(try view.index("down_blocks", i), i);
        }
        var mid_block = try loader.midBlock(view);
        const mid = if (mid_block) |*block| block else null;
        const projections: time_embeddings.Projections =
            try .list(arena, down_blocks, mid, &.{});
        const first = c.block_out_channels[0];
        const deepest = c.block_out_channels[c.level_count - 1];
        const embed = c.timeEmbedDim();
        const in = c.addition_input_dim;
        const hint = try view.at("controlnet_cond_embedding");
        return .{
            .config = config.*,
            .conv_in = try .load(try view.at("conv_in"), first, c.in_channels),
            .time_embedding = try .load(try view.at("time_embedding"), embed, first),
            .add_embedding = try .load(try view.at("add_embedding"), embed, in),
            .controlnet_cond_embedding = try .load(arena, hint, config),
            .down_blocks = down_blocks,
            .mid_block = mid_block,
            .controlnet_down_blocks = try loadOutputs(arena, view, config),
            .controlnet_mid_block = try .load(
                try view.at("controlnet_mid_block"),
                deepest,
                deepest,
                .bias,
            ),
            .projections = projections,
            .context_slot_count = slots.count,
            .type_embedding = if (config.control_type_count == 0)
                null
            else
                try .load(arena, view, config),
        };
    }

    /// What the hint `image` (1, factor * rows, factor * width, channels) of 0 to 1 adds to the
    /// first convolution, (1, rows, width, channels): of the whole image, without an exchange.
    pub fn embedHint(net: *const ControlNet, ctx: Context, image: Tensor) Error!Tensor {
        return net.controlnet_cond_embedding.forward(ctx, image);
    }

    /// As `UNet.condition`; a union model adds the embedding of the types of its hints.
    pub fn condition(
        net: *const ControlNet,
        ctx: Context,
        inputs: conditionings.PromptInputs,
        control_types: ControlTypes,
        keys_values: []layers.Sequences,
    ) Error!Conditioning {
        assert(keys_values.len == net.context_slot_count);
        const blocks: conditionings.Blocks = .{ .downs = net.down_blocks, .mid = net.mid_block };
        const c = &net.config.unet;
        const embedding = net.add_embedding;
        var result = try conditionings.ofBlocks(ctx, c, embedding, blocks, inputs, keys_values);
        const types = net.type_embedding orelse return result;
        const batch = inputs.pooled.shape.batch;
        const embedded = try types.embedTypes(ctx, &net.config, control_types, batch);
        const plain = result.addition;
        result.addition = try ctx.b.add(plain, embedded);
        ctx.b.free(embedded);
        ctx.b.free(plain);
        return result;
    }

    /// Writes the residuals of a step to `out`. `sample` and `halo` are as `UNet.forward` has them,
    /// `hint` are the rows of what `embedHint` gave, for every element of the batch.
    pub fn forward(
        net: *const ControlNet,
        ctx: Context,
        sample: Tensor,
        halo: Exchange.HaloRows,
        timestep: Tensor,
        conditioning: Conditioning,
        hint: Tensor,
        out: Residuals,
    ) Error!void {
        const b = ctx.b;
        const everything: Reuse = .{};
        const c = &net.config.unet;
        const embedding = net.time_embedding;
        const addition = conditioning.addition;
        var step_time: time_embeddings.StepTime = undefined;
        try step_time.compute(ctx, c, embedding, net.projections, timestep, addition);
        defer step_time.free(b);
        const time = step_time.embedding();
        const prompt: unet_blocks.Prompt = .{
            .keys_values = conditioning.keys_values,
            .reuse = &everything,
        };
        var skips: unet_blocks.Skips = .{ .reuse = &everything };
        var hidden = try net.conv_in.forwardBetween(ctx, sample, halo, .{ .residual = hint });
        try skips.push(ctx, hidden);
        for (net.down_blocks) |block| {
            hidden = try block.forward(ctx, hidden, time, prompt, &skips, &.{});
        }
        // `hidden` is also the last skip.
        if (net.mid_block) |block| {
            const mid = try block.forward(ctx, hidden, time, prompt);
            try net.controlnet_mid_block.forwardInto(ctx, out.mid, mid);
            b.free(mid);
        } else try net.controlnet_mid_block.forwardInto(ctx, out.mid, hidden);
        assert(skips.count == out.downs.len);
        for (skips.list[0..skips.count], out.downs, net.controlnet_down_blocks) |x, y, layer| {
            try layer.forwardInto(ctx, y, x);
            b.free(x);
        }
    }

    /// Room for the residuals of a rank whose input is `sample`; their list is in `arena`.
    pub fn allocResiduals(
        net: *const ControlNet,
        arena: Allocator,
        b: Backend,
        sample: Shape,
    ) Error!Residuals {
        const dtype = b.activationType();
        const downs = try arena.alloc(Tensor, net.controlnet_down_blocks.len);
        var skips: SkipShapes = .{ .config = &net.config, .sample = sample };
        for (downs) |*down| down.* = try b.alloc(skips.next().?, dtype);
        // The last skip has the mid block's shape.
        const mid = try b.alloc(downs[downs.len - 1].shape, dtype);
        return .{ .downs = downs, .mid = mid };
    }
};

// --- internal ---

fn loadOutputs(
    arena: Allocator,
    view: View,
    config: *const ControlNetConfig,
) weights.Error![]layers.Linear {
    var outs: std.ArrayList(layers.Linear) = .empty;
    const any: Shape = .{ .batch = 1, .rows = 1 << 16, .width = 1 << 16, .channels = 1 };
    var skips: SkipShapes = .{ .config = config, .sample = any };
    while (skips.next()) |shape| {
        const at = try view.index("controlnet_down_blocks", outs.items.len);
        try outs.append(arena, try .load(at, shape.channels, shape.channels, .bias));
    }
    return outs.items;
}

/// The skip connections in their order: of conv_in, of each layer, of each downsampler.
const SkipShapes = struct {
    config: *const ControlNetConfig,
    /// The input on this rank.
    sample: Shape,
    level: u5 = 0,
    /// Of the level, so far.
    count: u32 = 0,

    fn next(skips: *SkipShapes) ?Shape {
        const c = &skips.config.unet;
        if (skips.count > c.layers_per_block[skips.level]) {
            skips.level += 1;
            skips.count = 0;
        }
        if (skips.level == c.level_count) return null;
        // The first of a level has come from the one above.
        const from = if (skips.count == 0) skips.level -| 1 else skips.level;
        skips.count += 1;
        var shape = skips.sample.withChannels(c.block_out_channels[from]);
        shape.rows >>= skips.level;
        shape.width >>= skips.level;
        return shape;
    }
};

/// ControlNetConditioningEmbedding: convolutions that halve the hint image to the latent's size.
const ConditioningEmbedding = struct {
    conv_in: layers.Conv3x3,
    blocks: []layers.Conv3x3,
    conv_out: layers.Conv3x3,

    fn load(
        arena: Allocator,
        view: View,
        config: *const ControlNetConfig,
    ) weights.Error!ConditioningEmbedding {
        const widths = config.embedding_channels[0..config.embedding_level_count];
        const conv_in: layers.Conv3x3 =
            try .load(try view.at("conv_in"), widths[0], config.conditioning_channels);
        const blocks = try arena.alloc(layers.Conv3x3, 2 * (widths.len - 1));
        for (blocks, 0..) |*block, i| {
            const in = widths[i / 2];
            const out = widths[(i + 1) / 2];
            block.* = try .load(try view.index("blocks", i), out, in);
        }
        const out = config.unet.block_out_channels[0];
        const conv_out: layers.Conv3x3 =
            try .load(try view.at("conv_out"), out, widths[widths.len - 1]);
        return .{ .conv_in = conv_in, .blocks = blocks, .conv_out = conv_out };
    }

    fn forward(embedding: ConditioningEmbedding, ctx: Context, image: Tensor) Error!Tensor {
        var hidden = try embedding.conv_in.forward(ctx, image, .{ .activation = .silu });
        for (embedding.blocks, 0..) |block, i| {
            const next = try block.forward(ctx, hidden, .{
                .stride = 1 + @as(u32, @intCast(i % 2)),
                .activation = .silu,
            });
            ctx.b.free(hidden);
            hidden = next;
        }
        defer ctx.b.free(hidden);
        return embedding.conv_out.forward(ctx, hidden, .{});
    }
};
