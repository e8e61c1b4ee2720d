//! Attention with online softmax (Milakov and Gimelshein 2018; Dao et al. 2022): blocks of keys
//! pass by, each row of queries keeps its largest score, its sum and its weighted values so far.
//! Scores live in base 2 with 1/sqrt(head size) folded into the queries, so that a weight is one
//! exp2.

const std = @import("std");
const arguments = @import("../arguments.zig");
const pack = @import("pack.zig");
const pairs = @import("bf16_pack.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const Attention = arguments.Attention;
const Vec = v.Vec;
const lanes = v.lanes;

pub const head_size_max = 512;
/// Elements of packed keys, of packed values and of the accumulated output: a quarter MiB each.
pub const elements_max = 64 * 1024;
pub const key_block_max = 512;
pub const query_block_max = 512;

/// Vectors of scores looked at together: several, since one sum would wait for itself, but a short
/// row would be filled up with too many that are thrown away.
const step_vectors_max = 4;
const short_row_max = 128;

comptime {
    std.debug.assert(key_block_max + lanes <= tile.row_stride);
    std.debug.assert(head_size_max <= tile.row_stride);
    std.debug.assert(key_block_max % (lanes * step_vectors_max) == 0);
}

const panel_elements = tile.rows_max * tile.row_stride;
const output_elements = elements_max + tile.rows_max * head_size_max;
/// Weights of the softmax as a panel of bf16; in f32 they take the scores' place.
const weight_elements = if (v.bf16) panel_elements else 0;
pub const workspace_bytes = 4 * (2 * panel_elements + weight_elements + 2 * elements_max +
    output_elements + 2 * query_block_max + 64);

const Workspace = struct {
    queries: [*]tile.Element,
    scores: [*]f32,
    weights: [*]tile.Element,
    keys: [*]tile.Element,
    values: [*]tile.Element,
    /// (query block, padded head size)
    output: [*]f32,
    largest: [*]f32,
    sums: [*]f32,

    fn of(memory: [*]align(64) u8) Workspace {
        const floats: [*]f32 = @ptrCast(memory);
        const scores = floats + panel_elements;
        const keys = scores + panel_elements + weight_elements;
        const output = keys + 2 * elements_max;
        return .{
            .queries = @ptrCast(floats),
            .scores = scores,
            .weights = @ptrCast(if (v.bf16) scores + panel_elements else scores),
            .keys = @ptrCast(keys),
            .values = @ptrCast(keys + elements_max),
            .output = output,
            .largest = output + output_elements,
            .sums = output + output_elements + query_block_max,
        };
    }
};

const Task = struct {
    args: *const Attention,
    batch: usize,
    head: usize,
    query_first: usize,
    query_count: usize,
    head_size: usize,
    /// Rounded up to whole vectors.
    head_width: usize,
    scale: f32,
    work: Workspace,

    fn queries(t: *const Task) [*]const f32 {
        const row = t.batch * t.args.query_count + t.query_first;
        return t.args.q + row * t.args.channels + t.head * t.head_size;
    }
};

pub fn attention(args: *const anyopaque, index: usize, memory: [*]align(64) u8) callconv(.c) void {
    const a: *const Attention = @ptrCast(@alignCast(args));
    const query_first = index % a.query_block_count * a.query_block;
    const head_size = a.channels / a.head_count;
    const t: Task = .{
        .args = a,
        .batch = index / a.query_block_count / a.head_count,
        .head = index / a.query_block_count % a.head_count,
        .query_first = query_first,
        .query_count = @min(a.query_block, a.query_count - query_first),
        .head_size = head_size,
        .head_width = std.mem.alignForward(usize, head_size, lanes),
        .scale = @floatCast(std.math.log2e / @sqrt(@as(f64, @floatFromInt(head_size)))),
        .work = .of(memory),
    };
    const tile_count = (t.query_count + tile.rows_max - 1) / tile.rows_max;
    pack.zeroFloats(t.work.output, tile_count * tile.rows_max * t.head_width);
    @memset(t.work.sums[0..t.query_count], 0);
    @memset(t.work.largest[0..t.query_count], -std.math.inf(f32));
    for (a.chunks[0..a.chunk_count]) |chunk| {
        var first: usize = 0;
        while (first < chunk.token_count) : (first += a.key_block) {
            if (a.causal and first >= query_first + t.query_count) break;
            attendBlock(&t, chunk, first, @min(a.key_block, chunk.token_count - first));
        }
    }
    writeOutput(&t);
}

fn attendBlock(
    t: *const Task,
    chunk: arguments.KeysValues,
    key_first: usize,
    key_count: usize,
) void {
    const stride = 2 * t.args.channels;
    const row = t.batch * chunk.token_count + key_first;
    const keys = chunk.data + row * stride + t.head * t.head_size;
    pack.packColumns(.f32, .{
        .source = keys,
        .scales = {},
        .stride = stride,
        .count = key_count,
        .depth = t.head_size,
    }, t.work.keys);
    packValues(t, keys + t.args.channels, stride, key_count);
    var query: usize = 0;
    while (query < t.query_count) : (query += tile.rows_max) {
        const rows = @min(tile.rows_max, t.query_count - query);
        packQueries(t, query, rows);
        score(t, rows, key_count);
        for (0..rows) |r| {
            const visible = if (t.args.causal)
                @min(key_count, (t.query_first + query + r + 1) -| key_first)
            else
                key_count;
            if (key_count > short_row_max) {
                weigh(step_vectors_max, t, query + r, r, key_count, visible);
            } else {
                weigh(2, t, query + r, r, key_count, visible);
            }
        }
        addValues(t, query, rows, key_count);
    }
}

/// The head's columns of the values as panels of `tile.columns_max`, zeros beyond the head.
fn packValues(t: *const Task, values: [*]const f32, stride: usize, key_count: usize) void {
    var column: usize = 0;
    while (column < t.head_size) : (column += tile.columns_max) {
        const count = @min(tile.columns_max, t.head_size - column);
        const width = tile.panelColumns(count);
        const panel = t.work.values + column * tile.per_word * tile.words(key_count);
        if (v.bf16) {
            pairValues(@ptrCast(@alignCast(panel)), values + column, stride, key_count, count);
            continue;
        }
        for (0..key_count) |k| {
            const target = panel + k * width;
            pack.copyFloats(target, values + k * stride + column, count);
            for (count..width) |c| target[c] = 0;
        }
    }
}

/// As above for one panel of bf16: a word holds the values of two keys.
fn pairValues(
    panel: [*]f32,
    values: [*]const f32,
    stride: usize,
    key_count: usize,
    count: usize,
) void {
    const width = tile.panelColumns(count);
    var k: usize = 0;
    while (k < key_count) : (k += 2) {
        const row = values + k * stride;
        var c: usize = 0;
        while (c < width) : (c += lanes) {
            const left = count -| c;
            const even = v.loadUpTo(row + c, left);
            const odd = if (k + 1 < key_count) v.loadUpTo(row + stride + c, left) else v.splat(0);
            v.store(panel + k / 2 * width + c, pairs.interleave(even, odd));
        }
    }
}

fn packQueries(t: *const Task, query: usize, rows: usize) void {
    for (0..rows) |r| {
        const source = t.queries() + (query + r) * t.args.channels;
        const target = t.work.queries + r * tile.row_elements;
        var c: usize = 0;
        while (c < t.head_size) : (c += lanes) {
            const count = t.head_size - c;
            const scaled = v.loadUpTo(source + c, count) * v.splat(t.scale);
            if (v.bf16) {
                // Zeros beyond the head: its size may be odd.
                pairs.storeHalf(target + c, scaled);
            } else v.storeUpTo(target + c, scaled, count);
        }
    }
}

fn score(t: *const Task, rows: usize, key_count: usize) void {
    var key: usize = 0;
    while (key < key_count) : (key += tile.columns_max) {
        tile.multiply(rows, key_count - key, .{
            .a = t.work.queries,
            .b = t.work.keys + key * tile.per_word * tile.words(t.head_size),
            .depth = tile.words(t.head_size),
            .c = t.work.scores + key,
            .c_stride = tile.row_stride,
            .accumulate = false,
        });
    }
}

/// The largest of `count` scores and of `before`.
inline fn largestOf(
    comptime step_vectors: usize,
    scores: [*]const f32,
    count: usize,
    before: f32,
) f32 {
    var all: [step_vectors]Vec = @splat(v.splat(before));
    var k: usize = 0;
    while (k < count) : (k += lanes * step_vectors) {
        inline for (&all, 0..) |*largest, i| {
            largest.* = v.maximum(v.load(scores + k + i * lanes), largest.*);
        }
    }
    var largest = all[0];
    inline for (all[1..]) |other| largest = v.maximum(other, largest);
    return v.largest(largest);
}

/// Turns one query's scores, row `r` of the panel, into weights and brings what it gathered so far
/// to the new largest.
fn weigh(
    comptime step_vectors: usize,
    t: *const Task,
    query: usize,
    r: usize,
    key_count: usize,
    visible: usize,
) void {
    const scores = t.work.scores + r * tile.row_stride;
    const padded = std.mem.alignForward(usize, key_count, lanes * step_vectors);
    for (visible..padded) |k| scores[k] = -std.math.inf(f32);
    const largest_before = t.work.largest[query];
    const largest = largestOf(step_vectors, scores, padded, largest_before);
    const offset = v.splat(largest);
    var sums: [step_vectors]Vec = @splat(v.splat(0));
    var k: usize = 0;
    while (k < padded) : (k += lanes * step_vectors) {
        var weights: [step_vectors]Vec = undefined;
        inline for (&weights, &sums, 0..) |*weight, *sum, i| {
            weight.* = v.exp2(v.load(scores + k + i * lanes) - offset);
            sum.* += weight.*;
        }
        if (v.bf16) {
            const target = t.work.weights + r * tile.row_elements + k;
            inline for (0..step_vectors / 2) |i| {
                const pair = v.narrow(weights[2 * i], weights[2 * i + 1]);
                pairs.store(target + 2 * i * lanes, pair);
            }
        } else inline for (weights, 0..) |weight, i| v.store(scores + k + i * lanes, weight);
    }
    var sum = sums[0];
    inline for (sums[1..]) |other| sum += other;
    const shrink = v.exp2(v.splat(largest_before - largest));
    t.work.sums[query] = t.work.sums[query] * shrink[0] + v.sum(sum);
    t.work.largest[query] = largest;
    if (shrink[0] == 1) return;
    const output = t.work.output + query * t.head_width;
    var c: usize = 0;
    while (c < t.head_width) : (c += lanes) v.store(output + c, v.load(output + c) * shrink);
}

fn addValues(t: *const Task, query: usize, rows: usize, key_count: usize) void {
    var column: usize = 0;
    while (column < t.head_size) : (column += tile.columns_max) {
        tile.multiply(rows, t.head_size - column, .{
            .a = t.work.weights,
            .b = t.work.values + column * tile.per_word * tile.words(key_count),
            .depth = tile.words(key_count),
            .c = t.work.output + query * t.head_width + column,
            .c_stride = t.head_width,
            .accumulate = true,
        });
    }
}

fn writeOutput(t: *const Task) void {
    const row = t.batch * t.args.query_count + t.query_first;
    for (0..t.query_count) |r| {
        const source = t.work.output + r * t.head_width;
        const target = t.args.out + (row + r) * t.args.channels + t.head * t.head_size;
        const factor = v.splat(1 / t.work.sums[r]);
        var c: usize = 0;
        while (c < t.head_size) : (c += lanes) {
            v.storeUpTo(target + c, v.load(source + c) * factor, t.head_size - c);
        }
    }
}
