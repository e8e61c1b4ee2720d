//! Weights in 8 bits on a GPU against the CPU: f8 widened before a product, and linear layers in
//! int8, whose integers and sums are the CPU's, by the own kernel and by cuBLASLt.

const std = @import("std");
const backend = @import("../../backend.zig");
const device_weights = @import("../../backend/cuda/weights.zig");
const ops_int8 = @import("../../backend/cuda/ops_int8.zig");
const ops_widen = @import("../../backend/cuda/ops_widen.zig");
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const not_cancelled = @import("../../devices.zig").not_cancelled;
const Packer = @import("../../backend/cpu/pack_int8.zig").Packer;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;
const weights = @import("../../weights.zig");
const Weight = weights.Weight;

pub const checks = [_]Check{
    .{ .name = "widening of f8", .run = widenF8 },
    .{ .name = "quantizeRows", .run = quantizeRows },
    .{ .name = "linear, int8", .run = linear, .needs_libraries = true },
    .{ .name = "linear, int8, adjacent", .run = linearAdjacent, .needs_libraries = true },
    .{ .name = "linearGeglu, int8", .run = linearGeglu, .needs_libraries = true },
};

// --- internal ---

/// The CPU rounds nothing, where the GPU rounds its result: the sums are the same.
const one_pass = tolerances.one_pass;

/// All codes and scales, and what takes their place while adapters are merged.
fn widenF8(pair: *Pair) Error!void {
    const arena = pair.arena.allocator();
    const cuda = pair.cuda;
    const rows, const depth = .{ pair.size(24), pair.channels(80) };
    const dtype: @TypeOf(cuda.activation) = if (pair.boolean()) .f8_e4m3 else .f8_e5m2;
    pair.describe("{d}x{d}, {t}", .{ rows, depth, dtype });
    const codes = try arena.alloc(u8, @as(usize, rows) * depth);
    pair.random().bytes(codes);
    const scales = try arena.alloc(f32, rows);
    for (scales) |*scale| scale.* = 0.01 * (1 + pair.random().float(f32));
    var weight: Weight = .{
        .name = "weight",
        .layout = .matrix,
        .dtype = dtype,
        .shape = .{ rows, depth, 1, 1 },
        .row_scales = scales,
        .source = codes,
        .source_dtype = dtype,
    };
    const staging = try arena.alloc(u16, codes.len);
    const expected = std.mem.bytesAsSlice(
        u16,
        device_weights.bytesOf(&weight, cuda.activation, staging),
    );
    const base = cuda.weights_base;
    weight.device_offset = try sent(pair, codes) - base;
    weight.kept_f8 = .{
        .index = 0,
        .scales_offset = try sent(pair, std.mem.sliceAsBytes(scales)) - base,
        .source_offset = 0,
    };
    const stored: ops_widen.Source = .stored(base, &weight);
    weight.kept_f8.?.source_offset = try sent(pair, std.mem.asBytes(&stored)) - base;
    const before = cuda.widen_workspace;
    defer cuda.widen_workspace = before;
    cuda.widen_workspace = try pair.allocate(2 * codes.len);
    const out: Tensor = .{
        .address = try ops_widen.operand(cuda, &weight),
        .shape = .vector(1, @intCast(codes.len)),
        .dtype = cuda.activation,
    };
    const actual = try pair.download(out);
    const numbers = try arena.alloc(f32, codes.len);
    for (numbers, expected) |*number, bits| number.* = pair.widened(bits);
    try pair.expectSameValues(f32, actual, numbers);
}

/// Depth and group of a product: those of models, and the smallest.
fn randomDepth(pair: *Pair) struct { u32, u32 } {
    const groups = [_]u32{ 256, 64, 16, 1 };
    const group = groups[pair.random().uintLessThan(usize, groups.len)];
    const unit = @max(group, weights.int8.depth_unit);
    return .{ unit * pair.size(@max(1, 640 / unit)), group };
}

fn randomRows(pair: *Pair, depth: u32) Error!pairs.Both {
    const shape: Shape = .{
        .batch = pair.size(2),
        .rows = pair.size(4),
        .width = pair.size(40),
        .channels = depth,
    };
    const x = try pair.tensor(shape);
    // Outliers, and a row of zeros.
    for (x.cpu.host(f32), 0..) |*value, i| {
        if (i % depth == 3) value.* = pair.rounded(50 * value.*);
        if (i / depth == 1) value.* = 0;
    }
    try pair.upload(x);
    return x;
}

/// The CPU's rounding of rows, as GPUs lay them out: integers and behind them the scales.
fn roundedRows(pair: *Pair, matrix: weights.Matrix, group: u32, panels: []align(64) u8) Error![]u8 {
    const arena = pair.arena.allocator();
    var packer: Packer = undefined;
    packer.init(arena, pair.cpu.pool.io, 1, null, &not_cancelled) catch return error.OutOfMemory;
    defer packer.deinit();
    try packer.pack(matrix, group, panels);
    const bytes = weights.int8.rowBytes(matrix.rows, matrix.columns);
    const rows = try arena.alloc(u8, bytes);
    weights.int8.toRows(panels, matrix.rows, matrix.columns, rows);
    return rows;
}

fn panelsOf(pair: *Pair, rows: usize, depth: usize) Error![]align(64) u8 {
    const bytes = weights.int8.weightBytes(rows, depth);
    return pair.arena.allocator().alignedAlloc(u8, .@"64", bytes);
}

/// Device memory with these bytes.
fn sent(pair: *Pair, bytes: []const u8) Error!usize {
    const tensor: Tensor = .{
        .address = try pair.allocate(bytes.len),
        .shape = .vector(1, @intCast(bytes.len)),
        .dtype = .u8,
    };
    try pair.cuda.upload(tensor, bytes);
    return tensor.address;
}

/// The same integers and scales on both.
fn int8Weight(pair: *Pair, columns: u32, depth: u32, group: u32) Error!*Weight {
    const scale = 1 / @sqrt(@as(f32, @floatFromInt(depth)));
    const wide = try pair.weight(.{ columns, depth, 1, 1 }, scale);
    const weight = try pair.arena.allocator().create(Weight);
    weight.* = wide.*;
    weight.dtype = .i8;
    weight.int8_group = group;
    const panels = try panelsOf(pair, columns, depth);
    const rows = try roundedRows(pair, wide.matrix(), group, panels);
    weight.address = @intFromPtr(panels.ptr);
    const count = weight.elementCount();
    weight.device_offset = try sent(pair, rows[0..count]) - pair.cuda.weights_base;
    weight.int8_scales_offset = try sent(pair, rows[count..]) - pair.cuda.weights_base;
    return weight;
}

fn quantizeRows(pair: *Pair) Error!void {
    const depth, const group = randomDepth(pair);
    const x = try randomRows(pair, depth);
    const rows: usize = x.cpu.shape.rowCount();
    pair.describe("{f} in groups of {d}", .{ pairs.shown(x.cpu.shape), group });
    const matrix: weights.Matrix =
        .dense(std.mem.sliceAsBytes(x.cpu.host(f32)), .f32, rows, depth);
    const expected = try roundedRows(pair, matrix, group, try panelsOf(pair, rows, depth));
    const out = try rowsFor(pair, x);
    try pair.cuda.quantizeRows(out.cuda, x.cuda, group);
    const actual = try pair.read(u8, out.cuda);
    try pair.expectSameValues(u8, actual, expected);
}

/// Room for rounded rows of both.
fn rowsFor(pair: *Pair, x: pairs.Both) Error!pairs.Both {
    return pair.empty(x.cpu.shape.withChannels(x.cpu.shape.channels + @sizeOf(f32)), .i8);
}

/// Rounded rows on both, and room for the library's sums.
const Prepared = struct {
    cpu: backend.LinearOptions,
    cuda: backend.LinearOptions,

    fn init(pair: *Pair, x: pairs.Both, group: u32, column_count: u32) Error!Prepared {
        const quantized = try rowsFor(pair, x);
        try pair.cpu.quantizeRows(quantized.cpu, x.cpu, group);
        try pair.cuda.quantizeRows(quantized.cuda, x.cuda, group);
        const rows: u32 = @intCast(x.cpu.shape.rowCount());
        const bytes = backend.cudas.sumBytes(rows, column_count);
        return .{
            .cpu = .{ .quantized = quantized.cpu },
            .cuda = .{ .quantized = quantized.cuda, .sums = try pair.temporary(bytes) },
        };
    }
};

fn randomWay(pair: *Pair) ops_int8.Way {
    return pair.random().enumValue(ops_int8.Way);
}

fn linear(pair: *Pair) Error!void {
    const depth, const group = randomDepth(pair);
    const columns = 8 * pair.size(20);
    const first = if (pair.boolean()) 8 * pair.size(3) else 0;
    const x = try randomRows(pair, depth);
    const weight = try int8Weight(pair, columns, depth, group);
    const bias = if (pair.boolean()) try pair.vector(columns) else null;
    const out = try pair.tensor(x.cpu.shape.withChannels(first + columns));
    const way = randomWay(pair);
    var prepared: Prepared = try .init(pair, x, group, columns);
    const residual = if (first == 0 and pair.boolean()) try pair.tensor(out.cpu.shape) else null;
    if (residual) |both| {
        prepared.cpu.residual = both.cpu;
        prepared.cuda.residual = both.cuda;
    }
    const any = pair.random().enumValue(backend.Activation);
    prepared.cpu.activation = if (pair.boolean()) any else .none;
    prepared.cuda.activation = prepared.cpu.activation;
    pair.describe("{t}, {f} to {d} from {d}, groups of {d}, {t}, bias {}, residual {}", .{
        way,                     pairs.shown(x.cpu.shape), columns,          first, group,
        prepared.cpu.activation, bias != null,             residual != null,
    });
    try pair.cpu.linear(out.cpu, first, x.cpu, weight, bias, prepared.cpu);
    const layer = ops_int8.linearLayer(pair.cuda, out.cuda, first, weight, bias, prepared.cuda);
    try layer.take(way);
    try pair.expectClose(out, one_pass);
}

/// Two or three matrices, whose integers and scales lie one behind the other, are one product.
fn linearAdjacent(pair: *Pair) Error!void {
    const depth, const group = randomDepth(pair);
    const x = try randomRows(pair, depth);
    const count: usize = 1 + pair.size(2);
    var columns: [3]u32 = undefined;
    var total: u32 = 0;
    for (columns[0..count]) |*each| {
        each.* = 32 * pair.size(3);
        total += each.*;
    }
    const whole = try int8Weight(pair, total, depth, group);
    const out = try pair.output(x.cpu.shape.withChannels(total));
    pair.describe("{f} to {d} in {d} parts", .{ pairs.shown(x.cpu.shape), total, count });
    const prepared: Prepared = try .init(pair, x, group, total);
    var parts: [3]Weight = undefined;
    var pointers: [3]*const Weight = undefined;
    var first: u32 = 0;
    for (columns[0..count], parts[0..count], pointers[0..count]) |own, *part, *pointer| {
        part.* = whole.*;
        part.shape[0] = own;
        part.address += weights.int8.weightBytes(first, depth);
        part.device_offset += first * depth;
        part.int8_scales_offset += first * @sizeOf(f32);
        pointer.* = part;
        try pair.cpu.linear(out.cpu, first, x.cpu, part, null, prepared.cpu);
        first += own;
    }
    const are_one = backend.cudas.areAdjacent(pointers[0..count], pair.cuda.activation);
    try pair.expect(are_one, "the matrices are not taken for adjacent");
    try pair.cuda.linearAdjacent(out.cuda, x.cuda, pointers[0..count], prepared.cuda);
    try pair.expectClose(out, one_pass);
}

fn linearGeglu(pair: *Pair) Error!void {
    const depth, const group = randomDepth(pair);
    const columns = 8 * pair.size(20);
    const x = try randomRows(pair, depth);
    const weight = try int8Weight(pair, 2 * columns, depth, group);
    const bias = try pair.vector(2 * columns);
    const wide = try pair.output(x.cpu.shape.withChannels(2 * columns));
    const out = try pair.output(x.cpu.shape.withChannels(columns));
    const way = randomWay(pair);
    pair.describe("{t}, {f} to {d}, groups of {d}", .{
        way, pairs.shown(x.cpu.shape), columns, group,
    });
    const prepared: Prepared = try .init(pair, x, group, 2 * columns);
    try pair.cpu.linearGeglu(out.cpu, wide.cpu, x.cpu, weight, bias, prepared.cpu);
    try ops_int8.gegluLayer(pair.cuda, out.cuda, weight, bias, prepared.cuda).take(way);
    try pair.expectClose(out, one_pass);
}
