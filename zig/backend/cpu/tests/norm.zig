//! Group norm and layer norm against plain loops, also where the mean is large against the
//! deviation, which is where sums of squares in f32 fail.

const std = @import("std");
const backend = @import("../../../backend.zig");
const reference = @import("../reference.zig");
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Weight = @import("../../../weights.zig").Weight;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;

const epsilon: f32 = 1e-5;

const GroupCase = struct {
    x: Tensor,
    stats: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    activation: backend.Activation,

    pub fn run(c: GroupCase, cpu: *Cpu, out: Tensor) !void {
        try cpu.groupNormStats(c.stats, c.x, null);
        try cpu.groupNormApply(out, c.x, null, c.stats, c.weight, c.bias, epsilon, c.activation);
    }

    pub fn format(c: GroupCase, w: *std.Io.Writer) !void {
        try w.print("group norm {any}, {d} groups", .{ c.x.shape, c.stats.shape.rows });
    }
};

fn checkGroup(shape: Shape, group_count: u32, activation: backend.Activation, shift: f32) !void {
    var a: support.Arena = .init(shape.channels + group_count);
    defer a.deinit();
    const gpa = a.allocator();
    const case: GroupCase = .{
        .x = try a.randomTensor(shape),
        .stats = try a.tensor(.{
            .batch = shape.batch,
            .rows = group_count,
            .width = 1,
            .channels = 2,
        }, .f64),
        .weight = try a.vector(shape.channels),
        .bias = try a.vector(shape.channels),
        .activation = activation,
    };
    for (case.x.host(f32)) |*x| x.* += shift;
    const x = try a.doubles(case.x);
    const weight = try a.weightDoubles(case.weight);
    const bias = try a.weightDoubles(case.bias);
    const stats = try gpa.alloc(f64, case.stats.shape.elementCount());
    const expected = try gpa.alloc(f64, x.len);
    const per_batch = shape.positionCount() * shape.channels;
    for (0..shape.batch) |batch| {
        const part = stats[batch * 2 * group_count ..][0 .. 2 * group_count];
        const image = x[batch * per_batch ..][0..per_batch];
        reference.groupStats(image, shape.channels, group_count, part);
        for (0..per_batch) |i| {
            const c = i % shape.channels;
            const group = c / (shape.channels / group_count);
            const mean = part[2 * group];
            const inverse = 1 / @sqrt(part[2 * group + 1] - mean * mean + epsilon);
            const y = (x[batch * per_batch + i] - mean) * inverse * weight[c] + bias[c];
            expected[batch * per_batch + i] = reference.activate(activation, y);
        }
    }
    const out = try a.tensor(shape, .f32);
    try support.check(&a, case, out, expected, 0.1);
    for (case.stats.host(f64), stats) |actual, wanted| {
        try std.testing.expectApproxEqRel(wanted, actual, 1e-12);
    }
}

test "group norm: groups of every width, with and without SiLU" {
    try checkGroup(.{ .batch = 2, .rows = 17, .width = 9, .channels = 96 }, 32, .silu, 0);
    try checkGroup(.{ .batch = 1, .rows = 40, .width = 50, .channels = 320 }, 32, .none, 0);
    try checkGroup(.{ .batch = 1, .rows = 5, .width = 3, .channels = 30 }, 15, .silu, 0);
    try checkGroup(.{ .batch = 1, .rows = 1, .width = 1, .channels = 7 }, 1, .none, 0);
    // The shift costs 2^-24 of itself per element: 3 is what the tolerance bears.
    try checkGroup(.{ .batch = 1, .rows = 64, .width = 64, .channels = 64 }, 8, .none, 3);
}

const LayerCase = struct {
    x: Tensor,
    weight: *const Weight,
    bias: *const Weight,

    pub fn run(c: LayerCase, cpu: *Cpu, out: Tensor) !void {
        try cpu.layerNorm(out, c.x, c.weight, c.bias, epsilon);
    }

    pub fn format(c: LayerCase, w: *std.Io.Writer) !void {
        try w.print("layer norm {any}", .{c.x.shape});
    }
};

test "layer norm: odd widths and a large mean" {
    for ([_]u32{ 5, 16, 33, 96, 1280 }) |channels| {
        for ([_]f32{ 0, 30 }) |shift| {
            var a: support.Arena = .init(channels);
            defer a.deinit();
            const case: LayerCase = .{
                .x = try a.randomTensor(.tokens(2, 77, channels)),
                .weight = try a.vector(channels),
                .bias = try a.vector(channels),
            };
            for (case.x.host(f32)) |*x| x.* += shift;
            const expected = try a.allocator().alloc(f64, case.x.shape.elementCount());
            reference.layerNorm(
                try a.doubles(case.x),
                try a.weightDoubles(case.weight),
                try a.weightDoubles(case.bias),
                epsilon,
                expected,
            );
            const out = try a.tensor(case.x.shape, .f32);
            try support.check(&a, case, out, expected, 0.1);
        }
    }
}
