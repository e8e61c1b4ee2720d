//! Runs CUDA kernels on the CPU, compiled as C++ (cuda/host/shim.h): a grid becomes loops. For
//! tests alone, and only for kernels whose threads do not meet.

const std = @import("std");
const backends = @import("../backend.zig");
const StepRow = backends.StepRow;
const Tensor = @import("../tensor.zig").Tensor;

/// Kernels register themselves by name before `main`; here they are called as they are.
export fn bxl_host_register(kernel: *anyopaque) void {
    _ = kernel;
}

const Dim = extern struct { x: u32 = 1, y: u32 = 1, z: u32 = 1 };

export var blockIdx: Dim = .{};
export var threadIdx: Dim = .{};
export var blockDim: Dim = .{};
export var gridDim: Dim = .{};

extern fn latent_step(
    row: *const StepRow,
    guidance_scale: f32,
    branch_count: c_uint,
    count: c_ulonglong,
    latent: [*]f32,
    saved: [*]f32,
    newest_output: [*]f32,
    output_1: [*]const f32,
    output_2: [*]const f32,
    output_3: [*]const f32,
    model_output: [*]const f32,
    noise: ?[*]const f32,
) void;

/// Calls `kernel` once for every thread of a one-dimensional grid.
fn launch(grid: u32, block: u32, kernel: anytype, args: anytype) void {
    gridDim = .{ .x = grid };
    blockDim = .{ .x = block };
    for (0..grid) |b| {
        for (0..block) |t| {
            blockIdx = .{ .x = @intCast(b), .y = 0, .z = 0 };
            threadIdx = .{ .x = @intCast(t), .y = 0, .z = 0 };
            @call(.auto, kernel, args);
        }
    }
}

const element_count = 2 * 3 * 5 * 4;

/// The registers of one update, filled with the same numbers for both devices.
const Registers = struct {
    latent: [element_count]f32,
    saved: [element_count]f32,
    history: [backends.history_count][element_count]f32,
    model_output: [2 * element_count]f32,
    noise: [element_count]f32,

    fn init(seed: u64) Registers {
        var random: std.Random.DefaultPrng = .init(seed);
        var registers: Registers = undefined;
        for (std.mem.bytesAsSlice(f32, std.mem.asBytes(&registers))) |*value| {
            value.* = random.random().floatNorm(f32);
        }
        return registers;
    }

    fn tensor(values: []f32, branch_count: u32) Tensor {
        return .{ .address = @intFromPtr(values.ptr), .shape = .{
            .batch = 2 * branch_count,
            .rows = 3,
            .width = 5,
            .channels = 4,
        } };
    }
};

fn randomRow(seed: u64, updates_saved: u32, draws_noise: bool) StepRow {
    var random: std.Random.DefaultPrng = .init(seed);
    var row: StepRow = undefined;
    for (std.mem.bytesAsSlice(f32, std.mem.asBytes(&row))) |*value| {
        value.* = random.random().floatNorm(f32);
    }
    row.updates_saved = updates_saved;
    row.draws_noise = @intFromBool(draws_noise);
    if (!draws_noise) {
        row.latent.noise = 0;
        row.saved.noise = 0;
    }
    return row;
}

test "latent_step equals the CPU backend for one and two branches" {
    const cancelled: std.atomic.Value(bool) = .init(false);
    const cpu = try backends.Cpu.init(std.testing.allocator, std.testing.io, .{
        .thread_count = 1,
        .cancelled = &cancelled,
    });
    defer cpu.deinit();
    for (0..40) |seed| {
        const branch_count: u32 = @intCast(1 + seed % 2);
        const row = randomRow(seed, @intCast(seed / 2 % 2), seed / 4 % 2 == 0);
        var ours: Registers = .init(seed);
        var theirs: Registers = .init(seed);
        var history: [backends.history_count]Tensor = undefined;
        for (&history, &ours.history) |*tensor, *values| tensor.* = Registers.tensor(values, 1);
        try cpu.latentStep(.{
            .row = row,
            .guidance_scale = 5,
            .latent = Registers.tensor(&ours.latent, 1),
            .saved = Registers.tensor(&ours.saved, 1),
            .history = history,
            .model_output = Registers.tensor(&ours.model_output, branch_count),
            .noise = if (row.draws_noise != 0) Registers.tensor(&ours.noise, 1) else null,
        });
        const noise: ?[*]const f32 = if (row.draws_noise != 0) &theirs.noise else null;
        launch(3, 32, latent_step, .{
            &row,                 @as(f32, 5),
            branch_count,         element_count,
            &theirs.latent,       &theirs.saved,
            &theirs.history[0],   &theirs.history[1],
            &theirs.history[2],   &theirs.history[3],
            &theirs.model_output, noise,
        });
        // Sums of nine products, in another order and fused or not: a few roundings of f32.
        const a: []align(4) const f32 = std.mem.bytesAsSlice(f32, std.mem.asBytes(&ours));
        const b: []align(4) const f32 = std.mem.bytesAsSlice(f32, std.mem.asBytes(&theirs));
        for (a, b) |x, y| try std.testing.expectApproxEqAbs(x, y, 2e-5);
    }
}
