// What every kernel file includes, and beside it only the headers of tensor cores (mma.cuh,
// wgmma.cuh, product.cuh, wgmma_product.cuh, attention.cuh) or elementwise.cuh (packs of eight
// elements): activation types, 16-byte vectors, reductions.
// nvcc compiles it for GPUs; any C++ compiler compiles it for the CPU over host/shim.h,
// where tests run the same kernels.
//
// Rules: entries are `extern "C" __global__` with EXPORT_KERNEL(name) after each, or one
// KERNEL_PER_TYPE for both activation types; shared memory only by SHARED and DYNAMIC_SHARED; every
// thread of a block reaches every __syncthreads, and every lane in a mask every warp function;
// every kernel begins with wait_for_earlier_kernels (KERNEL_PER_TYPE has it).
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

using f16 = __half;
using bf16 = __nv_bfloat16;

/// Makes a kernel known by name where no compiler makes a table of them.
#define EXPORT_KERNEL(name)
/// `count` elements of shared memory, aligned for 16-byte access.
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
/// The shared memory whose size the launch gives; one use per kernel.
#define DYNAMIC_SHARED(type, name)                                   \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(dynamic_shared)

/// Programmatic dependent launch (sm_90 and newer; elsewhere nothing, and without the attribute at
/// the launch nothing either): returns when the kernels before this one have ended and their writes
/// are visible, then lets the next one start. What it starts occupies multiprocessors only once
/// every block of this kernel has started, and waits here for the end of this one. Every thread of
/// every kernel calls it before it touches memory: the end of a kernel then implies the end of all
/// before it, which the next one relies on.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#else

#include "host/shim.h"

#endif

/// The kernels name_f16 and name_bf16. In `parameters`, which is a list in parentheses, T is the
/// activation type; the last argument is the call that is their body. The namespaces only make T
/// differ: names of `extern "C"` functions carry none.
#define KERNEL_PER_TYPE(name, parameters, ...)                 \
    KERNEL_OF_TYPE(name##_f16, f16, , parameters, __VA_ARGS__) \
    KERNEL_OF_TYPE(name##_bf16, bf16, , parameters, __VA_ARGS__)
/// As KERNEL_PER_TYPE, with the arguments of __launch_bounds__ in parentheses.
#define KERNEL_PER_TYPE_BOUNDED(name, bounds, parameters, ...)                        \
    KERNEL_OF_TYPE(name##_f16, f16, __launch_bounds__ bounds, parameters, __VA_ARGS__) \
    KERNEL_OF_TYPE(name##_bf16, bf16, __launch_bounds__ bounds, parameters, __VA_ARGS__)
#define KERNEL_OF_TYPE(name, type, bounds, parameters, ...)                \
    namespace kernel_##name {                                              \
    using T = type;                                                        \
    extern "C" __global__ void bounds name parameters {                    \
        wait_for_earlier_kernels();                                        \
        __VA_ARGS__;                                                       \
    }                                                                      \
    EXPORT_KERNEL(name)                                                    \
    }

constexpr uint32_t full_mask = 0xffffffffu;
constexpr int warp_lanes = 32;

// --- activation types: arithmetic is f32, memory is f16, bf16 or f32 ---

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

/// Rounds to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// --- vectors of 16 bytes: one load or store instruction ---

/// Elements of `T` in 16 bytes.
template <typename T>
constexpr int vector_count = 16 / (int)sizeof(T);

template <typename T>
struct Vector {
    T values[vector_count<T>];

    __device__ __forceinline__ float get(int i) const { return to_float(values[i]); }
    __device__ __forceinline__ void set(int i, float x) { values[i] = from_float<T>(x); }
};

/// `from` must be a multiple of 16 bytes.
template <typename T>
__device__ __forceinline__ Vector<T> load_vector(const T* from) {
    const uint4 bits = *reinterpret_cast<const uint4*>(from);
    Vector<T> vector;
    static_assert(sizeof(vector) == sizeof(bits), "a vector has 16 bytes");
    memcpy(&vector, &bits, sizeof(bits));
    return vector;
}

/// `to` must be a multiple of 16 bytes.
template <typename T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T>& vector) {
    uint4 bits;
    memcpy(&bits, &vector, sizeof(bits));
    *reinterpret_cast<uint4*>(to) = bits;
}

// --- reductions: every lane gets the result ---

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
    for (int step = warp_lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(full_mask, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int step = warp_lanes / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(full_mask, x, step));
    }
    return x;
}

/// Sum over a one-dimensional block of whole warps; every thread must call it.
template <typename T>
__device__ __forceinline__ T block_sum(T x) {
    SHARED(T, partial, warp_lanes);
    const int warp = threadIdx.x / warp_lanes;
    const int lane = threadIdx.x % warp_lanes;
    const int warp_count = blockDim.x / warp_lanes;
    x = warp_sum(x);
    // The one before: an earlier sum may still be read.
    __syncthreads();
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    return warp_sum(lane < warp_count ? partial[lane] : T(0));
}

/// Greatest value over a one-dimensional block of whole warps; every thread must call it.
__device__ __forceinline__ float block_max(float x) {
    SHARED(float, partial, warp_lanes);
    const int warp = threadIdx.x / warp_lanes;
    const int lane = threadIdx.x % warp_lanes;
    const int warp_count = blockDim.x / warp_lanes;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    return warp_max(partial[lane < warp_count ? lane : 0]);
}
