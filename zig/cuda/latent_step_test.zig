//! The sampler's kernel on the emulated driver against the CPU backend.

const std = @import("std");
const backends = @import("../backend.zig");
const rigs = @import("emulated/rig.zig");
const Rig = rigs.Rig;
const StepRow = backends.StepRow;
const Tensor = @import("../tensor.zig").Tensor;

const element_count = 2 * 3 * 5 * 4;

/// The registers of one update, filled with the same numbers for both devices.
const Registers = extern struct {
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
    var rig: Rig = try .init(0);
    defer rig.deinit();
    for (0..40) |seed| {
        const branch_count: u32 = @intCast(1 + seed % 2);
        const row = randomRow(seed, @intCast(seed / 2 % 2), seed / 4 % 2 == 0);
        var ours: Registers = .init(seed);
        var theirs: Registers = .init(seed);
        var tensors: [backends.history_count]Tensor = undefined;
        for (&tensors, &ours.history) |*tensor, *values| tensor.* = Registers.tensor(values, 1);
        try cpu.latentStep(.{
            .row = row,
            .guidance_scale = 5,
            .latent = Registers.tensor(&ours.latent, 1),
            .saved = Registers.tensor(&ours.saved, 1),
            .history = tensors,
            .model_output = Registers.tensor(&ours.model_output, branch_count),
            .noise = if (row.draws_noise != 0) Registers.tensor(&ours.noise, 1) else null,
        });
        const base = try rig.upload(Registers, &.{theirs});
        defer _ = rig.driver.cuMemFree_v2(base);
        const history = base + @offsetOf(Registers, "history");
        const history_bytes = @sizeOf([element_count]f32);
        const row_address = try rig.upload(StepRow, &.{row});
        const noise = if (row.draws_noise != 0) base + @offsetOf(Registers, "noise") else 0;
        try rig.launch("latent_step", .{ .grid = 3, .block = 32 }, .{
            row_address,                                 @as(f32, 5),
            branch_count,                                @as(u64, element_count),
            base + @offsetOf(Registers, "latent"),       base + @offsetOf(Registers, "saved"),
            history,                                     history + history_bytes,
            history + 2 * history_bytes,                 history + 3 * history_bytes,
            base + @offsetOf(Registers, "model_output"), noise,
        });
        try rigs.ok(rig.synchronize());
        try rig.download(Registers, base, (&theirs)[0..1]);
        // Sums of nine products, in another order and fused or not: a few roundings of f32.
        const a: []align(4) const f32 = std.mem.bytesAsSlice(f32, std.mem.asBytes(&ours));
        const b: []align(4) const f32 = std.mem.bytesAsSlice(f32, std.mem.asBytes(&theirs));
        for (a, b) |x, y| try std.testing.expectApproxEqAbs(x, y, 2e-5);
    }
}
