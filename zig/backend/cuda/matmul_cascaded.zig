//! `--fp16-accumulate`: linear layers by cuda/matmul_cascaded.cu instead of the library, sums of 64
//! products in f16. For consumer cards, whose tensor cores add f16 at twice the rate of f32; off by
//! default, and never what the VAE runs on (its activations can overflow a chunk's sum).

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Call = @import("gemm.zig").Call;
const Cuda = cudas.Cuda;
const grids = @import("grids.zig");

/// Whether the kernel can do this product; what it cannot goes to the library.
pub fn fits(call: Call) bool {
    if (call.input != .f16 or call.output != .f16) return false;
    if (call.w_order != .out_in or call.activation != .none or call.batch != null) return false;
    for ([_]u64{ call.n, call.k, call.out_stride, call.x_stride, call.w_stride }) |count| {
        if (count % grids.pack_count != 0) return false;
    }
    if (call.residual_stride % grids.pack_count != 0) return false;
    return grids.areAligned(&.{ call.out, call.x, call.w, call.bias, call.residual });
}

/// out = scale * x * w^T + bias + residual, as `Matmul.run`; `call` must fit.
pub fn run(cuda: *Cuda, call: Call) cudas.Error!void {
    assert(fits(call));
    assert(cuda.activation == .f16);
    const problem: Problem = .{
        .out = call.out,
        .x = call.x,
        .w = call.w,
        .bias = call.bias,
        .residual = call.residual,
        .out_stride = strideOf(call.out_stride, call.n),
        .x_stride = strideOf(call.x_stride, call.k),
        .w_stride = strideOf(call.w_stride, call.k),
        .residual_stride = strideOf(call.residual_stride, call.n),
        .row_count = call.m,
        .column_count = call.n,
        .depth = call.k,
        .scale = call.scale,
    };
    const grid: cudas.Dim3 = .{
        .x = (call.n + tile_columns - 1) / tile_columns,
        .y = (call.m + tile_rows - 1) / tile_rows,
    };
    const block: cudas.Dim3 = .{ .x = thread_count };
    try cuda.launch("matmul_cascaded", .typed, grid, block, shared_bytes, .{problem});
}

// --- internal ---

/// Of matmul_cascaded.cu.
const tile_rows = 128;
const tile_columns = 128;
const tile_depth = 32;
const stage_count = 3;
const thread_count = 256;
const shared_bytes = stage_count * (tile_rows + tile_columns) * tile_depth * 2;

/// As in matmul_cascaded.cu.
const Problem = extern struct {
    out: usize,
    x: usize,
    w: usize,
    bias: usize,
    residual: usize,
    out_stride: u32,
    x_stride: u32,
    w_stride: u32,
    residual_stride: u32,
    row_count: u32,
    column_count: u32,
    depth: u32,
    scale: f32,
};

comptime {
    assert(@sizeOf(Problem) == 72);
}

fn strideOf(stride: u64, width: u32) u32 {
    return if (stride == 0) width else @intCast(stride);
}

test "only products that 16-byte copies can read are taken" {
    var call: Call = .{
        .m = 77,
        .n = 640,
        .k = 640,
        .input = .f16,
        .output = .f16,
        .out = 256,
        .x = 512,
        .w = 1024,
    };
    try std.testing.expect(fits(call));
    call.k = 644;
    try std.testing.expect(!fits(call));
    call.k = 640;
    call.x = 514;
    try std.testing.expect(!fits(call));
    call.x = 512;
    call.input = .bf16;
    try std.testing.expect(!fits(call));
}
