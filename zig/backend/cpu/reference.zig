//! Reference implementation of every operation: plain loops in f64, for tests only. Inputs are f64
//! copies of the kernels' inputs, so that only the kernels' rounding differs.

const std = @import("std");
const backend = @import("../../backend.zig");
const Shape = @import("../../tensor.zig").Shape;

pub fn activate(activation: backend.Activation, x: f64) f64 {
    return switch (activation) {
        .none => x,
        .silu => x / (1 + @exp(-x)),
        .gelu => 0.5 * x * (1 + erf(x / @sqrt(2.0))),
        .quick_gelu => x / (1 + @exp(-1.702 * x)),
        .relu => if (x < 0) 0 else x,
        .soft_clamp => 3 * std.math.tanh(x / 3),
        .to_signed => 2 * x - 1,
        .leaky_relu => if (x < 0) 0.2 * x else x,
    };
}

/// The error function by its Maclaurin series, by its continued fraction where that is exact
/// sooner.
pub fn erf(x: f64) f64 {
    const z = @abs(x);
    if (z > 3) {
        var fraction: f64 = z;
        var k: f64 = 120;
        while (k > 0) : (k -= 1) fraction = z + k / 2 / fraction;
        const tail = @exp(-z * z) / fraction / @sqrt(std.math.pi);
        return std.math.copysign(1 - tail, x);
    }
    var term = x;
    var sum = x;
    var n: f64 = 1;
    while (@abs(term) > 1e-18) : (n += 1) {
        term *= -x * x / n;
        sum += term / (2 * n + 1);
    }
    return sum * 2 / @sqrt(std.math.pi);
}

pub const LinearInput = struct {
    x: []const f64,
    weight: []const f64,
    bias: ?[]const f64,
    residual: ?[]const f64,
    activation: backend.Activation,
    rows: usize,
    columns: usize,
    depth: usize,
};

pub fn linear(in: LinearInput, out: []f64) void {
    for (0..in.rows) |row| {
        for (0..in.columns) |column| {
            var sum: f64 = if (in.bias) |bias| bias[column] else 0;
            for (0..in.depth) |k| {
                sum += in.x[row * in.depth + k] * in.weight[column * in.depth + k];
            }
            const i = row * in.columns + column;
            out[i] = activate(in.activation, sum) + if (in.residual) |residual| residual[i] else 0;
        }
    }
}

pub const ConvInput = struct {
    x: []const f64,
    x_shape: Shape,
    weight: []const f64,
    /// (out, height, width, in)
    weight_shape: [4]u32,
    bias: ?[]const f64,
    channel_bias: ?[]const f64,
    residual: ?[]const f64,
    halo_above: ?[]const f64 = null,
    halo_below: ?[]const f64 = null,
    options: backend.ConvOptions,
    out_shape: Shape,
};

pub fn conv2d(in: ConvInput, out: []f64) void {
    var i: usize = 0;
    for (0..in.out_shape.batch) |batch| {
        for (0..in.out_shape.rows) |y| {
            for (0..in.out_shape.width) |x| {
                for (0..in.out_shape.channels) |o| {
                    out[i] = convElement(in, batch, y, x, o) +
                        if (in.residual) |residual| residual[i] else 0;
                    i += 1;
                }
            }
        }
    }
}

fn convElement(in: ConvInput, batch: usize, y: usize, x: usize, o: usize) f64 {
    var sum: f64 = if (in.bias) |bias| bias[o] else 0;
    if (in.channel_bias) |bias| sum += bias[batch * in.out_shape.channels + o];
    const options = in.options;
    for (0..in.weight_shape[1]) |ky| {
        for (0..in.weight_shape[2]) |kx| {
            const row = @as(isize, @intCast(y * options.stride + ky)) - options.padding.top;
            const column = @as(isize, @intCast(x * options.stride + kx)) - options.padding.left;
            const channels = convPixel(in, batch, row, column) orelse continue;
            const tap = (o * in.weight_shape[1] + ky) * in.weight_shape[2] + kx;
            for (channels, in.weight[tap * channels.len ..][0..channels.len]) |a, w| sum += a * w;
        }
    }
    return activate(options.activation, sum);
}

fn convPixel(in: ConvInput, batch: usize, row: isize, column: isize) ?[]const f64 {
    const scale: isize = if (in.options.upsample) 2 else 1;
    const shape = in.x_shape;
    const x = @divFloor(column, scale);
    const y = @divFloor(row, scale);
    if (x < 0 or x >= shape.width) return null;
    const at: usize = @intCast(x);
    if (y < 0) {
        const halo = in.halo_above orelse return null;
        return halo[(batch * shape.width + at) * shape.channels ..][0..shape.channels];
    }
    if (y >= shape.rows) {
        const halo = in.halo_below orelse return null;
        return halo[(batch * shape.width + at) * shape.channels ..][0..shape.channels];
    }
    const first = (batch * shape.rows + @as(usize, @intCast(y))) * shape.width + at;
    return in.x[first * shape.channels ..][0..shape.channels];
}

pub const AttentionInput = struct {
    q: []const f64,
    /// (batch, tokens, channels) each, the whole sequence.
    keys: []const f64,
    values: []const f64,
    batch: usize,
    query_count: usize,
    key_count: usize,
    channels: usize,
    head_count: usize,
    causal: bool,
};

/// `weights` has room for `key_count` numbers.
pub fn attention(in: AttentionInput, weights: []f64, out: []f64) void {
    const head_size = in.channels / in.head_count;
    const scale = 1 / @sqrt(@as(f64, @floatFromInt(head_size)));
    for (0..in.batch) |batch| {
        for (0..in.head_count) |head| {
            for (0..in.query_count) |query| {
                const q_at = (batch * in.query_count + query) * in.channels + head * head_size;
                const visible = if (in.causal) @min(query + 1, in.key_count) else in.key_count;
                var total: f64 = 0;
                for (0..visible) |key| {
                    const k_at = (batch * in.key_count + key) * in.channels + head * head_size;
                    var score: f64 = 0;
                    for (0..head_size) |c| score += in.q[q_at + c] * in.keys[k_at + c];
                    weights[key] = @exp(score * scale);
                    total += weights[key];
                }
                for (0..head_size) |c| {
                    var sum: f64 = 0;
                    for (0..visible) |key| {
                        const v_at = (batch * in.key_count + key) * in.channels + head * head_size;
                        sum += weights[key] * in.values[v_at + c];
                    }
                    out[q_at + c] = sum / total;
                }
            }
        }
    }
}

/// (groups, 2): mean and mean of squares of (positions, channels).
pub fn groupStats(x: []const f64, channels: usize, group_count: usize, out: []f64) void {
    const per_group = channels / group_count;
    const positions = x.len / channels;
    const count: f64 = @floatFromInt(positions * per_group);
    for (0..group_count) |group| {
        var sum: f64 = 0;
        var square: f64 = 0;
        for (0..positions) |position| {
            for (x[position * channels + group * per_group ..][0..per_group]) |value| {
                sum += value;
                square += value * value;
            }
        }
        out[2 * group] = sum / count;
        out[2 * group + 1] = square / count;
    }
}

pub fn layerNorm(
    x: []const f64,
    weight: []const f64,
    bias: []const f64,
    epsilon: f64,
    out: []f64,
) void {
    const channels = weight.len;
    const count: f64 = @floatFromInt(channels);
    for (0..x.len / channels) |row| {
        const values = x[row * channels ..][0..channels];
        var mean: f64 = 0;
        for (values) |value| mean += value / count;
        var variance: f64 = 0;
        for (values) |value| variance += (value - mean) * (value - mean) / count;
        for (values, 0..) |value, c| {
            const normal = (value - mean) / @sqrt(variance + epsilon);
            out[row * channels + c] = normal * weight[c] + bias[c];
        }
    }
}

test "the reference's own error function" {
    try std.testing.expectApproxEqAbs(0.8427007929497149, erf(1), 1e-14);
    try std.testing.expectApproxEqAbs(-0.9999779095030014, erf(-3), 1e-13);
    try std.testing.expectApproxEqAbs(0.9999992569016276, erf(3.5), 1e-14);
}
