// The cascaded matrix product of `--fp16-accumulate`: consumer cards add products in f16 at twice
// the rate of f32, so chunks of 64 products are summed in f16 and the chunks' sums in f32.
//   out[m, n] = scale * sum_k x[m, k] * w[n, k] + bias[n] + residual[m, n]
// Layout: x (m, k), w (n, k) as checkpoints keep it, out and residual (m, n), all f16 with row
// strides of their own; k, n and the strides multiples of 8, addresses of 16 bytes. A block of 8
// warps makes 128 x 128 of out, a warp 64 x 32; 32 columns of k at a time pass through three stages
// of shared memory (48 KiB), swizzled so that ldmatrix has no bank conflicts.
// Error: 4 roundings to f16 of each chunk's sum. Relative L2 of normally distributed operands on
// the emulated GPU: 3.9e-4, where rounding the result alone takes 2.1e-4 (its test allows 5e-4).
// A chunk whose sum passes 65504 overflows, so this is for activations behind a norm, and off by
// default.
// 4096x640x5120 (GEGLU of SDXL): 27 GFLOP, 81 us at a 4090's 330 TFLOP/s with f16 sums, 163 us with
// f32.
#include "common.cuh"
#include "mma.cuh"

namespace matmul_cascaded {

constexpr int tile_rows = 128;
constexpr int tile_columns = 128;
constexpr int tile_depth = 32;
constexpr int stage_count = 3;
// Turns of tile_depth whose sum stays in f16.
constexpr int chunk_turns = 2;
constexpr int thread_count = 256;
constexpr int warp_rows = 64;
constexpr int warp_columns = 32;
constexpr int row_tiles = warp_rows / 16;
constexpr int column_tiles = warp_columns / 8;
constexpr int stage_elements = (tile_rows + tile_columns) * tile_depth;

// One call; the same struct in zig/backend/cuda/ops_matmul_cascaded.zig. bias and residual may be
// null.
struct Problem {
    f16* out;
    const f16* x;
    const f16* w;
    const f16* bias;
    const f16* residual;
    unsigned out_stride;
    unsigned x_stride;
    unsigned w_stride;
    unsigned residual_stride;
    unsigned row_count;
    unsigned column_count;
    unsigned depth;
    float scale;
};

static_assert(sizeof(Problem) == 72, "must match Problem in ops_matmul_cascaded.zig");

// 4 units of 8 elements a row, two rows to the width of the banks.
__device__ static __forceinline__ unsigned swizzled(unsigned row, unsigned unit) {
    return row * tile_depth + ((unit ^ ((row >> 1) & 3)) << 3);
}

// 128 rows of 32 columns, zeros past the end of either.
__device__ static __forceinline__ void load_tile(
    f16* shared,
    const f16* source,
    unsigned stride,
    unsigned row_first,
    unsigned row_count,
    unsigned column_first,
    unsigned column_count
) {
#pragma unroll
    for (unsigned step = 0; step < 2; step++) {
        const unsigned row = step * 64 + threadIdx.x / 4;
        const unsigned unit = threadIdx.x % 4;
        const unsigned column = column_first + unit * 8;
        const bool valid = row_first + row < row_count && column < column_count;
        const unsigned long long place = (unsigned long long)(row_first + row) * stride + column;
        const f16* from = source + (valid ? place : 0);
        cp_async_16(shared + swizzled(row, unit), from, valid);
    }
}

__device__ static __forceinline__ void load_stage(const Problem& p, unsigned turn, f16* shared) {
    if (turn * tile_depth < p.depth) {
        const unsigned column = turn * tile_depth;
        load_tile(
            shared, p.x, p.x_stride, blockIdx.y * tile_rows, p.row_count, column, p.depth
        );
        load_tile(
            shared + tile_rows * tile_depth, p.w, p.w_stride, blockIdx.x * tile_columns,
            p.column_count, column, p.depth
        );
    }
    // An empty group too, so that waiting counts turns.
    cp_async_commit();
}

__device__ static __forceinline__ void multiply_stage(
    unsigned (&chunk)[row_tiles][column_tiles][2], const f16* shared, unsigned row, unsigned column
) {
    const unsigned lane = threadIdx.x % 32;
    const f16* const weights = shared + tile_rows * tile_depth;
#pragma unroll
    for (unsigned k = 0; k < tile_depth / 16; k++) {
        unsigned b[column_tiles / 2][4];
#pragma unroll
        for (unsigned n = 0; n < column_tiles / 2; n++) {
            const unsigned r = column + n * 16 + (lane >> 4) * 8 + (lane & 7);
            ldmatrix_x4(b[n], weights + swizzled(r, k * 2 + ((lane >> 3) & 1)));
        }
#pragma unroll
        for (unsigned m = 0; m < row_tiles; m++) {
            unsigned a[4];
            ldmatrix_x4(a, shared + swizzled(row + m * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
            for (unsigned n = 0; n < column_tiles; n++) {
                mma_m16n8k16_f16_sums(chunk[m][n], a, b[n / 2] + n % 2 * 2);
            }
        }
    }
}

__device__ static __forceinline__ float half_of(unsigned pair, unsigned which) {
    return to_float(__ushort_as_half((unsigned short)(pair >> 16 * which)));
}

// Adds the f16 sums of a chunk to the f32 ones and begins the next at 0.
__device__ static __forceinline__ void promote(
    float (&sums)[row_tiles][column_tiles][4], unsigned (&chunk)[row_tiles][column_tiles][2]
) {
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int n = 0; n < column_tiles; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] += half_of(chunk[m][n][i / 2], i % 2);
            chunk[m][n][0] = 0;
            chunk[m][n][1] = 0;
        }
    }
}

__device__ static __forceinline__ void write_sums(
    const Problem& p,
    const float (&sums)[row_tiles][column_tiles][4],
    unsigned row_first,
    unsigned column_first
) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < column_tiles; n++) {
        const unsigned column = column_first + n * 8 + lane % 4 * 2;
        if (column >= p.column_count) continue;
        unsigned bias = 0;
        if (p.bias) bias = *reinterpret_cast<const unsigned*>(p.bias + column);
#pragma unroll
        for (int m = 0; m < row_tiles; m++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const unsigned long long row = row_first + m * 16 + r * 8 + lane / 4;
                if (row >= p.row_count) continue;
                unsigned residual = 0;
                if (p.residual) {
                    residual = *reinterpret_cast<const unsigned*>(
                        p.residual + row * p.residual_stride + column
                    );
                }
                const float low = half_of(bias, 0) + half_of(residual, 0);
                const float high = half_of(bias, 1) + half_of(residual, 1);
                *reinterpret_cast<unsigned*>(p.out + row * p.out_stride + column) = pack_f16(
                    p.scale * sums[m][n][2 * r] + low, p.scale * sums[m][n][2 * r + 1] + high
                );
            }
        }
    }
}

// Grid (tiles of n, tiles of m).
__device__ static __forceinline__ void multiply(const Problem& p, f16* stages) {
    const unsigned warp = threadIdx.x / 32;
    const unsigned row = warp / 4 * warp_rows;
    const unsigned column = warp % 4 * warp_columns;
    float sums[row_tiles][column_tiles][4];
    unsigned chunk[row_tiles][column_tiles][2];
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int n = 0; n < column_tiles; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
            chunk[m][n][0] = 0;
            chunk[m][n][1] = 0;
        }
    }
    const unsigned turn_count = (p.depth + tile_depth - 1) / tile_depth;
    for (unsigned turn = 0; turn < stage_count - 1; turn++) {
        load_stage(p, turn, stages + turn * stage_elements);
    }
    unsigned stage = 0;
    for (unsigned turn = 0; turn < turn_count; turn++) {
        cp_async_wait<stage_count - 2>();
        __syncthreads();
        // Into the stage that every warp left before this barrier.
        const unsigned left = stage == 0 ? stage_count - 1 : stage - 1;
        load_stage(p, turn + stage_count - 1, stages + left * stage_elements);
        multiply_stage(chunk, stages + stage * stage_elements, row, column);
        stage = stage == stage_count - 1 ? 0 : stage + 1;
        if (turn % chunk_turns == chunk_turns - 1) promote(sums, chunk);
    }
    promote(sums, chunk);
    write_sums(p, sums, blockIdx.y * tile_rows + row, blockIdx.x * tile_columns + column);
}

} // namespace matmul_cascaded

extern "C" __global__ void __launch_bounds__(matmul_cascaded::thread_count, 2)
    matmul_cascaded_f16(const __grid_constant__ matmul_cascaded::Problem problem) {
    wait_for_earlier_kernels();
    DYNAMIC_SHARED(f16, stages);
    matmul_cascaded::multiply(problem, stages);
}
EXPORT_KERNEL(matmul_cascaded_f16)
