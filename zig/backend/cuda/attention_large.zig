//! Attention for heads over 128, such as the VAE's one of 512: scores by a matrix product into f32,
//! a softmax in place (cuda/softmax_rows.cu), a product with the values; one block of rows of q
//! after the other, so that the scores of a whole image never exist at once.

const std = @import("std");
const assert = std.debug.assert;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const attentions = @import("ops_attention.zig");
const tensors = @import("../../tensor.zig");
const Tensor = tensors.Tensor;
const Shape = tensors.Shape;

/// Scores of a block: rows enough to fill any GPU, little beside a VAE's activations.
const score_bytes_max = 128 << 20;
const row_count_min = 64;
const chunk_count_max = 16;
/// Of softmax_rows.cu.
const thread_count = 256;
const weight_scale = 4096;

/// As `ops_attention.attention`, which checks the arguments.
pub fn attention(
    cuda: *Cuda,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    head_count: u32,
    causal: bool,
    temporary: Tensor,
) Error!void {
    const row_count: u32 = @intCast(q.shape.positionCount());
    const block_rows = blockRows(q.shape, keys_values);
    for (0..q.shape.batch) |batch| {
        for (0..head_count) |head| {
            var first: u32 = 0;
            while (first < row_count) : (first += block_rows) {
                const block: Block = .{
                    .q = q,
                    .out = out,
                    .keys_values = keys_values,
                    .scores = temporary.address,
                    .stride = stride(keys_values),
                    .batch = batch,
                    .channel_first = head * (q.shape.channels / head_count),
                    .head_size = q.shape.channels / head_count,
                    .query_first = first,
                    .query_count = @min(block_rows, row_count - first),
                    .causal = causal,
                };
                try block.run(cuda);
            }
        }
    }
}

/// Device bytes for one block's scores.
pub fn temporaryBytes(q: Shape, keys_values: []const Tensor) usize {
    return blockRows(q, keys_values) * stride(keys_values) * @sizeOf(f32);
}

/// Two products for each chunk around a softmax, for each block of rows. Every score is written and
/// read in f32, then as a weight of 16 bits.
pub fn kernelsOf(q: Shape, keys_values: []const Tensor, head_count: u32) attentions.Kernels {
    const units: u32 = q.batch * head_count;
    const row_count: u32 = @intCast(q.positionCount());
    const block_count = std.math.divCeil(u32, row_count, blockRows(q, keys_values)) catch
        unreachable;
    const chunk_count: u32 = @intCast(keys_values.len);
    return .{
        .launches = units * block_count * (2 * chunk_count + 1),
        .temporary_bytes = 12 * stride(keys_values) * row_count * units,
    };
}

// --- internal ---

/// Rows of one head of one batch element.
const Block = struct {
    q: Tensor,
    out: Tensor,
    keys_values: []const Tensor,
    /// (query count, stride) f32; later the weights in the front half of each row.
    scores: usize,
    stride: u64,
    batch: usize,
    channel_first: usize,
    head_size: u32,
    query_first: u32,
    query_count: u32,
    causal: bool,

    fn run(block: Block, cuda: *Cuda) Error!void {
        var softmax: Softmax = .{
            .scores = block.scores,
            .stride = block.stride,
            .query_first = block.query_first,
            .causal = @intFromBool(block.causal),
        };
        var column: u64 = 0;
        for (block.keys_values) |chunk| {
            const count: u32 = @intCast(chunk.shape.positionCount());
            if (count == 0) continue;
            try block.multiplyKeys(cuda, chunk, column);
            softmax.token_counts[softmax.chunk_count] = count;
            softmax.chunk_count += 1;
            column += columns(count);
        }
        const grid: cudas.Dim3 = .{ .x = block.query_count };
        try cuda.launch("softmax_rows", .typed, grid, .{ .x = thread_count }, 0, .{softmax});
        column = 0;
        for (block.keys_values) |chunk| {
            const count: u32 = @intCast(chunk.shape.positionCount());
            if (count == 0) continue;
            try block.multiplyValues(cuda, chunk, column);
            column += columns(count);
        }
    }

    /// Scores of this chunk's tokens, in base 2, from column `column` on.
    fn multiplyKeys(block: Block, cuda: *Cuda, chunk: Tensor, column: u64) Error!void {
        const root = @sqrt(@as(f64, @floatFromInt(block.head_size)));
        try cuda.libraries.?.matmul.run(cuda.stream, .{
            .m = block.query_count,
            .n = @intCast(chunk.shape.positionCount()),
            .k = block.head_size,
            .input = cuda.activation,
            .output = .f32,
            .out = block.scores + column * @sizeOf(f32),
            .out_stride = block.stride,
            .x = block.rowsOf(block.q),
            .x_stride = block.q.shape.channels,
            .w = block.tokensOf(chunk),
            .w_stride = chunk.shape.channels,
            .scale = @floatCast(std.math.log2e / root),
        });
    }

    /// Adds this chunk's values, by their weights, to what the chunks before gave.
    fn multiplyValues(block: Block, cuda: *Cuda, chunk: Tensor, column: u64) Error!void {
        const size = cuda.activation.size();
        const rows = block.rowsOf(block.out);
        try cuda.libraries.?.matmul.run(cuda.stream, .{
            .m = block.query_count,
            .n = block.head_size,
            .k = @intCast(chunk.shape.positionCount()),
            .input = cuda.activation,
            .output = cuda.activation,
            .out = rows,
            .out_stride = block.out.shape.channels,
            .x = block.scores + column * size,
            .x_stride = block.stride * @sizeOf(f32) / size,
            .w = block.tokensOf(chunk) + block.q.shape.channels * size,
            .w_stride = chunk.shape.channels,
            .w_order = .in_out,
            .scale = 1.0 / @as(f32, weight_scale),
            .residual = if (column > 0) rows else 0,
            .residual_stride = block.out.shape.channels,
        });
    }

    /// This block's rows of this head.
    fn rowsOf(block: Block, x: Tensor) usize {
        const row = block.batch * x.shape.positionCount() + block.query_first;
        return x.address + (row * x.shape.channels + block.channel_first) * x.dtype.size();
    }

    /// This head's keys.
    fn tokensOf(block: Block, chunk: Tensor) usize {
        const row = block.batch * chunk.shape.positionCount();
        return chunk.address +
            (row * chunk.shape.channels + block.channel_first) * chunk.dtype.size();
    }
};

/// As Problem in softmax_rows.cu.
const Softmax = extern struct {
    scores: usize,
    stride: u64,
    token_counts: [chunk_count_max]u32 = @splat(0),
    chunk_count: u32 = 0,
    query_first: u32,
    causal: u32,
};

comptime {
    assert(@sizeOf(Softmax) == 96);
}

/// Columns of a chunk: its weights begin at a multiple of 16 bytes.
fn columns(token_count: usize) u64 {
    return std.mem.alignForward(u64, token_count, 8);
}

fn stride(keys_values: []const Tensor) u64 {
    var sum: u64 = 0;
    for (keys_values) |chunk| sum += columns(chunk.shape.positionCount());
    return sum;
}

/// Blocks of one size, but for the last: each size is a problem that the library measures.
fn blockRows(q: Shape, keys_values: []const Tensor) u32 {
    const row_count: u32 = @intCast(q.positionCount());
    const fitting = score_bytes_max / (stride(keys_values) * @sizeOf(f32));
    const rows_max: u32 = @intCast(@min(@max(fitting, row_count_min), row_count));
    const block_count = (row_count + rows_max - 1) / rows_max;
    return std.mem.alignForward(u32, (row_count + block_count - 1) / block_count, 8);
}

test "scores of a whole image are never there at once" {
    const tokens: Tensor = .{ .address = 0, .shape = .tokens(1, 16384, 1024) };
    const q: Shape = .tokens(1, 16384, 512);
    try std.testing.expectEqual(2048, blockRows(q, &.{tokens}));
    try std.testing.expectEqual(128 << 20, temporaryBytes(q, &.{tokens}));
    const few: Tensor = .{ .address = 0, .shape = .tokens(1, 9, 1024) };
    try std.testing.expectEqual(24, blockRows(.tokens(1, 17, 512), &.{ few, few }));
    try std.testing.expectEqual(24 * 32 * 4, temporaryBytes(.tokens(1, 17, 512), &.{ few, few }));
}
