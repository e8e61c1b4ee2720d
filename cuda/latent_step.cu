// Guidance and a sampler's update, in place: one kernel for every sampler, since a sampler is a row
// of coefficients (StepRow in zig/backend.zig). With x the latent, e the guided output, s the saved
// register, z noise:
//   e   = e_negative + guidance * (e_positive - e_negative)      (one branch: e as it is)
//   m_0 = output_from_sample * x + output_from_model * e
//   x'  = latent.sample * x + latent.saved * s + sum_k latent.history[k] * m_k + latent.noise * z
//   s'  likewise by `saved`, where updates_saved is not 0
// Layout: all tensors f32 and of `count` elements, model_output `branch_count * count`, negative
// branch first; `noise` may be null where draws_noise is 0. The row lies in device
// memory, so that a captured graph serves every step.
// Per element it reads 8 values and writes 3: 44 bytes. At 1024x1024 (65,536 elements) that is 2.9
// MB, under 1 us at an H200's 4.3 TB/s: the launch costs more.
#include "common.cuh"

namespace latent_update {

constexpr int history_count = 4;

struct Update {
    float sample;
    float saved;
    float history[history_count];
    float noise;
};

struct StepRow {
    float timestep;
    float input_scale;
    float output_from_sample;
    float output_from_model;
    Update latent;
    Update saved;
    unsigned updates_saved;
    unsigned draws_noise;
};

static_assert(sizeof(StepRow) == 80, "must match StepRow in zig/backend.zig");

__device__ static float combine(const Update& update, float x, float s, const float* m, float z) {
    float sum = update.sample * x + update.saved * s + update.noise * z;
    for (int k = 0; k < history_count; k++) sum += update.history[k] * m[k];
    return sum;
}

}  // namespace latent_update

extern "C" __global__ void latent_step(
    const latent_update::StepRow* row_pointer,
    float guidance_scale,
    unsigned branch_count,
    unsigned long long count,
    float* latent,
    float* saved,
    float* newest_output,
    const float* output_1,
    const float* output_2,
    const float* output_3,
    const float* model_output,
    const float* noise
) {
    using namespace latent_update;
    const StepRow row = *row_pointer;
    const unsigned long long stride = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i < count; i += stride) {
        float e = model_output[i];
        if (branch_count == 2) e += guidance_scale * (model_output[count + i] - e);
        const float x = latent[i];
        const float s = saved[i];
        const float z = noise ? noise[i] : 0.0f;
        const float newest = row.output_from_sample * x + row.output_from_model * e;
        const float m[history_count] = {newest, output_1[i], output_2[i], output_3[i]};
        newest_output[i] = newest;
        latent[i] = combine(row.latent, x, s, m, z);
        if (row.updates_saved) saved[i] = combine(row.saved, x, s, m, z);
    }
}
EXPORT_KERNEL(latent_step)
