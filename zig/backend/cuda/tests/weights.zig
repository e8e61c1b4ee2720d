//! Deltas on weights that a GPU holds: the emulated driver's memory has the rounded sum in the
//! device's order, and after `restore` the very bits of the first upload, at the same address.

const std = @import("std");
const device_weights = @import("../weights.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const DType = @import("../../../tensor.zig").DType;
const Gpu = @import("../gpu.zig").Gpu;
const Weight = @import("../../../weights.zig").Weight;

test "a delta is added in place and leaves no trace" {
    const gpa = std.testing.allocator;
    var fixture: fixtures.Fixture = try .init(3);
    defer fixture.deinit();
    var d: Diagnostics = .{};
    var gpu: Gpu = .{
        .driver = &fixture.driver,
        .device = fixture.device,
        .context = fixture.context,
        .module = fixture.module,
        .diagnostics = &d,
    };
    var source: [2 * 3 * 9]f16 = undefined;
    var delta: [source.len]f32 = undefined;
    for (&source, &delta, 0..) |*value, *change, i| {
        value.* = @floatFromInt(i);
        change.* = @floatFromInt(1000 + i);
    }
    for ([_]DType{ .f16, .bf16 }, [_]f32{ 1, 0.25 }) |activation, scale| {
        const weight: Weight = .{
            .name = "w",
            .layout = .convolution,
            .dtype = .f16,
            .shape = .{ 2, 3, 3, 3 },
            .scale = scale,
            // Memory before it and behind it stays as it is.
            .device_offset = 256,
            .source = std.mem.sliceAsBytes(&source),
            .source_dtype = .f16,
        };
        const zeros: [512]u16 = @splat(0x1234);
        gpu.weights = try fixture.upload(u16, &zeros);
        defer _ = fixture.driver.cuMemFree_v2(gpu.weights);
        try device_weights.restore(gpa, &gpu, &weight, activation);
        const loaded = try contents(&fixture, &gpu);
        const free_bytes = try gpu.freeBytes();

        try device_weights.apply(gpa, &gpu, &weight, activation, &@as([source.len]f32, @splat(9)));
        try device_weights.apply(gpa, &gpu, &weight, activation, &delta);
        const changed = try contents(&fixture, &gpu);
        for (0..source.len) |i| {
            const at = weight.sourceIndex(i);
            const sum = scale * (@as(f32, source[at]) + delta[at]);
            const bits = changed[128 + i];
            const value: f32 = if (activation == .f16)
                @as(f16, @bitCast(bits))
            else
                @bitCast(@as(u32, bits) << 16);
            // Half a unit in the last place.
            const tolerance: f32 = if (activation == .f16) 0x1p-11 else 0x1p-8;
            try std.testing.expectApproxEqRel(sum, value, tolerance);
        }
        try device_weights.restore(gpa, &gpu, &weight, activation);
        const restored = try contents(&fixture, &gpu);
        try std.testing.expectEqualSlices(u16, &loaded, &restored);
        try std.testing.expectEqual(free_bytes, try gpu.freeBytes());
        for (restored, 0..) |bits, i| {
            const is_outside = i < 128 or i >= 128 + source.len;
            if (is_outside) try std.testing.expectEqual(@as(u16, 0x1234), bits);
        }
    }
}

fn contents(fixture: *fixtures.Fixture, gpu: *const Gpu) ![512]u16 {
    var values: [512]u16 = undefined;
    try fixture.download(u16, gpu.weights, &values);
    return values;
}
