// *found = 1 if any element is NaN or infinite; nothing is written otherwise.
// Layout: `count` elements. Every thread that finds one writes the same word, so order is nothing.
// Reads every element once: a latent of 65,536 f32 is 0.26 MB, a decoded 1024x1024 image 6 MB,
// 1.5 us on an H200 at 4.3 TB/s.
#include "elementwise.cuh"

namespace is_finite {

template <typename T>
__device__ __forceinline__ void run(unsigned* found, const T* x, uint64_t count) {
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * pack_count;
    if (first >= count) return;
    float value[pack_count];
    load_pack(x + first, pack_size(count - first), value);
    // 0 for every finite number, NaN for all others.
    float zeros = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) zeros += value[i] * 0.0f;
    if (zeros != 0.0f) *found = 1;
}

}  // namespace is_finite

extern "C" __global__ void is_finite_f32(unsigned* found, const float* x, uint64_t count) {
    wait_for_earlier_kernels();
    is_finite::run(found, x, count);
}
EXPORT_KERNEL(is_finite_f32)

KERNEL_PER_TYPE(
    is_finite,
    (unsigned* found, const T* x, uint64_t count),
    is_finite::run(found, x, count)
)
