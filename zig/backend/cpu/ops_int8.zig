//! Linear layers with int8 weights: rounds rows of activations, and multiplies them by panels of
//! weights (`arguments.int8PanelBytes`). Results do not depend on threads or ranks: scales are of
//! rows, and sums are integers.

const assert = @import("std").debug.assert;
const arguments = @import("arguments.zig");
const backend = @import("../../backend.zig");
const blocks = @import("blocks.zig");
const ops_product = @import("ops_product.zig");
const Cpu = @import("../cpu.zig").Cpu;
const Tensor = @import("../../tensor.zig").Tensor;
const weights = @import("../../weights.zig");
const Weight = weights.Weight;

comptime {
    assert(weights.int8.panel_columns == arguments.int8_panel_columns);
    assert(weights.int8.depth_unit == arguments.int8_depth_unit);
    assert(weights.int8.panelBytes(1280) == arguments.int8PanelBytes(1280));
}

/// Elements of one task: some tens of microseconds.
const quantize_elements = 1 << 14;
/// Of a block of weights, which should stay in a second-level cache while rows go by and the next
/// one comes.
const block_bytes_max = 420 << 10;
/// Fewer columns would copy the rows too often.
const block_columns_min = 128;

/// `out` has four channels more than `x`: behind all integers are the scales of the rows.
pub fn quantizeRows(cpu: *Cpu, out: Tensor, x: Tensor, group: u32) error{Cancelled}!void {
    assert(out.dtype == .i8 and x.dtype == .f32);
    assert(out.shape.channels == x.shape.channels + @sizeOf(f32));
    const depth = x.shape.channels;
    assert(depth <= cpu.int8.depth_max);
    const rows = x.shape.rowCount();
    const args: arguments.QuantizeRows = .{
        .x = ops_product.floats(x),
        .out = @ptrFromInt(out.address),
        .scales = scalesOf(out, rows, depth),
        .rows = rows,
        .rows_per_task = @max(1, quantize_elements / depth),
        .depth = depth,
        .group = group,
    };
    const tasks = blocks.count(rows, args.rows_per_task);
    return cpu.pool.run(cpu.int8.quantize_rows, &args, tasks);
}

pub fn linear(
    cpu: *Cpu,
    out: Tensor,
    channel_first: u32,
    x: Tensor,
    weight: *const Weight,
    bias: ?*const Weight,
    options: backend.LinearOptions,
) error{Cancelled}!void {
    const quantized = options.quantized.?;
    var args: arguments.Int8Linear = .{
        .product = ops_product.linearProduct(out, channel_first, x, weight, bias, options),
        .x = @ptrFromInt(quantized.address),
        .x_scales = undefined,
    };
    const p = &args.product;
    args.x_scales = scalesOf(quantized, p.rows, p.depth);
    var limits = cpu.int8.limits;
    const unit = limits.tile_columns;
    const columns = @max(block_columns_min, block_bytes_max / p.depth / unit * unit);
    limits.column_block_max = @min(columns, limits.column_block_max);
    return ops_product.multiply(cpu, cpu.int8.multiply, &args, 1, limits);
}

// --- internal ---

fn scalesOf(quantized: Tensor, rows: usize, depth: usize) [*]f32 {
    return @ptrFromInt(quantized.address + rows * depth);
}
