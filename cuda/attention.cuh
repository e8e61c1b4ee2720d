// Tiles of attention in registers and shared memory: where a row's units lie, how tiles come in,
// the two products and the softmax between them. T (F16 or Bf16) is the activations' type; `head`
// is the head size rounded up to what a kernel is made for; a warp holds `row_tiles` tiles of 16
// rows. Scores and sums are fragments D of mma.cuh: [row tile][8 columns][4]; a tile has as many
// keys as a kernel has scores.
#pragma once

#include "common.cuh"
#include "mma.cuh"

namespace attention {

constexpr int tile_keys = 64;
constexpr int thread_count = 128;
constexpr int warp_rows = 16;

using F16 = TensorF16;
using Bf16 = TensorBf16;

// Where unit `unit` (8 elements) of a row lies in a tile of rows of `head` elements: 8 rows in
// order at one unit fall on 8 different 16-byte columns of the banks.
template <int head>
__device__ static __forceinline__ int swizzled(int row, int unit) {
    const int mask = head % 64 == 0 ? row & 7 : (row >> 1) & 3;
    return row * head + ((unit ^ mask) << 3);
}

// `rows` rows of a head to shared memory, zeros from `row_count` and `head_size` on. By a block of
// `thread_count` threads, or by each of its warpgroups.
template <int head, int rows, bool aligned>
__device__ static __forceinline__ void load_rows(
    unsigned short* shared,
    const unsigned short* source,
    unsigned long long stride,
    unsigned row_count,
    unsigned head_size
) {
    constexpr int units = head / 8;
    const unsigned thread = threadIdx.x % thread_count;
    static_assert(rows * units % thread_count == 0, "threads share the units evenly");
    if (aligned) {
#pragma unroll
        for (int step = 0; step < rows * units / thread_count; step++) {
            const unsigned i = step * thread_count + thread;
            const unsigned row = i / units;
            const unsigned unit = i % units;
            const bool valid = row < row_count && unit * 8 < head_size;
            const unsigned short* from = source + (valid ? row * stride + unit * 8 : 0);
            cp_async_16(shared + swizzled<head>(row, unit), from, valid);
        }
    } else {
        for (unsigned i = thread; i < rows * head; i += thread_count) {
            const unsigned row = i / head;
            const unsigned column = i % head;
            const bool valid = row < row_count && column < head_size;
            const unsigned short value = valid ? source[row * stride + column] : 0;
            shared[swizzled<head>(row, column / 8) + column % 8] = value;
        }
    }
}

// scores (rows of q, keys) = q k^T, the fragments of q already in registers.
template <typename T, int head, int row_tiles, int key_columns>
__device__ static __forceinline__ void multiply_keys(
    float (&scores)[row_tiles][key_columns][4],
    const unsigned (&q)[row_tiles][head / 16][4],
    const unsigned short* keys
) {
    const int lane = threadIdx.x % 32;
    const int key = (lane >> 4) * 8 + (lane & 7);
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int n = 0; n < key_columns; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[m][n][i] = 0.0f;
        }
    }
#pragma unroll
    for (int k = 0; k < head / 16; k++) {
#pragma unroll
        for (int n = 0; n < key_columns / 2; n++) {
            unsigned b[4];
            ldmatrix_x4(b, keys + swizzled<head>(n * 16 + key, k * 2 + ((lane >> 3) & 1)));
#pragma unroll
            for (int m = 0; m < row_tiles; m++) {
                T::mma(scores[m][2 * n], q[m][k], b);
                T::mma(scores[m][2 * n + 1], q[m][k], b + 2);
            }
        }
    }
}

// -inf for keys past `key_count` and, where causal, past the row's own position. `row` is that of
// this thread's first row and `key` that of the tile's first key.
template <int row_tiles, int key_columns>
__device__ static __forceinline__ void mask_scores(
    float (&scores)[row_tiles][key_columns][4],
    unsigned key_count,
    bool causal,
    unsigned row,
    unsigned key
) {
    const unsigned column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int n = 0; n < key_columns; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const unsigned k = n * 8 + column + i % 2;
                const bool later = causal && key + k > row + m * warp_rows + i / 2 * 8;
                if (k >= key_count || later) scores[m][n][i] = -INFINITY;
            }
        }
    }
}

// How far a row's scores may rise over its reference before that follows: weights up to 2^8 are as
// exact in 16 bits as those up to 1, and after the first tiles nothing needs to be rescaled.
constexpr float rise_max = 8.0f;

// Scaled scores, and the new reference of row r of row tile m. Returns what the sums so far shrink
// by: exactly 1 where the reference stays.
template <int row_tiles, int key_columns>
__device__ static __forceinline__ float scale_row(
    float (&scores)[row_tiles][key_columns][4], int m, int r, float& reference, float scale
) {
    float top = -INFINITY;
#pragma unroll
    for (int n = 0; n < key_columns; n++) {
        scores[m][n][2 * r] *= scale;
        scores[m][n][2 * r + 1] *= scale;
        top = fmaxf(top, fmaxf(scores[m][n][2 * r], scores[m][n][2 * r + 1]));
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
    const float before = reference;
    if (top > before + rise_max) reference = top;
    return exp2_fast(before - reference);
}

// Scores to weights, 2^(score - reference), with their sums. The scaled scores are subtracted and
// never fused with the scaling: their difference is then exact however large they are.
template <int row_tiles, int columns, int key_columns>
__device__ static __forceinline__ void weigh(
    float (&scores)[row_tiles][key_columns][4],
    float (&out)[row_tiles][columns][4],
    float (&references)[row_tiles][2],
    float (&sums)[row_tiles][2],
    float scale
) {
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
        const float shrink_0 = scale_row(scores, m, 0, references[m][0], scale);
        const float shrink_1 = scale_row(scores, m, 1, references[m][1], scale);
        // Not equal, so that NaN goes on into the sums.
        if (__any_sync(0xffffffff, !(shrink_0 == 1.0f && shrink_1 == 1.0f))) {
            sums[m][0] *= shrink_0;
            sums[m][1] *= shrink_1;
#pragma unroll
            for (int n = 0; n < columns; n++) {
                out[m][n][0] *= shrink_0;
                out[m][n][1] *= shrink_0;
                out[m][n][2] *= shrink_1;
                out[m][n][3] *= shrink_1;
            }
        }
#pragma unroll
        for (int n = 0; n < key_columns; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[m][n][i] = exp2_fast(scores[m][n][i] - references[m][i / 2]);
                sums[m][i / 2] += scores[m][n][i];
            }
        }
    }
}

// Results of a product, 16 columns of them, as the left side of the next one.
template <typename T>
__device__ static __forceinline__ void as_left(unsigned (&a)[4], const float (*pairs)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float* pair = pairs[i / 2] + i % 2 * 2;
        a[i] = T::pack(pair[0], pair[1]);
    }
}

// out += weights * values.
template <typename T, int head, int row_tiles, int key_columns>
__device__ static __forceinline__ void multiply_values(
    float (&out)[row_tiles][head / 8][4],
    const float (&weights)[row_tiles][key_columns][4],
    const unsigned short* values
) {
    const int lane = threadIdx.x % 32;
    const int key = ((lane >> 3) & 1) * 8 + (lane & 7);
#pragma unroll
    for (int k = 0; k < key_columns / 2; k++) {
        unsigned a[row_tiles][4];
#pragma unroll
        for (int m = 0; m < row_tiles; m++) as_left<T>(a[m], weights[m] + 2 * k);
#pragma unroll
        for (int n = 0; n < head / 16; n++) {
            unsigned b[4];
            ldmatrix_x4_trans(b, values + swizzled<head>(k * 16 + key, n * 2 + (lane >> 4)));
#pragma unroll
            for (int m = 0; m < row_tiles; m++) {
                T::mma(out[m][2 * n], a[m], b);
                T::mma(out[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

// Before the first tile of keys.
template <int row_tiles, int columns>
__device__ static __forceinline__ void begin_rows(
    float (&out)[row_tiles][columns][4], float (&references)[row_tiles][2],
    float (&sums)[row_tiles][2]
) {
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            references[m][r] = -INFINITY;
            sums[m][r] = 0.0f;
        }
#pragma unroll
        for (int n = 0; n < columns; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[m][n][i] = 0.0f;
        }
    }
}

// Sums of weights over the lanes that share a row.
template <int row_tiles>
__device__ static __forceinline__ void join_sums(float (&sums)[row_tiles][2]) {
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sums[m][r] += __shfl_xor_sync(0xffffffff, sums[m][r], 1);
            sums[m][r] += __shfl_xor_sync(0xffffffff, sums[m][r], 2);
        }
    }
}

// Normalised rows by way of shared memory (a warp's own rows of a tile), so that global memory is
// written in 16-byte units. `target` is the head in the block's first row, of `row_count`.
template <typename T, int head, int row_tiles, bool aligned>
__device__ static __forceinline__ void write_rows(
    unsigned short* target,
    unsigned long long stride,
    const float (&out)[row_tiles][head / 8][4],
    const float (&sums)[row_tiles][2],
    unsigned short* shared,
    unsigned row_count,
    unsigned head_size
) {
    constexpr unsigned units = head / 8;
    constexpr unsigned rows = row_tiles * warp_rows;
    const unsigned lane = threadIdx.x % 32;
    const unsigned row_first = threadIdx.x / 32 * rows;
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float factor = 1.0f / sums[m][r];
            const unsigned row = row_first + m * warp_rows + r * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < head / 8; n++) {
                unsigned* pair = reinterpret_cast<unsigned*>(
                    shared + swizzled<head>(row, n) + lane % 4 * 2
                );
                *pair = T::pack(out[m][n][2 * r] * factor, out[m][n][2 * r + 1] * factor);
            }
        }
    }
    __syncwarp();
    for (unsigned i = lane; i < rows * units; i += 32) {
        const unsigned row = row_first + i / units;
        const unsigned unit = i % units;
        if (row >= row_count || unit * 8 >= head_size) continue;
        const unsigned short* from = shared + swizzled<head>(row, unit);
        unsigned short* to = target + row * stride + unit * 8;
        if (aligned) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
        } else {
            const unsigned count = min(head_size - unit * 8, 8u);
            for (unsigned e = 0; e < count; e++) to[e] = from[e];
        }
    }
}

} // namespace attention
