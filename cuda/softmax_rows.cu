// Softmax over rows of scores, in place: the middle of attention for heads over 128, whose two
// products belong to the library.
//   p_i = 4096 * 2^(s_i - max s) / sum_j 2^(s_j - max s)
// Layout: `scores` (rows, stride) f32 in base 2 (log2(e) / sqrt(head size) folded in). A chunk's
// tokens stand from a multiple of 8 on, right after those of the chunk before; what lies between is
// never taken as a score. The weights replace the front half of their row, 16 bits each, at their
// indices: the row stride in 16-bit elements is 2 * stride.
// One block per row, which it reads twice (from L2 the second time) and writes half of. VAE at
// 1024x1024: 16384 rows of 16384: 1.07 GB read, 0.54 GB written: 0.4 ms at an H200's 4.3 TB/s.
#include "common.cuh"
#include "mma.cuh"

namespace softmax_rows {

constexpr int chunk_count_max = 16;
constexpr int thread_count = 256;
constexpr int warp_count = thread_count / 32;
// Weights of thousands of tokens would be subnormal in f16: they are written 4096 times as large,
// and the product with the values undoes it.
constexpr float weight_scale = 4096.0f;

// One call; the same struct in zig/backend/cuda/ops_attention.zig.
struct Problem {
    float* scores;
    unsigned long long stride;
    unsigned token_counts[chunk_count_max];
    unsigned chunk_count;
    // The row of q that row 0 of the scores belongs to; row i sees tokens 0 to i where causal.
    unsigned query_first;
    unsigned causal;
};

static_assert(sizeof(Problem) == 96, "must match Softmax in ops_attention.zig");

// A largest score and the sum of weights relative to it.
struct Sum {
    float largest;
    float sum;

    __device__ __forceinline__ void add(float largest_2, float sum_2) {
        const float top = fmaxf(largest, largest_2);
        // Nothing but -inf so far: no weight yet, and no difference of infinities.
        if (top == -INFINITY) return;
        sum = sum * exp2_fast(largest - top) + sum_2 * exp2_fast(largest_2 - top);
        largest = top;
    }
};

// Sums of all threads of the block, the same to each of them.
__device__ static Sum reduce(Sum mine) {
    SHARED(float, largest, warp_count);
    SHARED(float, sums, warp_count);
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const float other = __shfl_xor_sync(0xffffffff, mine.largest, lanes);
        mine.add(other, __shfl_xor_sync(0xffffffff, mine.sum, lanes));
    }
    if (threadIdx.x % 32 == 0) {
        largest[threadIdx.x / 32] = mine.largest;
        sums[threadIdx.x / 32] = mine.sum;
    }
    __syncthreads();
    Sum all = {largest[0], sums[0]};
    for (int w = 1; w < warp_count; w++) all.add(largest[w], sums[w]);
    return all;
}

__device__ static __forceinline__ unsigned visible_count(const Problem& p, unsigned chunk) {
    const unsigned count = p.token_counts[chunk];
    return p.causal ? min(count, p.query_first + blockIdx.x + 1) : count;
}

template <unsigned (*pack)(float, float)>
__device__ static __forceinline__ void normalise(const Problem& p) {
    float* const row = p.scores + (unsigned long long)blockIdx.x * p.stride;
    Sum mine = {-INFINITY, 0.0f};
    unsigned first = 0;
    for (unsigned chunk = 0; chunk < p.chunk_count; chunk++) {
        const unsigned count = visible_count(p, chunk);
        for (unsigned i = threadIdx.x * 4; i < count; i += thread_count * 4) {
            const float4 s = *reinterpret_cast<const float4*>(row + first + i);
            const float b = i + 1 < count ? s.y : -INFINITY;
            const float c = i + 2 < count ? s.z : -INFINITY;
            const float d = i + 3 < count ? s.w : -INFINITY;
            const float top = fmaxf(fmaxf(s.x, b), fmaxf(c, d));
            mine.add(top, exp2_fast(s.x - top) + exp2_fast(b - top) + exp2_fast(c - top) +
                exp2_fast(d - top));
        }
        first += (p.token_counts[chunk] + 7) / 8 * 8;
    }
    const Sum all = reduce(mine);
    const float factor = weight_scale / all.sum;
    first = 0;
    for (unsigned chunk = 0; chunk < p.chunk_count; chunk++) {
        const unsigned count = p.token_counts[chunk];
        const unsigned visible = visible_count(p, chunk);
        // Every thread takes every turn: a weight lands on bytes whose scores the turn before or
        // this one has read.
        for (unsigned turn = 0; turn < count; turn += thread_count * 4) {
            const unsigned i = turn + threadIdx.x * 4;
            float4 s = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (i < count) s = *reinterpret_cast<const float4*>(row + first + i);
            __syncthreads();
            if (i >= count) continue;
            const float a = i < visible ? exp2_fast(s.x - all.largest) * factor : 0.0f;
            const float b = i + 1 < visible ? exp2_fast(s.y - all.largest) * factor : 0.0f;
            const float c = i + 2 < visible ? exp2_fast(s.z - all.largest) * factor : 0.0f;
            const float d = i + 3 < visible ? exp2_fast(s.w - all.largest) * factor : 0.0f;
            unsigned short* target = reinterpret_cast<unsigned short*>(row) + first + i;
            *reinterpret_cast<uint2*>(target) = make_uint2(pack(a, b), pack(c, d));
        }
        first += (count + 7) / 8 * 8;
    }
}

} // namespace softmax_rows

#define SOFTMAX_ROWS(name, pack)                                                                   \
    extern "C" __global__ void __launch_bounds__(softmax_rows::thread_count)                       \
        name(const __grid_constant__ softmax_rows::Problem problem) {                              \
        wait_for_earlier_kernels();                                                                \
        softmax_rows::normalise<pack>(problem);                                                    \
    }                                                                                              \
    EXPORT_KERNEL(name)

SOFTMAX_ROWS(softmax_rows_f16, pack_f16)
SOFTMAX_ROWS(softmax_rows_bf16, pack_bf16)
