//! Every operation of the CUDA backend against the CPU backend on the emulated driver: the checks
//! that `verify` runs on a GPU, each draw in another schedule of the driver's.

const std = @import("std");
const support = @import("support.zig");
const verify = @import("../../../verify.zig");
const DType = @import("../../../tensor.zig").DType;

/// Shapes and schedules of each check and type.
const draw_count = 20;

test "every check of an operation passes in every schedule" {
    var failed_count: u32 = 0;
    for (verify.operations.all) |check| for (0..draw_count) |seed| {
        for ([_]DType{ .f16, .bf16 }) |activation| {
            if (check.is_f16_alone and activation != .f16) continue;
            var emulated: support.Emulated = undefined;
            try emulated.init(seed, activation);
            defer emulated.deinit();
            if (check.needs_libraries) try emulated.openLibraries();
            check.run(&emulated.pair) catch {
                emulated.explain(check.name, seed);
                failed_count += 1;
            };
        }
    };
    try std.testing.expectEqual(0, failed_count);
}
