//! What tests of operations share: each runs on the CPU backend and on CUDA with the same numbers,
//! rounded to the activation type, over random shapes and as many seeds of the emulated driver's
//! schedules. Device memory starts as NaN and ends in guard pages.

const std = @import("std");
const cpu_support = @import("../../cpu/tests/support.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const ops_elementwise = @import("../ops_elementwise.zig");
const tensors = @import("../../../tensor.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Cuda = @import("../../cuda.zig").Cuda;
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const DType = tensors.DType;
const Gpu = @import("../gpu.zig").Gpu;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;
const Weight = @import("../../../weights.zig").Weight;

/// Shapes and schedules of each operation and type.
pub const draw_count = 30;

/// The fixture's device in the terms of the backend.
pub fn gpuOf(fixture: *fixtures.Fixture, d: *Diagnostics) Gpu {
    return .{
        .driver = &fixture.driver,
        .device = fixture.device,
        .context = fixture.context,
        .module = fixture.module,
        .copy_stream = fixture.stream,
        .diagnostics = d,
    };
}

/// The same numbers twice: f32 on the CPU, and on the device in its own type.
pub const Both = struct {
    cpu: Tensor,
    cuda: Tensor,

    pub fn batchSlice(both: Both, first: u32, count: u32) Both {
        return .{
            .cpu = both.cpu.batchSlice(first, count),
            .cuda = both.cuda.batchSlice(first, count),
        };
    }
};

pub const Pair = struct {
    arena: std.heap.ArenaAllocator,
    prng: std.Random.DefaultPrng,
    fixture: fixtures.Fixture,
    cpu: *Cpu,
    cuda: *Cuda,
    diagnostics: Diagnostics,

    pub fn init(pair: *Pair, seed: u64, activation: DType) !void {
        const gpa = std.testing.allocator;
        pair.* = .{
            .arena = .init(gpa),
            .prng = .init(seed),
            .fixture = try .init(seed),
            .cpu = try cpu_support.open(null, 1),
            .cuda = undefined,
            .diagnostics = .{},
        };
        pair.cuda = try .init(gpa, .{
            .driver = &pair.fixture.driver,
            .device = pair.fixture.device,
            .module = pair.fixture.module,
            .activation = activation,
            // Weights say where they are, from 0.
            .weights_base = 0,
            .diagnostics = &pair.diagnostics,
            .cancelled = &cpu_support.not_cancelled,
        });
    }

    pub fn deinit(pair: *Pair) void {
        pair.cuda.deinit();
        pair.cpu.deinit();
        pair.fixture.deinit();
        pair.arena.deinit();
    }

    pub fn random(pair: *Pair) std.Random {
        return pair.prng.random();
    }

    /// 1 to `most`.
    pub fn size(pair: *Pair, most: u32) u32 {
        return pair.random().intRangeAtMost(u32, 1, most);
    }

    /// 1 to `most`, every other time a multiple of eight.
    pub fn channels(pair: *Pair, most: u32) u32 {
        if (pair.random().boolean()) return pair.size(most);
        return 8 * pair.size(most / 8);
    }

    /// An activation: normally distributed numbers that its type holds.
    pub fn tensor(pair: *Pair, shape: Shape) !Both {
        return pair.scaled(shape, 1, 0);
    }

    /// As `tensor`, times `scale` plus `shift`.
    pub fn scaled(pair: *Pair, shape: Shape, scale: f32, shift: f32) !Both {
        const both = try pair.empty(shape, pair.cuda.activation);
        for (both.cpu.host(f32)) |*x| {
            x.* = pair.rounded(scale * pair.random().floatNorm(f32) + shift);
        }
        try pair.upload(both);
        return both;
    }

    /// As `tensor` in f32 on both: latents, timesteps.
    pub fn tensorF32(pair: *Pair, shape: Shape) !Both {
        const both = try pair.empty(shape, .f32);
        for (both.cpu.host(f32)) |*x| x.* = pair.random().floatNorm(f32);
        try pair.upload(both);
        return both;
    }

    /// Room for a result: NaN on both. Types of 16 bits are f32 on the CPU.
    pub fn empty(pair: *Pair, shape: Shape, dtype: DType) !Both {
        const cpu_type: DType = if (dtype.size() == 2) .f32 else dtype;
        const bytes = try pair.arena.allocator().alignedAlloc(
            u8,
            .fromByteUnits(64),
            @max(1, shape.elementCount() * cpu_type.size()),
        );
        @memset(bytes, 0xff);
        return .{
            .cpu = .{ .address = @intFromPtr(bytes.ptr), .shape = shape, .dtype = cpu_type },
            .cuda = .{
                .address = try pair.fixture.alloc(u8, shape.elementCount() * dtype.size()),
                .shape = shape,
                .dtype = dtype,
            },
        };
    }

    pub fn output(pair: *Pair, shape: Shape) !Both {
        return pair.empty(shape, pair.cuda.activation);
    }

    /// The CPU's numbers to the device.
    pub fn upload(pair: *Pair, both: Both) !void {
        if (both.cuda.dtype.size() != 2) {
            const bytes: [*]const u8 = @ptrFromInt(both.cpu.address);
            return pair.write(both.cuda, bytes[0..both.cuda.byteCount()]);
        }
        const count = both.cpu.shape.elementCount();
        const bits = try pair.arena.allocator().alloc(u16, count);
        for (bits, both.cpu.host(f32)) |*target, x| target.* = pair.bitsOf(x);
        try pair.write(both.cuda, std.mem.sliceAsBytes(bits));
    }

    fn write(pair: *Pair, out: Tensor, bytes: []const u8) !void {
        try ops_elementwise.upload(pair.cuda, out, bytes);
    }

    pub fn read(pair: *Pair, x: Tensor, bytes: []u8) !void {
        try ops_elementwise.download(pair.cuda, x, bytes);
    }

    /// The device's numbers, widened.
    pub fn download(pair: *Pair, x: Tensor) ![]f32 {
        const out = try pair.arena.allocator().alloc(f32, x.shape.elementCount());
        if (x.dtype == .f32) {
            try pair.read(x, std.mem.sliceAsBytes(out));
            return out;
        }
        const bits = try pair.arena.allocator().alloc(u16, out.len);
        try pair.read(x, std.mem.sliceAsBytes(bits));
        for (out, bits) |*target, b| target.* = pair.widened(b);
        return out;
    }

    /// Numbers that the activation type holds, for both: the CPU reads them as f32.
    pub fn weight(pair: *Pair, shape: [4]u32, scale: f32) !*const Weight {
        var count: u32 = 1;
        for (shape) |dimension| count *= dimension;
        const both = try pair.scaled(.vector(1, count), scale, 0);
        const result = try pair.arena.allocator().create(Weight);
        result.* = .{
            .name = "weight",
            .layout = if (shape[1] == 1) .vector else .matrix,
            .dtype = .f32,
            .shape = shape,
            .address = both.cpu.address,
            .device_offset = both.cuda.address,
            .source = std.mem.sliceAsBytes(both.cpu.host(f32)),
            .source_dtype = .f32,
        };
        return result;
    }

    pub fn vector(pair: *Pair, count: u32) !*const Weight {
        return pair.weight(.{ count, 1, 1, 1 }, 1);
    }

    /// The nearest number of the activation type.
    pub fn rounded(pair: *const Pair, x: f32) f32 {
        return pair.widened(pair.bitsOf(x));
    }

    fn widened(pair: *const Pair, bits: u16) f32 {
        if (pair.cuda.activation == .f16) return @as(f16, @bitCast(bits));
        return @bitCast(@as(u32, bits) << 16);
    }

    fn bitsOf(pair: *const Pair, x: f32) u16 {
        if (pair.cuda.activation == .f16) return @bitCast(@as(f16, @floatCast(x)));
        const bits: u32 = @bitCast(x);
        if (std.math.isNan(x)) return 0x7fff;
        return @intCast((bits +% 0x7fff +% (bits >> 16 & 1)) >> 16);
    }

    /// Relative L2 of the device's result to the CPU's. Inputs being the same, rounding to the
    /// activation type is all that differs: 2^-11 of f16, 2^-8 of bf16, and room for both.
    pub fn expectClose(pair: *Pair, result: Both) !void {
        const tolerance: f64 = if (pair.cuda.activation == .f16) 2e-3 else 1.5e-2;
        const actual = try pair.download(result.cuda);
        const expected = result.cpu.host(f32);
        var difference: f64 = 0;
        var total: f64 = 0;
        for (actual, expected) |a, e| {
            difference += (@as(f64, a) - e) * (@as(f64, a) - e);
            total += @as(f64, e) * e;
        }
        // Written so that NaN fails.
        if (difference <= tolerance * tolerance * total) return;
        std.debug.print("relative error {e} of {any}\n", .{
            @sqrt(difference / total), result.cuda.shape,
        });
        return error.TestInaccurate;
    }

    /// The same numbers: what is only moved.
    pub fn expectSame(pair: *Pair, result: Both) !void {
        const actual = try pair.download(result.cuda);
        try std.testing.expectEqualSlices(f32, result.cpu.host(f32), actual);
    }
};

/// `body` for every draw and both activation types; the draw's number seeds shapes, numbers and
/// the emulated driver's schedule.
pub fn each(comptime body: fn (*Pair) anyerror!void) !void {
    for (0..draw_count) |seed| {
        for ([_]DType{ .f16, .bf16 }) |activation| {
            var pair: Pair = undefined;
            try pair.init(seed, activation);
            defer pair.deinit();
            body(&pair) catch |err| {
                std.debug.print("draw {d}, {t}: {s} {s}\n", .{
                    seed, activation, pair.diagnostics.message(), pair.fixture.lastReport(),
                });
                return err;
            };
        }
    }
}
