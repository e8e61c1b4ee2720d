//! The device interface: model code calls these operations and never asks which device computes.
//! Every operation checks shapes and allocates its result from the scratch arena here, once for all
//! devices. The dry run then does nothing more, so running a network over it adds up its memory.
//! In reading order:
//!   options, elementwise  arguments of operations; operations whose shape checks are alike
//!   dry_run, op_trace     the device that computes nothing; a trace of operations for benchmarks
//!   cpu                   kernels in Zig for several instruction sets, a thread pool per rank
//!   cuda                  a rank's streams on a GPU: launches, cuBLASLt, cuDNN, CUDA graphs

const std = @import("std");
const assert = std.debug.assert;
const tensors = @import("tensor.zig");
const Tensor = tensors.Tensor;
const Shape = tensors.Shape;
const DType = tensors.DType;
const Weight = @import("weights.zig").Weight;
const Scratch = @import("scratch.zig").Scratch;
const Draw = @import("random/philox.zig").Draw;
pub const cpus = @import("backend/cpu.zig");
pub const Cpu = cpus.Cpu;
pub const Compute = cpus.Compute;
pub const cudas = @import("backend/cuda.zig");
pub const Cuda = cudas.Cuda;
pub const GraphKey = cudas.GraphKey;
pub const StepVariant = cudas.StepVariant;
pub const Planned = @import("backend/dry_run.zig").Planned;

const elementwise = @import("backend/elementwise.zig");
const option_types = @import("backend/options.zig");
pub const AttentionKind = option_types.AttentionKind;
pub const Activation = option_types.Activation;
pub const LinearOptions = option_types.LinearOptions;
pub const Padding = option_types.Padding;
pub const ConvOptions = option_types.ConvOptions;
pub const FiniteCheck = option_types.FiniteCheck;
pub const Part = option_types.Part;
pub const Update = option_types.Update;
pub const StepCoefficients = option_types.StepCoefficients;
pub const LatentStep = option_types.LatentStep;
pub const MaskBlend = option_types.MaskBlend;
pub const CombineStatistics = option_types.CombineStatistics;
pub const ExtrapolateRows = option_types.ExtrapolateRows;
pub const Change = option_types.Change;
pub const ChangeFormat = option_types.ChangeFormat;
pub const model_output_count = option_types.model_output_count;

/// What an operation can meet in the world; wrong shapes are our own bugs and assert.
pub const Error = error{ Cancelled, OutOfScratch, GpuFailed, OutOfMemory };

pub const Device = union(enum) {
    cpu: *Cpu,
    cuda: *Cuda,
    plan: Planned,
};

/// Of `groupNormStats`.
pub fn statisticsShape(x: Shape, group_count: u32) Shape {
    return .{ .batch = x.batch, .rows = group_count, .width = 1, .channels = 2 };
}

pub const Backend = struct {
    scratch: *Scratch,
    device: Device,

    /// Activations: f32 on the CPU, 16 bits on GPUs. Latents, noise and timesteps are always f32.
    pub fn activationType(b: Backend) DType {
        return switch (b.device) {
            .cpu => .f32,
            .cuda => |cuda| cuda.activation,
            .plan => |plan| plan.activation,
        };
    }

    /// GPUs need temporary memory for some operations, and so do their dry runs.
    pub fn isCuda(b: Backend) bool {
        return switch (b.device) {
            .cpu => false,
            .cuda => true,
            .plan => |plan| plan.is_cuda,
        };
    }

    fn allocBytes(b: Backend, bytes: usize) Error!?Tensor {
        if (bytes == 0) return null;
        const address = try b.scratch.alloc(bytes);
        const shape: Shape = .vector(@intCast(std.math.divCeil(usize, bytes, 64) catch
            unreachable), 64);
        return .{ .address = address, .shape = shape, .dtype = .u8 };
    }

    /// The device that executes operations: none in a dry run or while a CUDA graph is replayed.
    pub fn target(b: Backend) Device {
        if (b.device == .cuda and b.device.cuda.isReplaying()) return .{ .plan = b.planned() };
        return b.device;
    }

    /// The dry run of this device, without a trace.
    pub fn planned(b: Backend) Planned {
        return .{ .activation = b.activationType(), .is_cuda = b.isCuda() };
    }

    /// Runs `function` through the cache of CUDA graphs; equal keys must launch the same work.
    pub fn runGraphed(
        b: Backend,
        key: GraphKey,
        comptime function: anytype,
        args: anytype,
    ) @typeInfo(@TypeOf(function)).@"fn".return_type.? {
        const cuda = if (b.device == .cuda) b.device.cuda else {
            return @call(.auto, function, args);
        };
        const graphs = &cuda.graphs;
        errdefer graphs.abandon(cuda);
        switch (try graphs.passFor(cuda, key, b.scratch)) {
            .eager => return @call(.auto, function, args),
            .capture => {
                const before = b.scratch.*;
                try graphs.beginCapture(cuda);
                _ = try @call(.auto, function, args);
                try graphs.endCapture(cuda);
                b.scratch.* = before;
            },
            .replay => {},
        }
        try graphs.beginReplay(cuda);
        const result = try @call(.auto, function, args);
        graphs.endReplay();
        return result;
    }

    /// Whether operations are only added to a CUDA graph, which runs later.
    pub fn isCapturing(b: Backend) bool {
        return b.device == .cuda and b.device.cuda.graphs.pass == .capture;
    }

    /// What has been captured and replayed since the device was opened.
    pub fn graphCounts(b: Backend) cudas.GraphCounts {
        return if (b.device == .cuda) b.device.cuda.graphs.counts else .{};
    }

    // Memory.

    pub fn alloc(b: Backend, shape: Shape, dtype: DType) Error!Tensor {
        const address = try b.scratch.alloc(shape.elementCount() * dtype.size());
        return .{ .address = address, .shape = shape, .dtype = dtype };
    }

    pub fn free(b: Backend, tensor: Tensor) void {
        b.scratch.free(tensor.address);
    }

    /// Host bytes to a new device tensor.
    pub fn upload(b: Backend, shape: Shape, dtype: DType, bytes: []const u8) Error!Tensor {
        const out = try b.alloc(shape, dtype);
        try b.write(out, bytes);
        return out;
    }

    /// Numbers of the host to a new tensor of the activations' type.
    pub fn uploadFloats(b: Backend, shape: Shape, values: []const f32) Error!Tensor {
        const whole = try b.upload(shape, .f32, std.mem.sliceAsBytes(values));
        if (b.activationType() == .f32) return whole;
        defer b.free(whole);
        return b.scaleRepeat(whole, 1, 1);
    }

    /// Copies host bytes to a device tensor; a dry run ignores them.
    pub fn write(b: Backend, out: Tensor, bytes: []const u8) Error!void {
        switch (b.target()) {
            .plan => {},
            inline else => |device| {
                assert(bytes.len == out.byteCount());
                try device.upload(out, bytes);
            },
        }
    }

    pub fn download(b: Backend, x: Tensor, bytes: []u8) Error!void {
        switch (b.target()) {
            .plan => {},
            inline else => |device| {
                assert(bytes.len == x.byteCount());
                try device.download(x, bytes);
            },
        }
    }

    /// As `download`, widened to f32 where the tensor has 16 bits.
    pub fn downloadFloats(b: Backend, x: Tensor, out: []f32) Error!void {
        const bytes = std.mem.sliceAsBytes(out);
        if (b.device == .plan) return;
        if (x.dtype == .f32) return b.download(x, bytes);
        // The 16 bits go to the upper half: widening from the front never meets what is unread.
        const half = bytes[bytes.len / 2 ..];
        try b.download(x, half);
        for (out, 0..) |*value, i| {
            const bits = std.mem.readInt(u16, half[2 * i ..][0..2], .little);
            value.* = switch (x.dtype) {
                .f16 => @as(f16, @bitCast(bits)),
                .bf16 => @bitCast(@as(u32, bits) << 16),
                else => unreachable,
            };
        }
    }

    /// Numbers of the host to a tensor of the activations' type, rounded there: no scratch is used.
    /// `room` has as many bytes as `out`.
    pub fn writeFloats(b: Backend, out: Tensor, values: []const f32, room: []u8) Error!void {
        if (b.device == .plan) return;
        for (values, 0..) |value, i| switch (out.dtype) {
            .f32 => std.mem.writeInt(u32, room[4 * i ..][0..4], @bitCast(value), .little),
            .f16 => {
                const half: f16 = @floatCast(value);
                std.mem.writeInt(u16, room[2 * i ..][0..2], @bitCast(half), .little);
            },
            .bf16 => {
                const bits: u32 = @bitCast(value);
                const even = (bits >> 16) & 1;
                const rounded: u16 = @truncate((bits +% 0x7fff +% even) >> 16);
                std.mem.writeInt(u16, room[2 * i ..][0..2], rounded, .little);
            },
            else => unreachable,
        };
        try b.write(out, room[0..out.byteCount()]);
    }

    /// Sets device memory; for what no operation will write.
    pub fn zero(b: Backend, address: usize, bytes: usize) Error!void {
        switch (b.device) {
            .plan => {},
            .cpu => @memset(@as([*]u8, @ptrFromInt(address))[0..bytes], 0),
            .cuda => |cuda| try cuda.zero(address, bytes),
        }
    }

    pub fn copy(b: Backend, out: Tensor, x: Tensor) Error!void {
        assert(out.byteCount() == x.byteCount());
        switch (b.target()) {
            inline else => |device| try device.copy(out, x),
        }
    }

    /// Returns when everything that was queued is done.
    pub fn finish(b: Backend) Error!void {
        if (b.device == .cuda) try b.device.cuda.synchronize();
    }

    /// Whether every element is a finite number. True while planning.
    pub fn isFinite(b: Backend, x: Tensor) Error!bool {
        return switch (b.target()) {
            inline else => |device| try device.isFinite(x),
        };
    }

    /// Queues a check of `x` as it is now; `endFiniteCheck` has its answer. In between a GPU can be
    /// given more work.
    pub fn beginFiniteCheck(b: Backend, x: Tensor, number: FiniteCheck) Error!void {
        switch (b.target()) {
            inline else => |device| try device.beginFiniteCheck(x, number),
        }
    }

    /// Waits for the check, and not for what was queued after it.
    pub fn endFiniteCheck(b: Backend, number: FiniteCheck) Error!bool {
        return switch (b.target()) {
            .plan => true,
            inline else => |device| try device.endFiniteCheck(number),
        };
    }

    /// Rows [x_row_first, x_row_first + row_count) of `x` to those of `out` from `out_row_first`.
    pub fn copyRows(
        b: Backend,
        out: Tensor,
        out_row_first: u32,
        x: Tensor,
        x_row_first: u32,
        row_count: u32,
    ) Error!void {
        assert(out.shape.batch == x.shape.batch and out.shape.width == x.shape.width);
        assert(out.shape.channels == x.shape.channels and out.dtype == x.dtype);
        assert(out_row_first + row_count <= out.shape.rows);
        assert(x_row_first + row_count <= x.shape.rows);
        switch (b.target()) {
            inline else => |device| {
                try device.copyRows(out, out_row_first, x, x_row_first, row_count);
            },
        }
    }

    /// Extrapolates stale halo rows: old + a * (old - older), where a in 0..1 is fitted per channel
    /// on this patch's own edge row: (own_now - own_old) by (own_old - own_older), least squares.
    pub fn extrapolateRows(b: Backend, o: ExtrapolateRows) Error!Tensor {
        const rows = [_]Tensor{ o.older, o.own_now, o.own_old, o.own_older };
        for (rows) |row| assert(row.shape.eql(o.old.shape) and row.shape.rows == 1);
        const out = try b.alloc(o.old.shape, o.old.dtype);
        switch (b.target()) {
            inline else => |device| try device.extrapolateRows(out, o),
        }
        return out;
    }

    // Matrix products and convolutions.

    /// x (batch, rows, width, in) and weight (out, in) to (batch, rows, width, out).
    pub fn linear(
        b: Backend,
        x: Tensor,
        weight: *const Weight,
        bias: ?*const Weight,
        options: LinearOptions,
    ) Error!Tensor {
        const out = try b.alloc(x.shape.withChannels(weight.shape[0]), b.activationType());
        try b.linearInto(out, 0, x, weight, bias, options);
        return out;
    }

    /// As `linear`, into the channels [channel_first, channel_first + out) of a wider tensor.
    pub fn linearInto(
        b: Backend,
        out: Tensor,
        channel_first: u32,
        x: Tensor,
        weight: *const Weight,
        bias: ?*const Weight,
        options: LinearOptions,
    ) Error!void {
        assert(weight.shape[1] == x.shape.channels);
        assert(channel_first + weight.shape[0] <= out.shape.channels);
        assert(out.shape.positionCount() == x.shape.positionCount());
        assert(out.shape.batch == x.shape.batch);
        if (bias) |vector| assert(vector.shape[0] == weight.shape[0]);
        if (options.residual) |residual| {
            assert(channel_first == 0 and residual.shape.eql(out.shape));
        }
        var complete = options;
        const room = try b.prepareInt8(&complete, x, weight, weight.shape[0]);
        defer room.free(b);
        switch (b.target()) {
            inline else => |device| {
                try device.linear(out, channel_first, x, weight, bias, complete);
            },
        }
    }

    /// Whether `linearRows` does all of these at once.
    pub fn areRowsOneKernel(b: Backend, weights: []const *const Weight) bool {
        return b.isCuda() and cudas.areRowsOneKernel(weights);
    }

    /// x (batch, 1, 1, in) and each weight (out, in) with its bias to `outs`, (batch, 1, 1, out),
    /// which lie one behind the other. Returns their memory.
    pub fn linearRows(
        b: Backend,
        outs: []Tensor,
        x: Tensor,
        weights: []const *const Weight,
        biases: []const *const Weight,
    ) Error!Tensor {
        assert(outs.len == weights.len and weights.len == biases.len);
        assert(x.shape.positionCount() == 1);
        var channels: u32 = 0;
        for (weights, biases) |weight, bias| {
            assert(weight.shape[1] == x.shape.channels and bias.shape[0] == weight.shape[0]);
            channels += weight.shape[0];
        }
        const all = try b.alloc(x.shape.withChannels(channels), b.activationType());
        var address = all.address;
        for (outs, weights) |*out, weight| {
            const shape = x.shape.withChannels(weight.shape[0]);
            out.* = .{ .address = address, .shape = shape, .dtype = all.dtype };
            address += out.byteCount();
        }
        switch (b.target()) {
            .cpu => unreachable,
            .plan => |plan| plan.linearRows(all, x, weights, biases[0]),
            .cuda => |cuda| try cuda.linearRows(outs, x, weights, biases),
        }
        return all;
    }

    /// x (batch, rows, width, in) and weight (2 * out, in) to (batch, rows, width, out): the first
    /// half of the product with its bias times the GELU of the second (GEGLU).
    pub fn linearGeglu(
        b: Backend,
        x: Tensor,
        weight: *const Weight,
        bias: *const Weight,
    ) Error!Tensor {
        assert(weight.shape[1] == x.shape.channels);
        assert(weight.shape[0] % 2 == 0 and bias.shape[0] == weight.shape[0]);
        // Int8 products on GPUs have room for sums instead.
        const is_written = weight.dtype != .i8 or !b.isCuda();
        const wide_shape = x.shape.withChannels(weight.shape[0]);
        const wide = if (is_written) try b.alloc(wide_shape, b.activationType()) else null;
        defer if (wide) |tensor| b.free(tensor);
        const out = try b.alloc(x.shape.withChannels(weight.shape[0] / 2), b.activationType());
        var options: LinearOptions = .{};
        const room = try b.prepareInt8(&options, x, weight, weight.shape[0]);
        defer room.free(b);
        switch (b.target()) {
            inline else => |device| {
                try device.linearGeglu(out, wide, x, weight, bias, options);
            },
        }
        return out;
    }

    /// `x` as products with int8 weights read it: rotated as `weight` is and rounded, each row
    /// with a scale of its own. For several products that read the same; null for other weights.
    pub fn quantizeFor(b: Backend, x: Tensor, weight: *const Weight) Error!?Tensor {
        if (weight.dtype != .i8) return null;
        const out = try b.alloc(x.shape.withChannels(x.shape.channels + @sizeOf(f32)), .i8);
        switch (b.target()) {
            inline else => |device| try device.quantizeRows(out, x, weight.int8_group),
        }
        return out;
    }

    /// The same for products with all of `weights`; null where they do not read the same.
    pub fn quantizeForAll(b: Backend, x: Tensor, weights: []const *const Weight) Error!?Tensor {
        for (weights) |weight| {
            if (weight.dtype != .i8 or weight.int8_group != weights[0].int8_group) return null;
        }
        return b.quantizeFor(x, weights[0]);
    }

    /// As `linearInto` of `first`, and of `second` into the channels behind it; no biases.
    /// `quantized`: as `LinearOptions`.
    pub fn linearPairInto(
        b: Backend,
        out: Tensor,
        x: Tensor,
        first: *const Weight,
        second: *const Weight,
        quantized: ?Tensor,
    ) Error!void {
        const weights = [_]*const Weight{ first, second };
        if (b.areOneProduct(&weights)) return b.linearAdjacentInto(out, x, &weights, quantized);
        const own = if (quantized == null) try b.quantizeForAll(x, &weights) else null;
        defer if (own) |tensor| b.free(tensor);
        const options: LinearOptions = .{ .quantized = quantized orelse own };
        try b.linearInto(out, 0, x, first, null, options);
        try b.linearInto(out, first.shape[0], x, second, null, options);
    }

    /// Whether the device multiplies by such weights at once.
    pub fn areOneProduct(b: Backend, weights: []const *const Weight) bool {
        return b.isCuda() and cudas.areAdjacent(weights, b.activationType());
    }

    /// As `linearInto` of weights that are one product, one behind the other; no biases.
    /// `quantized`: as `LinearOptions`.
    pub fn linearAdjacentInto(
        b: Backend,
        out: Tensor,
        x: Tensor,
        weights: []const *const Weight,
        quantized: ?Tensor,
    ) Error!void {
        var channels: u32 = 0;
        for (weights) |weight| {
            assert(weight.shape[1] == x.shape.channels);
            channels += weight.shape[0];
        }
        assert(out.shape.channels == channels);
        var options: LinearOptions = .{ .quantized = quantized };
        const room = try b.prepareInt8(&options, x, weights[0], channels);
        defer room.free(b);
        switch (b.target()) {
            .cpu => unreachable,
            inline else => |device| try device.linearAdjacent(out, x, weights, options),
        }
    }

    /// Temporary memory of a product with int8 weights; none for others.
    const Int8Room = struct {
        rows: ?Tensor = null,
        sums: ?Tensor = null,

        fn free(room: Int8Room, b: Backend) void {
            if (room.sums) |tensor| b.free(tensor);
            if (room.rows) |tensor| b.free(tensor);
        }
    };

    /// Completes `options` for a product of `x` and `column_count` columns of int8 weights.
    fn prepareInt8(
        b: Backend,
        options: *LinearOptions,
        x: Tensor,
        weight: *const Weight,
        column_count: u32,
    ) Error!Int8Room {
        var room: Int8Room = .{};
        if (weight.dtype != .i8) return room;
        if (options.quantized == null) {
            room.rows = try b.quantizeFor(x, weight);
            options.quantized = room.rows;
        }
        if (!b.isCuda()) return room;
        const row_count: u32 = @intCast(x.shape.rowCount());
        room.sums = try b.allocBytes(cudas.sumBytes(row_count, column_count));
        options.sums = room.sums;
        return room;
    }

    /// x (batch, rows, width, in) and weight (out, height, width, in) to (batch, rows', width',
    /// out).
    pub fn conv2d(
        b: Backend,
        x: Tensor,
        weight: *const Weight,
        bias: ?*const Weight,
        options: ConvOptions,
    ) Error!Tensor {
        assert(weight.shape[3] == x.shape.channels);
        const scale: u32 = if (options.upsample) 2 else 1;
        const pad = options.padding;
        const rows = x.shape.rows * scale + pad.top + pad.bottom - weight.shape[1];
        const width = x.shape.width * scale + pad.left + pad.right - weight.shape[2];
        const out = try b.alloc(.{
            .batch = x.shape.batch,
            .rows = rows / options.stride + 1,
            .width = width / options.stride + 1,
            .channels = weight.shape[0],
        }, b.activationType());
        const halo_shape: Shape = .{
            .batch = x.shape.batch,
            .rows = 1,
            .width = x.shape.width,
            .channels = x.shape.channels,
        };
        if (options.halo_above) |halo| assert(pad.top == 1 and halo.shape.eql(halo_shape));
        if (options.halo_below) |halo| assert(pad.bottom == 1 and halo.shape.eql(halo_shape));
        if (options.residual) |residual| assert(residual.shape.eql(out.shape));
        if (options.channel_bias) |vector| {
            assert(vector.shape.eql(.vector(x.shape.batch, weight.shape[0])));
        }
        const room = if (b.isCuda()) cudas.convolutionBytes(x, weight, options) else 0;
        const temporary = try b.allocBytes(room);
        defer if (temporary) |tensor| b.free(tensor);
        switch (b.target()) {
            .plan => |plan| try plan.conv2d(out, x, weight, bias, options),
            .cpu => |cpu| try cpu.conv2d(out, x, weight, bias, options),
            .cuda => |cuda| try cuda.conv2d(out, x, weight, bias, options, temporary),
        }
        return out;
    }

    // Norms.

    /// Whether group norms take an addend (batch, 1, 1, channels) to `x`, which then needs no pass
    /// of its own. The CPU adds it where the convolution ends.
    pub fn addsInNorms(b: Backend) bool {
        return b.isCuda();
    }

    /// Mean and mean of squares of every group over this patch: (batch, groups, 1, 2) in f64.
    pub fn groupNormStats(b: Backend, x: Tensor, group_count: u32) Error!Tensor {
        const out = try b.alloc(statisticsShape(x.shape, group_count), .f64);
        try b.groupNormStatsInto(out, x, null);
        return out;
    }

    /// The same of `x` plus `addend`, written where the exchange between patches reads it.
    pub fn groupNormStatsInto(b: Backend, out: Tensor, x: Tensor, addend: ?Tensor) Error!void {
        assert(x.shape.channels % out.shape.rows == 0);
        assert(out.dtype == .f64 and out.shape.eql(statisticsShape(x.shape, out.shape.rows)));
        if (addend) |vector| assert(vector.shape.eql(.vector(x.shape.batch, x.shape.channels)));
        switch (b.target()) {
            inline else => |device| try device.groupNormStats(out, x, addend),
        }
    }

    pub fn combineStatistics(b: Backend, o: CombineStatistics) Error!Tensor {
        assert(o.parts.len == o.weights.len and o.parts.len > 0);
        for (o.parts) |part| assert(part.shape.eql(o.local.shape) and part.dtype == .f64);
        const out = try b.alloc(o.local.shape, .f64);
        switch (b.target()) {
            inline else => |device| try device.combineStatistics(out, o),
        }
        return out;
    }

    /// activation((x - mean) / sqrt(variance + epsilon) * weight + bias), with the biased variance
    /// of torch.nn.GroupNorm from `stats` (batch, groups, 1, 2).
    pub fn groupNormApply(
        b: Backend,
        x: Tensor,
        addend: ?Tensor,
        stats: Tensor,
        weight: *const Weight,
        bias: *const Weight,
        epsilon: f32,
        activation: Activation,
    ) Error!Tensor {
        assert(stats.shape.batch == x.shape.batch);
        assert(weight.shape[0] == x.shape.channels);
        assert(bias.shape[0] == x.shape.channels);
        const out = try b.alloc(x.shape, b.activationType());
        switch (b.target()) {
            inline else => |device| {
                try device.groupNormApply(
                    out,
                    x,
                    addend,
                    stats,
                    weight,
                    bias,
                    epsilon,
                    activation,
                );
            },
        }
        return out;
    }

    pub fn layerNorm(
        b: Backend,
        x: Tensor,
        weight: *const Weight,
        bias: *const Weight,
        epsilon: f32,
    ) Error!Tensor {
        assert(weight.shape[0] == x.shape.channels);
        assert(bias.shape[0] == x.shape.channels);
        const out = try b.alloc(x.shape, b.activationType());
        switch (b.target()) {
            inline else => |device| try device.layerNorm(out, x, weight, bias, epsilon),
        }
        return out;
    }

    // Attention.

    /// softmax(q k^T / sqrt(head size)) v per head. `q` is (batch, rows, width, channels); each
    /// chunk of `keys_values` is (batch, 1, tokens, 2 * channels), keys before values, and all
    /// chunks together are the sequence. `causal`: position i sees positions 0..i only.
    pub fn attention(
        b: Backend,
        q: Tensor,
        keys_values: []const Tensor,
        head_count: u32,
        causal: bool,
    ) Error!Tensor {
        const out = try b.alloc(q.shape, b.activationType());
        try b.attentionInto(out, q, keys_values, head_count, causal);
        return out;
    }

    /// Self-attention over `qkv` (batch, rows, width, 3 * channels), queries, keys and values of
    /// each position behind one another; only where `areOneProduct` has been true of their weights.
    pub fn attentionPacked(b: Backend, qkv: Tensor, head_count: u32) Error!Tensor {
        const out = try b.alloc(qkv.shape.withChannels(qkv.shape.channels / 3), qkv.dtype);
        assert(out.shape.channels % head_count == 0);
        const room = cudas.packedAttentionBytes(out.shape, head_count);
        const temporary = try b.allocBytes(room);
        defer if (temporary) |tensor| b.free(tensor);
        switch (b.target()) {
            .cpu => unreachable,
            .plan => |plan| try plan.attentionPacked(out, qkv, head_count),
            .cuda => |cuda| try cuda.attentionPacked(out, qkv, head_count, temporary),
        }
        return out;
    }

    /// The same into `out`, which may be a part of a batch.
    pub fn attentionInto(
        b: Backend,
        out: Tensor,
        q: Tensor,
        keys_values: []const Tensor,
        head_count: u32,
        causal: bool,
    ) Error!void {
        assert(out.shape.eql(q.shape));
        assert(q.shape.channels % head_count == 0);
        assert(keys_values.len > 0);
        assert(!causal or keys_values.len == 1);
        for (keys_values) |chunk| {
            assert(chunk.shape.channels == 2 * q.shape.channels);
            assert(chunk.shape.batch == q.shape.batch);
        }
        const room = if (b.isCuda())
            cudas.attentionBytes(q.shape, keys_values, head_count, causal)
        else
            0;
        const temporary = try b.allocBytes(room);
        defer if (temporary) |tensor| b.free(tensor);
        switch (b.target()) {
            .plan => |plan| try plan.attention(out, q, keys_values, head_count, causal),
            .cpu => |cpu| try cpu.attention(out, q, keys_values, head_count, causal),
            .cuda => |cuda| {
                try cuda.attention(out, q, keys_values, head_count, causal, temporary);
            },
        }
    }

    /// Attention of queries x weight^T, one of them for each position of `x` (batch, rows, width,
    /// in), over `keys_values` (batch, 1, tokens, 2 * channels).
    pub fn crossAttention(
        b: Backend,
        x: Tensor,
        weight: *const Weight,
        keys_values: Tensor,
        head_count: u32,
    ) Error!Tensor {
        if (!b.isCuda() or !cudas.projectsInOneKernel(weight, head_count)) {
            const q = try b.linear(x, weight, null, .{});
            defer b.free(q);
            return b.attention(q, &.{keys_values}, head_count, false);
        }
        assert(weight.shape[1] == x.shape.channels);
        assert(keys_values.shape.batch == x.shape.batch);
        assert(keys_values.shape.channels == 2 * weight.shape[0]);
        const q = try b.alloc(x.shape.withChannels(weight.shape[0]), b.activationType());
        defer b.free(q);
        const out = try b.alloc(q.shape, q.dtype);
        const keys = [_]Tensor{keys_values};
        const room = try b.allocBytes(cudas.attentionBytes(q.shape, &keys, head_count, false));
        defer if (room) |tensor| b.free(tensor);
        switch (b.target()) {
            .cpu => unreachable,
            .plan => |plan| plan.crossAttention(out, x, weight, keys_values, head_count),
            .cuda => |cuda| {
                try cuda.crossAttention(out, q, x, weight, keys_values, head_count, room);
            },
        }
        return out;
    }

    // Elementwise and embeddings; each is documented where it is.

    pub const activate = elementwise.activate;
    pub const prelu = elementwise.prelu;
    pub const geglu = elementwise.geglu;
    pub const concatChannels = elementwise.concatChannels;
    pub const add = elementwise.add;
    pub const addScaled = elementwise.addScaled;
    pub const accumulate = elementwise.accumulate;
    pub const averageInto = elementwise.averageInto;
    pub const scaleRepeat = elementwise.scaleRepeat;
    pub const quantizeChange = elementwise.quantizeChange;
    pub const applyChange = elementwise.applyChange;
    pub const embedTokens = elementwise.embedTokens;
    pub const gatherTokens = elementwise.gatherTokens;
    pub const sinusoidalEmbedding = elementwise.sinusoidalEmbedding;

    // The sampler and the image.

    /// Guidance and the sampler's update, in place (see `StepCoefficients`).
    pub fn latentStep(b: Backend, step: LatentStep) Error!void {
        const image_count = step.latent.shape.batch;
        assert(step.model_output.shape.batch % image_count == 0);
        const branch_count = step.branchCount();
        assert(branch_count == 1 or
            step.guidance_scales.len == image_count * (branch_count - 1));
        assert((step.noise != null) == (step.coefficients.samples_noise != 0));
        assert(step.noise != null or step.coefficients.latent.noise == 0);
        assert(step.noise != null or step.coefficients.auxiliary.noise == 0);
        switch (b.target()) {
            inline else => |device| try device.latentStep(step),
        }
    }

    pub fn maskBlend(b: Backend, blend: MaskBlend) Error!void {
        const shape = blend.latent.shape;
        assert(blend.known.shape.eql(shape) and blend.noise.shape.eql(shape));
        assert(blend.mask.shape.positionCount() == shape.positionCount());
        assert(blend.mask.shape.channels == 1 and blend.mask.shape.batch == 1);
        for ([_]Tensor{ blend.latent, blend.known, blend.noise, blend.mask }) |tensor| {
            assert(tensor.dtype == .f32);
        }
        switch (b.target()) {
            inline else => |device| try device.maskBlend(blend),
        }
    }

    /// `scale` times an image's next standard normal numbers of torch on a CUDA device: `out` (1,
    /// rows, width, channels) in f32, `draw` of as many elements.
    pub fn philoxNormal(b: Backend, out: Tensor, draw: Draw, scale: f32) Error!void {
        assert(out.shape.batch == 1 and out.dtype == .f32);
        switch (b.target()) {
            .plan => {},
            inline else => |device| try device.philoxNormal(out, draw, scale),
        }
    }

    /// The decoder's output to bytes: round(255 * clamp(x / 2 + 0.5, 0, 1)), ties to even as numpy.
    pub fn toRgb(b: Backend, x: Tensor) Error!Tensor {
        const out = try b.alloc(x.shape, .u8);
        switch (b.target()) {
            inline else => |device| try device.toRgb(out, x),
        }
        return out;
    }
};

comptime {
    @import("backend/same_operations.zig").expectOperations(Cpu, &.{ Cuda, Planned });
}

test {
    _ = .{ cpus, cudas, option_types, elementwise };
    _ = .{ @import("backend/dry_run.zig"), @import("backend/op_trace.zig") };
}
