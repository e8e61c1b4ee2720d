//! A job: one request to a session, copied, so that nothing points into the caller's memory. It
//! does not change once it is submitted; its outputs are in `result.zig`.

const std = @import("std");
const Part = @import("../backend.zig").Part;
const StepCoefficients = @import("../backend.zig").StepCoefficients;
const layouts = @import("../patch/layout.zig");
const Branches = layouts.Branches;
const Shares = layouts.Shares;
const Description = @import("../model/network.zig").Description;
const Compression = @import("../patch/sync_mode.zig").Compression;
const SyncMode = @import("../patch/sync_mode.zig").SyncMode;
const Emphasis = @import("emphasis.zig").Emphasis;
const MaskedLatent = @import("mask_step.zig").MaskedLatent;
const MaskStep = @import("mask_step.zig").MaskStep;
const NoiseSource = @import("noise.zig").NoiseSource;
const Rng = @import("../random.zig").Rng;
const Stage = @import("../stage.zig").Stage;
const Adapter = @import("../weights.zig").adapters.Adapter;
const Hooks = @import("../transport/faults.zig").Hooks;

pub const Kind = enum(u32) {
    /// From prompts to images.
    image = 0,
    /// A single component, for tests and benches.
    prompt_embeds = 1,
    noise_prediction = 2,
    decode = 3,
    encode = 4,
    /// TAESD.
    decode_preview = 5,
    /// Enlarges an image by the first network of the job.
    upscale = 6,

    pub fn firstStage(kind: Kind) Stage {
        return switch (kind) {
            .image, .prompt_embeds => .text,
            .noise_prediction => .denoise,
            .decode, .decode_preview => .decode,
            .encode => .encode,
            .upscale => .upscale,
        };
    }
};

/// A prompt in chunks of as many tokens as the encoders have positions, each with its own marks
/// for beginning and end. An id from the vocabulary's size on is a row of the job's injected
/// embeddings.
pub const Tokens = struct {
    ids: []const i32 = &.{},
    ids_2: []const i32 = &.{},
    /// One per id, as `Job.emphasis` applies them; empty where all are 1.
    weights: []const f32 = &.{},
    weights_2: []const f32 = &.{},
    /// Index of the first chunk's end-of-text token, whose state the pooled output is.
    end_index: u32 = 0,
    /// Layers that the encoders leave out, beyond those that the model's config does.
    clip_skip: u32 = 0,
    /// Entries of A1111's schedule that have this prompt, counted in one of the sets that have it:
    /// so often it counts in the mean (`emphasis.zig`).
    repeat_count: u32 = 1,

    pub fn idCount(tokens: *const Tokens) usize {
        return @max(tokens.ids.len, tokens.ids_2.len);
    }

    pub fn chunkCount(tokens: *const Tokens, position_count: u32) u32 {
        return @intCast(tokens.idCount() / position_count);
    }

    /// Whether the encoders give the same states, weights aside.
    pub fn encodesAs(a: Tokens, b: Tokens) bool {
        return a.end_index == b.end_index and a.clip_skip == b.clip_skip and
            std.mem.eql(i32, a.ids, b.ids) and std.mem.eql(i32, a.ids_2, b.ids_2);
    }
};

/// Whether a step computes the deep features of the UNet. The first step that computes other
/// branches than the one before always does.
pub const DeepPlan = enum(u32) {
    full = 0,
    /// Takes those of the last full step.
    cached = 1,
    /// As the change of the steps before says (`decisions.zig`).
    adaptive = 2,
};

/// What a step takes from an earlier one (`model/reuse.zig`).
pub const StepReuse = extern struct { deep: DeepPlan = .full, cross: Part = .compute };

/// Steps of a job, [first, end).
pub const StepRange = struct {
    first: u32,
    end: u32,

    /// Every step.
    pub const all: StepRange = .{ .first = 0, .end = std.math.maxInt(u32) };

    pub fn has(range: StepRange, step: u32) bool {
        return step >= range.first and step < range.end;
    }
};

/// A hint image of a network beside the UNet.
pub const ControlHint = struct {
    /// u8 RGB of factor * rows and factor * width.
    image: []const u8,
    /// Of a union model.
    control_type: u32,
    /// Factor of the hint's features, among several of a union model.
    scale: f32,
};

/// A network beside the UNet that reads a hint image, or several at once where it is a union model.
pub const ControlUse = struct {
    /// Among the networks of the job.
    network_index: u32,
    hints: []const ControlHint,
    /// Factor of what it adds.
    scale: f32,
    /// The steps that it takes part in.
    steps: StepRange,
};

/// An IP-Adapter with the images that it sees.
pub const IpAdapterUse = struct {
    /// Among the networks of the job.
    adapter_index: u32,
    encoder_index: u32,
    /// One per image, which what it adds is multiplied by.
    scales: []const f32,
    /// Of each image the patches of its normalised pixels; see `ClipVisionModel.patchShape`.
    patches: []const f32,
    /// The steps that it takes part in.
    steps: StepRange,
};

/// In pixels of the image: its size, and that of a tile.
pub const Upscale = struct { rows: u32 = 0, width: u32 = 0, tile: u32 = 0 };

pub const Job = struct {
    arena: std.heap.ArenaAllocator,
    kind: Kind,
    latent_rows: u32,
    latent_width: u32,
    /// 1, or with guidance the negative one and one for each prompt that an image combines.
    branch_count: u32 = 1,
    /// Of each image one for every prompt that it combines; not read with one branch.
    guidance_scales: []const f32 = &.{},
    /// See `LatentStep.rescale`.
    guidance_rescale: f32 = 0,
    /// The first latent is standard normal noise times this (diffusers' name).
    init_noise_sigma: f32 = 1,
    /// One per image.
    seeds: []const u64 = &.{},
    rng: Rng = .cpu,
    noise_source: NoiseSource = .generator,
    /// Of a new generator and of the nodes of a Brownian path.
    noise_rng: Rng = .cpu,
    /// Added to the seed of a new generator.
    noise_seed_delta: u64 = 0,
    /// How far the first latent is from the noise of `seeds` to that of `variation_seeds`, 0 to 1.
    variation_strength: f32 = 0,
    /// One per image; not read at strength 0.
    variation_seeds: []const u64 = &.{},
    /// The range of a Brownian path.
    brownian_min: f32 = 0,
    brownian_max: f32 = 0,
    /// Images that torch makes the noise of together; 0 or 1 for one.
    noise_batch: u32 = 1,
    /// Each image's place among them; empty for 0.
    noise_places: []const u32 = &.{},
    sync_mode: SyncMode = .corrected_async_gn,
    warmup_steps: u32 = 0,
    /// Not 0: the warm-up ends, at `warmup_steps` at the latest, after the first step whose
    /// predicted clean latent has changed by less (`Signals.clean_change`).
    warmup_threshold: f32 = 0,
    /// How rows are dealt: of each rank its share of them, from `balance_step` on; empty for equal
    /// parts.
    rank_shares: []const u32 = &.{},
    balance_step: u32 = 0,
    /// Whether rows are dealt by the speed of ranks that the first steps show.
    measures_balance: bool = false,
    split_batch: bool = true,
    /// See `Exchange.extrapolates_halos`.
    extrapolate_halos: bool = true,
    /// See `Exchange.fresh_deep`.
    fresh_deep: bool = false,
    /// How keys and values travel between patches.
    compress_exchange: Compression = .none,
    /// Whether the result includes the decoder's output in f32.
    wants_decoded: bool = false,
    wants_latents: bool = false,
    /// Whether the latents are all that is asked for.
    skips_decode: bool = false,
    /// Steps between previews; 0 for none.
    preview_steps: u32 = 0,
    /// For previews and adaptive steps, two per step: factors of the latent and of the model's
    /// output, whose sum is the clean latent that the model predicts.
    clean_mixes: []const f32 = &.{},
    /// See `Exchange.bessel_variance`; for comparisons.
    bessel_variance: bool = false,
    hooks: Hooks = .{},
    steps: []const StepCoefficients = &.{},
    /// `setCount` for each prompt that an image combines, side by side, those of an image after one
    /// another. The sets of a prompt have the same number of chunks.
    prompts: []const Tokens = &.{},
    /// As `prompts`; null means zeros (`force_zeros_for_empty_prompt`).
    negatives: []const ?Tokens = &.{},
    /// The set of prompts that each step reads, for prompts that change on the way; empty where all
    /// read the first.
    step_sets: []const u32 = &.{},
    /// One per step; empty where each computes everything.
    step_reuse: []const StepReuse = &.{},
    /// See `Reuse.outer_skips`.
    outer_skips: u32 = 0,
    /// Of adaptive steps: the accumulated change up to which deep features are reused.
    reuse_threshold: f32 = 0,
    emphasis: Emphasis = .original,
    /// The empty prompt of one chunk, for `Emphasis.interpolate`; else none.
    empty: []const Tokens = &.{},
    /// All that change the weights while the job runs, in the order of their application.
    adapters: []const Adapter = &.{},
    /// Embeddings of textual inversion, (rows, hidden_size) of each text encoder.
    injected: []const f32 = &.{},
    injected_2: []const f32 = &.{},
    /// Networks beside the model that the job uses.
    networks: []const Description = &.{},
    controls: []const ControlUse = &.{},
    ip_adapters: []const IpAdapterUse = &.{},
    time_ids: [6]f32 = @splat(0),
    /// Of the negative branch.
    negative_time_ids: [6]f32 = @splat(0),
    /// Tile size in rows and columns of the latent; 0 for no tiles. See `vae_tiling.zig`.
    vae_tile_latent: u32 = 0,
    /// See `Cpu.uses_winograd`.
    winograd: bool = false,
    /// The image that the job starts from, RGB of factor * rows and factor * width; empty for noise
    /// alone.
    image: []const u8 = &.{},
    /// Grey of its size, where 128 and more is new; empty for all. A UNet that reads the masked
    /// image has the rest.
    mask: []const u8 = &.{},
    /// With a mask, one for each position of the latent: 1 where it is new, 0 where it is kept.
    latent_mask: []const f32 = &.{},
    /// The same for a UNet that reads it.
    condition_mask: []const f32 = &.{},
    masked_latent: MaskedLatent = .image,
    /// With a mask, one per step; empty where no step mixes in what it keeps.
    mask_steps: []const MaskStep = &.{},
    /// Latents to start from instead, of each image in NCHW; empty for none.
    latents: []const f32 = &.{},
    /// The first latent is the image's, or `latents`, times this and noise times
    /// `init_noise_sigma`.
    image_scale: f32 = 0,
    /// Tensors of each image's generator that an earlier part of its run has read, left out here;
    /// of `NoiseSource.new_generator` those of steps.
    noise_skip: u32 = 0,
    /// Whether the image's latent is a sample of the encoder's distribution, and not its mean.
    samples_posterior: bool = false,
    /// Of the kind `upscale`, whose `image` has another size than other kinds have.
    upscale: Upscale = .{},
    /// Inputs of the kinds other than `image`; see `components.zig` and `encode.zig`.
    batch: u32 = 1,
    timestep: f32 = 0,
    sample: []const f32 = &.{},
    prompt_embeds: []const f32 = &.{},
    pooled: []const f32 = &.{},
    time_ids_list: []const f32 = &.{},

    /// Prompts that an image combines, in a branch each.
    pub fn promptCount(job: *const Job) u32 {
        return @max(2, job.branch_count) - 1;
    }

    /// Sets of prompts; `step_sets` chooses between them.
    pub fn setCount(job: *const Job) u32 {
        if (job.kind != .image or job.prompts.len == 0) return 1;
        return @intCast(job.prompts.len / (job.seeds.len * job.promptCount()));
    }

    pub fn setOfStep(job: *const Job, step: usize) u32 {
        return if (job.step_sets.len == 0) 0 else job.step_sets[step];
    }

    pub fn cleanMix(job: *const Job, step: usize) [2]f32 {
        if (job.clean_mixes.len == 0) return .{ 1, 0 };
        return job.clean_mixes[2 * step ..][0..2].*;
    }

    pub fn hasImage(job: *const Job) bool {
        return job.image.len > 0;
    }

    pub fn hasLatents(job: *const Job) bool {
        return job.latents.len > 0;
    }

    pub fn hasMask(job: *const Job) bool {
        return job.mask.len > 0;
    }

    /// A step with a guidance factor of 0 computes no negative branch. One that keeps outputs of
    /// cross-attention needs both branches of a row on one rank.
    pub fn branchesAt(job: *const Job, step: usize) Branches {
        if (job.branch_count == 1) return .all;
        if (job.steps[step].guidance_factor == 0) return .positive;
        return if (job.reuseAt(step).cross == .keep) .together else .all;
    }

    pub fn reuseAt(job: *const Job, step: usize) StepReuse {
        return if (job.step_reuse.len == 0) .{} else job.step_reuse[step];
    }

    /// Whether some step keeps the outputs of cross-attention.
    pub fn gatesCross(job: *const Job) bool {
        for (job.step_reuse) |reuse| if (reuse.cross == .keep) return true;
        return false;
    }

    /// Whether some step decides by what the steps before gave.
    pub fn isAdaptive(job: *const Job) bool {
        if (job.warmup_threshold > 0) return true;
        for (job.step_reuse) |reuse| if (reuse.deep == .adaptive) return true;
        return false;
    }

    pub fn shares(job: *const Job) Shares {
        var result: Shares = .{ .count = @intCast(job.rank_shares.len) };
        @memcpy(result.list[0..result.count], job.rank_shares);
        return result;
    }

    /// The shares of the first step.
    pub fn firstShares(job: *const Job) Shares {
        return if (job.balance_step == 0) job.shares() else .{};
    }

    /// Whether rows are dealt by shares between steps. Not where some step keeps the outputs of
    /// cross-attention, which are those of the first rows.
    pub fn dealsByShares(job: *const Job) bool {
        return job.rank_shares.len > 0 and job.balance_step > 0;
    }

    /// Whether ranks change their rows or branches between steps.
    pub fn dealsAnew(job: *const Job) bool {
        return job.usesBranches(.positive) or job.usesBranches(.together);
    }

    /// See `LatentStep.rescale`; nothing is rescaled outside the guidance window.
    pub fn rescaleAt(job: *const Job, step: StepCoefficients) f32 {
        return if (step.guidance_factor == 0) 0 else job.guidance_rescale;
    }

    /// Whether any step computes these branches. A job without steps has one with all.
    pub fn usesBranches(job: *const Job, branches: Branches) bool {
        for (0..job.steps.len) |step| if (job.branchesAt(step) == branches) return true;
        return job.steps.len == 0 and branches == .all;
    }

    /// Ids of the longest prompt, or of a negative one, in all chunks; 0 where the job has no
    /// prompts yet. Zeros for a negative prompt are as long as the prompt, as in diffusers: any
    /// length is the same.
    pub fn idCount(job: *const Job, is_negative: bool) usize {
        if (is_negative) for (job.negatives) |*maybe| {
            if (maybe.*) |*tokens| return tokens.idCount();
        };
        var most: usize = 0;
        for (job.prompts) |*tokens| most = @max(most, tokens.idCount());
        return most;
    }

    /// The most that a prompt has.
    pub fn clipSkip(job: *const Job) u32 {
        var most: u32 = 0;
        for (job.prompts) |tokens| most = @max(most, tokens.clip_skip);
        for (job.negatives) |maybe| if (maybe) |tokens| {
            most = @max(most, tokens.clip_skip);
        };
        return most;
    }

    /// Whether the text encoders read embeddings beside their vocabularies.
    pub fn hasInjected(job: *const Job) bool {
        return job.injected.len > 0 or job.injected_2.len > 0;
    }

    /// The job with only its first `count` images; `job` keeps the memory.
    pub fn withImages(job: *const Job, count: usize) Job {
        var fewer = job.*;
        fewer.seeds = job.seeds[0..count];
        fewer.guidance_scales = job.guidance_scales[0..@min(count, job.guidance_scales.len)];
        fewer.variation_seeds = job.variation_seeds[0..@min(count, job.variation_seeds.len)];
        fewer.noise_places = job.noise_places[0..@min(count, job.noise_places.len)];
        const prompt_count = count * job.setCount();
        fewer.prompts = job.prompts[0..@min(prompt_count, job.prompts.len)];
        fewer.negatives = job.negatives[0..@min(prompt_count, job.negatives.len)];
        return fewer;
    }

    pub fn firstStage(job: *const Job) Stage {
        return if (job.adapters.len > 0) .adapt else job.kind.firstStage();
    }

    pub fn deinit(job: *Job) void {
        job.arena.deinit();
        job.* = undefined;
    }
};
