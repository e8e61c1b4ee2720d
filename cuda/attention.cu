// Attention with online softmax on tensor cores (Dao 2023, FlashAttention-2), keys and values read
// in place from a list of chunks (one per rank, fresh or one step old), so nothing is concatenated:
//   out = softmax(q k^T / sqrt(head size)) v   per head, over the tokens of all chunks together
// Layout: q and out (batch, tokens, channels); each chunk (batch, its tokens, 2 * channels), keys
// before values; q, keys and values may lie in rows of 3 * channels. A block of 4 warps takes 64 or
// 128 rows of q of one head; tiles of 64 keys and values pass through two stages of shared memory.
// Scores live in base 2 (log2(e) / sqrt(head size)
// folded in), f32 throughout; weights are rounded to 16 bits for the second product alone.
// Shared memory is swizzled by 16-byte units so that ldmatrix has no bank conflicts.
// Few rows of q leave most of a GPU idle: then the tiles are dealt to `split_count` blocks, each
// writes its unnormalised sums with what they refer to, and attention_combine joins them.
// SDXL at 1024x1024, one branch: 4096 tokens, 10 heads of 64: 4 * 4096^2 * 640 = 43 GFLOP, 54 us at
// an H200's 790 TFLOP/s; 21 MB are read and written once, 5 us at 4.3 TB/s. 1024 tokens, 20 heads:
// 5.4 GFLOP, 7 us. One exp2 per 256 FLOP: at 16 per
// clock and multiprocessor no limit below 1000 TFLOP/s.
#include "attention.cuh"

namespace attention {

constexpr int chunk_count_max = 16;

// One call; the same struct in zig/backend/cuda/ops_attention.zig.
struct Problem {
    unsigned short* out;
    // Where split: unnormalised sums (split, batch, tokens, channels), and each row's reference
    // with its sum of weights, (split, batch, heads, tokens, 2).
    float* partial;
    float* statistics;
    const unsigned short* q;
    const unsigned short* chunks[chunk_count_max];
    unsigned token_counts[chunk_count_max];
    unsigned chunk_count;
    unsigned query_count;
    unsigned head_size;
    unsigned head_count;
    unsigned batch_count;
    unsigned causal;
    unsigned split_count;
    // Tiles of keys for each split; the last may have fewer.
    unsigned split_tiles;
    // Elements from one position to the next.
    unsigned q_stride;
    unsigned key_stride;
    float scale;
};

static_assert(sizeof(Problem) == 272, "must match Problem in ops_attention.zig");

// Walks the tiles of all chunks in order.
struct Cursor {
    unsigned chunk;
    unsigned first;

    __device__ __forceinline__ void skip(const Problem& p, unsigned tile_count) {
        for (; tile_count > 0; tile_count--) {
            first += tile_keys;
            if (first >= p.token_counts[chunk]) {
                chunk++;
                first = 0;
            }
        }
    }

    __device__ __forceinline__ unsigned count(const Problem& p) const {
        return min(p.token_counts[chunk] - first, (unsigned)tile_keys);
    }
};

// Keys to `shared`, values after them.
template <int head, bool aligned>
__device__ static __forceinline__ void load_tile(
    const Problem& p, Cursor cursor, unsigned batch, unsigned head_index, unsigned short* shared
) {
    const unsigned channels = p.head_size * p.head_count;
    const unsigned long long stride = p.key_stride;
    const unsigned long long row =
        (unsigned long long)batch * p.token_counts[cursor.chunk] + cursor.first;
    const unsigned short* keys =
        p.chunks[cursor.chunk] + row * stride + head_index * p.head_size;
    const unsigned count = cursor.count(p);
    load_rows<head, tile_keys, aligned>(shared, keys, stride, count, p.head_size);
    load_rows<head, tile_keys, aligned>(
        shared + tile_keys * head, keys + channels, stride, count, p.head_size
    );
    cp_async_commit();
}

// What this block works on.
struct Place {
    unsigned head;
    unsigned batch;
    unsigned split;
    unsigned query_first;
    unsigned query_count;
};

// Sums as they are, for attention_combine: 8 bytes per thread, whole sectors per quad.
template <int head, int row_tiles>
__device__ static __forceinline__ void write_partial(
    const Problem& p,
    const Place& at,
    const float (&out)[row_tiles][head / 8][4],
    const float (&references)[row_tiles][2],
    const float (&sums)[row_tiles][2]
) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned slice = at.split * p.batch_count + at.batch;
    const unsigned channels = p.head_size * p.head_count;
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const unsigned row =
                (threadIdx.x / 32 * row_tiles + m) * warp_rows + r * 8 + lane / 4;
            if (row >= at.query_count) continue;
            const unsigned token = at.query_first + row;
            float* target = p.partial +
                ((unsigned long long)slice * p.query_count + token) * channels +
                at.head * p.head_size;
#pragma unroll
            for (int n = 0; n < head / 8; n++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const unsigned column = n * 8 + lane % 4 * 2 + i;
                    if (column < p.head_size) target[column] = out[m][n][2 * r + i];
                }
            }
            if (lane % 4 != 0) continue;
            const unsigned long long place =
                ((unsigned long long)slice * p.head_count + at.head) * p.query_count + token;
            p.statistics[2 * place] = references[m][r];
            p.statistics[2 * place + 1] = sums[m][r];
        }
    }
}

template <typename T, int head, int row_tiles>
__device__ static __forceinline__ void load_queries(
    unsigned (&q)[row_tiles][head / 16][4], const unsigned short* shared
) {
    const int lane = threadIdx.x % 32;
    const int row_first = threadIdx.x / 32 * row_tiles * warp_rows + (lane & 15);
#pragma unroll
    for (int m = 0; m < row_tiles; m++) {
#pragma unroll
        for (int k = 0; k < head / 16; k++) {
            const int row = row_first + m * warp_rows;
            ldmatrix_x4(q[m][k], shared + swizzled<head>(row, k * 2 + (lane >> 4)));
        }
    }
}

// Grid (tiles of q, heads, batch * splits).
template <typename T, int head, int row_tiles, bool aligned>
__device__ static __forceinline__ void attend(const Problem& p, unsigned short* shared) {
    constexpr int query_rows = thread_count / 32 * row_tiles * warp_rows;
    constexpr int stage = 2 * tile_keys * head;
    unsigned short* stages = shared + query_rows * head;
    Place at;
    at.head = blockIdx.y;
    at.batch = blockIdx.z / p.split_count;
    at.split = blockIdx.z % p.split_count;
    at.query_first = blockIdx.x * query_rows;
    at.query_count = min(p.query_count - at.query_first, (unsigned)query_rows);
    // Other warps help to load and have nothing to compute: a whole warp each, so none diverges.
    const bool has_rows = threadIdx.x / 32 * row_tiles * warp_rows < at.query_count;

    unsigned tile_count = 0;
    for (unsigned i = 0; i < p.chunk_count; i++) {
        tile_count += (p.token_counts[i] + tile_keys - 1) / tile_keys;
    }
    if (p.causal) {
        tile_count = min(tile_count, (at.query_first + at.query_count - 1) / tile_keys + 1);
    }
    const unsigned tile_first = at.split * p.split_tiles;
    tile_count = min(tile_count, tile_first + p.split_tiles) - tile_first;

    load_rows<head, query_rows, aligned>(
        shared,
        p.q + ((unsigned long long)at.batch * p.query_count + at.query_first) * p.q_stride +
            at.head * p.head_size,
        p.q_stride, at.query_count, p.head_size
    );
    Cursor cursor = {0, 0};
    cursor.skip(p, tile_first);
    load_tile<head, aligned>(p, cursor, at.batch, at.head, stages);
    cp_async_wait<0>();
    __syncthreads();
    unsigned q[row_tiles][head / 16][4];
    load_queries<T, head, row_tiles>(q, shared);

    float out[row_tiles][head / 8][4];
    float references[row_tiles][2];
    float sums[row_tiles][2];
    begin_rows(out, references, sums);
    for (unsigned tile = 0; tile < tile_count; tile++) {
        const unsigned short* keys = stages + tile % 2 * stage;
        const unsigned key_count = cursor.count(p);
        const unsigned key_first = cursor.first;
        if (tile > 0) {
            cp_async_wait<0>();
            __syncthreads();
        }
        if (tile + 1 < tile_count) {
            cursor.skip(p, 1);
            load_tile<head, aligned>(
                p, cursor, at.batch, at.head, stages + (tile + 1) % 2 * stage
            );
        }
        if (!has_rows) continue;
        float scores[row_tiles][tile_keys / 8][4];
        multiply_keys<T, head, row_tiles>(scores, q, keys);
        const bool diagonal = p.causal && key_first + tile_keys > at.query_first;
        if (key_count < tile_keys || diagonal) {
            const unsigned row = at.query_first + threadIdx.x / 32 * row_tiles * warp_rows +
                threadIdx.x % 32 / 4;
            mask_scores(scores, key_count, p.causal, row, key_first);
        }
        weigh(scores, out, references, sums, p.scale);
        multiply_values<T, head, row_tiles>(out, scores, keys + tile_keys * head);
    }
    if (!has_rows) return;
    join_sums(sums);
    if (p.split_count > 1) {
        write_partial<head, row_tiles>(p, at, out, references, sums);
    } else {
        const unsigned channels = p.head_size * p.head_count;
        unsigned short* target = p.out +
            ((unsigned long long)at.batch * p.query_count + at.query_first) * channels +
            at.head * p.head_size;
        write_rows<T, head, row_tiles, aligned>(
            target, channels, out, sums, shared, at.query_count, p.head_size
        );
    }
}

// Joins the splits of one call: 8 elements per thread, grid over (batch, tokens, channels) / 8. It
// reads 4 bytes per split and writes 2 for each element.
template <typename T>
__device__ static __forceinline__ void combine(const Problem& p) {
    const unsigned channels = p.head_size * p.head_count;
    const unsigned long long count =
        (unsigned long long)p.batch_count * p.query_count * channels;
    const unsigned long long first =
        ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (first >= count) return;
    const unsigned long long row = first / channels;
    const unsigned head = first % channels / p.head_size;
    const unsigned long long slice = (unsigned long long)p.head_count * p.query_count;
    const float* statistics = p.statistics +
        2 * (row / p.query_count * slice + (unsigned long long)head * p.query_count +
             row % p.query_count);
    const unsigned long long step = 2 * p.batch_count * slice;
    float largest = -INFINITY;
    for (unsigned s = 0; s < p.split_count; s++) largest = fmaxf(largest, statistics[s * step]);
    float sum = 0.0f;
    float out[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned s = 0; s < p.split_count; s++) {
        const float weight = exp2_fast(statistics[s * step] - largest);
        sum += weight * statistics[s * step + 1];
        const float4* part = reinterpret_cast<const float4*>(p.partial + s * count + first);
        const float4 a = part[0];
        const float4 b = part[1];
        out[0] += weight * a.x;
        out[1] += weight * a.y;
        out[2] += weight * a.z;
        out[3] += weight * a.w;
        out[4] += weight * b.x;
        out[5] += weight * b.y;
        out[6] += weight * b.z;
        out[7] += weight * b.w;
    }
    const float factor = 1.0f / sum;
    *reinterpret_cast<uint4*>(p.out + first) = make_uint4(
        T::pack(out[0] * factor, out[1] * factor), T::pack(out[2] * factor, out[3] * factor),
        T::pack(out[4] * factor, out[5] * factor), T::pack(out[6] * factor, out[7] * factor)
    );
}

} // namespace attention

#define ATTENTION_KERNEL(name, type, head, row_tiles, aligned)                                     \
    extern "C" __global__ void __launch_bounds__(attention::thread_count, 2)                       \
        name(const __grid_constant__ attention::Problem problem) {                                 \
        wait_for_earlier_kernels();                                                                \
        DYNAMIC_SHARED(unsigned short, shared);                                                    \
        attention::attend<type, head, row_tiles, aligned>(problem, shared);             \
    }                                                                                              \
    EXPORT_KERNEL(name)

// By head size (rounded up) and rows of q per block.
ATTENTION_KERNEL(attention_32_64_f16, attention::F16, 32, 1, true)
ATTENTION_KERNEL(attention_32_64_bf16, attention::Bf16, 32, 1, true)
ATTENTION_KERNEL(attention_64_64_f16, attention::F16, 64, 1, true)
ATTENTION_KERNEL(attention_64_64_bf16, attention::Bf16, 64, 1, true)
ATTENTION_KERNEL(attention_64_128_f16, attention::F16, 64, 2, true)
ATTENTION_KERNEL(attention_64_128_bf16, attention::Bf16, 64, 2, true)
ATTENTION_KERNEL(attention_96_64_f16, attention::F16, 96, 1, true)
ATTENTION_KERNEL(attention_96_64_bf16, attention::Bf16, 96, 1, true)
ATTENTION_KERNEL(attention_128_64_f16, attention::F16, 128, 1, true)
ATTENTION_KERNEL(attention_128_64_bf16, attention::Bf16, 128, 1, true)
// Any head size up to 128, read by elements: for sizes that are no multiple of 8.
ATTENTION_KERNEL(attention_elements_f16, attention::F16, 128, 1, false)
ATTENTION_KERNEL(attention_elements_bf16, attention::Bf16, 128, 1, false)

#define ATTENTION_COMBINE(name, type)                                                              \
    extern "C" __global__ void __launch_bounds__(attention::thread_count)                          \
        name(const __grid_constant__ attention::Problem problem) {                                 \
        wait_for_earlier_kernels();                                                     \
        attention::combine<type>(problem);                                              \
    }                                                                                              \
    EXPORT_KERNEL(name)

ATTENTION_COMBINE(attention_combine_f16, attention::F16)
ATTENTION_COMBINE(attention_combine_bf16, attention::Bf16)
