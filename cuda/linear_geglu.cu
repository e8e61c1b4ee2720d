// The first half of a transformer's feed-forward layer in one kernel: a matrix product whose second
// half gates the first, out[m, n] = value * gelu(gate), with value and gate the columns n and
// `columns` + n of x w^T + bias, and the exact GELU of torch.nn.functional.gelu.
// Layout: x (m, k), w (2 * columns, k) as checkpoints keep it, bias (2 * columns), out (m,
// columns); k and columns multiples of 8, addresses of 16 bytes. A tile takes as many rows of w
// from the values as from the gates, so that one thread has both sums of a result, in f32: the
// product itself is never written.
// For tensor cores by mma.sync (linear_geglu) and, on Hopper, by wgmma (linear_geglu_wgmma).
// 2048 x 1280 to 5120 (SDXL's third level with guidance): 54 GFLOP, 68 us at 790 TFLOP/s; the
// product and its pass would write and read 84 MB more, 20 us at 4.3 TB/s.
#include "elementwise.cuh"
#include "product.cuh"
#include "wgmma_product.cuh"

namespace linear_geglu {

// One call; the same struct in zig/backend/cuda/linear_geglu.zig.
struct Problem {
    unsigned short* out;
    const unsigned short* x;
    const unsigned short* w;
    const unsigned short* bias;
    unsigned row_count;
    unsigned column_count;
    unsigned depth;
    unsigned unused;
};

static_assert(sizeof(Problem) == 48, "must match Problem in linear_geglu.zig");

// Rows of x, and as many of w in two halves; `depth` of their columns.
template <int rows, int columns, int depth, int threads>
__device__ static __forceinline__ void load_stage(
    const Problem& p, unsigned turn, unsigned short* shared
) {
    const unsigned first = turn * depth;
    if (first < p.depth) {
        const unsigned row = blockIdx.x * rows;
        const unsigned column = blockIdx.y * columns;
        const unsigned left = product::rows_left(p.column_count, column);
        const unsigned long long values = (unsigned long long)column * p.depth;
        const unsigned long long gates = values + (unsigned long long)p.column_count * p.depth;
        product::load_tile<rows, depth, threads>(
            shared, p.x + (unsigned long long)row * p.depth, p.depth, p.row_count - row, first,
            p.depth
        );
        product::load_tile<columns, depth, threads>(
            shared + rows * depth, p.w + values, p.depth, left, first, p.depth
        );
        product::load_tile<columns, depth, threads>(
            shared + (rows + columns) * depth, p.w + gates, p.depth, left, first, p.depth
        );
    }
    // An empty group too, so that waiting counts turns.
    cp_async_commit();
}

// Of a pair of results; zeros past the end.
struct Biases {
    float value[2];
    float gate[2];
};

// By one access: a copy of bytes would know nothing of their alignment.
template <typename T>
__device__ static __forceinline__ void load_pair(const unsigned short* from, float (&pair)[2]) {
    const unsigned bits = *reinterpret_cast<const unsigned*>(from);
    T values[2];
    memcpy(values, &bits, sizeof(values));
    pair[0] = to_float(values[0]);
    pair[1] = to_float(values[1]);
}

template <typename T>
__device__ static __forceinline__ Biases biases_of(const Problem& p, unsigned column) {
    Biases biases = {};
    if (column < p.column_count) {
        load_pair<T>(p.bias + column, biases.value);
        load_pair<T>(p.bias + p.column_count + column, biases.gate);
    }
    return biases;
}

template <typename Tensor>
__device__ static __forceinline__ unsigned gated(
    const float* value, const float* gate, const Biases& biases
) {
    return Tensor::pack(
        (value[0] + biases.value[0]) * gelu(gate[0] + biases.gate[0]),
        (value[1] + biases.value[1]) * gelu(gate[1] + biases.gate[1])
    );
}

template <int rows, int columns, int threads>
__device__ static __forceinline__ void store(const Problem& p, const unsigned short* tile) {
    const unsigned row = blockIdx.x * rows;
    const unsigned column = blockIdx.y * columns;
    product::store_tile<rows, columns, threads>(
        p.out + (unsigned long long)row * p.column_count + column, tile, p.column_count,
        p.row_count - row, p.column_count - column
    );
}

// --- mma.sync: 4 warps, 128 x 64 results, a warp 64 x 32 of them ---

constexpr int tile_rows = 128;
constexpr int tile_columns = 64;
constexpr int tile_depth = 32;
constexpr int stage_count = 3;
constexpr int thread_count = 128;
constexpr int stage_elements = (tile_rows + 2 * tile_columns) * tile_depth;

// sums[m][n]: values of 8 columns for n < 4, their gates for n + 4.
template <typename Tensor>
__device__ static __forceinline__ void multiply_stage(
    float (&sums)[4][8][4], const unsigned short* shared, unsigned row, unsigned column
) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned short* const weights = shared + tile_rows * tile_depth;
#pragma unroll
    for (unsigned k = 0; k < tile_depth / 16; k++) {
        unsigned b[4][4];
#pragma unroll
        for (unsigned n = 0; n < 4; n++) {
            const unsigned first = n / 2 * tile_columns + column + n % 2 * 16;
            const unsigned r = first + (lane >> 4) * 8 + (lane & 7);
            const unsigned unit = k * 2 + ((lane >> 3) & 1);
            ldmatrix_x4(b[n], weights + product::swizzled<tile_depth>(r, unit));
        }
#pragma unroll
        for (unsigned m = 0; m < 4; m++) {
            unsigned a[4];
            const unsigned r = row + m * 16 + (lane & 15);
            ldmatrix_x4(a, shared + product::swizzled<tile_depth>(r, k * 2 + (lane >> 4)));
#pragma unroll
            for (unsigned n = 0; n < 8; n++) Tensor::mma(sums[m][n], a, b[n / 2] + n % 2 * 2);
        }
    }
}

// Grid (tiles of rows, tiles of columns): blocks that run at once share rows of w, which come from
// memory, and x stays in the cache.
template <typename Tensor>
__device__ static __forceinline__ void run(const Problem& p, unsigned short* stages) {
    const unsigned warp = threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = warp / 2 * 64;
    const unsigned column = warp % 2 * 32;
    float sums[4][8][4];
#pragma unroll
    for (int m = 0; m < 4; m++) {
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        }
    }
    const unsigned turn_count = (p.depth + tile_depth - 1) / tile_depth;
    for (unsigned turn = 0; turn < stage_count - 1; turn++) {
        load_stage<tile_rows, tile_columns, tile_depth, thread_count>(
            p, turn, stages + turn * stage_elements
        );
    }
    unsigned stage = 0;
    for (unsigned turn = 0; turn < turn_count; turn++) {
        cp_async_wait<stage_count - 2>();
        __syncthreads();
        // Into the stage that every warp left before this barrier.
        const unsigned left = stage == 0 ? stage_count - 1 : stage - 1;
        load_stage<tile_rows, tile_columns, tile_depth, thread_count>(
            p, turn + stage_count - 1, stages + left * stage_elements
        );
        multiply_stage<Tensor>(sums, stages + stage * stage_elements, row, column);
        stage = stage == stage_count - 1 ? 0 : stage + 1;
    }
    // Nothing is under way any more: the turns behind the last one have loaded nothing.
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const unsigned at = column + n * 8 + lane % 4 * 2;
        const Biases biases =
            biases_of<typename Tensor::Element>(p, blockIdx.y * tile_columns + at);
#pragma unroll
        for (int m = 0; m < 4; m++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const unsigned in_tile = row + m * 16 + r * 8 + lane / 4;
                *product::pair_in_tile<tile_rows>(stages, in_tile, at) =
                    gated<Tensor>(sums[m][n] + 2 * r, sums[m][n + 4] + 2 * r, biases);
            }
        }
    }
    __syncthreads();
    store<tile_rows, tile_columns, thread_count>(p, stages);
}

// --- wgmma: 2 warpgroups, 128 x 128 results, a warpgroup 64 x 128 of them ---

constexpr int wide_columns = 128;
constexpr int wide_stage_elements = (tile_rows + 2 * wide_columns) * wgmma_product::depth;

template <typename Tensor>
__device__ static __forceinline__ void run_wide(const Problem& p, unsigned short* memory) {
    using namespace wgmma_product;
    static_assert(tile_rows == rows, "tiles of as many rows");
    unsigned short* const stages = first_stage(memory);
    const unsigned lane = threadIdx.x % 32;
    float sums[32][4];
    multiply<Tensor, 2 * wide_columns>(
        sums, stages, wide_stage_elements, turns_of(p.depth),
        [&](unsigned turn, unsigned short* stage) {
            load_stage<rows, wide_columns, depth, wgmma_product::thread_count>(
                p, turn, stage
            );
        }
    );
    cp_async_wait<0>();
    __syncthreads();
    const unsigned row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < 16; n++) {
        const unsigned at = n * 8 + lane % 4 * 2;
        const Biases biases =
            biases_of<typename Tensor::Element>(p, blockIdx.y * wide_columns + at);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            *product::pair_in_tile<rows>(stages, row + r * 8, at) =
                gated<Tensor>(sums[n] + 2 * r, sums[n + 16] + 2 * r, biases);
        }
    }
    __syncthreads();
    store<rows, wide_columns, wgmma_product::thread_count>(p, stages);
}

} // namespace linear_geglu

#define LINEAR_GEGLU_KERNELS(type, tensor)                                                        \
    extern "C" __global__ void __launch_bounds__(linear_geglu::thread_count, 2)                   \
        linear_geglu_##type(const __grid_constant__ linear_geglu::Problem problem) {              \
        wait_for_earlier_kernels();                                                               \
        DYNAMIC_SHARED(unsigned short, stages);                                                   \
        linear_geglu::run<tensor>(problem, stages);                                               \
    }                                                                                             \
    EXPORT_KERNEL(linear_geglu_##type)                                                            \
    WGMMA_KERNEL(                                                                                 \
        linear_geglu_wgmma_##type,                                                                \
        linear_geglu::Problem,                                                                    \
        linear_geglu::run_wide<tensor>(problem, memory)                                           \
    )

LINEAR_GEGLU_KERNELS(f16, TensorF16)
LINEAR_GEGLU_KERNELS(bf16, TensorBf16)
