//! The emulated driver on what is wrong on purpose: each mistake shows, with its kernel named.

const std = @import("std");
const rigs = @import("../fixture.zig");
const Rig = rigs.Rig;
const ok = rigs.ok;
const expectEqual = std.testing.expectEqual;

test "a read or write outside of an allocation is an illegal address, with its thread named" {
    const page = 4096;
    for ([_]i64{ 64, -2 * page, 3 * page, -(1 << 38) }) |offset| for (0..2) |writes| {
        // A little past the end there is nothing to catch a read; see the next test.
        var rig: Rig = try .initQuiet(1);
        defer rig.deinit();
        const x = try rig.upload(f32, &@as([64]f32, @splat(1)));
        try rig.launch("check_bounds", .{ .grid = 2, .block = 32 }, .{
            x, offset, @as(u32, @intCast(writes)),
        });
        try rig.expectFailure(.illegal_address, &.{
            "check_bounds",                                       "block (",
            if (writes == 1) "illegal write" else "illegal read", "thread (",
        });
    };
}

test "a write into what alignment left over shows after its kernel" {
    for ([_]i64{ 1, -40 }) |offset| {
        var rig: Rig = try .initQuiet(2);
        defer rig.deinit();
        const x = try rig.upload(f32, &@as([40]f32, @splat(1)));
        try rig.launch("check_bounds", .{ .block = 40 }, .{ x, offset, @as(u32, 1) });
        try rig.expectFailure(.illegal_address, &.{ "check_bounds", "outside its bounds" });
    }
}

test "what nobody wrote is NaN, in memory and in shared memory" {
    var rig: Rig = try .initQuiet(3);
    defer rig.deinit();
    const x = try rig.alloc(f32, 8);
    const out = try rig.alloc(f32, 8);
    const shape: Rig.Shape = .{ .block = 8, .shared_bytes = 32 };
    try rig.launch("check_shared_bounds", shape, .{ out, @as(u32, 5) });
    try rig.launch("check_step", .{ .block = 8 }, .{ x, @as(f32, 1), @as(u32, 8) });
    try ok(rig.synchronize());
    var values: [8]f32 = undefined;
    try rig.download(f32, x, &values);
    for (values) |value| try std.testing.expect(std.math.isNan(value));
    try rig.download(f32, out, &values);
    for (values, 0..) |value, i| {
        // Threads before the one that wrote may run after it: only what nobody wrote is sure.
        if (i != 5) try std.testing.expect(std.math.isNan(value));
    }
}

test "shared memory ends where the launch says" {
    for ([_]u32{ 8, 31, 32, 2000 }) |at| {
        var rig: Rig = try .initQuiet(4);
        defer rig.deinit();
        const out = try rig.alloc(f32, 8);
        try rig.launch("check_shared_bounds", .{ .block = 8, .shared_bytes = 32 }, .{ out, at });
        try rig.expectFailure(.illegal_address, &.{"check_shared_bounds"});
    }
}

test "a missing barrier shows over schedules, and a barrier mends it" {
    var wrong_count: usize = 0;
    for (0..20) |seed| for (0..2) |waits| {
        var rig: Rig = try .initQuiet(seed);
        defer rig.deinit();
        const out = try rig.alloc(f32, 64);
        try rig.launch("check_neighbour", .{ .block = 64 }, .{
            out, @as(u32, @intCast(waits)),
        });
        try ok(rig.synchronize());
        var values: [64]f32 = undefined;
        try rig.download(f32, out, &values);
        var is_right = true;
        for (values, 0..) |value, i| {
            if (value != @as(f32, @floatFromInt((i + 1) % 64))) is_right = false;
        }
        if (waits == 1) try std.testing.expect(is_right);
        if (!is_right) wrong_count += 1;
    };
    try expectEqual(20, wrong_count);
}

test "threads that do not meet at one barrier are reported" {
    const cases = [_]struct { first: u32, leaves: u32, says: []const u8 }{
        .{ .first = 32, .leaves = 1, .says = "32 of 64 threads ended before the __syncthreads" },
        .{ .first = 7, .leaves = 1, .says = "57 of 64 threads ended before the __syncthreads" },
        .{ .first = 32, .leaves = 0, .says = "threads wait at the __syncthreads of line" },
    };
    for (cases) |case| {
        var rig: Rig = try .initQuiet(5);
        defer rig.deinit();
        const out = try rig.alloc(f32, 64);
        try rig.launch("check_divergence", .{ .block = 64 }, .{ out, case.first, case.leaves });
        try rig.expectFailure(.launch_failed, &.{ "check_divergence", case.says });
    }
}

test "lanes that do not meet at one shuffle are reported" {
    var rig: Rig = try .initQuiet(6);
    defer rig.deinit();
    const out = try rig.alloc(f32, 32);
    try rig.launch("check_lanes", .{ .block = 32 }, .{ out, @as(u32, 4) });
    try rig.expectFailure(.launch_failed, &.{ "check_lanes", "never all came to line" });
}

test "a vector at an odd address is misaligned" {
    var rig: Rig = try .initQuiet(7);
    defer rig.deinit();
    const x = try rig.upload(f32, &@as([64]f32, @splat(1)));
    const out = try rig.alloc(f32, 64);
    try rig.launch("check_vector", .{ .block = 8 }, .{ out, x, @as(u32, 4) });
    try ok(rig.synchronize());
    try rig.launch("check_vector", .{ .block = 8 }, .{ out, x, @as(u32, 1) });
    try rig.expectFailure(.misaligned_address, &.{ "check_vector", "misaligned" });
}

test "an asynchronous copy that nobody waits for has not landed" {
    var rig: Rig = try .initQuiet(8);
    defer rig.deinit();
    const a = try rig.upload(u16, &@as([256]u16, @splat(0x3c00)));
    const b = try rig.upload(u16, &@as([128]u16, @splat(0x3c00)));
    const out = try rig.upload(f32, &@as([128]f32, @splat(0)));
    try rig.launch("check_product_f16", .{ .block = 32 }, .{
        a, b, out, @as(u32, 0), @as(u32, 0),
    });
    try ok(rig.synchronize());
    var values: [128]f32 = undefined;
    try rig.download(f32, out, &values);
    for (values) |value| try std.testing.expect(std.math.isNan(value));
}

test "a launch that a GPU would refuse is refused, and the context lives on" {
    var rig: Rig = try .initQuiet(9);
    defer rig.deinit();
    const x = try rig.alloc(f32, 1);
    const arguments = .{ x, @as(f32, 1), @as(u32, 1) };
    const refused = [_]Rig.Shape{
        .{ .grid = 0 }, .{ .block = 0 }, .{ .block = 1025 }, .{ .shared_bytes = (48 << 10) + 1 },
    };
    for (refused) |shape| {
        const result = try rig.launchOn(rig.stream, "check_step", shape, arguments);
        try expectEqual(.invalid_value, result);
    }
    try ok(rig.synchronize());
}

test "a pointer to memory of the host is no argument" {
    var rig: Rig = try .initQuiet(10);
    defer rig.deinit();
    var value: f32 = 1;
    try rig.launch("check_step", .{}, .{ @intFromPtr(&value), @as(f32, 1), @as(u32, 1) });
    try rig.expectFailure(.illegal_address, &.{ "check_step", "argument 0", "no memory" });
}
