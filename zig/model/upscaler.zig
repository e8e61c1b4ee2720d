//! Networks that enlarge images:
//!   upscaler/rrdbnet.zig  ESRGAN and Real-ESRGAN
//!   upscaler/compact.zig  the small one of Real-ESRGAN
//! Both read and write pixels in groups of a position, of which the caller knows the order.

const std = @import("std");
const Allocator = std.mem.Allocator;
const weights = @import("../weights.zig");
const configs = @import("config.zig");
const Compact = @import("upscaler/compact.zig").Compact;
const Context = @import("layers.zig").Context;
const Error = @import("layers.zig").Error;
const RrdbNet = @import("upscaler/rrdbnet.zig").RrdbNet;
const Tensor = @import("../tensor.zig").Tensor;
pub const UpscalerConfig = configs.UpscalerConfig;

pub const Upscaler = struct {
    config: UpscalerConfig,
    net: union(configs.UpscalerKind) { rrdbnet: RrdbNet, compact: Compact },

    pub fn load(
        arena: Allocator,
        view: weights.View,
        config: *const UpscalerConfig,
    ) weights.Error!Upscaler {
        return .{ .config = config.*, .net = switch (config.kind) {
            .rrdbnet => .{ .rrdbnet = try .load(arena, view, config) },
            .compact => .{ .compact = try .load(arena, view, config) },
        } };
    }

    /// `x` is (1, rows, width, in channels) of 0 to 1; `enlarged` is read by compact ones alone.
    pub fn forward(
        upscaler: *const Upscaler,
        ctx: Context,
        x: Tensor,
        enlarged: ?Tensor,
    ) Error!Tensor {
        return switch (upscaler.net) {
            .rrdbnet => |*net| net.forward(ctx, x),
            .compact => |*net| net.forward(ctx, x, enlarged.?),
        };
    }
};
