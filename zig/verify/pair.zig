//! One operation on two devices: the CPU backend and a GPU get the same numbers, rounded to the
//! GPU's activation type, and the results are compared. Device memory of each tensor is an
//! allocation of its own that begins as NaN, so that reading beside a tensor, or what nobody wrote,
//! shows.

const std = @import("std");
const Allocator = std.mem.Allocator;
const tensors = @import("../tensor.zig");
const cpus = @import("../backend.zig").cpus;
const cudas = @import("../backend.zig").cudas;
const Cpu = cpus.Cpu;
const Cuda = cudas.Cuda;
const DType = tensors.DType;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;
const Outcome = @import("tolerance.zig").Outcome;
const Tolerance = @import("tolerance.zig").Tolerance;
const Weight = @import("../weights.zig").Weight;

/// `Inaccurate`: the numbers differ; `Pair.problem` says where and by how much.
pub const Error = Allocator.Error || cudas.Error || error{Inaccurate};

/// The same numbers twice: f32 on the CPU, and on the GPU in its own type.
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

/// The devices, and the tensors of one draw. The GPU's context is current.
pub const Pair = struct {
    arena: std.heap.ArenaAllocator,
    prng: std.Random.DefaultPrng,
    cpu: *Cpu,
    cuda: *Cuda,
    /// Device memory of this draw.
    allocations: std.ArrayList(usize) = .empty,
    /// The worst comparison so far.
    worst: Outcome = .{},
    /// What the draw is about, and how it went wrong.
    shape_buffer: [256]u8 = undefined,
    shape: []const u8 = "",
    problem_buffer: [256]u8 = undefined,
    problem: []const u8 = "",

    pub fn init(gpa: Allocator, cpu: *Cpu, cuda: *Cuda, seed: u64) Pair {
        return .{ .arena = .init(gpa), .prng = .init(seed), .cpu = cpu, .cuda = cuda };
    }

    /// Waits for the GPU, whose memory is freed then.
    pub fn deinit(pair: *Pair) void {
        const d = pair.cuda.driver;
        _ = d.cuStreamSynchronize(pair.cuda.stream);
        for (pair.allocations.items) |address| _ = d.cuMemFree_v2(address);
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

    pub fn boolean(pair: *Pair) bool {
        return pair.random().boolean();
    }

    /// What a failure says of this draw.
    pub fn describe(pair: *Pair, comptime format: []const u8, args: anytype) void {
        pair.shape = std.fmt.bufPrint(&pair.shape_buffer, format, args) catch &pair.shape_buffer;
    }

    // Tensors.

    /// An activation: normally distributed numbers that its type holds.
    pub fn tensor(pair: *Pair, shape: Shape) Error!Both {
        return pair.scaled(shape, 1, 0);
    }

    /// As `tensor`, times `scale` plus `shift`.
    pub fn scaled(pair: *Pair, shape: Shape, scale: f32, shift: f32) Error!Both {
        const both = try pair.empty(shape, pair.cuda.activation);
        for (both.cpu.host(f32)) |*x| {
            x.* = pair.rounded(scale * pair.random().floatNorm(f32) + shift);
        }
        try pair.upload(both);
        return both;
    }

    /// As `tensor` in f32 on both: latents, timesteps.
    pub fn tensorF32(pair: *Pair, shape: Shape) Error!Both {
        const both = try pair.empty(shape, .f32);
        for (both.cpu.host(f32)) |*x| x.* = pair.random().floatNorm(f32);
        try pair.upload(both);
        return both;
    }

    /// Room for a result: NaN on both. Types of 16 bits are f32 on the CPU.
    pub fn empty(pair: *Pair, shape: Shape, dtype: DType) Error!Both {
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
                .address = try pair.allocate(shape.elementCount() * dtype.size()),
                .shape = shape,
                .dtype = dtype,
            },
        };
    }

    /// Room for a result in the activations' type.
    pub fn output(pair: *Pair, shape: Shape) Error!Both {
        return pair.empty(shape, pair.cuda.activation);
    }

    /// Device memory until the draw ends, NaN in every type.
    pub fn allocate(pair: *Pair, bytes: usize) Error!usize {
        const cuda = pair.cuda;
        var address: usize = 0;
        const allocated = cuda.driver.cuMemAlloc_v2(&address, @max(1, bytes));
        try cuda.check(.cuMemAlloc_v2, allocated, "allocating a tensor");
        try pair.allocations.append(pair.arena.allocator(), address);
        const set = cuda.driver.cuMemsetD8Async(address, 0xff, @max(1, bytes), cuda.stream);
        try cuda.check(.cuMemsetD8Async, set, "filling a tensor with NaN");
        return address;
    }

    /// What an operation needs beside its result; null for nothing.
    pub fn temporary(pair: *Pair, bytes: usize) Error!?Tensor {
        if (bytes == 0) return null;
        return .{
            .address = try pair.allocate(bytes),
            .shape = .vector(1, @intCast(bytes)),
            .dtype = .u8,
        };
    }

    /// The CPU's numbers to the GPU.
    pub fn upload(pair: *Pair, both: Both) Error!void {
        const count = both.cpu.shape.elementCount();
        if (both.cuda.dtype.size() != 2) {
            const bytes: [*]const u8 = @ptrFromInt(both.cpu.address);
            return pair.cuda.upload(both.cuda, bytes[0..both.cuda.byteCount()]);
        }
        const bits = try pair.arena.allocator().alloc(u16, count);
        for (bits, both.cpu.host(f32)) |*target, x| target.* = pair.bitsOf(x);
        try pair.cuda.upload(both.cuda, std.mem.sliceAsBytes(bits));
    }

    /// The GPU's numbers.
    pub fn read(pair: *Pair, comptime T: type, x: Tensor) Error![]T {
        const out = try pair.arena.allocator().alloc(T, x.byteCount() / @sizeOf(T));
        try pair.cuda.download(x, std.mem.sliceAsBytes(out));
        return out;
    }

    /// The GPU's numbers, widened.
    pub fn download(pair: *Pair, x: Tensor) Error![]f32 {
        if (x.dtype == .f32) return pair.read(f32, x);
        const bits = try pair.read(u16, x);
        const out = try pair.arena.allocator().alloc(f32, bits.len);
        for (out, bits) |*target, b| target.* = pair.widened(b);
        return out;
    }

    /// Numbers that the activation type holds, for both: the CPU reads them as f32.
    pub fn weight(pair: *Pair, shape: [4]u32, scale: f32) Error!*const Weight {
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
            .device_offset = both.cuda.address - pair.cuda.weights_base,
            .source = std.mem.sliceAsBytes(both.cpu.host(f32)),
            .source_dtype = .f32,
        };
        return result;
    }

    pub fn vector(pair: *Pair, count: u32) Error!*const Weight {
        return pair.weight(.{ count, 1, 1, 1 }, 1);
    }

    /// The nearest number of the activation type.
    pub fn rounded(pair: *const Pair, x: f32) f32 {
        return pair.widened(pair.bitsOf(x));
    }

    /// A number of the activation type.
    pub fn widened(pair: *const Pair, bits: u16) f32 {
        if (pair.cuda.activation == .f16) return @as(f16, @bitCast(bits));
        return @bitCast(@as(u32, bits) << 16);
    }

    // Comparisons.

    /// The GPU's result within `tolerance` of the CPU's. NaN on one side alone fails.
    pub fn expectClose(pair: *Pair, result: Both, tolerance: Tolerance) Error!void {
        const actual = try pair.download(result.cuda);
        try pair.expectNumbers(result.cpu.shape, actual, result.cpu.host(f32), tolerance);
    }

    pub fn expectNumbers(
        pair: *Pair,
        shape: Shape,
        actual: []const f32,
        expected: []const f32,
        tolerance: Tolerance,
    ) Error!void {
        const outcome = tolerance.measure(pair.cuda.activation, actual, expected);
        if (pair.worst.allowed == 0 or outcome.off > pair.worst.off) pair.worst = outcome;
        // Written so that NaN fails.
        if (outcome.off <= outcome.allowed) return;
        if (!std.math.isFinite(outcome.off)) {
            return pair.fail("{f}: not every number is finite", .{shown(shape)});
        }
        return pair.fail("{f}: relative error {e:.1}, allowed {e:.1}", .{
            shown(shape), outcome.off, outcome.allowed,
        });
    }

    /// The same numbers: what is only moved, and integers.
    pub fn expectSame(pair: *Pair, result: Both) Error!void {
        const a = try pair.download(result.cuda);
        return pair.expectSameValues(f32, a, result.cpu.host(f32));
    }

    pub fn expectSameValues(
        pair: *Pair,
        comptime T: type,
        actual: []const T,
        expected: []const T,
    ) Error!void {
        for (actual, expected, 0..) |a, e, i| {
            if (a == e or (a != a and e != e)) continue;
            return pair.fail("element {d} of {d} is {d}, not {d}", .{ i, actual.len, a, e });
        }
    }

    /// Each number within `unit * |expected| + floor`.
    pub fn expectEach(
        pair: *Pair,
        comptime T: type,
        actual: []const T,
        expected: []const T,
        unit: T,
        floor: T,
    ) Error!void {
        for (actual, expected, 0..) |a, e, i| {
            const off: f64 = @abs(a - e) / (1 + @abs(e));
            if (off > pair.worst.off) pair.worst = .{ .off = off, .allowed = unit + floor };
            if (a == e or @abs(a - e) <= unit * @abs(e) + floor) continue;
            return pair.fail("element {d} of {d} is {d}, not {d}", .{ i, actual.len, a, e });
        }
    }

    pub fn expect(pair: *Pair, is_right: bool, comptime sentence: []const u8) Error!void {
        if (!is_right) return pair.fail(sentence, .{});
    }

    pub fn fail(pair: *Pair, comptime format: []const u8, args: anytype) error{Inaccurate} {
        pair.problem = std.fmt.bufPrint(&pair.problem_buffer, format, args) catch
            &pair.problem_buffer;
        return error.Inaccurate;
    }

    // --- internal ---

    fn bitsOf(pair: *const Pair, x: f32) u16 {
        if (pair.cuda.activation == .f16) return @bitCast(@as(f16, @floatCast(x)));
        const bits: u32 = @bitCast(x);
        if (std.math.isNan(x)) return 0x7fff;
        return @intCast((bits +% 0x7fff +% (bits >> 16 & 1)) >> 16);
    }
};

const Shown = struct {
    shape: Shape,

    pub fn format(s: Shown, w: *std.Io.Writer) std.Io.Writer.Error!void {
        try w.print("{d}x{d}x{d}x{d}", .{
            s.shape.batch, s.shape.rows, s.shape.width, s.shape.channels,
        });
    }
};

/// "2x3x5x40": batch, rows, width, channels.
pub fn shown(shape: Shape) Shown {
    return .{ .shape = shape };
}
