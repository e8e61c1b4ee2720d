//! A1111's variation of a first latent (`Variation seed`): spherical interpolation to another
//! seed's noise, column by column of each channel. Source: modules/rng.py (slerp).

const std = @import("std");
const assert = std.debug.assert;

/// Columns whose directions have this mean cosine are the same noise: interpolated on a line, with
/// the ends exchanged, as there.
const same_cosine = 0.9995;

/// `low` and `high` (channels, rows, width); the result, at `strength` between them, is in `low`.
/// In f64: torch's f32 sums of a column differ by about 1e-6.
pub fn slerp(low: []f32, high: []const f32, strength: f32, rows: usize, width: usize) void {
    assert(low.len == high.len and low.len % (rows * width) == 0);
    const t: f64 = strength;
    var total: f64 = 0;
    const column_count = low.len / rows;
    for (0..column_count) |column| total += cosine(low, high, column, rows, width);
    if (total / @as(f64, @floatFromInt(column_count)) > same_cosine) {
        for (low, high) |*l, h| l.* = @floatCast(l.* * t + h * (1 - t));
        return;
    }
    for (0..column_count) |column| {
        const angle = std.math.acos(std.math.clamp(cosine(low, high, column, rows, width), -1, 1));
        const sine = @sin(angle);
        const low_factor = @sin((1 - t) * angle) / sine;
        const high_factor = @sin(t * angle) / sine;
        const first = column / width * rows * width + column % width;
        for (0..rows) |row| {
            const i = first + row * width;
            low[i] = @floatCast(low_factor * low[i] + high_factor * high[i]);
        }
    }
}

// --- internal ---

/// Of the angle between two columns.
fn cosine(
    low: []const f32,
    high: []const f32,
    column: usize,
    rows: usize,
    width: usize,
) f64 {
    const first = column / width * rows * width + column % width;
    var product: f64 = 0;
    var low_square: f64 = 0;
    var high_square: f64 = 0;
    for (0..rows) |row| {
        const l: f64 = low[first + row * width];
        const h: f64 = high[first + row * width];
        product += l * h;
        low_square += l * l;
        high_square += h * h;
    }
    return product / @sqrt(low_square * high_square);
}

test "the ends are the two noises, and equal ones stay" {
    const random = @import("../random.zig");
    var a: [256]f32 = undefined;
    var b: [256]f32 = undefined;
    var low: random.CpuGenerator = .init(1);
    var high: random.CpuGenerator = .init(2);
    low.fillNormal(&a);
    high.fillNormal(&b);
    for ([_]f32{ 0, 1 }, [_]*const [256]f32{ &a, &b }) |strength, expected| {
        var x = a;
        slerp(&x, &b, strength, 8, 8);
        for (expected, x) |e, value| try std.testing.expectApproxEqAbs(e, value, 1e-6);
    }
    var same = a;
    slerp(&same, &a, 0.3, 8, 8);
    for (a, same) |e, value| try std.testing.expectApproxEqAbs(e, value, 1e-6);
}
