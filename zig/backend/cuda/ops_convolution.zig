//! Launchers of what surrounds the library's convolutions: the padded input of those with halo
//! rows, enlargement or uneven padding, and the direct kernel for channels that no tensor core
//! takes.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const grids = @import("grids.zig");
const ops_widen = @import("ops_widen.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

/// Threads of a block and weights in its shared memory (cuda/conv_direct.cu).
const direct_block_size = 128;
const direct_weight_count_max = 4096;

/// Must match DirectConvolution in cuda/conv_direct.cu.
const DirectConvolution = extern struct {
    batch: u32,
    rows: u32,
    width: u32,
    channels: u32,
    out_rows: u32,
    out_width: u32,
    out_channels: u32,
    kernel_rows: u32,
    kernel_width: u32,
    stride: u32,
    top: u32,
    left: u32,
    scale: u32,
    activation: u32,
    product_scale: f32,
};

/// Whether the channels are such that the library's tensor cores cannot read them.
pub fn isDirect(weight: *const Weight) bool {
    return weight.shape[0] % 8 != 0 or weight.shape[3] % 8 != 0;
}

/// Whether the input must be assembled first: the library knows only zeros, the same number of them
/// on opposite sides.
pub fn needsPaddedInput(options: backend.ConvOptions) bool {
    const pad = options.padding;
    return options.upsample or options.halo_above != null or options.halo_below != null or
        pad.top != pad.bottom or pad.left != pad.right;
}

/// Of what `padInput` makes.
pub fn paddedShape(x: Shape, options: backend.ConvOptions) Shape {
    const pad = options.padding;
    const scale: u32 = if (options.upsample) 2 else 1;
    return .{
        .batch = x.batch,
        .rows = x.rows * scale + pad.top + pad.bottom,
        .width = x.width * scale + pad.left + pad.right,
        .channels = x.channels,
    };
}

/// `out` as `paddedShape`: the input that makes a convolution without padding the same.
pub fn padInput(cuda: *Cuda, out: Tensor, x: Tensor, options: backend.ConvOptions) Error!void {
    assert(out.shape.eql(paddedShape(x.shape, options)));
    assert(out.dtype.size() == 2 and x.dtype == out.dtype);
    const count = grids.positionPacks(out, out.shape.channels);
    return cuda.launch("pad_input", .untyped, grids.blocks(count), grids.block, 0, .{
        out.address,
        x.address,
        grids.addressOrNull(options.halo_above),
        grids.addressOrNull(options.halo_below),
        x.shape.rows,
        x.shape.width,
        x.shape.channels,
        @as(u32, if (options.upsample) 2 else 1),
        options.padding.top,
        options.padding.left,
        out.shape.rows,
        out.shape.width,
        count,
    });
}

/// The whole of `Backend.conv2d` in one pass, for few channels in or out.
pub fn convDirect(
    cuda: *Cuda,
    out: Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.ConvOptions,
) Error!void {
    const few = out.shape.channels <= 4;
    const tile: u32 = if (few) 4 else 32;
    assert(weight.shape[1] * weight.shape[2] * tile <= direct_weight_count_max);
    const position_count = out.shape.rowCount();
    const grid: cudas.Dim3 = .{
        .x = @intCast(std.math.divCeil(usize, position_count, direct_block_size) catch unreachable),
        .y = std.math.divCeil(u32, out.shape.channels, tile) catch unreachable,
    };
    const block: cudas.Dim3 = .{ .x = direct_block_size };
    const args = .{
        out.address,
        x.address,
        grids.addressOrNull(options.halo_above),
        grids.addressOrNull(options.halo_below),
        try ops_widen.operand(cuda, weight),
        cuda.addressOrNull(bias),
        grids.addressOrNull(options.channel_bias),
        grids.addressOrNull(options.residual),
        directConvolution(out.shape, x.shape, weight, options),
    };
    if (few) return cuda.launch("conv_direct_4", .typed, grid, block, 0, args);
    return cuda.launch("conv_direct_32", .typed, grid, block, 0, args);
}

// --- internal ---

fn directConvolution(
    out: Shape,
    x: Shape,
    weight: *const Weight,
    options: backend.ConvOptions,
) DirectConvolution {
    return .{
        .batch = x.batch,
        .rows = x.rows,
        .width = x.width,
        .channels = x.channels,
        .out_rows = out.rows,
        .out_width = out.width,
        .out_channels = out.channels,
        .kernel_rows = weight.shape[1],
        .kernel_width = weight.shape[2],
        .stride = options.stride,
        .top = options.padding.top,
        .left = options.padding.left,
        .scale = if (options.upsample) 2 else 1,
        .activation = @intFromEnum(options.activation),
        .product_scale = options.scale,
    };
}
