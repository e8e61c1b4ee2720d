//! The device that stands for another while a graph is planned. It does nothing: the seam has
//! already checked shapes and taken memory. Where there is a op_trace, it says what the other would
//! compute and move, kernel by kernel for GPUs.

const std = @import("std");
const tallies = @import("op_trace.zig");
const Cost = tallies.Cost;
const Operation = tallies.Operation;
const OpTrace = tallies.OpTrace;
const cudas = @import("cuda.zig");
const options_file = @import("options.zig");
const Activation = options_file.Activation;
const FiniteCheck = options_file.FiniteCheck;
const CombineStatistics = options_file.CombineStatistics;
const ConvOptions = options_file.ConvOptions;
const LatentStep = options_file.LatentStep;
const MaskBlend = options_file.MaskBlend;
const LinearOptions = options_file.LinearOptions;
const ExtrapolateRows = options_file.ExtrapolateRows;
const Change = options_file.Change;
const tensors = @import("../tensor.zig");
const DType = tensors.DType;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;
const Weight = @import("../weights.zig").Weight;

/// Nothing can fail; the other devices' calls can.
pub const Error = error{};

pub const Planned = struct {
    activation: DType,
    is_cuda: bool = false,
    op_trace: ?*OpTrace = null,

    // Products.

    pub fn linear(
        plan: Planned,
        out: Tensor,
        _: u32,
        x: Tensor,
        weight: *const Weight,
        bias: ?*const Weight,
        options: LinearOptions,
    ) Error!void {
        const in_int8 = weight.dtype == .i8;
        const has_pass = plan.is_cuda and options.activation != .none and !in_int8;
        const residual = if (has_pass) null else options.residual;
        var result = out;
        result.shape.channels = weight.shape[0];
        plan.product(result, x, &.{weight}, bias, residual);
        if (has_pass) plan.epilogue(result, options.activation, options.residual, null);
    }

    /// One product of all columns.
    pub fn linearRows(
        plan: Planned,
        all: Tensor,
        x: Tensor,
        weights: []const *const Weight,
        bias: *const Weight,
    ) void {
        plan.product(all, x, weights, bias, null);
    }

    pub fn linearGeglu(
        plan: Planned,
        out: Tensor,
        wide: ?Tensor,
        x: Tensor,
        weight: *const Weight,
        bias: *const Weight,
        _: LinearOptions,
    ) Error!void {
        const is_one = weight.dtype == .i8 or cudas.gatesInOneKernel(weight);
        if (plan.is_cuda and is_one) {
            const operation: Operation = .{
                .op = .linear_geglu,
                .out = out.shape.channels,
                .bias = true,
                .int8 = weight.dtype == .i8,
            };
            return plan.note(shaped(operation, x.shape), .{
                .flops = 4 *| out.shape.elementCount() *| x.shape.channels,
                .bytes = plan.inputBytes(x, weight) + plan.weightBytes(weight) + out.byteCount(),
            });
        }
        try plan.linear(wide.?, 0, x, weight, bias, .{});
        try plan.geglu(out, wide.?);
    }

    /// On the CPU it is part of the product.
    pub fn quantizeRows(plan: Planned, out: Tensor, x: Tensor, group: u32) Error!void {
        if (!plan.is_cuda) return;
        plan.moved(.{ .op = .quantize_rows, .groups = group }, &.{ x, out });
    }

    pub fn linearAdjacent(
        plan: Planned,
        out: Tensor,
        x: Tensor,
        weights: []const *const Weight,
        _: LinearOptions,
    ) Error!void {
        plan.product(out, x, weights, null, null);
    }

    pub fn conv2d(
        plan: Planned,
        out: Tensor,
        x: Tensor,
        weight: *const Weight,
        bias: ?*const Weight,
        options: ConvOptions,
    ) Error!void {
        var input = x;
        var operation: Operation = .{
            .op = .conv2d,
            .out = weight.shape[0],
            .kernel = weight.shape[1],
            .stride = options.stride,
            .padding = options.padding.top,
            .bias = bias != null,
        };
        const halos = [_]?Tensor{ options.halo_above, options.halo_below };
        var halo_bytes: u64 = 0;
        var halo_count: u32 = 0;
        for (halos) |maybe| if (maybe) |halo| {
            halo_bytes += halo.byteCount();
            halo_count += 1;
        };
        const is_direct = plan.is_cuda and cudas.isDirect(weight);
        const scale: u32 = if (options.upsample) 2 else 1;
        if (is_direct or !plan.is_cuda) {
            if (is_direct) operation.op = .conv_direct;
            operation.scale = scale;
            operation.halos = halo_count;
        } else if (cudas.needsPaddedInput(options)) {
            input.shape = cudas.paddedShape(x.shape, options);
            operation.padding = 0;
            plan.note(shaped(.{
                .op = .pad_input,
                .padding = options.padding.top,
                .scale = scale,
                .halos = halo_count,
            }, x.shape), .{ .bytes = x.byteCount() + halo_bytes + input.byteCount() });
            halo_bytes = 0;
        }
        const has_pass = plan.is_cuda and !is_direct and
            (options.activation != .none or options.channel_bias != null);
        operation.residual = !has_pass and options.residual != null;
        const taps: u64 = weight.shape[1] * weight.shape[2];
        plan.note(shaped(operation, input.shape), .{
            .flops = 2 *| out.shape.elementCount() *| taps *| weight.shape[3],
            .bytes = input.byteCount() + halo_bytes + plan.weightBytes(weight) + out.byteCount() +
                if (operation.residual) out.byteCount() else 0,
        });
        if (!has_pass) return;
        plan.epilogue(out, options.activation, options.residual, options.channel_bias);
    }

    pub fn attention(
        plan: Planned,
        out: Tensor,
        q: Tensor,
        keys_values: []const Tensor,
        head_count: u32,
        causal: bool,
    ) Error!void {
        var bytes: u64 = q.byteCount() + out.byteCount();
        var key_count: u64 = 0;
        for (keys_values) |chunk| {
            bytes += chunk.byteCount();
            key_count += chunk.shape.positionCount();
        }
        var launches: u32 = 1;
        if (plan.is_cuda) {
            const kernels = cudas.attentionKernels(q.shape, keys_values, head_count, causal);
            bytes += kernels.temporary_bytes;
            launches = kernels.launches;
        }
        plan.note(shaped(.{
            .op = .attention,
            .out = q.shape.channels,
            .keys = @intCast(key_count),
            .chunks = @intCast(keys_values.len),
            .heads = head_count,
            .causal = causal,
        }, q.shape), .{
            .flops = 4 *| q.shape.elementCount() *| key_count,
            .bytes = bytes,
            .launches = launches,
        });
    }

    pub fn attentionPacked(plan: Planned, out: Tensor, qkv: Tensor, head_count: u32) Error!void {
        const token_count: u32 = @intCast(out.shape.positionCount());
        const keys_values: Tensor = .{
            .address = qkv.address,
            .shape = .tokens(out.shape.batch, token_count, 2 * out.shape.channels),
            .dtype = qkv.dtype,
        };
        try plan.attention(out, out, &.{keys_values}, head_count, false);
    }

    /// As on Hopper; other GPUs write and read the queries, and launch twice.
    pub fn crossAttention(
        plan: Planned,
        out: Tensor,
        x: Tensor,
        weight: *const Weight,
        keys_values: Tensor,
        head_count: u32,
    ) void {
        const key_count: u32 = @intCast(keys_values.shape.positionCount());
        plan.note(shaped(.{
            .op = .cross_attention,
            .out = out.shape.channels,
            .keys = key_count,
            .heads = head_count,
        }, x.shape), .{
            .flops = 2 *| out.shape.elementCount() *| (x.shape.channels + 2 * key_count),
            .bytes = x.byteCount() + plan.weightBytes(weight) + keys_values.byteCount() +
                out.byteCount(),
        });
    }

    // Norms.

    pub fn groupNormStats(plan: Planned, out: Tensor, x: Tensor, _: ?Tensor) Error!void {
        const operation: Operation = .{ .op = .group_norm_stats, .groups = out.shape.rows };
        plan.note(shaped(operation, x.shape), .{ .bytes = x.byteCount() + out.byteCount() });
    }

    pub fn combineStatistics(plan: Planned, out: Tensor, o: CombineStatistics) Error!void {
        const chunks: u32 = @intCast(o.parts.len);
        const operation: Operation = .{ .op = .combine_statistics, .chunks = chunks };
        const bytes = (2 + o.parts.len) * out.byteCount();
        plan.note(shaped(operation, out.shape), .{ .bytes = bytes });
    }

    pub fn groupNormApply(
        plan: Planned,
        out: Tensor,
        x: Tensor,
        _: ?Tensor,
        stats: Tensor,
        _: *const Weight,
        _: *const Weight,
        _: f32,
        activation: Activation,
    ) Error!void {
        plan.note(shaped(.{
            .op = .group_norm_apply,
            .groups = stats.shape.rows,
            .activation = activation,
        }, x.shape), .{ .bytes = x.byteCount() + out.byteCount() });
    }

    pub fn layerNorm(
        plan: Planned,
        out: Tensor,
        x: Tensor,
        _: *const Weight,
        _: *const Weight,
        _: f32,
    ) Error!void {
        plan.moved(.{ .op = .layer_norm }, &.{ x, out });
    }

    // Element by element, and embeddings.

    pub fn activate(plan: Planned, out: Tensor, x: Tensor, activation: Activation) Error!void {
        plan.moved(.{ .op = .activate, .activation = activation }, &.{ x, out });
    }

    pub fn geglu(plan: Planned, out: Tensor, x: Tensor) Error!void {
        plan.moved(.{ .op = .geglu, .out = out.shape.channels }, &.{ x, out });
    }

    pub fn prelu(plan: Planned, out: Tensor, x: Tensor, _: *const Weight) Error!void {
        plan.moved(.{ .op = .prelu }, &.{ x, out });
    }

    pub fn add(plan: Planned, out: Tensor, x: Tensor, y: Tensor, _: f32) Error!void {
        plan.moved(.{ .op = .add }, &.{ x, y, out });
    }

    pub fn average(plan: Planned, out: Tensor, x: Tensor, y: Tensor) Error!void {
        plan.moved(.{ .op = .add }, &.{ x, y, out });
    }

    pub fn concatChannels(plan: Planned, out: Tensor, parts: []const Tensor) Error!void {
        var operation: Operation = .{ .op = .concat, .out = out.shape.channels };
        operation.chunks = @intCast(parts.len);
        plan.note(shaped(operation, parts[0].shape), .{ .bytes = 2 * out.byteCount() });
    }

    pub fn scaleRepeat(plan: Planned, out: Tensor, x: Tensor, _: f32) Error!void {
        const scale = out.shape.batch / x.shape.batch;
        plan.moved(.{ .op = .scale_repeat, .scale = scale }, &.{ x, out });
    }

    pub fn embedTokens(
        plan: Planned,
        out: Tensor,
        ids: Tensor,
        _: *const Weight,
        _: *const Weight,
        _: ?Tensor,
    ) Error!void {
        const operation: Operation = .{ .op = .embed_tokens, .out = out.shape.channels };
        const bytes = ids.byteCount() + 3 * out.byteCount();
        plan.note(shaped(operation, ids.shape), .{ .bytes = bytes });
    }

    pub fn gatherTokens(plan: Planned, out: Tensor, x: Tensor, _: Tensor) Error!void {
        const operation: Operation = .{ .op = .gather_tokens };
        plan.note(shaped(operation, x.shape), .{ .bytes = 2 * out.byteCount() });
    }

    pub fn sinusoidalEmbedding(
        plan: Planned,
        out: Tensor,
        values: Tensor,
        _: bool,
        _: f32,
    ) Error!void {
        plan.moved(.{ .op = .sinusoids, .out = out.shape.channels }, &.{ values, out });
    }

    // Copies, the sampler and the image.

    pub fn copy(plan: Planned, out: Tensor, x: Tensor) Error!void {
        plan.moved(.{ .op = .copy }, &.{ x, out });
    }

    pub fn copyRows(
        plan: Planned,
        out: Tensor,
        _: u32,
        x: Tensor,
        _: u32,
        row_count: u32,
    ) Error!void {
        var part = x;
        part.shape.rows = row_count;
        _ = out;
        plan.moved(.{ .op = .copy_rows }, &.{ part, part });
    }

    pub fn extrapolateRows(plan: Planned, out: Tensor, o: ExtrapolateRows) Error!void {
        const rows = [_]Tensor{ o.old, o.older, o.own_now, o.own_old, o.own_older, out };
        plan.moved(.{ .op = .extrapolate_rows }, &rows);
    }

    pub fn quantizeChange(plan: Planned, o: Change, value: Tensor) Error!void {
        plan.moved(.{ .op = .quantize_change }, &.{ value, o.view, o.view, o.change });
    }

    pub fn applyChange(plan: Planned, o: Change) Error!void {
        plan.moved(.{ .op = .apply_change }, &.{ o.view, o.view, o.change });
    }

    pub fn isFinite(plan: Planned, x: Tensor) Error!bool {
        try plan.beginFiniteCheck(x, .alone);
        return true;
    }

    pub fn beginFiniteCheck(plan: Planned, x: Tensor, _: FiniteCheck) Error!void {
        plan.moved(.{ .op = .is_finite }, &.{x});
    }

    pub fn latentStep(plan: Planned, step: LatentStep) Error!void {
        // Latent and auxiliary are read and written; of the model outputs one is written.
        var bytes = (4 + step.model_outputs.len) * step.latent.byteCount();
        bytes += step.model_output.byteCount();
        if (step.noise) |noise| bytes += noise.byteCount();
        plan.note(shaped(.{ .op = .latent_step }, step.latent.shape), .{ .bytes = bytes });
    }

    pub fn maskBlend(plan: Planned, blend: MaskBlend) Error!void {
        const operands = [_]Tensor{
            blend.latent, blend.latent, blend.known, blend.noise, blend.mask,
        };
        plan.moved(.{ .op = .mask_blend }, &operands);
    }

    pub fn toRgb(plan: Planned, out: Tensor, x: Tensor) Error!void {
        plan.moved(.{ .op = .to_rgb }, &.{ x, out });
    }

    // --- internal ---

    fn product(
        plan: Planned,
        out: Tensor,
        x: Tensor,
        weights: []const *const Weight,
        bias: ?*const Weight,
        residual: ?Tensor,
    ) void {
        const out_bytes = out.byteCount();
        var weight_bytes: u64 = 0;
        for (weights) |weight| weight_bytes += plan.weightBytes(weight);
        plan.note(shaped(.{
            .op = .linear,
            .out = out.shape.channels,
            .bias = bias != null,
            .residual = residual != null,
            .int8 = plan.is_cuda and weights[0].dtype == .i8,
        }, x.shape), .{
            .flops = 2 *| out.shape.elementCount() *| x.shape.channels,
            .bytes = plan.inputBytes(x, weights[0]) + weight_bytes + out_bytes +
                if (residual != null) out_bytes else 0,
        });
    }

    fn epilogue(
        plan: Planned,
        out: Tensor,
        activation: Activation,
        residual: ?Tensor,
        channel_bias: ?Tensor,
    ) void {
        const passes: u64 = if (residual != null) 3 else 2;
        plan.note(shaped(.{
            .op = .epilogue,
            .bias = channel_bias != null,
            .residual = residual != null,
            .activation = activation,
        }, out.shape), .{ .bytes = passes * out.byteCount() });
    }

    /// All of `operands` once; the first is the input.
    fn moved(plan: Planned, operation: Operation, operands: []const Tensor) void {
        var bytes: u64 = 0;
        for (operands) |operand| bytes += operand.byteCount();
        plan.note(shaped(operation, operands[0].shape), .{ .bytes = bytes });
    }

    fn note(plan: Planned, operation: Operation, cost: Cost) void {
        if (plan.op_trace) |op_trace| op_trace.add(operation, cost);
    }

    /// Of a product's rows: GPUs read them again as they were rounded.
    fn inputBytes(plan: Planned, x: Tensor, weight: *const Weight) u64 {
        if (!plan.is_cuda or weight.dtype != .i8) return x.byteCount();
        return x.shape.elementCount() + x.shape.rowCount() * @sizeOf(f32);
    }

    fn weightBytes(plan: Planned, weight: *const Weight) u64 {
        if (!plan.is_cuda) return weight.elementCount() * weight.dtype.size();
        if (weight.dtype == .i8) return weight.elementCount() + weight.shape[0] * @sizeOf(f32);
        const wide = weight.elementCount() * plan.activation.size();
        // Read in 8 bits, written and read again in the activations' type.
        return if (weight.kept_f8 == null) wide else weight.elementCount() + 2 * wide;
    }
};

fn shaped(operation: Operation, x: Shape) Operation {
    var complete = operation;
    complete.batch = x.batch;
    complete.rows = x.rows;
    complete.width = x.width;
    complete.in = x.channels;
    return complete;
}

test "operations of images that no machine could make are counted to the limit" {
    const gpa = std.testing.allocator;
    var op_trace: OpTrace = .{ .gpa = gpa };
    defer op_trace.deinit();
    const plan: Planned = .{ .activation = .f32, .op_trace = &op_trace };
    const shape: Shape = .{ .batch = 1, .rows = 1 << 14, .width = 1 << 14, .channels = 512 };
    const huge: Tensor = .{ .address = 0, .shape = shape, .dtype = .f32 };
    try plan.attention(huge, huge, &.{huge}, 1, false);
    try std.testing.expectEqual(std.math.maxInt(u64), op_trace.entries.items[0].cost.flops);
}
