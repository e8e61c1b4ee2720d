//! What a step of the UNet takes from an earlier one instead of computing it:
//!   deep features (DeepCache, arXiv 2312.00858): a cached step runs the outer blocks alone, and
//!   where they begin again it goes on from what the last full step had there;
//!   cross-attention (T-GATE, arXiv 2404.02747): from the gate on, each one's output is that of the
//!   step before it: of a prompt the mean with that of the negative prompt.
//! The tensors are allocated before the steps that share them.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const Backend = backend.Backend;
pub const Part = backend.Part;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const UnetConfig = @import("config.zig").UnetConfig;

/// What one step does with the parts, and where they are kept.
pub const Reuse = struct {
    deep: Part = .compute,
    cross: Part = .compute,
    /// Skip connections of the outer blocks: 1 more than the paper's number of the branch.
    outer_skips: u32 = 0,
    /// The input of the layer of the up blocks that reads the last of these.
    feature: ?Tensor = null,
    /// Of every cross-attention, by its number.
    outputs: []const Tensor = &.{},
    /// Images of the batch, where outputs of a prompt become the mean with the negative one's; else
    /// 0.
    mean_images: u32 = 0,
};

/// Skip connections of a UNet, each read by one layer of its up blocks.
pub fn skipCount(config: *const UnetConfig) u32 {
    var count: u32 = 0;
    for (0..config.level_count) |level| count += config.layers_per_block[level] + 1;
    return count;
}

/// Of `Reuse.feature`, where the UNet's input is `sample`.
pub fn featureShape(config: *const UnetConfig, sample: Shape, outer_skips: u32) Shape {
    assert(outer_skips > 0 and outer_skips <= skipCount(config));
    var level: u32 = 0;
    var rest = outer_skips;
    while (rest > config.layers_per_block[level] + 1) : (level += 1) {
        rest -= config.layers_per_block[level] + 1;
    }
    // The first layer of an up block reads what the block below gave.
    const is_first = rest == config.layers_per_block[level] + 1;
    const deeper = @min(level + 1, config.level_count - 1);
    const channels = config.block_out_channels[if (is_first) deeper else level];
    return atLevel(sample, level).withChannels(channels);
}

/// Of `Reuse.outputs`, side by side in one block of memory; their list is in `arena`.
pub fn allocOutputs(
    arena: Allocator,
    b: Backend,
    config: *const UnetConfig,
    sample: Shape,
    count: u32,
) backend.Error![]const Tensor {
    const outputs = try arena.alloc(Tensor, count);
    const dtype = b.activationType();
    var shapes: CrossAttentions = .{ .config = config, .sample = sample };
    var end: usize = 0;
    for (outputs) |*output| {
        output.* = .{ .address = end, .shape = shapes.next().?, .dtype = dtype };
        end = std.mem.alignForward(usize, end + output.byteCount(), 256);
    }
    assert(shapes.next() == null);
    const base = try b.scratch.alloc(end);
    for (outputs) |*output| output.address += base;
    return outputs;
}

pub fn freeOutputs(b: Backend, outputs: []const Tensor) void {
    if (outputs.len > 0) b.scratch.free(outputs[0].address);
}

/// The shapes of their outputs, in the order in which `UNet.load` numbers them.
pub const CrossAttentions = struct {
    config: *const UnetConfig,
    sample: Shape,
    block: u32 = 0,
    layer: u32 = 0,
    depth: u32 = 0,

    pub fn next(shapes: *CrossAttentions) ?Shape {
        const c = shapes.config;
        const level_count = c.level_count;
        while (shapes.block <= 2 * level_count) {
            const is_up = shapes.block > level_count;
            const level = if (shapes.block < level_count)
                shapes.block
            else if (is_up)
                2 * level_count - shapes.block
            else
                level_count - 1;
            const depths: []const u32 = if (shapes.block < level_count)
                c.downAttentions(shapes.block)
            else if (is_up)
                c.upAttentions(shapes.block - level_count - 1)
            else if (c.mid_block == .cross_attention)
                (&c.mid_transformer_layers)[0..1]
            else
                &.{};
            if (shapes.layer == depths.len) {
                shapes.block += 1;
                shapes.layer = 0;
            } else if (shapes.depth == depths[shapes.layer]) {
                shapes.layer += 1;
                shapes.depth = 0;
            } else {
                shapes.depth += 1;
                const channels = c.block_out_channels[level];
                return atLevel(shapes.sample, level).withChannels(channels);
            }
        }
        return null;
    }
};

// --- internal ---

fn atLevel(sample: Shape, level: u32) Shape {
    var shape = sample;
    const shift: u5 = @intCast(level);
    shape.rows >>= shift;
    shape.width >>= shift;
    return shape;
}
