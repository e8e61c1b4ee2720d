//! Weights on their way to several GPUs: every byte at its place on each of them, converted once,
//! out of pinned memory.

const std = @import("std");
const cpu_support = @import("../../cpu/tests/support.zig");
const device_weights = @import("../weights.zig");
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const fixtures = @import("../../../emulator/fixture.zig");
const Gpu = @import("../gpu.zig").Gpu;
const Staging = @import("../staging.zig").Staging;
const support = @import("support.zig");
const Weight = @import("../../../weights.zig").Weight;

const gpu_count = 2;
const a = std.testing.allocator;

/// Two emulated GPUs, each with a block of memory for weights.
const Machine = struct {
    diagnostics: Diagnostics = .{},
    fixtures: [gpu_count]fixtures.Fixture = undefined,
    gpus: [gpu_count]Gpu = undefined,

    fn open(m: *Machine, seed: u64, block_bytes: usize) !void {
        m.* = .{};
        for (&m.fixtures, &m.gpus, 0..) |*fixture, *gpu, i| {
            fixture.* = try .initOn(@intCast(i), seed);
            gpu.* = support.gpuOf(fixture, &m.diagnostics);
            gpu.weights = try gpu.allocate(block_bytes);
        }
    }

    fn close(m: *Machine) void {
        for (&m.fixtures) |*fixture| fixture.deinit();
    }

    /// Both blocks hold these bytes where `is_written`.
    fn expectBlocks(m: *Machine, expected: []const u8, is_written: []const bool) !void {
        const got = try a.alloc(u8, expected.len);
        defer a.free(got);
        for (&m.fixtures, &m.gpus) |*fixture, *gpu| {
            try fixture.use();
            try fixture.download(u8, gpu.weights, got);
            for (got, expected, is_written) |x, y, counts| {
                if (counts) try std.testing.expectEqual(y, x);
            }
        }
    }

    fn bytesTo(m: *Machine, gpu: u32, is_pinned: bool) u64 {
        return m.fixtures[0].emulator.bxl_emulator_bytes_to_gpu(gpu, is_pinned);
    }
};

test "bytes of any length arrive at their places on every GPU, whatever the chunks" {
    var prng: std.Random.DefaultPrng = .init(7);
    const random = prng.random();
    const block_bytes = 40_000;
    var expected: [block_bytes]u8 = undefined;
    for (0..10) |seed| {
        var m: Machine = undefined;
        try m.open(seed, block_bytes);
        defer m.close();
        var is_written: [block_bytes]bool = @splat(false);
        random.bytes(&expected);
        var staging: Staging = undefined;
        defer staging.deinit();
        try staging.init(&m.gpus, 1000 + 24 * seed, &cpu_support.not_cancelled);
        var at: usize = 0;
        while (true) {
            // A gap as alignment leaves it, or a long one.
            const is_long = random.uintLessThan(u32, 8) == 0;
            at += random.uintLessThan(usize, if (is_long) 3000 else 256);
            const count = random.uintLessThan(usize, 2500);
            if (at + count > block_bytes) break;
            try staging.write(at, expected[at..][0..count]);
            @memset(is_written[at..][0..count], true);
            at += count;
        }
        try staging.finish();
        try m.expectBlocks(&expected, &is_written);
    }
}

test "a weight is converted once for all GPUs, and all get the same bytes" {
    var weights: [6]Weight = undefined;
    var pointers: [weights.len]*Weight = undefined;
    var prng: std.Random.DefaultPrng = .init(8);
    const rows = 40;
    const columns = 24;
    const source = try a.alloc(u8, weights.len * rows * columns * 4);
    defer a.free(source);
    for (0..source.len / 4) |i| {
        const value = prng.random().floatNorm(f32);
        std.mem.writeInt(u32, source[4 * i ..][0..4], @bitCast(value), .little);
    }
    for (&weights, &pointers, 0..) |*weight, *pointer, i| {
        weight.* = .{
            .name = "w",
            .layout = .matrix,
            .dtype = .f32,
            .shape = .{ rows, columns, 1, 1 },
            .source = source[i * rows * columns * 4 ..][0 .. rows * columns * 4],
            .source_dtype = .f32,
        };
        pointer.* = weight;
    }
    const placement = device_weights.place(&pointers, .f16, false);
    var m: Machine = undefined;
    try m.open(1, placement.block_bytes);
    defer m.close();
    var converter: device_weights.Converter = undefined;
    const count = device_weights.largestCount(&pointers);
    try converter.init(a, std.testing.io, 1, count, &cpu_support.not_cancelled);
    defer converter.deinit();
    var converted: std.atomic.Value(u64) = .init(0);
    try device_weights.upload(&m.gpus, &pointers, .f16, &converter, &converted);
    const all = weights.len * rows * columns * 2;
    try std.testing.expectEqual(all, converted.load(.monotonic));
    for (0..gpu_count) |gpu| {
        const sent = m.bytesTo(@intCast(gpu), true);
        // With what alignment leaves free between weights.
        try std.testing.expect(sent >= all and sent <= placement.block_bytes);
        try std.testing.expectEqual(0, m.bytesTo(@intCast(gpu), false));
    }
    const expected = try a.alloc(u8, placement.block_bytes);
    defer a.free(expected);
    const is_written = try a.alloc(bool, placement.block_bytes);
    defer a.free(is_written);
    @memset(is_written, false);
    for (pointers) |weight| {
        const bytes = try converter.bytesOf(weight, .f16);
        @memcpy(expected[weight.device_offset..][0..bytes.len], bytes);
        @memset(is_written[weight.device_offset..][0..bytes.len], true);
    }
    try m.expectBlocks(expected, is_written);
}
