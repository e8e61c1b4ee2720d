//! Splits a GEMM into blocks, and its blocks into tasks.
//! Blocks depend on the number of threads, results do not: an element's sum is made in one task and
//! its order of additions depends on the depth alone.

const std = @import("std");
const arguments = @import("arguments.zig");
const BlockLimits = arguments.BlockLimits;

/// Maximum rows of a block: beyond that, repacking the weights costs less than 1 %.
const row_block_max = 1024;
/// Minimum work of a task: below this, sharing costs more than it gains.
const task_flops_min = 4 << 20;
/// Minimum tasks per thread, to balance the load; more would pack the rows more often.
const tasks_per_thread = 2;

/// Cost of packing a weight, in packed row elements: it is transposed and widened, and read from
/// memory.
const weight_cost = 6;

/// Chooses the blocks and returns the number of tasks. Fewer rows per block repack the weights more
/// often, fewer columns the rows: the cheaper dimension is split, until tasks are short enough for
/// cancellation and enough for all threads.
pub fn cut(p: *arguments.Product, limits: BlockLimits, thread_count: usize) usize {
    const tile_rows = limits.tile_rows;
    const tile_columns = limits.tile_columns;
    var row_block = evenPart(p.rows_together, row_block_max, tile_rows);
    var column_block = evenPart(p.columns, limits.column_block_max, tile_columns);
    while (true) {
        const flops = 2 * row_block * column_block * p.depth;
        const tasks = count(p.rows_together, row_block) * count(p.columns, column_block);
        const plenty = thread_count == 1 or tasks >= tasks_per_thread * thread_count or
            flops < 2 * task_flops_min;
        if (plenty and flops <= limits.task_flops_max) break;
        if (row_block >= weight_cost * column_block and row_block > tile_rows) {
            row_block = evenPart(p.rows_together, row_block - tile_rows, tile_rows);
        } else if (column_block > tile_columns) {
            column_block = evenPart(p.columns, column_block - tile_columns, tile_columns);
        } else if (row_block > tile_rows) {
            row_block = evenPart(p.rows_together, row_block - tile_rows, tile_rows);
        } else break;
    }
    p.row_block = row_block;
    p.row_block_count = count(p.rows_together, row_block);
    p.column_block = column_block;
    p.column_block_count = count(p.columns, column_block);
    p.thread_count = thread_count;
    return p.row_block_count * p.column_block_count;
}

/// The size of equal blocks of `total`: a multiple of `unit`, about `limit` at most.
pub fn evenPart(total: usize, limit: usize, unit: usize) usize {
    const units = count(total, unit);
    const units_max = @max(1, limit / unit);
    return count(units, count(units, units_max)) * unit;
}

/// Number of blocks of `part` that cover `total`.
pub fn count(total: usize, part: usize) usize {
    return (total + part - 1) / part;
}

test "blocks cover everything and are whole tiles" {
    try std.testing.expectEqual(48, evenPart(96, 64, 16));
    try std.testing.expectEqual(16, evenPart(3, 64, 16));
    try std.testing.expectEqual(14, evenPart(77, 14, 14));
    try std.testing.expectEqual(32, evenPart(1280, 33, 32));
}
