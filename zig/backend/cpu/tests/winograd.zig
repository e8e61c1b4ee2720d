//! Convolutions by Winograd's filtering against loops in f64 and against the direct ones: tiles
//! that reach past the image, batches, halo rows, every epilogue, weights of 8 and 16 bits.

const std = @import("std");
const backend = @import("../../../backend.zig");
const dispatch = @import("../dispatch.zig");
const reference = @import("../reference.zig");
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Weight = @import("../../../weights.zig").Weight;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;

/// Of tiles of 2 x 2 and 4 x 4 outputs; that of direct convolutions is 1e-6.
const tolerance_small = 1e-6;
const tolerance_large = 6e-6;

const Case = struct {
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.ConvOptions,

    fn of(a: *support.Arena, shape: Shape, columns: u32, dtype: tensors.DType) !Case {
        const out = shape.withChannels(columns);
        return .{
            .x = try a.randomTensor(shape),
            .weight = try a.weight(.{ columns, 3, 3, shape.channels }, dtype, 0.1),
            .bias = try a.vector(columns),
            .options = .{
                .activation = .silu,
                .residual = try a.randomTensor(out),
                .channel_bias = try a.randomTensor(.vector(shape.batch, columns)),
            },
        };
    }

    fn outShape(c: *const Case) Shape {
        return c.x.shape.withChannels(c.weight.shape[0]);
    }
};

fn open(set: dispatch.InstructionSet, thread_count: u32) !*Cpu {
    const cpu = try support.open(set, thread_count);
    cpu.uses_winograd = true;
    return cpu;
}

/// On every instruction set for f32, with one thread and with two: the same bits.
fn check(a: *support.Arena, c: Case, expected: []const f64, tolerance: f64) !void {
    const outs = [_]Tensor{ try a.tensor(c.outShape(), .f32), try a.tensor(c.outShape(), .f32) };
    var buffer: [support.set_count_max]dispatch.InstructionSet = undefined;
    for (support.sets(&buffer)) |set| {
        if (set == .x86_64_v4_bf16) continue;
        for (outs, 1..) |out, thread_count| {
            const cpu = try open(set, @intCast(thread_count));
            defer cpu.deinit();
            @memset(out.host(u32), 0xffffffff);
            try cpu.conv2d(out, c.x, c.weight, c.bias, c.options);
        }
        try std.testing.expectEqualSlices(u32, outs[0].host(u32), outs[1].host(u32));
        const err = support.relativeError(outs[0].host(f32), expected, 1);
        if (err <= tolerance) continue;
        std.debug.print("{t}: relative error {e}, {any}\n", .{ set, err, c.x.shape });
        return error.TestInaccurate;
    }
}

fn checkLoops(shape: Shape, columns: u32, dtype: tensors.DType, tolerance: f64) !void {
    var a: support.Arena = .init(shape.channels + columns);
    defer a.deinit();
    const c: Case = try .of(&a, shape, columns, dtype);
    const expected = try a.allocator().alloc(f64, c.outShape().elementCount());
    reference.conv2d(.{
        .x = try a.doubles(c.x),
        .x_shape = shape,
        .weight = try a.weightDoubles(c.weight),
        .weight_shape = c.weight.shape,
        .bias = try a.weightDoubles(c.bias.?),
        .channel_bias = try a.doubles(c.options.channel_bias.?),
        .residual = try a.doubles(c.options.residual.?),
        .options = c.options,
        .out_shape = c.outShape(),
    }, expected);
    try check(&a, c, expected, tolerance);
}

test "tiles of 2 x 2 and of 4 x 4 outputs are close to loops" {
    const small: Shape = .{ .batch = 2, .rows = 15, .width = 17, .channels = 80 };
    try checkLoops(small, 64, .f16, tolerance_small);
    const large: Shape = .{ .batch = 1, .rows = 30, .width = 33, .channels = 64 };
    for ([_]tensors.DType{ .f16, .f8_e4m3 }) |dtype| {
        try checkLoops(large, 80, dtype, tolerance_large);
    }
}

test "halo rows, and images in several chunks" {
    var a: support.Arena = .init(7);
    defer a.deinit();
    const shape: Shape = .{ .batch = 2, .rows = 30, .width = 34, .channels = 64 };
    var c: Case = try .of(&a, shape, 64, .f16);
    var halo = shape;
    halo.rows = 1;
    c.options.halo_above = try a.randomTensor(halo);
    c.options.halo_below = try a.randomTensor(halo);
    const outs = [_]Tensor{ try a.tensor(c.outShape(), .f32), try a.tensor(c.outShape(), .f32) };
    const cpu = try open(dispatch.best(), 2);
    defer cpu.deinit();
    const room = cpu.winograd_room;
    defer cpu.winograd_room = room;
    for (outs, [_]usize{ room.len, 70 * 36 * 128 * @sizeOf(f32) }) |out, bytes| {
        cpu.winograd_room = room[0..bytes];
        try cpu.conv2d(out, c.x, c.weight, c.bias, c.options);
    }
    try std.testing.expectEqualSlices(u32, outs[0].host(u32), outs[1].host(u32));
    const direct = try a.tensor(c.outShape(), .f32);
    cpu.uses_winograd = false;
    try cpu.conv2d(direct, c.x, c.weight, c.bias, c.options);
    const err = support.relativeError(outs[0].host(f32), try a.doubles(direct), 1);
    try std.testing.expect(err > 0 and err <= tolerance_large);
}

test "an image has the same bits alone and in a batch" {
    var a: support.Arena = .init(9);
    defer a.deinit();
    const shape: Shape = .{ .batch = 2, .rows = 28, .width = 28, .channels = 64 };
    var c: Case = try .of(&a, shape, 64, .f16);
    const both = try a.tensor(c.outShape(), .f32);
    const cpu = try open(dispatch.best(), 2);
    defer cpu.deinit();
    try cpu.conv2d(both, c.x, c.weight, c.bias, c.options);
    c.x.shape.batch = 1;
    c.options.residual.?.shape.batch = 1;
    c.options.channel_bias.?.shape.batch = 1;
    const one = try a.tensor(c.outShape(), .f32);
    try cpu.conv2d(one, c.x, c.weight, c.bias, c.options);
    const first = both.host(u32)[0..one.shape.elementCount()];
    try std.testing.expectEqualSlices(u32, first, one.host(u32));
}
