//! The noise of `torchsde.BrownianTree`, which the SDE samplers of k-diffusion read: a Brownian
//! path over noise levels, of which each step takes an increment. The path is a binary tree of
//! intervals; a child's increment is half of its parent's and noise of a generator that the node
//! seeds. So a path depends on its seed and its range alone, not on the steps.
//! Sources: torchsde/_brownian/brownian_interval.py (halfway_tree), k_diffusion/sampling.py
//! (BrownianTreeNoiseSampler).
//!
//! Arithmetic is torch's on a CPU, rounding by rounding: the numbers differ from torchsde's only as
//! the generator's normal numbers differ from torch's, in the last place.
//!
//! No node is kept: all are elementwise, so a query goes through the latent in blocks, and every
//! node of the query has a generator that goes on from block to block.

const std = @import("std");
const Allocator = std.mem.Allocator;
const assert = std.debug.assert;
const random = @import("../random.zig");
const SeedSequence = @import("seed_sequence.zig").SeedSequence;

/// The greatest noise level of a path: the tree is no deeper than `depth_max` then.
pub const level_max = 1e6;

/// A path from noise level `min` to `max`; both are f32, as the sampler's sigmas.
pub const Path = struct {
    seed: u64,
    min: f32,
    max: f32,

    fn root(path: Path) Node {
        return .{ .start = rounded(path.min), .end = rounded(path.max), .key = 0, .depth = 0 };
    }
};

/// Which numbers of torch's tensors are computed: `element_count` from `element_first` on.
pub const Part = struct {
    element_first: u64,
    element_count: u64,
    /// Of torch's tensors, which hold all images of a batch where they share a path.
    tensor_count: u64,
};

/// Memory for one query at a time, whatever the latent's size.
pub const Workspace = struct {
    splits: []Split,
    /// Increments of a block: left and right child at each depth.
    levels: [][2][block_size]f32,

    pub fn init(arena: Allocator) Allocator.Error!Workspace {
        return .{
            // Two ways down, to both ends of the interval.
            .splits = try arena.alloc(Split, 2 * depth_max),
            .levels = try arena.alloc([2][block_size]f32, depth_max + 1),
        };
    }

    /// The noise of a step from level `from` to `to`: the path's increment over the square root of
    /// its length, of unit variance. Zeros where the two are the same level to 6 digits.
    pub fn noise(
        workspace: *Workspace,
        path: Path,
        rng: random.Rng,
        from: f32,
        to: f32,
        part: Part,
        out: []f32,
    ) void {
        assert(out.len == part.element_count);
        assert(part.element_first % 16 == 0 and part.element_count % 16 == 0);
        const root = path.root();
        const first = std.math.clamp(rounded(@min(from, to)), root.start, root.end);
        const last = std.math.clamp(rounded(@max(from, to)), root.start, root.end);
        if (first == last) return @memset(out, 0);
        const sequence: SeedSequence(pool_size) = .init(path.seed, &.{});
        var top: random.Generator = .init(rng, sequence.firstWord());
        top.enterTensor(part.tensor_count, part.element_first);
        var query: Query = .{
            .workspace = workspace,
            .path = path,
            .rng = rng,
            .part = part,
        };
        const takes_root = first == root.start and last == root.end;
        if (!takes_root) query.plan(root, first, last);
        const top_factor: f32 = @floatCast(@sqrt(@as(f64, path.max) - path.min));
        const length: f32 = @sqrt(@abs(to - from));
        const sign: f32 = if (from < to) 1 else -1;
        var done: usize = 0;
        while (done < out.len) : (done += block_size) {
            const block = out[done..@min(out.len, done + block_size)];
            const whole = workspace.levels[0][0][0..block.len];
            top.fillNormal(whole);
            for (whole) |*value| value.* *= top_factor;
            if (takes_root) @memcpy(block, whole) else query.sum(whole, block);
            for (block) |*value| value.* = value.* * sign / length;
        }
    }
};

// --- internal ---

/// Of torchsde's SeedSequence.
const pool_size = 24;
/// Numbers that are computed together: a multiple of 16, as the CPU's generator needs.
const block_size = 256;
/// Halvings of `level_max` down to the tolerance of 1e-6, and some for its rounding.
const depth_max = 44;

/// An interval of the tree.
const Node = struct {
    start: f64,
    end: f64,
    /// The way from the root: a bit for each right turn.
    key: u64,
    depth: u32,

    fn middle(node: Node) f64 {
        return rounded(0.5 * (node.end + node.start));
    }

    fn left(node: Node) Node {
        return .{
            .start = node.start,
            .end = node.middle(),
            .key = 2 * node.key,
            .depth = node.depth + 1,
        };
    }

    fn right(node: Node) Node {
        return .{
            .start = node.middle(),
            .end = node.end,
            .key = 2 * node.key + 1,
            .depth = node.depth + 1,
        };
    }
};

/// What a query does with a child.
const Use = enum { none, whole, split };

/// A node that a query divides. In f32, as torch's scalars are where the tensor is.
const Split = struct {
    generator: random.Generator,
    left_length: f32,
    reciprocal: f32,
    deviation: f32,
    left: Use,
    right: Use,
};

/// The nodes below the root that make up an interval, from left to right.
const Query = struct {
    workspace: *Workspace,
    path: Path,
    rng: random.Rng,
    part: Part,
    /// Of the workspace's, parents before children.
    split_count: usize = 0,
    next: usize = 0,
    has_sum: bool = false,

    /// Lists the divisions of `node` for the interval [first, last] in it, which is not all of it.
    fn plan(query: *Query, node: Node, first: f64, last: f64) void {
        assert(node.start <= first and first < last and last <= node.end);
        const middle = node.middle();
        const split = &query.workspace.splits[query.split_count];
        query.split_count += 1;
        const sequence: SeedSequence(pool_size) =
            .init(query.path.seed, &.{ node.key, node.depth });
        const left_length = middle - node.start;
        const reciprocal = 1 / (node.end - node.start);
        split.* = .{
            .generator = .init(query.rng, sequence.firstWord()),
            .left_length = @floatCast(left_length),
            .reciprocal = @floatCast(reciprocal),
            .deviation = @floatCast(@sqrt(left_length * (node.end - middle) * reciprocal)),
            .left = useOf(node.left(), first, @min(last, middle)),
            .right = useOf(node.right(), @max(first, middle), last),
        };
        split.generator.enterTensor(query.part.tensor_count, query.part.element_first);
        const left_use = split.left;
        const right_use = split.right;
        if (left_use == .split) query.plan(node.left(), first, @min(last, middle));
        if (right_use == .split) query.plan(node.right(), @max(first, middle), last);
    }

    fn useOf(child: Node, first: f64, last: f64) Use {
        if (first >= last) return .none;
        return if (first == child.start and last == child.end) .whole else .split;
    }

    /// The next block of the interval's increment, from that of the root.
    fn sum(query: *Query, root: []const f32, out: []f32) void {
        query.next = 0;
        query.has_sum = false;
        query.divide(root, 1, out);
        assert(query.next == query.split_count);
    }

    fn divide(query: *Query, increment: []const f32, depth: usize, out: []f32) void {
        const split = &query.workspace.splits[query.next];
        query.next += 1;
        const children = &query.workspace.levels[depth];
        const left = children[0][0..increment.len];
        const right = children[1][0..increment.len];
        split.generator.fillNormal(left);
        for (left, right, increment) |*l, *r, whole| {
            const mean = split.left_length * whole * split.reciprocal;
            l.* = mean + split.deviation * l.*;
            r.* = whole - l.*;
        }
        query.use(split.left, left, depth, out);
        query.use(split.right, right, depth, out);
    }

    fn use(query: *Query, how: Use, increment: []const f32, depth: usize, out: []f32) void {
        switch (how) {
            .none => {},
            .split => query.divide(increment, depth + 1, out),
            .whole => if (query.has_sum) {
                for (out, increment) |*total, value| total.* += value;
            } else {
                @memcpy(out, increment);
                query.has_sum = true;
            },
        }
    }
};

/// Python's round(x, 6) of x >= 0: the nearest decimal, ties to even, as the nearest f64.
fn rounded(x: f64) f64 {
    assert(x >= 0 and x <= level_max);
    const parts = std.math.frexp(x);
    // x = mantissa / 2^shift
    const mantissa: u128 = @intFromFloat(parts.significand * 0x1p53);
    const shift = 53 - @as(i32, parts.exponent);
    if (shift >= 100) return 0;
    const scaled = mantissa * 1_000_000;
    const places: u7 = @intCast(shift);
    const unit = @as(u128, 1) << places;
    const whole = scaled >> places;
    const rest = scaled & (unit - 1);
    const is_up = 2 * rest > unit or (2 * rest == unit and whole & 1 == 1);
    return @as(f64, @floatFromInt(whole + @intFromBool(is_up))) / 1e6;
}

const testing = std.testing;

test "levels are rounded as Python rounds" {
    // [round(x, 6) for x in (...)]
    const cases = [_][2]f64{
        .{ 0, 0 },
        .{ 14.614643096923828, 14.614643 },
        .{ 0.029167519882321358, 0.029168 },
        .{ 0.0000005, 0 },
        .{ 0.0000015, 0.000002 },
        .{ 0.0000025, 0.000003 },
        .{ 2.5e-6 + 1, 1.000002 },
        .{ 0.5 / 64.0, 0.007812 },
        .{ 1.5 / 64.0, 0.023438 },
        .{ 1e-30, 0 },
        .{ 999999.9999996, 1000000 },
    };
    for (cases) |case| try testing.expectEqual(case[1], rounded(case[0]));
}

fn expectNear(expected: []const f32, x: []const f32, tolerance: f32) !void {
    for (expected, x) |e, value| try testing.expectApproxEqAbs(e, value, tolerance);
}

test "increments add up over any partition, and do not depend on it" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var workspace: Workspace = try .init(arena.allocator());
    const count = block_size + 48;
    const part: Part = .{ .element_first = 0, .element_count = count, .tensor_count = count };
    for ([_]random.Rng{ .cpu, .cuda }) |rng| {
        const path: Path = .{ .seed = 7, .min = 0.03, .max = 14.6 };
        var whole: [count]f32 = undefined;
        workspace.noise(path, rng, 14.6, 0.03, part, &whole);
        var prng: std.Random.DefaultPrng = .init(3);
        for (0..3) |_| {
            var total: [count]f32 = @splat(0);
            var level: f32 = 14.6;
            while (level > 0.03) {
                const fall = 0.01 + 0.9 * prng.random().float(f32);
                const next = if (level < 0.2) 0.03 else @max(0.03, level * fall);
                var step: [count]f32 = undefined;
                workspace.noise(path, rng, level, next, part, &step);
                for (&total, step) |*sum, value| sum.* += value * @sqrt(level - next);
                level = next;
            }
            for (&total) |*sum| sum.* /= @sqrt(14.6 - 0.03);
            // Some twenty sums of f32 numbers of about 1.
            try expectNear(&whole, &total, 4e-6);
        }
    }
}

test "a part of a tensor is the same as in the whole" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var workspace: Workspace = try .init(arena.allocator());
    const path: Path = .{ .seed = 7, .min = 0.03, .max = 14.6 };
    for ([_]random.Rng{ .cpu, .cuda }) |rng| {
        var whole: [1024]f32 = undefined;
        var one: [336]f32 = undefined;
        const all: Part = .{ .element_first = 0, .element_count = 1024, .tensor_count = 1024 };
        const some: Part = .{ .element_first = 592, .element_count = 336, .tensor_count = 1024 };
        workspace.noise(path, rng, 3, 1.25, all, &whole);
        workspace.noise(path, rng, 3, 1.25, some, &one);
        try testing.expectEqualSlices(f32, whole[592..][0..336], &one);
    }
}

test "noise is of unit variance at any length, and zero for none" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var workspace: Workspace = try .init(arena.allocator());
    const path: Path = .{ .seed = 1, .min = 0.02, .max = level_max };
    const part: Part = .{ .element_first = 0, .element_count = 4096, .tensor_count = 4096 };
    var out: [4096]f32 = undefined;
    const steps = [_][2]f32{ .{ level_max, 14 }, .{ 14, 13.9 }, .{ 0.03, 0.02 }, .{ 0.02, 0.03 } };
    for (steps) |ends| {
        workspace.noise(path, .cpu, ends[0], ends[1], part, &out);
        var square: f64 = 0;
        for (out) |value| square += @as(f64, value) * value;
        // Five standard deviations.
        try testing.expectApproxEqAbs(@as(f64, 1), square / out.len, 0.11);
    }
    workspace.noise(path, .cpu, 3, 3, part, &out);
    for (out) |value| try testing.expectEqual(0, value);
}
