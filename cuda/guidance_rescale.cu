// The factor of each image by which guidance rescale multiplies the guided output, as diffusers'
// rescale_noise_cfg ("Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4):
//   factor = rescale * deviation(positive) / deviation(guided) + 1 - rescale
// with standard deviations over the whole image; n - 1 or n makes no difference to the quotient.
// The positive output is that of the second branch, or the mean of several by their scales.
// Layout: model_output (branch_count, images, image_count) of the activation type, the negative
// branch first; guidance_scales (images, branch_count - 1) f32; partials (images, slabs, 4) f64;
// factors (images) f32. Two stages in a fixed order:
//   1. a block adds up a slab of an image (blockIdx.y): sums and squares of both, in f64;
//   2. a warp per image adds up the slabs.
// Reads 4 bytes per element: 65,536 at 1024x1024 are 0.26 MB, under 1 us; the launches cost more.
#include "elementwise.cuh"

namespace guidance_rescale {

template <typename T>
__device__ __forceinline__ void sum(
    double* partials,
    const T* model_output,
    const float* guidance_scales,
    uint64_t image_count,
    unsigned branch_count
) {
    double sums[4] = {};
    const T* negative = model_output + blockIdx.y * image_count;
    const uint64_t count = gridDim.y * image_count;
    const float* scales = guidance_scales + blockIdx.y * (branch_count - 1);
    float scale_sum = 0.0f;
    for (unsigned k = 1; k < branch_count; k++) scale_sum += scales[k - 1];
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < image_count; i += step) {
        const float n = to_float(negative[i]);
        float output = n;
        float mean = 0.0f;
        for (unsigned k = 1; k < branch_count; k++) {
            const float positive = to_float(negative[k * count + i]);
            output = __fadd_rn(output, __fmul_rn(scales[k - 1], positive - n));
            mean += scales[k - 1] / scale_sum * positive;
        }
        const float p = branch_count == 2 ? to_float(negative[count + i]) : mean;
        const double guided = output;
        sums[0] += p;
        sums[1] += double(p) * p;
        sums[2] += guided;
        sums[3] += guided * guided;
    }
    double* target = partials + (uint64_t(blockIdx.y) * gridDim.x + blockIdx.x) * 4;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const double total = block_sum(sums[k]);
        if (threadIdx.x == 0) target[k] = total;
    }
}

}  // namespace guidance_rescale

KERNEL_PER_TYPE_BOUNDED(
    guidance_sums,
    (256),
    (double* partials,
     const T* model_output,
     const float* guidance_scales,
     uint64_t image_count,
     unsigned branch_count),
    guidance_rescale::sum(partials, model_output, guidance_scales, image_count, branch_count)
)

extern "C" __global__ void guidance_factors(
    float* factors,
    const double* partials,
    float guidance_rescale,
    unsigned slab_count,
    uint64_t image_count
) {
    wait_for_earlier_kernels();
    const double* first = partials + uint64_t(blockIdx.x) * slab_count * 4;
    double sums[4] = {};
    for (unsigned slab = threadIdx.x; slab < slab_count; slab += warp_lanes) {
#pragma unroll
        for (int k = 0; k < 4; k++) sums[k] += first[slab * 4 + k];
    }
    const double n = double(image_count);
#pragma unroll
    for (int k = 0; k < 4; k++) sums[k] = warp_sum(sums[k]) / n;
    if (threadIdx.x != 0) return;
    const double positive = sums[1] - sums[0] * sums[0];
    const double guided = sums[3] - sums[2] * sums[2];
    const double rescale = guidance_rescale;
    factors[blockIdx.x] = float(rescale * sqrt(positive / guided) + (1.0 - rescale));
}
EXPORT_KERNEL(guidance_factors)
