//! The emulated driver on what is wrong on purpose: each mistake shows, with its kernel named.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const fixtures = @import("../fixture.zig");
const Fixture = fixtures.Fixture;
const ok = fixtures.ok;
const expectEqual = std.testing.expectEqual;

test "a read or write outside of an allocation is an illegal address, with its thread named" {
    const page = 4096;
    for ([_]i64{ 64, -2 * page, 3 * page, -(1 << 38) }) |offset| for (0..2) |writes| {
        // A little past the end there is nothing to catch a read; see the next test.
        var fixture: Fixture = try .initQuiet(1);
        defer fixture.deinit();
        const x = try fixture.upload(f32, &@as([64]f32, @splat(1)));
        try fixture.launch("check_bounds", .{ .grid = 2, .block = 32 }, .{
            x, offset, @as(u32, @intCast(writes)),
        });
        try fixture.expectFailure(.illegal_address, &.{
            "check_bounds",                                       "block (",
            if (writes == 1) "illegal write" else "illegal read", "thread (",
        });
    };
}

test "a write into what alignment left over shows after its kernel" {
    for ([_]i64{ 1, -40 }) |offset| {
        var fixture: Fixture = try .initQuiet(2);
        defer fixture.deinit();
        const x = try fixture.upload(f32, &@as([40]f32, @splat(1)));
        try fixture.launch("check_bounds", .{ .block = 40 }, .{ x, offset, @as(u32, 1) });
        try fixture.expectFailure(.illegal_address, &.{ "check_bounds", "outside its bounds" });
    }
}

test "what nobody wrote is NaN, in memory and in shared memory" {
    var fixture: Fixture = try .initQuiet(3);
    defer fixture.deinit();
    const x = try fixture.alloc(f32, 8);
    const out = try fixture.alloc(f32, 8);
    const shape: Fixture.Shape = .{ .block = 8, .shared_bytes = 32 };
    try fixture.launch("check_shared_bounds", shape, .{ out, @as(u32, 5) });
    try fixture.launch("check_step", .{ .block = 8 }, .{ x, @as(f32, 1), @as(u32, 8) });
    try ok(fixture.synchronize());
    var values: [8]f32 = undefined;
    try fixture.download(f32, x, &values);
    for (values) |value| try std.testing.expect(std.math.isNan(value));
    try fixture.download(f32, out, &values);
    for (values, 0..) |value, i| {
        // Threads before the one that wrote may run after it: only what nobody wrote is sure.
        if (i != 5) try std.testing.expect(std.math.isNan(value));
    }
}

test "shared memory ends where the launch says" {
    for ([_]u32{ 8, 31, 32, 2000 }) |at| {
        var fixture: Fixture = try .initQuiet(4);
        defer fixture.deinit();
        const out = try fixture.alloc(f32, 8);
        const shape: Fixture.Shape = .{ .block = 8, .shared_bytes = 32 };
        try fixture.launch("check_shared_bounds", shape, .{ out, at });
        try fixture.expectFailure(.illegal_address, &.{"check_shared_bounds"});
    }
}

test "a missing barrier shows over schedules, and a barrier mends it" {
    var wrong_count: usize = 0;
    for (0..20) |seed| for (0..2) |waits| {
        var fixture: Fixture = try .initQuiet(seed);
        defer fixture.deinit();
        const out = try fixture.alloc(f32, 64);
        try fixture.launch("check_neighbour", .{ .block = 64 }, .{
            out, @as(u32, @intCast(waits)),
        });
        try ok(fixture.synchronize());
        var values: [64]f32 = undefined;
        try fixture.download(f32, out, &values);
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
        var fixture: Fixture = try .initQuiet(5);
        defer fixture.deinit();
        const out = try fixture.alloc(f32, 64);
        try fixture.launch("check_divergence", .{ .block = 64 }, .{ out, case.first, case.leaves });
        try fixture.expectFailure(.launch_failed, &.{ "check_divergence", case.says });
    }
}

test "lanes that do not meet at one shuffle are reported" {
    var fixture: Fixture = try .initQuiet(6);
    defer fixture.deinit();
    const out = try fixture.alloc(f32, 32);
    try fixture.launch("check_lanes", .{ .block = 32 }, .{ out, @as(u32, 4) });
    try fixture.expectFailure(.launch_failed, &.{ "check_lanes", "never all came to line" });
}

test "a vector at an odd address is misaligned" {
    var fixture: Fixture = try .initQuiet(7);
    defer fixture.deinit();
    const x = try fixture.upload(f32, &@as([64]f32, @splat(1)));
    const out = try fixture.alloc(f32, 64);
    try fixture.launch("check_vector", .{ .block = 8 }, .{ out, x, @as(u32, 4) });
    try ok(fixture.synchronize());
    try fixture.launch("check_vector", .{ .block = 8 }, .{ out, x, @as(u32, 1) });
    try fixture.expectFailure(.misaligned_address, &.{ "check_vector", "misaligned" });
}

test "an asynchronous copy that nobody waits for has not landed" {
    var fixture: Fixture = try .initQuiet(8);
    defer fixture.deinit();
    const a = try fixture.upload(u16, &@as([256]u16, @splat(0x3c00)));
    const b = try fixture.upload(u16, &@as([128]u16, @splat(0x3c00)));
    const out = try fixture.upload(f32, &@as([128]f32, @splat(0)));
    try fixture.launch("check_product_f16", .{ .block = 32 }, .{
        a, b, out, @as(u32, 0), @as(u32, 0),
    });
    try ok(fixture.synchronize());
    var values: [128]f32 = undefined;
    try fixture.download(f32, out, &values);
    for (values) |value| try std.testing.expect(std.math.isNan(value));
}

test "a launch that a GPU would refuse is refused, and the context lives on" {
    var fixture: Fixture = try .initQuiet(9);
    defer fixture.deinit();
    const x = try fixture.alloc(f32, 1);
    const arguments = .{ x, @as(f32, 1), @as(u32, 1) };
    const refused = [_]Fixture.Shape{
        .{ .grid = 0 }, .{ .block = 0 }, .{ .block = 1025 }, .{ .shared_bytes = (48 << 10) + 1 },
    };
    for (refused) |shape| {
        const result = try fixture.launchOn(fixture.stream, "check_step", shape, arguments);
        try expectEqual(.invalid_value, result);
    }
    try ok(fixture.synchronize());
}

const dependent = [_]drivers.LaunchAttribute{.{
    .id = .programmatic_stream_serialization,
    .value = .{ .allowed = 1 },
}};

/// 16 bytes of `x` to those behind them, by a kernel that waits for earlier ones.
fn copyDependent(fixture: *const Fixture, x: usize) !drivers.Result {
    const bytes: u64 = 16;
    return fixture.launchWith(fixture.stream, "copy_rows", .{ .block = 2 }, &dependent, .{
        x + 16, x, bytes, bytes, bytes,
    });
}

test "a dependent launch whose kernel does not wait is found, and one that waits runs" {
    var fixture: Fixture = try .initQuiet(11);
    defer fixture.deinit();
    fixture.emulator.bxl_emulator_set_capability(90);
    defer fixture.emulator.bxl_emulator_set_capability(0);
    const x = try fixture.upload(f32, &.{ 1, 2, 3, 4, 0, 0, 0, 0 });
    try ok(try copyDependent(&fixture, x));
    try ok(fixture.synchronize());
    var values: [8]f32 = undefined;
    try fixture.download(f32, x, &values);
    try std.testing.expectEqualSlices(f32, &.{ 1, 2, 3, 4, 1, 2, 3, 4 }, &values);
    try ok(try fixture.launchWith(fixture.stream, "check_step", .{}, &dependent, .{
        x, @as(f32, 1), @as(u32, 1),
    }));
    try fixture.expectFailure(.launch_failed, &.{ "check_step", "did not wait for earlier" });
}

test "a dependent launch needs Hopper, and in a graph a kernel ahead of it" {
    var fixture: Fixture = try .initQuiet(12);
    defer fixture.deinit();
    const d = &fixture.driver;
    const x = try fixture.upload(f32, &@as([8]f32, @splat(1)));
    defer fixture.emulator.bxl_emulator_set_capability(0);
    fixture.emulator.bxl_emulator_set_capability(89);
    try expectEqual(.not_supported, try copyDependent(&fixture, x));
    fixture.emulator.bxl_emulator_set_capability(90);
    var graph: ?drivers.Graph = null;
    try ok(d.cuStreamBeginCapture_v2(fixture.stream, .thread_local));
    try expectEqual(.not_supported, try copyDependent(&fixture, x));
    try fixture.launch("check_step", .{}, .{ x, @as(f32, 1), @as(u32, 1) });
    try ok(try copyDependent(&fixture, x));
    try ok(d.cuMemsetD32Async(x, 0, 1, fixture.stream));
    try expectEqual(.not_supported, try copyDependent(&fixture, x));
    try ok(d.cuStreamEndCapture(fixture.stream, &graph));
    try ok(d.cuGraphDestroy(graph.?));
}

test "a pointer to memory of the host is no argument" {
    var fixture: Fixture = try .initQuiet(10);
    defer fixture.deinit();
    var value: f32 = 1;
    try fixture.launch("check_step", .{}, .{ @intFromPtr(&value), @as(f32, 1), @as(u32, 1) });
    try fixture.expectFailure(.illegal_address, &.{ "check_step", "argument 0", "no memory" });
}
