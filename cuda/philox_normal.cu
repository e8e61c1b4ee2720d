// Standard normal numbers, the same as torch.randn on a CUDA device: Philox4x32-10 with the seed as
// key, one subsequence per thread of torch's grid, four numbers at a time by Box and Muller. Thread
// i of T = `thread_count` makes, in its k-th turn, the elements i + (4 k + 0..3) T.
// Sources: torch's DistributionTemplates.h (the grid and the order), the cuRAND library's
// documentation of Philox4_32_10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3".
// Layout: torch counts elements as (channels, positions); out is (positions, channels) f32 of one
// image, `scale` times the number, and has the tensor's elements from `element_first` on.
// `turn_first` is the generator's offset, in turns.
// Writes 4 bytes per element: 65,536 at 1024x1024 are 0.26 MB, and 40 multiplications per four
// numbers are nothing: the launch is all it costs.
#include "elementwise.cuh"

namespace philox {

/// Philox4x32-10 of one counter.
__device__ __forceinline__ uint4 ten_rounds(uint4 counter, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t a = uint64_t(0xd2511f53u) * counter.x;
        const uint64_t b = uint64_t(0xcd9e8d57u) * counter.z;
        counter = make_uint4(
            unsigned(b >> 32) ^ counter.y ^ key.x, unsigned(b),
            unsigned(a >> 32) ^ counter.w ^ key.y, unsigned(a)
        );
        key = make_uint2(key.x + 0x9e3779b9u, key.y + 0xbb67ae85u);
    }
    return counter;
}

/// Two numbers of two words, with the same fast sine and cosine as cuRAND's device code.
__device__ __forceinline__ float2 box_muller(unsigned x, unsigned y) {
    constexpr float unit = 2.3283064e-10f;
    constexpr float turn = unit * 6.2831855f;
    const float u = fmaf(float(x), unit, unit / 2.0f);
    const float v = fmaf(float(y), turn, turn / 2.0f);
    const float radius = sqrtf(-2.0f * logf(u));
    float sine;
    float cosine;
    __sincosf(v, &sine, &cosine);
    return make_float2(radius * sine, radius * cosine);
}

}  // namespace philox

extern "C" __global__ void philox_normal(
    float* out,
    uint64_t seed,
    uint64_t turn_first,
    unsigned channels,
    uint64_t positions,
    unsigned thread_count,
    uint64_t element_first,
    float scale
) {
    wait_for_earlier_kernels();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= thread_count) return;
    const uint64_t end = element_first + channels * positions;
    const uint2 key = make_uint2(unsigned(seed), unsigned(seed >> 32));
    uint64_t turn = turn_first;
    for (uint64_t element = thread; element < end; turn++) {
        const uint4 word = philox::ten_rounds(
            make_uint4(unsigned(turn), unsigned(turn >> 32), thread, 0), key
        );
        const float2 a = philox::box_muller(word.x, word.y);
        const float2 b = philox::box_muller(word.z, word.w);
        const float value[4] = {a.x, a.y, b.x, b.y};
#pragma unroll
        for (int i = 0; i < 4; i++, element += thread_count) {
            if (element < element_first || element >= end) continue;
            const uint64_t place = element - element_first;
            out[place % positions * channels + place / positions] = scale * value[i];
        }
    }
}
EXPORT_KERNEL(philox_normal)
