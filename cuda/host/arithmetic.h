// The built-in functions of CUDA that C's math.h lacks. Approximate ones (__expf and others) are as
// exact here as their plain namesakes: kernels must not depend on their error.
#pragma once

#include <math.h>
#include <stdint.h>

#include "types.h"

#define HOST_MIN_MAX(type)                                           \
    inline type min(type a, type b) { return b < a ? b : a; }        \
    inline type max(type a, type b) { return a < b ? b : a; }
HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long)
HOST_MIN_MAX(unsigned long)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
#undef HOST_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline void __sincosf(float x, float* sine, float* cosine) {
    *sine = sinf(x);
    *cosine = cosf(x);
}
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x != x ? 0.0f : fminf(fmaxf(x, 0.0f), 1.0f); }

/// Not fused with a neighbour: the barrier keeps the compiler from contracting.
inline float host_rounded(float x) {
    asm volatile("" : "+m"(x));
    return x;
}
inline float __fadd_rn(float x, float y) { return host_rounded(x + y); }
inline float __fsub_rn(float x, float y) { return host_rounded(x - y); }
inline float __fmul_rn(float x, float y) { return host_rounded(x * y); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }

inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __double2float_rn(double x) { return (float)x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) {
    return (unsigned)((uint64_t)x * (uint64_t)y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}

template <typename T>
inline T __ldg(const T* from) {
    return *from;
}
template <typename T>
inline T __ldcs(const T* from) {
    return *from;
}
template <typename T>
inline T __ldcg(const T* from) {
    return *from;
}
template <typename T>
inline void __stcs(T* to, T value) {
    *to = value;
}
template <typename T>
inline void __stcg(T* to, T value) {
    *to = value;
}
