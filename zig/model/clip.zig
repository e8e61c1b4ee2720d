//! A CLIP text encoder. The config names the hidden state that the UNet reads: for SDXL the
//! penultimate one of each encoder, without the final norm. One encoder also returns the pooled
//! output: the projected state of the end-of-text token.
//! Source: transformers models/clip/modeling_clip.py; diffusers pipeline_stable_diffusion_xl.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const Weight = weights.Weight;
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const ClipConfig = @import("config.zig").ClipConfig;
const EncoderLayer = @import("clip_layer.zig").EncoderLayer;

pub const ClipTextModel = struct {
    token_embedding: *const Weight,
    position_embedding: *const Weight,
    encoder_layers: []EncoderLayer,
    final_layer_norm: layers.LayerNorm,
    text_projection: ?layers.Linear,
    /// Layers up to the hidden state that the UNet reads: all, or all but the last.
    hidden_layer_count: u32,
    /// Whether that state passes through the final norm.
    final_norm: bool,

    /// Keys have the prefix "text_model.", except in files written by transformers 5.
    pub fn load(
        arena: Allocator,
        root: View,
        config: *const ClipConfig,
    ) weights.Error!ClipTextModel {
        const prefixed = try root.has("text_model.embeddings.token_embedding.weight");
        const view = if (prefixed) try root.at("text_model") else root;
        const hidden = config.hidden_size;
        const list = try EncoderLayer.loadAll(arena, view, config.layer_count, .{
            .hidden_size = hidden,
            .intermediate_size = config.intermediate_size,
            .head_count = config.head_count,
            .hidden_act = config.hidden_act,
            .layer_norm_epsilon = config.layer_norm_epsilon,
            .mask = .causal,
        });
        const embeddings = try view.at("embeddings");
        return .{
            .token_embedding = try embeddings.table(
                "token_embedding.weight",
                config.vocab_size,
                hidden,
            ),
            .position_embedding = try embeddings.table(
                "position_embedding.weight",
                config.position_count,
                hidden,
            ),
            .encoder_layers = list,
            .hidden_layer_count = switch (config.hidden_state) {
                .penultimate => config.layer_count - 1,
                .last => config.layer_count,
            },
            .final_norm = config.final_norm != 0,
            .final_layer_norm = try .load(
                try view.at("final_layer_norm"),
                hidden,
                config.layer_norm_epsilon,
            ),
            .text_projection = if (config.projection_size == 0)
                null
            else
                try .load(try root.at("text_projection"), config.projection_size, hidden, .no_bias),
        };
    }

    /// Maps `ids` (batch, 1, tokens, 1) to the hidden state that the UNet reads,
    /// (batch, 1, tokens, hidden_size). `injected`, of that shape, has the embeddings of ids beyond
    /// the vocabulary, each at its position. `clip_skip`: layers left out before that state, as
    /// diffusers counts.
    pub fn hiddenState(
        model: ClipTextModel,
        ctx: Context,
        ids: Tensor,
        injected: ?Tensor,
        clip_skip: u32,
    ) Error!Tensor {
        const embedded = try ctx.b.embedTokens(
            ids,
            model.token_embedding,
            model.position_embedding,
            injected,
        );
        const read = model.encoder_layers[0 .. model.hidden_layer_count - clip_skip];
        const hidden = try EncoderLayer.forwardAll(read, ctx, embedded);
        if (!model.final_norm) return hidden;
        defer ctx.b.free(hidden);
        return model.final_layer_norm.forward(ctx, hidden);
    }

    /// The projected state of the end-of-text token, (batch, 1, 1, projection_size).
    /// `hidden_state` is the result of `hiddenState`; `end_indices` (batch, 1, 1, 1) are the
    /// tokens' positions.
    pub fn pooled(
        model: ClipTextModel,
        ctx: Context,
        hidden_state: Tensor,
        end_indices: Tensor,
        clip_skip: u32,
    ) Error!Tensor {
        const ends = ends: {
            if (model.final_norm) break :ends try ctx.b.gatherTokens(hidden_state, end_indices);
            var hidden = hidden_state;
            for (model.encoder_layers[model.hidden_layer_count - clip_skip ..]) |layer| {
                const next = try layer.forward(ctx, hidden);
                if (hidden.address != hidden_state.address) ctx.b.free(hidden);
                hidden = next;
            }
            const normed = try model.final_layer_norm.forward(ctx, hidden);
            if (hidden.address != hidden_state.address) ctx.b.free(hidden);
            defer ctx.b.free(normed);
            break :ends try ctx.b.gatherTokens(normed, end_indices);
        };
        defer ctx.b.free(ends);
        return model.text_projection.?.forward(ctx, ends, .{});
    }
};
