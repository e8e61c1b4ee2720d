//! Numbers by which a job decides between steps: how much the model's output changes, and how far
//! its branches are apart. Every rank has the gathered outputs of all ranks whole, so each computes
//! the same numbers from the same bits, on the host and in one order, and all decide alike without
//! a message. A job that decides nothing reads nothing back.

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
    /// Elements of one branch.
    branch_len: usize = 0,
    branch_count: usize = 0,
    /// Mean |e - e'| / mean |e'| of the prompts' outputs e and those of the step before e'; null in
    /// the first step.
    output_change: ?f64 = null,
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
            .branch_len = branch_len,
        };
    }

    /// Takes the gathered outputs (branches * images, rows, width, channels) of a step.
    pub fn observe(signals: *Signals, rank: *Rank, output: Tensor) Error!void {
        if (signals.now.len == 0) return;
        std.mem.swap([]f32, &signals.now, &signals.before);
        const before = signals.promptsOf(signals.before);
        const len = output.shape.elementCount();
        try rank.b.downloadFloats(output, signals.now[0..len]);
        signals.branch_count = len / signals.branch_len;
        const prompts = signals.promptsOf(signals.now);
        signals.output_change = if (before.len == 0) null else distance(prompts, before);
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
