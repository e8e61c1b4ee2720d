// out = (x - mean) / sqrt(variance + epsilon) * weight + bias over the channels of each position.
// Layout: x, out (rows, channels), weight and bias (channels); a row is one position.
// One warp per row, which it keeps in registers, so that the deviations from the mean are taken in
// a second look and nothing is lost to cancellation. Rows that are longer than that
// (layer_norm_wide) are read three times, mostly from cache.
// Reads and writes every element once, 4 bytes: 64x64x640 twice (guidance) is 21 MB, 5 us on an
// H200 at 4.3 TB/s; about ten instructions per element are half of what that allows.
#include "elementwise.cuh"

namespace layer_norm {

constexpr unsigned warp_size = 32;
/// Packs of a thread: SDXL's longest row, 1280 channels, in 40 registers.
constexpr unsigned thread_packs = 5;

template <typename T>
__device__ __forceinline__ void store_normal(
    T* out,
    const T* weight,
    const T* bias,
    unsigned left,
    const float (&x)[pack_count],
    float mean,
    float inverse
) {
    float scale[pack_count];
    float y[pack_count];
    load_pack(weight, left, scale);
    load_pack(bias, left, y);
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) y[i] = fmaf((x[i] - mean) * inverse, scale[i], y[i]);
    store_pack(out, left, y);
}

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const T* x,
    const T* weight,
    const T* bias,
    float epsilon,
    unsigned channels,
    unsigned rows
) {
    const unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / warp_size;
    const unsigned lane = threadIdx.x % warp_size;
    if (row >= rows) return;
    const T* source = x + uint64_t(row) * channels;
    T* target = out + uint64_t(row) * channels;
    float value[thread_packs][pack_count];
    float sum = 0.0f;
#pragma unroll
    for (unsigned p = 0; p < thread_packs; p++) {
        const unsigned channel = (p * warp_size + lane) * pack_count;
        const unsigned left = channel < channels ? pack_size(channels - channel) : 0;
        load_pack(source + channel, left, value[p]);
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) sum += value[p][i];
    }
    const float mean = warp_sum(sum) / float(channels);
    float square = 0.0f;
#pragma unroll
    for (unsigned p = 0; p < thread_packs; p++) {
        const unsigned channel = (p * warp_size + lane) * pack_count;
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            const float deviation = channel + i < channels ? value[p][i] - mean : 0.0f;
            square = fmaf(deviation, deviation, square);
        }
    }
    const float inverse = 1.0f / sqrtf(warp_sum(square) / float(channels) + epsilon);
#pragma unroll
    for (unsigned p = 0; p < thread_packs; p++) {
        const unsigned channel = (p * warp_size + lane) * pack_count;
        if (channel >= channels) continue;
        store_normal(
            target + channel, weight + channel, bias + channel, pack_size(channels - channel),
            value[p], mean, inverse
        );
    }
}

template <typename T>
__device__ __forceinline__ void run_wide(
    T* out,
    const T* x,
    const T* weight,
    const T* bias,
    float epsilon,
    unsigned channels,
    unsigned rows
) {
    const unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / warp_size;
    if (row >= rows) return;
    const T* source = x + uint64_t(row) * channels;
    T* target = out + uint64_t(row) * channels;
    const unsigned first = threadIdx.x % warp_size * pack_count;
    constexpr unsigned step = warp_size * pack_count;
    float value[pack_count];
    float sum = 0.0f;
    for (unsigned channel = first; channel < channels; channel += step) {
        load_pack(source + channel, pack_size(channels - channel), value);
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) sum += value[i];
    }
    const float mean = warp_sum(sum) / float(channels);
    float square = 0.0f;
    for (unsigned channel = first; channel < channels; channel += step) {
        load_pack(source + channel, pack_size(channels - channel), value);
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            const float deviation = channel + i < channels ? value[i] - mean : 0.0f;
            square = fmaf(deviation, deviation, square);
        }
    }
    const float inverse = 1.0f / sqrtf(warp_sum(square) / float(channels) + epsilon);
    for (unsigned channel = first; channel < channels; channel += step) {
        const unsigned left = pack_size(channels - channel);
        load_pack(source + channel, left, value);
        store_normal(
            target + channel, weight + channel, bias + channel, left, value, mean, inverse
        );
    }
}

}  // namespace layer_norm

KERNEL_PER_TYPE_BOUNDED(
    layer_norm,
    (256),
    (
        T* out, const T* x, const T* weight, const T* bias, float epsilon, unsigned channels,
        unsigned rows
    ),
    layer_norm::run(out, x, weight, bias, epsilon, channels, rows)
)

KERNEL_PER_TYPE_BOUNDED(
    layer_norm_wide,
    (256),
    (
        T* out, const T* x, const T* weight, const T* bias, float epsilon, unsigned channels,
        unsigned rows
    ),
    layer_norm::run_wide(out, x, weight, bias, epsilon, channels, rows)
)
