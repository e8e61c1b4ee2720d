//! The operations of `op_trace.zig` with operands of their sizes, through the backend interface
//! that models use. Several sets of operands are used in turns, so that none is in the GPU's cache:
//! as in a model, where tens of gigabytes are moved between two uses of a weight.

const std = @import("std");
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const ops_convolution = @import("../backend/cuda/ops_convolution.zig");
const ops_elementwise = @import("../backend/cuda/ops_elementwise.zig");
const linear_int8 = @import("../backend/cuda/linear_int8.zig");
const drivers = @import("../nvidia/driver.zig");
const fixtures = @import("gpu_fixture.zig");
const Fixture = fixtures.Fixture;
const Error = fixtures.Error;
const Scratch = @import("../scratch.zig").Scratch;
const Operation = @import("../backend/op_trace.zig").Operation;
const tensors = @import("../tensor.zig");
const DType = tensors.DType;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;
const int8 = @import("../weights.zig").int8;
const Weight = @import("../weights.zig").Weight;

/// Duration of one sample on a GPU, in milliseconds.
const sample_ms = 5;
const repeat_count_max = 200;
const set_count_max = 64;
const set_bytes_max = 6 << 30;
/// Of results, for a checksum.
const hashed_bytes_max = 64 << 20;

pub const Runner = struct {
    fixture: *Fixture,
    arena: std.heap.ArenaAllocator,
    operation: ?Operation = null,
    /// Device memory of the operation, freed with it.
    blocks: std.ArrayList(usize) = .empty,
    sets: []Operands = &.{},
    scratch: Scratch = undefined,
    exec: ?drivers.GraphExec = null,
    repeat_count: usize = 1,

    pub fn init(fixture: *Fixture) Runner {
        return .{ .fixture = fixture, .arena = .init(fixture.devices.gpa) };
    }

    pub fn deinit(runner: *Runner) void {
        runner.clear();
        runner.arena.deinit();
    }

    /// Milliseconds of one run, without the warm-up of a new operation.
    pub fn time(runner: *Runner, operation: Operation) Error!f64 {
        const is_same = runner.operation != null and
            std.meta.eql(runner.operation.?, operation);
        if (!is_same) {
            runner.clear();
            errdefer runner.clear();
            try runner.prepare(operation);
            runner.operation = operation;
        }
        const replay: fixtures.Replay = .{ .fixture = runner.fixture, .exec = runner.exec.? };
        const all = try runner.fixture.elapsed(replay, 1);
        return all / @as(f64, @floatFromInt(runner.repeat_count));
    }

    /// Launches the operation on the next set of operands.
    pub fn run(runner: *Runner, i: usize) Error!void {
        const b: Backend = .{
            .scratch = &runner.scratch,
            .device = .{ .cuda = runner.fixture.cuda },
        };
        return runner.sets[i % runner.sets.len].run(b);
    }

    pub const How = enum { eager, replayed };

    /// Of what the timed operation computes from its last set of operands, temporaries included.
    pub fn checksum(runner: *Runner, how: How) Error!u64 {
        const fixture = runner.fixture;
        const scratch = runner.scratch;
        try ops_elementwise.zero(fixture.cuda, scratch.base, scratch.capacity);
        switch (how) {
            .eager => try runner.run(runner.sets.len - 1),
            // The last run of a graph is one of the last set.
            .replayed => {
                const exec = runner.exec.?;
                const replay: fixtures.Replay = .{ .fixture = fixture, .exec = exec };
                try replay.run(0);
            },
        }
        try fixture.cuda.synchronize();
        const arena = runner.arena.allocator();
        const bytes = try arena.alloc(u8, @min(scratch.capacity, hashed_bytes_max));
        defer arena.free(bytes);
        const copied = fixture.gpu.driver.cuMemcpyDtoH_v2(bytes.ptr, scratch.base, bytes.len);
        try fixture.cuda.check(.cuMemcpyDtoH_v2, copied, "reading a result");
        return std.hash.Wyhash.hash(0, bytes);
    }

    // --- internal ---

    fn clear(runner: *Runner) void {
        const d = runner.fixture.gpu.driver;
        runner.fixture.cuda.drain();
        if (runner.exec) |exec| _ = d.cuGraphExecDestroy(exec);
        for (runner.blocks.items) |address| _ = d.cuMemFree_v2(address);
        runner.blocks = .empty;
        runner.exec = null;
        runner.operation = null;
        _ = runner.arena.reset(.free_all);
    }

    fn prepare(runner: *Runner, operation: Operation) Error!void {
        const fixture = runner.fixture;
        const arena = runner.arena.allocator();
        const first = try runner.operands(operation);
        const bytes = @max(1, first.bytes);
        const wanted = std.math.divCeil(u64, 3 * fixture.l2_bytes, bytes) catch unreachable;
        const most = @max(1, @min(set_count_max, set_bytes_max / bytes));
        const set_count: usize = if (fixture.is_emulated) 1 else @intCast(@min(wanted + 1, most));
        runner.sets = try arena.alloc(Operands, set_count);
        runner.sets[0] = first;
        for (runner.sets[1..]) |*set| set.* = try runner.operands(operation);
        try runner.reserve(first);
        // Libraries autotune their algorithms in the first run.
        for (0..set_count) |i| try runner.run(i);
        try fixture.cuda.synchronize();
        runner.repeat_count = set_count;
        if (!fixture.is_emulated) {
            const one = try fixture.elapsed(runner, set_count) / @as(f64, @floatFromInt(set_count));
            const turns: f64 = sample_ms / @max(one, 1e-3);
            const repeats: usize = @intFromFloat(@min(turns, repeat_count_max));
            runner.repeat_count = std.mem.alignForward(usize, @max(repeats, 1), set_count);
        }
        runner.exec = try fixture.capture(runner, runner.repeat_count);
        const replay: fixtures.Replay = .{ .fixture = fixture, .exec = runner.exec.? };
        _ = try fixture.elapsed(replay, 1);
    }

    /// Memory for results and temporaries, from a dry run of the operation.
    fn reserve(runner: *Runner, set: Operands) Error!void {
        var planning: Scratch = .planning();
        const activation = runner.fixture.cuda.activation;
        const planned: backend.Planned = .{ .activation = activation, .is_cuda = true };
        try set.run(.{ .scratch = &planning, .device = .{ .plan = planned } });
        const bytes = @max(planning.peak, 64);
        runner.scratch = .{ .base = try runner.take(bytes), .capacity = bytes };
    }

    fn take(runner: *Runner, bytes: usize) Error!usize {
        const address = try runner.fixture.gpu.allocate(@max(bytes, 1));
        errdefer _ = runner.fixture.gpu.driver.cuMemFree_v2(address);
        try runner.blocks.append(runner.arena.allocator(), address);
        return address;
    }

    /// Normal numbers in the activations' type, zeros in others.
    fn tensor(runner: *Runner, shape: Shape, dtype: DType) Error!Tensor {
        const result: Tensor = .{ .address = 0, .shape = shape, .dtype = dtype };
        var there = result;
        there.address = try runner.take(result.byteCount());
        const cuda = runner.fixture.cuda;
        const count = shape.elementCount();
        if (dtype == cuda.activation) {
            try runner.fixture.pool.fill(cuda, there.address, count, 1);
        } else try ops_elementwise.zero(cuda, there.address, result.byteCount());
        return there;
    }

    fn weight(runner: *Runner, shape: [4]u32) Error!*const Weight {
        const result = try runner.arena.allocator().create(Weight);
        result.* = .{
            .name = "weight",
            .layout = .matrix,
            .dtype = runner.fixture.cuda.activation,
            .shape = shape,
            .source = &.{},
            .source_dtype = runner.fixture.cuda.activation,
        };
        const count = result.elementCount();
        result.device_offset = try runner.take(count * runner.fixture.cuda.activation.size());
        const inner: f32 = @floatFromInt(count / shape[0]);
        const cuda = runner.fixture.cuda;
        try runner.fixture.pool.fill(cuda, result.device_offset, count, 1 / @sqrt(inner));
        return result;
    }

    /// An int8 weight of the same numbers, for the operation's own groups.
    fn rounded(runner: *Runner, wide: *const Weight) Error!*const Weight {
        const result = try runner.arena.allocator().create(Weight);
        result.* = wide.*;
        const rows, const depth = .{ wide.shape[0], wide.shape[1] };
        result.dtype = .i8;
        result.int8_group = int8.groupOf(depth) orelse 1;
        result.device_offset = try runner.take(int8.rowBytes(rows, depth));
        result.int8_scales_offset = result.device_offset + result.elementCount();
        const cuda = runner.fixture.cuda;
        const target, const scales = .{ result.device_offset, result.int8_scales_offset };
        const source = wide.device_offset;
        const group = result.int8_group;
        try linear_int8.quantizeRows(cuda, target, scales, source, rows, depth, group);
        return result;
    }

    fn operands(runner: *Runner, o: Operation) Error!Operands {
        const shape: Shape = .{
            .batch = o.batch,
            .rows = o.rows,
            .width = o.width,
            .channels = o.in,
        };
        const activation = runner.fixture.cuda.activation;
        const is_wide = o.op == .scale_repeat;
        var set: Operands = .{
            .o = o,
            .x = try runner.tensor(shape, if (is_wide) .f32 else activation),
        };
        switch (o.op) {
            .linear, .cross_attention => {
                set.weight = try runner.weight(.{ o.out, o.in, 1, 1 });
            },
            .linear_geglu => set.weight = try runner.weight(.{ 2 * o.out, o.in, 1, 1 }),
            // Rows are rounded for a weight, whatever its outputs.
            .quantize_rows => set.weight = try runner.weight(.{ int8.column_unit, o.in, 1, 1 }),
            .conv2d, .conv_direct => {
                set.weight = try runner.weight(.{ o.out, o.kernel, o.kernel, o.in });
            },
            .group_norm_apply, .layer_norm, .prelu => {
                set.weight = try runner.weight(.{ o.in, 1, 1, 1 });
            },
            else => {},
        }
        if (set.weight) |matrix| {
            set.bias = try runner.weight(.{ matrix.shape[0], 1, 1, 1 });
        }
        if (o.int8 or o.op == .quantize_rows) set.weight = try runner.rounded(set.weight.?);
        if (o.residual) set.residual = try runner.tensor(set.resultShape(), activation);
        if (o.op == .add) set.residual = try runner.tensor(shape, activation);
        if (o.op == .concat) {
            set.residual = try runner.tensor(shape.withChannels(o.out - o.in), activation);
        }
        if (o.halos > 0 or o.op == .extrapolate_rows) {
            var row = shape;
            row.rows = 1;
            set.halo = try runner.tensor(row, activation);
        }
        if (o.op == .group_norm_apply) set.stats = try runner.tensor(.{
            .batch = o.batch,
            .rows = o.groups,
            .width = 1,
            .channels = 2,
        }, .f64);
        if (o.op == .epilogue) set.stats = try runner.tensor(.vector(o.batch, o.in), activation);
        if (o.op == .attention or o.op == .cross_attention) {
            set.keys_values = try runner.arena.allocator().alloc(Tensor, o.chunks);
            for (set.keys_values, 0..) |*chunk, i| {
                const count = o.keys / o.chunks + @intFromBool(i < o.keys % o.chunks);
                const channels = if (set.weight) |matrix| matrix.shape[0] else o.in;
                chunk.* = try runner.tensor(.tokens(o.batch, count, 2 * channels), activation);
            }
        }
        set.count();
        return set;
    }
};

/// One set of operands.
const Operands = struct {
    o: Operation,
    x: Tensor,
    weight: ?*const Weight = null,
    bias: ?*const Weight = null,
    residual: ?Tensor = null,
    halo: ?Tensor = null,
    stats: ?Tensor = null,
    keys_values: []Tensor = &.{},
    bytes: u64 = 0,

    fn count(set: *Operands) void {
        set.bytes = set.x.byteCount();
        if (set.weight) |matrix| set.bytes += matrix.elementCount() * 2;
        if (set.residual) |tensor| set.bytes += tensor.byteCount();
        for (set.keys_values) |chunk| set.bytes += chunk.byteCount();
    }

    fn options(set: *const Operands) backend.ConvOptions {
        const o = &set.o;
        const pad = o.padding;
        return .{
            .stride = o.stride,
            .padding = .{ .top = pad, .bottom = pad, .left = pad, .right = pad },
            .upsample = o.scale == 2,
            .halo_above = if (o.halos > 0) set.halo else null,
            .halo_below = if (o.halos > 1) set.halo else null,
            .residual = if (o.op == .conv2d) set.residual else null,
        };
    }

    fn resultShape(set: *const Operands) Shape {
        const o = &set.o;
        var shape = set.x.shape;
        if (o.op == .linear) shape.channels = o.out;
        if (o.op != .conv2d) return shape;
        shape.rows = (o.rows + 2 * o.padding - o.kernel) / o.stride + 1;
        shape.width = (o.width + 2 * o.padding - o.kernel) / o.stride + 1;
        shape.channels = o.out;
        return shape;
    }

    fn crossAttention(set: *const Operands, b: Backend) backend.Error!Tensor {
        return b.crossAttention(set.x, set.weight.?, set.keys_values[0], set.o.heads);
    }

    fn groupNormApply(set: *const Operands, b: Backend) backend.Error!Tensor {
        const stats, const weight, const bias = .{ set.stats.?, set.weight.?, set.bias.? };
        return b.groupNormApply(set.x, null, stats, weight, bias, 1e-5, set.o.activation);
    }

    fn run(set: *const Operands, b: Backend) backend.Error!void {
        const o = &set.o;
        const bias = if (o.bias) set.bias else null;
        const cuda = if (b.device == .cuda) b.device.cuda else null;
        const result = switch (o.op) {
            .linear => try b.linear(set.x, set.weight.?, bias, .{ .residual = set.residual }),
            .linear_geglu => try b.linearGeglu(set.x, set.weight.?, set.bias.?),
            .conv2d, .conv_direct => try b.conv2d(set.x, set.weight.?, bias, set.options()),
            .attention => try b.attention(set.x, set.keys_values, o.heads, o.causal),
            .cross_attention => try set.crossAttention(b),
            .group_norm_stats => try b.groupNormStats(set.x, o.groups),
            .group_norm_apply => try set.groupNormApply(b),
            .layer_norm => try b.layerNorm(set.x, set.weight.?, set.bias.?, 1e-5),
            .geglu => try b.geglu(set.x),
            .activate => try b.activate(set.x, o.activation),
            .prelu => try b.prelu(set.x, set.weight.?),
            .add => try b.add(set.x, set.residual.?),
            .concat => try b.concatChannels(&.{ set.x, set.residual.? }),
            .scale_repeat => try b.scaleRepeat(set.x, 1, o.scale),
            .to_rgb => try b.toRgb(set.x),
            .extrapolate_rows => try b.extrapolateRows(.{
                .old = set.halo.?,
                .older = set.halo.?,
                .own_now = set.halo.?,
                .own_old = set.halo.?,
                .own_older = set.halo.?,
            }),
            .copy, .copy_rows => copied: {
                const out = try b.alloc(set.x.shape, set.x.dtype);
                if (o.op == .copy) try b.copy(out, set.x) else {
                    try b.copyRows(out, 0, set.x, 0, o.rows);
                }
                break :copied out;
            },
            .pad_input => padded: {
                const shape = ops_convolution.paddedShape(set.x.shape, set.options());
                const out = try b.alloc(shape, set.x.dtype);
                if (cuda) |queue| {
                    try ops_convolution.padInput(queue, out, set.x, set.options());
                }
                break :padded out;
            },
            .epilogue => {
                if (cuda) |queue| try ops_elementwise.biasActivationResidual(queue, set.x, .{
                    .channel_bias = if (o.bias) set.stats else null,
                    .activation = o.activation,
                    .residual = set.residual,
                });
                return;
            },
            .quantize_rows => (try b.quantizeFor(set.x, set.weight.?)).?,
            // Of compressed exchange, which no list has.
            .quantize_change, .apply_change => return,
            // Too small: their time is the launch latency.
            .combine_statistics,
            .embed_tokens,
            .gather_tokens,
            .sinusoids,
            .is_finite,
            .latent_step,
            .mask_blend,
            => return,
        };
        b.free(result);
    }
};
