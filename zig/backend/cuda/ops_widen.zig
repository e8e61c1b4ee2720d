//! Operands of products whose weights the GPU keeps in 8 bits: widened into the rank's workspace
//! right before the product, on the same stream. The workspace and the sources are at fixed
//! addresses, which CUDA graphs hold.

const std = @import("std");
const assert = std.debug.assert;
const grids = @import("grids.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const DType = @import("../../tensor.zig").DType;
const Weight = @import("../../weights.zig").Weight;

/// Where an 8-bit weight is now. Must match WidenSource in cuda/widen_f8.cu.
pub const Source = extern struct {
    data: u64,
    /// 0 for a copy in the activations' type.
    scales: u64,
    type: enum(u32) { e4m3, e5m2, wide },
    unused: u32 = 0,

    /// The weight as it was loaded, in a block of weights at `base`.
    pub fn stored(base: usize, weight: *const Weight) Source {
        return .{
            .data = base + weight.device_offset,
            .scales = base + weight.kept_f8.?.scales_offset,
            .type = if (weight.source_dtype == .f8_e5m2) .e5m2 else .e4m3,
        };
    }

    /// A copy of it in the activations' type.
    pub fn wide(address: usize) Source {
        return .{ .data = address, .scales = 0, .type = .wide };
    }
};

/// The address of a product's weight in the activations' type.
pub fn operand(cuda: *Cuda, weight: *const Weight) Error!usize {
    if (weight.kept_f8 == null) return cuda.addressOf(weight);
    try widen(cuda, cuda.widen_workspace, weight);
    return cuda.widen_workspace;
}

/// Of adjacent weights, which are one product.
pub fn adjacentOperand(cuda: *Cuda, weights: []const *const Weight) Error!usize {
    if (weights[0].kept_f8 == null) return cuda.addressOf(weights[0]);
    var target = cuda.widen_workspace;
    for (weights) |weight| {
        try widen(cuda, target, weight);
        target += weight.elementCount() * cuda.activation.size();
    }
    return cuda.widen_workspace;
}

// --- internal ---

fn widen(cuda: *Cuda, out: usize, weight: *const Weight) Error!void {
    assert(cuda.widen_workspace != 0);
    const count: u32 = @intCast(weight.elementCount());
    const grid = grids.blocks(grids.packs(count));
    return cuda.launch("widen_f8", .typed, grid, grids.block, 0, .{
        out,
        cuda.weights_base + weight.kept_f8.?.source_offset,
        count / weight.shape[0],
        count,
    });
}
