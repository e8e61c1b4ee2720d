//! CLIPVisionModelWithProjection of transformers: what IP-Adapters see of an image. The plain ones
//! read its projected embedding, the plus ones the penultimate states of all positions.
//! Source: transformers models/clip/modeling_clip.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const Weight = weights.Weight;
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const EncoderLayer = @import("clip_layer.zig").EncoderLayer;
const ClipVisionConfig = @import("config.zig").ClipVisionConfig;

pub const ClipVisionModel = struct {
    config: ClipVisionConfig,
    class_embedding: *const Weight,
    patch_embedding: layers.Linear,
    position_embedding: *const Weight,
    /// transformers' spelling.
    pre_layrnorm: layers.LayerNorm,
    encoder_layers: []EncoderLayer,
    post_layernorm: layers.LayerNorm,
    visual_projection: layers.Linear,
    /// Of the class, which is the one word of the vocabulary, and of patches, which are beyond it.
    ids: []const i32,

    pub fn load(
        arena: Allocator,
        root: View,
        config: *const ClipVisionConfig,
    ) weights.Error!ClipVisionModel {
        const hidden = config.hidden_size;
        const epsilon = config.layer_norm_epsilon;
        const view = try root.at("vision_model");
        const embeddings = try view.at("embeddings");
        const list = try EncoderLayer.loadAll(arena, view, config.layer_count, .{
            .hidden_size = hidden,
            .intermediate_size = config.intermediate_size,
            .head_count = config.head_count,
            .hidden_act = config.hidden_act,
            .layer_norm_epsilon = epsilon,
            .mask = .none,
        });
        const patch_weight = "patch_embedding.weight";
        const patches = try embeddings.patchMatrix(patch_weight, hidden, 3, config.patch_size);
        const positions = 1 + config.patchCount();
        const ids = try arena.alloc(i32, positions);
        @memset(ids, 1);
        ids[0] = 0;
        return .{
            .config = config.*,
            .ids = ids,
            .class_embedding = try embeddings.tableOf("class_embedding", 1, hidden, &.{hidden}),
            .patch_embedding = .{ .weight = patches, .bias = null },
            .position_embedding = try embeddings.table(
                "position_embedding.weight",
                positions,
                hidden,
            ),
            .pre_layrnorm = try .load(try view.at("pre_layrnorm"), hidden, epsilon),
            .encoder_layers = list,
            .post_layernorm = try .load(try view.at("post_layernorm"), hidden, epsilon),
            .visual_projection = try .load(
                try root.at("visual_projection"),
                config.projection_size,
                hidden,
                .no_bias,
            ),
        };
    }

    /// Of an image's normalised pixels: patches, of each its channels one after the other.
    pub fn patchShape(model: *const ClipVisionModel) Shape {
        const c = &model.config;
        return .tokens(1, c.patchCount(), c.patchValues());
    }

    /// transformers' hidden_states[-2] of `patches`: (1, 1, 1 + patches, hidden_size).
    pub fn penultimateState(
        model: *const ClipVisionModel,
        ctx: Context,
        patches: Tensor,
    ) Error!Tensor {
        return model.hiddenState(ctx, patches, model.encoder_layers.len - 1);
    }

    /// transformers' image_embeds, (1, 1, 1, projection_size).
    pub fn imageEmbeds(model: *const ClipVisionModel, ctx: Context, patches: Tensor) Error!Tensor {
        const b = ctx.b;
        const last = try model.hiddenState(ctx, patches, model.encoder_layers.len);
        defer b.free(last);
        const class = try b.alloc(.vector(last.shape.batch, last.shape.channels), last.dtype);
        defer b.free(class);
        try b.copyRows(class, 0, asRows(last), 0, 1);
        const normed = try model.post_layernorm.forward(ctx, class);
        defer b.free(normed);
        return model.visual_projection.forward(ctx, normed, .{});
    }

    // --- internal ---

    fn hiddenState(
        model: *const ClipVisionModel,
        ctx: Context,
        patches: Tensor,
        layer_count: usize,
    ) Error!Tensor {
        const embedded = try model.embed(ctx, patches);
        const normed = try model.pre_layrnorm.forward(ctx, embedded);
        ctx.b.free(embedded);
        return EncoderLayer.forwardAll(model.encoder_layers[0..layer_count], ctx, normed);
    }

    /// The class embedding, then the patches, each with the embedding of its position.
    fn embed(model: *const ClipVisionModel, ctx: Context, patches: Tensor) Error!Tensor {
        const b = ctx.b;
        const embedded = try model.patch_embedding.forward(ctx, patches, .{});
        defer b.free(embedded);
        const positions: u32 = @intCast(model.ids.len);
        const shape: Shape = .tokens(1, positions, model.config.hidden_size);
        const placed = try b.alloc(shape, b.activationType());
        defer b.free(placed);
        try b.copyRows(asRows(placed), 1, asRows(embedded), 0, positions - 1);
        const ids = try b.upload(shape.withChannels(1), .i32, std.mem.sliceAsBytes(model.ids));
        defer b.free(ids);
        return b.embedTokens(ids, model.class_embedding, model.position_embedding, placed);
    }
};

// --- internal ---

/// Tokens as rows of one position.
fn asRows(x: Tensor) Tensor {
    var rows = x;
    rows.shape.rows = x.shape.width;
    rows.shape.width = 1;
    return rows;
}
