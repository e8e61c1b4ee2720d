//! An IP-Adapter: what an image encoder gives becomes tokens, and every cross-attention of the UNet
//! has keys and values of its own for them. Names are those of diffusers, whatever the file has.
//! Source: diffusers models/embeddings.py (ImageProjection, IPAdapterPlusImageProjection),
//! models/attention_processor.py (IPAdapterAttnProcessor2_0).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const Weight = weights.Weight;
const View = weights.View;
const ClipVisionModel = @import("clip_vision.zig").ClipVisionModel;
const CrossAttentions = @import("reuse.zig").CrossAttentions;
const configs = @import("config.zig");
const IpAdapterConfig = configs.IpAdapterConfig;
const UnetConfig = configs.UnetConfig;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;

const norm_epsilon = 1e-5;

pub const IpAdapter = struct {
    config: IpAdapterConfig,
    projection: union(configs.IpProjection) { plain: ImageProjection, plus: Resampler },
    /// By the number of each cross-attention.
    to_k_ip: []const layers.Linear,
    to_v_ip: []const layers.Linear,

    /// Keys number the cross-attentions as `unet` does.
    pub fn load(
        arena: Allocator,
        view: View,
        config: *const IpAdapterConfig,
        unet: *const UnetConfig,
    ) weights.Error!IpAdapter {
        const context_size = unet.cross_attention_dim;
        var keys: std.ArrayList(layers.Linear) = .empty;
        var values: std.ArrayList(layers.Linear) = .empty;
        const any: Shape = .{ .batch = 1, .rows = 1 << 16, .width = 1 << 16, .channels = 1 };
        var attentions: CrossAttentions = .{ .config = unet, .sample = any };
        while (attentions.next()) |shape| {
            const own = try view.index("ip_adapter", keys.items.len);
            const out = shape.channels;
            try keys.append(arena, try .load(try own.at("to_k_ip"), out, context_size, .no_bias));
            try values.append(arena, try .load(try own.at("to_v_ip"), out, context_size, .no_bias));
        }
        const projection = try view.at("image_proj");
        return .{
            .config = config.*,
            .projection = switch (config.projection) {
                .plain => .{ .plain = try .load(projection, config, context_size) },
                .plus => .{ .plus = try .load(arena, projection, config, context_size) },
            },
            .to_k_ip = keys.items,
            .to_v_ip = values.items,
        };
    }

    /// Tokens of an image, (1, 1, token_count, cross_attention_dim). `patches`: of
    /// `ClipVisionModel`; null for the tokens of the negative prompt, those of no image.
    pub fn imageTokens(
        adapter: *const IpAdapter,
        ctx: Context,
        encoder: *const ClipVisionModel,
        patches: ?Tensor,
    ) Error!Tensor {
        const b = ctx.b;
        switch (adapter.projection) {
            .plain => |projection| {
                const embeds = if (patches) |tensor|
                    try encoder.imageEmbeds(ctx, tensor)
                else
                    try zeros(ctx, .vector(1, adapter.config.embed_size));
                defer b.free(embeds);
                return projection.forward(ctx, embeds);
            },
            .plus => |projection| {
                const black = if (patches == null) try zeros(ctx, encoder.patchShape()) else null;
                defer if (black) |tensor| b.free(tensor);
                const states = try encoder.penultimateState(ctx, patches orelse black.?);
                defer b.free(states);
                return projection.forward(ctx, states);
            },
        }
    }

    /// Shape of the keys and values of one cross-attention for `tokens` (batch, 1, tokens,
    /// cross_attention_dim).
    pub fn keysValuesShape(adapter: *const IpAdapter, slot: usize, tokens: Shape) Shape {
        return tokens.withChannels(2 * adapter.to_k_ip[slot].weight.shape[0]);
    }

    /// Writes them. `scaled` are the tokens times the scales of their images: as the values are
    /// linear in them, the attention's result is scaled.
    pub fn keysValuesInto(
        adapter: *const IpAdapter,
        ctx: Context,
        out: Tensor,
        slot: usize,
        tokens: Tensor,
        scaled: Tensor,
    ) Error!void {
        const to_k, const to_v = .{ adapter.to_k_ip[slot], adapter.to_v_ip[slot] };
        const channels = to_k.weight.shape[0];
        try ctx.b.linearInto(out, 0, tokens, to_k.weight, null, .{});
        try ctx.b.linearInto(out, channels, scaled, to_v.weight, null, .{});
    }
};

// --- internal ---

const ImageProjection = struct {
    image_embeds: layers.Linear,
    norm: layers.LayerNorm,
    token_count: u32,

    fn load(
        view: View,
        config: *const IpAdapterConfig,
        context_size: u32,
    ) weights.Error!ImageProjection {
        const count = config.token_count;
        return .{
            .image_embeds = try .load(
                try view.at("image_embeds"),
                count * context_size,
                config.embed_size,
                .bias,
            ),
            .norm = try .load(try view.at("norm"), context_size, norm_epsilon),
            .token_count = count,
        };
    }

    /// `embeds` (1, 1, 1, embed_size)
    fn forward(projection: ImageProjection, ctx: Context, embeds: Tensor) Error!Tensor {
        const joined = try projection.image_embeds.forward(ctx, embeds, .{});
        defer ctx.b.free(joined);
        var tokens = joined;
        const count = projection.token_count;
        tokens.shape = .tokens(1, count, joined.shape.channels / count);
        return projection.norm.forward(ctx, tokens);
    }
};

/// Perceiver attention: learned queries read what the encoder gives.
const Resampler = struct {
    latents: *const Weight,
    proj_in: layers.Linear,
    blocks: []ResamplerBlock,
    proj_out: layers.Linear,
    norm_out: layers.LayerNorm,
    /// See `queries`.
    ids: []const i32,

    fn load(
        arena: Allocator,
        view: View,
        config: *const IpAdapterConfig,
        context_size: u32,
    ) weights.Error!Resampler {
        const hidden = config.hidden_size;
        const count = config.token_count;
        const blocks = try arena.alloc(ResamplerBlock, config.layer_count);
        for (blocks, 0..) |*block, i| block.* = try .load(try view.index("layers", i), config);
        const ids = try arena.alloc(i32, count);
        @memset(ids, @intCast(count));
        return .{
            .latents = try view.tableOf("latents", count, hidden, &.{ 1, count, hidden }),
            .proj_in = try .load(try view.at("proj_in"), hidden, config.embed_size, .bias),
            .blocks = blocks,
            .proj_out = try .load(try view.at("proj_out"), context_size, hidden, .bias),
            .norm_out = try .load(try view.at("norm_out"), context_size, norm_epsilon),
            .ids = ids,
        };
    }

    fn forward(resampler: Resampler, ctx: Context, states: Tensor) Error!Tensor {
        const b = ctx.b;
        const x = try resampler.proj_in.forward(ctx, states, .{});
        defer b.free(x);
        var latents = try resampler.queries(ctx);
        for (resampler.blocks) |block| {
            const next = try block.forward(ctx, x, latents);
            b.free(latents);
            latents = next;
        }
        defer b.free(latents);
        const out = try resampler.proj_out.forward(ctx, latents, .{});
        defer b.free(out);
        return resampler.norm_out.forward(ctx, out);
    }

    /// The latents as a tensor: to the device they are positions, of tokens that are zeros.
    fn queries(resampler: Resampler, ctx: Context) Error!Tensor {
        const b = ctx.b;
        const count, const hidden = resampler.latents.shape[0..2].*;
        const shape: Shape = .tokens(1, count, hidden);
        const nothing = try zeros(ctx, shape);
        defer b.free(nothing);
        const bytes = std.mem.sliceAsBytes(resampler.ids);
        const ids = try b.upload(shape.withChannels(1), .i32, bytes);
        defer b.free(ids);
        return b.embedTokens(ids, resampler.latents, resampler.latents, nothing);
    }
};

const ResamplerBlock = struct {
    ln0: layers.LayerNorm,
    ln1: layers.LayerNorm,
    to_q: layers.Linear,
    to_k: layers.Linear,
    to_v: layers.Linear,
    to_out: layers.Linear,
    ff_0: layers.LayerNorm,
    ff_1: layers.Linear,
    ff_2: layers.Linear,
    head_count: u32,

    fn load(view: View, config: *const IpAdapterConfig) weights.Error!ResamplerBlock {
        const hidden = config.hidden_size;
        const inner = config.inner_size;
        const wide = config.feed_forward_size;
        return .{
            .ln0 = try .load(try view.at("ln0"), hidden, norm_epsilon),
            .ln1 = try .load(try view.at("ln1"), hidden, norm_epsilon),
            .to_q = try .load(try view.at("attn.to_q"), inner, hidden, .no_bias),
            .to_k = try .load(try view.at("attn.to_k"), inner, hidden, .no_bias),
            .to_v = try .load(try view.at("attn.to_v"), inner, hidden, .no_bias),
            .to_out = try .load(try view.at("attn.to_out.0"), hidden, inner, .no_bias),
            .ff_0 = try .load(try view.at("ff.0"), hidden, norm_epsilon),
            .ff_1 = try .load(try view.at("ff.1.net.0.proj"), wide, hidden, .no_bias),
            .ff_2 = try .load(try view.at("ff.1.net.2"), hidden, wide, .no_bias),
            .head_count = config.head_count,
        };
    }

    /// Keys and values are of the states and of the queries themselves.
    fn forward(block: ResamplerBlock, ctx: Context, x: Tensor, latents: Tensor) Error!Tensor {
        const b = ctx.b;
        const states = try block.ln0.forward(ctx, x);
        defer b.free(states);
        const queries = try block.ln1.forward(ctx, latents);
        defer b.free(queries);
        const of_states = try block.keysValues(ctx, states);
        defer b.free(of_states);
        const of_queries = try block.keysValues(ctx, queries);
        defer b.free(of_queries);
        const q = try block.to_q.forward(ctx, queries, .{});
        defer b.free(q);
        const parts = [_]Tensor{ of_states, of_queries };
        const attended = try b.attention(q, &parts, block.head_count, false);
        defer b.free(attended);
        const hidden = try block.to_out.forward(ctx, attended, .{ .residual = latents });
        defer b.free(hidden);
        const normed = try block.ff_0.forward(ctx, hidden);
        defer b.free(normed);
        const wide = try block.ff_1.forward(ctx, normed, .{ .activation = .gelu });
        defer b.free(wide);
        return block.ff_2.forward(ctx, wide, .{ .residual = hidden });
    }

    fn keysValues(block: ResamplerBlock, ctx: Context, x: Tensor) Error!Tensor {
        const shape = x.shape.withChannels(2 * block.to_k.weight.shape[0]);
        const out = try ctx.b.alloc(shape, ctx.b.activationType());
        try ctx.b.linearPairInto(out, x, block.to_k.weight, block.to_v.weight, null);
        return out;
    }
};

fn zeros(ctx: Context, shape: Shape) Error!Tensor {
    const out = try ctx.b.alloc(shape, ctx.b.activationType());
    try ctx.b.zero(out.address, out.byteCount());
    return out;
}
