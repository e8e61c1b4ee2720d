// Hopper's tensor cores (sm_90a) behind small functions: wgmma, by which a warpgroup (4 warps in
// order) multiplies two tiles in shared memory while it goes on. PTX under nvcc, cuda/host/wgmma.h
// on the CPU, where a product is computed as late as its wait allows.
// Tiles are rows of 64 16-bit elements (128 bytes) in groups of 8 rows, 16-byte units swizzled by
// the row's number (product.cuh), and begin at multiples of 1024 bytes. d is (64, 192) or (64,
// 256): warp w of the group has rows 16 w + g and 16 w + g + 8 and columns 8 j + 2t, 2t + 1 in
// d[j], as fragments D of mma.cuh (PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16").
#pragma once

#include "mma.cuh"

/// Whether this pass of the compiler has wgmma: kernels that use it are empty elsewhere, and never
/// launched there.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA 1
#else
#define HAS_WGMMA 0
#endif

constexpr int wgmma_depth = 16;

#ifdef __CUDACC__

#define WGMMA_D4(d, j)                                                                            \
    "+f"((d)[j][0]), "+f"((d)[j][1]), "+f"((d)[j][2]), "+f"((d)[j][3])
#define WGMMA_D16(d, j)                                                                           \
    WGMMA_D4(d, j), WGMMA_D4(d, j + 1), WGMMA_D4(d, j + 2), WGMMA_D4(d, j + 3)
#define WGMMA_D64(d, j)                                                                           \
    WGMMA_D16(d, j), WGMMA_D16(d, j + 4), WGMMA_D16(d, j + 8), WGMMA_D16(d, j + 12)
#define WGMMA_D96(d) WGMMA_D64(d, 0), WGMMA_D16(d, 16), WGMMA_D16(d, 20)
#define WGMMA_D128(d) WGMMA_D64(d, 0), WGMMA_D64(d, 16)

#define WGMMA_NAMES_96                                                                            \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                      \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"                            \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                            \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"                            \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                            \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_NAMES_128                                                                           \
    WGMMA_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"     \
    "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

/// The products of one warpgroup, in groups that are waited for in order. d must not be touched
/// from `multiply` until its wait.
struct Wgmma {
    /// Before the first product, and after d was touched.
    __device__ __forceinline__ void begin() {
#if HAS_WGMMA
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
    }

    /// d (+)= a (64 rows) * b^T (8 rows for each d[j]), 16 columns of each from these addresses on.
    template <typename Tensor, int count>
    __device__ __forceinline__ void multiply(
        float (&d)[count][4], const unsigned short* a, const unsigned short* b, bool adds
    ) {
#if HAS_WGMMA
        multiply_one(Tensor(), d, descriptor(a), descriptor(b), adds);
#endif
    }

    __device__ __forceinline__ void commit() {
#if HAS_WGMMA
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
    }

    /// Until at most `newest` groups are under way.
    template <int newest>
    __device__ __forceinline__ void wait() {
#if HAS_WGMMA
        asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(newest) : "memory");
#endif
    }

private:
#if HAS_WGMMA
    /// PTX ISA, "Matrix Descriptor Format": the address, 1024 bytes from one group of 8 rows to the
    /// next, swizzled by 128 bytes; the other stride has no meaning then.
    static __device__ __forceinline__ uint64_t descriptor(const unsigned short* tile) {
        const uint64_t address = (shared_address(tile) & 0x3ffff) >> 4;
        return address | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
    }

#define WGMMA_MULTIPLY(tensor, type, shape, count, names, operands, a_name, b_name, adds_name)    \
    static __device__ __forceinline__ void multiply_one(                                          \
        tensor, float (&d)[count][4], uint64_t a, uint64_t b, bool adds                           \
    ) {                                                                                           \
        asm volatile(                                                                             \
            "{\n.reg .pred p;\nsetp.ne.b32 p, " adds_name ", 0;\n"                                \
            "wgmma.mma_async.sync.aligned." shape ".f32." type "." type " "                       \
            "{" names "}, " a_name ", " b_name ", p, 1, 1, 0, 0;\n}"                              \
            : operands(d)                                                                         \
            : "l"(a), "l"(b), "r"(int(adds))                                                      \
            : "memory"                                                                            \
        );                                                                                        \
    }
#define WGMMA_MULTIPLY_TYPE(tensor, type)                                                         \
    WGMMA_MULTIPLY(                                                                               \
        tensor, type, "m64n192k16", 24, WGMMA_NAMES_96, WGMMA_D96, "%96", "%97", "%98"            \
    )                                                                                             \
    WGMMA_MULTIPLY(                                                                               \
        tensor, type, "m64n256k16", 32, WGMMA_NAMES_128, WGMMA_D128, "%128", "%129", "%130"       \
    )
    WGMMA_MULTIPLY_TYPE(TensorF16, "f16")
    WGMMA_MULTIPLY_TYPE(TensorBf16, "bf16")
#undef WGMMA_MULTIPLY_TYPE
#undef WGMMA_MULTIPLY
#endif
};

/// Makes what this thread has written to shared memory, copies it has waited for among it, known to
/// wgmma; a barrier then does so for the block.
__device__ static __forceinline__ void publish_to_wgmma() {
#if HAS_WGMMA
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#else
#include "host/wgmma.h"
#endif
