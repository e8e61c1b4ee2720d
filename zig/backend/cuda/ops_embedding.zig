//! Launchers of embeddings: tokens, their pooled position, sinusoids of timesteps and sizes.

const std = @import("std");
const assert = std.debug.assert;
const grids = @import("grids.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

pub fn embedTokens(
    cuda: *Cuda,
    out: Tensor,
    ids: Tensor,
    token_weight: *const Weight,
    position_weight: *const Weight,
    injected: ?Tensor,
) Error!void {
    const count = grids.positionPacks(out, out.shape.channels);
    return cuda.launch("embed_tokens", .typed, grids.blocks(count), grids.block, 0, .{
        out.address,
        ids.address,
        cuda.addressOf(token_weight),
        cuda.addressOf(position_weight),
        if (injected) |rows| rows.address else 0,
        token_weight.shape[0],
        @as(u32, @intCast(ids.shape.positionCount())),
        out.shape.channels,
        count,
    });
}

pub fn gatherTokens(cuda: *Cuda, out: Tensor, x: Tensor, indices: Tensor) Error!void {
    assert(x.dtype.size() == 2 and out.dtype == x.dtype);
    const grid = grids.blockRows(grids.packs(x.shape.channels), x.shape.batch);
    return cuda.launch("gather_tokens", .untyped, grid, grids.block, 0, .{
        out.address,
        x.address,
        indices.address,
        @as(u32, @intCast(x.shape.positionCount())),
        x.shape.channels,
    });
}

pub fn sinusoidalEmbedding(
    cuda: *Cuda,
    out: Tensor,
    values: Tensor,
    flip_sin_to_cos: bool,
    frequency_shift: f32,
) Error!void {
    assert(values.dtype == .f32);
    const half = out.shape.channels / 2;
    const divisor: f32 = @floatCast(@as(f64, @floatFromInt(half)) - frequency_shift);
    const grid = grids.blocks(@as(u64, values.shape.batch) * half);
    return cuda.launch("sinusoidal_embedding", .typed, grid, grids.block, 0, .{
        out.address,
        values.address,
        values.shape.batch,
        half,
        @as(u32, @intFromBool(flip_sin_to_cos)),
        divisor,
    });
}
