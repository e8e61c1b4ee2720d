//! The emulated driver on kernels that are right: arithmetic, warp functions, matrix products,
//! order of streams.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const fixtures = @import("../fixture.zig");
const Fixture = fixtures.Fixture;
const ok = fixtures.ok;
const expectEqual = std.testing.expectEqual;

test "threads, blocks and atomics: every element once" {
    for (0..8) |seed| {
        var fixture: Fixture = try .init(seed);
        defer fixture.deinit();
        var values: [1000]f32 = undefined;
        for (&values, 0..) |*value, i| value.* = @floatFromInt(i);
        const x = try fixture.upload(f32, &values);
        try fixture.launch("check_step", .{ .grid = 32, .block = 32 }, .{
            x, @as(f32, 3), @as(u32, 1000),
        });
        try ok(fixture.synchronize());
        try fixture.download(f32, x, &values);
        for (values, 0..) |value, i| {
            try expectEqual(@as(f32, @floatFromInt(2 * i + 3)), value);
        }
        const sum = try fixture.upload(f32, &.{0});
        const count = try fixture.upload(u32, &.{0});
        try fixture.launch("check_atomics", .{ .grid = 5, .block = 33 }, .{ sum, count });
        try ok(fixture.synchronize());
        try fixture.download(f32, sum, values[0..1]);
        try expectEqual(5 * 33 * 0.5, values[0]);
        var counted: [1]u32 = undefined;
        try fixture.download(u32, count, &counted);
        try expectEqual(5 * 33, counted[0]);
    }
}

test "reductions and shuffles" {
    var random: std.Random.DefaultPrng = .init(1);
    for (0..20) |seed| {
        var fixture: Fixture = try .init(seed);
        defer fixture.deinit();
        var x: [256]f32 = undefined;
        for (&x) |*value| value.* = random.random().floatNorm(f32);
        const thread_count = 32 * random.random().intRangeAtMost(u32, 1, 8);
        const in = try fixture.upload(f32, &x);
        const out = try fixture.alloc(f32, 6 * 256);
        try fixture.launch("check_reductions", .{ .block = thread_count }, .{ in, out });
        try ok(fixture.synchronize());
        var got: [6 * 256]f32 = undefined;
        try fixture.download(f32, out, &got);
        var sum: f64 = 0;
        for (x[0..thread_count]) |value| sum += value;
        const most = std.mem.max(f32, x[0..thread_count]);
        for (0..thread_count) |i| {
            const row = got[6 * i ..][0..6];
            const lane = i % 32;
            var votes: f32 = 0;
            for (x[i - lane ..][0..32]) |value| votes += if (value > 0) 1 else 0;
            try std.testing.expectApproxEqAbs(@as(f32, @floatCast(sum)), row[0], 1e-4);
            try expectEqual(most, row[1]);
            try expectEqual(if (lane == 0) x[i] else x[i - 1], row[2]);
            try expectEqual(if (lane % 16 >= 14) x[i] else x[i + 2], row[3]);
            try expectEqual(x[i - lane % 8 + 3], row[4]);
            try expectEqual(votes, row[5]);
        }
    }
}

test "rounding to f16 and bf16: to nearest, ties to even" {
    var fixture: Fixture = try .init(2);
    defer fixture.deinit();
    const x = [_]f32{
        0,      -0.0,    1,      65504,   65519.9, 65520,   1.00048828125, 1.00146484375,
        3.1e-8, 2.98e-8, 6.1e-5, 1.00390, 1.01171, 3.39e38, 1e-40,         std.math.inf(f32),
    };
    const half = try fixture.alloc(u16, x.len);
    const brain = try fixture.alloc(u16, x.len);
    const in = try fixture.upload(f32, &x);
    try fixture.launch("check_rounding", .{ .block = x.len }, .{ in, half, brain });
    try ok(fixture.synchronize());
    var half_bits: [x.len]u16 = undefined;
    var brain_bits: [x.len]u16 = undefined;
    try fixture.download(u16, half, &half_bits);
    try fixture.download(u16, brain, &brain_bits);
    for (x, half_bits, brain_bits) |value, half_value, brain_value| {
        try expectEqual(@as(u16, @bitCast(@as(f16, @floatCast(value)))), half_value);
        const bits: u32 = @bitCast(value);
        const down = bits & 0xffff0000;
        const rest = bits & 0xffff;
        const is_up = rest > 0x8000 or (rest == 0x8000 and down & 0x10000 != 0);
        try expectEqual(down + (if (is_up) @as(u32, 0x10000) else 0), @as(u32, brain_value) << 16);
    }
}

test "mma and ldmatrix give the plain product" {
    var random: std.Random.DefaultPrng = .init(3);
    inline for (.{ "check_product_f16", "check_product_bf16" }, 0..) |name, kind| {
        for (0..20) |seed| {
            var fixture: Fixture = try .init(seed);
            defer fixture.deinit();
            // Small whole numbers: sums are exact in any order, so that equality is the bar.
            var a: [16][16]f32 = undefined;
            var b: [16][8]f32 = undefined;
            var d: [16][8]f32 = undefined;
            inline for (.{ &a, &b, &d }) |matrix| for (matrix) |*row| for (row) |*value| {
                value.* = @floatFromInt(random.random().intRangeAtMost(i32, -9, 9));
            };
            const is_transposed = seed % 2 == 1;
            var a_bits: [16 * 16]u16 = undefined;
            var b_bits: [16 * 8]u16 = undefined;
            for (&a_bits, 0..) |*bits, i| bits.* = bitsOf(kind, a[i / 16][i % 16]);
            for (&b_bits, 0..) |*bits, i| {
                const value = if (is_transposed) b[i / 8][i % 8] else b[i % 16][i / 16];
                bits.* = bitsOf(kind, value);
            }
            const out = try fixture.upload([8]f32, &d);
            try fixture.launch(name, .{ .block = 32 }, .{
                try fixture.upload(u16, &a_bits), try fixture.upload(u16, &b_bits),
                out,                              @as(u32, @intFromBool(is_transposed)),
                @as(u32, 1),
            });
            try ok(fixture.synchronize());
            var got: [16][8]f32 = undefined;
            try fixture.download([8]f32, out, &got);
            for (0..16) |row| for (0..8) |column| {
                var sum = d[row][column];
                for (0..16) |k| sum += a[row][k] * b[k][column];
                try expectEqual(sum, got[row][column]);
            };
        }
    }
}

fn bitsOf(kind: usize, value: f32) u16 {
    if (kind == 0) return @bitCast(@as(f16, @floatCast(value)));
    return @truncate(@as(u32, @bitCast(value)) >> 16);
}

test "streams keep their order, events order streams, and a missing wait shows" {
    var wrong_count: usize = 0;
    for (0..40) |seed| {
        var fixture: Fixture = try .init(seed);
        defer fixture.deinit();
        const d = &fixture.driver;
        const other = try fixture.makeStream();
        const event = try fixture.makeEvent();
        const waits = seed % 2 == 0;
        const x = try fixture.upload(f32, &.{1});
        for (0..3) |i| try fixture.launch("check_step", .{}, .{
            x, @as(f32, @floatFromInt(i)), @as(u32, 1),
        });
        try ok(d.cuEventRecord(event, fixture.stream));
        if (waits) try ok(d.cuStreamWaitEvent(other, event, 0));
        try ok(try fixture.launchOn(other, "check_step", .{}, .{ x, @as(f32, 9), @as(u32, 1) }));
        try ok(d.cuStreamSynchronize(other));
        try ok(fixture.synchronize());
        var value: [1]f32 = undefined;
        try fixture.download(f32, x, &value);
        // ((1 * 2 + 0) * 2 + 1) * 2 + 2 = 12, then 12 * 2 + 9.
        if (waits) try expectEqual(33, value[0]) else wrong_count += @intFromBool(value[0] != 33);
    }
    try std.testing.expect(wrong_count >= 5);
}

test "an asynchronous copy takes pageable bytes at once and pinned ones when it runs" {
    var fixture: Fixture = try .init(5);
    defer fixture.deinit();
    const d = &fixture.driver;
    const x = try fixture.alloc(f32, 1);
    var pageable = [_]f32{1};
    try ok(d.cuMemcpyHtoDAsync_v2(x, &pageable, 4, fixture.stream));
    pageable[0] = 2;
    var value: [1]f32 = undefined;
    try ok(d.cuMemcpyDtoHAsync_v2(&value, x, 4, fixture.stream));
    try expectEqual(1, value[0]);
    var pinned: ?*anyopaque = null;
    try ok(d.cuMemHostAlloc(&pinned, 4, 0));
    const number: *f32 = @ptrCast(@alignCast(pinned.?));
    number.* = 3;
    try ok(d.cuMemcpyHtoDAsync_v2(x, number, 4, fixture.stream));
    number.* = 4;
    try ok(fixture.synchronize());
    try fixture.download(f32, x, &value);
    try expectEqual(4, value[0]);
    try ok(d.cuMemFreeHost(pinned.?));
}

test "two GPUs: copies between them, kernels only with peer access" {
    var first: Fixture = try .initOn(0, 6);
    defer first.deinit();
    const x = try first.upload(f32, &.{7});
    var second: Fixture = try .initOn(1, 6);
    defer second.deinit();
    const d = &second.driver;
    const y = try second.alloc(f32, 1);
    try ok(d.cuMemcpyPeerAsync(y, second.context, x, first.context, 4, second.stream));
    var value: [1]f32 = undefined;
    try ok(second.synchronize());
    try second.download(f32, y, &value);
    try expectEqual(7, value[0]);
    const far = .{ x, @as(f32, 0), @as(u32, 1) };
    try ok(d.cuCtxEnablePeerAccess(first.context, 0));
    try expectEqual(.peer_access_already_enabled, d.cuCtxEnablePeerAccess(first.context, 0));
    try second.launch("check_step", .{}, far);
    try ok(second.synchronize());
    try ok(d.cuCtxDisablePeerAccess(first.context));
    second.emulator.bxl_emulator_set_quiet(true);
    try second.launch("check_step", .{}, far);
    try second.expectFailure(.illegal_address, &.{ "check_step", "argument 0", "peer access" });
}

test "memory ends where it is said to end" {
    var fixture: Fixture = try .init(7);
    defer fixture.deinit();
    const d = &fixture.driver;
    fixture.emulator.bxl_emulator_set_memory(1 << 20);
    defer fixture.emulator.bxl_emulator_set_memory(24 << 30);
    var free: usize = 0;
    var total: usize = 0;
    const half = try fixture.alloc(u8, 1 << 19);
    try ok(d.cuMemGetInfo_v2(&free, &total));
    try expectEqual(1 << 19, free);
    try expectEqual(1 << 20, total);
    var more: usize = 0;
    try expectEqual(.out_of_memory, d.cuMemAlloc_v2(&more, (1 << 19) + 1));
    try ok(d.cuMemFree_v2(half));
    try ok(d.cuMemAlloc_v2(&more, 1 << 20));
    try expectEqual(.invalid_value, d.cuMemFree_v2(more + 4));
    var bytes: [8]u8 = undefined;
    try expectEqual(.invalid_value, d.cuMemcpyDtoH_v2(&bytes, more + (1 << 20) - 4, 8));
}

test "large allocations of several GPUs are one memory where a bench asks for it" {
    var first: Fixture = try .initOn(0, 8);
    defer first.deinit();
    var second: Fixture = try .initOn(1, 8);
    defer second.deinit();
    const large = 10_001;
    first.emulator.bxl_emulator_share_memory(large);
    defer first.emulator.bxl_emulator_share_memory(std.math.maxInt(u64));
    var value: [1]u8 = .{5};
    for ([_]usize{ large, large - 1 }) |bytes| {
        try first.use();
        const x = try first.alloc(u8, bytes);
        try second.use();
        const y = try second.alloc(u8, bytes);
        try std.testing.expect(x != y);
        try ok(second.driver.cuMemcpyHtoD_v2(y + bytes - 1, &value, 1));
        try ok(second.driver.cuCtxSynchronize());
        try first.use();
        var got: [1]u8 = undefined;
        try first.download(u8, x + bytes - 1, &got);
        try expectEqual(bytes == large, got[0] == 5);
        // The other one stays.
        try ok(first.driver.cuMemFree_v2(x));
        try second.use();
        try second.download(u8, y + bytes - 1, &got);
        try expectEqual(5, got[0]);
        try ok(second.driver.cuMemFree_v2(y));
    }
    try std.testing.expectEqualStrings("", first.lastReport());
}

test "a blocking copy from pageable memory has arrived after a synchronization, not before" {
    var late_count: usize = 0;
    for (0..40) |seed| {
        var fixture: Fixture = try .init(seed);
        defer fixture.deinit();
        const d = &fixture.driver;
        const x = try fixture.upload(f32, &.{1});
        const y = try fixture.alloc(f32, 1);
        const waits = seed % 2 == 0;
        var pageable = [_]f32{2};
        try ok(d.cuMemcpyHtoD_v2(x, &pageable, 4));
        // The bytes have been taken.
        pageable[0] = 3;
        if (waits) try ok(d.cuCtxSynchronize());
        try ok(d.cuMemcpyDtoDAsync_v2(y, x, 4, fixture.stream));
        try ok(fixture.synchronize());
        var value: [1]f32 = undefined;
        try fixture.download(f32, y, &value);
        if (waits) try expectEqual(2, value[0]) else late_count += @intFromBool(value[0] == 1);
    }
    try std.testing.expect(late_count >= 5);
}
