// Halo rows of now from those of the last two steps (zig/backend.zig, extrapolateRows): for each
// image and channel
//   a   = clamp(sum_w (now - old)(old - older) / sum_w (old - older)^2, 0, 1)   of this patch's row
//   out = old + a * (old - older)                                               of the other's row
// with a = 0 where the sum of squares is. Layout: all rows (batch, width, channels).
// One block per image (blockIdx.y) and 32 channels: warps share the width, threads of a warp are
// neighbouring channels, so that loads coalesce; the warps' sums are added up in their order.
// Reads five values and writes one, 12 bytes per element: 128x320 is 0.5 MB, under 1 us on an H200;
// the launch costs more.
#include "elementwise.cuh"

namespace extrapolate_rows {

constexpr unsigned channels_per_block = 32;
constexpr unsigned warp_count = 8;

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const T* old,
    const T* older,
    const T* own_now,
    const T* own_old,
    const T* own_older,
    unsigned width,
    unsigned channels
) {
    SHARED(float, products, warp_count * channels_per_block);
    SHARED(float, squares, warp_count * channels_per_block);
    const unsigned lane = threadIdx.x % channels_per_block;
    const unsigned warp = threadIdx.x / channels_per_block;
    const unsigned channel = blockIdx.x * channels_per_block + lane;
    const bool is_inside = channel < channels;
    const uint64_t first = uint64_t(blockIdx.y) * width * channels + channel;
    float product = 0.0f;
    float square = 0.0f;
    for (unsigned w = warp; is_inside && w < width; w += warp_count) {
        const uint64_t i = first + uint64_t(w) * channels;
        const float middle = to_float(own_old[i]);
        const float change = to_float(own_now[i]) - middle;
        const float change_before = middle - to_float(own_older[i]);
        product += change * change_before;
        square += change_before * change_before;
    }
    products[threadIdx.x] = product;
    squares[threadIdx.x] = square;
    __syncthreads();
    product = 0.0f;
    square = 0.0f;
    for (unsigned w = 0; w < warp_count; w++) {
        product += products[w * channels_per_block + lane];
        square += squares[w * channels_per_block + lane];
    }
    const float a = square > 0.0f ? fminf(fmaxf(product / square, 0.0f), 1.0f) : 0.0f;
    for (unsigned w = warp; is_inside && w < width; w += warp_count) {
        const uint64_t i = first + uint64_t(w) * channels;
        const float value = to_float(old[i]);
        out[i] = from_float<T>(value + a * (value - to_float(older[i])));
    }
}

}  // namespace extrapolate_rows

KERNEL_PER_TYPE_BOUNDED(
    extrapolate_rows,
    (256),
    (
        T* out, const T* old, const T* older, const T* own_now, const T* own_old,
        const T* own_older, unsigned width, unsigned channels
    ),
    extrapolate_rows::run(out, old, older, own_now, own_old, own_older, width, channels)
)
