//! T2IAdapter of the type full_adapter_xl: a convolutional network over the hint image alone, whose
//! features are added inside the UNet's down blocks and after its mid block. Nothing of it depends
//! on the step or the prompt.
//! Source: diffusers models/adapter.py (FullAdapterXL, AdapterBlock, AdapterResnetBlock).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Backend = @import("../backend.zig").Backend;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const T2iAdapterConfig = @import("config.zig").T2iAdapterConfig;

/// The one block that halves rows and width, first of all.
const halving_block = 2;

pub const T2iAdapter = struct {
    config: T2iAdapterConfig,
    conv_in: layers.Conv3x3,
    body: []AdapterBlock,

    pub fn load(
        arena: Allocator,
        whole: View,
        config: *const T2iAdapterConfig,
    ) weights.Error!T2iAdapter {
        const view = try whole.at("adapter");
        const factor = config.downscale_factor;
        const in = config.in_channels * factor * factor;
        const conv_in: layers.Conv3x3 =
            try .load(try view.at("conv_in"), config.channels[0], in);
        const body = try arena.alloc(AdapterBlock, config.level_count);
        for (body, 0..) |*block, i| {
            const below = config.channels[i -| 1];
            const at = try view.index("body", i);
            block.* = try .load(arena, at, below, config.channels[i], config.block_count);
        }
        return .{ .config = config.*, .conv_in = conv_in, .body = body };
    }

    /// One feature for each block of the body, in `features`; `image` is as `unshuffled` gives it.
    pub fn forward(
        adapter: *const T2iAdapter,
        ctx: Context,
        image: Tensor,
        features: []Tensor,
    ) Error!void {
        const first = try adapter.conv_in.forward(ctx, image, .{});
        defer ctx.b.free(first);
        var hidden = first;
        for (adapter.body, features, 0..) |block, *feature, i| {
            feature.* = try block.forward(ctx, hidden, i == halving_block);
            hidden = feature.*;
        }
    }

    /// torch's PixelUnshuffle of the hint's RGB, 0 to 1: for an adapter of one channel its first.
    pub fn unshuffled(
        adapter: *const T2iAdapter,
        arena: Allocator,
        rgb: []const u8,
        shape: Shape,
    ) Allocator.Error![]const f32 {
        const values = try arena.alloc(f32, shape.elementCount());
        const factor: usize = adapter.config.downscale_factor;
        const width = shape.width * factor;
        for (values, 0..) |*value, i| {
            const position = i / shape.channels;
            const channel = i % shape.channels;
            const row = position / shape.width * factor + channel / factor % factor;
            const column = position % shape.width * factor + channel % factor;
            const color = channel / (factor * factor);
            const byte = rgb[(row * width + column) * 3 + color];
            value.* = @as(f32, @floatFromInt(byte)) / 255;
        }
        return values;
    }
};

// --- internal ---

const AdapterBlock = struct {
    in_conv: ?layers.Linear,
    resnets: []AdapterResnetBlock,

    fn load(
        arena: Allocator,
        view: View,
        in: u32,
        out: u32,
        count: u32,
    ) weights.Error!AdapterBlock {
        const resnets = try arena.alloc(AdapterResnetBlock, count);
        for (resnets, 0..) |*resnet, i| {
            const at = try view.index("resnets", i);
            resnet.* = .{
                .block1 = try .load(try at.at("block1"), out, out),
                .block2 = try .load(try at.at("block2"), out, out, .bias),
            };
        }
        return .{
            .in_conv = if (in == out) null else try .load(try view.at("in_conv"), out, in, .bias),
            .resnets = resnets,
        };
    }

    /// Does not free `x`.
    fn forward(block: AdapterBlock, ctx: Context, x: Tensor, halves: bool) Error!Tensor {
        var hidden = x;
        if (halves) hidden = try halved(ctx.b, hidden);
        if (block.in_conv) |layer| {
            const next = try layer.forward(ctx, hidden, .{});
            if (hidden.address != x.address) ctx.b.free(hidden);
            hidden = next;
        }
        for (block.resnets) |resnet| {
            const next = try resnet.forward(ctx, hidden);
            if (hidden.address != x.address) ctx.b.free(hidden);
            hidden = next;
        }
        return hidden;
    }
};

const AdapterResnetBlock = struct {
    block1: layers.Conv3x3,
    block2: layers.Linear,

    fn forward(block: AdapterResnetBlock, ctx: Context, x: Tensor) Error!Tensor {
        const hidden = try block.block1.forward(ctx, x, .{ .activation = .relu });
        defer ctx.b.free(hidden);
        return block.block2.forward(ctx, hidden, .{ .residual = x });
    }
};

/// AvgPool2d of 2: means of neighbours in width, then of rows.
fn halved(b: Backend, x: Tensor) Error!Tensor {
    const shape = x.shape;
    const narrow = try meanOfPairs(b, x, .{
        .batch = shape.batch * shape.rows * shape.width / 2,
        .rows = 2,
        .width = 1,
        .channels = shape.channels,
    });
    defer b.free(narrow);
    const out = try meanOfPairs(b, narrow, .{
        .batch = shape.batch * shape.rows / 2,
        .rows = 2,
        .width = shape.width / 2,
        .channels = shape.channels,
    });
    return .{ .address = out.address, .dtype = out.dtype, .shape = .{
        .batch = shape.batch,
        .rows = shape.rows / 2,
        .width = shape.width / 2,
        .channels = shape.channels,
    } };
}

/// Of two rows each, where the same memory is seen as `pairs`.
fn meanOfPairs(b: Backend, x: Tensor, pairs: Shape) Error!Tensor {
    const all: Tensor = .{ .address = x.address, .shape = pairs, .dtype = x.dtype };
    var one = pairs;
    one.rows = 1;
    const first = try b.alloc(one, x.dtype);
    defer b.free(first);
    const second = try b.alloc(one, x.dtype);
    defer b.free(second);
    try b.copyRows(first, 0, all, 0, 1);
    try b.copyRows(second, 0, all, 1, 1);
    const out = try b.alloc(one, x.dtype);
    try b.averageInto(out, first, second);
    return out;
}
