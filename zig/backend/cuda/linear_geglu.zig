//! The own kernels of the feed-forward's gated product (cuda/linear_geglu.cu): which of them a GPU
//! has, and what they can do. `ops_geglu.zig` chooses between them and cuBLASLt.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;

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
                .columns = 128,
                .depth = 64,
                .stages = 4,
                .threads = 256,
                // Its tiles begin at multiples of 1024 bytes.
                .slack = 1024,
            },
            .linear_geglu => .{ .columns = 64, .depth = 32, .stages = 3, .threads = 128 },
        };
    }
};

/// Whether own kernels can do products of these sizes: 16-byte accesses all through.
pub fn fits(columns: u32, k: u32) bool {
    return columns % elements_aligned == 0 and k % elements_aligned == 0;
}

/// The fastest that the GPU has. Hopper's is machine code for it alone: what the driver compiles
/// for it from the fatbin's PTX is empty.
pub fn kernelFor(cuda: *Cuda) cudas.Error!Kernel {
    if (cuda.geglu_kernel) |known| return known;
    const major = try cuda.deviceAttribute(.compute_capability_major);
    const minor = try cuda.deviceAttribute(.compute_capability_minor);
    var kernel: Kernel = .linear_geglu;
    if (major == 9 and minor == 0) {
        const name = if (cuda.activation == .bf16) wgmma_bf16 else wgmma_f16;
        const version = try cuda.functionAttribute(name, .ptx_version);
        if (version >= hopper_ptx_version) kernel = .linear_geglu_wgmma;
    }
    cuda.geglu_kernel = kernel;
    return kernel;
}

pub fn run(cuda: *Cuda, kernel: Kernel, call: Call) cudas.Error!void {
    assert(fits(call.columns, call.k));
    for ([_]usize{ call.out, call.x, call.w, call.bias }) |address| assert(address % 16 == 0);
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
        .x = std.math.divCeil(u32, call.m, tile_rows) catch unreachable,
        .y = std.math.divCeil(u32, call.columns, tile.columns) catch unreachable,
    };
    switch (kernel) {
        inline else => |known| try cuda.launch(
            @tagName(known),
            .typed,
            grid,
            .{ .x = tile.threads },
            tile.sharedBytes(),
            .{problem},
        ),
    }
}

// --- internal ---

const wgmma_f16 = "linear_geglu_wgmma_f16";
const wgmma_bf16 = "linear_geglu_wgmma_bf16";
/// CU_FUNC_ATTRIBUTE_PTX_VERSION of code for compute_90 or compute_90a.
const hopper_ptx_version = 90;

/// Elements of a 16-byte copy.
const elements_aligned = 8;
const tile_rows = 128;

/// Of linear_geglu.cu.
const Tile = struct {
    columns: u32,
    depth: u32,
    stages: u32,
    threads: u32,
    slack: u32 = 0,

    fn sharedBytes(tile: Tile) u32 {
        return tile.stages * (tile_rows + 2 * tile.columns) * tile.depth * 2 + tile.slack;
    }
};

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
    try std.testing.expect(2 * (tile.sharedBytes() + kept_by_driver) <= consumer_bytes);
    const hopper_bytes = 227 * 1024;
    try std.testing.expect(Kernel.linear_geglu_wgmma.tile().sharedBytes() <= hopper_bytes);
}
