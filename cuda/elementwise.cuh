// What kernels that touch every element once share: packs of eight elements, moved by one 16-byte
// access where address and count allow it and one by one where not (odd channel counts, ends), and
// the activations of zig/backend/options.zig.
#pragma once
#include "common.cuh"

/// Elements of a pack: one vector of an activation type, two of f32.
constexpr unsigned pack_count = 8;

/// How many of `left` elements the next pack holds.
__device__ __forceinline__ unsigned pack_size(uint64_t left) {
    return left < pack_count ? unsigned(left) : pack_count;
}

template <typename T>
__device__ __forceinline__ bool is_whole_pack(const T* address, unsigned count) {
    return count >= pack_count && reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

/// Eight elements widened; `x` must be a multiple of 16 bytes.
template <typename T>
__device__ __forceinline__ void load_whole_pack(const T* x, float (&out)[pack_count]) {
    constexpr int step = vector_count<T>;
#pragma unroll
    for (int first = 0; first < int(pack_count); first += step) {
        const Vector<T> vector = load_vector(x + first);
#pragma unroll
        for (int i = 0; i < step; i++) out[first + i] = vector.get(i);
    }
}

template <typename T>
__device__ __forceinline__ void store_whole_pack(T* out, const float (&x)[pack_count]) {
    constexpr int step = vector_count<T>;
#pragma unroll
    for (int first = 0; first < int(pack_count); first += step) {
        Vector<T> vector;
#pragma unroll
        for (int i = 0; i < step; i++) vector.set(i, x[first + i]);
        store_vector(out + first, vector);
    }
}

/// Up to eight elements widened, from any address; the rest of `out` is 0.
template <typename T>
__device__ __forceinline__ void load_pack(const T* x, unsigned count, float (&out)[pack_count]) {
    if (is_whole_pack(x, count)) return load_whole_pack(x, out);
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) out[i] = i < count ? to_float(x[i]) : 0.0f;
}

template <typename T>
__device__ __forceinline__ void store_pack(T* out, unsigned count, const float (&x)[pack_count]) {
    if (is_whole_pack(out, count)) return store_whole_pack(out, x);
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) {
        if (i < count) out[i] = from_float<T>(x[i]);
    }
}

/// Adds up to eight elements of `x` to `sum`.
template <typename T>
__device__ __forceinline__ void add_pack(float (&sum)[pack_count], const T* x, unsigned left) {
    float y[pack_count];
    load_pack(x, left, y);
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) sum[i] += y[i];
}

/// Activation in zig/backend/options.zig.
enum : unsigned {
    activation_none,
    activation_silu,
    activation_gelu,
    activation_quick_gelu,
    activation_relu,
    activation_soft_clamp,
    activation_to_signed,
    activation_leaky_relu
};

/// The fast exponential and quotient are good to some 2^-21, far below the activation types.
__device__ __forceinline__ float sigmoid_times(float x, float slope) {
    return __fdividef(x, 1.0f + __expf(-slope * x));
}

__device__ __forceinline__ float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
}

__device__ __forceinline__ float activate_one(unsigned activation, float x) {
    if (activation == activation_silu) return sigmoid_times(x, 1.0f);
    if (activation == activation_gelu) return gelu(x);
    if (activation == activation_quick_gelu) return sigmoid_times(x, 1.702f);
    if (activation == activation_relu) return x < 0.0f ? 0.0f : x;
    // 3 tanh(x / 3)
    if (activation == activation_soft_clamp) {
        return 3.0f - __fdividef(6.0f, 1.0f + __expf(2.0f / 3.0f * x));
    }
    if (activation == activation_to_signed) return x + x - 1.0f;
    if (activation == activation_leaky_relu) return x < 0.0f ? 0.2f * x : x;
    return x;
}

/// Up to a pack of elements that are moved and not looked at.
template <typename T>
__device__ __forceinline__ void copy_pack(T* out, const T* x, unsigned count) {
    constexpr unsigned whole = 16 / sizeof(T);
    const uintptr_t both = reinterpret_cast<uintptr_t>(out) | reinterpret_cast<uintptr_t>(x);
    if (count == whole && both % 16 == 0) {
        *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(x);
        return;
    }
#pragma unroll
    for (unsigned i = 0; i < whole; i++) {
        if (i < count) out[i] = x[i];
    }
}
