//! Sums, activations, copies and joins on CUDA against the CPU.

const std = @import("std");
const backend = @import("../../../backend.zig");
const ops = @import("../ops_elementwise.zig");
const reference = @import("../../cpu/reference.zig");
const support = @import("support.zig");
const Pair = support.Pair;
const Both = support.Both;
const Shape = @import("../../../tensor.zig").Shape;
const Tensor = @import("../../../tensor.zig").Tensor;

fn randomShape(pair: *Pair) Shape {
    return .{
        .batch = pair.size(3),
        .rows = pair.size(6),
        .width = pair.size(9),
        .channels = pair.channels(64),
    };
}

test "add" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape = randomShape(pair);
            const x = try pair.tensor(shape);
            const y = try pair.tensor(shape);
            const out = try pair.output(shape);
            try pair.cpu.add(out.cpu, x.cpu, y.cpu);
            try ops.add(pair.cuda, out.cuda, x.cuda, y.cuda);
            try pair.expectClose(out);
        }
    }.body);
}

test "add, activate and geglu of batch elements that start at odd addresses" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            var shape = randomShape(pair);
            shape.batch = 3;
            shape.channels = 2 * pair.size(20);
            const x = (try pair.tensor(shape)).batchSlice(1, 2);
            const out = (try pair.output(shape)).batchSlice(1, 2);
            try pair.cpu.add(out.cpu, x.cpu, x.cpu);
            try ops.add(pair.cuda, out.cuda, x.cuda, x.cuda);
            try pair.expectClose(out);
            try pair.cpu.activate(out.cpu, x.cpu, .silu);
            try ops.activate(pair.cuda, out.cuda, x.cuda, .silu);
            try pair.expectClose(out);
            var half = shape.withChannels(shape.channels / 2);
            half.batch = 2;
            const gated = try pair.output(half);
            try pair.cpu.geglu(gated.cpu, x.cpu);
            try ops.geglu(pair.cuda, gated.cuda, x.cuda);
            try pair.expectClose(gated);
        }
    }.body);
}

test "activate" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const activation = pair.random().enumValue(backend.Activation);
            const x = try pair.scaled(randomShape(pair), 3, 0);
            const out = try pair.output(x.cpu.shape);
            try pair.cpu.activate(out.cpu, x.cpu, activation);
            try ops.activate(pair.cuda, out.cuda, x.cuda, activation);
            try pair.expectClose(out);
        }
    }.body);
}

test "activations at the ends of the range keep infinities out and NaN in" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const x = try pair.empty(.vector(1, 5), pair.cuda.activation);
            const out = try pair.output(x.cpu.shape);
            const ends = [5]f32{ -60000, 60000, -200, 200, std.math.nan(f32) };
            for (x.cpu.host(f32), ends) |*value, end| value.* = pair.rounded(end);
            try pair.upload(x);
            for ([_]backend.Activation{ .silu, .gelu, .quick_gelu }) |activation| {
                try ops.activate(pair.cuda, out.cuda, x.cuda, activation);
                const y = try pair.download(out.cuda);
                try std.testing.expectEqual(pair.rounded(60000), y[1]);
                try std.testing.expectEqual(pair.rounded(200), y[3]);
                try std.testing.expect(@abs(y[0]) < 1e-30 and @abs(y[2]) < 1e-30);
                try std.testing.expect(std.math.isNan(y[4]));
            }
        }
    }.body);
}

test "geglu" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape = randomShape(pair);
            const x = try pair.tensor(shape.withChannels(2 * shape.channels));
            const out = try pair.output(shape);
            try pair.cpu.geglu(out.cpu, x.cpu);
            try ops.geglu(pair.cuda, out.cuda, x.cuda);
            try pair.expectClose(out);
        }
    }.body);
}

test "biasActivationResidual in place, with and without each part" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape = randomShape(pair);
            const x = try pair.tensor(shape);
            const bias = try pair.vector(shape.channels);
            const channel_bias = try pair.tensor(.vector(shape.batch, shape.channels));
            const residual = try pair.tensor(shape);
            const has = [_]bool{
                pair.random().boolean(), pair.random().boolean(), pair.random().boolean(),
            };
            const epilogue: ops.Epilogue = .{
                .scale = if (pair.random().boolean()) 0.5 else 1,
                .bias = if (has[0]) bias else null,
                .channel_bias = if (has[1]) channel_bias.cuda else null,
                .activation = pair.random().enumValue(backend.Activation),
                .residual = if (has[2]) residual.cuda else null,
            };
            const vector: [*]const f32 = @ptrFromInt(bias.address);
            const per_batch = shape.positionCount() * shape.channels;
            for (x.cpu.host(f32), 0..) |*value, i| {
                const c = i % shape.channels;
                var sum: f64 = @as(f64, value.*) * epilogue.scale;
                if (has[0]) sum += vector[c];
                if (has[1]) sum += channel_bias.cpu.host(f32)[i / per_batch * shape.channels + c];
                sum = reference.activate(epilogue.activation, sum);
                if (has[2]) sum += residual.cpu.host(f32)[i];
                value.* = @floatCast(sum);
            }
            try ops.biasActivationResidual(pair.cuda, x.cuda, epilogue);
            try pair.expectClose(x);
        }
    }.body);
}

test "concatChannels of one to sixteen parts" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape = randomShape(pair);
            var cpu_parts: [16]Tensor = undefined;
            var cuda_parts: [16]Tensor = undefined;
            const count = if (pair.random().boolean()) 2 else pair.size(16);
            var total: u32 = 0;
            for (cpu_parts[0..count], cuda_parts[0..count]) |*cpu_part, *cuda_part| {
                const part = try pair.tensor(shape.withChannels(pair.channels(40)));
                cpu_part.* = part.cpu;
                cuda_part.* = part.cuda;
                total += part.cpu.shape.channels;
            }
            const out = try pair.output(shape.withChannels(total));
            try pair.cpu.concatChannels(out.cpu, cpu_parts[0..count]);
            try ops.concatChannels(pair.cuda, out.cuda, cuda_parts[0..count]);
            try pair.expectSame(out);
        }
    }.body);
}

test "copyRows leaves the other rows alone; copy takes all" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const x = try pair.tensor(randomShape(pair));
            var shape = x.cpu.shape;
            shape.rows = pair.size(6);
            const out = try pair.tensor(shape);
            const most = @min(shape.rows, x.cpu.shape.rows);
            const count = pair.random().uintAtMost(u32, most);
            const x_first = pair.random().uintAtMost(u32, x.cpu.shape.rows - count);
            const out_first = pair.random().uintAtMost(u32, shape.rows - count);
            try pair.cpu.copyRows(out.cpu, out_first, x.cpu, x_first, count);
            try ops.copyRows(pair.cuda, out.cuda, out_first, x.cuda, x_first, count);
            try pair.expectSame(out);
            const whole = try pair.output(shape);
            try pair.cpu.copy(whole.cpu, out.cpu);
            try ops.copy(pair.cuda, whole.cuda, out.cuda);
            try pair.expectSame(whole);
        }
    }.body);
}

test "copyRows of bytes" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape: Shape = .{ .batch = 2, .rows = 5, .width = pair.size(30), .channels = 3 };
            const x = try pair.empty(shape, .u8);
            pair.random().bytes(x.cpu.host(u8));
            try pair.upload(x);
            const out = try pair.empty(shape, .u8);
            @memset(out.cpu.host(u8), 7);
            try pair.upload(out);
            try pair.cpu.copyRows(out.cpu, 1, x.cpu, 2, 3);
            try ops.copyRows(pair.cuda, out.cuda, 1, x.cuda, 2, 3);
            const actual = try pair.arena.allocator().alloc(u8, shape.elementCount());
            try pair.read(out.cuda, actual);
            try std.testing.expectEqualSlices(u8, out.cpu.host(u8), actual);
        }
    }.body);
}

test "extrapolateRows" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const shape: Shape = .{
                .batch = pair.size(2),
                .rows = 1,
                .width = pair.size(40),
                .channels = pair.channels(72),
            };
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
            try ops.extrapolateRows(pair.cuda, out.cuda, .{
                .old = rows[0].cuda,
                .older = rows[1].cuda,
                .own_now = rows[2].cuda,
                .own_old = rows[3].cuda,
                .own_older = rows[4].cuda,
            });
            try pair.expectClose(out);
        }
    }.body);
}

test "scaleRepeat" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const x = try pair.tensorF32(randomShape(pair));
            var shape = x.cpu.shape;
            shape.batch *= pair.size(2);
            const out = try pair.output(shape);
            const factor = pair.random().float(f32);
            try pair.cpu.scaleRepeat(out.cpu, x.cpu, factor);
            try ops.scaleRepeat(pair.cuda, out.cuda, x.cuda, factor);
            try pair.expectClose(out);
        }
    }.body);
}

test "isFinite finds one bad element anywhere, in each type" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const bad = [_]f32{
                std.math.nan(f32), std.math.inf(f32), -std.math.inf(f32),
            };
            const shape = randomShape(pair);
            for ([_]Both{ try pair.tensor(shape), try pair.tensorF32(shape) }) |x| {
                try std.testing.expect(try ops.isFinite(pair.cuda, x.cuda));
                const at = pair.random().uintLessThan(usize, shape.elementCount());
                x.cpu.host(f32)[at] = bad[pair.random().uintLessThan(usize, bad.len)];
                try pair.upload(x);
                try std.testing.expect(!try ops.isFinite(pair.cuda, x.cuda));
            }
        }
    }.body);
}
