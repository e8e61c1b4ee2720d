//! Every kind of delta against plain f64 loops over its definition, in the file's order: random
//! shapes, odd ones among them, every element type, every instruction set, 1 to 3 threads. The
//! tensors pass through a file, so that its checks are part of the test.

const std = @import("std");
const adapters = @import("../../../weights.zig").adapters;
const deltas = @import("../../../weights.zig").deltas;
const dispatch = @import("../dispatch.zig");
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const DType = @import("../../../tensor.zig").DType;
const merge = @import("../merge.zig");
const Merger = merge.Merger;
const f8 = @import("../../../weights/f8.zig");
const support = @import("support.zig");
const Weight = @import("../../../weights.zig").Weight;
const testing = std.testing;
const Role = adapters.Role;

/// A random tensor: its f64 values, and its bytes in the file's type.
const Values = struct {
    shape: []const usize,
    values: []f64,
    bytes: []u8,
    dtype: DType,
    row_scales: []const f32 = &.{},
};

/// (out, in, height, width)
const Dims = [4]usize;

const Bench = struct {
    arena: std.heap.ArenaAllocator,
    random: std.Random.DefaultPrng,
    tensors: std.EnumMap(Role, Values) = .{},
    tmp: testing.TmpDir,

    fn init(seed: u64) Bench {
        return .{
            .arena = .init(testing.allocator),
            .random = .init(seed),
            .tmp = testing.tmpDir(.{}),
        };
    }

    fn deinit(bench: *Bench) void {
        bench.tmp.cleanup();
        bench.arena.deinit();
    }

    fn make(bench: *Bench, shape: []const usize, dtype: DType) !Values {
        const arena = bench.arena.allocator();
        var count: usize = 1;
        for (shape) |dimension| count *= dimension;
        const values = try arena.alloc(f64, count);
        const bytes = try arena.alloc(u8, count * dtype.size());
        for (values, 0..) |*value, i| {
            const x = bench.random.random().floatNorm(f32);
            value.* = write(dtype, bytes[i * dtype.size() ..], x);
        }
        return .{
            .shape = try arena.dupe(usize, shape),
            .values = values,
            .bytes = bytes,
            .dtype = dtype,
        };
    }

    /// A weight: with scales of its rows where it has 8 bits.
    fn makeWeight(bench: *Bench, dims: Dims, dtype: DType) !Values {
        var made = try bench.make(&dims, dtype);
        if (!dtype.isF8()) return made;
        const scales = try bench.arena.allocator().alloc(f32, dims[0]);
        for (scales) |*row| row.* = 0.5 + bench.random.random().float(f32);
        const row_len = made.values.len / dims[0];
        for (made.values, 0..) |*value, i| value.* *= scales[i / row_len];
        made.row_scales = scales;
        return made;
    }

    fn put(bench: *Bench, role: Role, shape: []const usize) !void {
        const dtypes = [_]DType{ .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 };
        const dtype = dtypes[bench.random.random().uintLessThan(usize, dtypes.len)];
        bench.tensors.put(role, try bench.make(shape, dtype));
    }

    fn at(bench: *const Bench, role: Role) []const f64 {
        return bench.tensors.getAssertContains(role).values;
    }

    /// Writes a file of all tensors, each named by its role; an odd header moves them off their
    /// alignment.
    fn save(bench: *Bench) ![]const u8 {
        const arena = bench.arena.allocator();
        var header: std.ArrayList(u8) = .empty;
        var data: std.ArrayList(u8) = .empty;
        for (std.enums.values(Role)) |role| {
            const tensor = bench.tensors.get(role) orelse continue;
            const separator: []const u8 = if (header.items.len == 0) "{" else ",";
            const name = switch (tensor.dtype) {
                .f32 => "F32",
                .f16 => "F16",
                .bf16 => "BF16",
                .f8_e4m3 => "F8_E4M3",
                .f8_e5m2 => "F8_E5M2",
                else => unreachable,
            };
            try header.print(arena, "{s}\"{s}\":{{\"dtype\":\"{s}\",\"shape\":[", .{
                separator, @tagName(role), name,
            });
            for (tensor.shape, 0..) |dimension, i| {
                try header.print(arena, "{s}{d}", .{ if (i > 0) "," else "", dimension });
            }
            const end = data.items.len + tensor.bytes.len;
            try header.print(arena, "],\"data_offsets\":[{d},{d}]}}", .{ data.items.len, end });
            try data.appendSlice(arena, tensor.bytes);
        }
        try header.append(arena, '}');
        if (header.items.len % 2 == 0) try header.append(arena, ' ');
        var file: std.ArrayList(u8) = .empty;
        var length: [8]u8 = undefined;
        std.mem.writeInt(u64, &length, header.items.len, .little);
        for ([_][]const u8{ &length, header.items, data.items }) |part| {
            try file.appendSlice(arena, part);
        }
        try bench.tmp.dir.writeFile(testing.io, .{ .sub_path = "a", .data = file.items });
        return bench.tmp.dir.realPathFileAlloc(testing.io, "a", arena);
    }

    fn target(bench: *const Bench, algorithm: adapters.Algorithm, factor: f32) adapters.Target {
        var names: adapters.Names = .initFill("");
        for (std.enums.values(Role)) |role| {
            if (bench.tensors.contains(role)) names.set(role, @tagName(role));
        }
        return .{
            .component = .unet,
            .algorithm = algorithm,
            .scale = factor,
            .dora_norm = .original,
            .key = "k.weight",
            .names = names,
        };
    }
};

fn write(dtype: DType, target: []u8, x: f32) f64 {
    switch (dtype) {
        .f32 => {
            std.mem.writeInt(u32, target[0..4], @bitCast(x), .little);
            return x;
        },
        .f16 => {
            const half: f16 = @floatCast(x);
            std.mem.writeInt(u16, target[0..2], @bitCast(half), .little);
            return half;
        },
        .bf16 => {
            const top: u32 = @as(u32, @bitCast(x)) >> 16;
            std.mem.writeInt(u16, target[0..2], @intCast(top), .little);
            return @as(f32, @bitCast(top << 16));
        },
        .f8_e4m3, .f8_e5m2 => {
            // The numbers around 1, of either sign.
            const bits = @as(u32, @bitCast(x)) >> 16;
            const one: u8 = if (dtype == .f8_e4m3) 0x38 else 0x3c;
            target[0] = @intCast((bits >> 8 & 0x80) | (one - 8 + (bits & 15)));
            return f8.widen(dtype, target[0]);
        },
        else => unreachable,
    }
}

fn weightOf(base: *const Values, dims: Dims) Weight {
    const out, const in, const height, const width = dims;
    return .{
        .name = "k.weight",
        .layout = if (height * width > 1) .convolution else .matrix,
        .dtype = base.dtype,
        .shape = if (height * width > 1)
            .{ @intCast(out), @intCast(height), @intCast(width), @intCast(in) }
        else
            .{ @intCast(out), @intCast(in), 1, 1 },
        .source = base.bytes,
        .source_dtype = base.dtype,
        .row_scales = base.row_scales,
    };
}

/// Merges on every instruction set and compares with `expected`, in the file's order.
fn check(
    dims: Dims,
    base: *const Values,
    list: []const deltas.Delta,
    expected: []const f64,
) !void {
    const weight = weightOf(base, dims);
    const gpa = testing.allocator;
    const bytes = try gpa.alloc(u8, expected.len * 4);
    defer gpa.free(bytes);
    for ([_]dispatch.InstructionSet{ .x86_64, .x86_64_v3, .x86_64_v4, .aarch64 }) |set| {
        if (!dispatch.isSupported(set)) continue;
        for ([_]DType{ .f32, .f16, .bf16 }, 1..) |dtype, threads| {
            var merger: Merger = undefined;
            try merger.init(gpa, testing.io, threads, set, &support.not_cancelled);
            defer merger.deinit();
            const out: merge.Output = .{ .bytes = bytes, .dtype = dtype, .scale = 0.5 };
            try merger.merge(weight.matrix(), dims[1], list, out);
            var difference: f64 = 0;
            var size: f64 = 0;
            for (0..expected.len) |i| {
                const value: f64 = 2 * read(dtype, bytes[i * dtype.size() ..]);
                const right = expected[weight.sourceIndex(i)];
                difference += (value - right) * (value - right);
                size += right * right;
            }
            // The largest error of one rounding.
            const limit: f64 = switch (dtype) {
                .f32 => 1e-6,
                .f16 => 0x1p-11,
                else => 0x1p-8,
            };
            const relative = @sqrt(difference / size);
            if (relative < limit) continue;
            std.debug.print("{any} {t} {t}: {e}\n", .{ dims, set, dtype, relative });
            return error.TestTooFar;
        }
    }
}

fn read(dtype: DType, bytes: []const u8) f32 {
    return switch (dtype) {
        .f32 => @bitCast(std.mem.readInt(u32, bytes[0..4], .little)),
        .f16 => @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little))),
        else => @bitCast(@as(u32, std.mem.readInt(u16, bytes[0..2], .little)) << 16),
    };
}

/// One algorithm by its definition: the delta without scales.
const Definition = *const fn (bench: *const Bench, dims: Dims, o: usize, i: usize, tap: usize) f64;

fn loraElement(bench: *const Bench, dims: Dims, o: usize, i: usize, tap: usize) f64 {
    const taps = dims[2] * dims[3];
    const rank = bench.tensors.getAssertContains(.up).shape[1];
    const mid = bench.tensors.get(.mid);
    var sum: f64 = 0;
    for (0..rank) |m| {
        const up = bench.at(.up)[o * rank + m];
        if (mid) |core| {
            const n_count = core.shape[1];
            for (0..n_count) |n| {
                const c = core.values[(m * n_count + n) * taps + tap];
                sum += up * c * bench.at(.down)[n * dims[1] + i];
            }
        } else sum += up * bench.at(.down)[(m * dims[1] + i) * taps + tap];
    }
    return sum;
}

fn lohaElement(bench: *const Bench, dims: Dims, o: usize, i: usize, tap: usize) f64 {
    const taps = dims[2] * dims[3];
    var result: f64 = 1;
    for ([_][3]Role{ .{ .w1_a, .w1_b, .t1 }, .{ .w2_a, .w2_b, .t2 } }) |roles| {
        const b = bench.tensors.getAssertContains(roles[1]);
        const rank = b.shape[0];
        var sum: f64 = 0;
        for (0..rank) |r| {
            if (bench.tensors.get(roles[2])) |core| {
                for (0..rank) |s| {
                    const c = core.values[(r * rank + s) * taps + tap];
                    const a = bench.at(roles[0])[r * dims[0] + o];
                    sum += a * c * b.values[s * dims[1] + i];
                }
            } else {
                const a = bench.at(roles[0])[o * rank + r];
                sum += a * b.values[(r * dims[1] + i) * taps + tap];
            }
        }
        result *= sum;
    }
    return result;
}

fn lokrElement(bench: *const Bench, dims: Dims, o: usize, i: usize, tap: usize) f64 {
    const taps = dims[2] * dims[3];
    const rows_1, const columns_1 = lokrSizes(bench);
    const rows_2 = dims[0] / rows_1;
    const columns_2 = dims[1] / columns_1;
    var first: f64 = 0;
    const at = [2]usize{ o / rows_2, i / columns_2 };
    if (bench.tensors.get(.w1)) |w1| {
        first = w1.values[at[0] * columns_1 + at[1]];
    } else {
        const rank = bench.tensors.getAssertContains(.w1_b).shape[0];
        for (0..rank) |r| {
            first += bench.at(.w1_a)[at[0] * rank + r] * bench.at(.w1_b)[r * columns_1 + at[1]];
        }
    }
    const inner = [2]usize{ o % rows_2, i % columns_2 };
    if (bench.tensors.get(.w2)) |w2| {
        return first * w2.values[(inner[0] * columns_2 + inner[1]) * taps + tap];
    }
    const rank = bench.tensors.getAssertContains(.w2_b).shape[0];
    var second: f64 = 0;
    for (0..rank) |r| {
        if (bench.tensors.get(.t2)) |core| {
            for (0..rank) |s| {
                second += bench.at(.w2_a)[r * rows_2 + inner[0]] *
                    core.values[(r * rank + s) * taps + tap] *
                    bench.at(.w2_b)[s * columns_2 + inner[1]];
            }
        } else {
            const b = bench.at(.w2_b)[(r * columns_2 + inner[1]) * taps + tap];
            second += bench.at(.w2_a)[inner[0] * rank + r] * b;
        }
    }
    return first * second;
}

fn lokrSizes(bench: *const Bench) [2]usize {
    if (bench.tensors.get(.w1)) |w1| return .{ w1.shape[0], w1.shape[1] };
    const a = bench.tensors.getAssertContains(.w1_a);
    return .{ a.shape[0], bench.tensors.getAssertContains(.w1_b).shape[1] };
}

fn valueElement(bench: *const Bench, dims: Dims, o: usize, i: usize, tap: usize) f64 {
    return bench.at(.value)[(o * dims[1] + i) * dims[2] * dims[3] + tap];
}

const scale: f32 = 0.375;
const strength: f32 = -0.5;

/// Merges the tensors of `bench` into a random weight, checked against `definition`.
fn checkAlgorithm(
    bench: *Bench,
    algorithm: adapters.Algorithm,
    dims: Dims,
    definition: Definition,
) !void {
    const out, const in, const height, const width = dims;
    const taps = height * width;
    const dtypes = [_]DType{ .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 };
    const dtype = dtypes[bench.random.random().uintLessThan(usize, dtypes.len)];
    const base = try bench.makeWeight(dims, dtype);
    const path = try bench.save();
    var d: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    errdefer std.debug.print("{s}\n", .{d.message()});
    const gpa = testing.allocator;
    var file: deltas.AdapterFile = try .open(gpa, testing.io, path, &interrupt, &d);
    defer file.close();
    const weight = weightOf(&base, dims);
    const target = bench.target(algorithm, scale);
    const delta = try file.delta(&target, &weight, strength);
    const expected = try gpa.alloc(f64, base.values.len);
    defer gpa.free(expected);
    const factor: f64 = if (algorithm == .replace) 1 else scale * strength;
    for (0..out) |o| {
        for (0..in) |i| {
            for (0..taps) |tap| {
                const at = (o * in + i) * taps + tap;
                const before = if (algorithm == .replace) 0 else base.values[at];
                expected[at] = before + factor * definition(bench, dims, o, i, tap);
            }
        }
    }
    try check(dims, &base, &.{delta}, expected);
    // The same twice, as two adapters: the second one adds to the first.
    if (algorithm == .replace) return;
    for (expected, base.values) |*value, before| value.* = 2 * value.* - before;
    try check(dims, &base, &.{ delta, delta }, expected);
}

const shapes = [_]Dims{
    .{ 1, 1, 1, 1 },   .{ 3, 5, 1, 1 },   .{ 64, 48, 1, 1 },   .{ 131, 515, 1, 1 },
    .{ 7, 3, 3, 3 },   .{ 66, 34, 3, 3 }, .{ 12, 20, 1, 3 },   .{ 40, 1, 3, 3 },
    .{ 300, 8, 1, 1 }, .{ 9, 90, 2, 2 },  .{ 128, 520, 1, 1 }, .{ 2, 36, 3, 3 },
};

test "LoRA, of linear layers and convolutions, whole and by Tucker's decomposition" {
    for (shapes, 0..) |dims, i| {
        var bench: Bench = .init(i);
        defer bench.deinit();
        const out, const in, const height, const width = dims;
        const rank = 1 + 37 * i % 140;
        // Trailing dimensions of 1 are kohya's for convolutions.
        try bench.put(.up, &.{ out, rank, 1, 1 });
        if (i % 3 == 2) {
            const other = 1 + i;
            try bench.put(.mid, &.{ rank, other, height, width });
            try bench.put(.down, &.{ other, in });
        } else try bench.put(.down, &.{ rank, in, height, width });
        try checkAlgorithm(&bench, .lora, dims, loraElement);
    }
}

test "LoHa, whole and by Tucker's decomposition" {
    for (shapes, 0..) |dims, i| {
        var bench: Bench = .init(100 + i);
        defer bench.deinit();
        const out, const in, const height, const width = dims;
        const rank = 1 + i;
        for ([_][3]Role{ .{ .w1_a, .w1_b, .t1 }, .{ .w2_a, .w2_b, .t2 } }) |roles| {
            if (i % 2 == 1) {
                try bench.put(roles[0], &.{ rank, out });
                try bench.put(roles[1], &.{ rank, in });
                try bench.put(roles[2], &.{ rank, rank, height, width });
            } else {
                try bench.put(roles[0], &.{ out, rank });
                try bench.put(roles[1], &.{ rank, in * height * width });
            }
        }
        try checkAlgorithm(&bench, .loha, dims, lohaElement);
    }
}

test "LoKr, with whole and with factored parts" {
    for (shapes, 0..) |dims, i| {
        for (0..5) |variant| {
            var bench: Bench = .init(200 + 5 * i + variant);
            defer bench.deinit();
            const out, const in, const height, const width = dims;
            const rows_1: usize = if (out % 4 == 0) 4 else 1;
            const columns_1: usize = if (in % 5 == 0) 5 else if (in % 2 == 0) 2 else 1;
            const rank = 2;
            if (variant % 2 == 0) {
                try bench.put(.w1, &.{ rows_1, columns_1 });
            } else {
                try bench.put(.w1_a, &.{ rows_1, rank });
                try bench.put(.w1_b, &.{ rank, columns_1 });
            }
            const rows_2 = out / rows_1;
            const columns_2 = in / columns_1;
            switch (variant) {
                0, 1 => try bench.put(.w2, &.{ rows_2, columns_2, height, width }),
                2, 3 => {
                    try bench.put(.w2_a, &.{ rows_2, rank });
                    try bench.put(.w2_b, &.{ rank, columns_2 * height * width });
                },
                else => {
                    try bench.put(.w2_a, &.{ rank, rows_2 });
                    try bench.put(.w2_b, &.{ rank, columns_2 });
                    try bench.put(.t2, &.{ rank, rank, height, width });
                },
            }
            try checkAlgorithm(&bench, .lokr, dims, lokrElement);
        }
    }
}

test "whole differences and replaced weights" {
    for (shapes, 0..) |dims, i| {
        for ([_]adapters.Algorithm{ .difference, .replace }) |algorithm| {
            var bench: Bench = .init(300 + i);
            defer bench.deinit();
            try bench.put(.value, &dims);
            try checkAlgorithm(&bench, algorithm, dims, valueElement);
        }
    }
}

const DoraCase = enum { rows_original, rows_merged, channels };

/// `before` with one DoRA delta applied to it, in place.
fn decompose(bench: *const Bench, dims: Dims, kind: DoraCase, before: []f64) !void {
    const out, const in, const height, const width = dims;
    const taps = height * width;
    const merged = try testing.allocator.alloc(f64, before.len);
    defer testing.allocator.free(merged);
    for (0..out) |o| {
        for (0..in) |i| {
            for (0..taps) |tap| {
                const at = (o * in + i) * taps + tap;
                merged[at] = before[at] + scale * loraElement(bench, dims, o, i, tap);
            }
        }
    }
    const magnitude = bench.at(.dora_scale);
    const norms = try testing.allocator.alloc(f64, magnitude.len);
    defer testing.allocator.free(norms);
    @memset(norms, 0);
    for (0..before.len) |at| {
        const index = if (kind == .channels) at / taps % in else at / (in * taps);
        const x = if (kind == .rows_original) before[at] else merged[at];
        norms[index] += x * x;
    }
    for (0..before.len) |at| {
        const index = if (kind == .channels) at / taps % in else at / (in * taps);
        const whole = merged[at] * magnitude[index] / (@sqrt(norms[index]) + 1.1920929e-7);
        before[at] += strength * (whole - before[at]);
    }
}

test "DoRA, by rows and by channels, of the weight and of the sum, one over the other" {
    for (shapes[1..], 0..) |dims, i| {
        for (std.enums.values(DoraCase)) |kind| {
            var bench: Bench = .init(400 + 3 * i + @intFromEnum(kind));
            defer bench.deinit();
            const out, const in, const height, const width = dims;
            try bench.put(.up, &.{ out, 4 });
            try bench.put(.down, &.{ 4, in, height, width });
            // A square weight's single column would be rows.
            if (kind == .channels) {
                try bench.put(.dora_scale, &.{ 1, in, 1, 1 });
            } else try bench.put(.dora_scale, &.{ out, 1, 1, 1 });
            const base = try bench.make(&dims, .f32);
            const path = try bench.save();
            var d: Diagnostics = .{};
            var interrupt: std.atomic.Value(bool) = .init(false);
            const gpa = testing.allocator;
            var file: deltas.AdapterFile = try .open(gpa, testing.io, path, &interrupt, &d);
            defer file.close();
            const weight = weightOf(&base, dims);
            var target = bench.target(.lora, scale);
            if (kind == .rows_merged) target.dora_norm = .merged;
            const delta = try file.delta(&target, &weight, strength);
            const expected = try gpa.dupe(f64, base.values);
            defer gpa.free(expected);
            try decompose(&bench, dims, kind, expected);
            try check(dims, &base, &.{delta}, expected);
            try decompose(&bench, dims, kind, expected);
            try check(dims, &base, &.{ delta, delta }, expected);
        }
    }
}

fn expectRefused(
    bench: *Bench,
    algorithm: adapters.Algorithm,
    dims: Dims,
    sentence: []const u8,
) !void {
    const base = try bench.make(&dims, .f16);
    const path = try bench.save();
    var d: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    var file: deltas.AdapterFile =
        try .open(testing.allocator, testing.io, path, &interrupt, &d);
    defer file.close();
    const weight = weightOf(&base, dims);
    const target = bench.target(algorithm, 1);
    try testing.expectError(error.BadWeights, file.delta(&target, &weight, 1));
    if (std.mem.indexOf(u8, d.message(), sentence) != null) return;
    std.debug.print("got: {s}\n", .{d.message()});
    return error.TestUnexpectedMessage;
}

test "tensors that do not fit are refused by file, name and shape" {
    const Case = struct { role: Role, shape: []const usize };
    const dims: Dims = .{ 8, 6, 3, 3 };
    const lora = [_][2]Case{
        .{ .{ .role = .up, .shape = &.{ 8, 2 } }, .{ .role = .down, .shape = &.{ 3, 6, 3, 3 } } },
        .{ .{ .role = .up, .shape = &.{ 7, 2 } }, .{ .role = .down, .shape = &.{ 2, 6, 3, 3 } } },
        .{ .{ .role = .up, .shape = &.{ 8, 2 } }, .{ .role = .down, .shape = &.{ 2, 3, 3, 6 } } },
        .{ .{ .role = .up, .shape = &.{ 8, 0 } }, .{ .role = .down, .shape = &.{ 0, 6, 3, 3 } } },
        .{ .{ .role = .up, .shape = &.{} }, .{ .role = .down, .shape = &.{54} } },
    };
    for (lora, 0..) |pair, i| {
        var bench: Bench = .init(i);
        defer bench.deinit();
        for (pair) |case| try bench.put(case.role, case.shape);
        try expectRefused(&bench, .lora, dims, "which does not fit the lora delta of k.weight");
    }
    var bench: Bench = .init(9);
    defer bench.deinit();
    try bench.put(.up, &.{ 8, 2 });
    try expectRefused(&bench, .lora, dims, "lacks its tensor \"down\"");
    try bench.put(.down, &.{ 2, 6, 3, 3 });
    try bench.put(.mid, &.{ 2, 2, 1, 1 });
    try expectRefused(&bench, .lora, dims, "tensor mid has shape { 2, 2, 1, 1 }");
    bench.tensors.remove(.mid);
    try bench.put(.dora_scale, &.{5});
    try expectRefused(&bench, .lora, dims, "tensor dora_scale has shape { 5 }");
    try bench.put(.w1, &.{ 3, 2 });
    try bench.put(.w2, &.{ 2, 3, 3, 3 });
    try expectRefused(&bench, .lokr, dims, "tensor w1 has shape { 3, 2 }");
    try bench.put(.w1, &.{ 0, 0 });
    try expectRefused(&bench, .lokr, dims, "tensor w1 has shape { 0, 0 }");
    try bench.put(.w1, &.{ 4, 2 });
    try expectRefused(&bench, .lokr, dims, "tensor dora_scale has shape");
    try bench.put(.value, &.{ 8, 6 });
    try expectRefused(&bench, .difference, dims, "tensor value has shape { 8, 6 }");
}

test "what the type cannot hold is found, cancelling stops the work" {
    var bench: Bench = .init(1);
    defer bench.deinit();
    const dims: Dims = .{ 20, 30, 1, 1 };
    const base = try bench.make(&dims, .f32);
    const huge = try bench.make(&dims, .f32);
    const weight = weightOf(&base, dims);
    std.mem.writeInt(u32, huge.bytes[4 * 333 ..][0..4], @bitCast(@as(f32, 65519.9)), .little);
    const value = weightOf(&huge, dims).matrix();
    const list = [_]deltas.Delta{.{
        .change = .{ .replacement = value },
        .scale = 1,
        .strength = 1,
    }};
    var cancelled: std.atomic.Value(bool) = .init(false);
    var merger: Merger = undefined;
    try merger.init(testing.allocator, testing.io, 2, null, &cancelled);
    defer merger.deinit();
    var bytes: [600 * 4]u8 = undefined;
    const half: merge.Output = .{ .bytes = &bytes, .dtype = .f16, .scale = 1 };
    try merger.merge(weight.matrix(), 30, &list, half);
    std.mem.writeInt(u32, huge.bytes[4 * 333 ..][0..4], @bitCast(@as(f32, -65520)), .little);
    try testing.expectError(error.Overflow, merger.merge(weight.matrix(), 30, &list, half));
    const full: merge.Output = .{ .bytes = &bytes, .dtype = .f32, .scale = 1 };
    try merger.merge(weight.matrix(), 30, &list, full);
    std.mem.writeInt(u32, huge.bytes[4 * 333 ..][0..4], 0x7fc00000, .little);
    try testing.expectError(error.Overflow, merger.merge(weight.matrix(), 30, &list, full));
    cancelled.store(true, .monotonic);
    try testing.expectError(error.Cancelled, merger.merge(weight.matrix(), 30, &list, full));
}
