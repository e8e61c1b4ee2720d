//! How far a GPU's result may be from the CPU's, which has the same inputs and computes in f32: by
//! the roundings to the activation type on the way, and by nothing else.

const std = @import("std");
const DType = @import("../tensor.zig").DType;

/// Half a unit in the last place, relative: what one rounding changes at most.
pub fn unitOf(activation: DType) f64 {
    return switch (activation) {
        .f16 => 0x1p-11,
        .bf16 => 0x1p-8,
        else => 0x1p-24,
    };
}

/// f32 on both sides: sums in another order, exp, erf and the like of another library. It is also
/// what small results of large terms are off by, and the lower end of f16: 2^-25.
const f32_slack = 2e-6;

/// A relative error beside what is allowed.
pub const Outcome = struct { off: f64 = 0, allowed: f64 = 0 };

pub const Tolerance = struct {
    /// Roundings to the activation type, one after the other; the relative L2 error is at most so
    /// many units.
    roundings: f64,
    /// Roundings on the way of values that are as large as the inputs, where the result may be
    /// small: the root mean square of what they leave, in units of 1. Three times as much for one
    /// element alone, which has no mean.
    on_the_way: f64 = 0,
    /// The size of what cancels in a sum, in units of a normal distribution.
    terms: f64 = 1,

    /// The relative L2 error, and what is allowed.
    pub fn measure(
        tolerance: Tolerance,
        activation: DType,
        actual: []const f32,
        expected: []const f32,
    ) Outcome {
        var difference: f64 = 0;
        var total: f64 = 0;
        for (actual, expected) |a, e| {
            if (a == e) {
                total += if (std.math.isFinite(e)) @as(f64, e) * e else 0;
                continue;
            }
            difference += (@as(f64, a) - e) * (@as(f64, a) - e);
            total += @as(f64, e) * e;
        }
        const count: f64 = @floatFromInt(@max(1, actual.len));
        const norm = @sqrt(total);
        const unit = unitOf(activation);
        const floor = f32_slack * tolerance.terms * @sqrt(count) +
            unit * tolerance.on_the_way * (@sqrt(count) + 2);
        if (norm == 0) return .{ .off = @sqrt(difference), .allowed = floor };
        return .{
            .off = @sqrt(difference) / norm,
            // 1 %: the unit is that of the rounded number, which may be smaller.
            .allowed = 1.01 * tolerance.roundings * unit + floor / norm,
        };
    }
};

/// One pass that computes in f32 and rounds its result.
pub const one_pass: Tolerance = .{ .roundings = 1 };

test "a rounding is within its tolerance, two units are not, and NaN is not" {
    const expected = [_]f32{ 1, -3, 0.25 };
    const unit: f32 = @floatCast(unitOf(.f16));
    var actual = expected;
    for (&actual) |*value| value.* *= 1 + unit;
    const near = one_pass.measure(.f16, &actual, &expected);
    try std.testing.expect(near.off <= near.allowed);
    for (&actual) |*value| value.* *= 1 + unit;
    const far = one_pass.measure(.f16, &actual, &expected);
    try std.testing.expect(far.off > far.allowed);
    actual[1] = std.math.nan(f32);
    const none = one_pass.measure(.f16, &actual, &expected);
    try std.testing.expect(!(none.off <= none.allowed));
}
