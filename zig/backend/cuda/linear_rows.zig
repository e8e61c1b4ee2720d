//! Several linear layers of the same few rows in one launch (cuda/linear_rows.cu).

const std = @import("std");
const assert = std.debug.assert;
const grids = @import("grids.zig");
const ops_widen = @import("ops_widen.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

/// Of one launch.
pub const layer_count_max = 32;

const thread_count = 256;
const columns_of_block = thread_count / 32;

/// Must match Layer in cuda/linear_rows.cu.
const Layer = extern struct {
    out: usize = 0,
    w: usize = 0,
    bias: usize = 0,
    column_count: u64 = 0,
};

/// Must match Problem there.
const Problem = extern struct {
    layers: [layer_count_max]Layer = @splat(.{}),
    x: usize,
    row_count: u32,
    depth: u32,
};

/// Whether the kernel can do all: in one launch where the weights are kept in the activations'
/// type, and in 8 bits a launch each, behind the widening, so that the bits are the same.
pub fn fit(weights: []const *const Weight) bool {
    if (weights.len == 0 or weights.len > layer_count_max) return false;
    for (weights) |weight| {
        if (weight.dtype == .i8) return false;
        if (weight.shape[0] % grids.pack_count != 0) return false;
        if (weight.shape[1] % grids.pack_count != 0) return false;
    }
    return true;
}

pub fn run(
    cuda: *Cuda,
    outs: []const Tensor,
    x: Tensor,
    weights: []const *const Weight,
    biases: []const *const Weight,
) cudas.Error!void {
    assert(fit(weights) and x.dtype == cuda.activation and grids.areAligned(&.{x.address}));
    if (!anyKept8(weights)) return launch(cuda, outs, x, weights, biases);
    for (0..outs.len) |at| {
        try launch(cuda, outs[at..][0..1], x, weights[at..][0..1], biases[at..][0..1]);
    }
}

// --- internal ---

fn anyKept8(weights: []const *const Weight) bool {
    return for (weights) |weight| {
        if (weight.kept_f8 != null) break true;
    } else false;
}

fn launch(
    cuda: *Cuda,
    outs: []const Tensor,
    x: Tensor,
    weights: []const *const Weight,
    biases: []const *const Weight,
) cudas.Error!void {
    assert(outs.len == 1 or !anyKept8(weights));
    var problem: Problem = .{
        .x = x.address,
        .row_count = x.shape.batch,
        .depth = x.shape.channels,
    };
    var most: u32 = 0;
    for (problem.layers[0..outs.len], outs, weights, biases) |*layer, out, weight, bias| {
        layer.* = .{
            .out = out.address,
            .w = try ops_widen.operand(cuda, weight),
            .bias = cuda.addressOf(bias),
            .column_count = weight.shape[0],
        };
        assert(grids.areAligned(&.{layer.w}));
        most = @max(most, weight.shape[0]);
    }
    const grid: cudas.Dim3 = .{
        .x = std.math.divCeil(u32, most, columns_of_block) catch unreachable,
        .y = @intCast(outs.len),
    };
    return cuda.launch("linear_rows", .typed, grid, .{ .x = thread_count }, 0, .{problem});
}
