//! RRDBNet, the generator of ESRGAN and Real-ESRGAN: residual blocks of dense blocks, then
//! enlargements by nearest neighbours with a convolution each.
//! Source: BasicSR archs/rrdbnet_arch.py (ResidualDenseBlock, RRDB, RRDBNet).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../../tensor.zig").Tensor;
const weights = @import("../../weights.zig");
const View = weights.View;
const layers = @import("../layers.zig");
const Conv3x3 = layers.Conv3x3;
const Context = layers.Context;
const Error = layers.Error;
const UpscalerConfig = @import("../config.zig").UpscalerConfig;

/// Of what blocks and dense blocks add to their input.
const residual_scale = 0.2;

pub const RrdbNet = struct {
    conv_first: Conv3x3,
    body: []Block,
    conv_body: Conv3x3,
    upsamplers: []Conv3x3,
    conv_hr: Conv3x3,
    conv_last: Conv3x3,

    /// The keys are those of Real-ESRGAN.
    pub fn load(
        arena: Allocator,
        view: View,
        config: *const UpscalerConfig,
    ) weights.Error!RrdbNet {
        const features = config.features;
        const conv_first: Conv3x3 =
            try .load(try view.at("conv_first"), features, config.inChannels());
        const body = try arena.alloc(Block, config.block_count);
        for (body, 0..) |*block, i| block.* = try .load(try view.index("body", i), config);
        const conv_body: Conv3x3 = try .load(try view.at("conv_body"), features, features);
        const upsamplers = try arena.alloc(Conv3x3, config.upsample_count);
        for (upsamplers, 1..) |*conv, number| {
            const name = try std.fmt.allocPrint(arena, "conv_up{d}", .{number});
            conv.* = try .load(try view.at(name), features, features);
        }
        return .{
            .conv_first = conv_first,
            .body = body,
            .conv_body = conv_body,
            .upsamplers = upsamplers,
            .conv_hr = try .load(try view.at("conv_hr"), features, features),
            .conv_last = try .load(try view.at("conv_last"), 3, features),
        };
    }

    /// `x` is (1, rows, width, in channels) of 0 to 1; the result (1, factor * rows, factor *
    /// width, 3) of -1 to 1.
    pub fn forward(net: *const RrdbNet, ctx: Context, x: Tensor) Error!Tensor {
        const b = ctx.b;
        const first = try net.conv_first.forward(ctx, x, .{});
        var hidden = try net.body[0].forward(ctx, first);
        for (net.body[1..]) |block| {
            const out = try block.forward(ctx, hidden);
            b.free(hidden);
            hidden = out;
        }
        const sum = try net.conv_body.forward(ctx, hidden, .{ .residual = first });
        b.free(hidden);
        b.free(first);
        hidden = sum;
        for (net.upsamplers) |conv| {
            const larger = try conv.forward(ctx, hidden, .{
                .upsample = true,
                .activation = .leaky_relu,
            });
            b.free(hidden);
            hidden = larger;
        }
        const fine = try net.conv_hr.forward(ctx, hidden, .{ .activation = .leaky_relu });
        b.free(hidden);
        defer b.free(fine);
        return net.conv_last.forward(ctx, fine, .{ .activation = .to_signed });
    }
};

// --- internal ---

/// RRDB: three dense blocks.
const Block = struct {
    dense: [3]DenseBlock,

    fn load(view: View, config: *const UpscalerConfig) weights.Error!Block {
        return .{ .dense = .{
            try .load(try view.at("rdb1"), config),
            try .load(try view.at("rdb2"), config),
            try .load(try view.at("rdb3"), config),
        } };
    }

    fn forward(block: Block, ctx: Context, x: Tensor) Error!Tensor {
        const b = ctx.b;
        const first = try block.dense[0].forward(ctx, x);
        const second = try block.dense[1].forward(ctx, first);
        b.free(first);
        const third = try block.dense[2].forward(ctx, second);
        b.free(second);
        defer b.free(third);
        return b.addScaled(x, third, residual_scale);
    }
};

/// Five convolutions, each of which reads what all before it gave.
const DenseBlock = struct {
    convs: [5]Conv3x3,

    fn load(view: View, config: *const UpscalerConfig) weights.Error!DenseBlock {
        const names = [_][]const u8{ "conv1", "conv2", "conv3", "conv4", "conv5" };
        var block: DenseBlock = undefined;
        for (&block.convs, names, 0..) |*conv, name, i| {
            const in = config.features + @as(u32, @intCast(i)) * config.growth;
            const out = if (i == 4) config.features else config.growth;
            conv.* = try .load(try view.at(name), out, in);
        }
        return block;
    }

    fn forward(block: DenseBlock, ctx: Context, x: Tensor) Error!Tensor {
        const b = ctx.b;
        var parts: [5]Tensor = undefined;
        parts[0] = x;
        parts[1] = try block.convs[0].forward(ctx, x, .{ .activation = .leaky_relu });
        for (2..5) |count| {
            const joined = try b.concatChannels(parts[0..count]);
            defer b.free(joined);
            const conv = block.convs[count - 1];
            parts[count] = try conv.forward(ctx, joined, .{ .activation = .leaky_relu });
        }
        const joined = try b.concatChannels(&parts);
        for (parts[1..]) |part| b.free(part);
        const change = try block.convs[4].forward(ctx, joined, .{});
        b.free(joined);
        defer b.free(change);
        return b.addScaled(x, change, residual_scale);
    }
};
