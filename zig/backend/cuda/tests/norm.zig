//! Group norm and layer norm on CUDA against the CPU, also where the mean is large against the
//! deviation.

const std = @import("std");
const backend = @import("../../../backend.zig");
const ops = @import("../ops_norm.zig");
const support = @import("support.zig");
const Pair = support.Pair;
const Both = support.Both;
const Shape = @import("../../../tensor.zig").Shape;
const Tensor = @import("../../../tensor.zig").Tensor;

fn statsShape(batch: u32, group_count: u32) Shape {
    return .{ .batch = batch, .rows = group_count, .width = 1, .channels = 2 };
}

fn downloadStats(pair: *Pair, x: Tensor) ![]f64 {
    const out = try pair.arena.allocator().alloc(f64, x.shape.elementCount());
    try pair.read(x, std.mem.sliceAsBytes(out));
    return out;
}

test "groupNormStats and groupNormApply: groups of every width" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const group_count = pair.size(33);
            const per_group = pair.size(11);
            const shape: Shape = .{
                .batch = pair.size(2),
                .rows = pair.size(20),
                .width = pair.size(20),
                .channels = group_count * per_group,
            };
            // Half of the time the mean is 30 deviations, which costs f16 itself 2^-11 of it.
            const shift: f32 = if (pair.random().boolean()) 0 else 30;
            try checkGroupNorm(pair, shape, group_count, shift);
        }
    }.body);
}

test "group norm at SDXL's channels, and over more positions than threads sum in f32" {
    const shapes = [_]Shape{
        .{ .batch = 1, .rows = 3, .width = 5, .channels = 2560 },
        .{ .batch = 2, .rows = 4, .width = 9, .channels = 320 },
        .{ .batch = 1, .rows = 100, .width = 170, .channels = 8 },
        .{ .batch = 1, .rows = 130, .width = 130, .channels = 3 },
    };
    for (shapes, 0..) |shape, seed| {
        var pair: Pair = undefined;
        try pair.init(seed, .f16);
        defer pair.deinit();
        const group_count: u32 = if (shape.channels >= 32) 32 else 1;
        try checkGroupNorm(&pair, shape, group_count, 3);
    }
}

fn checkGroupNorm(pair: *Pair, shape: Shape, group_count: u32, shift: f32) !void {
    const x = try pair.scaled(shape, 1, shift);
    const stats = try pair.empty(statsShape(shape.batch, group_count), .f64);
    const addend: ?Both = if (pair.random().boolean())
        try pair.tensor(.vector(shape.batch, shape.channels))
    else
        null;
    // The CPU's input is the sum.
    const given = try pair.arena.allocator().dupe(f32, x.cpu.host(f32));
    defer @memcpy(x.cpu.host(f32), given);
    if (addend) |both| for (x.cpu.host(f32), 0..) |*value, i| {
        const image = i / (shape.positionCount() * shape.channels);
        value.* += both.cpu.host(f32)[image * shape.channels + i % shape.channels];
    };
    const on_cuda: ?Tensor = if (addend) |both| both.cuda else null;
    try pair.cpu.groupNormStats(stats.cpu, x.cpu, null);
    try ops.groupNormStats(pair.cuda, stats.cuda, x.cuda, on_cuda);
    for (try downloadStats(pair, stats.cuda), stats.cpu.host(f64)) |actual, expected| {
        // Sums of at most 32 terms in f32.
        try std.testing.expectApproxEqAbs(expected, actual, 1e-6 * (1 + @abs(shift)) * (1 + shift));
    }
    const weight = try pair.vector(shape.channels);
    const bias = try pair.vector(shape.channels);
    const activation: backend.Activation = if (pair.random().boolean()) .silu else .none;
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
    try ops.groupNormApply(
        pair.cuda,
        out.cuda,
        x.cuda,
        on_cuda,
        stats.cuda,
        weight,
        bias,
        epsilon,
        activation,
    );
    try pair.expectClose(out);
}

test "an image's statistics have the same bits alone, in a batch, and in every schedule" {
    for (0..20) |seed| {
        var pair: Pair = undefined;
        try pair.init(seed, .bf16);
        defer pair.deinit();
        pair.prng = .init(99);
        const shape: Shape = .{ .batch = 3, .rows = 23, .width = 31, .channels = 48 };
        const x = try pair.scaled(shape, 1, 5);
        const all = try pair.empty(statsShape(3, 6), .f64);
        try ops.groupNormStats(pair.cuda, all.cuda, x.cuda, null);
        const one = try pair.empty(statsShape(1, 6), .f64);
        try ops.groupNormStats(pair.cuda, one.cuda, x.cuda.batchSlice(1, 1), null);
        const expected = try downloadStats(&pair, all.cuda);
        const alone = try downloadStats(&pair, one.cuda);
        try std.testing.expectEqualSlices(f64, expected[12..24], alone);
        if (first_schedule == null) first_schedule = expected[0..36].*;
        try std.testing.expectEqualSlices(f64, &first_schedule.?, expected);
    }
    first_schedule = null;
}

var first_schedule: ?[36]f64 = null;

test "combineStatistics: weights, corrections, floors of the variance, DistriFusion's factor" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const count = pair.size(16);
            const shape = statsShape(pair.size(3), pair.size(40));
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
            const is_corrected = pair.random().boolean();
            const variance_floor: f64 = if (pair.random().boolean()) 0 else 0.75;
            const bessel_count: u64 = if (pair.random().boolean()) 0 else pair.size(50);
            const out = try pair.empty(shape, .f64);
            try pair.cpu.combineStatistics(out.cpu, .{
                .local = local.cpu,
                .parts = cpu_parts[0..count],
                .weights = weights[0..count],
                .corrected_from = if (is_corrected) cpu_parts[index] else null,
                .variance_floor = variance_floor,
                .bessel_count = bessel_count,
            });
            try ops.combineStatistics(pair.cuda, out.cuda, .{
                .local = local.cuda,
                .parts = cuda_parts[0..count],
                .weights = weights[0..count],
                .corrected_from = if (is_corrected) cuda_parts[index] else null,
                .variance_floor = variance_floor,
                .bessel_count = bessel_count,
            });
            const actual = try downloadStats(pair, out.cuda);
            for (actual, out.cpu.host(f64)) |a, e| {
                try std.testing.expectApproxEqAbs(e, a, 1e-12 * (1 + @abs(e)));
            }
        }
    }.body);
}

/// Means of about 1 and squares so near above that corrections turn some variances negative.
fn randomStats(pair: *Pair, shape: Shape) !Both {
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

test "layerNorm: every width, in registers and beyond" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const widths = [_]u32{ pair.channels(200), pair.channels(1280), 1280, 1281, 2048 };
            const channels = widths[pair.random().uintLessThan(usize, widths.len)];
            const x = try pair.scaled(
                .tokens(pair.size(2), pair.size(12), channels),
                1,
                if (pair.random().boolean()) 0 else 10,
            );
            const weight = try pair.vector(channels);
            const bias = try pair.vector(channels);
            const out = try pair.output(x.cpu.shape);
            try pair.cpu.layerNorm(out.cpu, x.cpu, weight, bias, 1e-5);
            try ops.layerNorm(pair.cuda, out.cuda, x.cuda, weight, bias, 1e-5);
            try pair.expectClose(out);
        }
    }.body);
}
