//! One piece of work for a session, as the control plane asked for it, and what came of it.
//! A job owns all its memory: nothing points back into the caller's.

const std = @import("std");
const Allocator = std.mem.Allocator;
const StepCoefficients = @import("../backend.zig").StepCoefficients;
const SyncMode = @import("../patch/sync_mode.zig").SyncMode;
const Rng = @import("../random.zig").Rng;
const Hooks = @import("../transport/faults.zig").Hooks;

pub const Kind = enum(u32) {
    /// Prompt to image.
    image = 0,
    /// The parts alone, for tests, benchmarks and image-to-image.
    prompt_embeds = 1,
    noise_prediction = 2,
    decode = 3,
    encode = 4,

    /// The stage that a job of this kind begins with.
    pub fn firstStage(kind: Kind) Stage {
        return switch (kind) {
            .image, .prompt_embeds => .text,
            .noise_prediction => .denoise,
            .decode => .decode,
            .encode => .encode,
        };
    }
};

pub const Stage = enum(u32) { load = 0, text = 1, denoise = 2, decode = 3, encode = 4 };

/// What a job can leave behind. All f32 but `rgb` (u8) and what counts; images and latents
/// are NCHW, `rgb` is (images, rows, width, 3).
pub const Output = enum(u32) {
    rgb = 0,
    latents = 1,
    step_ns = 2,
    prompt_embeds = 3,
    pooled = 4,
    noise_prediction = 5,
    decoded = 6,
    /// `RankCounts` of every rank.
    rank_counts = 7,
};

/// What one rank did in a image's steps; bytes are those that came from other ranks.
pub const RankCounts = extern struct {
    compute_ns: u64 = 0,
    wait_ns: u64 = 0,
    halo_row_bytes: u64 = 0,
    statistics_bytes: u64 = 0,
    keys_values_bytes: u64 = 0,
    gather_bytes: u64 = 0,
    /// Held for the exchange inside the UNet.
    buffer_bytes: u64 = 0,
    scratch_bytes: u64 = 0,
    /// Pieces of work that became CUDA graphs in this job, and that ran as one.
    graphs_captured: u64 = 0,
    graphs_replayed: u64 = 0,
};

pub const Tokens = struct {
    ids: []const i32 = &.{},
    ids_2: []const i32 = &.{},
    /// Where the second encoder pools.
    end_index_2: u32 = 0,
};

pub const Job = struct {
    arena: std.heap.ArenaAllocator,
    kind: Kind,
    latent_rows: u32,
    latent_width: u32,
    /// 1, or 2 with guidance.
    branch_count: u32 = 1,
    guidance_scale: f32 = 1,
    /// See `LatentStep`.
    guidance_rescale: f32 = 0,
    /// The first latent is noise times this.
    initial_scale: f32 = 1,
    /// One per image.
    seeds: []const u64 = &.{},
    rng: Rng = .cpu,
    mode: SyncMode = .corrected_async_gn,
    warmup_steps: u32 = 0,
    split_batch: bool = true,
    /// See `Exchange.extrapolates_halos`.
    extrapolates_halos: bool = true,
    /// Whether the decoder's output is wanted too, as `image`.
    wants_decoded: bool = false,
    /// See `Exchange.bessel_variance`; for comparisons.
    bessel_variance: bool = false,
    hooks: Hooks = .{},
    rows: []const StepCoefficients = &.{},
    prompt: Tokens = .{},
    /// Null means zeros (`force_zeros_for_empty_prompt`).
    negative: ?Tokens = null,
    time_ids: [6]f32 = @splat(0),
    wants_latents: bool = false,
    /// Rows and columns of the latent that are decoded at once; 0 for all. See `vae_tiling.zig`.
    vae_tile_latent: u32 = 0,
    /// Inputs of the kinds other than `image`; see `denoise.zig`.
    batch: u32 = 1,
    timestep: f32 = 0,
    sample: []const f32 = &.{},
    prompt_embeds: []const f32 = &.{},
    pooled: []const f32 = &.{},
    time_ids_list: []const f32 = &.{},

    /// While planning: scratch bytes before the decode.
    undecoded_bytes: usize = 0,

    outputs: std.EnumArray(Output, []const u8) = .initFill(&.{}),
    text_ns: u64 = 0,
    denoise_ns: u64 = 0,
    decode_ns: u64 = 0,

    pub fn deinit(job: *Job) void {
        job.arena.deinit();
        job.* = undefined;
    }

    /// Memory for a result, which stays until the next job.
    pub fn output(job: *Job, comptime T: type, name: Output, count: usize) Allocator.Error![]T {
        const memory = try job.arena.allocator().alloc(T, count);
        job.outputs.set(name, std.mem.sliceAsBytes(memory));
        return memory;
    }
};
