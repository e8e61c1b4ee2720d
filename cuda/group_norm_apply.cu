// out = activation((x + addend - mean) / sqrt(variance + epsilon) * weight + bias), the second half
// of a group norm of x + addend (see group_norm_stats.cu), with the biased variance of
// torch.nn.GroupNorm: mean of squares minus squared mean, taken in f64 because the two may be
// nearly equal.
// Layout: x, out (batch, positions, channels), stats (batch, groups, 2) f64, weight and bias
// (channels). A block takes a slab of positions of one image (blockIdx.y); a thread owns eight
// neighbouring channels, whose scale and shift it keeps in registers, and strides over positions.
// Reads and writes every element once, 4 bytes: 128x128x320 twice (guidance) is 42 MB, 10 us on an
// H200 at 4.3 TB/s. SiLU's two special functions per element keep up with that.
#include "elementwise.cuh"

namespace group_norm_apply {

template <typename T, bool whole_packs>
__device__ __forceinline__ void apply_positions(
    T* out,
    const T* x,
    unsigned count,
    unsigned step,
    unsigned channels,
    unsigned left,
    unsigned activation,
    const float (&scale)[pack_count],
    const float (&shift)[pack_count]
) {
#pragma unroll 4
    for (unsigned p = 0; p < count; p += step) {
        const uint64_t at = uint64_t(p) * channels;
        float value[pack_count];
        if constexpr (whole_packs) {
            load_whole_pack(x + at, value);
        } else {
            load_pack(x + at, left, value);
        }
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            value[i] = activate_one(activation, fmaf(value[i], scale[i], shift[i]));
        }
        if constexpr (whole_packs) {
            store_whole_pack(out + at, value);
        } else {
            store_pack(out + at, left, value);
        }
    }
}

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const T* x,
    const T* addend,
    const double* stats,
    const T* weight,
    const T* bias,
    float epsilon,
    unsigned activation,
    unsigned positions,
    unsigned positions_per_slab,
    unsigned channels,
    unsigned group_count,
    unsigned row_count
) {
    DYNAMIC_SHARED(float, means);
    float* inverses = means + group_count;
    const double* image_stats = stats + uint64_t(blockIdx.y) * group_count * 2;
    for (unsigned group = threadIdx.x; group < group_count; group += blockDim.x) {
        const double mean = image_stats[group * 2];
        const double variance = image_stats[group * 2 + 1] - mean * mean;
        means[group] = float(mean);
        // Not max(): NaN must come through.
        inverses[group] = 1.0f / sqrtf((variance < 0.0 ? 0.0f : float(variance)) + epsilon);
    }
    __syncthreads();
    const unsigned columns = (channels + pack_count - 1) / pack_count;
    const unsigned row = threadIdx.x / columns;
    const unsigned channel = threadIdx.x % columns * pack_count;
    const unsigned left = pack_size(channels - channel);
    const unsigned own = blockIdx.x * positions_per_slab + row;
    const unsigned end = min((blockIdx.x + 1) * positions_per_slab, positions);
    if (row >= row_count || own >= end) return;
    const unsigned group_channels = channels / group_count;
    float scale[pack_count];
    float shift[pack_count];
    load_pack(weight + channel, left, scale);
    load_pack(bias + channel, left, shift);
    float add[pack_count] = {};
    if (addend != nullptr) {
        load_pack(addend + uint64_t(blockIdx.y) * channels + channel, left, add);
    }
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) {
        if (i >= left) continue;
        const unsigned group = (channel + i) / group_channels;
        scale[i] *= inverses[group];
        shift[i] = fmaf(add[i] - means[group], scale[i], shift[i]);
    }
    const uint64_t at = (uint64_t(blockIdx.y) * positions + own) * channels + channel;
    const bool whole = channels % pack_count == 0 && is_whole_pack(x, pack_count) &&
        is_whole_pack(out, pack_count);
    const unsigned count = end - own;
    if (whole) {
        apply_positions<T, true>(
            out + at, x + at, count, row_count, channels, left, activation, scale, shift
        );
    } else {
        apply_positions<T, false>(
            out + at, x + at, count, row_count, channels, left, activation, scale, shift
        );
    }
}

}  // namespace group_norm_apply

KERNEL_PER_TYPE_BOUNDED(
    group_norm_apply,
    (512),
    (
        T* out, const T* x, const T* addend, const double* stats, const T* weight, const T* bias,
        float epsilon, unsigned activation, unsigned positions, unsigned positions_per_slab,
        unsigned channels, unsigned group_count, unsigned row_count
    ),
    group_norm_apply::run(
        out, x, addend, stats, weight, bias, epsilon, activation, positions, positions_per_slab,
        channels, group_count, row_count
    )
)
