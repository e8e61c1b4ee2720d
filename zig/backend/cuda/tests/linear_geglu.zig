//! The feed-forward's gated product against the CPU's: every kernel, at every tail.

const std = @import("std");
const linear_geglu = @import("../linear_geglu.zig");
const support = @import("support.zig");
const DType = @import("../../../tensor.zig").DType;

const Sizes = struct { m: u32, columns: u32, k: u32 };

fn expectKernel(kernel: linear_geglu.Kernel, sizes: Sizes, seed: u64, activation: DType) !void {
    var emulated: support.Emulated = undefined;
    try emulated.init(seed, activation);
    defer emulated.deinit();
    const pair = &emulated.pair;
    const x = try pair.tensor(.tokens(1, sizes.m, sizes.k));
    const scale = 1 / @sqrt(@as(f32, @floatFromInt(sizes.k)));
    const weight = try pair.weight(.{ 2 * sizes.columns, sizes.k, 1, 1 }, scale);
    const bias = try pair.vector(2 * sizes.columns);
    const wide = try pair.output(.tokens(1, sizes.m, 2 * sizes.columns));
    const out = try pair.output(.tokens(1, sizes.m, sizes.columns));
    try pair.cpu.linearGeglu(out.cpu, wide.cpu, x.cpu, weight, bias);
    errdefer emulated.explain(@tagName(kernel), seed);
    try linear_geglu.run(pair.cuda, kernel, .{
        .m = sizes.m,
        .columns = sizes.columns,
        .k = sizes.k,
        .out = out.cuda.address,
        .x = x.cuda.address,
        .w = weight.device_offset,
        .bias = bias.device_offset,
    });
    try pair.expectClose(out, .{ .roundings = 1 });
}

test "each kernel gates its product at every tail" {
    for (std.enums.values(linear_geglu.Kernel)) |kernel| {
        for ([_]Sizes{
            .{ .m = 1, .columns = 8, .k = 8 },
            .{ .m = 130, .columns = 136, .k = 72 },
            .{ .m = 67, .columns = 200, .k = 328 },
        }, 0..) |sizes, seed| {
            for ([_]DType{ .f16, .bf16 }) |activation| {
                try expectKernel(kernel, sizes, seed, activation);
            }
        }
    }
}
