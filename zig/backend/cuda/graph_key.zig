//! The identity of a CUDA graph: everything that decides which kernels a piece of work launches and
//! with which constants. Two pieces of work share a graph only if their keys are equal, field by
//! field, and the captured addresses still hold (`GraphMemory`).
//!
//! Whatever changes a launch (a new network, an adapter, another exchange mode) must be a field of
//! `GraphKey`. What only changes the contents of device memory (prompt, seed, timestep) must not.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Part = @import("../options.zig").Part;
const Scratch = @import("../../scratch.zig").Scratch;
const Tensor = @import("../../tensor.zig").Tensor;

pub const Network = enum {
    text_encoder,
    text_encoder_2,
    text_projection,
    unet,
    vae_decoder,
    controlnet,
};

/// At least as many as uses of networks in a job.
pub const control_count_max = 4;
/// At least as many as IP-Adapters of a job.
pub const image_use_count_max = 4;
/// At least as many as ranks.
pub const peer_count_max = 16;

/// What one step computes and exchanges between patches. The defaults are those of a single patch,
/// which exchanges nothing, and of a step that computes everything.
pub const StepVariant = struct {
    /// Number of a `patch.SyncMode`; the backend does not interpret it.
    sync_mode: u32 = 0,
    is_synchronous: bool = true,
    /// Whether the layers that cached steps leave out read fresh values in every step.
    has_fresh_deep: bool = false,
    /// Whether stale halo rows are extrapolated in this step.
    extrapolates_halos: bool = false,
    /// The same in the layers that cached steps leave out, which have seen fewer steps.
    extrapolates_deep: bool = false,
    /// How keys and values are sent (a number of `patch.Sent`), twice, plus 1 where changes of the
    /// others are added before they are read.
    keys_values_outer: u32 = 0,
    /// The same in the layers that cached steps leave out.
    keys_values_deep: u32 = 0,
    /// The variance correction of the group norms as DistriFusion computes it.
    bessel_variance: bool = false,
    /// A single rank of several that is timed alone: nothing is fetched from peers.
    is_only_rank: bool = false,
    /// The rows of every patch are constants of the attention and group norm launches, also where
    /// this patch's own rows are equal.
    patch_index: u32 = 0,
    patch_count: u32 = 1,
    patch_rows: [peer_count_max]u32 = @splat(0),
    /// Memory of other ranks that launches of this step read, by rank; 0 for none. It is not in
    /// `GraphMemory`, which has this rank's alone.
    peer_addresses: [peer_count_max]usize = @splat(0),
    /// Deep features, where the outer blocks end, and cross-attention (`model/reuse.zig`).
    deep: Part = .compute,
    outer_skips: u32 = 0,
    cross: Part = .compute,
};

pub const GraphKey = struct {
    network: Network,
    /// Shape of the network's input on this rank.
    batch: u32,
    rows: u32,
    width: u32,
    channels: u32,
    step: StepVariant,
    /// Networks beside the UNet whose tensors it adds, by the job's uses (`Network.id`), and the
    /// bits of their factors; of a ControlNet's own graph, that network. 0 for none.
    control_networks: [control_count_max]u32 = @splat(0),
    control_factors: [control_count_max]u32 = @splat(0),
    /// Tokens that cross-attentions read of each IP-Adapter, by the job's uses; 0 where the step
    /// leaves it out.
    image_tokens: [image_use_count_max]u32 = @splat(0),
    /// Whether a text encoder reads injected embeddings beside its vocabulary.
    has_injected: bool = false,
    /// Layers that a text encoder leaves out.
    clip_skip: u32 = 0,
    /// Tokens that the UNet's cross-attentions read (`Conditioning.tokenCounts`).
    context_tokens: u32 = 0,
    context_tokens_second: u32 = 0,
    /// Which of the job's conditionings, and the first branch that is read of it: each is at
    /// addresses of its own.
    conditioning: u32 = 0,
    branch_first: u32 = 0,

    pub fn of(network: Network, input: Tensor, step: StepVariant) GraphKey {
        return .{
            .network = network,
            .batch = input.shape.batch,
            .rows = input.shape.rows,
            .width = input.shape.width,
            .channels = input.shape.channels,
            .step = step,
        };
    }

    pub fn eql(a: GraphKey, b: GraphKey) bool {
        return std.meta.eql(a, b);
    }
};

/// What the addresses inside a graph depend on: the arena's base, and the blocks that were live
/// when the capture began. With both equal, the same allocations return the same addresses.
pub const GraphMemory = struct {
    base: usize,
    blocks: []const Scratch.Block,

    pub fn of(gpa: Allocator, scratch: *const Scratch) Allocator.Error!GraphMemory {
        return .{ .base = scratch.base, .blocks = try gpa.dupe(Scratch.Block, scratch.live()) };
    }

    pub fn deinit(memory: *GraphMemory, gpa: Allocator) void {
        gpa.free(memory.blocks);
        memory.* = undefined;
    }

    pub fn matches(memory: GraphMemory, scratch: *const Scratch) bool {
        const live = scratch.live();
        if (memory.base != scratch.base or memory.blocks.len != live.len) return false;
        for (memory.blocks, live) |captured, block| {
            if (!std.meta.eql(captured, block)) return false;
        }
        return true;
    }
};

test "every field of the key tells two graphs apart" {
    const input: Tensor = .{
        .address = 64,
        .shape = .{ .batch = 2, .rows = 4, .width = 8, .channels = 4 },
        .dtype = .f16,
    };
    const key: GraphKey = .of(.unet, input, .{});
    try std.testing.expect(key.eql(.of(.unet, input, .{})));
    inline for (@typeInfo(GraphKey).@"struct".fields) |field| {
        if (field.type == StepVariant) continue;
        var other = key;
        @field(other, field.name) = changed(@field(key, field.name));
        try std.testing.expect(!key.eql(other));
    }
    inline for (@typeInfo(StepVariant).@"struct".fields) |field| {
        var other = key;
        @field(other.step, field.name) = changed(@field(key.step, field.name));
        try std.testing.expect(!key.eql(other));
    }
    var turned = input;
    turned.shape = .{ .batch = 2, .rows = 8, .width = 4, .channels = 4 };
    try std.testing.expect(!key.eql(.of(.unet, turned, .{})));
}

fn changed(value: anytype) @TypeOf(value) {
    return switch (@typeInfo(@TypeOf(value))) {
        .bool => !value,
        .int => value + 1,
        .array => array: {
            var other = value;
            other[other.len - 1] += 1;
            break :array other;
        },
        .@"enum" => for (std.enums.values(@TypeOf(value))) |other| {
            if (other != value) break other;
        } else unreachable,
        else => comptime unreachable,
    };
}

test "memory matches while base and live blocks are those of the capture" {
    const gpa = std.testing.allocator;
    var scratch: Scratch = .planning();
    const first = try scratch.alloc(100);
    var memory: GraphMemory = try .of(gpa, &scratch);
    defer memory.deinit(gpa);
    const second = try scratch.alloc(64);
    try std.testing.expect(!memory.matches(&scratch));
    scratch.free(second);
    try std.testing.expect(memory.matches(&scratch));
    scratch.base += 64;
    try std.testing.expect(!memory.matches(&scratch));
    scratch.base -= 64;
    scratch.free(first);
    _ = try scratch.alloc(300);
    try std.testing.expect(!memory.matches(&scratch));
}
