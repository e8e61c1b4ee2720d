//! Attention on the emulated GPU against the CPU backend: every kernel, head sizes with and without
//! 16-byte units, sequences in uneven chunks, splits, causal masks, scores of any size.

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
    batch: u32 = 1,
    queries: u32,
    keys: []const u32,
    heads: u32,
    head_size: u32,
    causal: bool = false,
    /// By cuDNN where it has a kernel.
    is_sdpa: bool = false,
    /// Multiplies the queries: large scores make the softmax sharp.
    scale: f32 = 1,

    pub fn format(sizes: Sizes, w: *std.Io.Writer) !void {
        try w.print("{t}, batch {d}, {d} queries, keys {any}, {d} heads of {d}, causal {}", .{
            sizes.activation, sizes.batch,     sizes.queries, sizes.keys,
            sizes.heads,      sizes.head_size, sizes.causal,
        });
    }
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
    const q = try pair.scaled(.tokens(sizes.batch, sizes.queries, channels), sizes.scale, 0);
    const on_cpu = try gpa.alloc(Tensor, sizes.keys.len);
    const on_cuda = try gpa.alloc(Tensor, sizes.keys.len);
    for (sizes.keys, on_cpu, on_cuda) |count, *cpu, *cuda| {
        // A rank without rows has no keys, and their address is never read.
        const both = try pair.tensor(.tokens(sizes.batch, @max(1, count), 2 * channels));
        cpu.* = both.cpu;
        cuda.* = both.cuda;
        cpu.shape.width = count;
        cuda.shape.width = count;
    }
    const out = try pair.output(q.cpu.shape);
    try pair.cpu.attention(out.cpu, q.cpu, on_cpu, sizes.heads, sizes.causal);
    try attend(pair, out.cuda, q.cuda, on_cuda, sizes.heads, sizes.causal);
    return out;
}

fn attend(
    pair: *Pair,
    out: Tensor,
    q: Tensor,
    keys_values: []const Tensor,
    heads: u32,
    causal: bool,
) !void {
    const bytes = ops_attention.temporaryBytes(q.shape, keys_values, heads, causal);
    const temporary: ?Tensor = if (bytes == 0) null else .{
        .address = try pair.fixture.alloc(u8, bytes),
        .shape = .vector(1, @intCast(bytes)),
        .dtype = .u8,
    };
    try ops_attention.attention(pair.cuda, out, q, keys_values, heads, causal, temporary);
}

fn check(sizes: Sizes, seed: u64) !void {
    var pair: Pair = undefined;
    try pair.init(seed, sizes.activation);
    defer pair.deinit();
    const is_large = sizes.head_size > ops_attention.head_size_max;
    const opened: ?libraries.Opened = if (is_large or sizes.is_sdpa) try .init(&pair) else null;
    defer if (opened) |those| those.deinit();
    const out = try run(&pair, sizes);
    if (sizes.is_sdpa) {
        const sdpa = &pair.cuda.libraries.?.sdpa.?;
        try std.testing.expect(sdpa.plans.count() > 0);
    }
    pair.expectClose(out) catch |err| {
        std.debug.print("attention {f}: {s}\n", .{ sizes, pair.fixture.lastReport() });
        return err;
    };
}

/// Up to 8 chunks of `most` tokens, some empty, the first never.
fn drawKeys(random: std.Random, counts: *[8]u32, chunk_count: usize, most: u32) []const u32 {
    for (counts[0..chunk_count]) |*count| count.* = random.uintLessThan(u32, most);
    counts[0] += 1;
    return counts[0..chunk_count];
}

test "attention: every head size class" {
    for ([_]u32{ 8, 16, 24, 32, 40, 64, 80, 96, 104, 128, 1, 7, 33, 127 }, 0..) |head_size, i| {
        try check(.{
            .activation = if (i % 2 == 0) .f16 else .bf16,
            .queries = 45,
            .keys = &.{77},
            .heads = 2,
            .head_size = head_size,
        }, i);
    }
}

test "attention: random shapes" {
    var prng: std.Random.DefaultPrng = .init(4);
    const random = prng.random();
    for (0..32) |draw| {
        var counts: [8]u32 = undefined;
        const causal = draw % 4 == 3;
        const chunk_count = if (causal) 1 else 1 + draw % 8;
        const keys = drawKeys(random, &counts, chunk_count, if (chunk_count > 4) 40 else 150);
        try check(.{
            .activation = if (draw % 2 == 0) .f16 else .bf16,
            .batch = 1 + random.uintLessThan(u32, 2),
            .queries = if (causal) keys[0] else 1 + random.uintLessThan(u32, 80),
            .keys = keys,
            .heads = 1 + random.uintLessThan(u32, 2),
            .head_size = if (draw % 8 == 1)
                1 + random.uintLessThan(u32, 128)
            else
                8 * (1 + random.uintLessThan(u32, 16)),
            .causal = causal,
            .scale = if (draw % 3 == 0) 4 else 1,
        }, draw);
    }
}

test "attention: cuDNN's, a call for each chunk, joined" {
    var prng: std.Random.DefaultPrng = .init(5);
    const random = prng.random();
    for (0..24) |draw| {
        var counts: [8]u32 = undefined;
        const chunk_count = 1 + draw % 8;
        try check(.{
            .activation = if (draw % 2 == 0) .f16 else .bf16,
            .batch = 1 + random.uintLessThan(u32, 2),
            .queries = 1 + random.uintLessThan(u32, 80),
            .keys = drawKeys(random, &counts, chunk_count, if (chunk_count > 4) 40 else 150),
            .heads = 1 + random.uintLessThan(u32, 3),
            .head_size = 8 * (1 + random.uintLessThan(u32, 16)),
            .is_sdpa = true,
            .scale = if (draw % 3 == 0) 4 else 1,
        }, draw);
    }
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
    var pair: Pair = undefined;
    try pair.init(7, .f16);
    defer pair.deinit();
    const opened: libraries.Opened = try .init(&pair);
    defer opened.deinit();
    try pair.expectClose(try run(&pair, sizes));
    const sdpa = &pair.cuda.libraries.?.sdpa.?;
    const kept = opened.measured.attention;
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
        try pair.expectClose(try run(&pair, sizes));
        var plans = sdpa.plans.valueIterator();
        while (plans.next()) |plan| try std.testing.expect(plan.* != null);
        try std.testing.expectEqual(2, sdpa.plans.count());
    }
}

test "attention: many rows of q take the larger tile" {
    const heads = 132;
    try check(.{ .queries = 129, .keys = &.{ 70, 3 }, .heads = heads, .head_size = 40 }, 1);
}

test "attention: few rows of q split the keys" {
    for ([_]DType{ .f16, .bf16 }) |activation| {
        try check(.{
            .activation = activation,
            .batch = 2,
            .queries = 20,
            .keys = &.{ 300, 77, 260, 1 },
            .heads = 1,
            .head_size = 64,
        }, 5);
    }
}

test "attention: heads over 128, by two products around a softmax" {
    var prng: std.Random.DefaultPrng = .init(6);
    const random = prng.random();
    for (0..30) |draw| {
        var counts: [8]u32 = undefined;
        const causal = draw % 5 == 4;
        const keys = drawKeys(random, &counts, if (causal) 1 else 1 + draw % 8, 60);
        try check(.{
            .activation = if (draw % 2 == 0) .f16 else .bf16,
            .batch = 1 + random.uintLessThan(u32, 2),
            .queries = if (causal) keys[0] else 1 + random.uintLessThan(u32, 70),
            .keys = keys,
            .heads = 1 + random.uintLessThan(u32, 2),
            .head_size = if (draw % 6 == 1)
                129 + random.uintLessThan(u32, 100)
            else
                8 * (17 + random.uintLessThan(u32, 48)),
            .causal = causal,
            .scale = if (draw % 3 == 0) 4 else 1,
        }, draw);
    }
    const scale = 1e4;
    try check(.{ .queries = 9, .keys = &.{1100}, .heads = 1, .head_size = 256, .scale = scale }, 1);
}

test "attention: the same bits in every order of threads" {
    var first: [40 * 2 * 40]f32 = undefined;
    for (0..20) |seed| {
        var pair: Pair = undefined;
        try pair.init(3, .f16);
        defer pair.deinit();
        try std.testing.expectEqual(0, pair.fixture.emulator.bxl_emulator_configure(seed, 2));
        const keys: []const u32 = &.{ 66, 30 };
        const out = try run(&pair, .{ .queries = 40, .keys = keys, .heads = 2, .head_size = 40 });
        const values = try pair.download(out.cuda);
        if (seed == 0) @memcpy(&first, values);
        try std.testing.expectEqualSlices(f32, &first, values);
    }
}

test "attention: large scores stay finite" {
    for ([_]DType{ .f16, .bf16 }) |activation| {
        try check(.{
            .activation = activation,
            .queries = 30,
            .keys = &.{ 100, 65 },
            .heads = 1,
            .head_size = 64,
            // One key of each row takes all the weight.
            .scale = 1e4,
        }, 7);
    }
}

test "attention: NaN stays in its own row" {
    for ([_]DType{ .f16, .bf16 }) |activation| {
        var pair: Pair = undefined;
        try pair.init(8, activation);
        defer pair.deinit();
        const q = try pair.tensor(.tokens(1, 3, 32));
        q.cpu.host(f32)[40] = std.math.nan(f32);
        try pair.upload(q);
        const chunk = try pair.tensor(.tokens(1, 70, 64));
        const out = try pair.output(q.cpu.shape);
        try attend(&pair, out.cuda, q.cuda, &.{chunk.cuda}, 1, false);
        for (try pair.download(out.cuda), 0..) |value, i| {
            try std.testing.expectEqual(i / 32 == 1, std.math.isNan(value));
        }
    }
}

test "attention: an access past the keys would be seen" {
    var pair: Pair = undefined;
    try pair.init(9, .f16);
    defer pair.deinit();
    const q = try pair.tensor(.tokens(1, 20, 32));
    const chunk = try pair.tensor(.tokens(1, 64, 64));
    var longer = chunk.cuda;
    longer.shape.width = 4096;
    const out = try pair.output(q.cpu.shape);
    pair.fixture.emulator.bxl_emulator_set_quiet(true);
    try attend(&pair, out.cuda, q.cuda, &.{longer}, 1, false);
    try std.testing.expectError(error.GpuFailed, pair.cuda.synchronize());
}
