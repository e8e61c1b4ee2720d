//! What follows from the prompt for a rank's branches: text encoders, and the keys and values of
//! every cross-attention. Made once per image, before the steps.
//!
//! Patches of the same branches need the same. On GPUs each makes it for itself, all at once. On
//! the
//! CPU the first patch makes it and the others read it where it lies: where ranks share cores, it
//! would else take as many times as long as there are patches.

const std = @import("std");
const Conditioning = @import("../model/unet.zig").Conditioning;
const Job = @import("../session/job.zig").Job;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Scratch = @import("../scratch.zig").Scratch;

/// To be given back by `free`, once no patch needs it any more.
pub fn condition(rank: *Rank, job: *const Job) Error!Conditioning {
    if (!isShared(rank)) return make(rank, job);
    if (isMaker(rank)) {
        _ = try make(rank, job);
    } else if (rank.isPlanning()) {
        // Of this rank's memory it takes nothing, but what is planned next asks for its shapes.
        var scratch: Scratch = .planning();
        var elsewhere = rank.*;
        elsewhere.b = .{ .scratch = &scratch, .device = .{ .plan = rank.b.planned() } };
        return make(&elsewhere, job);
    }
    try rank.transport.meet();
    return rank.prompts[rank.exchange.rank_first];
}

pub fn free(rank: *Rank, conditioning: Conditioning) void {
    if (isShared(rank) and !isMaker(rank)) return;
    for (conditioning.keys_values) |tensor| rank.b.free(tensor);
    rank.b.free(conditioning.addition);
}

// --- internal ---

fn isShared(rank: *const Rank) bool {
    return !rank.exchange.isAlone() and !rank.b.isCuda();
}

fn isMaker(rank: *const Rank) bool {
    return rank.exchange.index == 0;
}

/// The batch holds every image of the first branch, then of the second.
fn make(rank: *Rank, job: *const Job) Error!Conditioning {
    const b = rank.b;
    const c = &rank.model.config;
    const images: u32 = @intCast(job.seeds.len);
    const branch_count = rank.layout.branchesPerRank();
    const batch = branch_count * images;
    const token_count = c.clip.position_count;
    const dtype = b.activationType();
    const embeds = try b.alloc(.tokens(batch, token_count, c.unet.cross_attention_dim), dtype);
    defer b.free(embeds);
    const pooled = try b.alloc(.vector(batch, c.clip_2.projection_size), dtype);
    defer b.free(pooled);
    for (0..branch_count) |i| {
        // With guidance the negative branch comes first.
        const branch = rank.layout.branchFirst(rank.index) + i;
        const is_negative = job.branch_count == 2 and branch == 0;
        const tokens = if (is_negative) job.negative else job.prompt;
        const first: u32 = @intCast(i * images);
        const embeds_one = embeds.batchSlice(first, 1);
        const pooled_one = pooled.batchSlice(first, 1);
        try rank.encodeText(tokens, embeds_one, pooled_one);
        for (first + 1..first + images) |other| {
            try b.copy(embeds.batchSlice(@intCast(other), 1), embeds_one);
            try b.copy(pooled.batchSlice(@intCast(other), 1), pooled_one);
        }
    }
    const ids = try rank.arena.alloc(f32, batch * 6);
    for (0..batch) |i| @memcpy(ids[i * 6 ..][0..6], &job.time_ids);
    const time_ids = try b.upload(.vector(batch * 6, 1), .f32, std.mem.sliceAsBytes(ids));
    defer b.free(time_ids);
    const own = &rank.prompts[rank.index];
    const ctx = rank.context();
    own.* = try rank.model.unet.condition(ctx, embeds, pooled, time_ids, own.keys_values);
    return own.*;
}
