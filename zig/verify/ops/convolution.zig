//! Convolutions on a GPU against the CPU: cuDNN's and the direct one, and the padded input against
//! the same image put together by hand.

const std = @import("std");
const backend = @import("../../backend.zig");
const ops_convolution = @import("../../backend/cuda/ops_convolution.zig");
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;

pub const checks = [_]Check{
    .{ .name = "conv2d", .run = conv2d, .needs_libraries = true },
    .{ .name = "conv2d, scaled", .run = scaledConv2d, .needs_libraries = true },
    .{ .name = "conv2d, direct", .run = convDirect },
    .{ .name = "conv2d, direct and scaled", .run = scaledConvDirect },
    .{ .name = "conv2d, padded input", .run = padInput },
};

/// The product with its bias is rounded where another pass activates it: at most twice as much is
/// left of that (`to_signed`).
const convolved: tolerances.Tolerance = .{ .roundings = 1, .on_the_way = 1.5 };

// --- internal ---

const Options = struct {
    cpu: backend.ConvOptions,
    cuda: backend.ConvOptions,

    fn plain() Options {
        const none: backend.ConvOptions = .{
            .padding = .{ .top = 0, .bottom = 0, .left = 0, .right = 0 },
        };
        return .{ .cpu = none, .cuda = none };
    }

    pub fn format(options: Options, w: *std.Io.Writer) std.Io.Writer.Error!void {
        const o = &options.cpu;
        try w.print("stride {d}, padding {d} {d} {d} {d}, {t}", .{
            o.stride,       o.padding.top,   o.padding.bottom,
            o.padding.left, o.padding.right, o.activation,
        });
        if (o.upsample) try w.writeAll(", enlarged");
        if (o.halo_above != null) try w.writeAll(", halo above");
        if (o.halo_below != null) try w.writeAll(", halo below");
        if (o.channel_bias != null) try w.writeAll(", bias of images");
        if (o.residual != null) try w.writeAll(", residual");
    }
};

/// Stride, padding and halo rows, as models use them and otherwise; enlargement as they use it,
/// since the CPU knows no other.
fn randomOptions(pair: *Pair, x: Shape) Error!Options {
    var cpu: backend.ConvOptions = .{ .stride = pair.size(2) };
    if (pair.random().uintLessThan(u32, 3) == 0) {
        cpu.padding = .{ .top = 0, .bottom = 1, .left = 0, .right = 1 };
    }
    const is_plain = cpu.stride == 1 and cpu.padding.top == 1;
    cpu.upsample = is_plain and pair.boolean();
    var options: Options = .{ .cpu = cpu, .cuda = cpu };
    var halo_shape = x;
    halo_shape.rows = 1;
    if (cpu.padding.top == 1 and pair.boolean()) {
        const halo = try pair.tensor(halo_shape);
        options.cpu.halo_above = halo.cpu;
        options.cuda.halo_above = halo.cuda;
    }
    if (pair.boolean()) {
        const halo = try pair.tensor(halo_shape);
        options.cpu.halo_below = halo.cpu;
        options.cuda.halo_below = halo.cuda;
    }
    return options;
}

/// Channels that tensor cores read, kernels of 1 and 3.
fn conv2d(pair: *Pair) Error!void {
    const kernel: u32 = if (pair.random().uintLessThan(u32, 3) == 0) 1 else 3;
    const shape: Shape = .{
        .batch = pair.size(3),
        .rows = pair.size(9) + 1,
        .width = pair.size(11) + 1,
        .channels = 8 * pair.size(10),
    };
    try convolve(pair, shape, 8 * pair.size(12), kernel);
}

/// Few channels in or out: every stride, padding, halo and epilogue.
fn convDirect(pair: *Pair) Error!void {
    const few = pair.boolean();
    const shape: Shape = .{
        .batch = pair.size(3),
        .rows = pair.size(6) + 1,
        .width = pair.size(7) + 1,
        .channels = if (few) pair.channels(260) else pair.size(6),
    };
    const out_channels = if (few) pair.size(5) else pair.channels(72);
    // Where both are multiples of 8, cuDNN would do it.
    const is_direct = shape.channels % 8 != 0 or out_channels % 8 != 0;
    try convolve(pair, shape, if (is_direct) out_channels else out_channels + 1, 3);
}

fn convolve(pair: *Pair, shape: Shape, out_channels: u32, kernel: u32) Error!void {
    const x = try pair.tensor(shape);
    var options: Options = if (kernel == 3) try randomOptions(pair, shape) else .plain();
    const input_count: f32 = @floatFromInt(kernel * kernel * shape.channels);
    const weight = try pair.weight(
        .{ out_channels, kernel, kernel, shape.channels },
        1 / @sqrt(input_count),
    );
    const padded = ops_convolution.paddedShape(shape, options.cpu);
    const out = try pair.output(.{
        .batch = shape.batch,
        .rows = (padded.rows - kernel) / options.cpu.stride + 1,
        .width = (padded.width - kernel) / options.cpu.stride + 1,
        .channels = out_channels,
    });
    try addEpilogue(pair, &options, out.cpu.shape);
    const bias = if (pair.boolean()) try pair.vector(out_channels) else null;
    pair.describe("{f} to {d}, {f}, bias {}", .{
        pairs.shown(shape), out_channels, options, bias != null,
    });
    try pair.cpu.conv2d(out.cpu, x.cpu, weight, bias, options.cpu);
    const bytes = backend.cudas.convolutionBytes(x.cuda, weight, options.cuda);
    const temporary = try pair.temporary(bytes);
    try pair.cuda.conv2d(out.cuda, x.cuda, weight, bias, options.cuda, temporary);
    try pair.expectClose(out, convolved);
}

/// The scale is applied to the product, before bias and residual.
fn scaledConv2d(pair: *Pair) Error!void {
    const shape: Shape = .{
        .batch = pair.size(2),
        .rows = pair.size(6),
        .width = pair.size(9),
        .channels = 8 * pair.size(6),
    };
    const channels = 8 * pair.size(6);
    const x = try pair.tensor(shape);
    const weight = try pair.weight(.{ channels, 3, 3, shape.channels }, 1);
    const bias = try pair.vector(channels);
    const out = try pair.output(shape.withChannels(channels));
    const residual = if (pair.boolean()) try pair.tensor(out.cpu.shape) else null;
    pair.describe("{f} to {d}, residual {}", .{
        pairs.shown(shape), channels, residual != null,
    });
    try pair.cpu.conv2d(out.cpu, x.cpu, weight, null, .{});
    const biases: [*]const f32 = @ptrFromInt(bias.address);
    for (out.cpu.host(f32), 0..) |*value, i| {
        value.* = value.* / 16 + biases[i % channels];
        if (residual) |both| value.* += both.cpu.host(f32)[i];
    }
    try pair.cuda.conv2d(out.cuda, x.cuda, weight, bias, .{
        .scale = 1.0 / 16.0,
        .residual = if (residual) |both| both.cuda else null,
    }, null);
    try pair.expectClose(out, convolved);
}

fn addEpilogue(pair: *Pair, options: *Options, out: Shape) Error!void {
    const activation = pair.random().enumValue(backend.Activation);
    options.cpu.activation = activation;
    options.cuda.activation = activation;
    if (pair.boolean()) {
        const vector = try pair.tensor(.vector(out.batch, out.channels));
        options.cpu.channel_bias = vector.cpu;
        options.cuda.channel_bias = vector.cuda;
    }
    if (pair.boolean()) {
        const residual = try pair.tensor(out);
        options.cpu.residual = residual.cpu;
        options.cuda.residual = residual.cuda;
    }
}

/// The product is scaled before the bias; one tap is a linear layer.
fn scaledConvDirect(pair: *Pair) Error!void {
    const shape: Shape = .{ .batch = 2, .rows = 3, .width = 5, .channels = pair.size(9) };
    const x = try pair.tensor(shape);
    const out_channels = pair.size(40);
    pair.describe("{f} to {d}, one tap", .{ pairs.shown(shape), out_channels });
    const weight = try pair.weight(.{ out_channels, 1, 1, shape.channels }, 1);
    const out = try pair.output(shape.withChannels(out_channels));
    try pair.cpu.linear(out.cpu, 0, x.cpu, weight, null, .{});
    for (out.cpu.host(f32)) |*value| value.* *= 0.25;
    try ops_convolution.convDirect(pair.cuda, out.cuda, x.cuda, weight, null, .{
        .padding = .{ .top = 0, .bottom = 0, .left = 0, .right = 0 },
        .scale = 0.25,
    });
    try pair.expectClose(out, tolerances.one_pass);
}

/// Enlarged, between halo rows and zeros.
fn padInput(pair: *Pair) Error!void {
    const x_shape: Shape = .{
        .batch = pair.size(2),
        .rows = pair.size(5),
        .width = pair.size(6),
        .channels = pair.channels(40),
    };
    const x = try pair.tensor(x_shape);
    const options = try randomOptions(pair, x_shape);
    const out = try pair.output(ops_convolution.paddedShape(x_shape, options.cpu));
    pair.describe("{f}, {f}", .{ pairs.shown(x_shape), options });
    padByHand(out.cpu.host(f32), out.cpu.shape, x.cpu.host(f32), x_shape, options.cpu);
    try ops_convolution.padInput(pair.cuda, out.cuda, x.cuda, options.cuda);
    try pair.expectSame(out);
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
