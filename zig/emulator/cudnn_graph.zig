//! What an operation graph of the emulated cuDNN means: a convolution and the sums and products
//! after it, or an attention (cudnn_sdpa.zig); everything else is a pattern that no engine takes.
//! Checks tensors' layouts, types and sizes when the graph is finalized, addresses when it is run.

const std = @import("std");
const cudnn = @import("../nvidia/cudnn.zig");
const attentions = @import("cudnn_sdpa.zig");
const descriptors = @import("cudnn_descriptor.zig");
const convolutions = @import("cudnn_convolution.zig");
const driver = @import("../nvidia/driver.zig");
const Descriptor = descriptors.Descriptor;
const Status = cudnn.Status;

/// See `bxl_emulator_allow_fusion`.
pub var fusion_allowed: Fusion = .precompiled;

/// How cuDNN 9.24 would run a graph, as it answers for five GPUs (`bun run bench cudnn-plans`).
pub const Fusion = enum {
    /// No engine.
    none,
    /// A kernel compiled when the plan is made.
    compiled,
    precompiled,
};

const dimension_count = 4;
/// Tensor-core kernels take channels in such groups, and vectors of 16 bytes.
const channel_group = 8;
const vector_bytes = 16;

const Tensor = struct {
    id: i64,
    dtype: cudnn.DataType,
    /// (batch, channels, rows, width)
    dimensions: [dimension_count]u64,
    is_virtual: bool,
    is_by_value: bool,
};

pub const Step = struct {
    mode: cudnn.PointwiseMode,
    operand: i64,
    dtype: cudnn.DataType,
    extent: enum { scalar, channels, all },
    /// Of the sum so far, before the operand.
    alpha: f32,
};

pub const Program = struct {
    dtype: cudnn.DataType,
    x: i64,
    w: i64,
    out: i64,
    /// (batch, channels, rows, width)
    x_dimensions: [dimension_count]u64,
    out_dimensions: [dimension_count]u64,
    kernel_rows: u64,
    kernel_width: u64,
    padding: [2]u64,
    stride: [2]u64,
    /// Of the convolution.
    alpha: f32,
    steps: [3]Step = undefined,
    step_count: usize = 0,

    /// A residual without a bias has no kernel, nor has a scale that is a constant of the
    /// convolution with sums after it, or of any sum but one with a residual that comes first.
    pub fn fusion(program: *const Program) Fusion {
        const steps = program.steps[0..program.step_count];
        if (steps.len == 0) return .precompiled;
        if (program.alpha != 1) return .none;
        var bias_count: usize = 0;
        var residual_count: usize = 0;
        for (steps, 0..) |step, i| {
            const is_first_residual = i == 0 and step.extent == .all and steps.len == 2;
            if (step.alpha != 1 and !is_first_residual) return .none;
            bias_count += @intFromBool(step.mode == .add and step.extent == .channels);
            residual_count += @intFromBool(step.mode == .add and step.extent == .all);
        }
        if (residual_count > bias_count) return .none;
        return if (steps.len == bias_count + residual_count and steps[steps.len - 1].extent != .all)
            .precompiled
        else
            .compiled;
    }

    pub fn outputCount(program: *const Program) usize {
        const d = program.out_dimensions;
        return d[0] * d[1] * d[2] * d[3];
    }
};

/// A tensor must be whole and of four dimensions.
pub fn checkTensor(descriptor: *const Descriptor) Status {
    const dimensions = descriptor.values(i64, .tensor_dimensions) orelse return .bad_param;
    const strides = descriptor.values(i64, .tensor_strides) orelse return .bad_param;
    const alignment = descriptor.value(i64, .tensor_byte_alignment) orelse return .bad_param;
    if (descriptor.value(i64, .tensor_unique_id) == null) return .bad_param;
    if (descriptor.value(cudnn.DataType, .tensor_data_type) == null) return .bad_param;
    if (dimensions.len != strides.len) return .bad_param;
    if (dimensions.len != dimension_count) return .not_supported_shape;
    if (alignment < 1 or @popCount(alignment) != 1) return .bad_param;
    for (dimensions) |dimension| if (dimension < 1) return .bad_param;
    for (strides) |stride| if (stride < 1) return .bad_param;
    return .success;
}

/// Reads the operations in order; each takes what the one before gave.
pub fn finalize(graph: *Descriptor) Status {
    const handles = graph.values(?cudnn.Descriptor, .operationgraph_ops) orelse return .bad_param;
    if (graph.values(?cudnn.Handle, .operationgraph_handle) == null) return .bad_param;
    if (handles.len == 1) {
        const only = Descriptor.of(handles[0]) orelse return .bad_param;
        if (only.kind == .operation_sdpa_fwd) {
            graph.attention = undefined;
            const status = attentions.read(only, &graph.attention.?);
            if (status != .success) graph.attention = null;
            return status;
        }
    }
    var program: Program = undefined;
    var last: Tensor = undefined;
    for (handles, 0..) |handle, i| {
        const operation = Descriptor.of(handle) orelse return .bad_param;
        const is_first = operation.kind == .operation_convolution_forward;
        if (is_first != (i == 0)) return .not_supported_graph_pattern;
        const status = if (is_first)
            readConvolution(&program, operation, &last)
        else
            readPointwise(&program, operation, &last);
        if (status != .success) return status;
        const is_end = i + 1 == handles.len;
        if (last.is_virtual == is_end) return .not_supported_graph_pattern;
    }
    if (last.dtype != program.dtype) return .not_supported_data_type;
    program.out = last.id;
    graph.program = program;
    return .success;
}

/// Takes the addresses of a pack, checks them, and queues the run.
pub fn execute(
    plan: *const Descriptor,
    pack: *const Descriptor,
    stream: driver.Stream,
    device: u32,
) Status {
    if (plan.graph.?.attention) |*attention| {
        return executeAttention(attention, pack, stream, device);
    }
    const program = &plan.graph.?.program.?;
    var run: convolutions.Run = .{
        .program = program.*,
        .device = device,
        .x = 0,
        .w = 0,
        .out = 0,
        .workspace = 0,
        .workspace_bytes = plan.workspace_bytes,
    };
    for ([_]i64{ program.x, program.w, program.out }, [_]*usize{
        &run.x, &run.w, &run.out,
    }) |id, target| {
        target.* = addressOf(pack, id) orelse return .bad_param_null_pointer;
        if (target.* % vector_bytes != 0) return .bad_param_misaligned_pointer;
    }
    for (program.steps[0..program.step_count], 0..) |step, i| {
        const address = addressOf(pack, step.operand) orelse return .bad_param_null_pointer;
        if (step.extent == .scalar) {
            // By value: the host's memory, read now.
            run.scalars[i] = @as(*align(1) const f32, @ptrFromInt(address)).*;
            continue;
        }
        if (address % vector_bytes != 0) return .bad_param_misaligned_pointer;
        run.operands[i] = address;
    }
    if (plan.workspace_bytes > 0) {
        const workspace = pack.value(usize, .variant_pack_workspace) orelse return .bad_param;
        if (workspace == 0) return .bad_param_null_pointer;
        if (workspace % vector_bytes != 0) return .bad_param_misaligned_pointer;
        run.workspace = workspace;
    }
    return run.enqueue(stream);
}

// --- internal ---

fn executeAttention(
    program: *const attentions.Program,
    pack: *const Descriptor,
    stream: driver.Stream,
    device: u32,
) Status {
    const scale = addressOf(pack, program.scale) orelse return .bad_param_null_pointer;
    const run: attentions.Run = .{
        .program = program.*,
        .device = device,
        .q = addressOf(pack, program.q.id) orelse return .bad_param_null_pointer,
        .k = addressOf(pack, program.k.id) orelse return .bad_param_null_pointer,
        .v = addressOf(pack, program.v.id) orelse return .bad_param_null_pointer,
        .out = addressOf(pack, program.out.id) orelse return .bad_param_null_pointer,
        .statistics = if (program.statistics) |rows|
            addressOf(pack, rows.id) orelse return .bad_param_null_pointer
        else
            0,
        // By value: the host's memory, read now.
        .scale = @as(*align(1) const f32, @ptrFromInt(scale)).*,
    };
    return run.enqueue(stream);
}

fn addressOf(pack: *const Descriptor, id: i64) ?usize {
    const ids = pack.values(i64, .variant_pack_unique_ids) orelse return null;
    const pointers = pack.values(usize, .variant_pack_data_pointers) orelse return null;
    if (ids.len != pointers.len) return null;
    for (ids, pointers) |known, pointer| {
        if (known == id) return if (pointer != 0) pointer else null;
    }
    return null;
}

fn readTensor(operation: *const Descriptor, attribute: cudnn.Attribute) ?Tensor {
    const descriptor = operation.get(attribute, .tensor) orelse return null;
    var tensor: Tensor = .{
        .id = descriptor.value(i64, .tensor_unique_id).?,
        .dtype = descriptor.value(cudnn.DataType, .tensor_data_type).?,
        .dimensions = undefined,
        .is_virtual = descriptor.value(bool, .tensor_is_virtual) orelse false,
        .is_by_value = descriptor.value(bool, .tensor_is_by_value) orelse false,
    };
    const dimensions = descriptor.values(i64, .tensor_dimensions).?;
    for (&tensor.dimensions, dimensions) |*to, from| to.* = @intCast(from);
    return if (isChannelsLast(descriptor)) tensor else null;
}

/// Channels innermost, without gaps.
fn isChannelsLast(descriptor: *const Descriptor) bool {
    const dimensions = descriptor.values(i64, .tensor_dimensions).?;
    const strides = descriptor.values(i64, .tensor_strides).?;
    const channels = dimensions[1];
    const width = dimensions[3];
    const wanted = [_]i64{ dimensions[2] * width * channels, 1, width * channels, channels };
    return std.mem.eql(i64, strides, &wanted);
}

fn readConvolution(program: *Program, operation: *const Descriptor, last: *Tensor) Status {
    const kind = operation.get(.operation_convolution_forward_conv_desc, .convolution) orelse
        return .bad_param;
    const x = readTensor(operation, .operation_convolution_forward_x) orelse return .bad_param;
    const w = readTensor(operation, .operation_convolution_forward_w) orelse return .bad_param;
    const y = readTensor(operation, .operation_convolution_forward_y) orelse return .bad_param;
    const alpha = operation.value(f32, .operation_convolution_forward_alpha) orelse
        return .bad_param;
    if (operation.value(f32, .operation_convolution_forward_beta) != 0) {
        return .not_supported_graph_pattern;
    }
    if (x.dtype != w.dtype or (x.dtype != .f16 and x.dtype != .bf16)) {
        return .not_supported_data_type;
    }
    if (x.dimensions[1] != w.dimensions[1]) return .bad_param_shape_mismatch;
    if (x.dimensions[1] % channel_group != 0 or w.dimensions[0] % channel_group != 0) {
        return .not_supported_shape;
    }
    program.* = .{
        .dtype = x.dtype,
        .x = x.id,
        .w = w.id,
        .out = y.id,
        .x_dimensions = x.dimensions,
        .out_dimensions = y.dimensions,
        .kernel_rows = w.dimensions[2],
        .kernel_width = w.dimensions[3],
        .padding = undefined,
        .stride = undefined,
        .alpha = alpha,
    };
    const status = readGeometry(program, kind);
    if (status != .success) return status;
    var wanted = [_]u64{ x.dimensions[0], w.dimensions[0], 0, 0 };
    for (wanted[2..], w.dimensions[2..], x.dimensions[2..], 0..) |*size, taps, from, i| {
        const padded = from + 2 * program.padding[i];
        if (padded < taps) return .bad_param_shape_mismatch;
        size.* = (padded - taps) / program.stride[i] + 1;
    }
    if (!std.mem.eql(u64, &wanted, &y.dimensions)) return .bad_param_shape_mismatch;
    last.* = y;
    return .success;
}

fn readGeometry(program: *Program, kind: *const Descriptor) Status {
    if (kind.value(i64, .convolution_spatial_dims) != 2) return .not_supported_shape;
    if (kind.value(cudnn.DataType, .convolution_comp_type) != .f32) return .not_supported_data_type;
    const mode = kind.value(cudnn.ConvolutionMode, .convolution_conv_mode) orelse return .bad_param;
    if (mode != .cross_correlation) return .not_supported;
    const before = kind.values(i64, .convolution_pre_paddings) orelse return .bad_param;
    const after = kind.values(i64, .convolution_post_paddings) orelse return .bad_param;
    const strides = kind.values(i64, .convolution_filter_strides) orelse return .bad_param;
    const dilations = kind.values(i64, .convolution_dilations) orelse return .bad_param;
    for ([_][]const i64{ before, after, strides, dilations }) |list| {
        if (list.len != 2) return .bad_param;
    }
    for (0..2) |i| {
        if (before[i] < 0 or after[i] < 0 or strides[i] < 1 or dilations[i] < 1) return .bad_param;
        if (before[i] != after[i] or dilations[i] != 1) return .not_supported;
        program.padding[i] = @intCast(before[i]);
        program.stride[i] = @intCast(strides[i]);
    }
    return .success;
}

fn readPointwise(program: *Program, operation: *const Descriptor, last: *Tensor) Status {
    const kind = operation.get(.operation_pointwise_pw_descriptor, .pointwise) orelse
        return .bad_param;
    const a = readTensor(operation, .operation_pointwise_xdesc) orelse return .bad_param;
    const b = readTensor(operation, .operation_pointwise_bdesc) orelse return .bad_param;
    const y = readTensor(operation, .operation_pointwise_ydesc) orelse return .bad_param;
    if (a.id != last.id or b.is_virtual) return .not_supported_graph_pattern;
    if (program.step_count == program.steps.len) return .not_supported_graph_pattern;
    if (kind.value(cudnn.DataType, .pointwise_math_prec) != .f32) return .not_supported_data_type;
    const mode = kind.value(cudnn.PointwiseMode, .pointwise_mode) orelse return .bad_param;
    if (mode != .add and mode != .mul) return .not_supported_graph_pattern;
    if (!std.meta.eql(y.dimensions, program.out_dimensions)) return .bad_param_shape_mismatch;
    const per_channel = [_]u64{ 1, y.dimensions[1], 1, 1 };
    const one = [_]u64{ 1, 1, 1, 1 };
    var step: Step = .{
        .mode = mode,
        .operand = b.id,
        .dtype = b.dtype,
        .extent = .all,
        .alpha = operation.value(f32, .operation_pointwise_alpha1) orelse 1,
    };
    if (b.is_by_value) {
        if (!std.meta.eql(b.dimensions, one) or b.dtype != .f32) return .not_supported_shape;
        step.extent = .scalar;
    } else if (std.meta.eql(b.dimensions, per_channel)) {
        step.extent = .channels;
    } else if (!std.meta.eql(b.dimensions, y.dimensions)) return .bad_param_shape_mismatch;
    program.steps[program.step_count] = step;
    program.step_count += 1;
    last.* = y;
    return .success;
}
