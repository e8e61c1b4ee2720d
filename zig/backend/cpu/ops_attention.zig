//! Attention: one task per (batch element, head, block of queries). Every task reads all keys and
//! values of its head, so blocks of queries are as long as its workspace and the time limit allow.

const std = @import("std");
const assert = std.debug.assert;
const arguments = @import("arguments.zig");
const Cpu = @import("../cpu.zig").Cpu;
const blocks = @import("blocks.zig");
const ops_product = @import("ops_product.zig");
const Tensor = @import("../../tensor.zig").Tensor;
const count = blocks.count;
const floats = ops_product.floats;

/// Maximum number of shards of a sequence: one per rank.
pub const chunk_count_max = 64;
const tasks_per_thread = 4;

pub fn attention(
    cpu: *Cpu,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    head_count: u32,
    causal: bool,
) error{Cancelled}!void {
    assert(keys_values.len <= chunk_count_max);
    const kernels = cpu.kernels;
    const head_size = q.shape.channels / head_count;
    assert(head_size <= kernels.head_size_max);
    var chunks: [chunk_count_max]arguments.KeysValues = undefined;
    var key_count: usize = 0;
    for (keys_values, chunks[0..keys_values.len]) |tensor, *chunk| {
        chunk.* = .{ .data = floats(tensor), .token_count = tensor.shape.positionCount() };
        key_count += chunk.token_count;
    }
    const query_count = q.shape.positionCount();
    const head_width = std.mem.alignForward(usize, head_size, kernels.limits.tile_columns);
    const query_block = queryBlock(cpu, q, head_count, head_width, key_count);
    const block_count = count(query_count, query_block);
    const columns = kernels.limits.tile_columns;
    const keys_fit = kernels.attention_elements_max / head_width / columns * columns;
    const args: arguments.Attention = .{
        .q = floats(q),
        .out = floats(out),
        .chunks = &chunks,
        .chunk_count = keys_values.len,
        .query_count = query_count,
        .query_block = query_block,
        .query_block_count = block_count,
        .key_block = @min(kernels.key_block_max, keys_fit),
        .channels = q.shape.channels,
        .head_count = head_count,
        .causal = causal,
    };
    return cpu.pool.run(kernels.attention, &args, q.shape.batch * head_count * block_count);
}

/// Queries of one task. Rows are independent, so this changes no result.
fn queryBlock(
    cpu: *const Cpu,
    q: Tensor,
    head_count: u32,
    head_width: usize,
    key_count: usize,
) usize {
    const kernels = cpu.kernels;
    const rows = kernels.limits.tile_rows;
    const fits = kernels.attention_elements_max / head_width;
    const timely = kernels.limits.task_flops_max / (4 * head_width * @max(1, key_count));
    const heads = q.shape.batch * head_count;
    const wanted = tasks_per_thread * cpu.pool.thread_count / heads + 1;
    // Short blocks would repack the keys too often: at least eight tiles, even where that is
    // uneven.
    const balanced = @max(8 * rows, q.shape.positionCount() / wanted);
    const limit = @min(kernels.query_block_max, fits, timely, balanced);
    return @max(1, limit / rows) * rows;
}
