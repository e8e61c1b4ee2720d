// mma.cuh on the CPU: fragments are gathered into whole matrices, multiplied plainly with f32 sums,
// and dealt out again, lane by lane as the PTX manual draws them.
#pragma once

#include "shim.h"

// --- small conversions ---

inline float exp2_fast(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
inline uint32_t pack_f16(float low, float high) {
    return __float2half_rn(low).bits | (uint32_t)__float2half_rn(high).bits << 16;
}
inline uint32_t pack_bf16(float low, float high) {
    return __float2bfloat16_rn(low).bits | (uint32_t)__float2bfloat16_rn(high).bits << 16;
}

// --- matrix products ---

struct HostProduct {
    const uint32_t* a;
    const uint32_t* b;
    float d[4];
};

inline float host_element(uint32_t pair, unsigned half, f16) {
    return __half2float({(uint16_t)(pair >> 16 * half)});
}
inline float host_element(uint32_t pair, unsigned half, bf16) {
    return __bfloat162float({(uint16_t)(pair >> 16 * half)});
}

template <typename T>
inline void host_product_all(void* const* operands, uint32_t present) {
    if (present != 0xffffffffu) return bxl_host_trap("mma without all 32 lanes");
    float a[16][16];
    float b[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const HostProduct* mine = (const HostProduct*)operands[lane];
        const unsigned g = lane / 4;
        const unsigned t = lane % 4;
        for (unsigned half = 0; half < 2; half++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned column = 2 * t + half + 8 * (i / 2);
                a[g + 8 * (i % 2)][column] = host_element(mine->a[i], half, T());
            }
            for (unsigned i = 0; i < 2; i++) {
                b[2 * t + half + 8 * i][g] = host_element(mine->b[i], half, T());
            }
        }
    }
    for (unsigned row = 0; row < 16; row++) {
        float sums[8] = {};
        for (unsigned k = 0; k < 16; k++) {
            for (unsigned n = 0; n < 8; n++) sums[n] += a[row][k] * b[k][n];
        }
        for (unsigned n = 0; n < 8; n++) {
            HostProduct* owner = (HostProduct*)operands[row % 8 * 4 + n / 2];
            owner->d[row / 8 * 2 + n % 2] += sums[n];
        }
    }
}

template <typename T>
inline void host_product(float* d, const uint32_t* a, const uint32_t* b, unsigned line) {
    HostProduct product = {a, b, {d[0], d[1], d[2], d[3]}};
    bxl_host_meet(host_product_all<T>, &product, 0xffffffffu, line);
    memcpy(d, product.d, sizeof(product.d));
}

inline void mma_m16n8k16_f16(
    float* d, const uint32_t* a, const uint32_t* b, unsigned line = __builtin_LINE()
) {
    host_product<f16>(d, a, b, line);
}
inline void mma_m16n8k16_bf16(
    float* d, const uint32_t* a, const uint32_t* b, unsigned line = __builtin_LINE()
) {
    host_product<bf16>(d, a, b, line);
}
/// Sums are rounded to f16 once per instruction.
inline void mma_m16n8k16_f16_sums(
    uint32_t* d, const uint32_t* a, const uint32_t* b, unsigned line = __builtin_LINE()
) {
    float sums[4];
    for (unsigned i = 0; i < 4; i++) sums[i] = host_element(d[i / 2], i % 2, f16());
    host_product<f16>(sums, a, b, line);
    d[0] = pack_f16(sums[0], sums[1]);
    d[1] = pack_f16(sums[2], sums[3]);
}

struct HostIntegerProduct {
    const uint32_t* a;
    const uint32_t* b;
    int d[4];
};

inline void host_integer_product_all(void* const* operands, uint32_t present) {
    if (present != 0xffffffffu) return bxl_host_trap("mma without all 32 lanes");
    int8_t a[16][32];
    int8_t b[32][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const HostIntegerProduct* mine = (const HostIntegerProduct*)operands[lane];
        const unsigned g = lane / 4;
        const unsigned t = lane % 4;
        for (unsigned byte = 0; byte < 4; byte++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned column = 4 * t + byte + 16 * (i / 2);
                a[g + 8 * (i % 2)][column] = (int8_t)(mine->a[i] >> 8 * byte);
            }
            for (unsigned i = 0; i < 2; i++) {
                b[4 * t + byte + 16 * i][g] = (int8_t)(mine->b[i] >> 8 * byte);
            }
        }
    }
    for (unsigned row = 0; row < 16; row++) {
        int sums[8] = {};
        for (unsigned k = 0; k < 32; k++) {
            for (unsigned n = 0; n < 8; n++) sums[n] += a[row][k] * b[k][n];
        }
        for (unsigned n = 0; n < 8; n++) {
            HostIntegerProduct* owner = (HostIntegerProduct*)operands[row % 8 * 4 + n / 2];
            owner->d[row / 8 * 2 + n % 2] += sums[n];
        }
    }
}

inline void mma_m16n8k32_s8(
    int* d, const uint32_t* a, const uint32_t* b, unsigned line = __builtin_LINE()
) {
    HostIntegerProduct product = {a, b, {d[0], d[1], d[2], d[3]}};
    bxl_host_meet(host_integer_product_all, &product, 0xffffffffu, line);
    memcpy(d, product.d, sizeof(product.d));
}

// --- ldmatrix ---

struct HostMatrices {
    const void* row;
    uint32_t* registers;
};

template <unsigned count, bool transposed>
inline void host_matrices_all(void* const* operands, uint32_t present) {
    if (present != 0xffffffffu) return bxl_host_trap("ldmatrix without all 32 lanes");
    for (unsigned i = 0; i < count; i++) {
        uint16_t matrix[8][8];
        for (unsigned row = 0; row < 8; row++) {
            const void* from = ((const HostMatrices*)operands[8 * i + row])->row;
            if ((uintptr_t)from % 16 != 0) return bxl_host_misaligned(from);
            memcpy(matrix[row], from, 16);
        }
        for (unsigned lane = 0; lane < 32; lane++) {
            const unsigned g = lane / 4;
            const unsigned t = 2 * (lane % 4);
            const uint32_t low = transposed ? matrix[t][g] : matrix[g][t];
            const uint32_t high = transposed ? matrix[t + 1][g] : matrix[g][t + 1];
            ((HostMatrices*)operands[lane])->registers[i] = low | high << 16;
        }
    }
}

template <unsigned count, bool transposed>
inline void host_matrices(uint32_t* registers, const void* row, unsigned line) {
    HostMatrices matrices = {row, registers};
    bxl_host_meet(host_matrices_all<count, transposed>, &matrices, 0xffffffffu, line);
}

inline void ldmatrix_x4(uint32_t* r, const void* row, unsigned line = __builtin_LINE()) {
    host_matrices<4, false>(r, row, line);
}
inline void ldmatrix_x4_trans(uint32_t* r, const void* row, unsigned line = __builtin_LINE()) {
    host_matrices<4, true>(r, row, line);
}
inline void ldmatrix_x2(uint32_t* r, const void* row, unsigned line = __builtin_LINE()) {
    host_matrices<2, false>(r, row, line);
}
inline void ldmatrix_x2_trans(uint32_t* r, const void* row, unsigned line = __builtin_LINE()) {
    host_matrices<2, true>(r, row, line);
}

// --- asynchronous copies ---

inline void cp_async_16(void* shared, const void* global, bool valid) {
    if ((uintptr_t)shared % 16 != 0) return bxl_host_misaligned(shared);
    if (valid && (uintptr_t)global % 16 != 0) return bxl_host_misaligned(global);
    bxl_host_copy_start(shared, valid ? global : nullptr);
}
inline void cp_async_commit() { bxl_host_copy_commit(); }
template <int newest>
inline void cp_async_wait() {
    bxl_host_copy_wait(newest);
}
