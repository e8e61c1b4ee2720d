// Tensor cores and asynchronous copies behind small functions, so that kernels stay plain C++: PTX
// under nvcc, cuda/host/mma.h (the same names, the exact fragment layout) on the CPU.
// A warp's fragments of m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"), with
// g = lane / 4 and t = lane % 4; two 16-bit elements per register, the lower index in the low half:
//   A (16 x 16): a[0] = A[g][2t, 2t+1], a[1] = A[g+8][..], a[2] = A[g][2t+8, ..], a[3] = A[g+8][..]
//   B (16 x 8):  b[0] = B[2t, 2t+1][g], b[1] = B[2t+8, 2t+9][g]
//   D (16 x 8):  d[0, 1] = D[g][2t, 2t+1], d[2, 3] = D[g+8][2t, 2t+1]
// ldmatrix: lane i gives the address of row i % 8 of matrix i / 8 (8 rows of 16 bytes, each aligned
// to 16); register j then holds row g, elements 2t and 2t+1, of matrix j, or with `trans` rows 2t
// and 2t+1 of column g.
#pragma once

#include "common.cuh"

#ifdef __CUDACC__

__device__ static __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// d += a * b, 16-bit elements in, f32 sums. Every lane of the warp calls it.
__device__ static __forceinline__ void mma_m16n8k16_f16(
    float* d, const unsigned* a, const unsigned* b
) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])
    );
}

__device__ static __forceinline__ void mma_m16n8k16_bf16(
    float* d, const unsigned* a, const unsigned* b
) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])
    );
}

// The same with f16 sums, twice as fast on consumer cards: d[0] = D[g][2t, 2t+1] and
// d[1] = D[g+8][2t, 2t+1].
__device__ static __forceinline__ void mma_m16n8k16_f16_sums(
    unsigned* d, const unsigned* a, const unsigned* b
) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 "
        "{%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"
        : "+r"(d[0]), "+r"(d[1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])
    );
}

// m16n8k32 of signed bytes, int32 sums: a register has four elements where those above have two,
// and the fragments are otherwise the same (element 4t + i in byte i), as is what ldmatrix loads.
__device__ static __forceinline__ void mma_m16n8k32_s8(
    int* d, const unsigned* a, const unsigned* b
) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])
    );
}

__device__ static __forceinline__ void ldmatrix_x4(unsigned* r, const void* shared) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
        : "r"(shared_address(shared))
        : "memory"
    );
}

__device__ static __forceinline__ void ldmatrix_x4_trans(unsigned* r, const void* shared) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
        : "r"(shared_address(shared))
        : "memory"
    );
}

// Lanes 0 to 15 give the addresses.
__device__ static __forceinline__ void ldmatrix_x2(unsigned* r, const void* shared) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
        : "=r"(r[0]), "=r"(r[1])
        : "r"(shared_address(shared))
        : "memory"
    );
}

__device__ static __forceinline__ void ldmatrix_x2_trans(unsigned* r, const void* shared) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
        : "=r"(r[0]), "=r"(r[1])
        : "r"(shared_address(shared))
        : "memory"
    );
}

// 16 bytes on their way to shared memory, zeros where not `valid` (`global` is then not read, but
// must still be a pointer into global memory). Both addresses are aligned to 16.
__device__ static __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;"
        :
        : "r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
        : "memory"
    );
}

__device__ static __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N of this thread's committed groups are still under way. Other threads see
// what came only after a __syncthreads.
template <int N>
__device__ static __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 2^x with a relative error of 2e-7 where the result is a normal number, 0 below.
__device__ static __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two values rounded to 16 bits in one register, `low` in the low half.
__device__ static __forceinline__ unsigned pack_f16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ static __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

#else
#include "host/mma.h"
#endif

// The activation types as tensor cores take them: their product, and two values in one register.
struct TensorF16 {
    using Element = f16;
    static __device__ __forceinline__ void mma(float* d, const unsigned* a, const unsigned* b) {
        mma_m16n8k16_f16(d, a, b);
    }
    static __device__ __forceinline__ unsigned pack(float low, float high) {
        return pack_f16(low, high);
    }
};

struct TensorBf16 {
    using Element = bf16;
    static __device__ __forceinline__ void mma(float* d, const unsigned* a, const unsigned* b) {
        mma_m16n8k16_bf16(d, a, b);
    }
    static __device__ __forceinline__ unsigned pack(float low, float high) {
        return pack_bf16(low, high);
    }
};
