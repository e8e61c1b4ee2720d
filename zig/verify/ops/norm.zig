//! Group norm and layer norm on a GPU against the CPU, also where the mean is large against the
//! deviation.

const backend = @import("../../backend.zig");
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Both = pairs.Both;
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;

pub const checks = [_]Check{
    .{ .name = "groupNorm", .run = groupNorm },
    .{ .name = "groupNorm at SDXL's channels", .run = wideGroupNorm },
    .{ .name = "combineStatistics", .run = combineStatistics },
    .{ .name = "layerNorm", .run = layerNorm },
};

// --- internal ---

/// The variance is what is left of the squares of `mean` deviations.
fn normed(mean: f32) tolerances.Tolerance {
    return .{ .roundings = 1, .terms = (1 + mean) * (1 + mean) };
}

/// Groups of every width.
fn groupNorm(pair: *Pair) Error!void {
    const group_count = pair.size(33);
    const per_group = pair.size(11);
    const shape: Shape = .{
        .batch = pair.size(2),
        .rows = pair.size(20),
        .width = pair.size(20),
        .channels = group_count * per_group,
    };
    // Half of the time the mean is 30 deviations, which costs f16 itself 2^-11 of it.
    const shift: f32 = if (pair.boolean()) 0 else 30;
    try checkGroupNorm(pair, shape, group_count, shift);
}

/// Also over more positions than threads sum in f32.
fn wideGroupNorm(pair: *Pair) Error!void {
    const shapes = [_]Shape{
        .{ .batch = 1, .rows = 3, .width = 5, .channels = 2560 },
        .{ .batch = 2, .rows = 4, .width = 9, .channels = 320 },
        .{ .batch = 1, .rows = 100, .width = 170, .channels = 8 },
        .{ .batch = 1, .rows = 130, .width = 130, .channels = 3 },
    };
    const shape = shapes[pair.random().uintLessThan(usize, shapes.len)];
    try checkGroupNorm(pair, shape, if (shape.channels >= 32) 32 else 1, 3);
}

fn checkGroupNorm(pair: *Pair, shape: Shape, group_count: u32, shift: f32) Error!void {
    pair.describe("{f}, {d} groups, mean {d}", .{ pairs.shown(shape), group_count, shift });
    const x = try pair.scaled(shape, 1, shift);
    const stats = try pair.empty(backend.statisticsShape(shape, group_count), .f64);
    const addend: ?Both = if (pair.boolean())
        try pair.tensor(.vector(shape.batch, shape.channels))
    else
        null;
    // The CPU's input is the sum.
    if (addend) |both| for (x.cpu.host(f32), 0..) |*value, i| {
        const image = i / (shape.positionCount() * shape.channels);
        value.* += both.cpu.host(f32)[image * shape.channels + i % shape.channels];
    };
    const on_cuda: ?Tensor = if (addend) |both| both.cuda else null;
    try pair.cpu.groupNormStats(stats.cpu, x.cpu, null);
    try pair.cuda.groupNormStats(stats.cuda, x.cuda, on_cuda);
    // Sums of at most 32 terms in f32.
    const unit = 1e-6 * (1 + shift) * (1 + shift);
    try pair.expectEach(f64, try pair.read(f64, stats.cuda), stats.cpu.host(f64), 0, unit);
    const weight = try pair.vector(shape.channels);
    const bias = try pair.vector(shape.channels);
    const activation: backend.Activation = if (pair.boolean()) .silu else .none;
    const out = try pair.output(shape);
    const epsilon = 1e-5;
    try pair.cpu.groupNormApply(
        out.cpu,
        x.cpu,
        null,
        stats.cpu,
        weight,
        bias,
        epsilon,
        activation,
    );
    try pair.cuda.groupNormApply(
        out.cuda,
        x.cuda,
        on_cuda,
        stats.cuda,
        weight,
        bias,
        epsilon,
        activation,
    );
    try pair.expectClose(out, normed(shift));
}

/// Weights, corrections, floors of the variance, DistriFusion's factor.
fn combineStatistics(pair: *Pair) Error!void {
    const count = pair.size(16);
    const shape = backend.statisticsShape(.vector(pair.size(3), 1), pair.size(40));
    pair.describe("{d} parts of {f}", .{ count, pairs.shown(shape) });
    var cpu_parts: [16]Tensor = undefined;
    var cuda_parts: [16]Tensor = undefined;
    var weights: [16]f64 = undefined;
    for (0..count) |i| {
        const part = try randomStats(pair, shape);
        cpu_parts[i] = part.cpu;
        cuda_parts[i] = part.cuda;
        weights[i] = 1 / @as(f64, @floatFromInt(count));
    }
    const local = try randomStats(pair, shape);
    const index = pair.random().uintLessThan(usize, count);
    const is_corrected = pair.boolean();
    const variance_floor: f64 = if (pair.boolean()) 0 else 0.75;
    const bessel_count: u64 = if (pair.boolean()) 0 else pair.size(50);
    const out = try pair.empty(shape, .f64);
    try pair.cpu.combineStatistics(out.cpu, .{
        .local = local.cpu,
        .parts = cpu_parts[0..count],
        .weights = weights[0..count],
        .corrected_from = if (is_corrected) cpu_parts[index] else null,
        .variance_floor = variance_floor,
        .bessel_count = bessel_count,
    });
    try pair.cuda.combineStatistics(out.cuda, .{
        .local = local.cuda,
        .parts = cuda_parts[0..count],
        .weights = weights[0..count],
        .corrected_from = if (is_corrected) cuda_parts[index] else null,
        .variance_floor = variance_floor,
        .bessel_count = bessel_count,
    });
    try pair.expectEach(f64, try pair.read(f64, out.cuda), out.cpu.host(f64), 1e-12, 1e-12);
}

/// Means of about 1 and squares so near above that corrections turn some variances negative.
fn randomStats(pair: *Pair, shape: Shape) Error!Both {
    const both = try pair.empty(shape, .f64);
    const values = both.cpu.host(f64);
    var i: usize = 0;
    while (i < values.len) : (i += 2) {
        const mean = 1 + 0.2 * pair.random().floatNorm(f64);
        values[i] = mean;
        values[i + 1] = mean * mean + 0.1 * pair.random().float(f64);
    }
    try pair.upload(both);
    return both;
}

/// Every width, in registers and beyond.
fn layerNorm(pair: *Pair) Error!void {
    const widths = [_]u32{ pair.channels(200), pair.channels(1280), 1280, 1281, 2048 };
    const channels = widths[pair.random().uintLessThan(usize, widths.len)];
    const mean: f32 = if (pair.boolean()) 0 else 10;
    const x = try pair.scaled(.tokens(pair.size(2), pair.size(12), channels), 1, mean);
    pair.describe("{f}, mean {d}", .{ pairs.shown(x.cpu.shape), mean });
    const weight = try pair.vector(channels);
    const bias = try pair.vector(channels);
    const out = try pair.output(x.cpu.shape);
    try pair.cpu.layerNorm(out.cpu, x.cpu, weight, bias, 1e-5);
    try pair.cuda.layerNorm(out.cuda, x.cuda, weight, bias, 1e-5);
    try pair.expectClose(out, normed(mean));
}
