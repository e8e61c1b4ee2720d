//! Int8 products through the product's own wrapper on the emulated cuBLASLt: exact sums, and what
//! that library refuses. Weights that GPUs have in int8: placed, uploaded, written and restored.

const std = @import("std");
const device_weights = @import("../weights.zig");
const library_fixture = @import("../../../emulator/library_fixture.zig");
const lt = @import("../../../nvidia/cublaslt.zig");
const matmuls = @import("../gemm.zig");
const support = @import("support.zig");
const weights = @import("../../../weights.zig");
const LibraryFixture = library_fixture.LibraryFixture;
const Weight = weights.Weight;
const testing = std.testing;

fn open(l: *LibraryFixture) !matmuls.Matmul {
    return .open(testing.allocator, .{
        .driver = &l.fixture.driver,
        .library = &l.libraries.cublaslt,
        .algorithms = l.algorithms,
        .diagnostics = &l.diagnostics,
        .workspace = l.workspace,
        .workspace_bytes = library_fixture.workspace_bytes,
    });
}

test "int8 products are exact sums, for every number of rows" {
    var l: LibraryFixture = try .init(21, null);
    defer l.deinit();
    var matmul = try open(&l);
    defer matmul.close();
    const a = l.arena.allocator();
    var prng: std.Random.DefaultPrng = .init(22);
    const random = prng.random();
    for (1..12) |m| {
        const n = 8 * random.intRangeAtMost(u32, 1, 5);
        const k = 16 * random.intRangeAtMost(u32, 1, 90);
        const x = try a.alloc(i8, m * k);
        const w = try a.alloc(i8, n * k);
        // Sums that f32 does not hold.
        for (x) |*value| value.* = random.intRangeAtMost(i8, 100, 127);
        for (w) |*value| value.* = random.intRangeAtMost(i8, 101, 127);
        const out = try l.fixture.alloc(i32, m * n);
        try matmul.run(l.fixture.stream, .{
            .m = @intCast(m),
            .n = n,
            .k = k,
            .input = .i8,
            .output = .i32,
            .out = out,
            .x = try l.fixture.upload(i8, x),
            .w = try l.fixture.upload(i8, w),
        });
        const sums = try a.alloc(i32, m * n);
        try l.fixture.download(i32, out, sums);
        for (sums, 0..) |sum, i| {
            var expected: i32 = 0;
            for (x[i / n * k ..][0..k], w[i % n * k ..][0..k]) |p, q| expected += @as(i32, p) * q;
            try testing.expectEqual(expected, sum);
        }
    }
}

/// What the heuristics answer for a product of these sides and types.
fn answer(
    l: *LibraryFixture,
    types: [3]lt.DataType,
    sides: [3]u64,
    operations: [2]lt.Operation,
) !lt.Status {
    const t = &l.libraries.cublaslt;
    const m, const n, const k = sides;
    var handle: ?lt.Handle = null;
    var desc: ?lt.Desc = null;
    try testing.expectEqual(.success, t.cublasLtCreate(&handle));
    try testing.expectEqual(.success, t.cublasLtMatmulDescCreate(&desc, .i32, types[2]));
    const set = t.cublasLtMatmulDescSetAttribute;
    try testing.expectEqual(.success, set(desc.?, .transa, &operations[0], 4));
    try testing.expectEqual(.success, set(desc.?, .transb, &operations[1], 4));
    var layouts: [4]?lt.Layout = @splat(null);
    for (&layouts, 0..) |*layout, i| {
        const rows, const columns = switch (i) {
            0 => if (operations[0] == .transpose) .{ k, m } else .{ m, k },
            1 => if (operations[1] == .transpose) .{ n, k } else .{ k, n },
            else => .{ m, n },
        };
        const dtype = types[if (i < 2) 0 else 1];
        const made = t.cublasLtMatrixLayoutCreate(layout, dtype, rows, columns, @intCast(rows));
        try testing.expectEqual(.success, made);
    }
    var preference: ?lt.Preference = null;
    try testing.expectEqual(.success, t.cublasLtMatmulPreferenceCreate(&preference));
    var result: [1]lt.HeuristicResult = undefined;
    var count: c_int = 0;
    return t.cublasLtMatmulAlgoGetHeuristic(
        handle.?,
        desc.?,
        layouts[0].?,
        layouts[1].?,
        layouts[2].?,
        layouts[3].?,
        preference.?,
        1,
        &result,
        &count,
    );
}

test "the emulated library refuses the int8 products that the real one has no kernels for" {
    var l: LibraryFixture = try .init(23, null);
    defer l.deinit();
    const tn = [2]lt.Operation{ .transpose, .none };
    const integers = [3]lt.DataType{ .i8, .i32, .i32 };
    const no: lt.Status = .not_supported;
    try testing.expectEqual(.success, try answer(&l, integers, .{ 8, 3, 16 }, tn));
    // Sides of op(A) that are no multiples of 4; B's columns may be any.
    try testing.expectEqual(no, try answer(&l, integers, .{ 6, 8, 16 }, tn));
    try testing.expectEqual(no, try answer(&l, integers, .{ 8, 8, 18 }, tn));
    // Other formats than TN.
    try testing.expectEqual(no, try answer(&l, integers, .{ 8, 8, 16 }, .{ .none, .none }));
    const tt = [2]lt.Operation{ .transpose, .transpose };
    try testing.expectEqual(no, try answer(&l, integers, .{ 8, 8, 16 }, tt));
    // Results in 16 bits, scaled sums, and operands of numbers.
    try testing.expectEqual(no, try answer(&l, .{ .i8, .f16, .i32 }, .{ 8, 8, 16 }, tn));
    try testing.expectEqual(no, try answer(&l, .{ .i8, .f16, .f32 }, .{ 8, 8, 16 }, tn));
    try testing.expectEqual(no, try answer(&l, .{ .f16, .i32, .i32 }, .{ 8, 8, 16 }, tn));
}

/// An int8 weight of random integers, as a file has it.
fn ofFile(a: std.mem.Allocator, random: std.Random, rows: u32, depth: u32) !*Weight {
    const weight = try a.create(Weight);
    const scales = try a.alloc(f32, rows);
    for (scales) |*scale| scale.* = 0.01 + random.float(f32);
    const integers = try a.alloc(i8, rows * depth);
    for (integers) |*integer| integer.* = random.intRangeAtMost(i8, -127, 127);
    weight.* = .{
        .name = "w",
        .layout = .matrix,
        .dtype = .i8,
        .shape = .{ rows, depth, 1, 1 },
        .int8_group = 16,
        .row_scales = scales,
        .source = std.mem.sliceAsBytes(integers),
        .source_dtype = .i8,
    };
    return weight;
}

test "a file's integers are on the GPU as they are, adjacent with their scales" {
    var emulated: support.Emulated = undefined;
    try emulated.init(5, .f16);
    defer emulated.deinit();
    const a = emulated.pair.arena.allocator();
    const random = emulated.pair.random();
    const all = [_]*Weight{
        try ofFile(a, random, 40, 32), try ofFile(a, random, 8, 32), try ofFile(a, random, 16, 32),
    };
    const placement = device_weights.place(&all, .f16, true);
    try testing.expectEqual(64 * (32 + 4), placement.int8_bytes);
    var gpu = support.gpuOf(&emulated.fixture, &emulated.diagnostics);
    gpu.weights = try gpu.allocate(placement.block_bytes);
    defer _ = gpu.driver.cuMemFree_v2(gpu.weights);
    const cancelled: std.atomic.Value(bool) = .init(false);
    var copied_bytes: std.atomic.Value(u64) = .init(0);
    var converter: device_weights.Converter = undefined;
    const largest = device_weights.largestCount(&all);
    try converter.init(testing.allocator, testing.io, 1, largest, &cancelled);
    defer converter.deinit();
    const gpus: []@TypeOf(gpu) = (&gpu)[0..1];
    try device_weights.upload(gpus, &all, .f16, &converter, &copied_bytes);
    try expectThere(&emulated, &gpu, &all);
    const areAdjacent = @import("../ops_product.zig").areAdjacent;
    try testing.expect(areAdjacent(&all, .f16));
    // Others in the place of the first, and its own back.
    const others = try a.alloc(u8, weights.int8.rowBytes(40, 32));
    @memset(others, 0x41);
    try device_weights.write(&gpu, all[0], others);
    var byte: [1]u8 = undefined;
    try emulated.fixture.download(u8, gpu.weights + all[0].device_offset, &byte);
    try testing.expectEqual(0x41, byte[0]);
    try device_weights.write(&gpu, all[0], try converter.bytesOf(all[0], .f16));
    try expectThere(&emulated, &gpu, &all);
}

fn expectThere(emulated: *support.Emulated, gpu: anytype, all: []const *Weight) !void {
    const a = emulated.pair.arena.allocator();
    for (all) |weight| {
        const integers = try a.alloc(u8, weight.elementCount());
        try emulated.fixture.download(u8, gpu.weights + weight.device_offset, integers);
        try testing.expectEqualSlices(u8, weight.source, integers);
        const scales = try a.alloc(f32, weight.shape[0]);
        try emulated.fixture.download(f32, gpu.weights + weight.int8_scales_offset, scales);
        try testing.expectEqualSlices(f32, weight.row_scales, scales);
    }
}
