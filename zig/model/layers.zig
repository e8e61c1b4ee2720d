//! Layers shared by text encoders, UNet and VAE. Activations are (batch, rows, width, channels).
//! Three layers depend on rows of other patches and get them from the exchange: 3x3 convolution
//! (halo rows), group norm (statistics) and self-attention (keys and values). Models built of these
//! layers need no code for patches.

const std = @import("std");
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const Weight = weights.Weight;
const View = weights.View;
const exchanges = @import("../patch/exchange.zig");
const Exchange = exchanges.Exchange;

pub const Error = exchanges.Error;

/// The device of this rank, and the exchange with the other patches.
pub const Context = struct {
    b: Backend,
    exchange: *Exchange,
};

/// Factors of a layer's product and bias, where its result is stored scaled (`residual_scale`).
pub const Scale = struct { product: f32 = 1, bias: f32 = 1 };

pub const Linear = struct {
    weight: *const Weight,
    bias: ?*const Weight,
    product_scale: f32 = 1,

    pub const Bias = enum { bias, no_bias };

    pub fn load(view: View, out: u32, in: u32, bias: Bias) weights.Error!Linear {
        return .{
            .weight = try view.matrix("weight", out, in),
            .bias = if (bias == .bias) try view.vector("bias", out) else null,
        };
    }

    /// Loads a layer with a bias.
    pub fn loadScaled(view: View, out: u32, in: u32, scale: Scale) weights.Error!Linear {
        return .{
            .weight = try view.matrix("weight", out, in),
            .bias = try view.scaledVector("bias", out, scale.bias),
            .product_scale = scale.product,
        };
    }

    pub fn forward(
        layer: Linear,
        ctx: Context,
        x: Tensor,
        options: backend.LinearOptions,
    ) Error!Tensor {
        var complete = options;
        complete.scale = layer.product_scale;
        return ctx.b.linear(x, layer.weight, layer.bias, complete);
    }

    pub fn forwardInto(layer: Linear, ctx: Context, out: Tensor, x: Tensor) Error!void {
        const options: backend.LinearOptions = .{ .scale = layer.product_scale };
        return ctx.b.linearInto(out, 0, x, layer.weight, layer.bias, options);
    }
};

/// A 3x3 convolution; 1x1 convolutions are `Linear`.
pub const Conv3x3 = struct {
    weight: *const Weight,
    bias: ?*const Weight,
    product_scale: f32,

    pub fn load(view: View, out: u32, in: u32) weights.Error!Conv3x3 {
        return loadScaled(view, out, in, .{});
    }

    pub fn loadUnbiased(view: View, out: u32, in: u32) weights.Error!Conv3x3 {
        const weight = try view.convolution("weight", out, in, 3, 3);
        return .{ .weight = weight, .bias = null, .product_scale = 1 };
    }

    pub fn loadScaled(view: View, out: u32, in: u32, scale: Scale) weights.Error!Conv3x3 {
        return .{
            .weight = try view.convolution("weight", out, in, 3, 3),
            .bias = try view.scaledVector("bias", out, scale.bias),
            .product_scale = scale.product,
        };
    }

    pub fn forward(
        layer: Conv3x3,
        ctx: Context,
        x: Tensor,
        options: backend.ConvOptions,
    ) Error!Tensor {
        const halo = try ctx.exchange.haloRows(x);
        defer ctx.exchange.releaseHaloRows(halo);
        return layer.forwardBetween(ctx, x, halo, options);
    }

    /// Convolves with halo rows that the caller already has, without an exchange.
    pub fn forwardBetween(
        layer: Conv3x3,
        ctx: Context,
        x: Tensor,
        halo: Exchange.HaloRows,
        options: backend.ConvOptions,
    ) Error!Tensor {
        var complete = options;
        complete.halo_above = halo.above;
        complete.halo_below = halo.below;
        complete.scale = layer.product_scale;
        return ctx.b.conv2d(x, layer.weight, layer.bias, complete);
    }
};

pub const GroupNorm = struct {
    weight: *const Weight,
    bias: *const Weight,
    group_count: u32,
    epsilon: f32,

    pub fn load(view: View, channels: u32, group_count: u32, epsilon: f32) weights.Error!GroupNorm {
        return .{
            .weight = try view.vector("weight", channels),
            .bias = try view.vector("bias", channels),
            .group_count = group_count,
            .epsilon = epsilon,
        };
    }

    pub fn forward(
        layer: GroupNorm,
        ctx: Context,
        x: Tensor,
        activation: backend.Activation,
    ) Error!Tensor {
        return layer.forwardSum(ctx, x, null, activation);
    }

    /// Of `x` plus `addend` (batch, 1, 1, channels), where the device `addsInNorms`.
    pub fn forwardSum(
        layer: GroupNorm,
        ctx: Context,
        x: Tensor,
        addend: ?Tensor,
        activation: backend.Activation,
    ) Error!Tensor {
        const shape = backend.statisticsShape(x.shape, layer.group_count);
        const local = try ctx.exchange.placeStatistics(shape);
        try ctx.b.groupNormStatsInto(local, x, addend);
        const element_count = x.shape.positionCount() * x.shape.channels / layer.group_count;
        const stats = try ctx.exchange.statistics(local, element_count);
        defer ctx.b.free(stats);
        return ctx.b.groupNormApply(
            x,
            addend,
            stats,
            layer.weight,
            layer.bias,
            layer.epsilon,
            activation,
        );
    }
};

pub const LayerNorm = struct {
    weight: *const Weight,
    bias: *const Weight,
    epsilon: f32,

    pub fn load(view: View, channels: u32, epsilon: f32) weights.Error!LayerNorm {
        return .{
            .weight = try view.vector("weight", channels),
            .bias = try view.vector("bias", channels),
            .epsilon = epsilon,
        };
    }

    pub fn forward(layer: LayerNorm, ctx: Context, x: Tensor) Error!Tensor {
        return ctx.b.layerNorm(x, layer.weight, layer.bias, layer.epsilon);
    }
};

/// Checkpoint keys of an attention's four matrices: diffusers', older VAEs', CLIP's.
pub const AttentionKeys = struct { q: []const u8, k: []const u8, v: []const u8, out: []const u8 };
pub const diffusers_keys: AttentionKeys = .{
    .q = "to_q",
    .k = "to_k",
    .v = "to_v",
    .out = "to_out.0",
};
pub const old_vae_keys: AttentionKeys = .{
    .q = "query",
    .k = "key",
    .v = "value",
    .out = "proj_attn",
};
pub const clip_keys: AttentionKeys = .{
    .q = "q_proj",
    .k = "k_proj",
    .v = "v_proj",
    .out = "out_proj",
};

/// One sequence per batch element, all of the same length; or of two lengths, where the negative
/// prompts, which come first, are not as long as the prompts.
pub const Sequences = struct {
    first: Tensor,
    second: ?Tensor = null,

    /// Those of some elements of the batch.
    pub fn ofBatch(sequences: Sequences, first: u32, count: u32) Sequences {
        const second = sequences.second orelse {
            return .{ .first = sequences.first.batchSlice(first, count) };
        };
        const before = sequences.first.shape.batch;
        if (first >= before) return .{ .first = second.batchSlice(first - before, count) };
        const from_first = @min(count, before - first);
        return .{
            .first = sequences.first.batchSlice(first, from_first),
            .second = if (count == from_first) null else second.batchSlice(0, count - from_first),
        };
    }
};

/// Larger heads (the VAE's one) are no single kernel.
const packed_head_size_max = backend.cudas.packed_head_size_max;

/// Multi-head attention: queries from one sequence, keys and values from the same or another.
pub const Attention = struct {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    head_count: u32,

    pub const Options = struct {
        keys: AttentionKeys,
        channels: u32,
        /// Channels of the sequence from which keys and values are computed.
        context_channels: u32,
        head_count: u32,
        /// Whether q, k and v have biases; the output projection always has one.
        bias: Linear.Bias,
        out_scale: Scale = .{},
    };

    pub fn load(view: View, options: Options) weights.Error!Attention {
        const channels = options.channels;
        const context = options.context_channels;
        return .{
            .to_q = try .load(try view.at(options.keys.q), channels, channels, options.bias),
            .to_k = try .load(try view.at(options.keys.k), channels, context, options.bias),
            .to_v = try .load(try view.at(options.keys.v), channels, context, options.bias),
            .to_out = try .loadScaled(
                try view.at(options.keys.out),
                channels,
                channels,
                options.out_scale,
            ),
            .head_count = options.head_count,
        };
    }

    /// Attention over the positions of all patches, plus `residual`; `x` is (batch, rows, width,
    /// channels), and so is the result.
    pub fn selfAttention(layer: Attention, ctx: Context, x: Tensor, residual: Tensor) Error!Tensor {
        if (ctx.exchange.isSinglePatch() and layer.isOneProduct(ctx)) {
            return layer.packedAttention(ctx, x, residual);
        }
        const own = try ctx.exchange.placeKeysValues(layer.keysValuesShape(x));
        defer ctx.exchange.releaseKeysValues(own);
        const quantized = try ctx.b.quantizeForAll(x, &layer.projections());
        defer if (quantized) |tensor| ctx.b.free(tensor);
        try layer.keysValuesInto(ctx, own, x, quantized);
        var list: Exchange.Parts = undefined;
        const parts = try ctx.exchange.keysValues(own, &list);
        return layer.attend(ctx, x, quantized, parts, false, residual);
    }

    /// What a position sees of its own sequence: it and those before it, or all.
    pub const Mask = enum { causal, none };

    /// Self-attention without an exchange: encoders are not split into patches.
    pub fn wholeAttention(
        layer: Attention,
        ctx: Context,
        x: Tensor,
        mask: Mask,
        residual: Tensor,
    ) Error!Tensor {
        const own = try layer.keysValues(ctx, x);
        defer ctx.b.free(own);
        return layer.attend(ctx, x, null, &.{own}, mask == .causal, residual);
    }

    /// Attention over other sequences; `keysValues` has computed their `keys_values`. Of each of
    /// `images` (keys and values of an IP-Adapter's tokens) an attention of its own is added to it.
    pub fn crossAttention(
        layer: Attention,
        ctx: Context,
        x: Tensor,
        keys_values: Sequences,
        images: []const Tensor,
        residual: ?Tensor,
    ) Error!Tensor {
        const heads = layer.head_count;
        if (keys_values.second == null and images.len == 0) {
            const keys = keys_values.first;
            if (layer.to_q.bias != null) {
                return layer.attend(ctx, x, null, &.{keys}, false, residual);
            }
            const attended = try ctx.b.crossAttention(x, layer.to_q.weight, keys, heads);
            defer ctx.b.free(attended);
            return layer.to_out.forward(ctx, attended, .{ .residual = residual });
        }
        const q = try layer.to_q.forward(ctx, x, .{});
        defer ctx.b.free(q);
        const attended = try layer.attendSequences(ctx, q, keys_values);
        defer ctx.b.free(attended);
        for (images) |image| {
            const seen = try ctx.b.attention(q, &.{image}, heads, false);
            defer ctx.b.free(seen);
            try ctx.b.accumulate(attended, seen, 1);
        }
        return layer.to_out.forward(ctx, attended, .{ .residual = residual });
    }

    /// Returns (batch, 1, tokens, 2 * channels): keys, then values, in one tensor so that the
    /// exchange sends both at once.
    pub fn keysValues(layer: Attention, ctx: Context, x: Tensor) Error!Tensor {
        const out = try ctx.b.alloc(layer.keysValuesShape(x), ctx.b.activationType());
        try layer.keysValuesInto(ctx, out, x, null);
        return out;
    }

    // --- internal ---

    /// Whether queries, keys and values are one product; keys and values of a patch go to the
    /// exchange and queries do not.
    fn isOneProduct(layer: Attention, ctx: Context) bool {
        if (layer.to_q.bias != null or layer.to_k.bias != null) return false;
        const channels = layer.to_q.weight.shape[0];
        if (channels / layer.head_count > packed_head_size_max) return false;
        return ctx.b.areOneProduct(&layer.projections());
    }

    fn projections(layer: Attention) [3]*const Weight {
        return .{ layer.to_q.weight, layer.to_k.weight, layer.to_v.weight };
    }

    fn packedAttention(layer: Attention, ctx: Context, x: Tensor, residual: Tensor) Error!Tensor {
        const channels = layer.to_q.weight.shape[0];
        const qkv = try ctx.b.alloc(x.shape.withChannels(3 * channels), ctx.b.activationType());
        defer ctx.b.free(qkv);
        try ctx.b.linearAdjacentInto(qkv, x, &layer.projections(), null);
        const attended = try ctx.b.attentionPacked(qkv, layer.head_count);
        defer ctx.b.free(attended);
        return layer.to_out.forward(ctx, attended, .{ .residual = residual });
    }

    fn keysValuesShape(layer: Attention, x: Tensor) Shape {
        const token_count: u32 = @intCast(x.shape.positionCount());
        return .tokens(x.shape.batch, token_count, 2 * layer.to_k.weight.shape[0]);
    }

    /// `quantized`: as `LinearOptions`.
    fn keysValuesInto(
        layer: Attention,
        ctx: Context,
        out: Tensor,
        x: Tensor,
        quantized: ?Tensor,
    ) Error!void {
        const channels = layer.to_k.weight.shape[0];
        if (layer.to_k.bias == null) {
            return ctx.b.linearPairInto(out, x, layer.to_k.weight, layer.to_v.weight, quantized);
        }
        try ctx.b.linearInto(out, 0, x, layer.to_k.weight, layer.to_k.bias, .{});
        try ctx.b.linearInto(out, channels, x, layer.to_v.weight, layer.to_v.bias, .{});
    }

    fn attendSequences(
        layer: Attention,
        ctx: Context,
        q: Tensor,
        keys_values: Sequences,
    ) Error!Tensor {
        const heads = layer.head_count;
        const second = keys_values.second orelse {
            return ctx.b.attention(q, &.{keys_values.first}, heads, false);
        };
        const attended = try ctx.b.alloc(q.shape, ctx.b.activationType());
        var at: u32 = 0;
        for ([_]Tensor{ keys_values.first, second }) |one| {
            const count = one.shape.batch;
            const out = attended.batchSlice(at, count);
            try ctx.b.attentionInto(out, q.batchSlice(at, count), &.{one}, heads, false);
            at += count;
        }
        return attended;
    }

    fn attend(
        layer: Attention,
        ctx: Context,
        x: Tensor,
        quantized: ?Tensor,
        keys_values: []const Tensor,
        causal: bool,
        residual: ?Tensor,
    ) Error!Tensor {
        const q = try layer.to_q.forward(ctx, x, .{ .quantized = quantized });
        defer ctx.b.free(q);
        const attended = try ctx.b.attention(q, keys_values, layer.head_count, causal);
        defer ctx.b.free(attended);
        return layer.to_out.forward(ctx, attended, .{ .residual = residual });
    }
};
