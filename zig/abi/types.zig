//! The structs and enums of the C ABI: plain C layouts that begin with their size. `bindings.zig`
//! turns the lists at the end into TypeScript.

const std = @import("std");
const backend = @import("../backend.zig");
const configs = @import("../model/config.zig");
const faults = @import("../transport/faults.zig");
const pipeline = @import("../pipeline.zig");
const Stage = @import("../stage.zig").Stage;
const layouts = @import("../patch/layout.zig");
const devices = @import("../devices.zig");
const models = @import("../model.zig");
const nccl = @import("../nvidia/nccl.zig");
const modes = @import("../patch/sync_mode.zig");
const verifications = @import("../verify.zig").background;
const networks = models.networks;
const random = @import("../random.zig");
const sessions = @import("../session.zig");
const DType = @import("../tensor.zig").DType;
const transports = @import("../transport.zig");
const weights = @import("../weights.zig");
const adapters = weights.adapters;

/// Increases whenever a struct or a call changes its meaning.
pub const abi_version: u32 = 37;
pub const step_count_max = 1000;
pub const image_count_max = 64;
/// Prompts that an image combines.
pub const prompt_count_max = 16;
/// Chunks of a prompt; a batch has this many sets of prompts at most, too.
pub const chunk_count_max = 64;
pub const prompt_set_count_max = 64;
pub const adapter_count_max = adapters.adapter_count_max;
pub const control_count_max = transports.control_count_max;
pub const ip_adapter_count_max = models.image_use_count_max;
/// Images that an IP-Adapter sees.
pub const ip_image_count_max = 16;
/// Pixels of a side of an image that is enlarged, and of its tiles.
pub const upscale_side_max = 16384;
pub const upscale_tile_range = .{ pipeline.upscale_tile_min, 4096 };
/// Networks that a job names.
pub const network_count_max = weights.block_count_max - 1;
pub const adapter_target_count_max = adapters.target_count_max;

pub const Status = enum(u32) {
    ok = 0,
    bad_argument = 1,
    bad_config = 2,
    bad_weights = 3,
    no_memory = 4,
    not_finite = 5,
    cancelled = 6,
    /// The session is loading, running a job, or could not be loaded.
    not_ready = 7,
    no_threads = 8,
    internal = 9,
    rank_failed = 10,
    gpu_failed = 11,
    /// A library of NVIDIA is missing or too old.
    library_missing = 12,
    /// An earlier job ended the session (`State.lost`): only closing it is left.
    session_lost = 13,
};

pub const text_bytes_max = 128;
pub const nccl_unique_id_bytes = nccl.unique_id_bytes;

pub const DeviceInfo = extern struct {
    size: u32,
    core_count: u32,
    gpu_count: u32,
    /// Whether the CPU can compute in bf16.
    has_bf16: u32,
    /// 0 where the system does not report it.
    memory_available: u64,
    cpu_name: [text_bytes_max]u8,
    instruction_set: [text_bytes_max]u8,
    /// Name of the first GPU.
    gpu_name: [text_bytes_max]u8,
    /// Architectures of the kernels compiled in, "" for a build without nvcc.
    cuda_kernels: [text_bytes_max]u8,
};

/// What this machine's CPU reaches; see `backend/cpu/rates.zig`.
pub const CpuRates = extern struct {
    size: u32,
    reserved: u32,
    flops_per_second: u64,
    bytes_per_second: u64,
};

/// A slice of the caller's memory.
pub const Bytes = extern struct {
    address: usize,
    len: u64,

    pub fn slice(bytes: Bytes) []const u8 {
        if (bytes.len == 0) return &.{};
        return @as([*]const u8, @ptrFromInt(bytes.address))[0..@intCast(bytes.len)];
    }
};

pub const SessionOptions = extern struct {
    size: u32,
    /// Ranks of all processes.
    rank_count: u32,
    /// Local ranks: those of this process.
    local_rank_first: u32,
    local_rank_count: u32,
    /// The GPU of the first local rank, where the process sees more GPUs than it has ranks.
    gpu_first: u32,
    device: devices.DeviceKind,
    thread_count: u32,
    /// Type of the activations: f32 on the CPU, f16 or bf16 on GPUs.
    activation_dtype: DType,
    /// Whether several ranks may share a GPU.
    share_gpu: u32,
    cuda_graphs: u32,
    /// Accumulate the UNet's linear layers in f16, for cards on which that is faster.
    fp16_accumulate: u32,
    attention: backend.AttentionKind,
    transport: devices.TransportKind,
    /// For benches: GPUs generate random weights, and only the headers of files are read.
    random_weights: u32,
    branch_count: u32,
    latent_rows: u32,
    latent_width: u32,
    split_batch: u32,
    /// Images of one batch.
    image_count: u32,
    /// As in the requests, for the memory check.
    vae_tile_latent: u32,
    /// Whether that image starts from another, and whether it has a mask.
    has_image: u32,
    has_mask: u32,
    /// Whether its latents are all that is asked for.
    skips_decode: u32,
    /// Of a second pass, for the memory check; 0 for none.
    second_latent_rows: u32,
    second_latent_width: u32,
    second_has_image: u32,
    /// Tile size that the advice names where an image does not fit in memory; 0 for none.
    model_tile_latent: u32,
    /// Precision of matrix products on the CPU.
    compute_dtype: backend.Compute,
    /// Path of a library that replaces NVIDIA's, ended by a 0 byte; empty for NVIDIA's.
    cuda_library: Bytes,
    /// The ncclUniqueId made by one process (`bxl_nccl_unique_id`); empty if all ranks are local.
    nccl_unique_id: Bytes,
    config: models.ModelConfig,
    /// Paths in UTF-8, each ended by a 0 byte.
    text_encoder_files: Bytes,
    text_encoder_2_files: Bytes,
    unet_files: Bytes,
    vae_files: Bytes,
    taesd_files: Bytes,
    /// `WeightName`, one per weight that the files name in another way; empty where they use
    /// diffusers' keys.
    text_encoder_names: Bytes,
    text_encoder_2_names: Bytes,
    unet_names: Bytes,
    vae_names: Bytes,
    taesd_names: Bytes,
    /// `Adapter`, those of the first image, for the memory check; the requests say which apply.
    adapters: Bytes,
    /// Likewise `Network`, `ControlUse` and `IpAdapterUse`.
    networks: Bytes,
    controls: Bytes,
    ip_adapters: Bytes,
    /// The `Network` that enlarges the first image, or an image alone; empty for none. With sizes
    /// as in `Request`.
    upscaler: Bytes,
    upscale_rows: u32,
    upscale_width: u32,
    upscale_tile: u32,
    /// Loads nothing: the session is ready once all of that is known to fit.
    checks_only: u32,
    /// Memory that must be free beside it on each device, for another session.
    beside_bytes: u64,
};

/// Where files have a weight; see `weights/checkpoint.zig`.
pub const WeightName = extern struct {
    /// UTF-8, without an end mark.
    key: Bytes,
    name: Bytes,
    part_index: u32,
    part_count: u32,
    is_transposed: u32,
};

/// A file of changes to weights: a LoRA or one of its kin. Two of them may name the same file.
pub const Adapter = extern struct {
    /// Of a safetensors file, in UTF-8 without a 0 byte.
    path: Bytes,
    /// The user's factor for the UNet and the VAE; 0 leaves their weights alone.
    unet_scale: f32,
    /// The same for both text encoders.
    text_scale: f32,
    /// `AdapterTarget`; applied in their order, after those of the adapters before.
    targets: Bytes,
};

/// One weight that an adapter changes, and the tensors that say how: names in the adapter's file in
/// UTF-8, empty where a tensor is not used. The library checks that they exist and that their
/// shapes fit each other and the weight.
///
/// | algorithm  | tensors                                                                       |
/// |------------|-------------------------------------------------------------------------------|
/// | lora       | up, down; mid for Tucker (`lora_mid`)                                         |
/// | loha       | w1_a, w1_b, w2_a, w2_b; t1 and t2 for Tucker                                  |
/// | lokr       | w1 or w1_a and w1_b; w2 or w2_a and w2_b, with t2 for Tucker                  |
/// | difference | value: the whole difference (`.diff`, `.diff_b`, `.w_norm`, `.b_norm`)        |
/// | replace    | value: the weight itself (`.set_weight`); the scales are not read             |
///
/// `dora_scale` may be added to the first three.
pub const AdapterTarget = extern struct {
    component: weights.Component,
    algorithm: adapters.Algorithm,
    /// alpha / rank of the delta, 1 where the file has no alpha; 1 for lokr without factors.
    scale: f32,
    /// Read with `dora_scale`: the norm that it is divided by. `original`: kohya, LyCORIS, ComfyUI;
    /// `merged`: PEFT and diffusers (`lora_magnitude_vector`).
    dora_norm: adapters.DoraNorm,
    /// The weight's key as diffusers names it, ".weight" or ".bias" included; those of text
    /// encoders with or without "text_model.".
    key: Bytes,
    up: Bytes,
    down: Bytes,
    mid: Bytes,
    w1: Bytes,
    w1_a: Bytes,
    w1_b: Bytes,
    t1: Bytes,
    w2: Bytes,
    w2_a: Bytes,
    w2_b: Bytes,
    t2: Bytes,
    value: Bytes,
    dora_scale: Bytes,
};

/// A network beside the model, that a job's uses name by its index.
pub const Network = extern struct {
    kind: networks.NetworkKind,
    /// The struct of its kind, such as `ControlNetConfig`.
    config: Bytes,
    /// As those of a component in `SessionOptions`.
    files: Bytes,
    names: Bytes,
};

/// A hint image of a network.
pub const ControlHint = extern struct {
    /// Of a union ControlNet; else 0.
    control_type: u32,
    /// Factor of its features, among several hints.
    scale: f32,
    /// u8 RGB (factor * rows, factor * width, 3); empty in `SessionOptions`.
    image: Bytes,
};

/// A use of a network that steers the UNet by a hint image.
pub const ControlUse = extern struct {
    network_index: u32,
    /// `ControlHint`; several of a union ControlNet alone.
    hints: Bytes,
    /// Factor of what it adds.
    scale: f32,
    /// The steps that it takes part in, [first, end).
    step_first: u32,
    step_end: u32,
};

/// A use of an IP-Adapter with the images that it sees.
pub const IpAdapterUse = extern struct {
    /// Of kind ip_adapter, and of kind clip_vision.
    adapter_index: u32,
    encoder_index: u32,
    /// f32, one per image: factor of what it adds.
    scales: Bytes,
    /// f32 (images, patches, 3 * patch_size^2): normalised pixels, those of a patch channel by
    /// channel; empty in `SessionOptions`.
    patches: Bytes,
    /// The steps that it takes part in, [first, end).
    step_first: u32,
    step_end: u32,
};

pub const Tokens = extern struct {
    /// i32, one per position of the encoder and chunk; not read where the model has no such
    /// encoder. Ids from the vocabulary's size on are rows of `Request.injected`.
    ids: Bytes,
    ids_2: Bytes,
    /// f32, one per id; empty where all are 1.
    weights: Bytes,
    weights_2: Bytes,
    /// Index of the end-of-text token in the first chunk of the encoder with the pooled output.
    end_index: u32,
    /// Layers that both encoders leave out before the state that the UNet reads, as diffusers
    /// counts.
    clip_skip: u32,
    /// How often A1111's schedule of the image has this prompt, counted in one of the sets that
    /// have it and 0 in the others; 1 without a schedule.
    repeat_count: u32,
    /// 0 for an absent negative prompt: its embedding is zeros.
    present: u32,
};

/// Inputs that only tests and benches pass.
pub const TestHooks = extern struct {
    /// Group norms with Bessel's correction n / (n - 1), as DistriFusion computes them.
    bessel_variance: u32,
    /// Not 0: random delays before signals.
    delay_seed: u32,
    fault: faults.Fault,
    fault_rank: u32,
    fault_step: u32,
    /// Time that a rank waits for another; 0 for the default limit.
    stall_limit_ms: u32,
    /// On GPUs, for benches: only this rank (counted from 1) runs; zeros replace its peers' values.
    /// 0 for all ranks.
    only_rank: u32,
    /// This rank (counted from 1) takes so many hundredths of its time for the UNet more.
    slow_rank: u32,
    slow_percent: u32,

    /// The hooks of a request; all 0 in a product run.
    pub fn of(bytes: Bytes) TestHooks {
        if (bytes.len != @sizeOf(TestHooks)) return std.mem.zeroes(TestHooks);
        return std.mem.bytesToValue(TestHooks, bytes.slice());
    }
};

pub const GpuReportOptions = extern struct {
    size: u32,
    /// Time limit of one copy between GPUs.
    peer_limit_ms: u32,
    /// Path of the emulated libraries, for tests; empty for NVIDIA's.
    emulator: Bytes,
};

pub const VerifyOptions = extern struct {
    size: u32,
    is_quick: u32,
    is_json: u32,
    /// Of the first draw of every operation.
    seed: u64,
    /// Only checks whose name contains this, or one of several behind commas; empty for all.
    only: Bytes,
    /// Path of the emulated libraries, for tests; empty for NVIDIA's.
    emulator: Bytes,
};

pub const Request = extern struct {
    size: u32,
    kind: pipeline.Kind,
    latent_rows: u32,
    latent_width: u32,
    branch_count: u32,
    /// 0 to 1; 0 is off.
    guidance_rescale: f32,
    init_noise_sigma: f32,
    wants_latents: u32,
    /// Decode nothing: the latents alone.
    skips_decode: u32,
    sync_mode: modes.SyncMode,
    warmup_steps: u32,
    /// Not 0: the warm-up ends earlier, once outputs change by less from step to step.
    warmup_threshold: f32,
    /// u32, one per rank: shares of the rows, from step `balance_step` on; empty for equal parts.
    rank_shares: Bytes,
    balance_step: u32,
    /// Deal rows by the speed of ranks that the first steps show.
    measures_balance: u32,
    split_batch: u32,
    /// Tile size of the VAE's decoder in rows and columns of the latent; 0 for no tiles.
    vae_tile_latent: u32,
    /// On the CPU in f32: convolutions with fewer multiplications and larger errors.
    winograd: u32,
    extrapolate_halos: u32,
    /// With cached deep features: full steps wait for those of the other patches.
    fresh_deep: u32,
    compress_exchange: modes.Compression,
    wants_decoded: u32,
    /// Steps between previews; 0 for none.
    preview_steps: u32,
    /// Generator that the seeds initialise.
    rng: random.Rng,
    /// Where the noise of steps comes from.
    noise_source: pipeline.NoiseSource,
    /// Of a new generator for it, and of the nodes of a Brownian path.
    noise_rng: random.Rng,
    /// The range of noise levels of a Brownian path; not read for other sources.
    brownian_min: f32,
    brownian_max: f32,
    /// Images that torch makes the noise of together, with one seed; 0 or 1 for one.
    noise_batch: u32,
    /// u32, each image's place among them; empty for 0.
    noise_places: Bytes,
    /// Added to the seed of a new generator, modulo 2^64.
    noise_seed_delta: u64,
    /// How far the first latent is from the noise of `seeds` to that of `variation_seeds`, 0 to 1.
    variation_strength: f32,
    /// u64, one per image; empty for strength 0.
    variation_seeds: Bytes,
    /// One `TestHooks`; empty in a product run.
    hooks: Bytes,
    /// u64, one per image of the batch.
    seeds: Bytes,
    /// `StepCoefficients`, one per step.
    steps: Bytes,
    /// f32, two per step (`Job.clean_mixes`); empty without previews and adaptive steps.
    clean_mixes: Bytes,
    /// f32, of each image one for every prompt that it combines; not read with one branch.
    guidance_scales: Bytes,
    /// `Tokens` of every image and, in it, of every prompt: the same number of sets, side by side;
    /// the sets of a prompt with the same number of chunks, and of all where each image has one.
    prompts: Bytes,
    /// As `prompts`, with a number of chunks of their own; empty with one branch.
    negatives: Bytes,
    /// u32, the set that each step reads; empty for one set.
    step_sets: Bytes,
    /// `StepReuse`, one per step; empty where each computes everything.
    step_reuse: Bytes,
    /// Skip connections that steps with cached deep features compute (`Reuse.outer_skips`).
    outer_skips: u32,
    /// Of adaptive steps; see `Job.reuse_threshold`.
    reuse_threshold: f32,
    /// How weights of tokens are applied.
    emphasis: pipeline.Emphasis,
    /// `Tokens` of the empty prompt where `emphasis` interpolates from it; else empty.
    empty: Bytes,
    /// `Adapter`: all that the weights have while this job runs; empty for the model's own weights.
    /// A set that was used shortly before costs no merging.
    adapters: Bytes,
    /// `Network`: those beside the model that this job uses. One that was used shortly before is
    /// not loaded again.
    networks: Bytes,
    /// `ControlUse`
    controls: Bytes,
    /// `IpAdapterUse`
    ip_adapters: Bytes,
    /// Embeddings of textual inversion for each text encoder, f32 (rows, hidden_size).
    injected: Bytes,
    injected_2: Bytes,
    /// The image to start from, u8 RGB (factor * rows, factor * width, 3); empty for none.
    image: Bytes,
    /// u8 of its size, where 128 and more is new; empty for none. Inpainting models need it.
    mask: Bytes,
    /// f32, one per position of the latent, where 1 is new; empty without a mask.
    latent_mask: Bytes,
    /// The same for inpainting models, which read it; else empty.
    condition_mask: Bytes,
    masked_latent: pipeline.MaskedLatent,
    /// `MaskStep`, one per step, or empty where no step mixes in what the mask keeps.
    mask_steps: Bytes,
    /// f32, latents to start from instead of the image's (images, channels, rows, width); empty for
    /// none. Beside a mask the image is what that keeps.
    latents: Bytes,
    /// See `Job.image_scale`; 0 without an image or latents, and for noise alone.
    image_scale: f32,
    noise_skip: u32,
    /// Whether the image's latent is a sample of the encoder's distribution.
    samples_posterior: u32,
    /// diffusers' add_time_ids, `UnetConfig.time_id_count` values: original height and width, crop
    /// top and left, then target height and width, or for refiners the aesthetic score.
    time_ids: [configs.time_id_count_max]f32,
    /// The same of the negative branch.
    negative_time_ids: [configs.time_id_count_max]f32,
    /// Of the kind `upscale`, in pixels: the size of `image`, which `networks[0]` enlarges, and of
    /// the tiles in which it does.
    upscale_rows: u32,
    upscale_width: u32,
    upscale_tile: u32,
    /// The fields below are for kinds other than `image`; `Bytes` hold f32 values.
    batch: u32,
    timestep: f32,
    sample: Bytes,
    prompt_embeds: Bytes,
    pooled: Bytes,
    time_ids_list: Bytes,
};

/// Ranges of a request's numbers, bounds included.
pub const request_ranges = .{
    .guidance_rescale = .{ 0, 1 },
    .variation_strength = .{ 0, 1 },
    .warmup_threshold = .{ 0, 1 },
    .batch = .{ 1, image_count_max },
    .noise_skip = .{ 0, 2 * step_count_max },
};

pub const Progress = extern struct {
    size: u32,
    state: sessions.State,
    /// The error where `state` is failed or lost.
    status: Status,
    stage: Stage,
    step_index: u32,
    /// Steps of the stage, where the library counts them (tiles of `upscale`); else 0.
    step_count: u32,
    /// Counters since the session was opened, for tests: planned shapes, and dry runs of the UNet.
    plan_count: u32,
    unet_dry_run_count: u32,
    /// Finished steps of what `bxl_session_read` returns as preview; 0 for none yet.
    preview_step: u32,
    scratch_bytes: u64,
    /// What a session needed in free memory when it opened, on the device with most.
    needed_bytes: u64,
    /// Bytes of weights that loading copies, and those copied so far.
    copy_bytes: u64,
    copied_bytes: u64,
    /// Memory in use on the first GPU after the last job, by all processes; 0 on the CPU.
    device_bytes: u64,
    /// Bytes of weights that the job merges with its adapters, and those merged so far; both 0
    /// where they are merged already.
    adapt_bytes: u64,
    adapted_bytes: u64,
    /// Host memory of merged weights, those of sets that are kept for later included.
    merged_bytes: u64,
    /// Counter since the session was opened, for tests: weights merged.
    merged_weight_count: u64,
    /// Time that making the adapters' weights took.
    adapt_ns: u64,
    text_ns: u64,
    encode_ns: u64,
    denoise_ns: u64,
    decode_ns: u64,
};

/// Constants shared with TypeScript, there in camelCase.
pub const constants = .{
    .{ "rank_count_max", layouts.rank_count_max },
    .{ "share_max", layouts.share_max },
    .{ "step_count_max", step_count_max },
    .{ "image_count_max", image_count_max },
    .{ "prompt_count_max", prompt_count_max },
    .{ "chunk_count_max", chunk_count_max },
    .{ "prompt_set_count_max", prompt_set_count_max },
    .{ "nccl_unique_id_bytes", nccl_unique_id_bytes },
    .{ "adapter_count_max", adapter_count_max },
    .{ "control_count_max", control_count_max },
    .{ "ip_adapter_count_max", ip_adapter_count_max },
    .{ "ip_image_count_max", ip_image_count_max },
    .{ "upscale_side_max", upscale_side_max },
    .{ "upscale_tile_min", upscale_tile_range[0] },
    .{ "upscale_tile_max", upscale_tile_range[1] },
    .{ "adapter_target_count_max", adapter_target_count_max },
};
/// Structs that TypeScript fills, nested structs first.
pub const structs_in = .{
    configs.ClipConfig,       configs.TextConfig,       configs.UnetConfig,
    configs.VaeConfig,        configs.TaesdConfig,      models.ModelConfig,
    Bytes,                    WeightName,               SessionOptions,
    Tokens,                   TestHooks,                Request,
    backend.Update,           GpuReportOptions,         Adapter,
    AdapterTarget,            backend.StepCoefficients, pipeline.StepReuse,
    VerifyOptions,            Network,                  configs.ControlNetConfig,
    ControlHint,              ControlUse,               configs.IpAdapterConfig,
    IpAdapterUse,             configs.ClipVisionConfig, configs.UpscalerConfig,
    configs.T2iAdapterConfig, pipeline.NoiseLevel,      pipeline.MaskStep,
};
/// Structs that the library fills; TypeScript writes only their size.
pub const structs_out = .{ DeviceInfo, CpuRates, Progress, pipeline.RankStats };
pub const enums = .{
    Status,                sessions.State,            pipeline.Kind,        Stage,
    pipeline.Output,       configs.HiddenAct,         configs.HiddenState,  configs.PooledFrom,
    configs.MidBlockKind,  backend.Compute,           modes.SyncMode,       faults.Fault,
    devices.DeviceKind,    devices.TransportKind,     DType,                random.Rng,
    backend.AttentionKind, weights.Component,         adapters.Algorithm,   adapters.DoraNorm,
    pipeline.Emphasis,     pipeline.NoiseSource,      pipeline.DeepPlan,    backend.Part,
    modes.Compression,     verifications.VerifyState, networks.NetworkKind, configs.IpProjection,
    configs.UpscalerKind,  pipeline.MaskedLatent,
};
