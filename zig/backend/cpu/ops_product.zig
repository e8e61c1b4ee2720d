//! Linear layers and convolutions: fills in the kernels' arguments and runs them on the rank's own
//! threads, or batched with the same GEMMs of other ranks.

const assert = @import("std").debug.assert;
const arguments = @import("arguments.zig");
const backend = @import("../../backend.zig");
const blocks = @import("blocks.zig");
const ops_elementwise = @import("ops_elementwise.zig");
const ops_int8 = @import("ops_int8.zig");
const ops_winograd = @import("ops_winograd.zig");
const tensors = @import("../../tensor.zig");
const Cpu = @import("../cpu.zig").Cpu;
const Tensor = tensors.Tensor;
const Weight = @import("../../weights.zig").Weight;

/// Maximum rows without packing: for fewer rows, packing the weights costs more than the GEMM.
const few_rows_max = 16;
/// Minimum weights of a GEMM that ranks on shared cores batch: packing fewer takes less time than
/// waiting for the other ranks.
const together_weights_min = 256 * 1024;

pub fn linear(
    cpu: *Cpu,
    out: Tensor,
    channel_first: u32,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) error{Cancelled}!void {
    assert(x.dtype == .f32 and out.dtype == .f32);
    if (weight.dtype == .i8) {
        return ops_int8.linear(cpu, out, channel_first, x, weight, bias, options);
    }
    var args: arguments.Linear = .{
        .product = linearProduct(out, channel_first, x, weight, bias, options),
        .x = floats(x),
    };
    const p = &args.product;
    // Depends on the positions of one image: its bits must be the same alone and in a batch.
    if (x.shape.positionCount() <= few_rows_max) {
        // A quarter MiB of weights at a time.
        p.column_block = @max(2, 128 * 1024 / p.depth / 2 * 2);
        const tasks = blocks.count(p.columns, p.column_block);
        return cpu.pool.run(cpu.kernels.linear_few_rows, &args, tasks);
    }
    return multiply(cpu, cpu.kernels.linear, &args, 1, cpu.kernels.limits);
}

/// `wide`: the whole product, before the second half gates the first. `options` has what int8
/// needs.
pub fn linearGeglu(
    cpu: *Cpu,
    out: Tensor,
    wide: ?Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    options: backend.LinearOptions,
) error{Cancelled}!void {
    try linear(cpu, wide.?, 0, x, weight, bias, options);
    try ops_elementwise.geglu(cpu, out, wide.?);
}

pub fn conv2d(
    cpu: *Cpu,
    out: Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.ConvOptions,
) error{Cancelled}!void {
    assert(options.scale == 1);
    assert(x.dtype == .f32 and out.dtype == .f32);
    const is_pointwise = weight.shape[1] == 1 and weight.shape[2] == 1;
    if (is_pointwise and options.stride == 1 and !options.upsample and
        options.channel_bias == null and out.shape.positionCount() == x.shape.positionCount())
    {
        return linear(cpu, out, 0, x, weight, bias, .{
            .activation = options.activation,
            .residual = options.residual,
        });
    }
    const doubled = options.upsample;
    var args: arguments.Convolution = .{
        .product = product(out, weight, bias),
        .x = floats(x),
        .halo_above = if (options.halo_above) |halo| floats(halo) else null,
        .halo_below = if (options.halo_below) |halo| floats(halo) else null,
        .rows = x.shape.rows,
        .width = x.shape.width,
        .channels = x.shape.channels,
        .rows_out = if (doubled) x.shape.rows else out.shape.rows,
        .width_out = if (doubled) x.shape.width else out.shape.width,
        .kernel_width = weight.shape[2],
        .stride = options.stride,
        .pad_top = options.padding.top,
        .pad_left = options.padding.left,
        .doubled = doubled,
    };
    const p = &args.product;
    p.depth = @as(usize, weight.shape[1]) * weight.shape[2] * weight.shape[3];
    p.epilogue.activation = activationOf(options.activation);
    if (options.channel_bias) |vector| p.epilogue.channel_bias = floats(vector);
    if (options.residual) |residual| p.epilogue.residual = floats(residual);
    if (ops_winograd.planOf(cpu, &args, options.padding)) |plan| {
        return ops_winograd.convolution(cpu, &args, plan);
    }
    var phases: usize = 1;
    if (doubled) {
        const padding = options.padding;
        assert(weight.shape[1] == 3 and weight.shape[2] == 3 and options.stride == 1);
        assert(padding.top == 1 and padding.bottom == 1 and padding.left == 1 and
            padding.right == 1);
        phases = 4;
        p.rows /= phases;
        p.epilogue.rows_per_batch /= phases;
        p.depth = 4 * @as(usize, weight.shape[3]);
    }
    return multiply(cpu, cpu.kernels.convolution, &args, phases, cpu.kernels.limits);
}

// --- internal ---

pub fn multiply(
    cpu: *Cpu,
    kernel: arguments.Kernel,
    args: anytype,
    phases: usize,
    limits: arguments.BlockLimits,
) error{Cancelled}!void {
    const p = &args.product;
    if (cpu.fiber_slot) |slot| {
        if (slot.fibers.has(slot.rank) and p.columns * p.depth >= together_weights_min) {
            return slot.fibers.multiply(slot.rank, .{
                .kernel = kernel,
                .args = args,
                .product = p,
                .phases = phases,
                .limits = limits,
            });
        }
    }
    p.rows_together = p.rows;
    const tasks = blocks.cut(p, limits, cpu.pool.thread_count);
    return cpu.pool.run(kernel, args, phases * tasks);
}

/// Of a linear layer.
pub fn linearProduct(
    out: Tensor,
    channel_first: u32,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) arguments.Product {
    assert(options.scale == 1);
    var p = product(out, weight, bias);
    p.output += channel_first;
    p.depth = x.shape.channels;
    p.epilogue.activation = activationOf(options.activation);
    if (options.residual) |residual| p.epilogue.residual = floats(residual);
    return p;
}

pub fn product(out: Tensor, weight: *const Weight, bias: ?*const Weight) arguments.Product {
    const positions = out.shape.positionCount();
    return .{
        .weight = @ptrFromInt(weight.address),
        // Products in int8 do not read it.
        .weight_type = if (weight.dtype == .i8) .f32 else weightTypeOf(weight.dtype),
        .weight_scales = scalesOf(weight),
        .rows = out.shape.batch * positions,
        .rows_together = 0,
        .next = null,
        .columns = weight.shape[0],
        .depth = 0,
        .output = floats(out),
        .output_stride = out.shape.channels,
        .row_block = 0,
        .row_block_count = 1,
        .column_block = 0,
        .column_block_count = 1,
        .thread_count = 1,
        .epilogue = .{
            .bias = if (bias) |vector| vectorOf(vector) else null,
            .channel_bias = null,
            .rows_per_batch = positions,
            .residual = null,
            .activation = .none,
        },
    };
}

pub fn floats(tensor: Tensor) [*]f32 {
    return @ptrFromInt(tensor.address);
}

pub fn vectorOf(weight: *const Weight) [*]const f32 {
    assert(weight.dtype == .f32);
    return @ptrFromInt(weight.address);
}

pub fn weightTypeOf(dtype: tensors.DType) arguments.WeightType {
    return switch (dtype) {
        .f32 => .f32,
        .f16 => .f16,
        .bf16 => .bf16,
        .f8_e4m3 => .f8_e4m3,
        .f8_e5m2 => .f8_e5m2,
        else => unreachable,
    };
}

/// Of an 8-bit weight's rows; null for others.
pub fn scalesOf(weight: *const Weight) ?[*]const f32 {
    if (!weight.dtype.isF8()) return null;
    assert(weight.row_scales.len == weight.shape[0]);
    return weight.row_scales.ptr;
}

pub fn activationOf(activation: backend.Activation) arguments.Activation {
    return switch (activation) {
        .none => .none,
        .silu => .silu,
        .gelu => .gelu,
        .quick_gelu => .quick_gelu,
        .relu => .relu,
        .soft_clamp => .soft_clamp,
        .to_signed => .to_signed,
        .leaky_relu => .leaky_relu,
    };
}
