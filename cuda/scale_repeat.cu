// The UNet's input: factor * x for every guidance branch, out[r, i] = round(factor * x[i]).
// Layout: x `count` elements of f32 (the latent, all images), out `repeat` (blockIdx.y) times
// that in the activation type.
// Reads 4 bytes and writes 2 * repeat per element: 65,536 elements at 1024x1024 are 0.5 MB, under 1
// us; the launch costs more.
#include "elementwise.cuh"

namespace scale_repeat {

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const float* x,
    float factor,
    uint64_t count
) {
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * pack_count;
    if (first >= count) return;
    const unsigned left = pack_size(count - first);
    float a[pack_count];
    load_pack(x + first, left, a);
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) a[i] *= factor;
    store_pack(out + blockIdx.y * count + first, left, a);
}

}  // namespace scale_repeat

KERNEL_PER_TYPE(
    scale_repeat,
    (T* out, const float* x, float factor, uint64_t count),
    scale_repeat::run(out, x, factor, count)
)
