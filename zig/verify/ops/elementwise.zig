//! Sums, activations, copies and joins on a GPU against the CPU.

const std = @import("std");
const backend = @import("../../backend.zig");
const ops_elementwise = @import("../../backend/cuda/ops_elementwise.zig");
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Both = pairs.Both;
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;
const one_pass = tolerances.one_pass;

pub const checks = [_]Check{
    .{ .name = "add", .run = add },
    .{ .name = "average", .run = average },
    .{ .name = "add, activate, geglu at odd addresses", .run = oddAddresses },
    .{ .name = "activate", .run = activate },
    .{ .name = "activate at the ends of the range", .run = rangeEnds },
    .{ .name = "prelu", .run = prelu },
    .{ .name = "geglu", .run = geglu },
    .{ .name = "bias, activation and residual", .run = epilogues },
    .{ .name = "concatChannels", .run = concatChannels },
    .{ .name = "copy and copyRows", .run = copyRows },
    .{ .name = "copyRows of bytes", .run = copyRowsOfBytes },
    .{ .name = "extrapolateRows", .run = extrapolateRows },
    .{ .name = "scaleRepeat", .run = scaleRepeat },
    .{ .name = "isFinite", .run = isFinite },
    .{ .name = "beginFiniteCheck", .run = finiteChecks },
};

// --- internal ---

fn randomShape(pair: *Pair) Shape {
    return .{
        .batch = pair.size(3),
        .rows = pair.size(6),
        .width = pair.size(9),
        .channels = pair.channels(64),
    };
}

fn add(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    const x = try pair.tensor(shape);
    const y = try pair.tensor(shape);
    const out = try pair.output(shape);
    const factor: f32 = if (pair.boolean()) 1 else 0.2;
    try pair.cpu.add(out.cpu, x.cpu, y.cpu, factor);
    try pair.cuda.add(out.cuda, x.cuda, y.cuda, factor);
    try pair.expectClose(out, one_pass);
}

/// The sum is rounded before it is halved.
fn average(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    const x = try pair.tensor(shape);
    const y = try pair.tensor(shape);
    const out = try pair.output(shape);
    try pair.cpu.average(out.cpu, x.cpu, y.cpu);
    try pair.cuda.average(out.cuda, x.cuda, y.cuda);
    try pair.expectClose(out, .{ .roundings = 2 });
}

fn oddAddresses(pair: *Pair) Error!void {
    var shape = randomShape(pair);
    shape.batch = 3;
    shape.channels = 2 * pair.size(20);
    pair.describe("the last two of {f}", .{pairs.shown(shape)});
    const x = (try pair.tensor(shape)).batchSlice(1, 2);
    const out = (try pair.output(shape)).batchSlice(1, 2);
    try pair.cpu.add(out.cpu, x.cpu, x.cpu, 1);
    try pair.cuda.add(out.cuda, x.cuda, x.cuda, 1);
    try pair.expectClose(out, one_pass);
    try pair.cpu.activate(out.cpu, x.cpu, .silu);
    try pair.cuda.activate(out.cuda, x.cuda, .silu);
    try pair.expectClose(out, one_pass);
    var half = shape.withChannels(shape.channels / 2);
    half.batch = 2;
    const gated = try pair.output(half);
    try pair.cpu.geglu(gated.cpu, x.cpu);
    try pair.cuda.geglu(gated.cuda, x.cuda);
    try pair.expectClose(gated, one_pass);
}

fn activate(pair: *Pair) Error!void {
    const activation = pair.random().enumValue(backend.Activation);
    const x = try pair.scaled(randomShape(pair), 3, 0);
    pair.describe("{t} of {f}", .{ activation, pairs.shown(x.cpu.shape) });
    const out = try pair.output(x.cpu.shape);
    try pair.cpu.activate(out.cpu, x.cpu, activation);
    try pair.cuda.activate(out.cuda, x.cuda, activation);
    try pair.expectClose(out, one_pass);
}

fn rangeEnds(pair: *Pair) Error!void {
    const x = try pair.empty(.vector(1, 5), pair.cuda.activation);
    const out = try pair.output(x.cpu.shape);
    const ends = [5]f32{ -60000, 60000, -200, 200, std.math.nan(f32) };
    for (x.cpu.host(f32), ends) |*value, end| value.* = pair.rounded(end);
    try pair.upload(x);
    for ([_]backend.Activation{ .silu, .gelu, .quick_gelu }) |activation| {
        try pair.cuda.activate(out.cuda, x.cuda, activation);
        const y = try pair.download(out.cuda);
        const large = [_]f32{ pair.rounded(60000), pair.rounded(200) };
        try pair.expectSameValues(f32, &.{ y[1], y[3] }, &large);
        const are_small = @abs(y[0]) < 1e-30 and @abs(y[2]) < 1e-30;
        try pair.expect(are_small, "what should vanish does not");
        try pair.expect(std.math.isNan(y[4]), "NaN became a number");
    }
}

fn prelu(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    const x = try pair.tensor(shape);
    const slopes = try pair.vector(shape.channels);
    const out = try pair.output(shape);
    try pair.cpu.prelu(out.cpu, x.cpu, slopes);
    try pair.cuda.prelu(out.cuda, x.cuda, slopes);
    try pair.expectClose(out, one_pass);
}

fn geglu(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    const x = try pair.tensor(shape.withChannels(2 * shape.channels));
    const out = try pair.output(shape);
    try pair.cpu.geglu(out.cpu, x.cpu);
    try pair.cuda.geglu(out.cuda, x.cuda);
    try pair.expectClose(out, one_pass);
}

fn epilogues(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    const x = try pair.tensor(shape);
    const bias = try pair.vector(shape.channels);
    const channel_bias = try pair.tensor(.vector(shape.batch, shape.channels));
    const residual = try pair.tensor(shape);
    const has = [_]bool{ pair.boolean(), pair.boolean(), pair.boolean() };
    const epilogue: ops_elementwise.Epilogue = .{
        .scale = if (pair.boolean()) 0.5 else 1,
        .bias = if (has[0]) bias else null,
        .channel_bias = if (has[1]) channel_bias.cuda else null,
        .activation = pair.random().enumValue(backend.Activation),
        .residual = if (has[2]) residual.cuda else null,
    };
    const vector: [*]const f32 = @ptrFromInt(bias.address);
    const per_batch = shape.positionCount() * shape.channels;
    const values = x.cpu.host(f32);
    for (values, 0..) |*value, i| {
        const c = i % shape.channels;
        var sum: f64 = @as(f64, value.*) * epilogue.scale;
        if (has[0]) sum += vector[c];
        if (has[1]) sum += channel_bias.cpu.host(f32)[i / per_batch * shape.channels + c];
        value.* = @floatCast(sum);
    }
    try pair.cpu.activate(x.cpu, x.cpu, epilogue.activation);
    if (has[2]) for (values, residual.cpu.host(f32)) |*value, y| {
        value.* += y;
    };
    pair.describe("{f}, {t}, bias {}, of images {}, residual {}", .{
        pairs.shown(shape), epilogue.activation, has[0], has[1], has[2],
    });
    try ops_elementwise.biasActivationResidual(pair.cuda, x.cuda, epilogue);
    try pair.expectClose(x, one_pass);
}

fn concatChannels(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    var cpu_parts: [16]Tensor = undefined;
    var cuda_parts: [16]Tensor = undefined;
    const count = if (pair.boolean()) 2 else pair.size(16);
    var total: u32 = 0;
    for (cpu_parts[0..count], cuda_parts[0..count]) |*cpu_part, *cuda_part| {
        const part = try pair.tensor(shape.withChannels(pair.channels(40)));
        cpu_part.* = part.cpu;
        cuda_part.* = part.cuda;
        total += part.cpu.shape.channels;
    }
    const out = try pair.output(shape.withChannels(total));
    try pair.cpu.concatChannels(out.cpu, cpu_parts[0..count]);
    try pair.cuda.concatChannels(out.cuda, cuda_parts[0..count]);
    try pair.expectSame(out);
}

fn copyRows(pair: *Pair) Error!void {
    const x = try pair.tensor(randomShape(pair));
    var shape = x.cpu.shape;
    shape.rows = pair.size(6);
    const out = try pair.tensor(shape);
    const most = @min(shape.rows, x.cpu.shape.rows);
    const count = pair.random().uintAtMost(u32, most);
    pair.describe("{d} rows of {f}", .{ count, pairs.shown(x.cpu.shape) });
    const x_first = pair.random().uintAtMost(u32, x.cpu.shape.rows - count);
    const out_first = pair.random().uintAtMost(u32, shape.rows - count);
    try pair.cpu.copyRows(out.cpu, out_first, x.cpu, x_first, count);
    try pair.cuda.copyRows(out.cuda, out_first, x.cuda, x_first, count);
    try pair.expectSame(out);
    const whole = try pair.output(shape);
    try pair.cpu.copy(whole.cpu, out.cpu);
    try pair.cuda.copy(whole.cuda, out.cuda);
    try pair.expectSame(whole);
}

fn copyRowsOfBytes(pair: *Pair) Error!void {
    const shape: Shape = .{ .batch = 2, .rows = 5, .width = pair.size(30), .channels = 3 };
    const x = try pair.empty(shape, .u8);
    pair.random().bytes(x.cpu.host(u8));
    try pair.upload(x);
    const out = try pair.empty(shape, .u8);
    @memset(out.cpu.host(u8), 7);
    try pair.upload(out);
    pair.describe("3 rows of {f}", .{pairs.shown(shape)});
    try pair.cpu.copyRows(out.cpu, 1, x.cpu, 2, 3);
    try pair.cuda.copyRows(out.cuda, 1, x.cuda, 2, 3);
    try pair.expectSameValues(u8, try pair.read(u8, out.cuda), out.cpu.host(u8));
}

fn extrapolateRows(pair: *Pair) Error!void {
    const shape: Shape = .{
        .batch = pair.size(2),
        .rows = 1,
        .width = pair.size(40),
        .channels = pair.channels(72),
    };
    pair.describe("{f}", .{pairs.shown(shape)});
    var rows: [5]Both = undefined;
    for (&rows) |*row| row.* = try pair.tensor(shape);
    // Channels whose row did not change at all.
    for (rows[3].cpu.host(f32), rows[4].cpu.host(f32), 0..) |x, *older, i| {
        if (i % shape.channels % 5 == 0) older.* = x;
    }
    try pair.upload(rows[4]);
    const out = try pair.output(shape);
    try pair.cpu.extrapolateRows(out.cpu, .{
        .old = rows[0].cpu,
        .older = rows[1].cpu,
        .own_now = rows[2].cpu,
        .own_old = rows[3].cpu,
        .own_older = rows[4].cpu,
    });
    try pair.cuda.extrapolateRows(out.cuda, .{
        .old = rows[0].cuda,
        .older = rows[1].cuda,
        .own_now = rows[2].cuda,
        .own_old = rows[3].cuda,
        .own_older = rows[4].cuda,
    });
    try pair.expectClose(out, one_pass);
}

fn scaleRepeat(pair: *Pair) Error!void {
    const x = try pair.tensorF32(randomShape(pair));
    var shape = x.cpu.shape;
    shape.batch *= pair.size(2);
    const out = try pair.output(shape);
    const factor = pair.random().float(f32);
    pair.describe("{f} times {d}", .{ pairs.shown(x.cpu.shape), factor });
    try pair.cpu.scaleRepeat(out.cpu, x.cpu, factor);
    try pair.cuda.scaleRepeat(out.cuda, x.cuda, factor);
    try pair.expectClose(out, one_pass);
}

fn isFinite(pair: *Pair) Error!void {
    const bad = [_]f32{
        std.math.nan(f32), std.math.inf(f32), -std.math.inf(f32),
    };
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    for ([_]Both{ try pair.tensor(shape), try pair.tensorF32(shape) }) |x| {
        try pair.expect(try pair.cuda.isFinite(x.cuda), "finite numbers are called others");
        const at = pair.random().uintLessThan(usize, shape.elementCount());
        x.cpu.host(f32)[at] = bad[pair.random().uintLessThan(usize, bad.len)];
        try pair.upload(x);
        try pair.expect(!try pair.cuda.isFinite(x.cuda), "a number that is not finite is missed");
    }
}

/// Two checks are under way at once, each of what it saw.
fn finiteChecks(pair: *Pair) Error!void {
    const shape = randomShape(pair);
    pair.describe("{f}", .{pairs.shown(shape)});
    const x = try pair.tensorF32(shape);
    try pair.cuda.beginFiniteCheck(x.cuda, .even_step);
    x.cpu.host(f32)[0] = std.math.inf(f32);
    try pair.upload(x);
    try pair.cuda.beginFiniteCheck(x.cuda, .odd_step);
    const before = try pair.cuda.endFiniteCheck(.even_step);
    try pair.expect(before, "a later number is seen by a check before it");
    const after = try pair.cuda.endFiniteCheck(.odd_step);
    try pair.expect(!after, "a number that is not finite is missed");
}
