//! The product of `--fp16-accumulate` on the emulated GPU against sums in f64: its error is where
//! its file says.

const std = @import("std");
const matmul_cascaded = @import("../matmul_cascaded.zig");
const support = @import("support.zig");
const Call = @import("../gemm.zig").Call;

/// Relative L2 of the kernel's result, and of the exact one rounded to f16.
const Errors = struct { cascaded: f64, rounding: f64 };

fn measure(m: u32, n: u32, k: u32) !Errors {
    var emulated: support.Emulated = undefined;
    try emulated.init(k, .f16);
    defer emulated.deinit();
    const pair = &emulated.pair;
    const x = try pair.tensor(.tokens(1, m, k));
    const w = try pair.tensor(.tokens(1, n, k));
    const out = try pair.output(.tokens(1, m, n));
    const call: Call = .{
        .m = m,
        .n = n,
        .k = k,
        .input = .f16,
        .output = .f16,
        .out = out.cuda.address,
        .x = x.cuda.address,
        .w = w.cuda.address,
    };
    try std.testing.expect(matmul_cascaded.fits(call));
    try matmul_cascaded.run(pair.cuda, call);
    const actual = try pair.download(out.cuda);
    var cascaded: f64 = 0;
    var rounding: f64 = 0;
    var size: f64 = 0;
    for (actual, 0..) |value, i| {
        const row = x.cpu.host(f32)[i / n * k ..][0..k];
        const column = w.cpu.host(f32)[i % n * k ..][0..k];
        var exact: f64 = 0;
        for (row, column) |a, b| exact += @as(f64, a) * b;
        const rounded: f64 = pair.rounded(@floatCast(exact));
        cascaded += (value - exact) * (value - exact);
        rounding += (rounded - exact) * (rounded - exact);
        size += exact * exact;
    }
    return .{ .cascaded = @sqrt(cascaded / size), .rounding = @sqrt(rounding / size) };
}

test "cascaded product: its error is twice that of rounding the result, whatever the depth" {
    // Sums of products drawn with both signs; 2.1e-4 is the rounding of the result to f16.
    // Depths of SDXL's linear layers; `bun run bench kernels` prints the error at each.
    for ([_]u32{ 640, 1280, 2048, 2560, 5120 }) |depth| {
        const errors = try measure(16, 128, depth);
        try std.testing.expect(errors.cascaded > 1.2 * errors.rounding);
        try std.testing.expect(errors.cascaded <= 5e-4);
    }
}
