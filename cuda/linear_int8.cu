// A linear layer in int8 in one kernel: sums of products of integers in int32 on tensor cores, and
// what follows them (Int8Epilogue in int8.cuh), so that the sums are never written. cuBLASLt has no
// int8 product whose result has 16 bits or scales of its own: its sums in int32 are 8 bytes for
// each result on the way to memory and back, where the result itself has 2.
// Layout: x (m, k), w (n, k) as quantize_rows.cu and weights/int8.zig make them; k a multiple of
// 16. With `_geglu` a tile takes as many rows of w from the values as from the gates, and one
// thread has both sums of a result.
// A tile is 128 rows by 128 of w's, 64 bytes deep, in 4 warps of 64 by 64 by mma.sync m16n8k32,
// whose fragments are those of 16-bit elements two by two: tiles move as product.cuh moves those.
// 2048 x 1280 to 5120 gated (SDXL's third level with guidance): 54 G operations, 41 us at 62 % of
// an H200's 1979 TOPS dense, which mma.sync reaches there; sums of 84 MB would cost 39 us more.
#include "int8.cuh"
#include "product.cuh"

namespace linear_int8 {

/// One call; the same struct in zig/backend/cuda/linear_int8.zig. `depth` counts bytes.
struct Problem {
    Int8Epilogue e;
    const signed char* x;
    const signed char* w;
    unsigned depth;
    unsigned unused;
};

constexpr int tile_rows = 128;
/// Of each half: one behind the other, or values and gates.
constexpr int half_columns = 64;
/// In pairs of bytes.
constexpr int tile_depth = 32;
constexpr int stage_count = 3;
constexpr int thread_count = 128;
constexpr int stage_elements = (tile_rows + 2 * half_columns) * tile_depth;

template <bool is_gated>
struct Tile {
    static constexpr int columns = is_gated ? half_columns : 2 * half_columns;

    unsigned row;
    unsigned column;
    /// Of w, where each half begins.
    unsigned halves[2];
    /// Its columns that are there.
    unsigned left[2];

    __device__ __forceinline__ explicit Tile(const Int8Epilogue& e)
        : row(blockIdx.x * tile_rows), column(blockIdx.y * columns) {
        const unsigned second = column + half_columns;
        halves[0] = column;
        halves[1] = is_gated ? column + e.column_count : second;
        left[0] = product::rows_left(e.column_count, column);
        left[1] = is_gated ? left[0] : product::rows_left(e.column_count, second);
    }
};

template <bool is_gated>
__device__ static __forceinline__ void load_stage(
    const Problem& p, const Tile<is_gated>& tile, unsigned turn, unsigned short* shared
) {
    const unsigned depth = p.depth / 2;
    const unsigned first = turn * tile_depth;
    if (first < depth) {
        const auto* const x = reinterpret_cast<const unsigned short*>(p.x);
        const auto* const w = reinterpret_cast<const unsigned short*>(p.w);
        product::load_tile<tile_rows, tile_depth, thread_count>(
            shared, x + (uint64_t)tile.row * depth, depth, p.e.row_count - tile.row, first, depth
        );
        for (unsigned half = 0; half < 2; half++) {
            // A half that is not there is no address either.
            const uint64_t place = tile.left[half] > 0 ? (uint64_t)tile.halves[half] * depth : 0;
            product::load_tile<half_columns, tile_depth, thread_count>(
                shared + (tile_rows + half * half_columns) * tile_depth, w + place, depth,
                tile.left[half], first, depth
            );
        }
    }
    // An empty group too, so that waiting counts turns.
    cp_async_commit();
}

/// sums[m][n]: of 16 rows and 8 columns, those of the first half for n < 4.
__device__ static __forceinline__ void multiply_stage(
    int (&sums)[4][8][4], const unsigned short* shared, unsigned row, unsigned column
) {
    const unsigned lane = threadIdx.x % warp_lanes;
#pragma unroll
    for (unsigned k = 0; k < tile_depth / 8; k += 2) {
        unsigned a[4][4];
#pragma unroll
        for (unsigned m = 0; m < 4; m++) {
            const unsigned r = row + m * 16 + lane % 16;
            ldmatrix_x4(a[m], shared + product::swizzled<tile_depth>(r, k + lane / 16));
        }
#pragma unroll
        for (unsigned n = 0; n < 8; n += 2) {
            unsigned b[4];
            const unsigned first = tile_rows + n / 4 * half_columns + column + n % 4 * 8;
            const unsigned r = first + lane / 16 * 8 + lane % 8;
            ldmatrix_x4(b, shared + product::swizzled<tile_depth>(r, k + lane / 8 % 2));
#pragma unroll
            for (unsigned m = 0; m < 4; m++) {
                mma_m16n8k32_s8(sums[m][n], a[m], b);
                mma_m16n8k32_s8(sums[m][n + 1], a[m], b + 2);
            }
        }
    }
}

template <typename T>
__device__ static __forceinline__ float2 load_pair(const void* from, uint64_t at) {
    const unsigned bits = *reinterpret_cast<const unsigned*>(static_cast<const T*>(from) + at);
    T values[2];
    memcpy(values, &bits, sizeof(values));
    return {to_float(values[0]), to_float(values[1])};
}

/// Scales and biases of two neighbouring columns of w; zeros past the end.
struct Pair {
    float2 scale;
    float2 bias;

    template <typename T>
    __device__ __forceinline__ static Pair of(const Int8Epilogue& e, unsigned column, bool valid) {
        Pair pair = {{0.0f, 0.0f}, {0.0f, 0.0f}};
        if (!valid) return pair;
        pair.scale = *reinterpret_cast<const float2*>(e.column_scales + column);
        if (e.bias) pair.bias = load_pair<T>(e.bias, column);
        return pair;
    }

    __device__ __forceinline__ float2 results(
        const int* sums, float scale, float row_scale
    ) const {
        return {
            dequantize(sums[0], scale, row_scale, this->scale.x, bias.x),
            dequantize(sums[1], scale, row_scale, this->scale.y, bias.y)
        };
    }
};

/// The residual, where the tile's results will be.
template <int columns>
__device__ static __forceinline__ void load_residual(
    const Int8Epilogue& e, unsigned row, unsigned column, unsigned short* shared
) {
    constexpr unsigned units = columns / 8;
    const auto* const residual = static_cast<const unsigned short*>(e.residual);
    for (unsigned i = threadIdx.x; i < tile_rows * units; i += thread_count) {
        const unsigned r = i / units;
        const unsigned at = i % units * 8;
        if (row + r >= e.row_count || column + at >= e.column_count) continue;
        const uint64_t place = uint64_t(row + r) * e.out_stride + column + at;
        *reinterpret_cast<uint4*>(product::pair_in_tile<tile_rows>(shared, r, at)) =
            *reinterpret_cast<const uint4*>(residual + place);
    }
}

/// A pair of results, where the residual is.
template <typename Tensor>
__device__ static __forceinline__ void put_pair(
    const Int8Epilogue& e, unsigned* place, float2 x
) {
    x.x = activate_one(e.activation, x.x);
    x.y = activate_one(e.activation, x.y);
    if (e.residual) {
        const float2 residual = load_pair<typename Tensor::Element>(place, 0);
        x.x = __fadd_rn(x.x, residual.x);
        x.y = __fadd_rn(x.y, residual.y);
    }
    *place = Tensor::pack(x.x, x.y);
}

/// From sums to results in shared memory.
template <typename Tensor, bool is_gated>
__device__ static __forceinline__ void finish(
    const Int8Epilogue& e, const Tile<is_gated>& tile, const int (&sums)[4][8][4], unsigned row,
    unsigned column, unsigned short* shared
) {
    using T = typename Tensor::Element;
    const unsigned lane = threadIdx.x % warp_lanes;
    float row_scales[4][2];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const unsigned r = tile.row + row + i / 2 * 16 + i % 2 * 8 + lane / 4;
        row_scales[i / 2][i % 2] = r < e.row_count ? e.row_scales[r] : 0.0f;
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const unsigned at = column + n * 8 + lane % 4 * 2;
        const Pair first = Pair::of<T>(e, tile.halves[0] + at, at < tile.left[0]);
        const Pair second = Pair::of<T>(e, tile.halves[1] + at, at < tile.left[1]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int m = i / 2;
            const int r = i % 2;
            const unsigned in_tile = row + m * 16 + r * 8 + lane / 4;
            const float row_scale = row_scales[m][r];
            float2 x = first.results(sums[m][n] + 2 * r, e.scale, row_scale);
            const float2 y = second.results(sums[m][n + 4] + 2 * r, e.scale, row_scale);
            unsigned* const place = product::pair_in_tile<tile_rows>(shared, in_tile, at);
            if (is_gated) {
                *place = Tensor::pack(x.x * gelu(y.x), x.y * gelu(y.y));
                continue;
            }
            put_pair<Tensor>(e, place, x);
            put_pair<Tensor>(
                e, product::pair_in_tile<tile_rows>(shared, in_tile, half_columns + at), y
            );
        }
    }
}

// Grid (tiles of rows, tiles of columns): blocks that run at once share rows of w, which come from
// memory, and x stays in the cache.
template <typename Tensor, bool is_gated>
__device__ static __forceinline__ void run(const Problem& p, unsigned short* stages) {
    const Tile<is_gated> tile(p.e);
    const unsigned warp = threadIdx.x / warp_lanes;
    const unsigned row = warp / 2 * 64;
    const unsigned column = warp % 2 * 32;
    int sums[4][8][4];
#pragma unroll
    for (int i = 0; i < 128; i++) sums[i / 32][i / 4 % 8][i % 4] = 0;
    const unsigned turn_count = (p.depth / 2 + tile_depth - 1) / tile_depth;
    for (unsigned turn = 0; turn < stage_count - 1; turn++) {
        load_stage(p, tile, turn, stages + turn * stage_elements);
    }
    unsigned stage = 0;
    for (unsigned turn = 0; turn < turn_count; turn++) {
        cp_async_wait<stage_count - 2>();
        __syncthreads();
        // Into the stage that every warp left before this barrier.
        const unsigned left = stage == 0 ? stage_count - 1 : stage - 1;
        load_stage(p, tile, turn + stage_count - 1, stages + left * stage_elements);
        multiply_stage(sums, stages + stage * stage_elements, row, column);
        stage = stage == stage_count - 1 ? 0 : stage + 1;
    }
    // Nothing is under way any more: the turns behind the last one have loaded nothing.
    cp_async_wait<0>();
    __syncthreads();
    constexpr int columns = Tile<is_gated>::columns;
    if (!is_gated && p.e.residual) {
        load_residual<columns>(p.e, tile.row, tile.column, stages);
        __syncthreads();
    }
    finish<Tensor, is_gated>(p.e, tile, sums, row, column, stages);
    __syncthreads();
    product::store_tile<tile_rows, columns, thread_count>(
        static_cast<unsigned short*>(p.e.out) + (uint64_t)tile.row * p.e.out_stride + tile.column,
        stages, p.e.out_stride, p.e.row_count - tile.row, p.e.column_count - tile.column
    );
}

}  // namespace linear_int8

#define LINEAR_INT8_KERNEL(name, tensor, is_gated)                                         \
    extern "C" __global__ void __launch_bounds__(linear_int8::thread_count, 2)             \
        name(const __grid_constant__ linear_int8::Problem problem) {                       \
        wait_for_earlier_kernels();                                                        \
        DYNAMIC_SHARED(unsigned short, stages);                                            \
        linear_int8::run<tensor, is_gated>(problem, stages);                               \
    }                                                                                      \
    EXPORT_KERNEL(name)

LINEAR_INT8_KERNEL(linear_int8_f16, TensorF16, false)
LINEAR_INT8_KERNEL(linear_int8_bf16, TensorBf16, false)
LINEAR_INT8_KERNEL(linear_int8_geglu_f16, TensorF16, true)
LINEAR_INT8_KERNEL(linear_int8_geglu_bf16, TensorBf16, true)
