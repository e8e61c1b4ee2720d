//! Activations, sums, copies, embeddings, the sampler's update and the bytes of the image.

const std = @import("std");
const backend = @import("../../../backend.zig");
const dispatch = @import("../dispatch.zig");
const reference = @import("../reference.zig");
const support = @import("support.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Tensor = @import("../../../tensor.zig").Tensor;
const tensors = @import("../../../tensor.zig");

const ActivateCase = struct {
    x: Tensor,
    activation: backend.Activation,

    pub fn run(c: ActivateCase, cpu: *Cpu, out: Tensor) !void {
        try cpu.activate(out, c.x, c.activation);
    }

    pub fn format(c: ActivateCase, w: *std.Io.Writer) !void {
        try w.print("{t} of {any}", .{ c.activation, c.x.shape });
    }
};

test "activations, from far below zero to far above" {
    var a: support.Arena = .init(1);
    defer a.deinit();
    const x = try a.tensor(.tokens(1, 1, 40_003), .f32);
    for (x.host(f32), 0..) |*value, i| value.* = (@as(f32, @floatFromInt(i)) - 20_000) / 1500;
    const out = try a.tensor(x.shape, .f32);
    const expected = try a.doubles(x);
    for (std.enums.values(backend.Activation)) |activation| {
        for (expected, x.host(f32)) |*e, value| e.* = reference.activate(activation, value);
        const case: ActivateCase = .{ .x = x, .activation = activation };
        try support.check(&a, case, out, expected, 0.01);
        var buffer: [support.set_count_max]dispatch.InstructionSet = undefined;
        for (support.sets(&buffer)) |set| {
            const cpu = try support.open(set, 1);
            defer cpu.deinit();
            try cpu.activate(out, x, activation);
            for (out.host(f32), expected, x.host(f32)) |actual, e, value| {
                // erf to 1e-7 absolute, times x / 2; a difference from 3; the others are relative.
                const offset: f64 = if (activation == .soft_clamp) 3 else 0;
                const allowed = 1e-7 * @max(@abs(value), @abs(e), offset) + 1e-9;
                try std.testing.expectApproxEqAbs(e, actual, 2 * allowed);
            }
        }
    }
}

test "activations at the ends of the range keep infinities, zeros and NaN" {
    var a: support.Arena = .init(2);
    defer a.deinit();
    const x = try a.tensor(.vector(1, 5), .f32);
    const ends = [5]f32{ -1e30, 1e30, -200, 200, std.math.nan(f32) };
    @memcpy(x.host(f32), &ends);
    const out = try a.tensor(x.shape, .f32);
    const cpu = try support.open(null, 1);
    defer cpu.deinit();
    for ([_]backend.Activation{ .silu, .gelu, .quick_gelu }) |activation| {
        try cpu.activate(out, x, activation);
        const y = out.host(f32);
        try std.testing.expectEqual(1e30, y[1]);
        try std.testing.expectEqual(200, y[3]);
        try std.testing.expect(@abs(y[2]) < 1e-30);
        try std.testing.expect(std.math.isNan(y[4]));
    }
    x.host(f32)[4] = 0;
    try std.testing.expect(try cpu.isFinite(x));
    for ([_]f32{ std.math.nan(f32), std.math.inf(f32), -std.math.inf(f32) }) |bad| {
        x.host(f32)[2] = bad;
        try std.testing.expect(!try cpu.isFinite(x));
    }
}

const GegluCase = struct {
    x: Tensor,

    pub fn run(c: GegluCase, cpu: *Cpu, out: Tensor) !void {
        try cpu.geglu(out, c.x);
    }

    pub fn format(c: GegluCase, w: *std.Io.Writer) !void {
        try w.print("geglu {any}", .{c.x.shape});
    }
};

test "geglu: the first half times the gelu of the second" {
    for ([_]u32{ 3, 32, 150 }) |channels| {
        var a: support.Arena = .init(channels);
        defer a.deinit();
        const x = try a.randomTensor(.tokens(2, 130, 2 * channels));
        const out = try a.tensor(x.shape.withChannels(channels), .f32);
        const expected = try a.allocator().alloc(f64, out.shape.elementCount());
        for (expected, 0..) |*e, i| {
            const row = x.host(f32)[i / channels * 2 * channels ..];
            const c = i % channels;
            e.* = row[c] * reference.activate(.gelu, row[channels + c]);
        }
        try support.check(&a, GegluCase{ .x = x }, out, expected, 0.01);
    }
}

test "prelu: a slope for each channel" {
    for ([_]u32{ 3, 64, 150 }) |channels| {
        var a: support.Arena = .init(channels);
        defer a.deinit();
        const x = try a.randomTensor(.tokens(2, 700, channels));
        const slopes = try a.vector(channels);
        const out = try a.tensor(x.shape, .f32);
        const cpu = try support.open(null, 2);
        defer cpu.deinit();
        try cpu.prelu(out, x, slopes);
        const slope: [*]const f32 = @ptrFromInt(slopes.address);
        for (out.host(f32), x.host(f32), 0..) |o, p, i| {
            try std.testing.expectEqual(if (p < 0) p * slope[i % channels] else p, o);
        }
    }
}

test "a mask keeps what is known, noised, and leaves the latent elsewhere" {
    var a: support.Arena = .init(5);
    defer a.deinit();
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    const latent = try a.randomTensor(.{ .batch = 2, .rows = 3, .width = 5, .channels = 4 });
    const known = try a.randomTensor(latent.shape);
    const noise = try a.randomTensor(latent.shape);
    const mask = try a.tensor(.{ .batch = 1, .rows = 3, .width = 5, .channels = 1 }, .f32);
    for (mask.host(f32), 0..) |*m, i| m.* = @floatFromInt(i % 2);
    const before = try a.randomTensor(latent.shape);
    try cpu.copy(before, latent);
    try cpu.maskBlend(.{
        .latent = latent,
        .known = known,
        .noise = noise,
        .mask = mask,
        .signal = 0.5,
        .noise_scale = 2,
    });
    const values = known.host(f32);
    for (latent.host(f32), before.host(f32), values, noise.host(f32), 0..) |x, o, k, z, i| {
        const kept = 0.5 * k + 2 * z;
        try std.testing.expectEqual(if (i / 4 % 15 % 2 == 0) kept else o, x);
    }
}

test "add, scaleRepeat, concatChannels and copy" {
    var a: support.Arena = .init(4);
    defer a.deinit();
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    const x = try a.randomTensor(.{ .batch = 2, .rows = 50, .width = 61, .channels = 19 });
    const y = try a.randomTensor(x.shape);
    const z = try a.randomTensor(x.shape.withChannels(4));
    const out = try a.tensor(x.shape, .f32);
    try cpu.add(out, x, y, 1);
    for (out.host(f32), x.host(f32), y.host(f32)) |o, p, q| try std.testing.expectEqual(p + q, o);
    try cpu.add(out, x, y, 0.2);
    for (out.host(f32), x.host(f32), y.host(f32)) |o, p, q| {
        try std.testing.expectApproxEqAbs(p + 0.2 * q, o, 1e-6);
    }
    try cpu.copy(out, y);
    try std.testing.expectEqualSlices(f32, y.host(f32), out.host(f32));
    var twice_shape = x.shape;
    twice_shape.batch = 4;
    const twice = try a.tensor(twice_shape, .f32);
    try cpu.scaleRepeat(twice, x, 0.37);
    for (twice.host(f32), 0..) |o, i| {
        try std.testing.expectEqual(x.host(f32)[i % x.shape.elementCount()] * @as(f32, 0.37), o);
    }
    const joined = try a.tensor(x.shape.withChannels(42), .f32);
    try cpu.concatChannels(joined, &.{ x, z, y });
    for (joined.host(f32), 0..) |o, i| {
        const row = i / 42;
        const c = i % 42;
        const expected = if (c < 19)
            x.host(f32)[row * 19 + c]
        else if (c < 23) z.host(f32)[row * 4 + c - 19] else y.host(f32)[row * 19 + c - 23];
        try std.testing.expectEqual(expected, o);
    }
}

test "embedTokens, gatherTokens, and ids beyond the vocabulary" {
    try checkEmbedTokens(.f16, .bf16);
    try checkEmbedTokens(.f8_e4m3, .f8_e5m2);
}

fn checkEmbedTokens(token_type: tensors.DType, position_type: tensors.DType) !void {
    var a: support.Arena = .init(5);
    defer a.deinit();
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    const table = try a.weight(.{ 9, 21, 1, 1 }, token_type, 1);
    const positions = try a.weight(.{ 4, 21, 1, 1 }, position_type, 1);
    const ids = try a.tensor(.tokens(2, 4, 1), .i32);
    @memcpy(ids.host(i32), &[_]i32{ 0, 8, 3, 3, 1, 2, 7, 8 });
    const out = try a.tensor(.tokens(2, 4, 21), .f32);
    try cpu.embedTokens(out, ids, table, positions, null);
    const rows = try a.weightDoubles(table);
    const offsets = try a.weightDoubles(positions);
    for (out.host(f32), 0..) |o, i| {
        const token = i / 21;
        const id: usize = @intCast(ids.host(i32)[token]);
        const expected = rows[id * 21 + i % 21] + offsets[token % 4 * 21 + i % 21];
        try std.testing.expectEqual(@as(f32, @floatCast(expected)), o);
    }
    const gathered = try a.tensor(.vector(2, 21), .f32);
    const indices = try a.tensor(.vector(2, 1), .i32);
    @memcpy(indices.host(i32), &[_]i32{ 3, 1 });
    try cpu.gatherTokens(gathered, out, indices);
    const all = out.host(f32);
    try std.testing.expectEqualSlices(f32, all[3 * 21 ..][0..21], gathered.host(f32)[0..21]);
    try std.testing.expectEqualSlices(f32, all[5 * 21 ..][0..21], gathered.host(f32)[21..]);

    // Positions 1 and 6 have an embedding of their own, and all others keep their bits.
    const injected = try a.tensor(out.shape, .f32);
    for (injected.host(f32), 0..) |*value, i| value.* = @floatFromInt(i);
    ids.host(i32)[1] = 9;
    ids.host(i32)[6] = 1000;
    const mixed = try a.tensor(out.shape, .f32);
    try cpu.embedTokens(mixed, ids, table, positions, injected);
    for (mixed.host(f32), all, injected.host(f32), 0..) |m, plain, row, i| {
        const token = i / 21;
        const offset: f32 = @floatCast(offsets[token % 4 * 21 + i % 21]);
        try std.testing.expectEqual(if (token == 1 or token == 6) row + offset else plain, m);
    }
}

test "sinusoidalEmbedding, both orders" {
    var a: support.Arena = .init(6);
    defer a.deinit();
    const cpu = try support.open(null, 1);
    defer cpu.deinit();
    const values = try a.tensor(.vector(2, 1), .f32);
    @memcpy(values.host(f32), &[_]f32{ 0, 1 });
    const out = try a.tensor(.vector(2, 4), .f32);
    try cpu.sinusoidalEmbedding(out, values, true, 0);
    const cos_first = [_]f32{ 1, 1, 0, 0, 0.5403023, 0.99995, 0.84147098, 0.0099998333 };
    for (cos_first, out.host(f32)) |e, o| try std.testing.expectApproxEqAbs(e, o, 1e-7);
    try cpu.sinusoidalEmbedding(out, values, false, 1);
    // With a shift of 1 the second frequency is the last one, 1 / 10000.
    const sin_first = [_]f32{ 0, 0, 1, 1, 0.84147098, 1e-4, 0.5403023, 1 };
    for (sin_first, out.host(f32)) |e, o| try std.testing.expectApproxEqAbs(e, o, 1e-7);
}

test "latentStep: guidance, model outputs, auxiliary register and noise" {
    var a: support.Arena = .init(7);
    defer a.deinit();
    const shape = (try a.randomTensor(.{ .batch = 1, .rows = 3, .width = 5, .channels = 4 })).shape;
    var both = shape;
    both.batch = 2;
    const step: backend.LatentStep = .{
        .coefficients = .{
            .timestep = 0,
            .input_scale = 1,
            .output_from_sample = 0.5,
            .output_from_model = -0.25,
            .latent = .{
                .sample = 0.9,
                .auxiliary = 0.1,
                .model_outputs = .{ 0.3, -0.2, 0, 0 },
                .noise = 0.7,
            },
            .auxiliary = .{
                .sample = 1,
                .auxiliary = 0,
                .model_outputs = .{ 0, 0, 0, 2 },
                .noise = 0,
            },
            .updates_auxiliary = 1,
            .samples_noise = 1,
        },
        .guidance_scales = &.{5},
        .latent = try a.randomTensor(shape),
        .auxiliary = try a.randomTensor(shape),
        .model_outputs = .{
            try a.tensor(shape, .f32), try a.randomTensor(shape),
            try a.tensor(shape, .f32), try a.randomTensor(shape),
        },
        .model_output = try a.randomTensor(both),
        .noise = try a.randomTensor(shape),
    };
    const x = try a.doubles(step.latent);
    const s = try a.doubles(step.auxiliary);
    const e = try a.doubles(step.model_output);
    const z = try a.doubles(step.noise.?);
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    try cpu.latentStep(step);
    for (0..x.len) |i| {
        const guided = e[i] + 5 * (e[x.len + i] - e[i]);
        const newest = 0.5 * x[i] - 0.25 * guided;
        const older: f64 = step.model_outputs[1].host(f32)[i];
        const oldest: f64 = step.model_outputs[3].host(f32)[i];
        const latent = 0.9 * x[i] + 0.1 * s[i] + 0.3 * newest - 0.2 * older + 0.7 * z[i];
        try std.testing.expectApproxEqAbs(newest, step.model_outputs[0].host(f32)[i], 2e-6);
        try std.testing.expectApproxEqAbs(latent, step.latent.host(f32)[i], 2e-6);
        try std.testing.expectApproxEqAbs(x[i] + 2 * oldest, step.auxiliary.host(f32)[i], 2e-6);
    }
}

test "latentStep: several prompts, each with its scale, and their mean to rescale by" {
    var a: support.Arena = .init(11);
    defer a.deinit();
    const shape = (try a.randomTensor(.{ .batch = 2, .rows = 4, .width = 5, .channels = 4 })).shape;
    var all = shape;
    all.batch = 3 * shape.batch;
    const rescale: f32 = 0.4;
    var step: backend.LatentStep = .{
        .coefficients = std.mem.zeroes(backend.StepCoefficients),
        .guidance_scales = &.{ 6, -1.5, 3, 2 },
        .rescale = rescale,
        .latent = try a.randomTensor(shape),
        .auxiliary = try a.tensor(shape, .f32),
        .model_outputs = undefined,
        .model_output = try a.randomTensor(all),
        .noise = null,
    };
    for (&step.model_outputs) |*tensor| tensor.* = try a.tensor(shape, .f32);
    step.coefficients.output_from_model = 1;
    step.coefficients.latent.model_outputs[0] = 1;
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    try cpu.latentStep(step);
    const e = try a.doubles(step.model_output);
    const per_image = 4 * 5 * 4;
    for (0..2) |image| {
        const scales = step.guidance_scales[2 * image ..][0..2];
        var guided: [per_image]f64 = undefined;
        var mean: [per_image]f64 = undefined;
        for (&guided, &mean, 0..) |*g, *m, i| {
            const at = image * per_image + i;
            const first, const second = .{ e[2 * per_image + at], e[4 * per_image + at] };
            g.* = e[at] + scales[0] * (first - e[at]) + scales[1] * (second - e[at]);
            m.* = (scales[0] * first + scales[1] * second) / (scales[0] + scales[1]);
        }
        const ratio = deviation(&mean) / deviation(&guided);
        for (guided, step.latent.host(f32)[image * per_image ..][0..per_image]) |g, x| {
            const blended = rescale * (g * ratio) + (1 - @as(f64, rescale)) * g;
            try std.testing.expectApproxEqAbs(blended, x, 8e-6);
        }
    }
}

test "latentStep: guidance rescale equals diffusers' two steps, image by image" {
    var a: support.Arena = .init(9);
    defer a.deinit();
    const shape = (try a.randomTensor(.{ .batch = 3, .rows = 4, .width = 5, .channels = 4 })).shape;
    var both = shape;
    both.batch = 6;
    const rescale: f32 = 0.7;
    var step: backend.LatentStep = .{
        .coefficients = std.mem.zeroes(backend.StepCoefficients),
        .guidance_scales = &.{ 6, 3, 9 },
        .rescale = rescale,
        .latent = try a.randomTensor(shape),
        .auxiliary = try a.tensor(shape, .f32),
        .model_outputs = undefined,
        .model_output = try a.randomTensor(both),
        .noise = null,
    };
    for (&step.model_outputs) |*tensor| tensor.* = try a.tensor(shape, .f32);
    step.coefficients.output_from_model = 1;
    step.coefficients.latent.model_outputs[0] = 1;
    const cpu = try support.open(null, 2);
    defer cpu.deinit();
    try cpu.latentStep(step);
    const e = try a.doubles(step.model_output);
    const per_image = 4 * 5 * 4;
    for (0..3) |image| {
        const negative = e[image * per_image ..][0..per_image];
        const positive = e[(3 + image) * per_image ..][0..per_image];
        var guided: [per_image]f64 = undefined;
        for (&guided, negative, positive) |*g, n, p| {
            g.* = n + step.guidance_scales[image] * (p - n);
        }
        // noise_cfg * (std_text / std_cfg), then the blend of both.
        const ratio = deviation(positive) / deviation(&guided);
        for (guided, step.latent.host(f32)[image * per_image ..][0..per_image]) |g, x| {
            const blended = rescale * (g * ratio) + (1 - @as(f64, rescale)) * g;
            try std.testing.expectApproxEqAbs(blended, x, 4e-6);
        }
    }
}

/// torch.std: of n - 1.
fn deviation(values: []const f64) f64 {
    const count: f64 = @floatFromInt(values.len);
    var mean: f64 = 0;
    for (values) |value| mean += value / count;
    var sum: f64 = 0;
    for (values) |value| sum += (value - mean) * (value - mean);
    return @sqrt(sum / (count - 1));
}

test "toRgb rounds ties to even and limits" {
    var a: support.Arena = .init(8);
    defer a.deinit();
    const cpu = try support.open(null, 1);
    defer cpu.deinit();
    const x = try a.tensor(.vector(1, 7), .f32);
    @memcpy(x.host(f32), &[_]f32{ -1, 1, -3, 3, 0, std.math.nan(f32), 0.2 });
    const out = try a.tensor(x.shape, .u8);
    try cpu.toRgb(out, x);
    // 127.5 goes to 128, the even neighbour.
    try std.testing.expectEqualSlices(u8, &.{ 0, 255, 0, 255, 128, 0, 153 }, out.host(u8));
}
