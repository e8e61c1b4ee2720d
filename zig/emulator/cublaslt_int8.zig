//! The arithmetic of the emulated cuBLASLt's int8 products: D = alpha * A^T B + beta * C in int32,
//! where columns of A and B are contiguous.

const std = @import("std");
const products = @import("cublaslt_product.zig");

/// One product of the batch.
pub fn multiply(call: *const products.Call, batch_index: u64) void {
    const s = &call.shape;
    const a: [*]const i8 = @ptrFromInt(placeOf(call, 0, batch_index));
    const b: [*]const i8 = @ptrFromInt(placeOf(call, 1, batch_index));
    const d: [*]i32 = @ptrFromInt(placeOf(call, 3, batch_index));
    const alpha: i32 = @intFromFloat(call.alpha);
    const beta: i32 = @intFromFloat(call.beta);
    for (0..s.n) |column| for (0..s.m) |row| {
        const x = a[s.matrices[0].at(row, 0)..][0..s.k];
        const y = b[s.matrices[1].at(0, column)..][0..s.k];
        var value = alpha *% dot(x, y);
        if (beta != 0) {
            const c: [*]const i32 = @ptrFromInt(placeOf(call, 2, batch_index));
            value +%= beta *% c[s.matrices[2].at(row, column)];
        }
        d[s.matrices[3].at(row, column)] = value;
    };
}

// --- internal ---

const lane_count = 16;

fn placeOf(call: *const products.Call, i: usize, batch_index: u64) usize {
    const matrix = call.shape.matrices[i];
    return call.addresses[i] + batch_index * matrix.batch_step * matrix.dtype.bytes();
}

fn dot(x: []const i8, y: []const i8) i32 {
    const Bytes = @Vector(lane_count, i8);
    var sums: @Vector(lane_count, i32) = @splat(0);
    var k: usize = 0;
    while (k + lane_count <= x.len) : (k += lane_count) {
        const p: @Vector(lane_count, i16) = @as(Bytes, x[k..][0..lane_count].*);
        const q: @Vector(lane_count, i16) = @as(Bytes, y[k..][0..lane_count].*);
        sums +%= @as(@Vector(lane_count, i32), p *% q);
    }
    var sum = @reduce(.Add, sums);
    while (k < x.len) : (k += 1) sum +%= @as(i32, x[k]) * y[k];
    return sum;
}

test "sums of bytes are exact for every length and the largest magnitudes" {
    var x: [37]i8 = undefined;
    var y: [37]i8 = undefined;
    var sum: i32 = 0;
    for (&x, &y, 0..) |*p, *q, i| {
        p.* = if (i % 3 == 0) -128 else 127;
        q.* = if (i % 2 == 0) -128 else 127;
        sum += @as(i32, p.*) * q.*;
        try std.testing.expectEqual(sum, dot(x[0 .. i + 1], y[0 .. i + 1]));
    }
}
