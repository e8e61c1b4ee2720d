//! CLIPEncoderLayer of transformers: the layer of CLIP's text encoders and image encoders.
//! Source: transformers models/clip/modeling_clip.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const HiddenAct = @import("config.zig").HiddenAct;

pub const Options = struct {
    hidden_size: u32,
    intermediate_size: u32,
    head_count: u32,
    hidden_act: HiddenAct,
    layer_norm_epsilon: f32,
    /// Text sees what is before it, images everything.
    mask: layers.Attention.Mask,
};

pub const EncoderLayer = struct {
    layer_norm1: layers.LayerNorm,
    self_attn: layers.Attention,
    layer_norm2: layers.LayerNorm,
    fc1: layers.Linear,
    fc2: layers.Linear,
    quick: bool,
    mask: layers.Attention.Mask,

    /// Those of an encoder, whose weights `view` has.
    pub fn loadAll(
        arena: Allocator,
        view: View,
        count: u32,
        o: Options,
    ) weights.Error![]EncoderLayer {
        const list = try arena.alloc(EncoderLayer, count);
        for (list, 0..) |*layer, i| layer.* = try .load(try view.index("encoder.layers", i), o);
        return list;
    }

    fn load(view: View, o: Options) weights.Error!EncoderLayer {
        const hidden = o.hidden_size;
        const inner = o.intermediate_size;
        const epsilon = o.layer_norm_epsilon;
        return .{
            .layer_norm1 = try .load(try view.at("layer_norm1"), hidden, epsilon),
            .self_attn = try .load(try view.at("self_attn"), .{
                .keys = layers.clip_keys,
                .channels = hidden,
                .context_channels = hidden,
                .head_count = o.head_count,
                .bias = .bias,
            }),
            .layer_norm2 = try .load(try view.at("layer_norm2"), hidden, epsilon),
            .fc1 = try .load(try view.at("mlp.fc1"), inner, hidden, .bias),
            .fc2 = try .load(try view.at("mlp.fc2"), hidden, inner, .bias),
            .quick = o.hidden_act == .quick_gelu,
            .mask = o.mask,
        };
    }

    /// One layer after the other; frees `x`.
    pub fn forwardAll(list: []const EncoderLayer, ctx: Context, x: Tensor) Error!Tensor {
        var hidden = x;
        for (list) |layer| {
            const next = try layer.forward(ctx, hidden);
            ctx.b.free(hidden);
            hidden = next;
        }
        return hidden;
    }

    pub fn forward(layer: EncoderLayer, ctx: Context, x: Tensor) Error!Tensor {
        const normed1 = try layer.layer_norm1.forward(ctx, x);
        const attended = try layer.self_attn.wholeAttention(ctx, normed1, layer.mask, x);
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
