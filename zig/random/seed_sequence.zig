//! numpy's `SeedSequence`: 32-bit seeds of parallel generators from one number and a key for each.
//! Source: numpy/random/bit_generator.pyx (after O'Neill's seed_seq_fe).

const std = @import("std");

/// 32-bit words of a number: at least one.
const WordsOf = struct {
    words: [2]u32,
    count: usize,

    fn init(value: u64) WordsOf {
        const high: u32 = @truncate(value >> 32);
        return .{ .words = .{ @truncate(value), high }, .count = if (high == 0) 1 else 2 };
    }
};

pub fn SeedSequence(comptime pool_size: usize) type {
    return struct {
        pool: [pool_size]u32,

        const Self = @This();

        /// `SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size)`; an empty key is none.
        pub fn init(entropy: u64, spawn_key: []const u64) Self {
            var words: [pool_size + 2 * spawn_key_max]u32 = @splat(0);
            const run: WordsOf = .init(entropy);
            @memcpy(words[0..run.count], run.words[0..run.count]);
            // With a key, the number before it is as long as the pool.
            var count: usize = pool_size;
            for (spawn_key) |value| {
                const key: WordsOf = .init(value);
                @memcpy(words[count..][0..key.count], key.words[0..key.count]);
                count += key.count;
            }
            var hash_constant: u32 = 0x43b0d7e5;
            var pool: [pool_size]u32 = undefined;
            for (&pool, words[0..pool_size]) |*entry, word| {
                entry.* = hashed(word, &hash_constant, 0x931e8875);
            }
            for (0..pool_size) |source| {
                for (0..pool_size) |target| {
                    if (source == target) continue;
                    const value = hashed(pool[source], &hash_constant, 0x931e8875);
                    pool[target] = mixed(pool[target], value);
                }
            }
            for (words[pool_size..count]) |word| {
                for (&pool) |*entry| {
                    entry.* = mixed(entry.*, hashed(word, &hash_constant, 0x931e8875));
                }
            }
            return .{ .pool = pool };
        }

        /// The first word of `generate_state`.
        pub fn firstWord(sequence: *const Self) u32 {
            var hash_constant: u32 = 0x8b51f9dd;
            return hashed(sequence.pool[0], &hash_constant, 0x58f38ded);
        }
    };
}

// --- internal ---

const spawn_key_max = 2;

fn hashed(word: u32, constant: *u32, factor: u32) u32 {
    const value = word ^ constant.*;
    constant.* *%= factor;
    const product = value *% constant.*;
    return product ^ (product >> 16);
}

fn mixed(x: u32, y: u32) u32 {
    const result = 0xca01f9dd *% x -% 0x4973f715 *% y;
    return result ^ (result >> 16);
}

test "seeds are numpy's" {
    // numpy.random.SeedSequence(entropy, spawn_key=key, pool_size=24).generate_state(1)
    const Case = struct { u64, []const u64, u32 };
    const cases = [_]Case{
        .{ 0, &.{}, 4025752534 },
        .{ (1 << 40) + 7, &.{ 0, 0 }, 3031313268 },
        .{ (1 << 40) + 7, &.{ 3, 2 }, 500983476 },
        .{ (1 << 40) + 7, &.{ (1 << 33) + 5, 34 }, 1192617053 },
    };
    for (cases) |case| {
        const sequence: SeedSequence(24) = .init(case[0], case[1]);
        try std.testing.expectEqual(case[2], sequence.firstWord());
    }
}
