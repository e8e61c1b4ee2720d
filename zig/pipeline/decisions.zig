//! Numbers by which a job decides between steps: how much the model's output and the image that it
//! predicts change, and how far its branches are apart. Every rank has the gathered outputs of all
//! ranks whole, so each computes the same numbers from the same bits, on the host and in one order,
//! and all decide alike without a message. A job that decides nothing reads nothing back.

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

pub const Signals = struct {
    /// Room for the outputs of all branches, in this step and in the one before; empty where
    /// nothing is decided, and in a dry run.
    now: []f32 = &.{},
    before: []f32 = &.{},
    /// Of one branch: the latent, then the clean latent that the step before predicted.
    latent: []f32 = &.{},
    clean: []f32 = &.{},
    /// Elements of one branch.
    branch_len: usize = 0,
    branch_count: usize = 0,
    /// Mean |e - e'| / mean |e'| of the prompts' outputs e and those of the step before e'; null in
    /// the first step.
    output_change: ?f64 = null,
    /// The same of the clean latents that the prompts' outputs predict. It is large in the first
    /// steps, which decide what is in the image, and small in the last.
    clean_change: ?f64 = null,
    /// Mean |e - n| / mean |n| of the prompts' outputs e and the negative prompt's n; null where
    /// the step computes no negative branch.
    branch_difference: ?f64 = null,

    pub fn init(rank: *Rank) Error!Signals {
        if (!rank.job.isAdaptive() or rank.isPlanning()) return .{};
        const images: u32 = @intCast(rank.job.seeds.len);
        const branch_len = rank.latentShape(images).elementCount();
        const len = branch_len * rank.job.branch_count;
        return .{
            .now = try rank.arena.alloc(f32, len),
            .before = try rank.arena.alloc(f32, len),
            .latent = try rank.arena.alloc(f32, branch_len),
            .clean = try rank.arena.alloc(f32, branch_len),
            .branch_len = branch_len,
        };
    }

    /// Takes the gathered outputs (branches * images, rows, width, channels) of a step, and its
    /// latent, of which so much and so much of the output is the clean one.
    pub fn observe(
        signals: *Signals,
        rank: *Rank,
        latent: Tensor,
        output: Tensor,
        mix: [2]f32,
    ) Error!void {
        if (signals.now.len == 0) return;
        std.mem.swap([]f32, &signals.now, &signals.before);
        const before = signals.promptsOf(signals.before);
        const len = output.shape.elementCount();
        try rank.b.downloadFloats(output, signals.now[0..len]);
        signals.branch_count = len / signals.branch_len;
        const prompts = signals.promptsOf(signals.now);
        try rank.b.downloadFloats(latent, signals.latent);
        for (signals.latent, prompts) |*value, e| value.* = mix[0] * value.* + mix[1] * e;
        const is_first = before.len == 0;
        signals.output_change = if (is_first) null else distance(prompts, before);
        signals.clean_change = if (is_first) null else distance(signals.latent, signals.clean);
        std.mem.swap([]f32, &signals.latent, &signals.clean);
        signals.branch_difference = if (signals.branch_count == 1)
            null
        else
            distance(prompts, signals.now[0..signals.branch_len]);
    }

    // --- internal ---

    /// The outputs of the first prompt of each image, which every step computes.
    fn promptsOf(signals: *const Signals, outputs: []const f32) []const f32 {
        if (signals.branch_count == 0) return &.{};
        const first = if (signals.branch_count > 1) signals.branch_len else 0;
        return outputs[first..][0..signals.branch_len];
    }
};

// --- internal ---

fn distance(values: []const f32, reference: []const f32) f64 {
    var difference: f64 = 0;
    var size: f64 = 0;
    for (values, reference) |value, other| {
        difference += @abs(@as(f64, value) - other);
        size += @abs(@as(f64, other));
    }
    return if (size == 0) 0 else difference / size;
}

test "the distance is relative to the reference" {
    try std.testing.expectEqual(0.5, distance(&.{ 1, -3 }, &.{ 2, -2 }));
    try std.testing.expectEqual(0, distance(&.{1}, &.{0}));
}
