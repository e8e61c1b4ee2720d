//! Linear layers in int8 against plain loops, bit for bit: every instruction set rounds to the same
//! integers and adds the same numbers in the same order. The rotation against the matrix itself.

const std = @import("std");
const arguments = @import("../arguments.zig");
const backend = @import("../../../backend.zig");
const int8_dispatch = @import("../int8_dispatch.zig");
const Packer = @import("../pack_int8.zig").Packer;
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const weights = @import("../../../weights.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Int8Set = int8_dispatch.Int8Set;
const Tensor = tensors.Tensor;
const Weight = weights.Weight;
const testing = std.testing;

const Sizes = struct { rows: u32, columns: u32, depth: u32, group: u32 };

/// Rows of integers and their scales.
const Rounded = struct {
    integers: []i8,
    scales: []f32,

    fn of(a: *support.Arena, numbers: []const f32, depth: usize, group: usize) !Rounded {
        const row_count = numbers.len / depth;
        const rounded: Rounded = .{
            .integers = try a.allocator().alloc(i8, numbers.len),
            .scales = try a.allocator().alloc(f32, row_count),
        };
        const row = try a.allocator().dupe(f32, numbers[0..depth]);
        for (rounded.scales, 0..) |*scale, r| {
            @memcpy(row, numbers[r * depth ..][0..depth]);
            rotate(row, group);
            var amax: f32 = 0;
            for (row) |x| amax = @max(amax, @abs(x));
            scale.* = amax / 127;
            const inverse: f32 = if (amax > 0) 127 / amax else 0;
            for (row, rounded.integers[r * depth ..][0..depth]) |x, *integer| {
                integer.* = @intFromFloat(roundEven(x * inverse));
            }
        }
        return rounded;
    }
};

fn roundEven(x: f32) f32 {
    const magic: f32 = 0x1.8p23;
    return (x + magic) - magic;
}

/// One pass after the other, as the kernels.
fn rotate(row: []f32, group: usize) void {
    var step: usize = 1;
    while (step < group) : (step *= 4) {
        for (0..row.len) |i| {
            if (i / step % 4 != 0) continue;
            const a, const b, const c, const d =
                .{ row[i], row[i + step], row[i + 2 * step], row[i + 3 * step] };
            const half = 0.5 * ((a + b) + (c + d));
            row[i] = half - d;
            row[i + step] = half - c;
            row[i + 2 * step] = half - b;
            row[i + 3 * step] = half - a;
        }
    }
}

/// An int8 weight of `matrix` for `set`.
fn packed8(a: *support.Arena, set: Int8Set, matrix: *const Weight, group: u32) !*const Weight {
    var packer: Packer = undefined;
    try packer.init(testing.allocator, testing.io, 2, set, &support.not_cancelled);
    defer packer.deinit();
    const bytes = weights.int8.weightBytes(matrix.shape[0], matrix.shape[1]);
    const panels = try a.allocator().alignedAlloc(u8, .@"64", bytes);
    try packer.pack(matrix.matrix(), group, panels);
    const result = try a.allocator().create(Weight);
    result.* = matrix.*;
    result.dtype = .i8;
    result.int8_group = group;
    result.address = @intFromPtr(panels.ptr);
    return result;
}

fn open(set: Int8Set, thread_count: u32) !*Cpu {
    return Cpu.init(testing.allocator, testing.io, .{
        .thread_count = thread_count,
        .int8_set = set,
        .cancelled = &support.not_cancelled,
    });
}

fn multiply(
    a: *support.Arena,
    cpu: *Cpu,
    out: Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) !void {
    var complete = options;
    const quantized = try a.tensor(x.shape.withChannels(x.shape.channels + 4), .i8);
    try cpu.quantizeRows(quantized, x, weight.int8_group);
    complete.quantized = quantized;
    try cpu.linear(out, 0, x, weight, bias, complete);
}

fn check(sizes: Sizes, dtype: tensors.DType, extras: bool) !void {
    var a: support.Arena = .init(sizes.rows * 7 + sizes.columns * 5 + sizes.depth);
    defer a.deinit();
    const rows, const columns, const depth = .{ sizes.rows, sizes.columns, sizes.depth };
    const x = try a.randomTensor(.tokens(1, rows, depth));
    // Outliers, a row of zeros, and one as small as activations never are.
    for (x.host(f32), 0..) |*value, i| {
        if (i % depth == 3) value.* *= 50;
        if (rows > 2 and i / depth == 1) value.* = 0;
    }
    const matrix = try aligned(&a, try a.weight(.{ columns, depth, 1, 1 }, dtype, 0.05));
    const bias = if (extras) try a.vector(columns) else null;
    const out = try a.tensor(.tokens(1, rows, columns), .f32);
    const residual = if (extras) try a.randomTensor(out.shape) else null;
    const expected = try plain(&a, sizes, x, matrix, bias, residual);
    for (std.enums.values(Int8Set)) |set| {
        if (!int8_dispatch.isSupported(set)) continue;
        const weight = try packed8(&a, set, matrix, sizes.group);
        for (1..3) |thread_count| {
            const cpu = try open(set, @intCast(thread_count));
            defer cpu.deinit();
            @memset(out.host(u32), 0xffffffff);
            try multiply(&a, cpu, out, x, weight, bias, .{ .residual = residual });
            for (out.host(f32), expected, 0..) |actual, e, i| {
                if (actual == e) continue;
                std.debug.print("{t}: {any}, {t}: element {d} is {e} instead of {e}\n", .{
                    set, sizes, dtype, i, actual, e,
                });
                return error.TestUnexpectedResult;
            }
        }
    }
}

fn plain(
    a: *support.Arena,
    sizes: Sizes,
    x: Tensor,
    matrix: *const Weight,
    bias: ?*const Weight,
    residual: ?Tensor,
) ![]f32 {
    const rows, const columns, const depth = .{ sizes.rows, sizes.columns, sizes.depth };
    const numbers = try a.allocator().alloc(f32, columns * depth);
    for (numbers, 0..) |*number, i| number.* = matrix.sourceValue(i);
    const of_x: Rounded = try .of(a, x.host(f32), depth, sizes.group);
    const of_weight: Rounded = try .of(a, numbers, depth, sizes.group);
    const result = try a.allocator().alloc(f32, rows * columns);
    for (0..rows) |r| for (0..columns) |c| {
        var sum: i32 = 0;
        const row = of_x.integers[r * depth ..][0..depth];
        for (row, of_weight.integers[c * depth ..][0..depth]) |p, q| sum += @as(i32, p) * q;
        var value = of_x.scales[r] * of_weight.scales[c] * @as(f32, @floatFromInt(sum));
        if (bias) |b| value += @as([*]const f32, @ptrFromInt(b.address))[c];
        if (residual) |y| value += y.host(f32)[r * columns + c];
        result[r * columns + c] = value;
    };
    return result;
}

/// The same weight, aligned as where it is packed in place.
fn aligned(a: *support.Arena, weight: *const Weight) !*const Weight {
    const bytes = try a.allocator().alignedAlloc(u8, .@"64", weight.source.len);
    @memcpy(bytes, weight.source);
    const result = try a.allocator().create(Weight);
    result.* = weight.*;
    result.source = bytes[0 .. weight.elementCount() * weight.dtype.size()];
    return result;
}

test "int8 linear: the same bits as plain loops, on every instruction set" {
    for ([_]u32{ 1, 3, 14, 29 }) |rows| {
        for ([_]u32{ 1, 32, 75 }) |columns| {
            for ([_][2]u32{ .{ 16, 16 }, .{ 192, 64 }, .{ 512, 256 }, .{ 48, 1 } }) |depth| {
                try check(.{
                    .rows = rows,
                    .columns = columns,
                    .depth = depth[0],
                    .group = depth[1],
                }, .f16, rows == 29);
            }
        }
    }
    const large: Sizes = .{ .rows = 80, .columns = 610, .depth = 1280, .group = 256 };
    for ([_]tensors.DType{ .f32, .bf16, .f8_e4m3 }) |dtype| try check(large, dtype, true);
    try check(.{ .rows = 40, .columns = 70, .depth = 5120, .group = 256 }, .f16, true);
}

test "int8 activations and weights that are not finite make results NaN, of their row alone" {
    var a: support.Arena = .init(4);
    defer a.deinit();
    const x = try a.randomTensor(.tokens(1, 3, 64));
    x.host(f32)[64 + 5] = std.math.inf(f32);
    x.host(f32)[128 + 9] = std.math.nan(f32);
    const matrix = try aligned(&a, try a.weight(.{ 40, 64, 1, 1 }, .f32, 0.1));
    const out = try a.tensor(.tokens(1, 3, 40), .f32);
    for (std.enums.values(Int8Set)) |set| {
        if (!int8_dispatch.isSupported(set)) continue;
        const cpu = try open(set, 1);
        defer cpu.deinit();
        try multiply(&a, cpu, out, x, try packed8(&a, set, matrix, 64), null, .{});
        for (out.host(f32), 0..) |value, i| {
            try testing.expectEqual(i >= 40, std.math.isNan(value));
        }
    }
}

test "the rotation is a normalised Kronecker power of H, and its own inverse" {
    const h = [4][4]f64{
        .{ 0.5, 0.5, 0.5, -0.5 },
        .{ 0.5, 0.5, -0.5, 0.5 },
        .{ 0.5, -0.5, 0.5, 0.5 },
        .{ -0.5, 0.5, 0.5, 0.5 },
    };
    var random: std.Random.DefaultPrng = .init(9);
    for ([_]usize{ 16, 64, 256 }) |group| {
        var row: [256]f32 = undefined;
        for (row[0..group]) |*x| x.* = random.random().floatNorm(f32);
        var turned = row;
        rotate(turned[0..group], group);
        for (0..group) |i| {
            var sum: f64 = 0;
            for (row[0..group], 0..) |x, k| {
                var factor: f64 = 1;
                var step: usize = 1;
                while (step < group) : (step *= 4) factor *= h[k / step % 4][i / step % 4];
                sum += factor * x;
            }
            try testing.expectApproxEqAbs(sum, turned[i], 1e-5);
        }
        rotate(turned[0..group], group);
        for (row[0..group], turned[0..group]) |x, back| {
            try testing.expectApproxEqAbs(x, back, 1e-5);
        }
    }
}

test "panels give their numbers back, and integers of a file are kept" {
    const columns = 70;
    const depth = 192;
    const group = 64;
    var a: support.Arena = .init(8);
    defer a.deinit();
    const allocator = a.allocator();
    const integers = try allocator.alloc(i8, columns * depth);
    for (integers) |*q| q.* = a.random.random().intRangeAtMost(i8, -127, 127);
    // What rounding them again would not keep: no row reaches 127.
    for (integers[0..depth]) |*q| q.* = @divTrunc(q.*, 2);
    const scales = try allocator.alloc(f32, columns);
    for (scales) |*scale| scale.* = 0.01 + a.random.random().float(f32);
    const bytes = std.mem.sliceAsBytes(integers);
    var matrix: weights.Matrix = .dense(bytes, .i8, columns, depth);
    matrix.row_scales = scales;
    const expected = try allocator.alloc(f32, columns * depth);
    for (expected, integers, 0..) |*x, q, i| x.* = @as(f32, @floatFromInt(q)) * scales[i / depth];
    for (0..columns) |c| rotate(expected[c * depth ..][0..depth], group);
    const panels = try allocator.alignedAlloc(u8, .@"64", weights.int8.weightBytes(columns, depth));
    const numbers = try allocator.alloc(f32, columns * depth);
    for (std.enums.values(Int8Set)) |set| {
        if (!int8_dispatch.isSupported(set)) continue;
        var packer: Packer = undefined;
        try packer.init(testing.allocator, testing.io, 2, set, &support.not_cancelled);
        defer packer.deinit();
        try packer.pack(matrix, group, panels);
        try packer.unpack(panels, depth, group, numbers);
        try testing.expectEqualSlices(f32, expected, numbers);
    }
}
