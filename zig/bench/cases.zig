//! The operations that can be timed, each with its operands: made once and kept while the same case
//! is repeated, so that calls in turns with another program time the operation alone.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backend = @import("../backend.zig");
const Cpu = backend.Cpu;
const InstructionSet = backend.cpus.InstructionSet;
const cores = @import("../system/cores.zig");
const tensors = @import("../tensor.zig");
const DType = tensors.DType;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;
const Packer = @import("../backend/cpu/pack_int8.zig").Packer;
const weights = @import("../weights.zig");
const Weight = weights.Weight;
const peak = @import("peak.zig");

pub const Op = enum {
    /// Multiply-adds in registers, `turns` times the loop per thread.
    peak,
    /// (rows * width, in) copied.
    copy,
    linear,
    conv2d,
    /// Queries are (rows * width), keys `keys`; in = channels.
    attention,
    group_norm,
    layer_norm,
    geglu,
    add,
    concat,
};

/// One line of input. Sizes are those of the operation's own input.
pub const Case = struct {
    op: Op,
    threads: u32 = 0,
    compute: backend.Compute = .f32,
    /// Null: the best instruction set.
    instruction_set: ?InstructionSet = null,
    weights: DType = .f16,
    batch: u32 = 1,
    rows: u32 = 1,
    width: u32 = 1,
    in: u32 = 1,
    out: u32 = 1,
    stride: u32 = 1,
    upsample: bool = false,
    /// Convolutions with fewer multiplications.
    winograd: bool = false,
    keys: u32 = 0,
    heads: u32 = 1,
    turns: usize = 1,
};

const not_cancelled: std.atomic.Value(bool) = .init(false);
const group_count = 32;

/// Milliseconds; CPU time is the sum over all threads.
pub const Times = struct { wall_ms: f64, cpu_ms: f64 };

pub const Runner = struct {
    io: Io,
    case: ?Case = null,
    arena: std.heap.ArenaAllocator,
    cpu: *Cpu = undefined,
    x: Tensor = undefined,
    y: Tensor = undefined,
    target: Tensor = undefined,
    stats: Tensor = undefined,
    weight: *const Weight = undefined,
    bias: *const Weight = undefined,

    pub fn init(io: Io) Runner {
        return .{ .io = io, .arena = .init(std.heap.page_allocator) };
    }

    pub fn deinit(runner: *Runner) void {
        if (runner.case != null) runner.cpu.deinit();
        runner.arena.deinit();
    }

    /// One run; a new case runs once untimed before.
    pub fn time(runner: *Runner, case: Case) !Times {
        if (runner.case == null or !std.meta.eql(runner.case.?, case)) {
            try runner.prepare(case);
            try runner.run(&case);
        }
        const start = runner.now(.awake);
        const start_cpu = runner.now(.cpu_process);
        try runner.run(&case);
        return .{
            .wall_ms = runner.now(.awake) - start,
            .cpu_ms = runner.now(.cpu_process) - start_cpu,
        };
    }

    fn now(runner: *Runner, clock: Io.Clock) f64 {
        const nanoseconds = Io.Timestamp.now(runner.io, clock).toNanoseconds();
        return @as(f64, @floatFromInt(nanoseconds)) / 1e6;
    }

    // --- internal ---

    fn prepare(runner: *Runner, case: Case) !void {
        if (runner.case != null) runner.cpu.deinit();
        runner.case = null;
        _ = runner.arena.reset(.free_all);
        runner.cpu = try Cpu.init(std.heap.page_allocator, runner.io, .{
            .thread_count = if (case.threads > 0) case.threads else cores.count(runner.io),
            .instruction_set = case.instruction_set,
            .compute = case.compute,
            .cancelled = &not_cancelled,
        });
        errdefer runner.cpu.deinit();
        runner.cpu.uses_winograd = case.winograd;
        const shape: Shape = .{
            .batch = case.batch,
            .rows = case.rows,
            .width = case.width,
            .channels = case.in,
        };
        if (case.op != .peak) try runner.fill(case, shape);
        runner.case = case;
    }

    fn fill(runner: *Runner, case: Case, shape: Shape) !void {
        runner.x = try runner.tensor(shape);
        var out = shape;
        var weight_shape = [4]u32{ case.out, case.in, 1, 1 };
        switch (case.op) {
            .linear => {
                out.channels = case.out;
                runner.y = try runner.tensor(shape.withChannels(case.in + @sizeOf(f32)));
                runner.y.dtype = .i8;
            },
            .conv2d => {
                const scale: u32 = if (case.upsample) 2 else 1;
                out.rows = (case.rows * scale - 1) / case.stride + 1;
                out.width = (case.width * scale - 1) / case.stride + 1;
                out.channels = case.out;
                weight_shape = .{ case.out, 3, 3, case.in };
            },
            .attention => {
                runner.y = try runner.tensor(.tokens(case.batch, case.keys, 2 * case.in));
            },
            .geglu => out.channels = case.in / 2,
            .concat => {
                runner.y = try runner.tensor(shape.withChannels(case.out));
                out.channels = case.in + case.out;
            },
            .add => runner.y = try runner.tensor(shape),
            .group_norm => {
                const stats: Shape = .{
                    .batch = case.batch,
                    .rows = group_count,
                    .width = 1,
                    .channels = 2,
                };
                runner.stats = try runner.tensor(stats);
                runner.stats.dtype = .f64;
            },
            .peak, .copy, .layer_norm => {},
        }
        runner.target = try runner.tensor(out);
        const is_product = case.op == .linear or case.op == .conv2d;
        const in_int8 = case.op == .linear and case.compute == .int8;
        if (is_product) runner.weight = if (in_int8)
            try runner.int8Weight(weight_shape, case)
        else
            try runner.randomWeight(weight_shape, case.weights);
        const is_norm = case.op == .group_norm or case.op == .layer_norm;
        const channels = if (is_norm) case.in else case.out;
        if (is_norm) runner.weight = try runner.randomWeight(.{ channels, 1, 1, 1 }, .f32);
        runner.bias = try runner.randomWeight(.{ channels, 1, 1, 1 }, .f32);
    }

    fn run(runner: *Runner, case: *const Case) !void {
        const cpu = runner.cpu;
        const r = runner;
        switch (case.op) {
            .peak => {
                const bf16 = case.compute == .bf16;
                const found = if (case.compute == .int8)
                    peak.int8Loop(cpu.int8_set)
                else
                    peak.loopOf(cpu.instruction_set, bf16);
                const loop = found orelse return error.UnsupportedInstructionSet;
                const args: peak.Arguments = .{ .loop = loop, .turns = case.turns };
                try cpu.pool.run(&peak.kernel, &args, cpu.pool.thread_count);
            },
            .copy => try cpu.copy(r.target, r.x),
            .linear => {
                var options: backend.LinearOptions = .{};
                if (r.weight.dtype == .i8) {
                    try cpu.quantizeRows(r.y, r.x, r.weight.int8_group);
                    options.quantized = r.y;
                }
                try cpu.linear(r.target, 0, r.x, r.weight, r.bias, options);
            },
            .conv2d => try cpu.conv2d(r.target, r.x, r.weight, r.bias, .{
                .stride = case.stride,
                .upsample = case.upsample,
            }),
            .attention => try cpu.attention(r.target, r.x, &.{r.y}, case.heads, false),
            .group_norm => {
                try cpu.groupNormStats(r.stats, r.x, null);
                try cpu.groupNormApply(r.target, r.x, null, r.stats, r.weight, r.bias, 1e-5, .silu);
            },
            .layer_norm => try cpu.layerNorm(r.target, r.x, r.weight, r.bias, 1e-5),
            .geglu => try cpu.geglu(r.target, r.x),
            .add => try cpu.add(r.target, r.x, r.y, 1),
            .concat => try cpu.concatChannels(r.target, &.{ r.x, r.y }),
        }
    }

    /// Values of [-1, 1), of every exponent that images have.
    fn tensor(runner: *Runner, shape: Shape) !Tensor {
        const allocator = runner.arena.allocator();
        // 8 bytes per element: some callers need f64.
        const bytes = try allocator.alignedAlloc(u8, .fromByteUnits(64), shape.elementCount() * 8);
        const result: Tensor = .{ .address = @intFromPtr(bytes.ptr), .shape = shape };
        for (result.host(f32), 0..) |*x, i| x.* = uniform(i);
        return result;
    }

    fn int8Weight(runner: *Runner, shape: [4]u32, case: Case) !*const Weight {
        const wide = try runner.randomWeight(shape, case.weights);
        const bytes = weights.int8.weightBytes(shape[0], shape[1]);
        const panels = try runner.arena.allocator().alignedAlloc(u8, .@"64", bytes);
        var packer: Packer = undefined;
        const gpa = std.heap.page_allocator;
        try packer.init(gpa, runner.io, cores.count(runner.io), null, &not_cancelled);
        defer packer.deinit();
        const weight = try runner.arena.allocator().create(Weight);
        weight.* = wide.*;
        weight.dtype = .i8;
        weight.int8_group = weights.int8.groupOf(shape[1]) orelse return error.NotInt8;
        weight.address = @intFromPtr(panels.ptr);
        try packer.pack(wide.matrix(), weight.int8_group, panels);
        return weight;
    }

    fn randomWeight(runner: *Runner, shape: [4]u32, dtype: DType) !*const Weight {
        const allocator = runner.arena.allocator();
        var count: usize = 1;
        for (shape) |n| count *= n;
        const bytes = try allocator.alignedAlloc(u8, .fromByteUnits(64), count * dtype.size());
        const scale = 1 / @sqrt(@as(f32, @floatFromInt(count / shape[0])));
        for (0..count) |i| {
            const value = uniform(i) * scale;
            switch (dtype) {
                .f32 => std.mem.bytesAsSlice(f32, bytes)[i] = value,
                .f16 => std.mem.bytesAsSlice(f16, bytes)[i] = @floatCast(value),
                .bf16 => {
                    const bits: u32 = @bitCast(value);
                    std.mem.bytesAsSlice(u16, bytes)[i] = @truncate(bits >> 16);
                },
                // Any bits but the two NaNs of e4m3, most of them small numbers as in models.
                .f8_e4m3, .f8_e5m2 => {
                    const top: u8 = @truncate(@as(u32, @bitCast(value)) >> 24);
                    bytes[i] = top & 0xbf;
                },
                else => unreachable,
            }
        }
        const row_scales = try allocator.alloc(f32, if (dtype.isF8()) shape[0] else 0);
        @memset(row_scales, scale);
        const weight = try allocator.create(Weight);
        weight.* = .{
            .name = "weight",
            .layout = .matrix,
            .dtype = dtype,
            .shape = shape,
            .row_scales = row_scales,
            .address = @intFromPtr(bytes.ptr),
            .source = bytes,
            .source_dtype = dtype,
        };
        return weight;
    }
};

fn uniform(i: usize) f32 {
    const hash: u32 = @as(u32, @truncate(i)) *% 0x9e3779b9;
    const mixed = (hash ^ (hash >> 15)) *% 0x85ebca6b;
    return @as(f32, @floatFromInt(mixed >> 8)) * 0x1p-23 - 1;
}
