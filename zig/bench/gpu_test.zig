//! What times operations on a GPU, on the emulated driver: every kind runs by itself and in a
//! graph, and unsupported operations are reported.

const std = @import("std");
const cases = @import("gpu_cases.zig");
const fixtures = @import("gpu_fixture.zig");
const Operation = @import("../backend/op_trace.zig").Operation;
const library_path = std.fmt.comptimePrint("{s}", .{@import("emulator").library_path});

const operations = [_]Operation{
    .{ .op = .linear, .width = 24, .in = 64, .out = 32, .bias = true, .residual = true },
    .{ .op = .conv2d, .rows = 8, .width = 8, .in = 16, .out = 8, .kernel = 3, .padding = 1 },
    .{ .op = .conv2d, .rows = 8, .width = 8, .in = 16, .out = 8, .kernel = 3, .stride = 2 },
    .{
        .op = .conv_direct,
        .rows = 4,
        .width = 8,
        .in = 16,
        .out = 4,
        .kernel = 3,
        .padding = 1,
        .halos = 2,
    },
    .{ .op = .pad_input, .rows = 4, .width = 4, .in = 16, .padding = 1, .scale = 2, .halos = 1 },
    .{ .op = .epilogue, .width = 24, .in = 16, .bias = true, .activation = .silu },
    .{ .op = .attention, .width = 32, .in = 64, .keys = 65, .chunks = 2, .heads = 2 },
    .{ .op = .attention, .width = 16, .in = 160, .keys = 16 },
    .{ .op = .cross_attention, .width = 16, .in = 64, .out = 128, .keys = 77, .heads = 2 },
    .{ .op = .group_norm_stats, .rows = 8, .width = 8, .in = 32, .groups = 4 },
    .{ .op = .group_norm_apply, .rows = 8, .width = 8, .in = 32, .groups = 4, .activation = .silu },
    .{ .op = .layer_norm, .width = 24, .in = 64 },
    .{ .op = .linear_geglu, .width = 24, .in = 64, .out = 128, .bias = true },
    .{ .op = .geglu, .width = 24, .in = 64, .out = 32 },
    .{ .op = .activate, .width = 24, .in = 64, .activation = .gelu },
    .{ .op = .prelu, .width = 24, .in = 64 },
    .{ .op = .add, .width = 24, .in = 64 },
    .{ .op = .concat, .rows = 8, .width = 8, .in = 16, .out = 24, .chunks = 2 },
    .{ .op = .scale_repeat, .rows = 8, .width = 8, .in = 4, .scale = 2 },
    .{ .op = .copy, .width = 64, .in = 64 },
    .{ .op = .copy_rows, .batch = 2, .rows = 2, .width = 8, .in = 16 },
    .{ .op = .extrapolate_rows, .width = 8, .in = 32 },
    .{ .op = .to_rgb, .rows = 8, .width = 8, .in = 3 },
};

test "every operation runs alone and in a graph" {
    for ([_]@import("../tensor.zig").DType{ .f16, .bf16 }) |activation| {
        var fixture: fixtures.Fixture = undefined;
        try fixture.open(std.testing.allocator, std.testing.io, activation, library_path);
        defer fixture.close();
        try std.testing.expect(fixture.about().gpu.len > 0);
        var runner: cases.Runner = .init(&fixture);
        defer runner.deinit();
        var last: u64 = 0;
        var sums: usize = 0;
        for (operations) |operation| {
            // The second time the operands are there.
            for (0..2) |_| {
                const ms = runner.time(operation) catch |err| {
                    std.debug.print("{t}: {s}\n", .{ operation.op, fixture.diagnostics.message() });
                    return err;
                };
                try std.testing.expect(ms >= 0);
            }
            try std.testing.expectEqual(.success, fixture.gpu.driver.cuCtxSynchronize());
            const sum = try runner.checksum(.eager);
            try std.testing.expectEqual(sum, try runner.checksum(.replayed));
            sums += @intFromBool(sum != last);
            last = sum;
        }
        try std.testing.expectEqual(operations.len, sums);
    }
}

test "a library that is not there is told of" {
    var fixture: fixtures.Fixture = undefined;
    const opened = fixture.open(std.testing.allocator, std.testing.io, .f16, "no/such/library.so");
    try std.testing.expectError(error.LibraryMissing, opened);
    try std.testing.expect(fixture.diagnostics.message().len > 0);
}
