//! The normal random numbers of torch on a CUDA device (`torch.Generator("cuda")`), on any device:
//! Philox4x32-10 with one subsequence for each thread of torch's grid. cuda/philox_normal.cu is the
//! same on a GPU.
//! Thread i of T computes, in its k-th turn, the elements i + (4 k + 0..3) T of a tensor. T is one
//! per element until the GPU's grid is full. For larger tensors torch's numbers differ between
//! GPUs; here they are those of an H100 or H200.
//! Sources: aten/src/ATen/native/cuda/DistributionTemplates.h of PyTorch (grid, order, offsets),
//! Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (Philox).

const std = @import("std");

/// Threads per block of torch's distribution kernels.
const block_size = 256;
/// Numbers that a thread computes in one turn.
const turn_count = 4;

/// The part of the random sequence that fills one tensor.
pub const Draw = struct {
    seed: u64,
    /// Turns that earlier tensors have used.
    turn_first: u64,
    thread_count: u32,
    /// Elements of the tensor that are left out.
    element_first: u64 = 0,

    /// The same tensor from another element on.
    pub fn from(draw: Draw, element_first: u64) Draw {
        var later = draw;
        later.element_first = element_first;
        return later;
    }
};

/// `torch.Generator("cuda").manual_seed(seed)`.
pub const PhiloxGenerator = struct {
    seed: u64,
    /// Turns used so far (torch's `philox_offset_per_thread`).
    turn: u64 = 0,
    /// multiprocessors * (threads per multiprocessor / 256), as in `calc_execution_policy`.
    block_count_max: u32,

    /// Grid of an H100 SXM or H200: 132 multiprocessors of 2048 threads. One wave is 270,336
    /// numbers, a latent of 67,584 positions or 2048x2112 pixels. GPUs whose grid holds the latent
    /// give the same numbers: up to 221,184 on an A100 (1856x1856 pixels), 196,608 on an RTX 4090
    /// (1760x1760), 89,088 on an L4 (1184x1184), 40,960 on a T4 (800x800).
    pub const block_count_reference = 132 * (2048 / block_size);

    pub fn init(seed: u64, block_count_max: u32) PhiloxGenerator {
        return .{ .seed = seed, .block_count_max = block_count_max };
    }

    /// Takes the part of the sequence for the next tensor, of `element_count` elements.
    pub fn next(generator: *PhiloxGenerator, element_count: u64) Draw {
        const block_count = @min(
            generator.block_count_max,
            @max(1, std.math.divCeil(u64, element_count, block_size) catch unreachable),
        );
        const draw: Draw = .{
            .seed = generator.seed,
            .turn_first = generator.turn,
            .thread_count = @intCast(block_count * block_size),
        };
        const per_turn = @as(u64, draw.thread_count) * turn_count;
        generator.turn += std.math.divCeil(u64, element_count, per_turn) catch unreachable;
        return draw;
    }

    /// Standard normal numbers in the order of `torch.randn(out.len, device="cuda")`.
    pub fn fillNormal(generator: *PhiloxGenerator, out: []f32) void {
        fill(generator.next(out.len), out, 1, 1);
    }
};

/// Fills `out` (positions, channels) with the numbers of `draw` times `scale`; torch's order is
/// (channels, positions).
pub fn fill(draw: Draw, out: []f32, channels: usize, scale: f32) void {
    const positions = @divExact(out.len, channels);
    var row = draw.element_first / draw.thread_count;
    var thread: u32 = @intCast(draw.element_first % draw.thread_count);
    for (0..channels) |channel| {
        for (0..positions) |position| {
            out[position * channels + channel] = normalOf(draw, row, thread) * scale;
            thread += 1;
            if (thread < draw.thread_count) continue;
            thread = 0;
            row += 1;
        }
    }
}

// --- internal ---

/// A thread's number in a row of the tensor.
fn normalOf(draw: Draw, row: u64, thread: u32) f32 {
    const words = wordsOf(draw.seed, draw.turn_first + row / turn_count, thread);
    return switch (@as(u2, @truncate(row % turn_count))) {
        0 => boxMuller(words[0], words[1], .sine),
        1 => boxMuller(words[0], words[1], .cosine),
        2 => boxMuller(words[2], words[3], .sine),
        3 => boxMuller(words[2], words[3], .cosine),
    };
}

fn wordsOf(seed: u64, turn: u64, subsequence: u32) [4]u32 {
    const counter: [4]u32 = .{ @truncate(turn), @truncate(turn >> 32), subsequence, 0 };
    return tenRounds(counter, .{ @truncate(seed), @truncate(seed >> 32) });
}

/// Philox4x32-10 of one counter.
fn tenRounds(counter: [4]u32, key: [2]u32) [4]u32 {
    var c = counter;
    var k = key;
    for (0..10) |_| {
        const a = @as(u64, 0xd2511f53) * c[0];
        const b = @as(u64, 0xcd9e8d57) * c[2];
        c = .{
            @as(u32, @truncate(b >> 32)) ^ c[1] ^ k[0],
            @truncate(b),
            @as(u32, @truncate(a >> 32)) ^ c[3] ^ k[1],
            @truncate(a),
        };
        k = .{ k[0] +% 0x9e3779b9, k[1] +% 0xbb67ae85 };
    }
    return c;
}

/// One number of Box-Muller's two as in cuRAND: radius and angle are rounded to f32, sine and
/// cosine are exact. cuRAND uses the GPU's fast functions, with errors up to 2^-21.
fn boxMuller(x: u32, y: u32, half: enum { sine, cosine }) f32 {
    const unit: f32 = 0x1p-32;
    const turn: f32 = unit * 6.2831855;
    const u = @mulAdd(f32, @floatFromInt(x), unit, unit / 2);
    const v: f64 = @mulAdd(f32, @floatFromInt(y), turn, turn / 2);
    const radius = @sqrt(-2.0 * @log(@as(f64, u)));
    return @floatCast(radius * if (half == .sine) @sin(v) else @cos(v));
}

const testing = std.testing;

test "Philox4x32-10 gives the known answers of its authors" {
    // kat_vectors of Random123.
    const ones: u32 = 0xffffffff;
    const cases = [_][3][4]u32{
        .{ @splat(0), @splat(0), .{ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        .{ @splat(ones), @splat(ones), .{ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        .{
            .{ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
            .{ 0xa4093822, 0x299f31d0, 0, 0 },
            .{ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
        },
    };
    for (cases) |case| {
        try testing.expectEqual(case[2], tenRounds(case[0], case[1][0..2].*));
    }
}

test "a seed draws what torch has printed on CUDA devices, call after call" {
    // Half a unit of the fourth decimal, which is what torch prints.
    const tolerance = 5.1e-5;
    const seed_0 = [_]f32{
        -0.9247, -0.4253, -2.6438, 0.1452,  -0.1209, -0.5797, -0.6229, -0.3284,
        -1.0745, -0.3631, -1.6711, 2.2655,  0.3117,  -0.1842, 1.2866,  1.1820,
        -0.1271, 1.2169,  1.4353,  1.0605,  -0.4941, -1.4244, -0.7244, -1.2973,
        0.0697,  -0.0074, 1.8969,  0.6878,  -0.0779, -0.8373, 1.3506,  -0.2879,
        -0.5965, -0.3283, -0.9086, -0.8059, -0.7407, -0.0504, 0.5435,  1.5150,
        0.0141,  0.4532,  1.6349,  0.7124,  -0.1806, 1.0252,  -1.4622, -0.7554,
        -0.1836, 0.3824,  0.3918,  -0.0830, 0.8971,  -1.1123, 0.1116,  0.4863,
        -0.5499, -0.3231, -0.5469, 0.9049,  0.2837,  0.1210,  0.4730,  -1.0823,
    };
    var generator: PhiloxGenerator = .init(0, PhiloxGenerator.block_count_reference);
    var drawn: [64]f32 = undefined;
    generator.fillNormal(&drawn);
    for (seed_0, drawn) |e, x| try testing.expectApproxEqAbs(e, x, tolerance);
    // Four calls of four numbers each.
    const seed_42 = [_][4]f32{
        .{ 0.1940, 2.1614, -0.1721, 0.8491 },  .{ 0.1391, -0.1082, -0.7174, 0.7566 },
        .{ -0.5187, 1.2268, 0.6255, -0.9117 }, .{ -0.6974, -1.8688, -0.8832, -1.6627 },
    };
    generator = .init(42, PhiloxGenerator.block_count_reference);
    for (seed_42) |expected| {
        generator.fillNormal(drawn[0..4]);
        for (expected, drawn[0..4]) |e, x| try testing.expectApproxEqAbs(e, x, tolerance);
    }
    // Elements 778 to 783 of a tensor of 1823 * 781.
    generator = .init(42, 40 * 4);
    const large = try testing.allocator.alloc(f32, 1823 * 781);
    defer testing.allocator.free(large);
    generator.fillNormal(large);
    const middle = [_]f32{ -0.8353, -1.6443, 0.1315, -0.1797, 0.9744, -2.0136 };
    for (middle, large[778..784]) |e, x| try testing.expectApproxEqAbs(e, x, tolerance);
}

test "beyond the grid, threads go on as torch's loop does" {
    // torch's kernel, thread by thread and word by word.
    const counts = [_]usize{ 1, 255, 256, 257, 1024, 2047, 2048, 2049, 7000 };
    var out: [7000]f32 = undefined;
    var generator: PhiloxGenerator = .init(0x123456789abcdef, 2);
    var offset: u64 = 0;
    for (counts) |count| {
        generator.fillNormal(out[0..count]);
        const grid: usize = @min(2, (count + 255) / 256);
        const rounded = ((count - 1) / (256 * grid * 4) + 1) * 256 * grid * 4;
        for (0..grid * 256) |index| {
            var state = offset;
            var linear = index;
            while (linear < rounded) : (linear += 256 * grid * 4) {
                const words = wordsOf(generator.seed, state / 4, @intCast(index));
                const four = [_]f32{
                    boxMuller(words[0], words[1], .sine),
                    boxMuller(words[0], words[1], .cosine),
                    boxMuller(words[2], words[3], .sine),
                    boxMuller(words[2], words[3], .cosine),
                };
                state += 4;
                for (four, 0..) |value, ii| {
                    const li = linear + 256 * grid * ii;
                    if (li < count) try testing.expectEqual(value, out[li]);
                }
            }
        }
        offset += ((count - 1) / (256 * grid * 4) + 1) * 4;
        try testing.expectEqual(offset, generator.turn * 4);
    }
}

test "no element is drawn twice and the numbers are standard normal" {
    const count = 1 << 17;
    const out = try testing.allocator.alloc(f32, count);
    defer testing.allocator.free(out);
    var generator: PhiloxGenerator = .init(7, 20);
    generator.fillNormal(out);
    var sum: f64 = 0;
    var square: f64 = 0;
    for (out) |x| {
        sum += x;
        square += @as(f64, x) * x;
    }
    // Five standard deviations of either mean.
    try testing.expectApproxEqAbs(@as(f64, 0), sum / count, 0.014);
    try testing.expectApproxEqAbs(@as(f64, 1), square / count, 0.02);
}
