//! Linear layers and convolutions on a GPU: cuBLASLt and cuDNN do the products; what their
//! epilogues lack (SiLU, a bias of its own for each image) is one pass in place after them.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const tensors = @import("../../tensor.zig");
const DType = tensors.DType;
const Tensor = tensors.Tensor;
const Weight = @import("../../weights.zig").Weight;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const Call = @import("gemm.zig").Call;
const cascaded = @import("matmul_cascaded.zig");
const device_weights = @import("weights.zig");
const ops_convolution = @import("ops_convolution.zig");
const grids = @import("grids.zig");
const ops_elementwise = @import("ops_elementwise.zig");
const ops_int8 = @import("ops_int8.zig");
const ops_widen = @import("ops_widen.zig");

pub fn linear(
    cuda: *Cuda,
    out: Tensor,
    channel_first: u32,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) Error!void {
    assert(x.dtype == cuda.activation and out.dtype == cuda.activation);
    if (weight.dtype == .i8) {
        return ops_int8.linear(cuda, out, channel_first, weight, bias, options);
    }
    const is_whole = options.activation == .none;
    const residual = if (is_whole) options.residual else null;
    try multiply(cuda, weight, .{
        .m = @intCast(x.shape.rowCount()),
        .n = weight.shape[0],
        .k = weight.shape[1],
        .input = x.dtype,
        .output = out.dtype,
        .out = out.address + channel_first * out.dtype.size(),
        .out_stride = out.shape.channels,
        .x = x.address,
        .w = try ops_widen.operand(cuda, weight),
        .bias = cuda.addressOrNull(bias),
        .residual = grids.addressOrNull(residual),
        .scale = options.scale,
    });
    if (is_whole) return;
    assert(channel_first == 0 and out.shape.channels == weight.shape[0]);
    try ops_elementwise.biasActivationResidual(cuda, out, .{
        .activation = options.activation,
        .residual = options.residual,
    });
}

/// Whether matrices lie one behind the other, so that all are one product. Those in 8 bits do so
/// once they are widened; those in int8 with their scales.
pub fn areAdjacent(weights: []const *const Weight, activation: DType) bool {
    const first = weights[0];
    for (weights[1..], weights[0 .. weights.len - 1]) |next, before| {
        if (next.shape[1] != first.shape[1]) return false;
        if ((next.kept_f8 == null) != (first.kept_f8 == null)) return false;
        if ((next.dtype == .i8) != (first.dtype == .i8)) return false;
        var end = before.device_offset + device_weights.deviceBytes(before, activation);
        if (first.kept_f8 != null) {
            end = std.mem.alignForward(usize, end, device_weights.alignment);
        }
        if (next.device_offset != end) return false;
        if (first.dtype != .i8) continue;
        if (next.int8_group != first.int8_group) return false;
        const scales_end = before.int8_scales_offset + before.shape[0] * @sizeOf(f32);
        if (next.int8_scales_offset != scales_end) return false;
    }
    return true;
}

/// Of adjacent matrices: the channels of the first, then those of the next; all of `out`. `options`
/// has what int8 needs.
pub fn linearAdjacent(
    cuda: *Cuda,
    out: Tensor,
    x: Tensor,
    weights: []const *const Weight,
    options: backend.LinearOptions,
) Error!void {
    assert(areAdjacent(weights, cuda.activation));
    if (weights[0].dtype == .i8) return ops_int8.linearAdjacent(cuda, out, weights[0], options);
    try multiply(cuda, weights[0], .{
        .m = @intCast(x.shape.rowCount()),
        .n = out.shape.channels,
        .k = weights[0].shape[1],
        .input = x.dtype,
        .output = out.dtype,
        .out = out.address,
        .x = x.address,
        .w = try ops_widen.adjacentOperand(cuda, weights),
    });
}

/// Device bytes that `conv2d` needs beside its result.
pub fn convolutionBytes(x: Tensor, weight: *const Weight, options: backend.ConvOptions) usize {
    if (ops_convolution.isDirect(weight)) return 0;
    if (!ops_convolution.needsPaddedInput(options)) return 0;
    return ops_convolution.paddedShape(x.shape, options).elementCount() * x.dtype.size();
}

/// `temporary`: `convolutionBytes` of device memory, null where that is 0.
pub fn conv2d(
    cuda: *Cuda,
    out: Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.ConvOptions,
    temporary: ?Tensor,
) Error!void {
    assert(x.dtype == cuda.activation and out.dtype == cuda.activation);
    if (ops_convolution.isDirect(weight)) {
        return ops_convolution.convDirect(cuda, out, x, weight, bias, options);
    }
    var input = x;
    var padding = options.padding;
    if (temporary) |room| {
        const shape = ops_convolution.paddedShape(x.shape, options);
        input = .{ .address = room.address, .shape = shape, .dtype = x.dtype };
        try ops_convolution.padInput(cuda, input, x, options);
        padding = .{ .top = 0, .bottom = 0, .left = 0, .right = 0 };
    }
    const is_whole = options.activation == .none and options.channel_bias == null;
    const residual = if (is_whole) options.residual else null;
    const fused = try cuda.libraries.?.convolution.run(cuda.stream, .{
        .batch = input.shape.batch,
        .rows = input.shape.rows,
        .width = input.shape.width,
        .channels = input.shape.channels,
        .out_channels = weight.shape[0],
        .kernel = weight.shape[1],
        .stride = options.stride,
        .padding = padding.top,
        .dtype = x.dtype,
        .out = out.address,
        .x = input.address,
        .w = try ops_widen.operand(cuda, weight),
        .bias = cuda.addressOrNull(bias),
        .residual = grids.addressOrNull(residual),
        .scale = options.scale,
    });
    const is_bare = fused == .product_alone;
    if (is_whole and !is_bare) return;
    try ops_elementwise.biasActivationResidual(cuda, out, .{
        .bias = if (is_bare) bias else null,
        .channel_bias = options.channel_bias,
        .activation = options.activation,
        .residual = options.residual,
    });
}

/// By cuBLASLt, or as `--fp16-accumulate` asks for. `weight` is what `call.w` was made of.
pub fn multiply(cuda: *Cuda, weight: *const Weight, call: Call) Error!void {
    if (cuda.cascades(weight) and cascaded.fits(call)) {
        return cascaded.run(cuda, call);
    }
    return cuda.libraries.?.matmul.run(cuda.stream, call);
}
