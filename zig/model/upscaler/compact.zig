//! SRVGGNetCompact, the small upscaler of Real-ESRGAN: convolutions with PReLU at the image's own
//! size; the last one gives all pixels of a position, which are added to the position's own.
//! Source: Real-ESRGAN archs/srvgg_arch.py.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tensor = @import("../../tensor.zig").Tensor;
const weights = @import("../../weights.zig");
const View = weights.View;
const Weight = weights.Weight;
const layers = @import("../layers.zig");
const Conv3x3 = layers.Conv3x3;
const Context = layers.Context;
const Error = layers.Error;
const UpscalerConfig = @import("../config.zig").UpscalerConfig;

pub const Compact = struct {
    body: []Layer,
    conv_last: Conv3x3,

    const Layer = struct { conv: Conv3x3, slopes: *const Weight };

    /// The keys are `body.N`: convolutions and slopes in turn.
    pub fn load(
        arena: Allocator,
        view: View,
        config: *const UpscalerConfig,
    ) weights.Error!Compact {
        const features = config.features;
        const body = try arena.alloc(Layer, config.block_count + 1);
        for (body, 0..) |*layer, i| {
            const in = if (i == 0) config.inChannels() else features;
            const slopes = try view.index("body", 2 * i + 1);
            layer.* = .{
                .conv = try .load(try view.index("body", 2 * i), features, in),
                .slopes = try slopes.vector("weight", features),
            };
        }
        const last = try view.index("body", 2 * body.len);
        return .{
            .body = body,
            .conv_last = try .load(last, config.outChannels(), features),
        };
    }

    /// `x` is (1, rows, width, 3) of 0 to 1, and `enlarged` the same with each number as often as
    /// a position has pixels, (1, rows, width, out channels). The result has its shape: of each
    /// colour the pixels of the position, of -1 to 1.
    pub fn forward(net: *const Compact, ctx: Context, x: Tensor, enlarged: Tensor) Error!Tensor {
        const b = ctx.b;
        var hidden: ?Tensor = null;
        for (net.body) |layer| {
            const raw = try layer.conv.forward(ctx, hidden orelse x, .{});
            if (hidden) |tensor| b.free(tensor);
            hidden = try b.prelu(raw, layer.slopes);
            b.free(raw);
        }
        const sum = try net.conv_last.forward(ctx, hidden.?, .{ .residual = enlarged });
        b.free(hidden.?);
        defer b.free(sum);
        return b.activate(sum, .to_signed);
    }
};
