//! A CLIP text encoder. SDXL reads the penultimate hidden states of both encoders, without the
//! final norm, and from the second also the pooled, projected state of the end-of-text token.
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

pub const ClipTextModel = struct {
    token_embedding: *const Weight,
    position_embedding: *const Weight,
    encoder_layers: []EncoderLayer,
    final_layer_norm: layers.LayerNorm,
    text_projection: ?layers.Linear,

    /// Files written by transformers 5 leave out the "text_model." in front of the keys.
    pub fn load(
        arena: Allocator,
        root: View,
        config: *const ClipConfig,
    ) weights.Error!ClipTextModel {
        const prefixed = try root.has("text_model.embeddings.token_embedding.weight");
        const view = if (prefixed) try root.at("text_model") else root;
        const hidden = config.hidden_size;
        const list = try arena.alloc(EncoderLayer, config.layer_count);
        for (list, 0..) |*layer, i| {
            layer.* = try .load(try view.index("encoder.layers", i), config);
        }
        const embeddings = try view.at("embeddings");
        return .{
            .token_embedding = try embeddings.matrix(
                "token_embedding.weight",
                config.vocab_size,
                hidden,
            ),
            .position_embedding = try embeddings.matrix(
                "position_embedding.weight",
                config.position_count,
                hidden,
            ),
            .encoder_layers = list,
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

    /// ids (batch, 1, tokens, 1) to the input of the last layer, (batch, 1, tokens, hidden).
    pub fn penultimate(model: ClipTextModel, ctx: Context, ids: Tensor) Error!Tensor {
        var hidden = try ctx.b.embedTokens(ids, model.token_embedding, model.position_embedding);
        for (model.encoder_layers[0 .. model.encoder_layers.len - 1]) |layer| {
            const next = try layer.forward(ctx, hidden);
            ctx.b.free(hidden);
            hidden = next;
        }
        return hidden;
    }

    /// The projected state of the token at `end_indices` (batch, 1, 1, 1) in each batch element,
    /// from what `penultimate` gave: (batch, 1, 1, projection).
    pub fn pooled(
        model: ClipTextModel,
        ctx: Context,
        penultimate_hidden: Tensor,
        end_indices: Tensor,
    ) Error!Tensor {
        const last = model.encoder_layers[model.encoder_layers.len - 1];
        const hidden = try last.forward(ctx, penultimate_hidden);
        const normed = try model.final_layer_norm.forward(ctx, hidden);
        ctx.b.free(hidden);
        const ends = try ctx.b.gatherTokens(normed, end_indices);
        ctx.b.free(normed);
        defer ctx.b.free(ends);
        return model.text_projection.?.forward(ctx, ends, .{});
    }
};

const EncoderLayer = struct {
    layer_norm1: layers.LayerNorm,
    self_attn: layers.Attention,
    layer_norm2: layers.LayerNorm,
    fc1: layers.Linear,
    fc2: layers.Linear,
    quick: bool,

    fn load(view: View, config: *const ClipConfig) weights.Error!EncoderLayer {
        const hidden = config.hidden_size;
        const inner = config.intermediate_size;
        const epsilon = config.layer_norm_epsilon;
        return .{
            .layer_norm1 = try .load(try view.at("layer_norm1"), hidden, epsilon),
            .self_attn = try .load(try view.at("self_attn"), .{
                .keys = layers.clip_keys,
                .channels = hidden,
                .context_channels = hidden,
                .head_count = config.head_count,
                .bias = .bias,
            }),
            .layer_norm2 = try .load(try view.at("layer_norm2"), hidden, epsilon),
            .fc1 = try .load(try view.at("mlp.fc1"), inner, hidden, .bias),
            .fc2 = try .load(try view.at("mlp.fc2"), hidden, inner, .bias),
            .quick = config.hidden_act == .quick_gelu,
        };
    }

    fn forward(layer: EncoderLayer, ctx: Context, x: Tensor) Error!Tensor {
        const normed1 = try layer.layer_norm1.forward(ctx, x);
        const attended = try layer.self_attn.causalAttention(ctx, normed1, x);
        ctx.b.free(normed1);
        defer ctx.b.free(attended);
        const normed2 = try layer.layer_norm2.forward(ctx, attended);
        const inner = try layer.fc1.forward(ctx, normed2, .{
            .activation = if (layer.quick) .quick_gelu else .gelu,
        });
        ctx.b.free(normed2);
        defer ctx.b.free(inner);
        return layer.fc2.forward(ctx, inner, .{ .residual = attended });
    }
};
