// CUDA's vector types, and f16 and bf16 as their bits: what is read from poisoned memory stays NaN.
#pragma once

#include <stdint.h>
#include <string.h>

struct uint3 {
    unsigned x, y, z;
};

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <typename To, typename From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits under another type");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline float __int_as_float(int x) { return bits_as<float>(x); }

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

inline f16 __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(f16 x) { return x.bits; }
inline bf16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(bf16 x) { return x.bits; }

inline float __half2float(f16 x) { return (float)bits_as<_Float16>(x.bits); }
/// To nearest, ties to even, as C++ converts.
inline f16 __float2half_rn(float x) { return {bits_as<uint16_t>((_Float16)x)}; }

inline float __bfloat162float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
/// To nearest, ties to even; any NaN becomes CUDA's.
inline bf16 __float2bfloat16_rn(float x) {
    const uint32_t bits = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
