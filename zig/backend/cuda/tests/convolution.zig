//! The direct convolution on CUDA against the CPU, and the padded input against the same image
//! put together by hand.

const std = @import("std");
const backend = @import("../../../backend.zig");
const ops = @import("../ops_convolution.zig");
const support = @import("support.zig");
const Pair = support.Pair;
const Shape = @import("../../../tensor.zig").Shape;

const Options = struct { cpu: backend.ConvOptions, cuda: backend.ConvOptions };

/// Stride, padding and halo rows, as models use them and otherwise; enlargement as they use it,
/// since the CPU knows no other.
fn randomOptions(pair: *Pair, x: Shape) !Options {
    var cpu: backend.ConvOptions = .{ .stride = pair.size(2) };
    if (pair.random().uintLessThan(u32, 3) == 0) {
        cpu.padding = .{ .top = 0, .bottom = 1, .left = 0, .right = 1 };
    }
    const is_plain = cpu.stride == 1 and cpu.padding.top == 1;
    cpu.upsample = is_plain and pair.random().boolean();
    var options: Options = .{ .cpu = cpu, .cuda = cpu };
    var halo_shape = x;
    halo_shape.rows = 1;
    if (cpu.padding.top == 1 and pair.random().boolean()) {
        const halo = try pair.tensor(halo_shape);
        options.cpu.halo_above = halo.cpu;
        options.cuda.halo_above = halo.cuda;
    }
    if (pair.random().boolean()) {
        const halo = try pair.tensor(halo_shape);
        options.cpu.halo_below = halo.cpu;
        options.cuda.halo_below = halo.cuda;
    }
    return options;
}

test "convDirect: few channels, every stride, padding, halo and epilogue" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const few = pair.random().boolean();
            const x_shape: Shape = .{
                .batch = pair.size(2),
                .rows = pair.size(6) + 1,
                .width = pair.size(7) + 1,
                .channels = if (few) pair.channels(260) else pair.size(6),
            };
            const out_channels = if (few) pair.size(5) else pair.channels(72);
            const x = try pair.tensor(x_shape);
            var options = try randomOptions(pair, x_shape);
            const scale = 1 / @sqrt(@as(f32, @floatFromInt(9 * x_shape.channels)));
            const weight = try pair.weight(.{ out_channels, 3, 3, x_shape.channels }, scale);
            const padded = ops.paddedShape(x_shape, options.cpu);
            const out = try pair.output(.{
                .batch = x_shape.batch,
                .rows = (padded.rows - 3) / options.cpu.stride + 1,
                .width = (padded.width - 3) / options.cpu.stride + 1,
                .channels = out_channels,
            });
            try addEpilogue(pair, &options, out.cpu.shape);
            const bias = if (pair.random().boolean()) try pair.vector(out_channels) else null;
            try pair.cpu.conv2d(out.cpu, x.cpu, weight, bias, options.cpu);
            try ops.convDirect(pair.cuda, out.cuda, x.cuda, weight, bias, options.cuda);
            try pair.expectClose(out);
        }
    }.body);
}

fn addEpilogue(pair: *Pair, options: *Options, out: Shape) !void {
    const activation = pair.random().enumValue(backend.Activation);
    options.cpu.activation = activation;
    options.cuda.activation = activation;
    if (pair.random().boolean()) {
        const vector = try pair.tensor(.vector(out.batch, out.channels));
        options.cpu.channel_bias = vector.cpu;
        options.cuda.channel_bias = vector.cuda;
    }
    if (pair.random().boolean()) {
        const residual = try pair.tensor(out);
        options.cpu.residual = residual.cpu;
        options.cuda.residual = residual.cuda;
    }
}

test "convDirect scales the product before the bias; one tap is a linear layer" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape: Shape = .{ .batch = 2, .rows = 3, .width = 5, .channels = pair.size(9) };
            const x = try pair.tensor(shape);
            const out_channels = pair.size(40);
            const weight = try pair.weight(.{ out_channels, 1, 1, shape.channels }, 1);
            const out = try pair.output(shape.withChannels(out_channels));
            try pair.cpu.linear(out.cpu, 0, x.cpu, weight, null, .{});
            for (out.cpu.host(f32)) |*value| value.* *= 0.25;
            try ops.convDirect(pair.cuda, out.cuda, x.cuda, weight, null, .{
                .padding = .{ .top = 0, .bottom = 0, .left = 0, .right = 0 },
                .scale = 0.25,
            });
            try pair.expectClose(out);
        }
    }.body);
}

test "pad_input: enlarged, between halo rows and zeros" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const x_shape: Shape = .{
                .batch = pair.size(2),
                .rows = pair.size(5),
                .width = pair.size(6),
                .channels = pair.channels(40),
            };
            const x = try pair.tensor(x_shape);
            const options = try randomOptions(pair, x_shape);
            const out = try pair.output(ops.paddedShape(x_shape, options.cpu));
            padByHand(out.cpu.host(f32), out.cpu.shape, x.cpu.host(f32), x_shape, options.cpu);
            try ops.padInput(pair.cuda, out.cuda, x.cuda, options.cuda);
            try pair.expectSame(out);
        }
    }.body);
}

/// Element by element, from the definition.
fn padByHand(
    out: []f32,
    out_shape: Shape,
    x: []const f32,
    shape: Shape,
    options: backend.ConvOptions,
) void {
    const scale: i64 = if (options.upsample) 2 else 1;
    const channels: usize = shape.channels;
    const width: i64 = shape.width;
    for (out, 0..) |*target, i| {
        const c = i % channels;
        const position = i / channels;
        const batch = position / out_shape.width / out_shape.rows;
        const row = @as(i64, @intCast(position / out_shape.width % out_shape.rows)) -
            options.padding.top;
        const column = @as(i64, @intCast(position % out_shape.width)) - options.padding.left;
        target.* = 0;
        if (column < 0 or column >= width * scale) continue;
        const at: usize = @intCast(@divFloor(column, scale));
        const halo = if (row < 0)
            options.halo_above
        else if (row >= shape.rows * scale) options.halo_below else null;
        if (halo) |tensor| {
            target.* = tensor.host(f32)[(batch * shape.width + at) * channels + c];
        } else if (row >= 0 and row < shape.rows * scale) {
            const x_row = batch * shape.rows + @as(usize, @intCast(@divFloor(row, scale)));
            target.* = x[(x_row * shape.width + at) * channels + c];
        }
    }
}
