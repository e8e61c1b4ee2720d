//! Cross-attention with the product that makes its queries: on Hopper by an own kernel, which never
//! writes them; elsewhere, or where that is faster, by a product and an attention.
//! Other GPUs have no such kernel: their own product would be cuBLASLt's instructions without its
//! tuning, and what is saved, queries of 5 to 10 MB, stays in the cache of an A100 or a newer GPU.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const cross_attention = @import("cross_attention.zig");
const ops_attention = @import("ops_attention.zig");
const ops_product = @import("ops_product.zig");
const ops_widen = @import("ops_widen.zig");
const own_or_library = @import("own_or_library.zig");
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;
const wgmma = @import("wgmma.zig");

/// Whether one kernel can do it, as far as sizes say.
pub fn isOneKernel(weight: *const Weight, head_count: u32) bool {
    if (weight.dtype == .i8) return false;
    return cross_attention.fits(weight.shape[0], weight.shape[1], head_count);
}

/// `q`: room for the queries. `temporary`: as `attention` needs for them.
pub fn crossAttention(
    cuda: *Cuda,
    out: Tensor,
    q: Tensor,
    x: Tensor,
    weight: *const Weight,
    keys_values: Tensor,
    head_count: u32,
    temporary: ?Tensor,
) Error!void {
    assert(x.dtype == cuda.activation and keys_values.dtype == cuda.activation);
    const ways: Ways = .{
        .cuda = cuda,
        .out = out,
        .q = q,
        .x = x,
        .weight = weight,
        .keys_values = keys_values,
        .head_count = head_count,
        .temporary = temporary,
    };
    return ways.take(try ways.choose());
}

// --- internal ---

const Ways = struct {
    cuda: *Cuda,
    out: Tensor,
    q: Tensor,
    x: Tensor,
    weight: *const Weight,
    keys_values: Tensor,
    head_count: u32,
    temporary: ?Tensor,

    fn choose(ways: *const Ways) Error!own_or_library.Way {
        const cuda = ways.cuda;
        if (!isOneKernel(ways.weight, ways.head_count) or !try wgmma.isThere(cuda)) {
            return .library;
        }
        if (cuda.cascades(ways.weight)) return .library;
        const x = ways.x.shape;
        const keys = ways.keys_values.shape.positionCount();
        var buffer: [128]u8 = undefined;
        const name = std.fmt.bufPrint(&buffer, "cross-attention {t} {d}x{d}x{d} of {d} to {d}", .{
            cuda.activation, x.batch, x.positionCount(), ways.head_count, x.channels, keys,
        }) catch unreachable; // Five numbers fit 128 bytes.
        const flops = 2 * @as(u64, ways.q.shape.elementCount()) * (x.channels + 2 * keys);
        return own_or_library.choose(cuda, ways, flops, name);
    }

    pub fn take(ways: *const Ways, way: own_or_library.Way) Error!void {
        const cuda = ways.cuda;
        if (way == .own) return cross_attention.run(cuda, .{
            .batch = ways.x.shape.batch,
            .queries = @intCast(ways.x.shape.positionCount()),
            .keys = @intCast(ways.keys_values.shape.positionCount()),
            .heads = ways.head_count,
            .depth = ways.x.shape.channels,
            .out = ways.out.address,
            .x = ways.x.address,
            .w = try ops_widen.operand(cuda, ways.weight),
            .keys_values = ways.keys_values.address,
        });
        try ops_product.linear(cuda, ways.q, 0, ways.x, ways.weight, null, .{});
        return ops_attention.attention(
            cuda,
            ways.out,
            ways.q,
            &.{ways.keys_values},
            ways.head_count,
            false,
            ways.temporary,
        );
    }
};
