//! The own kernels of int8 products (cuda/quantize_rows.cu, linear_int8.cu, finish_int8.cu): their
//! launches. `ops_int8.zig` chooses between them and cuBLASLt.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const grids = @import("grids.zig");
const backend = @import("../../backend.zig");

/// What follows the sums. The same struct is in cuda/int8.cuh.
pub const Epilogue = extern struct {
    out: usize,
    row_scales: usize,
    column_scales: usize,
    bias: usize,
    residual: usize,
    out_stride: u32,
    row_count: u32,
    /// Of the result; a gated product has twice as many.
    column_count: u32,
    activation: backend.Activation,
    scale: f32,
    unused: u32 = 0,

    comptime {
        assert(@sizeOf(Epilogue) == 64);
    }

    /// Of the rows from `first` on.
    pub fn rows(e: Epilogue, first: u32, count: u32) Epilogue {
        var part = e;
        const elements = @as(usize, first) * e.out_stride;
        part.out += elements * activation_bytes;
        if (part.residual != 0) part.residual += elements * activation_bytes;
        part.row_scales += @as(usize, first) * @sizeOf(f32);
        part.row_count = count;
        return part;
    }
};

/// Whether the second half of the columns gates the first.
pub const Gate = enum { none, geglu };

/// Rotates and rounds rows of `depth` elements at `x`: integers to `out`, a scale for each row.
pub fn quantizeRows(
    cuda: *Cuda,
    out: usize,
    scales: usize,
    x: usize,
    row_count: u32,
    depth: u32,
    group: u32,
) cudas.Error!void {
    assert(depth % thread_elements == 0 and depth % group == 0);
    const threads = std.mem.alignForward(u32, depth / thread_elements, warp_lanes);
    assert(threads <= quantize_threads_max);
    const rows = @max(1, grids.block_size / threads);
    const block: cudas.Dim3 = .{ .x = threads, .y = rows };
    const grid: cudas.Dim3 = .{ .x = std.math.divCeil(u32, row_count, rows) catch unreachable };
    const shared = rows * threads / square_threads * square_bytes;
    return cuda.launch("quantize_rows", .typed, grid, block, shared, .{
        out, scales, x, depth, group, row_count,
    });
}

/// The whole layer in one kernel; x (row_count, depth), w (columns, depth).
pub fn multiply(
    cuda: *Cuda,
    gate: Gate,
    e: Epilogue,
    x: usize,
    w: usize,
    depth: u32,
) cudas.Error!void {
    checkAlignment(e);
    assert(grids.areAligned(&.{ x, w }) and depth % 16 == 0);
    const columns: u32 = if (gate == .none) 2 * half_columns else half_columns;
    const grid: cudas.Dim3 = .{
        .x = std.math.divCeil(u32, e.row_count, tile_rows) catch unreachable,
        .y = std.math.divCeil(u32, e.column_count, columns) catch unreachable,
    };
    const problem: Problem = .{ .e = e, .x = x, .w = w, .depth = depth };
    const block: cudas.Dim3 = .{ .x = thread_count };
    switch (gate) {
        .none => try cuda.launch("linear_int8", .typed, grid, block, shared_bytes, .{problem}),
        .geglu => {
            try cuda.launch("linear_int8_geglu", .typed, grid, block, shared_bytes, .{problem});
        },
    }
}

/// What follows sums in int32 that lie at `sums`, row by row.
pub fn finish(cuda: *Cuda, gate: Gate, e: Epilogue, sums: usize) cudas.Error!void {
    checkAlignment(e);
    const grid = grids.blocks(@as(u64, e.row_count) * (e.column_count / grids.pack_count));
    const problem: Sums = .{ .e = e, .sums = sums };
    switch (gate) {
        .none => try cuda.launch("finish_int8", .typed, grid, grids.block, 0, .{problem}),
        .geglu => try cuda.launch("finish_int8_geglu", .typed, grid, grids.block, 0, .{problem}),
    }
}

// --- internal ---

/// Of f16 and bf16.
const activation_bytes = 2;
const warp_lanes = 32;

/// Of quantize_rows.cu.
const thread_elements = 16;
const quantize_threads_max = 512;
const square_threads = 16;
const square_bytes = (16 * 20 + 16) * @sizeOf(f32);

/// Of linear_int8.cu.
const tile_rows = 128;
const half_columns = 64;
const thread_count = 128;
const shared_bytes = 3 * (tile_rows + 2 * half_columns) * 64;

/// As in linear_int8.cu.
const Problem = extern struct {
    e: Epilogue,
    x: usize,
    w: usize,
    depth: u32,
    unused: u32 = 0,
};

/// As in finish_int8.cu.
const Sums = extern struct { e: Epilogue, sums: usize };

fn checkAlignment(e: Epilogue) void {
    assert(e.column_count % grids.pack_count == 0 and e.out_stride % grids.pack_count == 0);
    assert(grids.areAligned(&.{ e.out, e.bias, e.residual, e.row_scales, e.column_scales }));
}

test "rows of the longest depth fit the shared memory that every kernel has" {
    const most = quantize_threads_max / square_threads * square_bytes;
    const partial = quantize_threads_max / warp_lanes * @sizeOf(u32);
    try std.testing.expect(most + partial <= 48 << 10);
    const depth_max = @import("../../weights.zig").int8.depth_max;
    try std.testing.expectEqual(quantize_threads_max, depth_max / thread_elements);
}
