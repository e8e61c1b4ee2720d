//! The arithmetic between patches, on the CPU device: what patches combine and predict must agree
//! with the whole image wherever that is possible at all.

const std = @import("std");
const testing = std.testing;
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const Exchange = @import("exchange.zig").Exchange;
const Patch = @import("layout.zig").Patch;
const Scratch = @import("../scratch.zig").Scratch;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

const TestDevice = struct {
    cancelled: std.atomic.Value(bool) = .init(false),
    scratch: Scratch = undefined,
    memory: []align(64) u8 = undefined,
    cpu: *backend.Cpu = undefined,

    fn open(device: *TestDevice) !Backend {
        device.cpu = try backend.Cpu.init(testing.allocator, testing.io, .{
            .thread_count = 1,
            .cancelled = &device.cancelled,
        });
        device.memory = try testing.allocator.alignedAlloc(u8, .fromByteUnits(64), 1 << 20);
        device.scratch = .init(device.memory);
        return .{ .scratch = &device.scratch, .device = .{ .cpu = device.cpu } };
    }

    fn close(device: *TestDevice) void {
        testing.allocator.free(device.memory);
        device.cpu.deinit();
    }
};

fn randomTensor(b: Backend, shape: Shape, seed: u64) !Tensor {
    const tensor = try b.alloc(shape, .f32);
    var random: std.Random.DefaultPrng = .init(seed);
    for (tensor.host(f32)) |*value| value.* = random.random().floatNorm(f32) + 3;
    return tensor;
}

test "statistics of uneven patches are those of the whole image" {
    var device: TestDevice = .{};
    const b = try device.open();
    defer device.close();
    const whole = try randomTensor(b, .{ .batch = 2, .rows = 6, .width = 5, .channels = 8 }, 1);
    var parts: [2]Tensor = undefined;
    for (&parts, [_]u32{ 0, 4 }, [_]u32{ 4, 2 }) |*part, first, count| {
        var shape = whole.shape;
        shape.rows = count;
        const rows = try b.alloc(shape, .f32);
        try b.copyRows(rows, 0, whole, first, count);
        part.* = try b.groupNormStats(rows, 4);
    }
    const combined = try b.combineStatistics(.{
        .local = parts[0],
        .parts = &parts,
        .weights = &.{ 4.0 / 6.0, 2.0 / 6.0 },
        .corrected_from = null,
        .variance_floor = 0,
        .bessel_count = 0,
    });
    const expected = try b.groupNormStats(whole, 4);
    for (expected.host(f64), combined.host(f64)) |x, y| try testing.expectApproxEqRel(x, y, 1e-12);
}

test "a corrected variance is held to what patches have within, or as DistriFusion's" {
    var device: TestDevice = .{};
    const b = try device.open();
    defer device.close();
    const shape: Shape = .{ .batch = 1, .rows = 1, .width = 1, .channels = 2 };
    var tensors: [3]Tensor = undefined;
    // Mean and mean of squares: of now, of before, of the other patch. Corrected they would be 4
    // and 13, a variance of -3; this patch's own is 1, the other's 3.
    for (&tensors, [_][2]f64{ .{ 3, 10 }, .{ 0, 1 }, .{ 2, 7 } }) |*tensor, values| {
        tensor.* = try b.alloc(shape, .f64);
        @memcpy(tensor.host(f64), &values);
    }
    for ([_]f64{ 0, 0.75 }, [_]f64{ 1, 0.75 * (1.0 + 3.0) / 2.0 }) |floor, expected| {
        const combined = try b.combineStatistics(.{
            .local = tensors[0],
            .parts = tensors[1..3],
            .weights = &.{ 0.5, 0.5 },
            .corrected_from = tensors[1],
            .variance_floor = floor,
            .bessel_count = 0,
        });
        const mean, const square = combined.host(f64)[0..2].*;
        try testing.expectApproxEqAbs(@as(f64, 4), mean, 1e-12);
        try testing.expectApproxEqAbs(expected, square - mean * mean, 1e-12);
    }
}

test "halo rows that change steadily are predicted exactly, and not at all when they turn" {
    var device: TestDevice = .{};
    const b = try device.open();
    defer device.close();
    const shape: Shape = .{ .batch = 2, .rows = 1, .width = 7, .channels = 3 };
    const older = try randomTensor(b, shape, 1);
    const old = try randomTensor(b, shape, 2);
    const own_older = try randomTensor(b, shape, 3);
    const own_old = try randomTensor(b, shape, 4);
    const own_now = try b.alloc(shape, .f32);
    for ([_]f32{ 1, 0.5, -1, 7 }, [_]f32{ 1, 0.5, 0, 1 }) |ratio, expected| {
        for (own_now.host(f32), own_old.host(f32), own_older.host(f32)) |*now, x, y| {
            now.* = x + ratio * (x - y);
        }
        const out = try b.extrapolateRows(.{
            .old = old,
            .older = older,
            .own_now = own_now,
            .own_old = own_old,
            .own_older = own_older,
        });
        for (out.host(f32), old.host(f32), older.host(f32)) |value, x, y| {
            try testing.expectApproxEqAbs(x + expected * (x - y), value, 1e-4);
        }
        b.free(out);
    }
}

test "one patch gets back what it gave" {
    var scratch: Scratch = .planning();
    const b: Backend = .{ .scratch = &scratch, .device = .{ .plan = .{ .activation = .f32 } } };
    const patches = [_]Patch{.{ .row_first = 0, .row_count = 4 }};
    var exchange: Exchange = .ofSinglePatch(b, &patches);
    const mine = try b.alloc(.tokens(1, 4, 8), .f32);
    var list: Exchange.Parts = undefined;
    const parts = try exchange.keysValues(mine, &list);
    try testing.expectEqual(@as(usize, 1), parts.len);
    try testing.expectEqual(mine, parts[0]);
    try testing.expectEqual(mine, try exchange.statistics(mine, 32));
    try testing.expectEqual(@as(?Tensor, null), (try exchange.haloRows(mine)).above);
}
