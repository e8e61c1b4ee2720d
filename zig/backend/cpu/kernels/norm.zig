//! Group norm in two passes, so that other ranks' statistics can be put in between, and layer norm.
//! Sums of squares lose everything when the mean is large, so group norm adds up in f64; layer norm
//! has its row in cache and takes the deviations from the mean in a second look.

const std = @import("std");
const arguments = @import("../arguments.zig");
const v = @import("vector.zig");
const lanes = v.lanes;

/// Half as many f64 as f32 fit a register.
const lanes_double = lanes / 2;
const Half = @Vector(lanes_double, f32);
const Double = @Vector(lanes_double, f64);
/// Positions added to a channel's sums per load and store of them.
const positions_at_once = 8;

pub const channel_count_max = 32 * 1024;
pub const workspace_bytes = channel_count_max * 2 * @sizeOf(f64);

pub fn groupNormStats(
    args: *const anyopaque,
    slab: usize,
    workspace: [*]align(64) u8,
) callconv(.c) void {
    const a: *const arguments.GroupNormStats = @ptrCast(@alignCast(args));
    const sums: [*]f64 = @ptrCast(workspace);
    const squares = sums + a.channels;
    @memset(sums[0 .. 2 * a.channels], 0);
    const first = slab * a.positions_per_slab;
    const end = @min(first + a.positions_per_slab, a.positions);
    var position = first;
    while (position + positions_at_once <= end) : (position += positions_at_once) {
        addPositions(positions_at_once, a.x + position * a.channels, a.channels, sums, squares);
    }
    while (position < end) : (position += 1) {
        addPositions(1, a.x + position * a.channels, a.channels, sums, squares);
    }
    const per_group = a.channels / a.group_count;
    for (0..a.group_count) |group| {
        var sum: f64 = 0;
        var square: f64 = 0;
        for (group * per_group..(group + 1) * per_group) |c| {
            sum += sums[c];
            square += squares[c];
        }
        const target = a.partials + 2 * (slab * a.group_count + group);
        target[0] = sum;
        target[1] = square;
    }
}

inline fn addPositions(
    comptime count: usize,
    x: [*]const f32,
    channels: usize,
    sums: [*]f64,
    squares: [*]f64,
) void {
    var c: usize = 0;
    while (c + lanes_double <= channels) : (c += lanes_double) {
        const sum_at: *align(8) Double = @ptrCast(sums + c);
        const square_at: *align(8) Double = @ptrCast(squares + c);
        var sum = sum_at.*;
        var square = square_at.*;
        inline for (0..count) |p| {
            const half = @as(*align(4) const Half, @ptrCast(x + p * channels + c)).*;
            const value: Double = @floatCast(half);
            sum += value;
            square = v.fma(value, value, square);
        }
        sum_at.* = sum;
        square_at.* = square;
    }
    while (c < channels) : (c += 1) {
        inline for (0..count) |p| {
            const value: f64 = x[p * channels + c];
            sums[c] += value;
            squares[c] += value * value;
        }
    }
}

pub fn groupNormApply(
    args: *const anyopaque,
    task: usize,
    workspace: [*]align(64) u8,
) callconv(.c) void {
    const a: *const arguments.GroupNormApply = @ptrCast(@alignCast(args));
    const batch = task / a.slab_count;
    const scales: [*]f32 = @ptrCast(workspace);
    const shifts = scales + std.mem.alignForward(usize, a.channels, lanes);
    const per_group = a.channels / a.group_count;
    for (0..a.group_count) |group| {
        const stats = a.stats + 2 * (batch * a.group_count + group);
        const mean = stats[0];
        const variance = @max(stats[1] - mean * mean, 0);
        const inverse = 1 / @sqrt(variance + a.epsilon);
        for (group * per_group..(group + 1) * per_group) |c| {
            const scale = inverse * a.weight[c];
            scales[c] = @floatCast(scale);
            shifts[c] = @floatCast(a.bias[c] - mean * scale);
        }
    }
    const first = task % a.slab_count * a.positions_per_slab;
    const end = @min(first + a.positions_per_slab, a.positions);
    switch (a.activation) {
        inline else => |activation| for (first..end) |position| {
            const offset = (batch * a.positions + position) * a.channels;
            applyRow(activation, a.out + offset, a.x + offset, scales, shifts, a.channels);
        },
    }
}

inline fn applyRow(
    comptime activation: arguments.Activation,
    out: [*]f32,
    x: [*]const f32,
    scales: [*]const f32,
    shifts: [*]const f32,
    channels: usize,
) void {
    var c: usize = 0;
    while (c < channels) : (c += lanes) {
        const count = channels - c;
        const value = v.fma(v.loadUpTo(x + c, count), v.load(scales + c), v.load(shifts + c));
        v.storeUpTo(out + c, v.activate(activation, value), count);
    }
}

pub fn layerNorm(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.LayerNorm = @ptrCast(@alignCast(args));
    const first = task * a.rows_per_task;
    for (first..@min(first + a.rows_per_task, a.rows)) |row| {
        normalizeRow(a, a.out + row * a.channels, a.x + row * a.channels);
    }
}

fn normalizeRow(a: *const arguments.LayerNorm, out: [*]f32, x: [*]const f32) void {
    const count: f32 = @floatFromInt(a.channels);
    // The first mean carries a rounding of its own size; the mean of what is left corrects it.
    const about = rowSums(x, a.channels, 0).sum / count;
    const rest = rowSums(x, a.channels, about);
    const correction = rest.sum / count;
    const variance = @max(rest.square / count - correction * correction, 0);
    const inverse = 1 / @sqrt(variance + a.epsilon);
    var c: usize = 0;
    while (c < a.channels) : (c += lanes) {
        const left = a.channels - c;
        const deviation = v.loadUpTo(x + c, left) - v.splat(about) - v.splat(correction);
        const scale = v.loadUpTo(a.weight + c, left) * v.splat(inverse);
        v.storeUpTo(out + c, v.fma(deviation, scale, v.loadUpTo(a.bias + c, left)), left);
    }
}

const RowSums = struct { sum: f32, square: f32 };

/// Sums of (x - shift) and of its square; the order of additions depends on `channels` alone.
inline fn rowSums(x: [*]const f32, channels: usize, shift: f32) RowSums {
    const chains = 4;
    var sums: [chains]v.Vec = @splat(@splat(0));
    var squares: [chains]v.Vec = @splat(@splat(0));
    var c: usize = 0;
    while (c + chains * lanes <= channels) : (c += chains * lanes) {
        inline for (0..chains) |i| {
            const value = v.load(x + c + i * lanes) - v.splat(shift);
            sums[i] += value;
            squares[i] = v.fma(value, value, squares[i]);
        }
    }
    while (c + lanes <= channels) : (c += lanes) {
        const value = v.load(x + c) - v.splat(shift);
        sums[0] += value;
        squares[0] = v.fma(value, value, squares[0]);
    }
    var result: RowSums = .{
        .sum = v.sum((sums[0] + sums[1]) + (sums[2] + sums[3])),
        .square = v.sum((squares[0] + squares[1]) + (squares[2] + squares[3])),
    };
    while (c < channels) : (c += 1) {
        const value = x[c] - shift;
        result.sum += value;
        result.square += value * value;
    }
    return result;
}
