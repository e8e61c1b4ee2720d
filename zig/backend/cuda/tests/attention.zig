//! Attention on the emulated GPU: which kernel computes, plans that are kept, bits that no schedule
//! changes, accesses that the emulator sees. verify/ops/attention.zig compares it with the CPU.

const std = @import("std");
const dynamic = @import("../../../nvidia/dynamic.zig");
const libraries = @import("libraries.zig");
const ops_attention = @import("../ops_attention.zig");
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const Both = support.Both;
const DType = tensors.DType;
const Pair = support.Pair;
const Tensor = tensors.Tensor;

const Sizes = struct {
    activation: DType = .f16,
    queries: u32,
    keys: []const u32,
    heads: u32,
    head_size: u32,
    /// By cuDNN where it has a kernel.
    is_sdpa: bool = false,
};

const Hook = struct {
    bxl_emulator_allow_attention: *const fn (u32) callconv(.c) void,

    fn load() !Hook {
        var missing: []const u8 = "";
        return dynamic.load(Hook, dynamic.open(libraries.library_path).?, &missing);
    }
};

/// The result of both devices.
fn run(pair: *Pair, sizes: Sizes) !Both {
    const gpa = pair.arena.allocator();
    const channels = sizes.heads * sizes.head_size;
    const q = try pair.tensor(.tokens(1, sizes.queries, channels));
    const on_cpu = try gpa.alloc(Tensor, sizes.keys.len);
    const on_cuda = try gpa.alloc(Tensor, sizes.keys.len);
    for (sizes.keys, on_cpu, on_cuda) |count, *cpu, *cuda| {
        const both = try pair.tensor(.tokens(1, count, 2 * channels));
        cpu.* = both.cpu;
        cuda.* = both.cuda;
    }
    const out = try pair.output(q.cpu.shape);
    try pair.cpu.attention(out.cpu, q.cpu, on_cpu, sizes.heads, false);
    try attend(pair, out.cuda, q.cuda, on_cuda, sizes.heads);
    return out;
}

fn attend(
    pair: *Pair,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    heads: u32,
) !void {
    const bytes = ops_attention.temporaryBytes(q.shape, keys_values, heads, false);
    const temporary = try pair.temporary(bytes);
    try pair.cuda.attention(out, q, keys_values, heads, false, temporary);
}

fn check(sizes: Sizes, seed: u64) !void {
    var emulated: support.Emulated = undefined;
    try emulated.init(seed, sizes.activation);
    defer emulated.deinit();
    if (sizes.is_sdpa) try emulated.openLibraries();
    try expectClose(&emulated, try run(&emulated.pair, sizes));
    if (!sizes.is_sdpa) return;
    const sdpa = &emulated.pair.cuda.libraries.?.sdpa.?;
    try std.testing.expect(sdpa.plans.count() > 0);
}

fn expectClose(emulated: *support.Emulated, result: Both) !void {
    emulated.pair.expectClose(result, .{ .roundings = 4 }) catch |err| {
        emulated.explain("attention", 0);
        return err;
    };
}

test "attention: where cuDNN has no kernel, the own one computes" {
    const hook = try Hook.load();
    hook.bxl_emulator_allow_attention(0);
    defer hook.bxl_emulator_allow_attention(1);
    try check(.{
        .queries = 20,
        .keys = &.{ 30, 77 },
        .heads = 2,
        .head_size = 64,
        .is_sdpa = true,
    }, 6);
}

test "attention: a compiled plan is kept in the file and read from there" {
    const sizes: Sizes = .{
        .queries = 20,
        .keys = &.{ 30, 77 },
        .heads = 2,
        .head_size = 64,
        .is_sdpa = true,
    };
    var emulated: support.Emulated = undefined;
    try emulated.init(7, .f16);
    defer emulated.deinit();
    try emulated.openLibraries();
    const pair = &emulated.pair;
    try expectClose(&emulated, try run(pair, sizes));
    const sdpa = &pair.cuda.libraries.?.sdpa.?;
    const kept = emulated.opened.?.measured.attention;
    try std.testing.expectEqual(2, kept.entries.count());
    // A rank that makes none, and one whose file is of nobody's.
    for ([_]bool{ true, false }) |is_whole| {
        sdpa.close();
        sdpa.plans = .empty;
        if (!is_whole) for (kept.entries.values()) |*text| {
            text.* = "{}";
        };
        const hook = try Hook.load();
        hook.bxl_emulator_allow_attention(@intFromBool(!is_whole));
        defer hook.bxl_emulator_allow_attention(1);
        try expectClose(&emulated, try run(pair, sizes));
        var plans = sdpa.plans.valueIterator();
        while (plans.next()) |plan| try std.testing.expect(plan.* != null);
        try std.testing.expectEqual(2, sdpa.plans.count());
    }
}

test "attention: many rows of q take the larger tile" {
    const heads = 132;
    try check(.{ .queries = 129, .keys = &.{ 70, 3 }, .heads = heads, .head_size = 40 }, 1);
}

test "attention: the same bits in every order of threads" {
    var first: [40 * 2 * 40]f32 = undefined;
    for (0..20) |seed| {
        var emulated: support.Emulated = undefined;
        try emulated.init(3, .f16);
        defer emulated.deinit();
        const pair = &emulated.pair;
        try std.testing.expectEqual(0, emulated.fixture.emulator.bxl_emulator_configure(seed, 2));
        const keys: []const u32 = &.{ 66, 30 };
        const out = try run(pair, .{ .queries = 40, .keys = keys, .heads = 2, .head_size = 40 });
        const values = try pair.download(out.cuda);
        if (seed == 0) @memcpy(&first, values);
        try std.testing.expectEqualSlices(f32, &first, values);
    }
}

test "attention: NaN stays in its own row" {
    for ([_]DType{ .f16, .bf16 }) |activation| {
        var emulated: support.Emulated = undefined;
        try emulated.init(8, activation);
        defer emulated.deinit();
        const pair = &emulated.pair;
        const q = try pair.tensor(.tokens(1, 3, 32));
        q.cpu.host(f32)[40] = std.math.nan(f32);
        try pair.upload(q);
        const chunk = try pair.tensor(.tokens(1, 70, 64));
        const out = try pair.output(q.cpu.shape);
        try attend(pair, out.cuda, q.cuda, &.{chunk.cuda}, 1);
        for (try pair.download(out.cuda), 0..) |value, i| {
            try std.testing.expectEqual(i / 32 == 1, std.math.isNan(value));
        }
    }
}

test "attention: an access past the keys would be seen" {
    var emulated: support.Emulated = undefined;
    try emulated.init(9, .f16);
    defer emulated.deinit();
    const pair = &emulated.pair;
    const q = try pair.tensor(.tokens(1, 20, 32));
    const chunk = try pair.tensor(.tokens(1, 64, 64));
    var longer = chunk.cuda;
    longer.shape.width = 4096;
    const out = try pair.output(q.cpu.shape);
    emulated.fixture.emulator.bxl_emulator_set_quiet(true);
    try attend(pair, out.cuda, q.cuda, &.{longer}, 1);
    try std.testing.expectError(error.GpuFailed, pair.cuda.synchronize());
}
