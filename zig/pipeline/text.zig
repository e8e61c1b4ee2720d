//! The text stage: runs the text encoders on the prompts, then computes the keys and values of
//! every cross-attention for a rank's guidance branches. It runs once per batch, before the
//! denoising loop; images with the same prompt share one run of the encoders.
//!
//! All patches of a branch need the same conditioning. On GPUs each rank computes its own, in
//! parallel. On the CPU ranks may share cores, so only the rank of the first patch computes it and
//! the others read its tensors in place.

const std = @import("std");
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const GraphKey = backend.GraphKey;
const ClipTextModel = @import("../model.zig").ClipTextModel;
const Conditioning = @import("../model/unet.zig").Conditioning;
const Job = @import("job.zig").Job;
const Tokens = @import("job.zig").Tokens;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Scratch = @import("../scratch.zig").Scratch;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

/// Computes the conditioning of this rank's branches; `free` releases it after the last step.
pub fn condition(rank: *Rank) Error!Conditioning {
    if (!isShared(rank)) return make(rank);
    if (isMaker(rank)) {
        _ = try make(rank);
    } else if (rank.isPlanning()) {
        // It takes no memory of this rank, but later stages need its shapes.
        var scratch: Scratch = .planning();
        var elsewhere = rank.*;
        elsewhere.b = .{ .scratch = &scratch, .device = .{ .plan = rank.b.planned() } };
        return make(&elsewhere);
    }
    try rank.transport.barrier();
    return rank.prompts[rank.exchange.rank_first];
}

pub fn free(rank: *Rank, conditioning: Conditioning) void {
    if (isShared(rank) and !isMaker(rank)) return;
    for (conditioning.keys_values) |tensor| rank.b.free(tensor);
    rank.b.free(conditioning.addition);
}

/// Runs the text encoders on one prompt. Writes `embeds` (1, 1, tokens, channels of all encoders)
/// and `pooled` (1, 1, 1, projection_size); zeros where `tokens` is null.
pub fn encode(rank: *Rank, maybe: ?Tokens, embeds: Tensor, pooled: Tensor) Error!void {
    const b = rank.b;
    const tokens = maybe orelse {
        const zeros = try rank.arena.alloc(u8, @max(embeds.byteCount(), pooled.byteCount()));
        @memset(zeros, 0);
        try b.write(embeds, zeros[0..embeds.byteCount()]);
        try b.write(pooled, zeros[0..pooled.byteCount()]);
        return;
    };
    const model = rank.model;
    var states: [2]Tensor = undefined;
    var count: usize = 0;
    defer for (states[0..count]) |state| b.free(state);
    if (model.text_encoder) |*encoder| {
        states[count] = try hiddenState(rank, .text_encoder, encoder, .{
            .ids = tokens.ids,
            .rows = rank.job.injected,
        });
        count += 1;
    }
    if (model.text_encoder_2) |*encoder| {
        states[count] = try hiddenState(rank, .text_encoder_2, encoder, .{
            .ids = tokens.ids_2,
            .rows = rank.job.injected_2,
        });
        count += 1;
    }
    if (count == 1) {
        try b.copy(embeds, states[0]);
    } else {
        const joined = try b.concatChannels(states[0..count]);
        defer b.free(joined);
        try b.copy(embeds, joined);
    }
    const pooling = switch (model.config.text.pooled_from) {
        .text_encoder => states[0],
        .text_encoder_2 => states[count - 1],
    };
    const projected = try poolHidden(rank, pooling, tokens.end_index);
    defer b.free(projected);
    try b.copy(pooled, projected);
    if (!try b.isFinite(embeds) or !try b.isFinite(pooled)) {
        return rank.notFinite("The text encoders gave", .{});
    }
}

// --- internal ---

fn isShared(rank: *const Rank) bool {
    return !rank.exchange.isSinglePatch() and !rank.b.isCuda();
}

fn isMaker(rank: *const Rank) bool {
    return rank.exchange.index == 0;
}

/// Computes the conditioning of a batch: all images of the first branch, then of the second.
fn make(rank: *Rank) Error!Conditioning {
    const b = rank.b;
    const job = rank.job;
    const c = &rank.model.config;
    const images: u32 = @intCast(job.seeds.len);
    const branch_count = rank.layout.branchesPerRank();
    const batch = branch_count * images;
    const token_count = c.text.tokenCount();
    const dtype = b.activationType();
    const embeds = try b.alloc(.tokens(batch, token_count, c.unet.cross_attention_dim), dtype);
    defer b.free(embeds);
    const pooled = try b.alloc(.vector(batch, c.text.pooledSize()), dtype);
    defer b.free(pooled);
    for (0..branch_count) |i| {
        // With guidance the negative branch comes first.
        const branch = rank.layout.branchFirst(rank.index) + i;
        const is_negative = job.branch_count == 2 and branch == 0;
        const first: u32 = @intCast(i * images);
        for (0..images) |image| {
            const at: u32 = @intCast(first + image);
            const embeds_one = embeds.batchSlice(at, 1);
            const pooled_one = pooled.batchSlice(at, 1);
            const tokens = tokensOf(job, image, is_negative);
            if (firstWith(job, image, is_negative)) |same| {
                const known: u32 = @intCast(first + same);
                try b.copy(embeds_one, embeds.batchSlice(known, 1));
                try b.copy(pooled_one, pooled.batchSlice(known, 1));
            } else try encode(rank, tokens, embeds_one, pooled_one);
        }
    }
    const id_count = c.unet.time_id_count;
    const ids = try rank.arena.alloc(f32, batch * id_count);
    for (0..batch) |i| @memcpy(ids[i * id_count ..][0..id_count], job.time_ids[0..id_count]);
    const time_ids = try b.upload(.vector(batch * id_count, 1), .f32, std.mem.sliceAsBytes(ids));
    defer b.free(time_ids);
    const own = &rank.prompts[rank.index];
    const ctx = rank.context();
    own.* = try rank.model.unet.condition(ctx, embeds, pooled, time_ids, own.keys_values);
    return own.*;
}

/// What one text encoder reads.
const EncoderInput = struct {
    ids: []const i32,
    /// The job's embeddings for this encoder.
    rows: []const f32,

    /// (tokens, channels): the row of each id beyond the vocabulary at its position, else zeros.
    fn place(
        input: EncoderInput,
        arena: Allocator,
        vocabulary_count: u32,
        channels: u32,
    ) Allocator.Error![]const f32 {
        const placed = try arena.alloc(f32, input.ids.len * channels);
        @memset(placed, 0);
        for (input.ids, 0..) |id, position| {
            if (id < vocabulary_count) continue;
            const row: usize = @intCast(@as(u32, @intCast(id)) - vocabulary_count);
            const values = input.rows[row * channels ..][0..channels];
            @memcpy(placed[position * channels ..][0..channels], values);
        }
        return placed;
    }
};

/// Embeddings are uploaded before the graph is launched, as the ids are: another prompt changes the
/// contents of the graph's memory alone. In a job that has any, both encoders get them for every
/// prompt, so that scratch has the same blocks in each.
fn hiddenState(
    rank: *Rank,
    network: @FieldType(GraphKey, "network"),
    encoder: *const ClipTextModel,
    input: EncoderInput,
) Error!Tensor {
    const b = rank.b;
    const shape: Shape = .tokens(1, @intCast(input.ids.len), 1);
    const ids = try b.upload(shape, .i32, std.mem.sliceAsBytes(input.ids));
    defer b.free(ids);
    var key: GraphKey = .of(network, ids, .{});
    key.has_injected = rank.job.hasInjected();
    const vocabulary_count, const channels = encoder.token_embedding.shape[0..2].*;
    const injected: ?Tensor = if (key.has_injected) try b.uploadFloats(
        shape.withChannels(channels),
        try input.place(rank.arena, vocabulary_count, channels),
    ) else null;
    defer if (injected) |tensor| b.free(tensor);
    return b.runGraphed(key, runEncoder, .{ rank, encoder, ids, injected });
}

fn runEncoder(
    rank: *Rank,
    encoder: *const ClipTextModel,
    ids: Tensor,
    injected: ?Tensor,
) Error!Tensor {
    return encoder.hiddenState(rank.context(), ids, injected);
}

/// The pooled output. The end-of-text token's position differs between prompts, so it is uploaded
/// before the graph is launched and not captured in it.
fn poolHidden(rank: *Rank, hidden: Tensor, end_index: u32) Error!Tensor {
    const bytes = std.mem.asBytes(&end_index);
    const ends = try rank.b.upload(.vector(1, 1), .i32, bytes);
    defer rank.b.free(ends);
    var key: GraphKey = .of(.text_projection, hidden, .{});
    // Decides which blocks of scratch are in use.
    key.has_injected = rank.job.hasInjected();
    return rank.b.runGraphed(key, runPooled, .{ rank, hidden, ends });
}

fn runPooled(rank: *Rank, hidden: Tensor, ends: Tensor) Error!Tensor {
    const encoder = switch (rank.model.config.text.pooled_from) {
        .text_encoder => rank.model.text_encoder.?,
        .text_encoder_2 => rank.model.text_encoder_2.?,
    };
    return encoder.pooled(rank.context(), hidden, ends);
}

/// The prompt, or the negative prompt, of an image; null for zeros.
fn tokensOf(job: *const Job, image: usize, is_negative: bool) ?Tokens {
    return if (is_negative) job.negatives[image] else job.prompts[image];
}

/// The first image before `image` with the same text; null for none.
fn firstWith(job: *const Job, image: usize, is_negative: bool) ?usize {
    const tokens = tokensOf(job, image, is_negative);
    for (0..image) |earlier| {
        const other = tokensOf(job, earlier, is_negative);
        if (tokens == null and other == null) return earlier;
        if (tokens != null and other != null and tokens.?.eql(other.?)) return earlier;
    }
    return null;
}
