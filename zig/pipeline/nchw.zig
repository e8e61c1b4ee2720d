//! Conversion between NCHW (files, PyTorch, random numbers) and NHWC (all tensors here), on host
//! memory, only at inputs and outputs.

const std = @import("std");
const assert = std.debug.assert;

/// (batch, channels, positions) to (batch, positions, channels).
pub fn toNhwc(out: []f32, in: []const f32, channels: usize, position_count: usize) void {
    assert(out.len == in.len and in.len % (channels * position_count) == 0);
    var first: usize = 0;
    while (first < in.len) : (first += channels * position_count) {
        for (0..channels) |c| {
            for (0..position_count) |p| {
                out[first + p * channels + c] = in[first + c * position_count + p];
            }
        }
    }
}

/// (batch, positions, channels) to (batch, channels, positions).
pub fn fromNhwc(out: []f32, in: []const f32, channels: usize, position_count: usize) void {
    // The inverse is the same transposition with the two sizes exchanged.
    toNhwc(out, in, position_count, channels);
}

test "there and back" {
    const in = [_]f32{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    var nhwc: [12]f32 = undefined;
    var back: [12]f32 = undefined;
    toNhwc(&nhwc, &in, 2, 3);
    try std.testing.expectEqualSlices(f32, &.{ 1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12 }, &nhwc);
    fromNhwc(&back, &nhwc, 2, 3);
    try std.testing.expectEqualSlices(f32, &in, &back);
}
