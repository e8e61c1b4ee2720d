// Guidance and a sampler's update, in place: one kernel for every sampler, since a sampler is a
// set of coefficients for each step (StepCoefficients in zig/backend/options.zig). With x the
// latent, e the guided output, s the auxiliary register, z noise:
//   e   = e_0 + sum_k guidance_k * (e_k - e_0)     (one branch: e as it is)
//   e  *= factor of the image                                  (guidance rescale, where wanted)
//   m_0 = output_from_sample * x + output_from_model * e
//   x'  = latent.sample * x + latent.auxiliary * s + sum_k latent.model_outputs[k] * m_k
//         + latent.noise * z
//   s'  likewise by `auxiliary`, where updates_auxiliary is not 0
// Registers whose coefficient is 0 are not read: they may hold anything. Sums are taken in f64 and
// rounded once, since every later step builds on them.
// Layout: latent, auxiliary, model outputs and noise f32 of `count` = images * image_count values;
// model_output `branch_count * count` of the activation type, negative branch first, or of f32;
// guidance_scales (images, branch_count - 1).
// Per element it reads up to 9 values and writes 3: 40 bytes. At 1024x1024 (65,536 elements) that
// is 2.6 MB, under 1 us at an H200's 4.3 TB/s: the launch costs more.
#include "elementwise.cuh"

namespace latent_step {

constexpr int model_output_count = 4;

struct Update {
    float sample;
    float auxiliary;
    float model_outputs[model_output_count];
    float noise;
};

struct StepCoefficients {
    float timestep;
    float input_scale;
    float output_from_sample;
    float output_from_model;
    Update latent;
    Update auxiliary;
    unsigned updates_auxiliary;
    // Applied to `outputs` by the host.
    unsigned replaces_output;
    unsigned samples_noise;
    // Applied to guidance_scales by the host.
    float guidance_factor;
    float noise_from;
    float noise_to;
};

static_assert(sizeof(StepCoefficients) == 96, "must match zig/backend/options.zig");

/// One element of everything that an update can read.
struct Registers {
    float x;
    const float* auxiliary;
    float newest;
    const float* model_outputs[model_output_count];
    const float* noise;
};

__device__ __forceinline__ float combine(const Update& update, const Registers& r, uint64_t i) {
    double sum = double(update.sample) * r.x;
    if (update.auxiliary != 0.0f) sum += double(update.auxiliary) * r.auxiliary[i];
    if (update.model_outputs[0] != 0.0f) sum += double(update.model_outputs[0]) * r.newest;
#pragma unroll
    for (int k = 1; k < model_output_count; k++) {
        const float weight = update.model_outputs[k];
        if (weight != 0.0f) sum += double(weight) * r.model_outputs[k][i];
    }
    if (update.noise != 0.0f) sum += double(update.noise) * r.noise[i];
    return float(sum);
}

/// Classifier-free guidance in f32, step by step as diffusers' pipeline.
template <typename T>
__device__ __forceinline__ float guided(
    const T* model_output,
    unsigned branch_count,
    const float* guidance_scales,
    uint64_t image_count,
    uint64_t count,
    uint64_t i
) {
    const float negative = to_float(model_output[i]);
    if (branch_count == 1) return negative;
    const float* scales = guidance_scales + i / image_count * (branch_count - 1);
    float output = negative;
    for (unsigned k = 1; k < branch_count; k++) {
        const float positive = to_float(model_output[k * count + i]);
        output = __fadd_rn(output, __fmul_rn(scales[k - 1], positive - negative));
    }
    return output;
}

/// Must match LatentStepProblem in zig/backend/cuda/ops_sampler.zig.
struct Problem {
    /// In device memory.
    const StepCoefficients* step;
    /// (images, branch_count - 1); null where there is one branch.
    const float* guidance_scales;
    /// Guidance rescale, one per image; null for none.
    const float* factors;
    float* latent;
    float* auxiliary;
    /// The newest model output, written, and the three before it.
    float* outputs[model_output_count];
    const void* model_output;
    /// Null where the step adds none.
    const float* noise;
    uint64_t image_count;
    uint64_t count;
    uint64_t branch_count;
};

static_assert(sizeof(Problem) == 112, "must match LatentStepProblem in ops_sampler.zig");

template <typename T>
__device__ __forceinline__ void run(const Problem& p) {
    const uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    const StepCoefficients step = *p.step;
    const T* model_output = static_cast<const T*>(p.model_output);
    const unsigned branch_count = unsigned(p.branch_count);
    float e = guided(model_output, branch_count, p.guidance_scales, p.image_count, p.count, i);
    if (p.factors) e *= p.factors[i / p.image_count];
    const float x = p.latent[i];
    const double from_sample = double(step.output_from_sample) * x;
    const float newest = float(from_sample + double(step.output_from_model) * e);
    const Registers r = {
        x, p.auxiliary, newest, {nullptr, p.outputs[1], p.outputs[2], p.outputs[3]}, p.noise
    };
    p.outputs[0][i] = newest;
    p.latent[i] = combine(step.latent, r, i);
    if (step.updates_auxiliary) p.auxiliary[i] = combine(step.auxiliary, r, i);
}

}  // namespace latent_step

KERNEL_PER_TYPE(
    latent_step,
    (const __grid_constant__ latent_step::Problem problem),
    latent_step::run<T>(problem)
)
KERNEL_OF_TYPE(
    latent_step_f32,
    float,
    ,
    (const __grid_constant__ latent_step::Problem problem),
    latent_step::run<T>(problem)
)
