//! PyTorch's normal random numbers: a seed gives the same numbers as `torch.Generator("cpu")`, and
//! so the same image as diffusers. Every rank has its own generator and samples the noise of the
//! whole latent: that is cheaper than sending it, and the same for any number of ranks.
//! Sources: aten/src/ATen/core/MT19937RNGEngine.h, ATen/native/cpu/DistributionTemplates.h
//! (normal_fill), ATen/core/DistributionsHelper.h (normal_distribution) of PyTorch.
//!
//! `random/philox.zig` is the generator of torch on CUDA devices; `random/brownian.zig` the noise
//! of SDE samplers, whose nodes `random/seed_sequence.zig` seeds.

const std = @import("std");
const assert = std.debug.assert;
pub const brownian = @import("random/brownian.zig");
const philox = @import("random/philox.zig");

/// The torch generator that a seed initialises.
pub const Rng = enum(u32) {
    /// `torch.Generator("cpu")`.
    cpu = 0,
    /// `torch.Generator("cuda")`; see `random/philox.zig`.
    cuda = 1,
};

/// A generator on the host, which fills tensors one after the other, each in any number of parts.
pub const Generator = struct {
    source: union(Rng) { cpu: CpuGenerator, cuda: philox.PhiloxGenerator },
    /// The tensor that is being filled: the next element, and their number.
    position: u64 = 0,
    end: u64 = 0,
    /// Of that tensor, for `cuda`.
    draw: philox.Draw = undefined,

    pub fn init(rng: Rng, seed: u64) Generator {
        return .{ .source = switch (rng) {
            .cpu => .{ .cpu = .init(seed) },
            .cuda => .{ .cuda = .init(seed, philox.PhiloxGenerator.block_count_reference) },
        } };
    }

    /// Begins the next tensor of `count` elements, `first` of which are left out. Unless it is
    /// filled whole by one call, a number of elements must be a multiple of 16.
    pub fn enterTensor(generator: *Generator, count: u64, first: u64) void {
        const unfilled = generator.end - generator.position;
        switch (generator.source) {
            .cpu => |*cpu| cpu.skip(unfilled + first),
            .cuda => |*cuda| generator.draw = cuda.next(count),
        }
        generator.position = first;
        generator.end = count;
    }

    /// The rest of the tensor, for a device to fill: `cuda` only.
    pub fn rest(generator: *Generator) philox.Draw {
        defer generator.position = generator.end;
        return generator.draw.from(generator.position);
    }

    /// The next elements of the tensor: standard normal numbers as torch makes them.
    pub fn fillNormal(generator: *Generator, out: []f32) void {
        const is_whole = out.len == generator.end;
        assert(is_whole or (out.len % 16 == 0 and generator.position % 16 == 0));
        switch (generator.source) {
            .cpu => |*cpu| cpu.fillNormal(out),
            .cuda => philox.fill(generator.draw.from(generator.position), out, 1, 1),
        }
        generator.position += out.len;
        assert(generator.position <= generator.end);
    }
};

/// The 32-bit Mersenne Twister of Matsumoto and Nishimura.
pub const Mt19937 = struct {
    state: [state_count]u32,
    position: usize,

    const state_count = 624;
    const middle = 397;

    pub fn init(seed: u32) Mt19937 {
        var engine: Mt19937 = .{ .state = undefined, .position = state_count };
        engine.state[0] = seed;
        for (1..state_count) |i| {
            const previous = engine.state[i - 1];
            engine.state[i] = 1812433253 *% (previous ^ (previous >> 30)) +% @as(u32, @intCast(i));
        }
        return engine;
    }

    pub fn next(engine: *Mt19937) u32 {
        if (engine.position == state_count) engine.twist();
        var y = engine.state[engine.position];
        engine.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680;
        y ^= (y << 15) & 0xefc60000;
        return y ^ (y >> 18);
    }

    fn skip(engine: *Mt19937, count: u64) void {
        var rest = count;
        while (rest > state_count - engine.position) {
            rest -= state_count - engine.position;
            engine.twist();
        }
        engine.position += @intCast(rest);
    }

    fn twist(engine: *Mt19937) void {
        const s = &engine.state;
        for (0..state_count) |i| {
            const y = (s[i] & 0x80000000) | (s[(i + 1) % state_count] & 0x7fffffff);
            const mixed: u32 = if (y & 1 == 1) 0x9908b0df else 0;
            s[i] = s[(i + middle) % state_count] ^ (y >> 1) ^ mixed;
        }
        engine.position = 0;
    }
};

/// `torch.Generator("cpu").manual_seed(seed)`.
pub const CpuGenerator = struct {
    engine: Mt19937,
    /// The second number of a pair (torch's `next_double_normal_sample`).
    spare: ?f64 = null,

    /// torch seeds the engine with the lower 32 bits.
    pub fn init(seed: u64) CpuGenerator {
        return .{ .engine = .init(@truncate(seed)) };
    }

    /// Standard normal numbers in the order of `torch.randn(out.len)`. They depend on the number of
    /// elements, not on the shape: for fewer than 16 torch uses another algorithm.
    pub fn fillNormal(generator: *CpuGenerator, out: []f32) void {
        if (out.len < 16) {
            for (out) |*value| value.* = @floatCast(generator.nextNormal());
            return;
        }
        for (out) |*value| value.* = generator.uniformF32();
        var first: usize = 0;
        while (first + 16 <= out.len) : (first += 16) boxMuller(out[first..][0..16]);
        if (out.len % 16 != 0) {
            const tail = out[out.len - 16 ..][0..16];
            for (tail) |*value| value.* = generator.uniformF32();
            boxMuller(tail);
        }
    }

    /// Leaves out `count` numbers, a multiple of 16, of a tensor of 16 or more.
    pub fn skip(generator: *CpuGenerator, count: u64) void {
        assert(count % 16 == 0);
        generator.engine.skip(count);
    }

    // --- internal ---

    /// Uniform in [0, 1) from 24 random bits, which f32 holds exactly.
    fn uniformF32(generator: *CpuGenerator) f32 {
        const bits = generator.engine.next() & ((1 << 24) - 1);
        return @as(f32, @floatFromInt(bits)) * 0x1p-24;
    }

    fn uniformF64(generator: *CpuGenerator) f64 {
        const high: u64 = generator.engine.next();
        const low: u64 = generator.engine.next();
        const bits = ((high << 32) | low) & ((1 << 53) - 1);
        return @as(f64, @floatFromInt(bits)) * 0x1p-53;
    }

    fn nextNormal(generator: *CpuGenerator) f64 {
        if (generator.spare) |value| {
            generator.spare = null;
            return value;
        }
        const u1_ = generator.uniformF64();
        const u2_ = generator.uniformF64();
        const radius = @sqrt(-2.0 * std.math.log1p(-u2_));
        const theta = 2.0 * std.math.pi * u1_;
        generator.spare = radius * @sin(theta);
        return radius * @cos(theta);
    }
};

/// torch's normal_fill_16 (Box-Muller): values 0..7 are the radii, 8..15 the angles. Angles are
/// rounded to f32 as in torch; sine and cosine are exact.
fn boxMuller(values: *[16]f32) void {
    for (0..8) |i| {
        const uniform: f64 = 1.0 - values[i];
        const radius: f64 = @sqrt(-2.0 * @log(uniform));
        const theta: f32 = 2.0 * @as(f32, std.math.pi) * values[i + 8];
        values[i] = @floatCast(radius * @cos(@as(f64, theta)));
        values[i + 8] = @floatCast(radius * @sin(@as(f64, theta)));
    }
}

const testing = std.testing;

test "the engine gives the reference sequence of mt19937" {
    // The 10000th output for seed 5489 is fixed by the C++ standard ([rand.predef]).
    var engine: Mt19937 = .init(5489);
    for (1..10000) |_| _ = engine.next();
    try testing.expectEqual(@as(u32, 4123659995), engine.next());
}

test "any length is filled with finite numbers of about unit variance" {
    var buffer: [4099]f32 = undefined;
    for ([_]usize{ 0, 1, 15, 16, 17, 31, 4096, 4099 }) |len| {
        var generator: CpuGenerator = .init(3);
        generator.fillNormal(buffer[0..len]);
        var sum: f64 = 0;
        for (buffer[0..len]) |value| sum += @as(f64, value) * value;
        try testing.expect(std.math.isFinite(sum));
        if (len > 4000) try testing.expectApproxEqAbs(@as(f64, 1), sum / 4096.0, 0.1);
    }
}

test "tensors in parts are those of whole calls" {
    for ([_]Rng{ .cpu, .cuda }) |rng| {
        var whole: Generator = .init(rng, 5);
        var parts: Generator = .init(rng, 5);
        var a: [1392]f32 = undefined;
        var b: [1392]f32 = undefined;
        for ([_][2]usize{ .{ 0, 1392 }, .{ 48, 96 }, .{ 640, 16 }, .{ 0, 640 } }) |range| {
            whole.enterTensor(1392, 0);
            whole.fillNormal(&a);
            parts.enterTensor(1392, range[0]);
            const middle = range[1] / 32 * 16;
            parts.fillNormal(b[0..middle]);
            parts.fillNormal(b[middle..range[1]]);
            try testing.expectEqualSlices(f32, a[range[0]..][0..range[1]], b[0..range[1]]);
        }
    }
}

test "seeds that differ above 32 bits draw alike, as in torch" {
    var a: CpuGenerator = .init(42);
    var b: CpuGenerator = .init(42 + (1 << 32));
    var x: [64]f32 = undefined;
    var y: [64]f32 = undefined;
    a.fillNormal(&x);
    b.fillNormal(&y);
    try testing.expectEqualSlices(f32, &x, &y);
}
