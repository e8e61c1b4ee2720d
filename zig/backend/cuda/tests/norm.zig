//! Statistics of group norms: what no schedule and no batch may change.

const std = @import("std");
const statisticsShape = @import("../../../backend.zig").statisticsShape;
const support = @import("support.zig");
const Shape = @import("../../../tensor.zig").Shape;

test "an image's statistics have the same bits alone, in a batch, and in every schedule" {
    for (0..20) |seed| {
        var emulated: support.Emulated = undefined;
        try emulated.init(seed, .bf16);
        defer emulated.deinit();
        const pair = &emulated.pair;
        pair.prng = .init(99);
        const shape: Shape = .{ .batch = 3, .rows = 23, .width = 31, .channels = 48 };
        const x = try pair.scaled(shape, 1, 5);
        const all = try pair.empty(statisticsShape(.vector(3, 1), 6), .f64);
        try pair.cuda.groupNormStats(all.cuda, x.cuda, null);
        const one = try pair.empty(statisticsShape(.vector(1, 1), 6), .f64);
        try pair.cuda.groupNormStats(one.cuda, x.cuda.batchSlice(1, 1), null);
        const expected = try pair.read(f64, all.cuda);
        const alone = try pair.read(f64, one.cuda);
        try std.testing.expectEqualSlices(f64, expected[12..24], alone);
        if (first_schedule == null) first_schedule = expected[0..36].*;
        try std.testing.expectEqualSlices(f64, &first_schedule.?, expected);
    }
    first_schedule = null;
}

var first_schedule: ?[36]f64 = null;
