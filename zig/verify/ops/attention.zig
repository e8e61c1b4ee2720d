//! Attention on a GPU against the CPU: own kernels and cuDNN's, head sizes with and without 16-byte
//! units, sequences in uneven chunks, causal masks, scores of any size.

const std = @import("std");
const backend = @import("../../backend.zig");
const cudas = backend.cudas;
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Both = pairs.Both;
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;

pub const checks = [_]Check{
    .{ .name = "attention, own kernels", .run = ownAttention },
    .{ .name = "attention, own kernels at models' heads", .run = ownAttentionOfModels },
    .{ .name = "attention, keys split", .run = splitKeys },
    .{ .name = "attention, causal", .run = causal },
    .{ .name = "attention, heads over 128", .run = largeHeads, .needs_libraries = true },
    .{ .name = "attention, cuDNN", .run = sdpa, .needs_libraries = true },
    .{ .name = "attention, packed", .run = packedAttention, .needs_libraries = true },
    .{ .name = "crossAttention", .run = crossAttention, .needs_libraries = true },
};

/// The weights of the softmax are rounded before they multiply the values, each chunk's part and
/// the result once more; scores of large heads as well.
const attended: tolerances.Tolerance = .{ .roundings = 4 };
/// The queries are rounded too.
const attended_by_product: tolerances.Tolerance = .{ .roundings = 5 };

// --- internal ---

/// As SD 1.5, SDXL and SD 2 have them.
const model_head_sizes = [_]u32{ 40, 64, 80, 128 };
const chunk_count_max = 8;

const Sizes = struct {
    batch: u32 = 1,
    queries: u32,
    keys: []const u32,
    heads: u32,
    head_size: u32,
    is_causal: bool = false,
    /// By cuDNN where it has a kernel.
    is_sdpa: bool = false,
    /// Multiplies the queries: large scores make the softmax sharp.
    scale: f32 = 1,

    pub fn format(sizes: Sizes, w: *std.Io.Writer) std.Io.Writer.Error!void {
        try w.print("batch {d}, {d} queries, keys {any}, {d} heads of {d}, queries times {d}", .{
            sizes.batch, sizes.queries,   sizes.keys,
            sizes.heads, sizes.head_size, sizes.scale,
        });
    }
};

/// Up to `chunk_count_max` chunks of up to `most` tokens, some empty, the first never: a rank
/// without rows has no keys.
fn randomKeys(pair: *Pair, counts: *[chunk_count_max]u32, most: u32) []const u32 {
    const chunk_count = if (pair.boolean()) 1 else pair.size(chunk_count_max);
    for (counts[0..chunk_count]) |*count| count.* = pair.random().uintLessThan(u32, most);
    counts[0] += 1;
    return counts[0..chunk_count];
}

/// Sharp softmaxes one time in three.
fn randomScale(pair: *Pair) f32 {
    return if (pair.random().uintLessThan(u32, 3) == 0) 4 else 1;
}

fn ownAttention(pair: *Pair) Error!void {
    var counts: [chunk_count_max]u32 = undefined;
    try check(pair, .{
        .batch = pair.size(3),
        .queries = pair.size(80),
        .keys = randomKeys(pair, &counts, 90),
        .heads = pair.size(2),
        .head_size = if (pair.random().uintLessThan(u32, 4) == 0)
            pair.size(128)
        else
            8 * pair.size(16),
        .scale = randomScale(pair),
    });
}

fn ownAttentionOfModels(pair: *Pair) Error!void {
    var counts: [chunk_count_max]u32 = undefined;
    try check(pair, .{
        .batch = pair.size(2),
        .queries = pair.size(150),
        .keys = randomKeys(pair, &counts, 100),
        .heads = pair.size(3),
        .head_size = model_head_sizes[pair.random().uintLessThan(usize, model_head_sizes.len)],
        .scale = if (pair.random().uintLessThan(u32, 5) == 0) 1e4 else 1,
    });
}

/// Few queries and many keys: blocks share the keys of a row, and join what they found.
fn splitKeys(pair: *Pair) Error!void {
    try check(pair, .{
        .batch = pair.size(2),
        .queries = pair.size(20),
        .keys = &.{ 200 + pair.size(100), 77, 260, 1 },
        .heads = 1,
        .head_size = 64,
    });
}

fn causal(pair: *Pair) Error!void {
    const count = pair.size(100);
    try check(pair, .{
        .batch = pair.size(2),
        .queries = count,
        .keys = &.{count},
        .heads = pair.size(3),
        .head_size = 8 * pair.size(16),
        .is_causal = true,
    });
}

/// The VAE's, by two products around a softmax.
fn largeHeads(pair: *Pair) Error!void {
    var counts: [chunk_count_max]u32 = undefined;
    const is_odd = pair.random().uintLessThan(u32, 6) == 0;
    try check(pair, .{
        .batch = pair.size(2),
        .queries = pair.size(70),
        .keys = randomKeys(pair, &counts, 60),
        .heads = pair.size(2),
        .head_size = if (is_odd) 128 + pair.size(100) else 8 * (16 + pair.size(48)),
        .scale = randomScale(pair),
    });
}

/// A call for each chunk, joined; the own kernel where cuDNN has none.
fn sdpa(pair: *Pair) Error!void {
    var counts: [chunk_count_max]u32 = undefined;
    try check(pair, .{
        .batch = pair.size(3),
        .queries = pair.size(80),
        .keys = randomKeys(pair, &counts, 90),
        .heads = pair.size(3),
        .head_size = 8 * pair.size(16),
        .is_sdpa = true,
        .scale = randomScale(pair),
    });
}

/// The result of both devices, compared.
fn check(pair: *Pair, sizes: Sizes) Error!void {
    pair.describe("{f}", .{sizes});
    const a = pair.arena.allocator();
    const channels = sizes.heads * sizes.head_size;
    const q = try pair.scaled(.tokens(sizes.batch, sizes.queries, channels), sizes.scale, 0);
    const on_cpu = try a.alloc(Tensor, sizes.keys.len);
    const on_cuda = try a.alloc(Tensor, sizes.keys.len);
    for (sizes.keys, on_cpu, on_cuda) |count, *cpu, *cuda| {
        // Of a chunk without keys the address is never read.
        const both = try pair.tensor(.tokens(sizes.batch, @max(1, count), 2 * channels));
        cpu.* = both.cpu;
        cuda.* = both.cuda;
        cpu.shape.width = count;
        cuda.shape.width = count;
    }
    const out = try pair.output(q.cpu.shape);
    try pair.cpu.attention(out.cpu, q.cpu, on_cpu, sizes.heads, sizes.is_causal);
    const withheld = if (sizes.is_sdpa) null else withholdSdpa(pair);
    defer if (withheld) |own| {
        pair.cuda.libraries.?.sdpa = own;
    };
    const bytes = cudas.attentionBytes(q.cuda.shape, on_cuda, sizes.heads, sizes.is_causal);
    const room = try pair.temporary(bytes);
    const heads = sizes.heads;
    try pair.cuda.attention(out.cuda, q.cuda, on_cuda, heads, sizes.is_causal, room);
    try pair.expectClose(out, attended);
}

const Sdpa = @TypeOf(@as(cudas.LibraryHandles, undefined).sdpa);

/// What cuDNN's attention was, so that the own kernel computes in its place.
fn withholdSdpa(pair: *Pair) Sdpa {
    const opened = if (pair.cuda.libraries) |*libraries| libraries else return null;
    defer opened.sdpa = null;
    return opened.sdpa;
}

/// Queries, keys and values of each position behind one another.
fn packedAttention(pair: *Pair) Error!void {
    const heads = pair.size(3);
    const channels = heads * 8 * pair.size(16);
    const batch = pair.size(3);
    const count = pair.size(90);
    pair.describe("batch {d}, {d} tokens, {d} heads, {d} channels", .{
        batch, count, heads, channels,
    });
    const qkv = try pair.tensor(.tokens(batch, count, 3 * channels));
    const q = try pair.output(.tokens(batch, count, channels));
    const keys_values = try pair.output(.tokens(batch, count, 2 * channels));
    for (0..batch * count) |i| {
        const row = qkv.cpu.host(f32)[3 * channels * i ..][0 .. 3 * channels];
        @memcpy(q.cpu.host(f32)[channels * i ..][0..channels], row[0..channels]);
        const rest = keys_values.cpu.host(f32)[2 * channels * i ..][0 .. 2 * channels];
        @memcpy(rest, row[channels..]);
    }
    const out = try pair.output(q.cpu.shape);
    try pair.cpu.attention(out.cpu, q.cpu, &.{keys_values.cpu}, heads, false);
    const room = try pair.temporary(cudas.packedAttentionBytes(out.cuda.shape, heads));
    try pair.cuda.attentionPacked(out.cuda, qkv.cuda, heads, room);
    try pair.expectClose(out, attended);
}

/// Queries that are a product: on Hopper by the own kernel where heads have 64 channels, which
/// takes three heads and 80 keys at a time; else by the libraries.
fn crossAttention(pair: *Pair) Error!void {
    const head_size = if (pair.random().uintLessThan(u32, 4) == 0) 8 * pair.size(16) else 64;
    const heads = pair.size(5);
    const channels = heads * head_size;
    const shape: Shape = .{
        .batch = pair.size(2),
        .rows = pair.size(3),
        .width = pair.size(60),
        .channels = 8 * pair.size(24),
    };
    const key_count = if (pair.boolean()) 77 * pair.size(2) else pair.size(170);
    pair.describe("{f}, {d} keys, {d} heads of {d}", .{
        pairs.shown(shape), key_count, heads, head_size,
    });
    const x = try pair.tensor(shape);
    const scale = randomScale(pair) / @sqrt(@as(f32, @floatFromInt(shape.channels)));
    const weight = try pair.weight(.{ channels, shape.channels, 1, 1 }, scale);
    const keys_values = try pair.tensor(.tokens(shape.batch, key_count, 2 * channels));
    const q = try pair.output(shape.withChannels(channels));
    const out = try pair.output(q.cpu.shape);
    try pair.cpu.linear(q.cpu, 0, x.cpu, weight, null, .{});
    try pair.cpu.attention(out.cpu, q.cpu, &.{keys_values.cpu}, heads, false);
    const keys = [_]Tensor{keys_values.cuda};
    const room = try pair.temporary(cudas.attentionBytes(q.cuda.shape, &keys, heads, false));
    try pair.cuda.crossAttention(
        out.cuda,
        q.cuda,
        x.cuda,
        weight,
        keys_values.cuda,
        heads,
        room,
    );
    try pair.expectClose(out, attended_by_product);
}
