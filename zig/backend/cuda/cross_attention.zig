//! The own kernel of a cross-attention with the product that makes its queries
//! (cuda/cross_attention.cu). `ops_cross_attention.zig` chooses between it and the libraries.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const grids = @import("grids.zig");
const wgmma = @import("wgmma.zig");

/// Operands of 16 bits: out (batch, queries, heads * 64), x (batch, queries, depth), w (heads * 64,
/// depth), keys_values (batch, keys, 2 * heads * 64).
pub const Call = struct {
    batch: u32,
    queries: u32,
    keys: u32,
    heads: u32,
    depth: u32,
    out: usize,
    x: usize,
    w: usize,
    keys_values: usize,
};

/// Whether the kernel can do it, as far as sizes say.
pub fn fits(channels: u32, depth: u32, head_count: u32) bool {
    return channels == head_count * head_size and depth % grids.pack_count == 0;
}

/// Only where `wgmma.isThere`.
pub fn run(cuda: *Cuda, call: Call) cudas.Error!void {
    assert(call.depth % grids.pack_count == 0 and call.keys > 0);
    assert(grids.areAligned(&.{ call.out, call.x, call.w, call.keys_values }));
    const grid: cudas.Dim3 = .{
        .x = std.math.divCeil(u32, call.queries, wgmma.tile_rows) catch unreachable,
        .y = std.math.divCeil(u32, call.heads, tile_heads) catch unreachable,
        .z = call.batch,
    };
    try cuda.launch(
        "cross_attention_wgmma",
        .typed,
        grid,
        .{ .x = wgmma.thread_count },
        shared_bytes,
        .{Problem{
            .out = call.out,
            .x = call.x,
            .w = call.w,
            .keys_values = call.keys_values,
            .query_count = call.queries,
            .key_count = call.keys,
            .head_count = call.heads,
            .depth = call.depth,
            .scale = std.math.log2e / @sqrt(@as(f32, head_size)),
        }},
    );
}

// --- internal ---

/// Of cross_attention.cu.
const head_size = 64;
const tile_heads = 3;
const shared_bytes = wgmma.sharedBytes(tile_heads * head_size);

/// As in cross_attention.cu.
const Problem = extern struct {
    out: usize,
    x: usize,
    w: usize,
    keys_values: usize,
    query_count: u32,
    key_count: u32,
    head_count: u32,
    depth: u32,
    scale: f32,
    unused: u32 = 0,
};

comptime {
    assert(@sizeOf(Problem) == 56);
}
