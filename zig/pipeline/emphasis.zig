//! Weights of tokens: what the text encoders gave for each token is changed by its weight, on the
//! host, since it happens once per prompt. The pooled output has no weights, as in A1111 and
//! ComfyUI.
//!
//! Sources: AUTOMATIC1111 modules/sd_emphasis.py; ComfyUI comfy/sd1_clip.py,
//! `encode_token_weights`.

const std = @import("std");
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Tensor = @import("../tensor.zig").Tensor;
const Tokens = @import("job.zig").Tokens;

pub const Emphasis = enum(u32) {
    /// A1111's "Original": states times weights, then times what restores the mean of an encoder's
    /// chunk. Prompts that take turns in an image have one mean, as A1111 encodes them together.
    original = 0,
    /// A1111's "No norm": states times weights.
    no_norm = 1,
    /// ComfyUI: from the state of the empty prompt at the same position, its distance times weight.
    interpolate = 2,
};

/// Applies the weights of the prompts that take turns in one image. `states` (chunks, 1, positions,
/// channels) are changed in place, `empty` are the states of the empty prompt (`text.emptyStates`).
pub fn apply(
    rank: *Rank,
    tokens: []const Tokens,
    states: []const Tensor,
    empty: []const f32,
) Error!void {
    const is_weighed = for (tokens) |one| {
        if (one.weights.len > 0 or one.weights_2.len > 0) break true;
    } else false;
    if (!is_weighed or rank.isPlanning()) return;
    const b = rank.b;
    const config = &rank.model.config.text;
    const chunk_count = states[0].shape.batch;
    const position_count: usize = states[0].shape.width;
    const channel_count: usize = states[0].shape.channels;
    const value_count = position_count * channel_count;
    const room = try rank.arena.alloc(u8, value_count * 4);
    const prompts = try rank.arena.alloc(Prompt, tokens.len);
    for (prompts) |*prompt| prompt.values = try rank.arena.alloc(f32, value_count);
    for (0..chunk_count) |chunk| {
        const at: u32 = @intCast(chunk);
        for (prompts, tokens, states) |*prompt, *one, state| {
            try b.downloadFloats(state.batchSlice(at, 1), prompt.values);
            prompt.repeat_count = one.repeat_count;
        }
        var channel_first: usize = 0;
        const encoders = [_]*const @TypeOf(config.text_encoder){
            &config.text_encoder,
            &config.text_encoder_2,
        };
        for (encoders, 0..) |encoder, which| {
            if (encoder.is_present == 0) continue;
            for (prompts, tokens) |*prompt, *one| {
                const weights = if (which == 0) one.weights else one.weights_2;
                const from = @min(chunk * position_count, weights.len);
                prompt.weights = weights[from..@min(from + position_count, weights.len)];
            }
            const range: Range = .{
                .stride = channel_count,
                .first = channel_first,
                .count = encoder.hidden_size,
            };
            if (!weigh(prompts, range, rank.job.emphasis, empty)) {
                return rank.notFinite("The weights in the prompt gave", .{});
            }
            channel_first += encoder.hidden_size;
        }
        for (prompts, states) |*prompt, state| {
            try b.writeFloats(state.batchSlice(at, 1), prompt.values, room);
        }
    }
}

// --- internal ---

/// One chunk of a prompt.
const Prompt = struct {
    /// (positions, channels)
    values: []f32,
    /// One per position; empty where all are 1.
    weights: []const f32 = &.{},
    repeat_count: u32 = 1,
};

/// The channels of one encoder.
const Range = struct {
    /// Channels of a position.
    stride: usize,
    first: usize,
    count: usize,

    fn of(range: Range, values: anytype, position: usize) @TypeOf(values) {
        return values[position * range.stride + range.first ..][0..range.count];
    }
};

/// Returns false where a result is not finite.
fn weigh(prompts: []Prompt, range: Range, emphasis: Emphasis, empty: []const f32) bool {
    const before = if (emphasis == .original) sumOf(prompts, range) else 0;
    for (prompts) |*prompt| {
        for (prompt.weights, 0..) |weight, position| {
            // As in ComfyUI: (z - e) + e would not be z.
            if (weight == 1) continue;
            const values = range.of(prompt.values, position);
            if (emphasis == .interpolate) {
                for (values, range.of(empty, position)) |*value, e| {
                    value.* = (value.* - e) * weight + e;
                }
            } else for (values) |*value| value.* *= weight;
        }
    }
    if (emphasis == .original) {
        const ratio: f32 = @floatCast(before / sumOf(prompts, range));
        if (ratio != 1) for (prompts) |*prompt| {
            for (0..prompt.values.len / range.stride) |position| {
                for (range.of(prompt.values, position)) |*value| value.* *= ratio;
            }
        };
    }
    for (prompts) |*prompt| {
        for (prompt.values) |value| if (!std.math.isFinite(value)) return false;
    }
    return true;
}

fn sumOf(prompts: []const Prompt, range: Range) f64 {
    var all: f64 = 0;
    for (prompts) |prompt| {
        var sum: f64 = 0;
        for (0..prompt.values.len / range.stride) |position| {
            for (range.of(prompt.values, position)) |value| sum += value;
        }
        all += sum * @as(f64, @floatFromInt(prompt.repeat_count));
    }
    return all;
}

test "weights change the channels of one encoder alone, each mode in its way" {
    const weights = [_]f32{ 1, 2 };
    const empty = [_]f32{ 0, 0, 0, 9, 1, 3 };
    const range: Range = .{ .stride = 3, .first = 1, .count = 2 };
    const cases = .{
        .{ Emphasis.no_norm, [_]f32{ 1, 2, 3, 4, 10, 12 } },
        .{ Emphasis.interpolate, [_]f32{ 1, 2, 3, 4, 9, 9 } },
        // (2 + 3 + 5 + 6) / (2 + 3 + 10 + 12)
        .{
            Emphasis.original,
            [_]f32{ 1, 32.0 / 27.0, 48.0 / 27.0, 4, 160.0 / 27.0, 192.0 / 27.0 },
        },
    };
    inline for (cases) |case| {
        const emphasis, const expected = case;
        var values = [_]f32{ 1, 2, 3, 4, 5, 6 };
        var prompts = [_]Prompt{.{ .values = &values, .weights = &weights }};
        try std.testing.expect(weigh(&prompts, range, emphasis, &empty));
        for (values, expected) |value, e| try std.testing.expectApproxEqRel(e, value, 1e-6);
    }
}

test "prompts that take turns have one mean, each counted as often as it is there" {
    const weights = [_]f32{3};
    const range: Range = .{ .stride = 1, .first = 0, .count = 1 };
    var weighed = [_]f32{2};
    var plain = [_]f32{4};
    var prompts = [_]Prompt{
        .{ .values = &weighed, .weights = &weights },
        .{ .values = &plain, .repeat_count = 2 },
    };
    try std.testing.expect(weigh(&prompts, range, .original, &.{}));
    // (2 + 2 * 4) / (6 + 2 * 4)
    try std.testing.expectApproxEqRel(@as(f32, 6.0 * 10.0 / 14.0), weighed[0], 1e-6);
    try std.testing.expectApproxEqRel(@as(f32, 4.0 * 10.0 / 14.0), plain[0], 1e-6);
}

test "a mean of zero is refused" {
    const weights = [_]f32{ 1, 0 };
    var values = [_]f32{ 0, 1 };
    const range: Range = .{ .stride = 1, .first = 0, .count = 1 };
    var prompts = [_]Prompt{.{ .values = &values, .weights = &weights }};
    try std.testing.expect(!weigh(&prompts, range, .original, &.{}));
}
