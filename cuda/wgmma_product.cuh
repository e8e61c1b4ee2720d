// The loop of a product by wgmma: 2 warpgroups multiply 128 rows of x by up to 256 rows of w, which
// pass through four stages of shared memory, 64 columns of both at a time.
// While the product of one stage runs, that of the next is queued, so that tensor cores do not
// wait; the stage before both is free, and is loaded for two turns later.
#pragma once

#include "product.cuh"
#include "wgmma.cuh"

namespace wgmma_product {

constexpr int rows = 128;
constexpr int group_rows = 64;
constexpr int depth = 64;
constexpr int stage_count = 4;
/// Turns from the load of a stage to its use.
constexpr int ahead = stage_count - 2;
constexpr int thread_count = 256;

// In dynamic shared memory, which has 1024 bytes more than the stages: tiles begin at multiples of
// so many.
__device__ static __forceinline__ unsigned short* first_stage(unsigned short* memory) {
    const uintptr_t misplaced = -reinterpret_cast<uintptr_t>(memory) % 1024;
    return memory + misplaced / 2;
}

__device__ static __forceinline__ unsigned turns_of(unsigned depth_all) {
    return (depth_all + depth - 1) / depth;
}

// Before a stage is read: all threads' copies of `turn` are there, and the stage of the turn before
// the last is free.
__device__ static __forceinline__ void wait_for_stage() {
    cp_async_wait<ahead - 1>();
    publish_to_wgmma();
    __syncthreads();
}

__device__ static __forceinline__ unsigned short* stage_of(
    unsigned short* stages, unsigned stage_elements, unsigned turn
) {
    return stages + turn % stage_count * stage_elements;
}

// sums = x w^T; a stage has the tile of x, then that of w. load(turn, stage) starts the copies of
// one and commits them, nothing too; it is also called for the `ahead` turns behind the last, which
// the caller may use.
template <typename Tensor, int columns, typename Load>
__device__ static __forceinline__ void multiply(
    float (&sums)[columns / 8][4],
    unsigned short* stages,
    unsigned stage_elements,
    unsigned turn_count,
    const Load& load
) {
    const unsigned group = threadIdx.x / 128;
    Wgmma products;
    for (unsigned turn = 0; turn < ahead; turn++) {
        load(turn, stage_of(stages, stage_elements, turn));
    }
    for (unsigned turn = 0; turn < turn_count; turn++) {
        const unsigned short* const x = stage_of(stages, stage_elements, turn);
        const unsigned short* const w = x + rows * depth;
        wait_for_stage();
        products.begin();
#pragma unroll
        for (unsigned k = 0; k < depth; k += wgmma_depth) {
            products.multiply<Tensor>(
                sums, x + group * group_rows * depth + k, w + k, turn > 0 || k > 0
            );
        }
        products.commit();
        products.wait<1>();
        load(turn + ahead, stage_of(stages, stage_elements, turn + ahead));
    }
    products.wait<0>();
}

} // namespace wgmma_product

/// A kernel of one struct, `problem`, with the stages in `memory`; empty for GPUs without wgmma.
#define WGMMA_KERNEL(name, Problem, ...)                                                          \
    extern "C" __global__ void __launch_bounds__(wgmma_product::thread_count, 1)                  \
        name(const __grid_constant__ Problem problem) {                                           \
        wait_for_earlier_kernels();                                                               \
        DYNAMIC_SHARED(unsigned short, memory);                                                   \
        if (HAS_WGMMA) __VA_ARGS__;                                                               \
    }                                                                                             \
    EXPORT_KERNEL(name)
