// Mean and mean of squares of every group of channels over the positions of each image: the first
// half of a group norm, on its own so that other ranks' statistics can be put in between.
//   stats[b, g] = (sum y / n, sum y^2 / n) over the n = positions * channels / groups elements
// of y = x + addend, where the addend (batch, channels) may be missing: the time embedding.
// Layout: x (batch, positions, channels), stats (batch, groups, 2) f64, partials (batch, slabs,
// groups, 2) f64. Two stages, in an order that depends on the shape of one image alone, so that
// runs, and an image alone or in a batch, give the same bits:
//   1. a block sums a slab of positions. A thread owns eight neighbouring channels and strides over
//      positions; after at most 32 of them, before f32 loses anything, all threads add their sums
//      in shared memory, and a warp adds up those of a group in f64;
//   2. the image's last block, whichever that is, adds up the slabs: a warp those of a group, in
//      the order of the slabs. `arrived` (batch) counts blocks and is 0 before and after.
// Reads x once: 128x128x320 twice (guidance) is 21 MB, 5 us on an H200 at 4.3 TB/s; four
// instructions per element are nothing beside it.
#include "elementwise.cuh"

namespace group_norm_stats {

/// Positions that a thread sums in f32; also in zig/backend/cuda/ops_norm.zig.
constexpr unsigned positions_per_thread_max = 32;

template <typename T, bool whole_packs>
__device__ __forceinline__ void sum_positions(
    const T* x,
    unsigned count,
    unsigned step,
    unsigned channels,
    unsigned left,
    const float (&add)[pack_count],
    float (&sum)[pack_count],
    float (&square)[pack_count]
) {
#pragma unroll 4
    for (unsigned p = 0; p < count; p += step) {
        float value[pack_count];
        const T* at = x + uint64_t(p) * channels;
        if constexpr (whole_packs) {
            load_whole_pack(at, value);
        } else {
            load_pack(at, left, value);
        }
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            const float y = value[i] + add[i];
            sum[i] += y;
            square[i] = fmaf(y, y, square[i]);
        }
    }
}

/// Adds a group's part of the rows of `sums` and `squares` up and to `target`, one warp for all.
__device__ __forceinline__ void add_group(
    const float* sums,
    const float* squares,
    unsigned row_count,
    unsigned row_width,
    unsigned channel_first,
    unsigned group_channels,
    bool is_first,
    double* target
) {
    const unsigned lane = threadIdx.x % 32;
    double sum = 0.0;
    double square = 0.0;
    for (unsigned i = lane; i < row_count * group_channels; i += 32) {
        const unsigned row = i / group_channels;
        const unsigned at = row * row_width + channel_first + i % group_channels;
        sum += sums[at];
        square += squares[at];
    }
    sum = warp_sum(sum);
    square = warp_sum(square);
    if (lane != 0) return;
    target[0] = is_first ? sum : target[0] + sum;
    target[1] = is_first ? square : target[1] + square;
}

/// Whether this is the last block of its image; what the others wrote can then be read.
__device__ __forceinline__ bool is_last_block(unsigned* arrived) {
    SHARED(unsigned, before, 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) before[0] = atomicInc(arrived, gridDim.x - 1);
    __syncthreads();
    __threadfence();
    return before[0] == gridDim.x - 1;
}

/// Adds up the slabs of every group of an image.
__device__ __forceinline__ void finish(
    double* stats,
    const double* partials,
    unsigned slab_count,
    unsigned group_count,
    double element_count
) {
    const unsigned lane = threadIdx.x % 32;
    for (unsigned group = threadIdx.x / 32; group < group_count; group += blockDim.x / 32) {
        double sum = 0.0;
        double square = 0.0;
        for (unsigned slab = lane; slab < slab_count; slab += 32) {
            const double* at = partials + (uint64_t(slab) * group_count + group) * 2;
            sum += __ldcg(at);
            square += __ldcg(at + 1);
        }
        sum = warp_sum(sum);
        square = warp_sum(square);
        if (lane != 0) continue;
        stats[group * 2] = sum / element_count;
        stats[group * 2 + 1] = square / element_count;
    }
}

template <typename T>
__device__ __forceinline__ void run(
    double* stats,
    double* partials,
    unsigned* arrived,
    const T* x,
    const T* addend,
    unsigned positions,
    unsigned positions_per_slab,
    unsigned channels,
    unsigned group_count,
    unsigned row_count,
    double element_count
) {
    DYNAMIC_SHARED(float, sums);
    const unsigned columns = (channels + pack_count - 1) / pack_count;
    const unsigned row_width = columns * pack_count;
    float* squares = sums + row_count * row_width;
    const unsigned row = threadIdx.x / columns;
    const unsigned channel = threadIdx.x % columns * pack_count;
    const unsigned left = pack_size(channels - channel);
    const bool whole = channels % pack_count == 0 && is_whole_pack(x, pack_count);
    const unsigned group_channels = channels / group_count;
    const unsigned slab = blockIdx.x;
    const unsigned first_of_slab = slab * positions_per_slab;
    const unsigned end_of_slab = min(first_of_slab + positions_per_slab, positions);
    const unsigned block_positions = row_count * positions_per_thread_max;
    double* image_partials = partials + uint64_t(blockIdx.y) * gridDim.x * group_count * 2;
    double* target = image_partials + slab * group_count * 2;
    float add[pack_count] = {};
    if (addend != nullptr && row < row_count) {
        load_pack(addend + uint64_t(blockIdx.y) * channels + channel, left, add);
    }
    for (unsigned first = first_of_slab; first < end_of_slab; first += block_positions) {
        const unsigned end = min(first + block_positions, end_of_slab);
        if (row < row_count) {
            float sum[pack_count] = {};
            float square[pack_count] = {};
            const unsigned own = first + row;
            const T* at = x + (uint64_t(blockIdx.y) * positions + own) * channels + channel;
            const unsigned count = own < end ? end - own : 0;
            if (whole) {
                sum_positions<T, true>(at, count, row_count, channels, left, add, sum, square);
            } else {
                sum_positions<T, false>(at, count, row_count, channels, left, add, sum, square);
            }
#pragma unroll
            for (unsigned i = 0; i < pack_count; i++) {
                sums[row * row_width + channel + i] = sum[i];
                squares[row * row_width + channel + i] = square[i];
            }
        }
        __syncthreads();
        for (unsigned group = threadIdx.x / 32; group < group_count; group += blockDim.x / 32) {
            add_group(
                sums, squares, row_count, row_width, group * group_channels, group_channels,
                first == first_of_slab, target + group * 2
            );
        }
        __syncthreads();
    }
    if (!is_last_block(arrived + blockIdx.y)) return;
    finish(
        stats + uint64_t(blockIdx.y) * group_count * 2, image_partials, gridDim.x, group_count,
        element_count
    );
}

}  // namespace group_norm_stats

KERNEL_PER_TYPE_BOUNDED(
    group_norm_stats,
    (512, 2),
    (
        double* stats, double* partials, unsigned* arrived, const T* x, const T* addend,
        unsigned positions, unsigned positions_per_slab, unsigned channels, unsigned group_count,
        unsigned row_count, double element_count
    ),
    group_norm_stats::run(
        stats, partials, arrived, x, addend, positions, positions_per_slab, channels, group_count,
        row_count, element_count
    )
)
