//! What networks beside a UNet add to it in a step, as diffusers' UNet2DConditionModel takes it:
//! residuals of ControlNets to the skip connections and to the mid block's output
//! (down_block_additional_residuals), features of T2I-Adapters inside the down blocks
//! (down_intrablock_additional_residuals).

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;
const Backend = @import("../backend.zig").Backend;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const unet_blocks = @import("unet_blocks.zig");
const ScaledTensor = unet_blocks.ScaledTensor;
const Skips = unet_blocks.Skips;

/// Of one ControlNet: a tensor for each skip connection, and one for the mid block.
pub const Residuals = struct {
    downs: []const Tensor,
    mid: Tensor,

    pub fn free(residuals: Residuals, b: Backend) void {
        for (residuals.downs) |down| b.free(down);
        b.free(residuals.mid);
    }
};

pub const Additions = struct {
    pub const Scaled = struct { of: Residuals, factor: f32 };

    residuals: []const Scaled = &.{},
    /// By down block, and behind them those of the mid block: the first `feature_count` of each.
    features: []const []ScaledTensor = &.{},
    feature_count: usize = 0,

    pub fn featuresAt(additions: Additions, block: usize) []const ScaledTensor {
        if (block >= additions.features.len) return &.{};
        return additions.features[block][0..additions.feature_count];
    }

    /// Adds to every skip that there is.
    pub fn addToSkips(additions: Additions, ctx: Context, skips: *const Skips) Error!void {
        for (additions.residuals) |each| {
            for (skips.list[0..skips.count], each.of.downs[0..skips.count]) |skip, down| {
                try ctx.b.accumulate(skip, down, each.factor);
            }
        }
    }

    /// Adds to what the mid block gave.
    pub fn addToMid(additions: Additions, ctx: Context, hidden: Tensor) Error!void {
        for (additions.residuals) |each| {
            try ctx.b.accumulate(hidden, each.of.mid, each.factor);
        }
    }
};
