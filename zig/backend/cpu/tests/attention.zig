//! Attention against a plain loop: head sizes from 4 to 512, sequences in one part and in several,
//! causal, one token and thousands of them, scores far apart.

const std = @import("std");
const reference = @import("../reference.zig");
const support = @import("support.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Tensor = @import("../../../tensor.zig").Tensor;

const Case = struct {
    q: Tensor,
    chunks: []const Tensor,
    head_count: u32,
    causal: bool,

    pub fn run(c: Case, cpu: *Cpu, out: Tensor) !void {
        try cpu.attention(out, c.q, c.chunks, c.head_count, c.causal);
    }

    pub fn format(c: Case, w: *std.Io.Writer) !void {
        try w.print("attention {any}, {d} heads, {d} parts", .{
            c.q.shape, c.head_count, c.chunks.len,
        });
    }
};

const Sizes = struct {
    batch: u32 = 1,
    queries: u32,
    keys: []const u32,
    heads: u32,
    head_size: u32,
    causal: bool = false,
    /// Multiplies the queries: large scores make the softmax sharp.
    scale: f32 = 1,
};

fn check(sizes: Sizes) !void {
    var a: support.Arena = .init(sizes.queries + sizes.head_size);
    defer a.deinit();
    const gpa = a.allocator();
    const channels = sizes.heads * sizes.head_size;
    const q = try a.randomTensor(.tokens(sizes.batch, sizes.queries, channels));
    for (q.host(f32)) |*x| x.* *= sizes.scale;
    const chunks = try gpa.alloc(Tensor, sizes.keys.len);
    var key_count: u32 = 0;
    for (sizes.keys, chunks) |count, *chunk| {
        chunk.* = try a.randomTensor(.tokens(sizes.batch, count, 2 * channels));
        key_count += count;
    }
    const keys = try gpa.alloc(f64, sizes.batch * key_count * channels);
    const values = try gpa.alloc(f64, keys.len);
    var token: usize = 0;
    for (0..sizes.batch) |batch| {
        for (chunks) |chunk| {
            const tokens = chunk.shape.width;
            for (0..tokens) |t| {
                const row = chunk.host(f32)[(batch * tokens + t) * 2 * channels ..];
                for (0..channels) |c| {
                    keys[token * channels + c] = row[c];
                    values[token * channels + c] = row[channels + c];
                }
                token += 1;
            }
        }
    }
    const out = try a.tensor(q.shape, .f32);
    const expected = try gpa.alloc(f64, q.shape.elementCount());
    reference.attention(.{
        .q = try a.doubles(q),
        .keys = keys,
        .values = values,
        .batch = sizes.batch,
        .query_count = sizes.queries,
        .key_count = key_count,
        .channels = channels,
        .head_count = sizes.heads,
        .causal = sizes.causal,
    }, try gpa.alloc(f64, key_count), expected);
    const case: Case = .{
        .q = q,
        .chunks = chunks,
        .head_count = sizes.heads,
        .causal = sizes.causal,
    };
    try support.check(&a, case, out, expected, 0.01);
}

test "attention: head sizes" {
    for ([_]u32{ 4, 7, 16, 24, 48, 64, 80, 160, 512 }) |head_size| {
        try check(.{ .queries = 45, .keys = &.{77}, .heads = 2, .head_size = head_size });
    }
}

test "attention: counts of queries and keys" {
    for ([_]u32{ 1, 13, 14, 300 }) |queries| {
        for ([_]u32{ 1, 2, 31, 77, 520, 1100 }) |keys| {
            try check(.{ .queries = queries, .keys = &.{keys}, .heads = 1, .head_size = 32 });
        }
    }
    try check(.{ .batch = 2, .queries = 70, .keys = &.{90}, .heads = 3, .head_size = 40 });
    try check(.{ .queries = 150, .keys = &.{300}, .heads = 1, .head_size = 512 });
}

test "attention: a sequence in parts" {
    const parts = [_]u32{ 16, 3, 600, 41 };
    try check(.{ .batch = 2, .queries = 20, .keys = &parts, .heads = 2, .head_size = 24 });
    try check(.{ .queries = 20, .keys = &.{ 64, 0, 64 }, .heads = 2, .head_size = 64 });
}

test "attention: causal" {
    const tokens: u32 = 77;
    try check(.{
        .batch = 2,
        .queries = tokens,
        .keys = &.{tokens},
        .heads = 3,
        .head_size = 64,
        .causal = true,
    });
    try check(.{ .queries = 600, .keys = &.{600}, .heads = 1, .head_size = 16, .causal = true });
}

test "attention: sharp and flat scores" {
    // Scores of some hundreds carry their own rounding into the exponent: only modest ones are
    // comparable at the common tolerance, larger ones must merely stay finite.
    try check(.{ .queries = 30, .keys = &.{700}, .heads = 1, .head_size = 64, .scale = 2 });
    var a: support.Arena = .init(1);
    defer a.deinit();
    const q = try a.randomTensor(.tokens(1, 9, 64));
    for (q.host(f32)) |*x| x.* *= 1e4;
    const chunk = try a.randomTensor(.tokens(1, 600, 128));
    const out = try a.tensor(q.shape, .f32);
    const cpu = try support.open(null, 1);
    defer cpu.deinit();
    try cpu.attention(out, q, &.{chunk}, 1, false);
    try std.testing.expect(try cpu.isFinite(out));
    q.host(f32)[70] = std.math.nan(f32);
    try cpu.attention(out, q, &.{chunk}, 1, false);
    try std.testing.expect(std.math.isNan(out.host(f32)[64]));
}
