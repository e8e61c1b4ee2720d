//! What the kernel tests share: random tensors and weights with f64 copies, and `check`, which runs
//! an operation on every instruction set of this machine and with 1, 2 and 3 threads. Results must
//! be close to the reference, and the same bits for any number of threads.

const std = @import("std");
const dispatch = @import("../dispatch.zig");
const f8 = @import("../../../weights/f8.zig");
const tensors = @import("../../../tensor.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Weight = @import("../../../weights.zig").Weight;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;

pub const not_cancelled: std.atomic.Value(bool) = .init(false);

/// f32 sums of some thousand terms of mixed sign lose about this much, relative to the whole.
pub const tolerance: f64 = 1e-6;

/// Operands rounded to bf16 are off by 1.1e-3 (root mean square of half a unit of 2^-8), two of
/// them by 1.6e-3; sharp softmaxes carry the error of their scores into the weights on top.
pub const tolerance_bf16: f64 = 6e-3;

fn toleranceOf(set: dispatch.InstructionSet) f64 {
    return if (set == .x86_64_v4_bf16) tolerance_bf16 else tolerance;
}

pub const Arena = struct {
    arena: std.heap.ArenaAllocator,
    random: std.Random.DefaultPrng,

    pub fn init(seed: u64) Arena {
        return .{ .arena = .init(std.testing.allocator), .random = .init(seed) };
    }

    pub fn deinit(a: *Arena) void {
        a.arena.deinit();
    }

    pub fn allocator(a: *Arena) std.mem.Allocator {
        return a.arena.allocator();
    }

    pub fn tensor(a: *Arena, shape: Shape, dtype: tensors.DType) !Tensor {
        const bytes = try a.allocator().alignedAlloc(
            u8,
            .fromByteUnits(64),
            @max(1, shape.elementCount() * dtype.size()),
        );
        @memset(bytes, 0xff);
        return .{ .address = @intFromPtr(bytes.ptr), .shape = shape, .dtype = dtype };
    }

    /// Normally distributed.
    pub fn randomTensor(a: *Arena, shape: Shape) !Tensor {
        const result = try a.tensor(shape, .f32);
        for (result.host(f32)) |*x| x.* = a.random.random().floatNorm(f32);
        return result;
    }

    /// Normally distributed times `scale`. Deliberately aligned to its element only.
    pub fn weight(a: *Arena, shape: [4]u32, dtype: tensors.DType, scale: f32) !*const Weight {
        var count: usize = 1;
        for (shape) |n| count *= n;
        const size = dtype.size();
        const bytes = try a.allocator().alignedAlloc(u8, .fromByteUnits(64), (count + 1) * size);
        const data = bytes[size..];
        for (0..count) |i| {
            const x = scale * a.random.random().floatNorm(f32);
            const target = data[i * size ..];
            switch (dtype) {
                .f32 => std.mem.writeInt(u32, target[0..4], @bitCast(x), .little),
                .f16 => {
                    const half: f16 = @floatCast(x);
                    std.mem.writeInt(u16, target[0..2], @bitCast(half), .little);
                },
                .bf16 => {
                    const top: u16 = @truncate(@as(u32, @bitCast(x)) >> 16);
                    std.mem.writeInt(u16, target[0..2], top, .little);
                },
                // Every number but NaN and, in e5m2, what is far above the others.
                .f8_e4m3, .f8_e5m2 => target[0] = code: while (true) {
                    const code = a.random.random().int(u8);
                    if (@abs(f8.widen(dtype, code)) <= 448) break :code code;
                },
                else => unreachable,
            }
        }
        const result = try a.allocator().create(Weight);
        result.* = .{
            .name = "weight",
            .layout = if (shape[1] == 1) .vector else .matrix,
            .dtype = dtype,
            .shape = shape,
            .row_scales = if (dtype.isF8()) try a.rowScales(shape[0], scale) else &.{},
            .address = @intFromPtr(data.ptr),
            .source = data,
            .source_dtype = dtype,
        };
        return result;
    }

    /// Such that the weights are about as large as those of other types.
    fn rowScales(a: *Arena, count: u32, scale: f32) ![]const f32 {
        const scales = try a.allocator().alloc(f32, count);
        for (scales) |*x| x.* = scale / 150 * (0.5 + a.random.random().float(f32));
        return scales;
    }

    /// Multiples of 1/64 in [-2, 2): the same in every type that weights have.
    pub fn fewBits(a: *Arena, shape: [4]u32, dtype: tensors.DType) !*const Weight {
        const result = try a.weight(shape, dtype, 1);
        for (0..result.elementCount()) |i| {
            const integer = a.random.random().intRangeLessThan(i32, -128, 128);
            const x = @as(f32, @floatFromInt(integer)) / 64;
            const half: f16 = @floatCast(x);
            const bits: u32 = @bitCast(x);
            const target = @constCast(result.source[i * dtype.size() ..]);
            switch (dtype) {
                .f32 => std.mem.writeInt(u32, target[0..4], bits, .little),
                .f16 => std.mem.writeInt(u16, target[0..2], @bitCast(half), .little),
                .bf16 => std.mem.writeInt(u16, target[0..2], @intCast(bits >> 16), .little),
                else => unreachable,
            }
        }
        return result;
    }

    pub fn vector(a: *Arena, count: u32) !*const Weight {
        return a.weight(.{ count, 1, 1, 1 }, .f32, 1);
    }

    pub fn doubles(a: *Arena, x: Tensor) ![]f64 {
        const out = try a.allocator().alloc(f64, x.shape.elementCount());
        for (out, x.host(f32)) |*target, value| target.* = value;
        return out;
    }

    pub fn weightDoubles(a: *Arena, w: *const Weight) ![]f64 {
        const out = try a.allocator().alloc(f64, w.elementCount());
        const size = w.dtype.size();
        for (out, 0..) |*target, i| {
            if (w.dtype.isF8()) {
                target.* = w.sourceValue(i);
                continue;
            }
            const bytes = w.source[i * size ..];
            const low: u32 = std.mem.readInt(u16, bytes[0..2], .little);
            target.* = switch (w.dtype) {
                .f32 => @as(f32, @bitCast(std.mem.readInt(u32, bytes[0..4], .little))),
                .f16 => @as(f16, @bitCast(@as(u16, @intCast(low)))),
                .bf16 => @as(f32, @bitCast(low << 16)),
                else => unreachable,
            };
        }
        return out;
    }
};

/// The L2 norm of the difference relative to the expected one, or to that of elements of size
/// `typical` where cancellation happened to leave less.
pub fn relativeError(actual: []const f32, expected: []const f64, typical: f64) f64 {
    var difference: f64 = 0;
    var size: f64 = 0;
    for (actual, expected) |a, e| {
        difference += (a - e) * (a - e);
        size += e * e;
    }
    const typical_size = typical * typical * @as(f64, @floatFromInt(expected.len));
    return @sqrt(difference / @max(size, typical_size));
}

/// A CPU of `set` with some threads, for tests that need no comparison.
pub fn open(set: ?dispatch.InstructionSet, thread_count: u32) !*Cpu {
    return Cpu.init(std.testing.allocator, std.testing.io, .{
        .thread_count = thread_count,
        .instruction_set = set,
        .cancelled = &not_cancelled,
    });
}

pub const set_count_max = std.enums.values(dispatch.InstructionSet).len;

/// Instruction sets of this machine.
pub fn sets(buffer: *[set_count_max]dispatch.InstructionSet) []const dispatch.InstructionSet {
    var count: usize = 0;
    for (std.enums.values(dispatch.InstructionSet)) |set| {
        if (!dispatch.isSupported(set)) continue;
        buffer[count] = set;
        count += 1;
    }
    return buffer[0..count];
}

/// `context.run(cpu, out)` on every instruction set and thread count, into a tensor as `out`. Sums
/// in these tests are of about size `typical`.
pub fn check(a: *Arena, context: anytype, out: Tensor, expected: []const f64, typical: f64) !void {
    const first = try a.tensor(out.shape, out.dtype);
    var buffer: [set_count_max]dispatch.InstructionSet = undefined;
    for (sets(&buffer)) |set| {
        for (1..4) |thread_count| {
            const cpu = try open(set, @intCast(thread_count));
            defer cpu.deinit();
            const target = if (thread_count == 1) first else out;
            @memset(target.host(u32), 0xffffffff);
            try context.run(cpu, target);
            if (thread_count > 1) {
                try std.testing.expectEqualSlices(u32, first.host(u32), out.host(u32));
                continue;
            }
            const err = relativeError(first.host(f32), expected, typical);
            if (err <= toleranceOf(set)) continue;
            std.debug.print("{t}: relative error {e}, {f}\n", .{ set, err, context });
            return error.TestInaccurate;
        }
    }
}
