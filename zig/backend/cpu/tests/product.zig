//! Linear layers and convolutions against plain loops: odd sizes on every side of every block, all
//! weight types, every epilogue; halo rows against the same convolution of the whole image.

const std = @import("std");
const backend = @import("../../../backend.zig");
const reference = @import("../reference.zig");
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const f8 = @import("../../../weights/f8.zig");
const InstructionSet = @import("../dispatch.zig").InstructionSet;
const Weight = @import("../../../weights.zig").Weight;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;

const LinearCase = struct {
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,

    pub fn run(c: LinearCase, cpu: *Cpu, out: Tensor) !void {
        try cpu.linear(out, 0, c.x, c.weight, c.bias, c.options);
    }

    pub fn format(c: LinearCase, w: *std.Io.Writer) !void {
        try w.print("linear {any} {any} {t}", .{ c.x.shape, c.weight.shape, c.weight.dtype });
    }
};

fn checkLinear(
    rows: u32,
    columns: u32,
    depth: u32,
    dtype: tensors.DType,
    activation: backend.Activation,
    extras: bool,
) !void {
    var a: support.Arena = .init(rows * 7 + columns * 5 + depth);
    defer a.deinit();
    const out = try a.tensor(.tokens(1, rows, columns), .f32);
    const scale = 1 / @sqrt(@as(f32, @floatFromInt(depth)));
    const case: LinearCase = .{
        .x = try a.randomTensor(.tokens(1, rows, depth)),
        .weight = try a.weight(.{ columns, depth, 1, 1 }, dtype, scale),
        .bias = if (extras) try a.vector(columns) else null,
        .options = .{
            .activation = activation,
            .residual = if (extras) try a.randomTensor(out.shape) else null,
        },
    };
    const expected = try a.allocator().alloc(f64, rows * columns);
    reference.linear(.{
        .x = try a.doubles(case.x),
        .weight = try a.weightDoubles(case.weight),
        .bias = if (case.bias) |bias| try a.weightDoubles(bias) else null,
        .residual = if (case.options.residual) |residual| try a.doubles(residual) else null,
        .activation = activation,
        .rows = rows,
        .columns = columns,
        .depth = depth,
    }, expected);
    try support.check(&a, case, out, expected, 1);
}

test "linear: sizes around every block boundary" {
    for ([_]u32{ 1, 2, 5, 16, 17, 29, 77, 300 }) |rows| {
        for ([_]u32{ 1, 3, 8, 33, 100 }) |columns| {
            for ([_]u32{ 1, 4, 7, 64, 259, 769 }) |depth| {
                try checkLinear(rows, columns, depth, .f16, .none, false);
            }
        }
    }
}

test "linear: weight types, bias, residual and activations" {
    for ([_]tensors.DType{ .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 }) |dtype| {
        for (std.enums.values(backend.Activation)) |activation| {
            try checkLinear(41, 75, 130, dtype, activation, true);
            try checkLinear(6, 75, 130, dtype, activation, true);
        }
    }
    try checkLinear(50, 1100, 513, .f8_e4m3, .none, true);
    try checkLinear(50, 1100, 513, .f32, .none, true);
    try checkLinear(1500, 70, 200, .bf16, .silu, true);
}

test "linear into the channels of a wider tensor leaves the others alone" {
    var a: support.Arena = .init(3);
    defer a.deinit();
    for ([_]u32{ 3, 40 }) |rows| {
        const x = try a.randomTensor(.tokens(2, rows, 24));
        const weight = try a.weight(.{ 20, 24, 1, 1 }, .f16, 0.2);
        const alone = try a.tensor(.tokens(2, rows, 20), .f32);
        const wide = try a.tensor(.tokens(2, rows, 50), .f32);
        @memset(wide.host(f32), 7);
        const cpu = try support.open(null, 2);
        defer cpu.deinit();
        try cpu.linear(alone, 0, x, weight, null, .{});
        try cpu.linear(wide, 13, x, weight, null, .{});
        for (0..2 * rows) |row| {
            const values = wide.host(f32)[row * 50 ..][0..50];
            for (values, 0..) |value, c| {
                const inside = c >= 13 and c < 33;
                const expected = if (inside) alone.host(f32)[row * 20 + c - 13] else 7;
                try std.testing.expectEqual(expected, value);
            }
        }
    }
}

test "half precision is widened exactly, subnormals and infinities too" {
    var a: support.Arena = .init(5);
    defer a.deinit();
    const one = try a.tensor(.tokens(1, 1, 1), .f32);
    one.host(f32)[0] = 1;
    const weight = try a.weight(.{ 65536, 1, 1, 1 }, .f16, 1);
    const bits: [*]u16 = @ptrFromInt(weight.address);
    for (0..65536) |i| bits[i] = @intCast(i);
    const out = try a.tensor(.tokens(1, 1, 65536), .f32);
    var buffer: [support.set_count_max]InstructionSet = undefined;
    for (support.sets(&buffer)) |set| {
        const cpu = try support.open(set, 1);
        defer cpu.deinit();
        try cpu.linear(out, 0, one, weight, null, .{});
        for (out.host(f32), 0..) |value, i| {
            const expected: f32 = @as(f16, @bitCast(@as(u16, @intCast(i))));
            if (std.math.isNan(expected)) {
                try std.testing.expect(std.math.isNan(value));
            } else try std.testing.expectEqual(expected, value);
        }
    }
}

test "8 bits are widened exactly, streamed and packed" {
    const depth = 64;
    for ([_]tensors.DType{ .f8_e4m3, .f8_e5m2 }) |dtype| {
        var a: support.Arena = .init(6);
        defer a.deinit();
        const weight = try a.weight(.{ 256, depth, 1, 1 }, dtype, 1);
        const codes: [*]u8 = @ptrFromInt(weight.address);
        // A column has one number that is not 0, at any place.
        @memset(codes[0 .. 256 * depth], 0);
        for (0..256) |i| codes[i * depth + i % depth] = @intCast(i);
        const factors = @constCast(weight.row_scales);
        var buffer: [support.set_count_max]InstructionSet = undefined;
        for (support.sets(&buffer)) |set| {
            const cpu = try support.open(set, 1);
            defer cpu.deinit();
            for ([_]u32{ 1, 40 }) |rows| for ([_]f32{ 1, -0.25 }) |scale| {
                @memset(factors, scale);
                const x = try a.tensor(.tokens(1, rows, depth), .f32);
                @memset(x.host(f32), 1);
                const out = try a.tensor(.tokens(1, rows, 256), .f32);
                try cpu.linear(out, 0, x, weight, null, .{});
                for (out.host(f32), 0..) |value, i| {
                    const expected = scale * f8.widen(dtype, @intCast(i % 256));
                    if (std.math.isNan(expected)) {
                        try std.testing.expect(std.math.isNan(value));
                    } else try std.testing.expectEqual(expected, value);
                }
            };
        }
    }
}

const ConvCase = struct {
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.ConvOptions,

    pub fn run(c: ConvCase, cpu: *Cpu, out: Tensor) !void {
        try cpu.conv2d(out, c.x, c.weight, c.bias, c.options);
    }

    pub fn format(c: ConvCase, w: *std.Io.Writer) !void {
        try w.print("conv2d {any} {any}", .{ c.x.shape, c.weight.shape });
    }

    fn outShape(c: ConvCase) Shape {
        const scale: u32 = if (c.options.upsample) 2 else 1;
        const pad = c.options.padding;
        const rows = c.x.shape.rows * scale + pad.top + pad.bottom - c.weight.shape[1];
        const width = c.x.shape.width * scale + pad.left + pad.right - c.weight.shape[2];
        return .{
            .batch = c.x.shape.batch,
            .rows = rows / c.options.stride + 1,
            .width = width / c.options.stride + 1,
            .channels = c.weight.shape[0],
        };
    }
};

fn checkConv(x_shape: Shape, weight_shape: [4]u32, options: backend.ConvOptions, all: bool) !void {
    for ([_]tensors.DType{ .f16, .f8_e4m3, .f8_e5m2 }) |dtype| {
        try checkConvOf(dtype, x_shape, weight_shape, options, all);
    }
}

fn checkConvOf(
    dtype: tensors.DType,
    x_shape: Shape,
    weight_shape: [4]u32,
    options: backend.ConvOptions,
    all: bool,
) !void {
    var a: support.Arena = .init(x_shape.channels + weight_shape[0]);
    defer a.deinit();
    var case: ConvCase = .{
        .x = try a.randomTensor(x_shape),
        .weight = try a.weight(weight_shape, dtype, 0.1),
        .bias = if (all) try a.vector(weight_shape[0]) else null,
        .options = options,
    };
    const out = try a.tensor(case.outShape(), .f32);
    if (all) {
        case.options.residual = try a.randomTensor(out.shape);
        case.options.channel_bias = try a.randomTensor(.vector(x_shape.batch, weight_shape[0]));
    }
    const o = case.options;
    const expected = try a.allocator().alloc(f64, out.shape.elementCount());
    reference.conv2d(.{
        .x = try a.doubles(case.x),
        .x_shape = x_shape,
        .weight = try a.weightDoubles(case.weight),
        .weight_shape = weight_shape,
        .bias = if (case.bias) |bias| try a.weightDoubles(bias) else null,
        .channel_bias = if (o.channel_bias) |bias| try a.doubles(bias) else null,
        .residual = if (o.residual) |residual| try a.doubles(residual) else null,
        .options = o,
        .out_shape = out.shape,
    }, expected);
    try support.check(&a, case, out, expected, 1);
}

test "conv2d: channels, strides, enlarging, paddings and epilogues" {
    const square: Shape = .{ .batch = 2, .rows = 9, .width = 11, .channels = 40 };
    try checkConv(square, .{ 36, 3, 3, 40 }, .{}, true);
    try checkConv(square, .{ 36, 3, 3, 40 }, .{ .stride = 2 }, true);
    try checkConv(square, .{ 36, 3, 3, 40 }, .{ .upsample = true, .activation = .silu }, true);
    try checkConv(square, .{ 5, 1, 1, 40 }, .{
        .padding = .{ .top = 0, .bottom = 0, .left = 0, .right = 0 },
    }, false);
    try checkConv(square.withChannels(4), .{ 48, 3, 3, 4 }, .{}, false);
    try checkConv(square.withChannels(3), .{ 16, 3, 3, 3 }, .{}, true);
    try checkConv(square.withChannels(96), .{ 4, 3, 3, 96 }, .{}, true);
    try checkConv(square.withChannels(33), .{ 3, 3, 3, 33 }, .{}, false);
    // The VAE encoder pads below and to the right only.
    const even: Shape = .{ .batch = 1, .rows = 8, .width = 10, .channels = 8 };
    try checkConv(even, .{ 8, 3, 3, 8 }, .{
        .stride = 2,
        .padding = .{ .top = 0, .bottom = 1, .left = 0, .right = 1 },
    }, false);
    try checkConv(even, .{ 6, 1, 1, 8 }, .{
        .stride = 2,
        .padding = .{ .top = 0, .bottom = 0, .left = 0, .right = 0 },
    }, false);
}

test "conv2d of patches with halo rows is the convolution of the whole, bit for bit" {
    for ([_]backend.ConvOptions{ .{}, .{ .upsample = true }, .{ .stride = 2 } }) |options| {
        try checkPatches(options);
    }
}

fn checkPatches(options: backend.ConvOptions) !void {
    var a: support.Arena = .init(11);
    defer a.deinit();
    const shape: Shape = .{ .batch = 1, .rows = 12, .width = 7, .channels = 20 };
    const row_elements = shape.width * shape.channels;
    const whole: ConvCase = .{
        .x = try a.randomTensor(shape),
        .weight = try a.weight(.{ 18, 3, 3, 20 }, .f32, 0.1),
        .bias = null,
        .options = options,
    };
    const expected = try a.tensor(whole.outShape(), .f32);
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    try whole.run(cpu, expected);
    var out_first: usize = 0;
    for ([_][2]u32{ .{ 0, 4 }, .{ 4, 10 }, .{ 10, 12 } }) |patch| {
        var part = whole;
        part.x.address += patch[0] * row_elements * 4;
        part.x.shape.rows = patch[1] - patch[0];
        var halo = part.x;
        halo.shape.rows = 1;
        if (patch[0] > 0) {
            halo.address = part.x.address - row_elements * 4;
            part.options.halo_above = halo;
        }
        if (patch[1] < shape.rows) {
            halo.address = part.x.address + part.x.byteCount();
            part.options.halo_below = halo;
        }
        const out = try a.tensor(part.outShape(), .f32);
        try part.run(cpu, out);
        const rows = expected.host(u32)[out_first..][0..out.shape.elementCount()];
        try std.testing.expectEqualSlices(u32, rows, out.host(u32));
        out_first += rows.len;
    }
    try std.testing.expectEqual(expected.shape.elementCount(), out_first);
}

test "a cancelled operation says so" {
    var a: support.Arena = .init(13);
    defer a.deinit();
    const cancelled: std.atomic.Value(bool) = .init(true);
    const cpu = try Cpu.init(std.testing.allocator, std.testing.io, .{
        .thread_count = 2,
        .cancelled = &cancelled,
    });
    defer cpu.deinit();
    const x = try a.randomTensor(.tokens(1, 40, 8));
    const weight = try a.weight(.{ 8, 8, 1, 1 }, .f32, 1);
    const out = try a.tensor(x.shape, .f32);
    try std.testing.expectError(error.Cancelled, cpu.linear(out, 0, x, weight, null, .{}));
}

test "products of bf16 are exact where the operands are bf16 already" {
    if (!@import("../dispatch.zig").isSupported(.x86_64_v4_bf16)) return error.SkipZigTest;
    for ([_]u32{ 17, 300 }) |rows| {
        for ([_]u32{ 3, 100 }) |columns| {
            for ([_]u32{ 1, 33, 64, 1539 }) |depth| {
                for ([_]tensors.DType{ .f32, .f16, .bf16 }) |dtype| {
                    try checkRounded(rows, columns, depth, dtype);
                }
            }
        }
    }
}

/// Values of few bits: products of bf16 give what f32 gives, but for the order of additions.
fn checkRounded(rows: u32, columns: u32, depth: u32, dtype: tensors.DType) !void {
    var a: support.Arena = .init(rows + columns + depth);
    defer a.deinit();
    const x = try a.randomTensor(.tokens(1, rows, depth));
    for (x.host(u32)) |*bits| bits.* &= 0xffff0000;
    const weight = try a.fewBits(.{ columns, depth, 1, 1 }, dtype);
    const sums = try a.tensor(.tokens(1, rows, columns), .f32);
    const sums_bf16 = try a.tensor(sums.shape, .f32);
    inline for (.{ null, .x86_64_v4_bf16 }, .{ sums, sums_bf16 }) |set, out| {
        const cpu = try support.open(set, 2);
        defer cpu.deinit();
        try cpu.linear(out, 0, x, weight, null, .{});
    }
    const expected = try a.doubles(sums);
    const err = support.relativeError(sums_bf16.host(f32), expected, 0.1);
    try std.testing.expect(err <= support.tolerance);
}
