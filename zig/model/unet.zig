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
const resnets = @import("resnet.zig");
const reuses = @import("reuse.zig");
pub const Reuse = reuses.Reuse;
const transformers = @import("transformer.zig");
const Transformer2D = transformers.Transformer2D;

/// Inputs of every step that depend only on the prompt and the time ids.
pub const Conditioning = struct {
    /// Embedding of pooled prompt and time ids, (batch, 1, 1, time_embed_dim).
    addition: Tensor,
    /// Keys and values of every cross-attention, (batch, 1, tokens, 2 * channels).
    keys_values: []layers.Sequences,

    pub fn free(conditioning: Conditioning, b: Backend) void {
        for (conditioning.keys_values) |sequences| {
            b.free(sequences.first);
            if (sequences.second) |second| b.free(second);
        }
        b.free(conditioning.addition);
    }

    /// That of some elements of the batch, in the same memory; its list is in `arena`.
    pub fn ofBatch(
        conditioning: Conditioning,
        arena: Allocator,
        first: u32,
        count: u32,
    ) Allocator.Error!Conditioning {
        const keys_values = try arena.alloc(layers.Sequences, conditioning.keys_values.len);
        for (keys_values, conditioning.keys_values) |*some, all| some.* = all.ofBatch(first, count);
        return .{
            .addition = conditioning.addition.batchSlice(first, count),
            .keys_values = keys_values,
        };
    }

    /// Tokens that each part of the batch attends to; the second is 0 where all have the first.
    pub fn tokenCounts(conditioning: Conditioning) [2]u32 {
        if (conditioning.keys_values.len == 0) return .{ 0, 0 };
        const sequences = conditioning.keys_values[0];
        const second = if (sequences.second) |second| second.shape.width else 0;
        return .{ sequences.first.shape.width, second };
    }
};

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
    /// Of the time embedding in every resnet.
    projection_weights: []const *const weights.Weight,
    projection_biases: []const *const weights.Weight,
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
        const projections = try listProjections(arena, down_blocks, mid, up_blocks);
        return .{
            .config = config.*,
            .projection_weights = projections.weights,
            .projection_biases = projections.biases,
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

    /// Computes the conditioning, once per prompt. `prompt_embeds` are (batch, 1, tokens,
    /// cross_attention_dim), `pooled` (batch, 1, 1, projection_size), `time_ids` (diffusers'
    /// add_time_ids) (batch * time_id_count, 1, 1, 1). `keys_values` has room for
    /// `context_slot_count` tensors.
    pub fn condition(
        model: *const UNet,
        ctx: Context,
        prompt_embeds: layers.Sequences,
        pooled: Tensor,
        time_ids: Tensor,
        keys_values: []layers.Sequences,
    ) Error!Conditioning {
        assert(keys_values.len == model.context_slot_count);
        const batch = pooled.shape.batch;
        const c = &model.config;
        const dim = c.addition_time_embed_dim;
        const sines = try ctx.b.sinusoidalEmbedding(
            time_ids,
            dim,
            c.flip_sin_to_cos != 0,
            c.frequency_shift,
        );
        defer ctx.b.free(sines);
        // The same memory: (batch * time_id_count, 1, 1, dim), (batch, 1, 1, time_id_count * dim).
        const embedded: Tensor = .{
            .address = sines.address,
            .shape = .vector(batch, c.time_id_count * dim),
            .dtype = sines.dtype,
        };
        const joined = try ctx.b.concatChannels(&.{ pooled, embedded });
        const addition = try model.add_embedding.forward(ctx, joined);
        ctx.b.free(joined);
        for (model.down_blocks) |block| {
            for (block.attentions) |attention| {
                try promptKeysValues(ctx, attention, prompt_embeds, keys_values);
            }
        }
        if (model.mid_block) |mid| if (mid.attended) |block| {
            try promptKeysValues(ctx, block.attention, prompt_embeds, keys_values);
        };
        for (model.up_blocks) |block| {
            for (block.attentions) |attention| {
                try promptKeysValues(ctx, attention, prompt_embeds, keys_values);
            }
        }
        return .{ .addition = addition, .keys_values = keys_values };
    }

    /// Maps `sample` (batch, rows, width, in_channels) and `timestep` (batch, 1, 1, 1) to the model
    /// output (batch, rows, width, out_channels). `halo` are the rows above and below the sample:
    /// every rank keeps the whole latent, so conv_in needs no exchange. `reuse` says what is taken
    /// from an earlier step.
    pub fn forward(
        model: *const UNet,
        ctx: Context,
        sample: Tensor,
        halo: Exchange.HaloRows,
        timestep: Tensor,
        conditioning: Conditioning,
        reuse: *const Reuse,
    ) Error!Tensor {
        if (ctx.b.device == .plan) _ = model.dry_run_count.fetchAdd(1, .monotonic);
        const vector = try model.embedTime(ctx, timestep, conditioning.addition);
        defer ctx.b.free(vector);
        var projected: [projection_count_max]Tensor = undefined;
        var time: resnets.TimeEmbedding = .{ .vector = vector };
        var memory: ?Tensor = null;
        defer if (memory) |tensor| ctx.b.free(tensor);
        const count = model.projection_weights.len;
        if (count <= projected.len and ctx.b.areRowsOneKernel(model.projection_weights)) {
            time.projected = projected[0..count];
            memory = try ctx.b.linearRows(
                projected[0..count],
                vector,
                model.projection_weights,
                model.projection_biases,
            );
        }
        const prompt: unet_blocks.Prompt = .{
            .keys_values = conditioning.keys_values,
            .reuse = reuse,
        };
        var skips: Skips = .{ .reuse = reuse };
        var hidden = try model.conv_in.forwardBetween(ctx, sample, halo, .{});
        try skips.push(ctx, hidden);
        for (model.down_blocks) |block| {
            hidden = try block.forward(ctx, hidden, time, prompt, &skips);
        }
        var up: ?Tensor = null;
        if (reuse.deep == .reuse) {
            skips.left_out = reuses.skipCount(&model.config) - skips.count;
        } else {
            // `hidden` is also the last skip: the mid block must not free it.
            if (model.mid_block) |block| hidden = try block.forward(ctx, hidden, time, prompt);
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

    // --- internal ---

    /// Time embedding after SiLU, (batch, 1, 1, time_embed_dim): applied once here instead of in
    /// every resnet.
    fn embedTime(
        model: *const UNet,
        ctx: Context,
        timestep: Tensor,
        addition: Tensor,
    ) Error!Tensor {
        const c = &model.config;
        const sines = try ctx.b.sinusoidalEmbedding(
            timestep,
            c.block_out_channels[0],
            c.flip_sin_to_cos != 0,
            c.frequency_shift,
        );
        const time = try model.time_embedding.forward(ctx, sines);
        ctx.b.free(sines);
        const sum = try ctx.b.add(time, addition);
        ctx.b.free(time);
        defer ctx.b.free(sum);
        return ctx.b.activate(sum, .silu);
    }
};

/// Of one `linearRows`; a UNet of more projects in each resnet.
const projection_count_max = 32;

const Projections = struct {
    weights: []const *const weights.Weight,
    biases: []const *const weights.Weight,
};

/// Numbers the resnets, and lists their layers for the time embedding in that order.
fn listProjections(
    arena: Allocator,
    down_blocks: []DownBlock,
    mid_block: ?*MidBlock,
    up_blocks: []UpBlock,
) Allocator.Error!Projections {
    var all: std.ArrayList(*resnets.ResnetBlock2D) = .empty;
    for (down_blocks) |block| for (block.resnets) |*resnet| try all.append(arena, resnet);
    if (mid_block) |block| {
        try all.append(arena, &block.resnet_0);
        if (block.attended) |*rest| try all.append(arena, &rest.resnet_1);
    }
    for (up_blocks) |block| for (block.resnets) |*resnet| try all.append(arena, resnet);
    const matrices = try arena.alloc(*const weights.Weight, all.items.len);
    const biases = try arena.alloc(*const weights.Weight, all.items.len);
    for (all.items, matrices, biases, 0..) |resnet, *matrix, *bias, i| {
        resnet.embedding_index = @intCast(i);
        matrix.* = resnet.time_emb_proj.?.weight;
        bias.* = resnet.time_emb_proj.?.bias.?;
    }
    return .{ .weights = matrices, .biases = biases };
}

/// Two linear layers with SiLU between them.
pub const TimestepEmbedding = struct {
    linear_1: layers.Linear,
    linear_2: layers.Linear,

    pub fn load(view: View, out: u32, in: u32) weights.Error!TimestepEmbedding {
        return .{
            .linear_1 = try .load(try view.at("linear_1"), out, in, .bias),
            .linear_2 = try .load(try view.at("linear_2"), out, out, .bias),
        };
    }

    pub fn forward(embedding: TimestepEmbedding, ctx: Context, x: Tensor) Error!Tensor {
        const hidden = try embedding.linear_1.forward(ctx, x, .{ .activation = .silu });
        defer ctx.b.free(hidden);
        return embedding.linear_2.forward(ctx, hidden, .{});
    }
};

fn promptKeysValues(
    ctx: Context,
    transformer: Transformer2D,
    prompt_embeds: layers.Sequences,
    keys_values: []layers.Sequences,
) Error!void {
    for (transformer.transformer_blocks) |block| {
        const attention = block.attn2;
        keys_values[block.context_slot] = .{
            .first = try attention.keysValues(ctx, prompt_embeds.first),
            .second = if (prompt_embeds.second) |second|
                try attention.keysValues(ctx, second)
            else
                null,
        };
    }
}
