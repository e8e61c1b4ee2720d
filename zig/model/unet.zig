//! UNet2DConditionModel as SDXL configures it ("text_time" conditioning). `forward` follows
//! diffusers' forward; `condition` computes once what depends only on the prompt.
//! Source: diffusers models/unets/unet_2d_condition.py, unet_2d_blocks.py.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const Backend = @import("../backend.zig").Backend;
const Exchange = @import("../patch/exchange.zig").Exchange;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const UnetConfig = @import("config.zig").UnetConfig;
const unet_blocks = @import("unet_blocks.zig");
const DownBlock = unet_blocks.DownBlock;
const MidBlock = unet_blocks.MidBlock;
const Skips = unet_blocks.Skips;
const UpBlock = unet_blocks.UpBlock;
const reuses = @import("reuse.zig");
pub const Reuse = reuses.Reuse;
const Additions = @import("additions.zig").Additions;
const conditionings = @import("conditioning.zig");
const Conditioning = conditionings.Conditioning;
const time_embeddings = @import("time_embedding.zig");
const Projections = time_embeddings.Projections;
const StepTime = time_embeddings.StepTime;
const TimestepEmbedding = time_embeddings.TimestepEmbedding;
const transformers = @import("transformer.zig");

pub const UNet = struct {
    config: UnetConfig,
    conv_in: layers.Conv3x3,
    time_embedding: TimestepEmbedding,
    add_embedding: TimestepEmbedding,
    down_blocks: []DownBlock,
    mid_block: ?MidBlock,
    up_blocks: []UpBlock,
    conv_norm_out: layers.GroupNorm,
    conv_out: layers.Conv3x3,
    context_slot_count: u32,
    projections: Projections,
    /// Calls of `forward` over the dry-run device; tests assert that plans are reused.
    dry_run_count: *std.atomic.Value(u32),

    pub fn load(arena: Allocator, view: View, config: *const UnetConfig) weights.Error!UNet {
        var slots: transformers.ContextSlots = .{};
        const dry_run_count = try arena.create(std.atomic.Value(u32));
        dry_run_count.* = .init(0);
        const loader: unet_blocks.Loader = .{ .arena = arena, .config = config, .slots = &slots };
        const levels = config.level_count;
        const first = config.block_out_channels[0];
        const embed = config.timeEmbedDim();
        const down_blocks = try arena.alloc(DownBlock, levels);
        for (down_blocks, 0..) |*block, i| {
            block.* = try loader.downBlock(try view.index("down_blocks", i), i);
        }
        var mid_block = try loader.midBlock(view);
        const up_blocks = try arena.alloc(UpBlock, levels);
        for (up_blocks, 0..) |*block, i| {
            block.* = try loader.upBlock(try view.index("up_blocks", i), i);
        }
        const mid = if (mid_block) |*block| block else null;
        return .{
            .config = config.*,
            .projections = try .list(arena, down_blocks, mid, up_blocks),
            .conv_in = try .load(try view.at("conv_in"), first, config.in_channels),
            .time_embedding = try .load(try view.at("time_embedding"), embed, first),
            .add_embedding = try .load(
                try view.at("add_embedding"),
                embed,
                config.addition_input_dim,
            ),
            .down_blocks = down_blocks,
            .mid_block = mid_block,
            .up_blocks = up_blocks,
            .conv_norm_out = try .load(
                try view.at("conv_norm_out"),
                first,
                config.norm_groups,
                config.norm_epsilon,
            ),
            .conv_out = try .load(try view.at("conv_out"), config.out_channels, first),
            .context_slot_count = slots.count,
            .dry_run_count = dry_run_count,
        };
    }

    /// Computes the conditioning, once per prompt. `keys_values` has room for
    /// `context_slot_count` tensors.
    pub fn condition(
        model: *const UNet,
        ctx: Context,
        inputs: conditionings.PromptInputs,
        keys_values: []layers.Sequences,
    ) Error!Conditioning {
        assert(keys_values.len == model.context_slot_count);
        const blocks: conditionings.Blocks = .{
            .downs = model.down_blocks,
            .mid = model.mid_block,
            .ups = model.up_blocks,
        };
        const c = &model.config;
        return conditionings.ofBlocks(ctx, c, model.add_embedding, blocks, inputs, keys_values);
    }

    /// Maps `sample` (batch, rows, width, in_channels) and `timestep` (batch, 1, 1, 1) to the model
    /// output (batch, rows, width, out_channels). `halo` are the rows above and below the sample:
    /// every rank keeps the whole latent, so conv_in needs no exchange. `additions` are those of
    /// networks beside the UNet; `reuse` says what is taken from an earlier step.
    pub fn forward(
        model: *const UNet,
        ctx: Context,
        sample: Tensor,
        halo: Exchange.HaloRows,
        timestep: Tensor,
        conditioning: Conditioning,
        additions: Additions,
        reuse: *const Reuse,
    ) Error!Tensor {
        if (ctx.b.device == .plan) _ = model.dry_run_count.fetchAdd(1, .monotonic);
        var step_time: StepTime = undefined;
        const embedding = model.time_embedding;
        const projections = model.projections;
        const addition = conditioning.addition;
        const c = &model.config;
        try step_time.compute(ctx, c, embedding, projections, timestep, addition);
        defer step_time.free(ctx.b);
        const time = step_time.embedding();
        const prompt: unet_blocks.Prompt = .{
            .keys_values = conditioning.keys_values,
            .images = conditioning.images,
            .reuse = reuse,
        };
        var skips: Skips = .{ .reuse = reuse };
        var hidden = try model.conv_in.forwardBetween(ctx, sample, halo, .{});
        try skips.push(ctx, hidden);
        for (model.down_blocks, 0..) |block, i| {
            const features = additions.featuresAt(i);
            hidden = try block.forward(ctx, hidden, time, prompt, &skips, features);
        }
        var up: ?Tensor = null;
        if (reuse.deep == .reuse) {
            skips.left_out = reuses.skipCount(&model.config) - skips.count;
            try additions.addToSkips(ctx, &skips);
        } else {
            // `hidden` is also the last skip: the mid block must not free it.
            if (model.mid_block) |block| {
                hidden = try block.forward(ctx, hidden, time, prompt);
                const features = additions.featuresAt(model.down_blocks.len);
                try unet_blocks.addAll(ctx, hidden, features);
            } else if (additions.residuals.len > 0) {
                const own = try ctx.b.alloc(hidden.shape, hidden.dtype);
                try ctx.b.copy(own, hidden);
                hidden = own;
            }
            try additions.addToSkips(ctx, &skips);
            try additions.addToMid(ctx, hidden);
            up = hidden;
        }
        for (model.up_blocks) |block| up = try block.forward(ctx, up, time, prompt, &skips);
        assert(skips.count == 0);
        hidden = up.?;
        const normed = try model.conv_norm_out.forward(ctx, hidden, .silu);
        ctx.b.free(hidden);
        defer ctx.b.free(normed);
        return model.conv_out.forward(ctx, normed, .{});
    }
};
