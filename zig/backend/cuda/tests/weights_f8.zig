//! Weights that a GPU keeps in 8 bits: widened before a product they have the bits that they have
//! where they are widened at the upload; other numbers take their place, and leave no trace.

const std = @import("std");
const device_weights = @import("../weights.zig");
const ops_product = @import("../ops_product.zig");
const ops_widen = @import("../ops_widen.zig");
const support = @import("support.zig");
const DType = @import("../../../tensor.zig").DType;
const Gpu = @import("../gpu.zig").Gpu;
const Pair = support.Pair;
const Weight = @import("../../../weights.zig").Weight;

/// 8-bit weights as a checkpoint has them, with random codes and scales.
fn eightBits(pair: *Pair, shape: [4]u32, dtype: DType) !*Weight {
    const a = pair.arena.allocator();
    const weight = try a.create(Weight);
    const scales = try a.alloc(f32, shape[0]);
    for (scales) |*scale| scale.* = 0.01 * (1 + pair.random().float(f32));
    weight.* = .{
        .name = "w",
        .layout = if (shape[2] > 1) .convolution else .matrix,
        .dtype = dtype,
        .shape = shape,
        .row_scales = scales,
        .source = &.{},
        .source_dtype = dtype,
    };
    const codes = try a.alloc(u8, weight.elementCount());
    pair.random().bytes(codes);
    weight.source = codes;
    // What CPU kernels read.
    const copy = try a.alignedAlloc(u8, .fromByteUnits(64), codes.len);
    weight.copyTo(copy);
    weight.address = @intFromPtr(copy.ptr);
    return weight;
}

/// A GPU with these weights, placed and uploaded, for `pair.cuda`.
const Loaded = struct {
    gpu: Gpu,
    placement: device_weights.Placement,

    fn init(emulated: *support.Emulated, weights: []const *Weight, keeps_f8: bool) !Loaded {
        const pair = &emulated.pair;
        const activation = pair.cuda.activation;
        var loaded: Loaded = .{
            .gpu = support.gpuOf(&emulated.fixture, &emulated.diagnostics),
            .placement = device_weights.place(weights, activation, keeps_f8),
        };
        const gpu = &loaded.gpu;
        gpu.weights = try gpu.allocate(loaded.placement.block_bytes);
        const a = pair.arena.allocator();
        gpu.wide_copies = try a.alloc(usize, loaded.placement.kept_f8_count);
        @memset(gpu.wide_copies, 0);
        const cancelled: std.atomic.Value(bool) = .init(false);
        var copied_bytes: std.atomic.Value(u64) = .init(0);
        var converter: device_weights.Converter = undefined;
        const largest = device_weights.largestCount(weights);
        try converter.init(std.testing.allocator, std.testing.io, 1, largest, &cancelled);
        defer converter.deinit();
        try device_weights.upload(gpu[0..1], weights, activation, &converter, &copied_bytes);
        pair.cuda.weights_base = gpu.weights;
        try pair.cuda.reserveWiden(loaded.placement.widen_bytes);
        return loaded;
    }

    fn deinit(loaded: *Loaded) void {
        for (loaded.gpu.wide_copies) |copy| _ = loaded.gpu.driver.cuMemFree_v2(copy);
        _ = loaded.gpu.driver.cuMemFree_v2(loaded.gpu.weights);
    }
};

fn download(pair: *Pair, address: usize, count: usize) ![]u16 {
    return pair.read(u16, .{
        .address = address,
        .shape = .vector(1, @intCast(count)),
        .dtype = pair.cuda.activation,
    });
}

/// NaN may have any bits.
fn expectSameNumbers(pair: *Pair, expected: []const u16, actual: []const u16) !void {
    const infinity: u16 = if (pair.cuda.activation == .f16) 0x7c00 else 0x7f80;
    for (expected, actual) |e, a| {
        if (e & 0x7fff > infinity and a & 0x7fff > infinity) continue;
        try std.testing.expectEqual(e, a);
    }
}

fn eachType(pair: *Pair) DType {
    return if (pair.random().boolean()) .f8_e4m3 else .f8_e5m2;
}

test "widened on the GPU or at the upload, 8-bit weights have the same bits" {
    try support.each(struct {
        fn body(emulated: *support.Emulated) !void {
            const pair = &emulated.pair;
            const is_convolution = pair.random().boolean();
            const taps: u32 = if (is_convolution) 3 else 1;
            const shape: [4]u32 = if (is_convolution)
                .{ pair.size(9), taps, taps, pair.size(20) }
            else
                .{ pair.size(40), pair.channels(70), 1, 1 };
            const weight = try eightBits(pair, shape, eachType(pair));
            // Others around it, so that nothing starts at 0.
            const weights = [_]*Weight{ try eightBits(pair, .{ 3, 5, 1, 1 }, .f8_e4m3), weight };
            const count = weight.elementCount();
            var wide: Loaded = try .init(emulated, &weights, false);
            const expected = try download(pair, try ops_widen.operand(pair.cuda, weight), count);
            wide.deinit();
            var kept: Loaded = try .init(emulated, &weights, true);
            defer kept.deinit();
            try std.testing.expectEqual(count + 15, kept.placement.kept_f8_bytes);
            const operand = try ops_widen.operand(pair.cuda, weight);
            try expectSameNumbers(pair, expected, try download(pair, operand, count));

            // Other numbers, as of a merged adapter, and back; memory is given back, too.
            const free_bytes = try kept.gpu.freeBytes();
            const others = try pair.arena.allocator().alloc(u16, count);
            for (others, 0..) |*bits, i| bits.* = @intCast(0x3000 + i % 0x800);
            for (0..2) |_| {
                try device_weights.write(&kept.gpu, weight, std.mem.sliceAsBytes(others));
                try std.testing.expectEqual(operand, try ops_widen.operand(pair.cuda, weight));
                try std.testing.expectEqualSlices(
                    u16,
                    others,
                    try download(pair, operand, count),
                );
            }
            const staging = try pair.arena.allocator().alloc(u16, count);
            const own = device_weights.bytesOf(weight, pair.cuda.activation, staging);
            try device_weights.write(&kept.gpu, weight, own);
            _ = try ops_widen.operand(pair.cuda, weight);
            try expectSameNumbers(pair, expected, try download(pair, operand, count));
            try std.testing.expectEqual(free_bytes, try kept.gpu.freeBytes());
        }
    }.body);
}

test "queries, keys and values in 8 bits are one operand, as they are in 16" {
    try support.each(struct {
        fn body(emulated: *support.Emulated) !void {
            const pair = &emulated.pair;
            const channels = pair.channels(40);
            const rows = pair.size(20);
            const first = try eightBits(pair, .{ rows, channels, 1, 1 }, eachType(pair));
            const second = try eightBits(pair, .{ pair.size(20), channels, 1, 1 }, eachType(pair));
            const activation = pair.cuda.activation;
            const third = try eightBits(pair, .{ pair.size(20), channels, 1, 1 }, eachType(pair));
            const narrow = try eightBits(pair, .{ 4, channels + 1, 1, 1 }, .f8_e4m3);
            var loaded: Loaded = try .init(emulated, &.{ first, second, third, narrow }, true);
            defer loaded.deinit();
            const areAdjacent = ops_product.areAdjacent;
            const all = [_]*const Weight{ first, second, third };
            try std.testing.expect(areAdjacent(&all, activation));
            try std.testing.expect(areAdjacent(all[1..], activation));
            try std.testing.expect(!areAdjacent(&.{ second, first }, activation));
            try std.testing.expect(!areAdjacent(&.{ first, third }, activation));
            try std.testing.expect(!areAdjacent(&.{ second, third, narrow }, activation));
            const address = try ops_widen.adjacentOperand(pair.cuda, &all);
            var count: usize = 0;
            for (all) |weight| count += weight.elementCount();
            const actual = try download(pair, address, count);
            const staging = try pair.arena.allocator().alloc(u16, count);
            var at: usize = 0;
            for (all) |weight| {
                var wide = weight.*;
                wide.kept_f8 = null;
                const bytes = device_weights.bytesOf(&wide, activation, staging);
                const expected = staging[0 .. bytes.len / 2];
                try expectSameNumbers(pair, expected, actual[at..][0..expected.len]);
                at += expected.len;
            }
            const bytes = count * activation.size();
            try std.testing.expect(loaded.placement.widen_bytes >= bytes);
        }
    }.body);
}

test "tables and vectors are widened when they are uploaded" {
    var emulated: support.Emulated = undefined;
    try emulated.init(1, .f16);
    defer emulated.deinit();
    const table = try eightBits(&emulated.pair, .{ 7, 8, 1, 1 }, .f8_e4m3);
    table.is_table = true;
    const vector = try eightBits(&emulated.pair, .{ 8, 1, 1, 1 }, .f8_e5m2);
    vector.layout = .vector;
    const placement = device_weights.place(&.{ table, vector }, .f16, true);
    try std.testing.expectEqual(0, placement.kept_f8_count);
    try std.testing.expectEqual(0, placement.widen_bytes);
    try std.testing.expectEqual(512, placement.block_bytes);
}
