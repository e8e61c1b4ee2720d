//! What a UNet, and each ControlNet beside it, reads of the prompts in every step, computed once
//! per prompt: the added time embedding, and keys and values of every cross-attention.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const Backend = @import("../backend.zig").Backend;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const TimestepEmbedding = @import("time_embedding.zig").TimestepEmbedding;
const Transformer2D = @import("transformer.zig").Transformer2D;
const UnetConfig = @import("config.zig").UnetConfig;
const unet_blocks = @import("unet_blocks.zig");

/// Inputs of every step that depend only on the prompt and the time ids.
pub const Conditioning = struct {
    /// Embedding of pooled prompt and time ids, (batch, 1, 1, time_embed_dim).
    addition: Tensor,
    /// Keys and values of every cross-attention, (batch, 1, tokens, 2 * channels).
    keys_values: []layers.Sequences,
    /// Of the UNet's conditioning: those of the ControlNets beside it, by the job's uses.
    controls: []?Conditioning = &.{},
    /// Likewise: keys and values of what the IP-Adapters see, by use and cross-attention; the same
    /// in all sets of prompts, so that `free` leaves them.
    images: []const []const Tensor = &.{},

    pub fn free(conditioning: Conditioning, b: Backend) void {
        for (conditioning.keys_values) |sequences| {
            b.free(sequences.first);
            if (sequences.second) |second| b.free(second);
        }
        b.free(conditioning.addition);
        for (conditioning.controls) |maybe| if (maybe) |each| each.free(b);
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
        const controls = try arena.alloc(?Conditioning, conditioning.controls.len);
        for (controls, conditioning.controls) |*some, maybe| {
            some.* = if (maybe) |all| try all.ofBatch(arena, first, count) else null;
        }
        const images = try arena.alloc([]const Tensor, conditioning.images.len);
        for (images, conditioning.images) |*some, all| {
            const tensors = try arena.alloc(Tensor, all.len);
            for (tensors, all) |*tensor, whole| tensor.* = whole.batchSlice(first, count);
            some.* = tensors;
        }
        return .{
            .addition = conditioning.addition.batchSlice(first, count),
            .keys_values = keys_values,
            .controls = controls,
            .images = images,
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

/// What the text stage gives for the prompts of a batch.
pub const PromptInputs = struct {
    /// (batch, 1, tokens, cross_attention_dim)
    embeds: layers.Sequences,
    /// (batch, 1, 1, projection_size)
    pooled: Tensor,
    /// diffusers' add_time_ids, (batch * time_id_count, 1, 1, 1).
    time_ids: Tensor,
};

/// What a UNet or a ControlNet reads of a prompt. `add_embedding` and `blocks` are that network's;
/// `keys_values` has room for every cross-attention.
pub fn ofBlocks(
    ctx: Context,
    config: *const UnetConfig,
    add_embedding: TimestepEmbedding,
    blocks: Blocks,
    inputs: PromptInputs,
    keys_values: []layers.Sequences,
) Error!Conditioning {
    const addition = try embedAddition(ctx, config, add_embedding, inputs);
    const embeds = inputs.embeds;
    for (blocks.downs) |block| try blockKeysValues(ctx, block.attentions, embeds, keys_values);
    if (blocks.mid) |mid| try blockKeysValues(ctx, mid.attentions(), embeds, keys_values);
    for (blocks.ups) |block| try blockKeysValues(ctx, block.attentions, embeds, keys_values);
    return .{ .addition = addition, .keys_values = keys_values };
}

pub const Blocks = struct {
    downs: []const unet_blocks.DownBlock,
    mid: ?unet_blocks.MidBlock,
    ups: []const unet_blocks.UpBlock = &.{},
};

// --- internal ---

/// The embedding of pooled prompt and time ids.
fn embedAddition(
    ctx: Context,
    config: *const UnetConfig,
    add_embedding: TimestepEmbedding,
    inputs: PromptInputs,
) Error!Tensor {
    const batch = inputs.pooled.shape.batch;
    const dim = config.addition_time_embed_dim;
    const sines = try ctx.b.sinusoidalEmbedding(
        inputs.time_ids,
        dim,
        config.flip_sin_to_cos != 0,
        config.frequency_shift,
    );
    defer ctx.b.free(sines);
    // The same memory: (batch * time_id_count, 1, 1, dim), (batch, 1, 1, time_id_count * dim).
    const embedded: Tensor = .{
        .address = sines.address,
        .shape = .vector(batch, config.time_id_count * dim),
        .dtype = sines.dtype,
    };
    const joined = try ctx.b.concatChannels(&.{ inputs.pooled, embedded });
    defer ctx.b.free(joined);
    return add_embedding.forward(ctx, joined);
}

/// Keys and values of the cross-attentions of a block, each at its number in `keys_values`.
fn blockKeysValues(
    ctx: Context,
    attentions: []const Transformer2D,
    embeds: layers.Sequences,
    keys_values: []layers.Sequences,
) Error!void {
    for (attentions) |transformer| for (transformer.transformer_blocks) |block| {
        const attention = block.attn2;
        keys_values[block.context_slot] = .{
            .first = try attention.keysValues(ctx, embeds.first),
            .second = if (embeds.second) |second|
                try attention.keysValues(ctx, second)
            else
                null,
        };
    };
}
