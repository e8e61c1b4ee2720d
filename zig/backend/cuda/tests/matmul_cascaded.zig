//! The product of `--fp16-accumulate` on the emulated GPU against sums in f64: right at every tail,
//! and its error where its file says.

const std = @import("std");
const matmul_cascaded = @import("../matmul_cascaded.zig");
const support = @import("support.zig");
const Call = @import("../gemm.zig").Call;
const Pair = support.Pair;

const Sizes = struct {
    m: u32,
    n: u32,
    k: u32,
    has_bias: bool = false,
    has_residual: bool = false,
    scale: f32 = 1,
};

/// Relative L2 of the kernel's result, and of the exact one rounded to f16.
const Errors = struct { cascaded: f64, rounding: f64 };

fn measure(sizes: Sizes, seed: u64) !Errors {
    var pair: Pair = undefined;
    try pair.init(seed, .f16);
    defer pair.deinit();
    const x = try pair.tensor(.tokens(1, sizes.m, sizes.k));
    const w = try pair.tensor(.tokens(1, sizes.n, sizes.k));
    const bias = try pair.tensor(.vector(1, sizes.n));
    const residual = try pair.tensor(.tokens(1, sizes.m, sizes.n));
    const out = try pair.output(residual.cpu.shape);
    const call: Call = .{
        .m = sizes.m,
        .n = sizes.n,
        .k = sizes.k,
        .input = .f16,
        .output = .f16,
        .out = out.cuda.address,
        .x = x.cuda.address,
        .w = w.cuda.address,
        .bias = if (sizes.has_bias) bias.cuda.address else 0,
        .residual = if (sizes.has_residual) residual.cuda.address else 0,
        .scale = sizes.scale,
    };
    try std.testing.expect(matmul_cascaded.fits(call));
    try matmul_cascaded.run(pair.cuda, call);
    const actual = try pair.download(out.cuda);
    var cascaded: f64 = 0;
    var rounding: f64 = 0;
    var size: f64 = 0;
    for (actual, 0..) |value, i| {
        const row = x.cpu.host(f32)[i / sizes.n * sizes.k ..][0..sizes.k];
        const column = w.cpu.host(f32)[i % sizes.n * sizes.k ..][0..sizes.k];
        var exact: f64 = 0;
        for (row, column) |a, b| exact += @as(f64, a) * b;
        exact *= sizes.scale;
        if (sizes.has_bias) exact += bias.cpu.host(f32)[i % sizes.n];
        if (sizes.has_residual) exact += residual.cpu.host(f32)[i];
        const rounded: f64 = pair.rounded(@floatCast(exact));
        cascaded += (value - exact) * (value - exact);
        rounding += (rounded - exact) * (rounded - exact);
        size += exact * exact;
    }
    return .{ .cascaded = @sqrt(cascaded / size), .rounding = @sqrt(rounding / size) };
}

test "cascaded product: random shapes" {
    var prng: std.Random.DefaultPrng = .init(1);
    const random = prng.random();
    for (0..30) |draw| {
        const errors = try measure(.{
            .m = 1 + random.uintLessThan(u32, 150),
            .n = 8 * (1 + random.uintLessThan(u32, 18)),
            .k = 8 * (1 + random.uintLessThan(u32, 30)),
            .has_bias = draw % 2 == 0,
            .has_residual = draw % 3 == 0,
            .scale = if (draw % 4 == 0) 0.125 else 1,
        }, draw);
        try std.testing.expect(errors.cascaded <= 1e-3);
    }
}

test "cascaded product: its error is twice that of rounding the result, whatever the depth" {
    // Sums of products drawn with both signs; 2.1e-4 is the rounding of the result to f16.
    // Depths of SDXL's linear layers; `bun run bench kernels` prints the error at each.
    for ([_]u32{ 640, 1280, 2048, 2560, 5120 }) |depth| {
        const errors = try measure(.{ .m = 16, .n = 128, .k = depth }, depth);
        try std.testing.expect(errors.cascaded > 1.2 * errors.rounding);
        try std.testing.expect(errors.cascaded <= 5e-4);
    }
}
