//! What the operations of `backend.zig` are told beyond their tensors. Plain values, the same for
//! every device; some cross the ABI or lie in device memory, so their layout is fixed.

const std = @import("std");
const Tensor = @import("../tensor.zig").Tensor;

/// What computes attention on GPUs: cuDNN where it has a kernel; own kernels alone; cuDNN, and a
/// refusal where it is too old.
pub const AttentionKind = enum(u32) { auto = 0, own = 1, cudnn = 2 };

/// Checks for finite numbers that may be under way at once, each with an answer of its own.
pub const FiniteCheck = enum {
    alone,
    even_step,
    odd_step,

    pub fn ofStep(index: usize) FiniteCheck {
        return if (index % 2 == 0) .even_step else .odd_step;
    }
};

/// soft_clamp is 3 tanh(x / 3), to_signed 2 x - 1: the ends of AutoencoderTiny's decoder.
/// leaky_relu has the slope 0.2 of ESRGAN.
pub const Activation = enum(u32) {
    none,
    silu,
    gelu,
    quick_gelu,
    relu,
    soft_clamp,
    to_signed,
    leaky_relu,
};

/// y = activation(scale * x * weight^T + bias) + residual
pub const LinearOptions = struct {
    /// 1 on the CPU.
    scale: f32 = 1,
    activation: Activation = .none,
    residual: ?Tensor = null,
    /// x as products with int8 weights read it, where it is at hand (`Backend.quantizeFor`).
    quantized: ?Tensor = null,
    /// Room for sums of int8 products on GPUs, of `cudas.sumBytes`.
    sums: ?Tensor = null,
};

/// Zero rows and columns around a convolution's input.
pub const Padding = struct { top: u32, bottom: u32, left: u32, right: u32 };

pub const ConvOptions = struct {
    /// Of the product, before the bias; 1 on the CPU.
    scale: f32 = 1,
    stride: u32 = 1,
    padding: Padding = .{ .top = 1, .bottom = 1, .left = 1, .right = 1 },
    /// The convolution sees its input enlarged twice (nearest), without that being stored.
    upsample: bool = false,
    /// The row above the first and below the last, (batch, 1, width, channels), at the input's own
    /// size; where null, the padding rows are zeros.
    halo_above: ?Tensor = null,
    halo_below: ?Tensor = null,
    /// (batch, 1, 1, out channels), added to every position: the time embedding.
    channel_bias: ?Tensor = null,
    activation: Activation = .none,
    residual: ?Tensor = null,
};

/// What a step does with a part of the UNet that later steps can take over (`model/reuse.zig`).
pub const Part = enum(u32) {
    compute = 0,
    /// Computes it, and keeps it for later steps.
    keep = 1,
    /// Takes what an earlier step kept.
    reuse = 2,
};

/// Coefficients of one register's new value (see `StepCoefficients`).
pub const Update = extern struct {
    sample: f32,
    auxiliary: f32,
    /// Newest first.
    model_outputs: [model_output_count]f32,
    noise: f32,
};

/// Model outputs that a multistep sampler can read, the newest included (diffusers: solver_order).
pub const model_output_count = 4;

/// One step of a sampler (diffusers: scheduler.step) as a linear combination. x is the latent
/// (sample), e the model output after guidance, s the auxiliary register (diffusers: last_sample),
/// m_k the converted model outputs, newest first (diffusers: model_outputs), z fresh noise:
///   m_0 = output_from_sample * x + output_from_model * e    (diffusers: convert_model_output)
///         in a place of its own, or in that of the last one where `replaces_output` is not 0
///   x'  = latent.sample * x + latent.auxiliary * s + sum_k latent.model_outputs[k] * m_k
///         + latent.noise * z
///   s'  = the same with the coefficients `auxiliary`, or s where `updates_auxiliary` is 0
/// x' and s' both read the old x and s. The model's input is input_scale * x (diffusers:
/// scale_model_input) at `timestep`. Guidance is the image's scale times guidance_factor.
pub const StepCoefficients = extern struct {
    timestep: f32,
    input_scale: f32,
    output_from_sample: f32,
    output_from_model: f32,
    latent: Update,
    auxiliary: Update,
    updates_auxiliary: u32,
    /// Whether m_0 takes the place of the newest output so far; else that and the older ones move
    /// on. Read by the pipeline, which orders the outputs' tensors.
    replaces_output: u32 = 0,
    /// Whether z is sampled. Ancestral samplers sample it even where its coefficient is 0: the
    /// generator's state decides the noise of later steps.
    samples_noise: u32,
    guidance_factor: f32 = 1,
    /// The step of the Brownian path that z is, in the sampler's sigmas:
    /// z = (W(noise_to) - W(noise_from)) / sqrt(|noise_to - noise_from|). Read where the noise of
    /// the job is Brownian.
    noise_from: f32 = 0,
    noise_to: f32 = 0,
};

pub const LatentStep = struct {
    coefficients: StepCoefficients,
    /// Of each image of `latent` one for every branch but the first, its weight and the step's
    /// factor included: e = e_0 + sum_k scale_k * (e_k - e_0). Not read where there is one branch.
    guidance_scales: []const f32,
    /// Guidance rescale (arXiv 2305.08891, 3.4), 0 to 1: how far the standard deviation of each
    /// image's guided output is brought back to that of the positive branch, or of the mean of
    /// several by their scales. 0 changes nothing. The deviation is over the whole image: every
    /// rank has the whole `model_output`.
    rescale: f32 = 0,
    /// (images, rows, width, channels), changed in place.
    latent: Tensor,
    /// Of the latent's shape, like `model_outputs` and `noise`; changed in place.
    auxiliary: Tensor,
    /// Newest first; [0] is written, the others are read.
    model_outputs: [model_output_count]Tensor,
    /// (branches * images, rows, width, channels): the negative branch first where there is one. Of
    /// the activation type, or f32 where the guidance has been applied.
    model_output: Tensor,
    noise: ?Tensor,

    pub fn branchCount(step: *const LatentStep) u32 {
        return step.model_output.shape.batch / step.latent.shape.batch;
    }
};

/// Inpainting after a step: what a mask keeps of the latent is the image's, with noise of the next
/// level. With x the latent, m the mask and z the first noise (diffusers: init_latents_proper):
///   x = (1 - m) * (signal * known + noise_scale * z) + m * x
pub const MaskBlend = struct {
    /// (images, rows, width, channels) in f32, changed in place.
    latent: Tensor,
    /// Of the latent's shape, like `noise`.
    known: Tensor,
    noise: Tensor,
    /// (1, rows, width, 1) in f32, the same for all images.
    mask: Tensor,
    signal: f32,
    noise_scale: f32,
};

/// How the statistics of patches become those of the image (see `Exchange.statistics`).
pub const CombineStatistics = struct {
    /// This patch's, of now.
    local: Tensor,
    /// Each (batch, groups, 1, 2); their weights add up to 1.
    parts: []const Tensor,
    weights: []const f64,
    /// This patch's among `parts`: the sum is moved by what this patch has changed since
    /// (DistriFusion, corrected_async_gn). A variance that this makes too small is replaced.
    corrected_from: ?Tensor,
    /// Corrected variances are at least so much of the mean variance within the patches, below
    /// which no image's can be. 0: as DistriFusion, negative ones become the local one.
    variance_floor: f64,
    /// 0, or n for a variance of n / (n - 1) times the biased one.
    bessel_count: u64,
};

/// Bits of a change, and the channels that share a scale.
pub const ChangeFormat = struct {
    bits: u32,
    group: u32,

    /// A group is a head of SDXL, or less where the channels of keys (half of those of a row) are
    /// no multiple of it.
    pub fn of(bits: u32, row_channels: u32) ChangeFormat {
        const group_max = 64;
        const group = std.math.gcd(row_channels / 2, group_max);
        std.debug.assert(group >= 2);
        return .{ .bits = bits, .group = group };
    }

    /// Bytes of a row: a number for each channel, then a bf16 scale for each group.
    pub fn rowBytes(format: ChangeFormat, channels: u32) u32 {
        return channels * format.bits / 8 + 2 * (channels / format.group);
    }
};

/// Keys and values as their receivers have them, and their change in few bits.
pub const Change = struct {
    /// (batch, 1, tokens, `ChangeFormat.rowBytes`) in u8.
    change: Tensor,
    /// (batch, 1, tokens, channels)
    view: Tensor,
    format: ChangeFormat,
};

/// The same halo rows at three steps (see `extrapolateRows`), each (batch, 1, width, channels).
pub const ExtrapolateRows = struct {
    old: Tensor,
    older: Tensor,
    own_now: Tensor,
    own_old: Tensor,
    own_older: Tensor,
};
