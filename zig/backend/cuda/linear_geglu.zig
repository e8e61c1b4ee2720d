//! The own kernels of the feed-forward's gated product (cuda/linear_geglu.cu): which of them a GPU
//! has, and what they can do. `ops_geglu.zig` chooses between them and cuBLASLt.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const grids = @import("grids.zig");
const wgmma = @import("wgmma.zig");

/// One gated product of 16-bit operands: out (m, columns) of x (m, k), w (2 * columns, k).
pub const Call = struct {
    m: u32,
    columns: u32,
    k: u32,
    out: usize,
    x: usize,
    w: usize,
    bias: usize,
};

pub const Kernel = enum {
    /// Of Hopper, by its own tensor core instructions.
    linear_geglu_wgmma,
    /// Of every GPU since Ampere.
    linear_geglu,

    fn tile(kernel: Kernel) Tile {
        return switch (kernel) {
            .linear_geglu_wgmma => .{
                .rows = wgmma.tile_rows,
                .columns = 128,
                .threads = wgmma.thread_count,
                .shared_bytes = wgmma.sharedBytes(2 * 128),
            },
            .linear_geglu => .{
                .rows = 128,
                .columns = 64,
                .threads = 128,
                // Three stages, 32 columns deep.
                .shared_bytes = 3 * (128 + 2 * 64) * 32 * 2,
            },
        };
    }
};

/// Whether own kernels can do products of these sizes: 16-byte accesses all through.
pub fn fits(columns: u32, k: u32) bool {
    return columns % grids.pack_count == 0 and k % grids.pack_count == 0;
}

/// The fastest that the GPU has.
pub fn kernelFor(cuda: *Cuda) cudas.Error!Kernel {
    return if (try wgmma.isThere(cuda)) .linear_geglu_wgmma else .linear_geglu;
}

pub fn run(cuda: *Cuda, kernel: Kernel, call: Call) cudas.Error!void {
    assert(fits(call.columns, call.k));
    assert(grids.areAligned(&.{ call.out, call.x, call.w, call.bias }));
    const problem: Problem = .{
        .out = call.out,
        .x = call.x,
        .w = call.w,
        .bias = call.bias,
        .row_count = call.m,
        .column_count = call.columns,
        .depth = call.k,
    };
    const tile = kernel.tile();
    const grid: cudas.Dim3 = .{
        .x = std.math.divCeil(u32, call.m, tile.rows) catch unreachable,
        .y = std.math.divCeil(u32, call.columns, tile.columns) catch unreachable,
    };
    switch (kernel) {
        inline else => |known| try cuda.launch(
            @tagName(known),
            .typed,
            grid,
            .{ .x = tile.threads },
            tile.shared_bytes,
            .{problem},
        ),
    }
}

// --- internal ---

/// Of linear_geglu.cu.
const Tile = struct { rows: u32, columns: u32, threads: u32, shared_bytes: u32 };

/// As in linear_geglu.cu.
const Problem = extern struct {
    out: usize,
    x: usize,
    w: usize,
    bias: usize,
    row_count: u32,
    column_count: u32,
    depth: u32,
    unused: u32 = 0,
};

comptime {
    assert(@sizeOf(Problem) == 48);
}

test "two blocks of the kernel for all GPUs share a consumer card's memory" {
    const kept_by_driver = 1024;
    const consumer_bytes = 100 * 1024;
    const tile = Kernel.linear_geglu.tile();
    try std.testing.expect(2 * (tile.shared_bytes + kept_by_driver) <= consumer_bytes);
    const hopper_bytes = 227 * 1024;
    try std.testing.expect(Kernel.linear_geglu_wgmma.tile().shared_bytes <= hopper_bytes);
}
