//! The text stage: runs the text encoders on the prompts, chunk by chunk, then computes the keys
//! and values of every cross-attention for a rank's guidance branches. It runs once per batch,
//! before the denoising loop; images with the same prompt share one run of the encoders. A job
//! whose prompts change on the way has several sets of them, each with a conditioning of its own.
//!
//! The negative branch attends to its own prompt's tokens alone, however long the prompt is.
//! ComfyUI and Forge repeat both to a common length, which gives the same attention; A1111 runs the
//! branches one after the other (its option to pad conditionings adds empty chunks, and changes the
//! image).
//! Prompts that an image combines (AND) are filled to a common length, as A1111 does.
//!
//! All patches of a branch need the same conditioning. On GPUs each rank computes its own, in
//! parallel. On the CPU ranks may share cores, so only the rank of the first patch computes it and
//! the others read its tensors in place.

const std = @import("std");
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const GraphKey = backend.GraphKey;
const controls = @import("controls.zig");
const emphasis = @import("emphasis.zig");
const image_prompts = @import("image_prompts.zig");
const ClipTextModel = @import("../model.zig").ClipTextModel;
const Conditioning = @import("../model/conditioning.zig").Conditioning;
const layouts = @import("../patch/layout.zig");
const Branches = layouts.Branches;
const BranchRange = layouts.BranchRange;
const Job = @import("job.zig").Job;
const Tokens = @import("job.zig").Tokens;
const PromptInputs = @import("../model/conditioning.zig").PromptInputs;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Sequences = @import("../model/layers.zig").Sequences;
const Scratch = @import("../scratch.zig").Scratch;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

/// What this rank's steps read.
pub const Conditionings = struct {
    /// One per set of prompts; empty where this rank computes no such branches.
    sets: std.EnumArray(Branches, []const Conditioning) = .initFill(&.{}),
    /// Those that this rank has made.
    own: []const Conditioning = &.{},
};

/// Computes the conditionings of this rank's branches; `free` releases them after the last step.
pub fn condition(rank: *Rank) Error!Conditionings {
    const range = madeBranches(rank) orelse return .{};
    const maker = makerOf(rank);
    if (maker == rank.index) {
        const made = try make(rank, range);
        if (isShared(rank)) try rank.transport.barrier();
        return parts(rank, range, made, true);
    }
    if (rank.isPlanning()) {
        // It takes no memory of this rank, but later stages need its shapes.
        var scratch: Scratch = .planning();
        var elsewhere = rank.*;
        elsewhere.b = .{ .scratch = &scratch, .device = .{ .plan = rank.b.planned() } };
        return parts(rank, range, try make(&elsewhere, range), false);
    }
    try rank.transport.barrier();
    return parts(rank, range, rank.prompts[maker], false);
}

pub fn free(rank: *Rank, conditionings: Conditionings) void {
    for (conditionings.own) |conditioning| conditioning.free(rank.b);
    if (conditionings.own.len > 0) image_prompts.free(rank, conditionings.own[0].images);
}

/// Runs the text encoders on one prompt. Writes `embeds` (chunks, 1, positions, channels of all
/// encoders) and `pooled` (1, 1, 1, projection_size), that of the first chunk; zeros where `tokens`
/// is null. Weights are not applied yet.
pub fn encode(rank: *Rank, maybe: ?Tokens, embeds: Tensor, pooled: Tensor) Error!void {
    const b = rank.b;
    const tokens = maybe orelse {
        const zeros = try rank.arena.alloc(u8, @max(embeds.byteCount(), pooled.byteCount()));
        @memset(zeros, 0);
        try b.write(embeds, zeros[0..embeds.byteCount()]);
        try b.write(pooled, zeros[0..pooled.byteCount()]);
        return;
    };
    for (0..embeds.shape.batch) |chunk| {
        const target = embeds.batchSlice(@intCast(chunk), 1);
        try encodeChunk(rank, &tokens, chunk, target, if (chunk == 0) pooled else null);
    }
    if (!try b.isFinite(embeds) or !try b.isFinite(pooled)) {
        return rank.notFinite("The text encoders gave", .{});
    }
}

/// The states of the job's empty prompt on the host, where it has one; `embeds` and `pooled` are
/// overwritten on the way.
pub fn emptyStates(rank: *Rank, embeds: Tensor, pooled: Tensor) Error![]const f32 {
    if (rank.job.empty.len == 0) return &.{};
    const states = embeds.batchSlice(0, 1);
    try encode(rank, rank.job.empty[0], states, pooled);
    if (rank.isPlanning()) return &.{};
    const values = try rank.arena.alloc(f32, states.shape.elementCount());
    try rank.b.downloadFloats(states, values);
    return values;
}

// --- internal ---

/// Whether ranks read the conditioning that another has made.
fn isShared(rank: *const Rank) bool {
    if (rank.b.isCuda() or rank.layout.rank_count == 1) return false;
    return rank.layout.patches.count > 1 or rank.job.dealsAnew();
}

/// The rank that computes this one's conditioning.
fn makerOf(rank: *const Rank) u32 {
    if (!isShared(rank)) return rank.index;
    return if (rank.job.dealsAnew()) 0 else rank.exchange.rank_first;
}

/// The branches that the maker computes; null where this rank reads none.
fn madeBranches(rank: *const Rank) ?BranchRange {
    const job = rank.job;
    if (isShared(rank) and job.dealsAnew()) {
        const has_negative = job.usesBranches(.all) or job.usesBranches(.together);
        const first: u32 = if (has_negative) 0 else 1;
        return .{ .first = first, .count = job.branch_count - first };
    }
    var joined: ?BranchRange = null;
    for (std.enums.values(Branches)) |branches| {
        const layout = rank.layouts.get(branches);
        if (!job.usesBranches(branches) or layout.isIdle(rank.index)) continue;
        const range = layout.branchesOf(rank.index);
        joined = if (joined) |before| before.joined(range) else range;
    }
    return joined;
}

/// What the steps of this rank read of the branches `range`.
fn parts(
    rank: *Rank,
    range: BranchRange,
    made: []const Conditioning,
    is_own: bool,
) Error!Conditionings {
    var result: Conditionings = .{ .own = if (is_own) made else &.{} };
    const image_count: u32 = @intCast(rank.job.seeds.len);
    for (std.enums.values(Branches)) |branches| {
        const layout = rank.layouts.get(branches);
        if (!rank.job.usesBranches(branches) or layout.isIdle(rank.index)) continue;
        const read = layout.branchesOf(rank.index);
        if (std.meta.eql(read, range)) {
            result.sets.set(branches, made);
            continue;
        }
        const sets = try rank.arena.alloc(Conditioning, made.len);
        const first = (read.first - range.first) * image_count;
        for (sets, made) |*set, whole| {
            set.* = try whole.ofBatch(rank.arena, first, read.count * image_count);
        }
        result.sets.set(branches, sets);
    }
    return result;
}

/// One chunk of a prompt to `embeds` (1, 1, positions, channels), and its pooled output.
fn encodeChunk(
    rank: *Rank,
    tokens: *const Tokens,
    chunk: usize,
    embeds: Tensor,
    maybe_pooled: ?Tensor,
) Error!void {
    const b = rank.b;
    const model = rank.model;
    const count: usize = embeds.shape.width;
    var states: [2]Tensor = undefined;
    var state_count: usize = 0;
    defer for (states[0..state_count]) |state| b.free(state);
    if (model.text_encoder) |*encoder| {
        states[state_count] = try hiddenState(rank, .text_encoder, encoder, .{
            .ids = tokens.ids[chunk * count ..][0..count],
            .rows = rank.job.injected,
            .clip_skip = tokens.clip_skip,
        });
        state_count += 1;
    }
    if (model.text_encoder_2) |*encoder| {
        states[state_count] = try hiddenState(rank, .text_encoder_2, encoder, .{
            .ids = tokens.ids_2[chunk * count ..][0..count],
            .rows = rank.job.injected_2,
            .clip_skip = tokens.clip_skip,
        });
        state_count += 1;
    }
    if (state_count == 1) {
        try b.copy(embeds, states[0]);
    } else {
        const joined = try b.concatChannels(states[0..state_count]);
        defer b.free(joined);
        try b.copy(embeds, joined);
    }
    const pooled = maybe_pooled orelse return;
    const pooling = switch (model.config.text.pooled_from) {
        .text_encoder => states[0],
        .text_encoder_2 => states[state_count - 1],
    };
    const projected = try poolHidden(rank, pooling, tokens);
    defer b.free(projected);
    try b.copy(pooled, projected);
}

/// Where the prompts of a batch are: all images of the first branch, then of the second.
const Places = struct {
    job: *const Job,
    image_count: u32,
    branches: BranchRange,
    /// Chunks of a negative prompt, and of a prompt.
    negative_chunks: u32,
    prompt_chunks: u32,

    fn of(rank: *const Rank, branches: BranchRange) Places {
        const job = rank.job;
        const position_count = rank.model.config.text.tokenCount();
        return .{
            .job = job,
            .image_count = @intCast(job.seeds.len),
            .branches = branches,
            .negative_chunks = @intCast(@max(1, job.idCount(true) / position_count)),
            .prompt_chunks = @intCast(@max(1, job.idCount(false) / position_count)),
        };
    }

    /// With guidance the negative branch comes first.
    fn isNegative(places: *const Places, i: usize) bool {
        return places.job.branch_count > 1 and places.branches.first + i == 0;
    }

    fn chunkCount(places: *const Places, i: usize) u32 {
        return if (places.isNegative(i)) places.negative_chunks else places.prompt_chunks;
    }

    /// Whether the negative branch needs a tensor of its own.
    fn isRagged(places: *const Places) bool {
        return places.isNegative(0) and places.branches.count > 1 and
            places.negative_chunks != places.prompt_chunks;
    }

    /// The prompt of an image in a set; null for zeros.
    fn tokens(places: *const Places, i: usize, image: usize, set: usize) ?Tokens {
        const job = places.job;
        if (places.isNegative(i)) return job.negatives[image * job.setCount() + set];
        const negative_count = @intFromBool(job.branch_count > 1);
        const k = places.branches.first + i - negative_count;
        return job.prompts[(image * job.promptCount() + k) * job.setCount() + set];
    }
};

/// What the text encoders give for one set of prompts.
const Encoded = struct {
    /// (prompts * chunks, 1, positions, channels) of all branches, or of the negative one and the
    /// others.
    embeds: [2]Tensor,
    embeds_count: u32,
    pooled: Tensor,

    fn alloc(rank: *Rank, places: *const Places) Error!Encoded {
        const b = rank.b;
        const c = &rank.model.config;
        const images = places.image_count;
        const dtype = b.activationType();
        const branch_count = places.branches.count;
        var encoded: Encoded = .{
            .embeds = undefined,
            .embeds_count = if (places.isRagged()) 2 else 1,
            .pooled = undefined,
        };
        for (0..encoded.embeds_count) |i| {
            const branches = if (encoded.embeds_count == 1) branch_count else switch (i) {
                0 => 1,
                else => branch_count - 1,
            };
            encoded.embeds[i] = try b.alloc(.tokens(
                branches * images * places.chunkCount(i),
                c.text.tokenCount(),
                c.unet.cross_attention_dim,
            ), dtype);
        }
        const pooled_shape: Shape = .vector(branch_count * images, c.text.pooledSize());
        encoded.pooled = try b.alloc(pooled_shape, dtype);
        return encoded;
    }

    fn free(encoded: *const Encoded, b: Backend) void {
        for (encoded.embeds[0..encoded.embeds_count]) |tensor| b.free(tensor);
        b.free(encoded.pooled);
    }

    /// States of one prompt.
    fn embedsOf(encoded: *const Encoded, places: *const Places, i: usize, image: usize) Tensor {
        const chunk_count = places.chunkCount(i);
        const which = if (encoded.embeds_count == 2) @min(i, 1) else 0;
        const first: u32 = @intCast(((i - which) * places.image_count + image) * chunk_count);
        return encoded.embeds[which].batchSlice(first, chunk_count);
    }

    /// The part of them that the prompt's own chunks are.
    fn statesOf(
        encoded: *const Encoded,
        places: *const Places,
        i: usize,
        image: usize,
        set: usize,
    ) Tensor {
        const all = encoded.embedsOf(places, i, image);
        const tokens = places.tokens(i, image, set) orelse return all;
        return all.batchSlice(0, @max(1, tokens.chunkCount(all.shape.width)));
    }

    fn pooledOf(encoded: *const Encoded, places: *const Places, i: usize, image: usize) Tensor {
        return encoded.pooled.batchSlice(@intCast(i * places.image_count + image), 1);
    }

    /// One sequence per prompt, its chunks one after the other.
    fn sequences(encoded: *const Encoded, places: *const Places) Sequences {
        var joined: [2]Tensor = encoded.embeds;
        for (joined[0..encoded.embeds_count], 0..) |*tensor, i| {
            const chunk_count = places.chunkCount(i);
            tensor.shape.batch /= chunk_count;
            tensor.shape.width *= chunk_count;
        }
        return .{
            .first = joined[0],
            .second = if (encoded.embeds_count == 2) joined[1] else null,
        };
    }
};

/// Computes the conditionings of a batch, in this rank's memory.
fn make(rank: *Rank, branches: BranchRange) Error![]const Conditioning {
    const b = rank.b;
    const job = rank.job;
    const places: Places = .of(rank, branches);
    const sets = try rank.arena.alloc(Encoded, job.setCount());
    for (sets) |*set| set.* = try .alloc(rank, &places);
    defer for (sets) |*set| set.free(b);
    const first = &sets[0];
    const empty = try emptyStates(
        rank,
        first.embedsOf(&places, 0, 0),
        first.pooledOf(&places, 0, 0),
    );
    for (0..branches.count) |i| {
        try encodeBranch(rank, &places, i, sets);
        try weighBranch(rank, &places, i, sets, empty);
        try fillBranch(rank, &places, i, sets);
    }
    const batch = branches.count * places.image_count;
    const id_count = rank.model.config.unet.time_id_count;
    const ids = try rank.arena.alloc(f32, batch * id_count);
    for (0..batch) |i| {
        const is_negative = places.isNegative(i / places.image_count);
        const given = if (is_negative) &job.negative_time_ids else &job.time_ids;
        @memcpy(ids[i * id_count ..][0..id_count], given[0..id_count]);
    }
    const time_ids = try b.upload(.vector(batch * id_count, 1), .f32, std.mem.sliceAsBytes(ids));
    defer b.free(time_ids);
    const own = rank.prompts[rank.index];
    const unet = &rank.model.unet;
    for (own, sets) |*out, *set| {
        const embeds = set.sequences(&places);
        const inputs: PromptInputs = .{
            .embeds = embeds,
            .pooled = set.pooled,
            .time_ids = time_ids,
        };
        const ctx = rank.context();
        const own_controls = out.controls;
        out.* = try unet.condition(ctx, inputs, out.keys_values);
        try controls.condition(rank, inputs, own_controls);
        out.controls = own_controls;
    }
    const images = try image_prompts.make(rank, branches);
    for (own) |*out| out.images = images;
    return own;
}

/// Runs the encoders once for each different prompt of a branch.
fn encodeBranch(rank: *Rank, places: *const Places, i: usize, sets: []const Encoded) Error!void {
    for (0..places.image_count * sets.len) |at| {
        const image, const set = .{ at / sets.len, at % sets.len };
        const embeds = sets[set].statesOf(places, i, image, set);
        const pooled = sets[set].pooledOf(places, i, image);
        const tokens = places.tokens(i, image, set);
        const same: ?usize = for (0..at) |earlier| {
            const other = places.tokens(i, earlier / sets.len, earlier % sets.len);
            if (tokens == null and other == null) break earlier;
            if (tokens != null and other != null and tokens.?.encodesAs(other.?)) break earlier;
        } else null;
        if (same) |earlier| {
            const known = &sets[earlier % sets.len];
            const of_image, const of_set = .{ earlier / sets.len, earlier % sets.len };
            try rank.b.copy(embeds, known.statesOf(places, i, of_image, of_set));
            try rank.b.copy(pooled, known.pooledOf(places, i, of_image));
        } else try encode(rank, tokens, embeds, pooled);
    }
}

/// Applies the weights to the prompts of a branch, image by image.
fn weighBranch(
    rank: *Rank,
    places: *const Places,
    i: usize,
    sets: []const Encoded,
    empty: []const f32,
) Error!void {
    const tokens = try rank.arena.alloc(Tokens, sets.len);
    const states = try rank.arena.alloc(Tensor, sets.len);
    for (0..places.image_count) |image| {
        for (sets, tokens, states, 0..) |*set, *one, *state, number| {
            // Zeros have no weights.
            one.* = places.tokens(i, image, number) orelse .{};
            state.* = set.statesOf(places, i, image, number);
        }
        try emphasis.apply(rank, tokens, states, empty);
    }
}

/// Fills what the prompts of a branch lack of the longest prompt with copies of their last state,
/// as A1111 does (prompt_parser.stack_conds).
fn fillBranch(rank: *Rank, places: *const Places, i: usize, sets: []const Encoded) Error!void {
    for (0..places.image_count) |image| for (sets, 0..) |*set, number| {
        var all = set.embedsOf(places, i, image);
        const state_count = all.shape.batch * all.shape.width;
        const own = set.statesOf(places, i, image, number).shape;
        all.shape.batch = 1;
        all.shape.rows = state_count;
        all.shape.width = 1;
        const own_count = own.batch * own.width;
        for (own_count..state_count) |at| {
            try rank.b.copyRows(all, @intCast(at), all, own_count - 1, 1);
        }
    };
}

/// What one text encoder reads.
const EncoderInput = struct {
    ids: []const i32,
    /// The job's embeddings for this encoder.
    rows: []const f32,
    clip_skip: u32,

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
    key.clip_skip = input.clip_skip;
    const vocabulary_count, const channels = encoder.token_embedding.shape[0..2].*;
    const injected: ?Tensor = if (key.has_injected) try b.uploadFloats(
        shape.withChannels(channels),
        try input.place(rank.arena, vocabulary_count, channels),
    ) else null;
    defer if (injected) |tensor| b.free(tensor);
    return b.runGraphed(key, runEncoder, .{ rank, encoder, ids, injected, input.clip_skip });
}

fn runEncoder(
    rank: *Rank,
    encoder: *const ClipTextModel,
    ids: Tensor,
    injected: ?Tensor,
    clip_skip: u32,
) Error!Tensor {
    return encoder.hiddenState(rank.context(), ids, injected, clip_skip);
}

/// The pooled output. The end-of-text token's position differs between prompts, so it is uploaded
/// before the graph is launched and not captured in it.
fn poolHidden(rank: *Rank, hidden: Tensor, tokens: *const Tokens) Error!Tensor {
    const bytes = std.mem.asBytes(&tokens.end_index);
    const ends = try rank.b.upload(.vector(1, 1), .i32, bytes);
    defer rank.b.free(ends);
    var key: GraphKey = .of(.text_projection, hidden, .{});
    // Decides which blocks of scratch are in use.
    key.has_injected = rank.job.hasInjected();
    key.clip_skip = tokens.clip_skip;
    return rank.b.runGraphed(key, runPooled, .{ rank, hidden, ends, tokens.clip_skip });
}

fn runPooled(rank: *Rank, hidden: Tensor, ends: Tensor, clip_skip: u32) Error!Tensor {
    const encoder = switch (rank.model.config.text.pooled_from) {
        .text_encoder => rank.model.text_encoder.?,
        .text_encoder_2 => rank.model.text_encoder_2.?,
    };
    return encoder.pooled(rank.context(), hidden, ends, clip_skip);
}
