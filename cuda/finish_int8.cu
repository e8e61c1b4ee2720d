// What follows cuBLASLt's int8 product: its sums in int32 become a linear layer's result
// (Int8Epilogue in int8.cuh), or, with `_geglu`, a gated one of twice as many sums.
// Layout: sums (rows, column_count or twice as many); a thread makes a pack of eight columns.
// Reads 4 bytes (8) and writes 2 per result: what the product's sums cost beside their own writing.
// zig/backend/cuda/ops_int8.zig keeps them in pieces of 32 MB, which the cache of large GPUs holds.
#include "int8.cuh"

namespace finish_int8 {

/// One call; the same struct in zig/backend/cuda/linear_int8.zig.
struct Problem {
    Int8Epilogue e;
    const int* sums;
};

__device__ static __forceinline__ void load_sums(const int* from, int (&sums)[pack_count]) {
    const int4 low = *reinterpret_cast<const int4*>(from);
    const int4 high = *reinterpret_cast<const int4*>(from + 4);
    memcpy(sums, &low, sizeof(low));
    memcpy(sums + 4, &high, sizeof(high));
}

/// Eight results from sums and column `column` on.
template <typename T>
__device__ static __forceinline__ void results(
    const Int8Epilogue& e, const int* from, unsigned row, unsigned column, float (&out)[pack_count]
) {
    int sums[pack_count];
    load_sums(from, sums);
    float scales[pack_count];
    load_whole_pack(e.column_scales + column, scales);
    float bias[pack_count] = {};
    if (e.bias) load_whole_pack(static_cast<const T*>(e.bias) + column, bias);
    const float row_scale = e.row_scales[row];
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) {
        out[i] = dequantize(sums[i], e.scale, row_scale, scales[i], bias[i]);
    }
}

template <typename T, bool is_gated>
__device__ static __forceinline__ void run(const Problem& p) {
    const Int8Epilogue& e = p.e;
    const unsigned row_packs = e.column_count / pack_count;
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = index / row_packs;
    if (row >= e.row_count) return;
    const unsigned column = index % row_packs * pack_count;
    const uint64_t stride = is_gated ? 2 * e.column_count : e.column_count;
    const int* const sums = p.sums + row * stride + column;
    const uint64_t place = uint64_t(row) * e.out_stride + column;
    float out[pack_count];
    results<T>(e, sums, row, column, out);
    if (is_gated) {
        float gate[pack_count];
        results<T>(e, sums + e.column_count, row, column + e.column_count, gate);
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) out[i] *= gelu(gate[i]);
    } else {
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) out[i] = activate_one(e.activation, out[i]);
        if (e.residual) add_pack(out, static_cast<const T*>(e.residual) + place, pack_count);
    }
    store_whole_pack(static_cast<T*>(e.out) + place, out);
}

}  // namespace finish_int8

KERNEL_PER_TYPE(
    finish_int8,
    (const __grid_constant__ finish_int8::Problem problem),
    finish_int8::run<T, false>(problem)
)

KERNEL_PER_TYPE(
    finish_int8_geglu,
    (const __grid_constant__ finish_int8::Problem problem),
    finish_int8::run<T, true>(problem)
)
