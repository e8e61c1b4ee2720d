//! What a union ControlNet (xinsir's, promax) has for the types of its hints: an embedding beside
//! the time's, and a transformer over the mean features of hints and latent, which shifts theirs.
//!
//! diffusers hands that transformer (batch, tokens, channels) as (tokens, batch, channels): each
//! token attends to itself in the other elements of the batch. The hint's is the same in all of
//! them, so that its attention is its own value, and nothing of it depends on the step.
//! Source: diffusers models/controlnets/controlnet_union.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const ControlNetConfig = @import("config.zig").ControlNetConfig;
const TimestepEmbedding = @import("time_embedding.zig").TimestepEmbedding;

const norm_epsilon = 1e-5;

/// The types of the hints that a union model reads at once.
pub const ControlTypes = std.StaticBitSet(type_count_max);

pub const ControlNetUnion = struct {
    control_add_embedding: TimestepEmbedding,
    /// (types, channels), added on the host.
    task_embedding: *const weights.Weight,
    transformer_layes: []ResidualAttentionBlock,
    spatial_ch_projs: layers.Linear,

    /// `view` is that of the whole network.
    pub fn load(
        arena: Allocator,
        view: View,
        config: *const ControlNetConfig,
    ) weights.Error!ControlNetUnion {
        const unet = &config.unet;
        const channels = unet.block_out_channels[0];
        const types = config.control_type_count;
        const list = try arena.alloc(ResidualAttentionBlock, config.type_layer_count);
        for (list, 0..) |*block, i| {
            block.* = try .load(try view.index("transformer_layes", i), channels);
        }
        return .{
            .control_add_embedding = try .load(
                try view.at("control_add_embedding"),
                unet.timeEmbedDim(),
                unet.addition_time_embed_dim * types,
            ),
            .task_embedding = try view.table("task_embedding", types, channels),
            .transformer_layes = list,
            .spatial_ch_projs = try .load(
                try view.at("spatial_ch_projs"),
                channels,
                channels,
                .bias,
            ),
        };
    }

    /// The embedding of the types of all hints, (batch, 1, 1, time_embed_dim).
    pub fn embedTypes(
        types: *const ControlNetUnion,
        ctx: Context,
        config: *const ControlNetConfig,
        control_types: ControlTypes,
        batch: u32,
    ) Error!Tensor {
        const b = ctx.b;
        const unet = &config.unet;
        const count = config.control_type_count;
        var hot: [type_count_max]f32 = @splat(0);
        var present = control_types.iterator(.{});
        while (present.next()) |control_type| hot[control_type] = 1;
        const values = std.mem.sliceAsBytes(hot[0..count]);
        const uploaded = try b.upload(.vector(count, 1), .f32, values);
        defer b.free(uploaded);
        const dim = unet.addition_time_embed_dim;
        const sines = try b.sinusoidalEmbedding(
            uploaded,
            dim,
            unet.flip_sin_to_cos != 0,
            unet.frequency_shift,
        );
        defer b.free(sines);
        // The same memory.
        const joined: Tensor = .{
            .address = sines.address,
            .shape = .vector(1, count * dim),
            .dtype = sines.dtype,
        };
        const one = try types.control_add_embedding.forward(ctx, joined);
        defer b.free(one);
        const out = try b.alloc(.vector(batch, one.shape.channels), one.dtype);
        for (0..batch) |i| try b.copy(out.batchSlice(@intCast(i), 1), one);
        return out;
    }

    /// What is added to the features of a hint at each of its positions: on the host, from their
    /// mean over all of them. Among several hints each has a factor.
    pub fn shiftOf(
        types: *const ControlNetUnion,
        arena: Allocator,
        ctx: Context,
        control_type: u32,
        scale: f32,
        mean: []f32,
    ) Error![]const f32 {
        const b = ctx.b;
        const table = types.task_embedding;
        const channels = table.shape[1];
        for (mean, 0..) |*value, c| {
            value.* = scale * (value.* + table.sourceValue(control_type * channels + c));
        }
        var hidden = try b.uploadFloats(.vector(1, channels), mean);
        for (types.transformer_layes) |block| {
            const next = try block.forward(ctx, hidden);
            b.free(hidden);
            hidden = next;
        }
        const shift = try types.spatial_ch_projs.forward(ctx, hidden, .{});
        b.free(hidden);
        defer b.free(shift);
        const values = try arena.alloc(f32, channels);
        try b.downloadFloats(shift, values);
        return values;
    }
};

const type_count_max = @import("config.zig").control_type_count_max;

const ResidualAttentionBlock = struct {
    ln_1: layers.LayerNorm,
    /// The last third of attn.in_proj: a token attends to itself alone.
    value_proj: layers.Linear,
    out_proj: layers.Linear,
    ln_2: layers.LayerNorm,
    c_fc: layers.Linear,
    c_proj: layers.Linear,

    fn load(view: View, channels: u32) weights.Error!ResidualAttentionBlock {
        const attn = try view.at("attn");
        const mlp = try view.at("mlp");
        const inner = 4 * channels;
        return .{
            .ln_1 = try .load(try view.at("ln_1"), channels, norm_epsilon),
            .value_proj = try .load(try attn.at("v_proj"), channels, channels, .bias),
            .out_proj = try .load(try attn.at("out_proj"), channels, channels, .bias),
            .ln_2 = try .load(try view.at("ln_2"), channels, norm_epsilon),
            .c_fc = try .load(try mlp.at("c_fc"), inner, channels, .bias),
            .c_proj = try .load(try mlp.at("c_proj"), channels, inner, .bias),
        };
    }

    fn forward(block: ResidualAttentionBlock, ctx: Context, x: Tensor) Error!Tensor {
        const normed = try block.ln_1.forward(ctx, x);
        const value = try block.value_proj.forward(ctx, normed, .{});
        ctx.b.free(normed);
        const attended = try block.out_proj.forward(ctx, value, .{ .residual = x });
        ctx.b.free(value);
        defer ctx.b.free(attended);
        const inner = try block.ln_2.forward(ctx, attended);
        const hidden = try block.c_fc.forward(ctx, inner, .{ .activation = .quick_gelu });
        ctx.b.free(inner);
        defer ctx.b.free(hidden);
        return block.c_proj.forward(ctx, hidden, .{ .residual = attended });
    }
};
