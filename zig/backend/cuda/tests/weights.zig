//! Weights in a GPU's memory: written in place and in other numbers. Memory around them stays as it
//! is.

const std = @import("std");
const device_weights = @import("../weights.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const support = @import("support.zig");
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const DType = @import("../../../tensor.zig").DType;
const Gpu = @import("../gpu.zig").Gpu;
const Weight = @import("../../../weights.zig").Weight;

test "a weight is written in place, whatever its numbers" {
    var fixture: fixtures.Fixture = try .init(3);
    defer fixture.deinit();
    var d: Diagnostics = .{};
    var gpu = support.gpuOf(&fixture, &d);
    var source: [2 * 3 * 9]f16 = undefined;
    for (&source, 0..) |*value, i| value.* = @floatFromInt(i);
    for ([_]DType{ .f16, .bf16 }, [_]f32{ 1, 0.25 }) |activation, scale| {
        const weight: Weight = .{
            .name = "w",
            .layout = .convolution,
            .dtype = .f16,
            .shape = .{ 2, 3, 3, 3 },
            .scale = scale,
            .device_offset = 256,
            .source = std.mem.sliceAsBytes(&source),
            .source_dtype = .f16,
        };
        const filled: [512]u16 = @splat(0x1234);
        gpu.weights = try fixture.upload(u16, &filled);
        defer _ = fixture.driver.cuMemFree_v2(gpu.weights);
        var staging: [source.len]u16 = undefined;
        const bytes = device_weights.bytesOf(&weight, activation, &staging);
        const others: [source.len]u16 = @splat(7);
        try device_weights.write(&gpu, &weight, std.mem.sliceAsBytes(&others));
        try std.testing.expectEqual(7, (try contents(&fixture, &gpu))[128]);
        try device_weights.write(&gpu, &weight, bytes);
        for (try contents(&fixture, &gpu), 0..) |bits, i| {
            if (i < 128 or i >= 128 + source.len) {
                try std.testing.expectEqual(0x1234, bits);
                continue;
            }
            const value: f32 = if (activation == .f16)
                @as(f16, @bitCast(bits))
            else
                @bitCast(@as(u32, bits) << 16);
            const expected = scale * @as(f32, source[weight.sourceIndex(i - 128)]);
            try std.testing.expectEqual(expected, value);
        }
    }
}

fn contents(fixture: *fixtures.Fixture, gpu: *const Gpu) ![512]u16 {
    var values: [512]u16 = undefined;
    try fixture.download(u16, gpu.weights, &values);
    return values;
}
