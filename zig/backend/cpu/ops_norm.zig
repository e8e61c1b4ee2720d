//! Group norm and layer norm. Group sums are computed per slab of positions and added up in order.
//! The number of slabs depends on the shape alone, so the result does not depend on timing.

const std = @import("std");
const assert = std.debug.assert;
const arguments = @import("arguments.zig");
const backend = @import("../../backend.zig");
const cpu_file = @import("../cpu.zig");
const blocks = @import("blocks.zig");
const ops_product = @import("ops_product.zig");
const Cpu = cpu_file.Cpu;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;
const count = blocks.count;
const floats = ops_product.floats;
const vectorOf = ops_product.vectorOf;

/// Elements of one task: much longer than claiming it takes, much shorter than a millisecond.
const task_elements = 64 * 1024;

/// `addend` is for GPUs (`Backend.addsInNorms`).
pub fn groupNormStats(cpu: *Cpu, out: Tensor, x: Tensor, addend: ?Tensor) error{Cancelled}!void {
    assert(addend == null);
    assert(out.dtype == .f64);
    const positions = x.shape.positionCount();
    const channels: usize = x.shape.channels;
    const group_count: usize = out.shape.rows;
    assert(channels <= cpu.kernels.channel_count_max);
    const slabs_max = cpu_file.partial_count_max / (2 * group_count);
    const per_slab = @max(1, task_elements / channels, count(positions, slabs_max));
    const slab_count = count(positions, per_slab);
    const element_count: f64 = @floatFromInt(positions * (channels / group_count));
    const result: [*]f64 = @ptrFromInt(out.address);
    for (0..x.shape.batch) |batch| {
        const args: arguments.GroupNormStats = .{
            .x = floats(x) + batch * positions * channels,
            .partials = cpu.reduction_workspace.ptr,
            .positions = positions,
            .positions_per_slab = per_slab,
            .channels = channels,
            .group_count = group_count,
        };
        try cpu.pool.run(cpu.kernels.group_norm_stats, &args, slab_count);
        for (0..2 * group_count) |i| {
            var sum: f64 = 0;
            for (0..slab_count) |slab| sum += cpu.reduction_workspace[slab * 2 * group_count + i];
            result[batch * 2 * group_count + i] = sum / element_count;
        }
    }
}

/// A few numbers per group: not worth waking the pool.
pub fn combineStatistics(
    _: *Cpu,
    out: Tensor,
    o: backend.CombineStatistics,
) error{}!void {
    const local = o.local.host(f64);
    const result = out.host(f64);
    var i: usize = 0;
    while (i < local.len) : (i += 2) {
        var sums: [2]f64 = @splat(0);
        for (o.parts, o.weights) |part, weight| {
            for (&sums, part.host(f64)[i..][0..2]) |*sum, value| sum.* += weight * value;
        }
        if (o.corrected_from) |old| {
            for (&sums, local[i..][0..2], old.host(f64)[i..][0..2]) |*sum, now, before| {
                sum.* += now - before;
            }
        }
        var variance = sums[1] - sums[0] * sums[0];
        if (o.corrected_from) |old| {
            const own = varianceOf(local[i..]);
            if (o.variance_floor > 0) {
                var within: f64 = 0;
                for (o.parts, o.weights) |part, weight| {
                    const is_own = part.address == old.address;
                    within += weight * if (is_own) own else varianceOf(part.host(f64)[i..]);
                }
                variance = @max(variance, o.variance_floor * within);
            } else if (variance < 0) variance = own;
        }
        if (o.bessel_count > 1) {
            const n: f64 = @floatFromInt(o.bessel_count);
            variance *= n / (n - 1);
        }
        result[i] = sums[0];
        result[i + 1] = sums[0] * sums[0] + variance;
    }
}

pub fn groupNormApply(
    cpu: *Cpu,
    out: Tensor,
    x: Tensor,
    addend: ?Tensor,
    stats: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    epsilon: f32,
    activation: backend.Activation,
) error{Cancelled}!void {
    assert(addend == null);
    const channels: usize = x.shape.channels;
    assert(channels <= cpu.kernels.channel_count_max);
    const positions = x.shape.positionCount();
    const per_slab = @max(1, task_elements / channels);
    const args: arguments.GroupNormApply = .{
        .x = floats(x),
        .out = floats(out),
        .stats = @ptrFromInt(stats.address),
        .weight = vectorOf(weight),
        .bias = vectorOf(bias),
        .positions = positions,
        .positions_per_slab = per_slab,
        .slab_count = count(positions, per_slab),
        .channels = channels,
        .group_count = stats.shape.rows,
        .epsilon = epsilon,
        .activation = ops_product.activationOf(activation),
    };
    return cpu.pool.run(cpu.kernels.group_norm_apply, &args, x.shape.batch * args.slab_count);
}

pub fn layerNorm(
    cpu: *Cpu,
    out: Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    epsilon: f32,
) error{Cancelled}!void {
    const rows = x.shape.rowCount();
    const args: arguments.LayerNorm = .{
        .x = floats(x),
        .out = floats(out),
        .weight = vectorOf(weight),
        .bias = vectorOf(bias),
        .rows = rows,
        .rows_per_task = @max(1, task_elements / x.shape.channels),
        .channels = x.shape.channels,
        .epsilon = epsilon,
    };
    return cpu.pool.run(cpu.kernels.layer_norm, &args, count(rows, args.rows_per_task));
}

/// The variance from a mean and a mean of squares.
fn varianceOf(moments: []const f64) f64 {
    return moments[1] - moments[0] * moments[0];
}
