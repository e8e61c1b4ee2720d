//! The sampler's update, noise and the image's bytes on a GPU against the CPU.

const std = @import("std");
const backend = @import("../../backend.zig");
const nchw = @import("../../pipeline/nchw.zig");
const random_philox = @import("../../random/philox.zig");
const PhiloxGenerator = random_philox.PhiloxGenerator;
const pairs = @import("../pair.zig");
const Both = pairs.Both;
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;

pub const checks = [_]Check{
    .{ .name = "latentStep", .run = latentStep },
    .{ .name = "maskBlend", .run = maskBlend },
    .{ .name = "toRgb", .run = toRgb },
    .{ .name = "toRgb half-way between levels", .run = toRgbTies },
    .{ .name = "philoxNormal", .run = philoxNormal },
};

// --- internal ---

const Steps = struct { cpu: backend.LatentStep, cuda: backend.LatentStep };

/// Coefficients of which some are 0: the registers that these multiply hold NaN on both sides.
fn randomSteps(pair: *Pair, both: *[8]Both) Error!Steps {
    const shape: Shape = .{
        .batch = pair.size(3),
        .rows = pair.size(8),
        .width = pair.size(9),
        .channels = 4,
    };
    var branches = shape;
    const branch_count = pair.size(4);
    branches.batch *= branch_count;
    var coefficients: backend.StepCoefficients = undefined;
    for (std.mem.bytesAsSlice(f32, std.mem.asBytes(&coefficients))) |*value| {
        const zero = pair.random().uintLessThan(u32, 3) == 0;
        value.* = if (zero) 0 else pair.random().floatNorm(f32);
    }
    coefficients.updates_auxiliary = pair.random().uintLessThan(u32, 2);
    coefficients.samples_noise = pair.random().uintLessThan(u32, 2);
    if (coefficients.samples_noise == 0) {
        coefficients.latent.noise = 0;
        coefficients.auxiliary.noise = 0;
    }
    const reads_auxiliary = coefficients.latent.auxiliary != 0 or
        (coefficients.updates_auxiliary != 0 and coefficients.auxiliary.auxiliary != 0);
    both[0] = try pair.tensorF32(shape);
    both[1] = if (reads_auxiliary) try pair.tensorF32(shape) else try pair.empty(shape, .f32);
    both[2] = try pair.empty(shape, .f32);
    for (both[3..6], 1..) |*tensor, k| {
        const reads = coefficients.latent.model_outputs[k] != 0 or
            (coefficients.updates_auxiliary != 0 and coefficients.auxiliary.model_outputs[k] != 0);
        tensor.* = if (reads) try pair.tensorF32(shape) else try pair.empty(shape, .f32);
    }
    const rescale: f32 = if (pair.boolean()) 0 else pair.random().float(f32);
    const is_f32 = rescale == 0 and pair.boolean();
    both[6] = if (is_f32) try pair.tensorF32(branches) else try pair.tensor(branches);
    both[7] = try pair.tensorF32(shape);
    const scales = try pair.arena.allocator().alloc(f32, shape.batch * (branch_count - 1));
    for (scales) |*scale| scale.* = 1 + 9 * pair.random().float(f32);
    var steps: Steps = undefined;
    inline for (.{ "cpu", "cuda" }) |side| {
        @field(steps, side) = .{
            .coefficients = coefficients,
            .guidance_scales = scales,
            .rescale = rescale,
            .latent = @field(both[0], side),
            .auxiliary = @field(both[1], side),
            .model_outputs = .{
                @field(both[2], side), @field(both[3], side),
                @field(both[4], side), @field(both[5], side),
            },
            .model_output = @field(both[6], side),
            .noise = if (coefficients.samples_noise != 0) @field(both[7], side) else null,
        };
    }
    return steps;
}

/// Guidance, rescale, model outputs, auxiliary register and noise.
fn latentStep(pair: *Pair) Error!void {
    var both: [8]Both = undefined;
    const steps = try randomSteps(pair, &both);
    pair.describe("{f}, {d} branches, rescale {d}", .{
        pairs.shown(steps.cpu.latent.shape), steps.cpu.branchCount(), steps.cpu.rescale,
    });
    // One image of one element has no deviation to rescale by.
    if (steps.cpu.latent.shape.positionCount() == 1) return;
    try pair.cpu.latentStep(steps.cpu);
    try pair.cuda.latentStep(steps.cuda);
    // Sums in f64 on both; the guided output is f32.
    try expectNear(pair, both[0]);
    try expectNear(pair, both[2]);
    if (steps.cpu.coefficients.updates_auxiliary != 0) try expectNear(pair, both[1]);
}

fn expectNear(pair: *Pair, result: Both) Error!void {
    const actual = try pair.download(result.cuda);
    try pair.expectEach(f32, actual, result.cpu.host(f32), 4e-6, 4e-6);
}

/// The same bits, of masks with every grey.
fn maskBlend(pair: *Pair) Error!void {
    const shape: Shape = .{
        .batch = pair.size(3),
        .rows = pair.size(8),
        .width = pair.size(9),
        .channels = 4,
    };
    var one = shape.withChannels(1);
    one.batch = 1;
    pair.describe("{f}", .{pairs.shown(shape)});
    const latent = try pair.tensorF32(shape);
    const known = try pair.tensorF32(shape);
    const noise = try pair.tensorF32(shape);
    const mask = try pair.tensorF32(one);
    const signal, const noise_scale = .{ pair.random().float(f32), pair.random().float(f32) };
    try pair.cpu.maskBlend(.{
        .latent = latent.cpu,
        .known = known.cpu,
        .noise = noise.cpu,
        .mask = mask.cpu,
        .signal = signal,
        .noise_scale = noise_scale,
    });
    try pair.cuda.maskBlend(.{
        .latent = latent.cuda,
        .known = known.cuda,
        .noise = noise.cuda,
        .mask = mask.cuda,
        .signal = signal,
        .noise_scale = noise_scale,
    });
    try pair.expectSameValues(f32, try pair.read(f32, latent.cuda), latent.cpu.host(f32));
}

/// The same bytes, ties to even, NaN to 0.
fn toRgb(pair: *Pair) Error!void {
    const shape: Shape = .{
        .batch = 1,
        .rows = pair.size(9),
        .width = pair.size(20),
        .channels = 3,
    };
    pair.describe("{f}", .{pairs.shown(shape)});
    const values = [_]Both{ try pair.tensor(shape), try pair.tensorF32(shape) };
    for (values) |x| {
        const edges = [_]f32{ -1, 1, 0 };
        @memcpy(x.cpu.host(f32)[0..3], &edges);
        if (shape.elementCount() > 3) x.cpu.host(f32)[3] = std.math.nan(f32);
        try pair.upload(x);
        const out = try pair.empty(shape, .u8);
        try pair.cpu.toRgb(out.cpu, x.cpu);
        try pair.cuda.toRgb(out.cuda, x.cuda);
        try pair.expectSameValues(u8, try pair.read(u8, out.cuda), out.cpu.host(u8));
    }
}

/// Levels half-way between two bytes go to the even one.
fn toRgbTies(pair: *Pair) Error!void {
    pair.describe("ties", .{});
    const x = try pair.empty(.vector(1, 255), .f32);
    for (x.cpu.host(f32), 0..) |*value, n| {
        value.* = @as(f32, @floatFromInt(2 * n + 1)) / 255 - 1;
    }
    try pair.upload(x);
    const out = try pair.empty(x.cpu.shape, .u8);
    try pair.cpu.toRgb(out.cpu, x.cpu);
    try pair.cuda.toRgb(out.cuda, x.cuda);
    const actual = try pair.read(u8, out.cuda);
    try pair.expectSameValues(u8, actual, out.cpu.host(u8));
    // f32 hits the middle itself for some: rounding up always would differ there.
    var down_count: u32 = 0;
    for (actual, 0..) |level, n| down_count += @intFromBool(level == n and n % 2 == 0);
    try pair.expect(down_count > 10, "no level is in the middle");
}

/// Torch's numbers in NHWC, beyond the grid, call after call.
fn philoxNormal(pair: *Pair) Error!void {
    const blocks = pair.size(6);
    var generator: PhiloxGenerator = .init(pair.random().int(u64), blocks);
    for (0..2) |_| {
        const shape: Shape = .{
            .batch = 1,
            .rows = pair.size(40),
            .width = pair.size(30),
            .channels = pair.size(4),
        };
        pair.describe("{f}, {d} blocks", .{ pairs.shown(shape), blocks });
        const out = try pair.empty(shape, .f32);
        const draw = generator.next(shape.elementCount());
        const drawn = try pair.arena.allocator().alloc(f32, shape.elementCount());
        const turned = try pair.arena.allocator().alloc(f32, shape.elementCount());
        const scale = 1 + pair.random().float(f32);
        random_philox.fill(draw, drawn, 1, 1);
        nchw.toNhwc(turned, drawn, shape.channels, shape.positionCount());
        try pair.cpu.philoxNormal(out.cpu, draw, scale);
        for (turned) |*value| value.* *= scale;
        try pair.expectSameValues(f32, out.cpu.host(f32), turned);
        try pair.cuda.philoxNormal(out.cuda, draw, scale);
        // Logarithm, sine and cosine in f32 here, in f64 there.
        try pair.expectEach(f32, try pair.download(out.cuda), out.cpu.host(f32), 0, 8e-6);
    }
}
