//! Linear layers and convolutions: fills in the kernels' arguments and cuts the output into blocks.
//! Blocks depend on the number of threads, results do not: an element's sum is made in one task and
//! its order of additions depends on the depth alone.

const std = @import("std");
const assert = std.debug.assert;
const arguments = @import("arguments.zig");
const backend = @import("../../backend.zig");
const tensors = @import("../../tensor.zig");
const Cpu = @import("../cpu.zig").Cpu;
const Kernels = arguments.Kernels;
const Tensor = tensors.Tensor;
const Weight = @import("../../weights.zig").Weight;

/// Up to here packing the weights would cost more than multiplying by them.
const few_rows_max = 16;
/// Rows of a block at most: beyond, packing the weights again costs under 1 %.
const row_block_max = 1024;
/// Below this a task is too short to be worth sharing.
const task_flops_min = 4 << 20;
/// Tasks per thread that even out what threads take.
const tasks_per_thread = 4;

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
    assert(options.scale == 1);
    var args: arguments.Linear = .{ .product = product(out, weight, bias), .x = floats(x) };
    const p = &args.product;
    p.output += channel_first;
    p.depth = x.shape.channels;
    p.epilogue.activation = activationOf(options.activation);
    if (options.residual) |residual| p.epilogue.residual = floats(residual);
    // By the positions of one picture: a picture must have the same bits alone and in a batch.
    if (x.shape.positionCount() <= few_rows_max) {
        // A quarter MiB of weights at a time.
        p.column_block = @max(2, 128 * 1024 / p.depth / 2 * 2);
        return cpu.team.run(cpu.kernels.linear_few_rows, &args, count(p.columns, p.column_block));
    }
    const tasks = cut(p, cpu.kernels, cpu.team.thread_count);
    return cpu.team.run(cpu.kernels.linear, &args, tasks);
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
    const tasks = cut(p, cpu.kernels, cpu.team.thread_count);
    return cpu.team.run(cpu.kernels.convolution, &args, phases * tasks);
}

// --- internal ---

fn product(out: Tensor, weight: *const Weight, bias: ?*const Weight) arguments.Product {
    const positions = out.shape.positionCount();
    return .{
        .weight = @ptrFromInt(weight.address),
        .weight_type = weightTypeOf(weight.dtype),
        .rows = out.shape.batch * positions,
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

/// Packing a weight costs about as much as packing so many elements of the rows: it is turned and
/// widened, and comes from memory.
const weight_cost = 6;

/// Chooses the blocks and returns the number of tasks. Fewer rows in a block pack the weights more
/// often, fewer columns the rows: what costs less is made smaller, until tasks are short enough to
/// be cancelled between and enough to go round.
fn cut(p: *arguments.Product, kernels: *const Kernels, thread_count: usize) usize {
    const tile_rows = kernels.tile_rows;
    const tile_columns = kernels.tile_columns;
    var row_block = evenPart(p.rows, row_block_max, tile_rows);
    var column_block = evenPart(p.columns, kernels.column_block_max, tile_columns);
    while (true) {
        const flops = 2 * row_block * column_block * p.depth;
        const tasks = count(p.rows, row_block) * count(p.columns, column_block);
        const plenty = thread_count == 1 or tasks >= tasks_per_thread * thread_count or
            flops < 2 * task_flops_min;
        if (plenty and flops <= kernels.task_flops_max) break;
        if (row_block >= weight_cost * column_block and row_block > tile_rows) {
            row_block = evenPart(p.rows, row_block - tile_rows, tile_rows);
        } else if (column_block > tile_columns) {
            column_block = evenPart(p.columns, column_block - tile_columns, tile_columns);
        } else if (row_block > tile_rows) {
            row_block = evenPart(p.rows, row_block - tile_rows, tile_rows);
        } else break;
    }
    p.row_block = row_block;
    p.row_block_count = count(p.rows, row_block);
    p.column_block = column_block;
    p.column_block_count = count(p.columns, column_block);
    p.thread_count = thread_count;
    return p.row_block_count * p.column_block_count;
}

/// The size of equal parts of `total`, a multiple of `unit`, of about `limit` at most.
fn evenPart(total: usize, limit: usize, unit: usize) usize {
    const units = count(total, unit);
    const units_max = @max(1, limit / unit);
    return count(units, count(units, units_max)) * unit;
}

/// Parts of `part` that cover `total`.
pub fn count(total: usize, part: usize) usize {
    return (total + part - 1) / part;
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
        else => unreachable,
    };
}

pub fn activationOf(activation: backend.Activation) arguments.Activation {
    return switch (activation) {
        .none => .none,
        .silu => .silu,
        .gelu => .gelu,
        .quick_gelu => .quick_gelu,
    };
}

test "blocks cover everything and are whole tiles" {
    try std.testing.expectEqual(48, evenPart(96, 64, 16));
    try std.testing.expectEqual(16, evenPart(3, 64, 16));
    try std.testing.expectEqual(14, evenPart(77, 14, 14));
    try std.testing.expectEqual(32, evenPart(1280, 33, 32));
}
