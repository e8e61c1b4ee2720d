//! Matrix products on a GPU against the CPU: biases, activations, residuals, parts of wider
//! tensors, several matrices at once, and sums in f16.

const std = @import("std");
const backend = @import("../../backend.zig");
const linear_geglu = @import("../../backend/cuda/linear_geglu.zig");
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

pub const checks = [_]Check{
    .{ .name = "linear", .run = linear, .needs_libraries = true },
    .{ .name = "linear into channels", .run = linearInto, .needs_libraries = true },
    .{ .name = "linear, adjacent", .run = linearAdjacent, .needs_libraries = true },
    .{ .name = "linearGeglu", .run = linearGeglu, .needs_libraries = true },
    .{ .name = "linearGeglu, own kernels", .run = gatedKernels },
    .{ .name = "linearRows", .run = linearRows },
    .{
        .name = "linear, sums in f16",
        .run = linearCascaded,
        .needs_libraries = true,
        .is_f16_alone = true,
    },
};

/// The product with its bias is rounded where another pass activates it.
const activated: tolerances.Tolerance = .{ .roundings = 1, .on_the_way = 1.5 };
/// Both halves are rounded before they are multiplied: the product of two rounded numbers, rounded.
const gated: tolerances.Tolerance = .{ .roundings = 1, .on_the_way = 1.5 };
/// Chunks of 64 products summed in f16: twice the error of rounding the result, 2.1e-4 in the
/// mean, at any depth (cuda/matmul_cascaded.cu).
const cascaded: tolerances.Tolerance = .{ .roundings = 2 };

// --- internal ---

/// Odd sizes and those of tensor cores.
fn randomInput(pair: *Pair) Shape {
    return .{
        .batch = pair.size(3),
        .rows = pair.size(4),
        .width = pair.size(20),
        .channels = pair.channels(160),
    };
}

/// Results of about 1.
fn weightOf(pair: *Pair, out: u32, in: u32) Error!*const Weight {
    return pair.weight(.{ out, in, 1, 1 }, 1 / @sqrt(@as(f32, @floatFromInt(in))));
}

fn linear(pair: *Pair) Error!void {
    const shape = randomInput(pair);
    const channels = pair.channels(96);
    const x = try pair.tensor(shape);
    const weight = try weightOf(pair, channels, shape.channels);
    const bias = if (pair.boolean()) try pair.vector(channels) else null;
    const out = try pair.output(shape.withChannels(channels));
    const residual = if (pair.boolean()) try pair.tensor(out.cpu.shape) else null;
    const activation: backend.Activation = if (pair.boolean())
        pair.random().enumValue(backend.Activation)
    else
        .none;
    pair.describe("{f} to {d}, {t}, bias {}, residual {}", .{
        pairs.shown(shape), channels, activation, bias != null, residual != null,
    });
    var options: backend.LinearOptions = .{ .activation = activation };
    if (residual) |both| options.residual = both.cpu;
    try pair.cpu.linear(out.cpu, 0, x.cpu, weight, bias, options);
    if (residual) |both| options.residual = both.cuda;
    try pair.cuda.linear(out.cuda, 0, x.cuda, weight, bias, options);
    try pair.expectClose(out, if (activation == .none) tolerances.one_pass else activated);
}

/// The channels beside the result stay as they are.
fn linearInto(pair: *Pair) Error!void {
    const shape = randomInput(pair);
    const channels = 8 * pair.size(6);
    const first = 8 * pair.random().uintLessThan(u32, 4);
    const x = try pair.tensor(shape);
    const weight = try weightOf(pair, channels, shape.channels);
    const out = try pair.tensor(shape.withChannels(first + channels + 8 * pair.size(3)));
    pair.describe("{f} to {d} from {d} of {d}", .{
        pairs.shown(shape), channels, first, out.cpu.shape.channels,
    });
    try pair.cpu.linear(out.cpu, first, x.cpu, weight, null, .{});
    try pair.cuda.linear(out.cuda, first, x.cuda, weight, null, .{});
    try pair.expectClose(out, tolerances.one_pass);
}

/// Two or three matrices that lie one behind the other are one product.
fn linearAdjacent(pair: *Pair) Error!void {
    var shape = randomInput(pair);
    shape.channels = 8 * pair.size(16);
    const scale = 1 / @sqrt(@as(f32, @floatFromInt(shape.channels)));
    const x = try pair.tensor(shape);
    var channels: [3]u32 = undefined;
    const count: usize = 1 + pair.size(2);
    var total: u32 = 0;
    for (channels[0..count]) |*each| {
        each.* = 8 * pair.size(8);
        total += each.*;
    }
    const whole = try pair.weight(.{ total, shape.channels, 1, 1 }, scale);
    var parts: [3]Weight = undefined;
    var pointers: [3]*const Weight = undefined;
    const out = try pair.output(shape.withChannels(total));
    pair.describe("{f} to {d} in {d} parts", .{ pairs.shown(shape), total, count });
    var first: u32 = 0;
    for (channels[0..count], parts[0..count], pointers[0..count]) |own, *part, *pointer| {
        part.* = whole.*;
        part.shape[0] = own;
        part.address += first * shape.channels * @sizeOf(f32);
        part.device_offset += first * shape.channels * pair.cuda.activation.size();
        pointer.* = part;
        try pair.cpu.linear(out.cpu, first, x.cpu, part, null, .{});
        first += own;
    }
    const are_one = backend.cudas.areAdjacent(pointers[0..count], pair.cuda.activation);
    try pair.expect(are_one, "the matrices are not taken for adjacent");
    try pair.cuda.linearAdjacent(out.cuda, x.cuda, pointers[0..count], .{});
    try pair.expectClose(out, tolerances.one_pass);
}

fn linearGeglu(pair: *Pair) Error!void {
    var shape = randomInput(pair);
    shape.channels = 8 * pair.size(16);
    const channels = 8 * pair.size(16);
    const x = try pair.tensor(shape);
    const weight = try weightOf(pair, 2 * channels, shape.channels);
    const bias = try pair.vector(2 * channels);
    const wide = try pair.output(shape.withChannels(2 * channels));
    const out = try pair.output(shape.withChannels(channels));
    pair.describe("{f} to {d}", .{ pairs.shown(shape), channels });
    try pair.cpu.linearGeglu(out.cpu, wide.cpu, x.cpu, weight, bias, .{});
    try pair.cuda.linearGeglu(out.cuda, wide.cuda, x.cuda, weight, bias, .{});
    try pair.expectClose(out, gated);
}

/// Every kernel that the GPU has, whichever is the fastest.
fn gatedKernels(pair: *Pair) Error!void {
    const fastest = try linear_geglu.kernelFor(pair.cuda);
    const kernel = if (pair.boolean()) fastest else .linear_geglu;
    const columns = 8 * pair.size(26);
    const shape: Shape = .tokens(1, pair.size(150), 8 * pair.size(42));
    const x = try pair.tensor(shape);
    const weight = try weightOf(pair, 2 * columns, shape.channels);
    const bias = try pair.vector(2 * columns);
    const wide = try pair.output(shape.withChannels(2 * columns));
    const out = try pair.output(shape.withChannels(columns));
    pair.describe("{t}, {f} to {d}", .{ kernel, pairs.shown(shape), columns });
    try pair.cpu.linearGeglu(out.cpu, wide.cpu, x.cpu, weight, bias, .{});
    try linear_geglu.run(pair.cuda, kernel, .{
        .m = shape.width,
        .columns = columns,
        .k = shape.channels,
        .out = out.cuda.address,
        .x = x.cuda.address,
        .w = pair.cuda.addressOf(weight),
        .bias = pair.cuda.addressOf(bias),
    });
    try pair.expectClose(out, gated);
}

/// Layers of different widths, one row for each image of the batch.
fn linearRows(pair: *Pair) Error!void {
    const shape: Shape = .vector(pair.size(6), 8 * pair.size(60));
    const x = try pair.tensor(shape);
    const count = pair.size(4);
    var weights: [4]*const Weight = undefined;
    var biases: [4]*const Weight = undefined;
    var outs: [4]pairs.Both = undefined;
    for (outs[0..count], weights[0..count], biases[0..count]) |*out, *weight, *bias| {
        const channels = 8 * pair.size(12);
        weight.* = try weightOf(pair, channels, shape.channels);
        bias.* = try pair.vector(channels);
        out.* = try pair.output(shape.withChannels(channels));
        try pair.cpu.linear(out.cpu, 0, x.cpu, weight.*, bias.*, .{});
    }
    var tensors: [4]Tensor = undefined;
    for (tensors[0..count], outs[0..count]) |*tensor, out| tensor.* = out.cuda;
    pair.describe("{f} to {d} layers", .{ pairs.shown(shape), count });
    try pair.cuda.linearRows(tensors[0..count], x.cuda, weights[0..count], biases[0..count]);
    for (outs[0..count]) |out| try pair.expectClose(out, tolerances.one_pass);
}

/// `--fp16-accumulate`.
fn linearCascaded(pair: *Pair) Error!void {
    const depths = [_]u32{ 8 * pair.size(30), 640, 1280, 2560 };
    const depth = depths[pair.random().uintLessThan(usize, depths.len)];
    const shape: Shape = .tokens(pair.size(2), pair.size(150), depth);
    const channels = 8 * pair.size(18);
    const x = try pair.tensor(shape);
    var weight = (try weightOf(pair, channels, depth)).*;
    weight.may_cascade = true;
    const bias = if (pair.boolean()) try pair.vector(channels) else null;
    const out = try pair.output(shape.withChannels(channels));
    pair.describe("{f} to {d}, bias {}", .{ pairs.shown(shape), channels, bias != null });
    try pair.cpu.linear(out.cpu, 0, x.cpu, &weight, bias, .{});
    pair.cuda.fp16_accumulate = true;
    defer pair.cuda.fp16_accumulate = false;
    try pair.cuda.linear(out.cuda, 0, x.cuda, &weight, bias, .{});
    try pair.expectClose(out, cascaded);
}
