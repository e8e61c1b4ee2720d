// Inpainting after a step, in place: what the mask keeps of the latent is the image's, with noise
// of the next level. With x the latent, m the mask and z the first noise:
//   x = (1 - m) * (signal * known + noise_scale * z) + m * x
// Every operation is rounded by itself, as on the CPU.
// Layout: latent, known and noise f32 of `count` = images * positions * channels values; mask f32
// of one per position, the same for all images.
// Reads 12 bytes and writes 4 per element: 65,536 elements at 1024x1024 are 1 MB, under 1 us; the
// launch costs more.
#include "elementwise.cuh"

extern "C" __global__ void mask_blend(
    float* latent,
    const float* known,
    const float* noise,
    const float* mask,
    float signal,
    float noise_scale,
    uint64_t channels,
    uint64_t positions,
    uint64_t count
) {
    wait_for_earlier_kernels();
    const uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float m = mask[i / channels % positions];
    const float kept = __fadd_rn(__fmul_rn(signal, known[i]), __fmul_rn(noise_scale, noise[i]));
    latent[i] = __fadd_rn(__fmul_rn(1.0f - m, kept), __fmul_rn(m, latent[i]));
}
EXPORT_KERNEL(mask_blend)
