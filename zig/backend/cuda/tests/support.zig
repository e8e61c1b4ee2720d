//! A GPU of the emulated driver beside the CPU backend, for tests of operations: as many seeds of
//! the driver's schedules as of shapes. Device memory starts as NaN and ends in guard pages.

const std = @import("std");
const cpu_support = @import("../../cpu/tests/support.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const libraries = @import("libraries.zig");
const verify = @import("../../../verify.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Cuda = @import("../../cuda.zig").Cuda;
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const DType = @import("../../../tensor.zig").DType;
const Gpu = @import("../gpu.zig").Gpu;
pub const Both = verify.pairs.Both;
pub const Pair = verify.pairs.Pair;

/// Draws of `each`.
const draw_count = 30;

/// The fixture's device in the terms of the backend.
pub fn gpuOf(fixture: *fixtures.Fixture, d: *Diagnostics) Gpu {
    return .{
        .driver = &fixture.driver,
        .device = fixture.device,
        .context = fixture.context,
        .module = fixture.module,
        .copy_stream = fixture.stream,
        .diagnostics = d,
    };
}

pub const Emulated = struct {
    fixture: fixtures.Fixture,
    diagnostics: Diagnostics,
    pair: Pair,
    opened: ?libraries.Opened,

    /// Must not move.
    pub fn init(emulated: *Emulated, seed: u64, activation: DType) !void {
        emulated.diagnostics = .{};
        emulated.opened = null;
        emulated.fixture = try .init(seed);
        const cuda: *Cuda = try .init(std.testing.allocator, .{
            .driver = &emulated.fixture.driver,
            .device = emulated.fixture.device,
            .module = emulated.fixture.module,
            .activation = activation,
            // Weights say where they are, from 0.
            .weights_base = 0,
            .diagnostics = &emulated.diagnostics,
            .cancelled = &cpu_support.not_cancelled,
            .dependent_launches = seed % 2 == 1,
        });
        const cpu: *Cpu = try cpu_support.open(null, 1);
        emulated.pair = .init(std.testing.allocator, cpu, cuda, seed);
    }

    /// Gives the pair cuBLASLt and cuDNN, for operations that need their products.
    pub fn openLibraries(emulated: *Emulated) !void {
        emulated.opened = try .init(&emulated.pair);
    }

    pub fn deinit(emulated: *Emulated) void {
        const pair = &emulated.pair;
        const cpu = pair.cpu;
        const cuda = pair.cuda;
        pair.deinit();
        cuda.deinit();
        if (emulated.opened) |opened| opened.deinit();
        cpu.deinit();
        emulated.fixture.deinit();
    }

    /// What went wrong, for whoever reads the test's output.
    pub fn explain(emulated: *Emulated, name: []const u8, seed: u64) void {
        const pair = &emulated.pair;
        std.debug.print("{s}, draw {d}, {t}, {s}: {s} {s} {s}\n", .{
            name,                          seed,         pair.cuda.activation,
            pair.shape,                    pair.problem, emulated.diagnostics.message(),
            emulated.fixture.lastReport(),
        });
    }
};

/// `body` for every draw and both activation types; the draw's number seeds shapes, numbers and
/// the emulated driver's schedule.
pub fn each(comptime body: fn (*Emulated) anyerror!void) !void {
    for (0..draw_count) |seed| {
        for ([_]DType{ .f16, .bf16 }) |activation| {
            var emulated: Emulated = undefined;
            try emulated.init(seed, activation);
            defer emulated.deinit();
            body(&emulated) catch |err| {
                emulated.explain("", seed);
                return err;
            };
        }
    }
}
