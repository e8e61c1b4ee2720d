//! Convolutions by Winograd's minimal filtering: which ones, and in which chunks, so that what is
//! between the three operations stays in the last-level cache.

const std = @import("std");
const assert = std.debug.assert;
const arguments = @import("arguments.zig");
const backend = @import("../../backend.zig");
const blocks = @import("blocks.zig");
const Convolution = arguments.Convolution;
const Cpu = @import("../cpu.zig").Cpu;

/// Transformed inputs and products of a chunk.
pub const room_bytes = 48 << 20;
/// Minimum tiles: fewer share the transform and packing of each weight.
const tile_count_min = 64;
const channel_count_min = 64;
const tasks_per_thread = 8;

pub const Plan = struct {
    m: usize,
    tiles_wide: usize,
    tiles_high: usize,
    /// Of a chunk.
    tile_count: usize,
};

/// Null for convolutions that are faster otherwise.
pub fn planOf(cpu: *const Cpu, conv: *const Convolution, padding: backend.Padding) ?Plan {
    if (!cpu.uses_winograd or cpu.winograd_room.len == 0) return null;
    const p = &conv.product;
    const is_square = conv.kernel_width == 3 and p.depth == 9 * @as(usize, conv.channels);
    if (!is_square or conv.stride != 1 or conv.doubled) return null;
    if (padding.top != 1 or padding.bottom != 1 or padding.left != 1 or padding.right != 1) {
        return null;
    }
    for ([_]usize{ conv.channels, p.columns }) |channels| {
        if (channels < channel_count_min or channels % 16 != 0) return null;
    }
    for ([_]usize{ 4, 2 }) |m| {
        const wide = blocks.count(conv.width_out, m);
        const high = blocks.count(conv.rows_out, m);
        const tile_bytes = @sizeOf(f32) * (m + 2) * (m + 2) * (conv.channels + p.columns);
        const fits = cpu.winograd_room.len / tile_bytes;
        // Depends on one image: its bits must be the same alone and in a batch.
        if (@min(wide * high, fits) < tile_count_min) continue;
        const all = p.rows / (conv.rows_out * conv.width_out) * wide * high;
        return .{
            .m = m,
            .tiles_wide = wide,
            .tiles_high = high,
            .tile_count = blocks.count(all, blocks.count(all, fits)),
        };
    }
    return null;
}

pub fn convolution(cpu: *Cpu, conv: *const Convolution, plan: Plan) error{Cancelled}!void {
    const images = conv.product.rows / (conv.rows_out * conv.width_out);
    const all = images * plan.tiles_high * plan.tiles_wide;
    var args: arguments.Winograd = .{
        .convolution = conv.*,
        .m = plan.m,
        .point_count = (plan.m + 2) * (plan.m + 2),
        .tiles_wide = plan.tiles_wide,
        .tiles_high = plan.tiles_high,
        .tile_first = 0,
        .tile_count = 0,
        .tiles_per_task = 0,
        .linears = undefined,
    };
    while (args.tile_first < all) : (args.tile_first += plan.tile_count) {
        args.tile_count = @min(plan.tile_count, all - args.tile_first);
        try chunk(cpu, &args);
    }
}

// --- internal ---

fn chunk(cpu: *Cpu, args: *arguments.Winograd) error{Cancelled}!void {
    const conv = &args.convolution;
    const columns = conv.product.columns;
    const channels: usize = conv.channels;
    const count = args.tile_count;
    const inputs: [*]f32 = @ptrCast(cpu.winograd_room.ptr);
    const products = inputs + args.point_count * count * channels;
    assert(@sizeOf(f32) * args.point_count * count * (channels + columns) <= cpu.winograd_room.len);
    var model = conv.product;
    model.rows = count;
    model.rows_together = count;
    model.depth = channels;
    model.output_stride = columns;
    model.epilogue = .{
        .bias = null,
        .channel_bias = null,
        .rows_per_batch = count,
        .residual = null,
        .activation = .none,
    };
    const tasks = blocks.cut(&model, cpu.kernels.limits, cpu.pool.thread_count);
    for (args.linears[0..args.point_count], 0..) |*linear, point| {
        linear.* = .{ .product = model, .x = inputs + point * count * channels };
        linear.product.output = products + point * count * columns;
    }
    const wanted = tasks_per_thread * cpu.pool.thread_count;
    args.tiles_per_task = blocks.count(count, wanted);
    const transforms = blocks.count(count, args.tiles_per_task);
    try cpu.pool.run(cpu.kernels.winograd_input, args, transforms);
    try cpu.pool.run(cpu.kernels.winograd_multiply, args, args.point_count * tasks);
    try cpu.pool.run(cpu.kernels.winograd_output, args, transforms);
}
