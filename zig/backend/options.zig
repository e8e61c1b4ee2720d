//! What the operations of `backend.zig` are told beyond their tensors. Plain values, the same for
//! every device; some cross the ABI or lie in device memory, so their layout is fixed.

const Tensor = @import("../tensor.zig").Tensor;

pub const Activation = enum(u32) { none, silu, gelu, quick_gelu };

/// y = activation(scale * x * weight^T + bias) + residual
pub const LinearOptions = struct {
    /// 1 on the CPU.
    scale: f32 = 1,
    activation: Activation = .none,
    residual: ?Tensor = null,
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

/// How one register of the latent update is put together (see `StepCoefficients`).
pub const Update = extern struct {
    sample: f32,
    saved: f32,
    history: [history_count]f32,
    noise: f32,
};

/// Model outputs that a sampler can look back on, the newest included.
pub const history_count = 4;

/// One model evaluation of a sampler, as plain numbers. With x the latent, e the guided model
/// output, s the saved register, z fresh noise:
///   m_0 = output_from_sample * x + output_from_model * e    is pushed on the history, and at once
///   x' = latent.sample * x + latent.saved * s + sum_k latent.history[k] * m_k + latent.noise * z
///   s' likewise by `saved`, where `updates_saved` is not 0.
pub const StepCoefficients = extern struct {
    timestep: f32,
    input_scale: f32,
    output_from_sample: f32,
    output_from_model: f32,
    latent: Update,
    saved: Update,
    updates_saved: u32,
    /// Whether z is drawn. A sampler that always draws does so even where it multiplies by 0: the
    /// numbers of the steps after depend on it.
    draws_noise: u32,
};

pub const LatentStep = struct {
    row: StepCoefficients,
    /// One per image of `latent`; not read where there is one branch.
    guidance_scales: []const f32,
    /// 0 to 1 (arXiv 2305.08891, 3.4): how far the deviation of each image's guided output
    /// is brought back to that of the positive branch. 0 changes nothing. Deviations are over the
    /// whole image, which `model_output` is on every rank.
    rescale: f32 = 0,
    /// (images, rows, width, channels), changed in place.
    latent: Tensor,
    saved: Tensor,
    /// Newest first; [0] is written, the others are read.
    history: [history_count]Tensor,
    /// (branches * images, rows, width, channels): the negative branch first when there are two.
    model_output: Tensor,
    noise: ?Tensor,
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

/// The same halo rows at three steps (see `extrapolateRows`), each (batch, 1, width, channels).
pub const ExtrapolateRows = struct {
    old: Tensor,
    older: Tensor,
    own_now: Tensor,
    own_old: Tensor,
    own_older: Tensor,
};
