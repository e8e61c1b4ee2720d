//! Images as prompts: what the job's IP-Adapters see becomes keys and values of every
//! cross-attention, once per batch, beside those of the prompts. All images of an adapter are one
//! sequence of tokens. The negative branch reads as many tokens of no image.

const std = @import("std");
const GraphKey = @import("../backend.zig").GraphKey;
const ClipVisionModel = @import("../model/clip_vision.zig").ClipVisionModel;
const IpAdapter = @import("../model/ip_adapter.zig").IpAdapter;
const BranchRange = @import("../patch/layout.zig").BranchRange;
const image_use_count_max = @import("../model/transformer.zig").image_use_count_max;
const jobs = @import("job.zig");
const IpAdapterUse = jobs.IpAdapterUse;
const Job = jobs.Job;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;

/// For each use of the job the keys and values of every cross-attention, (branches * images, 1,
/// tokens, 2 * channels); their lists are in the rank's arena.
pub fn make(rank: *Rank, branches: BranchRange) Error![]const []const Tensor {
    const uses = rank.job.ip_adapters;
    const all = try rank.arena.alloc([]const Tensor, uses.len);
    defer rank.enterNetwork(null);
    for (all, uses) |*of_use, *use| {
        const networks: Networks = .{
            .adapter = &rank.networks[use.adapter_index].graph.ip_adapter,
            .encoder = &rank.networks[use.encoder_index].graph.clip_vision,
        };
        of_use.* = try keysValues(rank, use, networks, branches);
    }
    return all;
}

pub fn free(rank: *Rank, images: []const []const Tensor) void {
    for (images) |of_use| rank.b.free(of_use[0]);
}

/// Those that a step reads; must not move while they are used.
pub const Seen = struct {
    list: [image_use_count_max][]const Tensor,

    /// Notes them in the key of the step's graph.
    pub fn at(
        seen: *Seen,
        job: *const Job,
        step_index: u32,
        images: []const []const Tensor,
        key: *GraphKey,
    ) []const []const Tensor {
        var count: usize = 0;
        for (job.ip_adapters, images, 0..) |*use, of_use, i| {
            if (!use.steps.has(step_index)) continue;
            key.image_tokens[i] = of_use[0].shape.width;
            seen.list[count] = of_use;
            count += 1;
        }
        return seen.list[0..count];
    }
};

// --- internal ---

const Networks = struct { adapter: *const IpAdapter, encoder: *const ClipVisionModel };

/// In one block of memory, which begins with the first.
fn keysValues(
    rank: *Rank,
    use: *const IpAdapterUse,
    networks: Networks,
    branches: BranchRange,
) Error![]const Tensor {
    const b = rank.b;
    const adapter = networks.adapter;
    var tokens: BatchTokens = try .alloc(rank, use, adapter, branches);
    defer tokens.free(rank);
    rank.enterNetwork(use.encoder_index);
    for (0..use.scales.len) |image| {
        const own = try imageTokens(rank, use, networks, image);
        defer b.free(own);
        try tokens.place(rank, .prompts, image, own, use.scales[image]);
    }
    if (tokens.negative_count > 0) {
        const none = try adapter.imageTokens(rank.context(), networks.encoder, null);
        defer b.free(none);
        for (use.scales, 0..) |scale, image| {
            try tokens.place(rank, .negative, image, none, scale);
        }
    }
    if (!try b.isFinite(tokens.plain)) return rank.notFinite("The image encoder gave", .{});
    rank.enterNetwork(use.adapter_index);
    const result = try rank.arena.alloc(Tensor, adapter.to_k_ip.len);
    const dtype = b.activationType();
    var bytes: usize = 0;
    for (result, 0..) |*tensor, slot| {
        const shape = adapter.keysValuesShape(slot, tokens.plain.shape);
        tensor.* = .{ .address = bytes, .shape = shape, .dtype = dtype };
        bytes = std.mem.alignForward(usize, bytes + tensor.byteCount(), alignment);
    }
    const base = try b.scratch.alloc(bytes);
    for (result, 0..) |*tensor, slot| {
        tensor.address += base;
        const ctx = rank.context();
        try adapter.keysValuesInto(ctx, tensor.*, slot, tokens.plain, tokens.scaled);
    }
    return result;
}

/// Of tensors in a block, as of blocks.
const alignment = 256;

fn imageTokens(
    rank: *Rank,
    use: *const IpAdapterUse,
    networks: Networks,
    image: usize,
) Error!Tensor {
    const shape = networks.encoder.patchShape();
    const len = shape.elementCount();
    const values = if (rank.isPlanning()) &.{} else use.patches[image * len ..][0..len];
    const patches = try rank.b.uploadFloats(shape, values);
    defer rank.b.free(patches);
    return networks.adapter.imageTokens(rank.context(), networks.encoder, patches);
}

/// The tokens of a batch, (branches * images, 1, tokens, cross_attention_dim): those of the
/// negative branch first, where these are among the branches.
const BatchTokens = struct {
    plain: Tensor,
    /// Times the scales of their images.
    scaled: Tensor,
    negative_count: u32,

    fn alloc(
        rank: *Rank,
        use: *const IpAdapterUse,
        adapter: *const IpAdapter,
        branches: BranchRange,
    ) Error!BatchTokens {
        const b = rank.b;
        const image_count: u32 = @intCast(rank.job.seeds.len);
        const has_negative = rank.job.branch_count > 1 and branches.first == 0;
        const shape: Shape = .tokens(
            branches.count * image_count,
            @as(u32, @intCast(use.scales.len)) * adapter.config.token_count,
            adapter.to_k_ip[0].weight.shape[1],
        );
        return .{
            .plain = try b.alloc(shape, b.activationType()),
            .scaled = try b.alloc(shape, b.activationType()),
            .negative_count = if (has_negative) image_count else 0,
        };
    }

    fn free(tokens: *const BatchTokens, rank: *Rank) void {
        rank.b.free(tokens.scaled);
        rank.b.free(tokens.plain);
    }

    /// Copies the tokens of an image to its place in every sequence of that kind.
    fn place(
        tokens: *const BatchTokens,
        rank: *Rank,
        kind: enum { negative, prompts },
        image: usize,
        own: Tensor,
        scale: f32,
    ) Error!void {
        const b = rank.b;
        const scaled = try b.alloc(own.shape, own.dtype);
        defer b.free(scaled);
        try b.zero(scaled.address, scaled.byteCount());
        try b.accumulate(scaled, own, scale);
        const first, const end = switch (kind) {
            .negative => .{ 0, tokens.negative_count },
            .prompts => .{ tokens.negative_count, tokens.plain.shape.batch },
        };
        for (first..end) |i| {
            const at: u32 = @intCast(i);
            const offset = image * own.byteCount();
            for ([_]Tensor{ tokens.plain, tokens.scaled }, [_]Tensor{ own, scaled }) |all, part| {
                var sequence = all.batchSlice(at, 1);
                sequence.address += offset;
                sequence.shape.width = own.shape.width;
                try b.copy(sequence, part);
            }
        }
    }
};
