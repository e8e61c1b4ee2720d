//! Linear layers with int8 weights on a GPU. Rows of activations are rotated and rounded as the CPU
//! rounds them; the product is one own kernel, or cuBLASLt's with its sums in int32 in temporary
//! memory and a pass behind it. Both have the same bits.
//!
//! cuBLASLt's int8 products end in int32 or, by one scale for all, in int8: no result of 16 bits,
//! no scales of rows and columns, no epilogue. So each result costs 4 bytes written and 4 read
//! beside its own 2. At depth 640 that is 1.9 ps on an H200 (4.3 TB/s), where the product in int8
//! takes 0.9 ps and in f16 all takes 2.1; at 1280 1.9 of 3.7 and 4.3 ps; on consumer cards (1 TB/s)
//! several times as much. The own kernel writes no sums, but reaches some 62 % of Hopper's tensor
//! cores by mma.sync, which the library's wgmma passes at large depths: large products are timed.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const grids = @import("grids.zig");
const linear_int8 = @import("linear_int8.zig");
const own_or_library = @import("own_or_library.zig");
pub const Way = own_or_library.Way;
const Gate = linear_int8.Gate;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

/// `out` has four channels more than `x`: behind all integers are the scales of the rows.
pub fn quantizeRows(cuda: *Cuda, out: Tensor, x: Tensor, group: u32) Error!void {
    assert(out.dtype == .i8 and x.dtype == cuda.activation);
    const depth = x.shape.channels;
    const rows: u32 = @intCast(x.shape.rowCount());
    const scales = scalesOf(out, rows, depth);
    return linear_int8.quantizeRows(cuda, out.address, scales, x.address, rows, depth, group);
}

/// Device bytes for sums of so many rows and columns: a piece of the rows, which the cache of large
/// GPUs holds.
pub fn sumBytes(row_count: u32, column_count: u32) usize {
    return @as(usize, @min(row_count, pieceRows(column_count))) * column_count * @sizeOf(i32);
}

/// As `Cuda.linear`, of a weight in int8; `options` has the rounded rows and room for sums.
pub fn linear(
    cuda: *Cuda,
    out: Tensor,
    channel_first: u32,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) Error!void {
    return run(linearLayer(cuda, out, channel_first, weight, bias, options));
}

/// The same, to be done by `Layer.take`.
pub fn linearLayer(
    cuda: *Cuda,
    out: Tensor,
    channel_first: u32,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) Layer {
    const column_count = weight.shape[0];
    return .of(cuda, weight, options, .{
        .out = out.address + channel_first * out.dtype.size(),
        .out_stride = out.shape.channels,
        .column_count = column_count,
        .bias = cuda.addressOrNull(bias),
        .residual = grids.addressOrNull(options.residual),
        .activation = options.activation,
        .scale = options.scale,
    });
}

/// As `Cuda.linearAdjacent`.
pub fn linearAdjacent(
    cuda: *Cuda,
    out: Tensor,
    first: *const Weight,
    options: backend.LinearOptions,
) Error!void {
    return run(.of(cuda, first, options, .{
        .out = out.address,
        .out_stride = out.shape.channels,
        .column_count = out.shape.channels,
    }));
}

/// As `Cuda.linearGeglu`.
pub fn linearGeglu(
    cuda: *Cuda,
    out: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    options: backend.LinearOptions,
) Error!void {
    return run(gegluLayer(cuda, out, weight, bias, options));
}

/// The same, to be done by `Layer.take`.
pub fn gegluLayer(
    cuda: *Cuda,
    out: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    options: backend.LinearOptions,
) Layer {
    return .of(cuda, weight, options, .{
        .gate = .geglu,
        .out = out.address,
        .out_stride = out.shape.channels,
        .column_count = out.shape.channels,
        .bias = cuda.addressOf(bias),
    });
}

/// One product, with what follows it.
pub const Layer = struct {
    cuda: *Cuda,
    gate: Gate,
    e: linear_int8.Epilogue,
    x: usize,
    w: usize,
    depth: u32,
    sums: usize,

    const Result = struct {
        gate: Gate = .none,
        out: usize,
        out_stride: u32,
        column_count: u32,
        bias: usize = 0,
        residual: usize = 0,
        activation: backend.Activation = .none,
        scale: f32 = 1,
    };

    fn of(
        cuda: *Cuda,
        weight: *const Weight,
        options: backend.LinearOptions,
        result: Result,
    ) Layer {
        const depth = weight.shape[1];
        const quantized = options.quantized.?;
        assert(quantized.shape.channels == depth + @sizeOf(f32));
        const row_count: u32 = @intCast(quantized.shape.rowCount());
        return .{
            .cuda = cuda,
            .gate = result.gate,
            .e = .{
                .out = result.out,
                .row_scales = scalesOf(quantized, row_count, depth),
                .column_scales = cuda.weights_base + weight.int8_scales_offset,
                .bias = result.bias,
                .residual = result.residual,
                .out_stride = result.out_stride,
                .row_count = row_count,
                .column_count = result.column_count,
                .activation = result.activation,
                .scale = result.scale,
            },
            .x = quantized.address,
            .w = cuda.addressOf(weight),
            .depth = depth,
            .sums = grids.addressOrNull(options.sums),
        };
    }

    fn sumColumns(layer: *const Layer) u32 {
        return switch (layer.gate) {
            .none => layer.e.column_count,
            .geglu => 2 * layer.e.column_count,
        };
    }

    pub fn take(layer: *const Layer, way: Way) Error!void {
        const cuda = layer.cuda;
        const all = layer.e.row_count;
        if (way == .own) {
            return linear_int8.multiply(cuda, layer.gate, layer.e, layer.x, layer.w, layer.depth);
        }
        const columns = layer.sumColumns();
        const piece = pieceRows(columns);
        var first: u32 = 0;
        while (first < all) : (first += piece) {
            const count = @min(piece, all - first);
            try cuda.libraries.?.matmul.run(cuda.stream, .{
                .m = count,
                .n = columns,
                .k = layer.depth,
                .input = .i8,
                .output = .i32,
                .out = layer.sums,
                .x = layer.x + @as(usize, first) * layer.depth,
                .w = layer.w,
            });
            try linear_int8.finish(cuda, layer.gate, layer.e.rows(first, count), layer.sums);
        }
    }
};

// --- internal ---

/// Of sums that are in memory at once.
const piece_bytes = 32 << 20;
/// Of the library's tiles.
const row_unit = 128;

fn pieceRows(column_count: u32) u32 {
    const rows = piece_bytes / (@as(usize, column_count) * @sizeOf(i32));
    return @intCast(@max(row_unit, rows / row_unit * row_unit));
}

/// Behind the integers.
fn scalesOf(quantized: Tensor, rows: u32, depth: u32) usize {
    return quantized.address + @as(usize, rows) * depth;
}

fn run(layer: Layer) Error!void {
    const cuda = layer.cuda;
    const columns = layer.sumColumns();
    const flops = 2 * @as(u64, layer.e.row_count) * columns * layer.depth;
    if (layer.sums == 0) return layer.take(.own);
    var buffer: [128]u8 = undefined;
    const name = std.fmt.bufPrint(&buffer, "int8 {t} {t} {d}x{d}x{d}", .{
        cuda.activation, layer.gate, layer.e.row_count, columns, layer.depth,
    }) catch unreachable; // Three numbers fit 128 bytes.
    return layer.take(try own_or_library.choose(cuda, &layer, flops, name));
}

test "sums of a large product are in memory piece by piece" {
    try std.testing.expectEqual(100 * 640 * 4, sumBytes(100, 640));
    try std.testing.expectEqual(768 * 10240 * 4, sumBytes(2048, 10240));
    try std.testing.expect(sumBytes(1 << 20, 5120) <= piece_bytes);
    try std.testing.expectEqual(128 * (1 << 20) * 4, sumBytes(500, 1 << 20));
}
