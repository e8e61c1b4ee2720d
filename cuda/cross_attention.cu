// Cross-attention in one kernel with the product that makes its queries, on Hopper's tensor cores:
//   out = softmax((x w^T) k^T / sqrt(64)) v   per head of 64 channels
// Layout: x (batch, queries, depth), w (channels, depth) as checkpoints keep it, keys_values
// (batch, keys, 2 * channels), keys before values, out (batch, queries, channels); depth a multiple
// of 8, addresses of 16 bytes.
// A block multiplies 128 rows of x by the rows of w of three heads (wgmma_product.cuh). Its queries
// never leave the registers: rounded to 16 bits, as a product of its own would write them, they are
// the left side of attention's first product (attention.cuh). Keys and values follow x and w
// through the same stages, a head's tile of 80 in one turn: a prompt has 77 tokens, or as many
// times 77.
// SDXL at 1024x1024 with guidance, 2048 x 1280 to 20 heads: 112 blocks are one wave on 132
// multiprocessors, 6.7 + 0.8 GFLOP, 10 us at 790 TFLOP/s; the queries would be written and read
// again, 10 MB or 2.5 us at 4.3 TB/s, and one launch more waited for.
#include "attention.cuh"
#include "wgmma_product.cuh"

namespace cross_attention {

constexpr int head = 64;
constexpr int tile_heads = 3;
constexpr int tile_columns = tile_heads * head;
constexpr int tile_keys = 80;
constexpr int stage_elements =
    (wgmma_product::rows + tile_columns) * wgmma_product::depth;
// Behind a stage's keys and values there is room for results.
constexpr int result_place = 2 * tile_keys * head;
static_assert(result_place + wgmma_product::rows * head <= stage_elements, "within a stage");

// One call; the same struct in zig/backend/cuda/cross_attention.zig.
struct Problem {
    unsigned short* out;
    const unsigned short* x;
    const unsigned short* w;
    const unsigned short* keys_values;
    unsigned query_count;
    unsigned key_count;
    unsigned head_count;
    unsigned depth;
    float scale;
    unsigned unused;
};

static_assert(sizeof(Problem) == 56, "must match Problem in cross_attention.zig");

// What this block works on: rows of one image, up to three heads.
struct Place {
    unsigned batch;
    unsigned query_first;
    unsigned head_first;
    unsigned key_tiles;
    unsigned product_turns;
};

__device__ static __forceinline__ void load_product(
    const Problem& p, const Place& at, unsigned turn, unsigned short* stage
) {
    using namespace wgmma_product;
    const unsigned long long row = (unsigned long long)at.batch * p.query_count + at.query_first;
    const unsigned column = at.head_first * head;
    product::load_tile<rows, depth, thread_count>(
        stage, p.x + row * p.depth, p.depth, p.query_count - at.query_first, turn * depth, p.depth
    );
    product::load_tile<tile_columns, depth, thread_count>(
        stage + rows * depth, p.w + (unsigned long long)column * p.depth, p.depth,
        p.head_count * head - column, turn * depth, p.depth
    );
}

// One warpgroup brings keys, the other values.
__device__ static __forceinline__ void load_keys(
    const Problem& p, const Place& at, unsigned turn, unsigned short* stage
) {
    const unsigned head_index = at.head_first + turn / at.key_tiles;
    const unsigned key_first = turn % at.key_tiles * tile_keys;
    if (turn / at.key_tiles >= tile_heads || head_index >= p.head_count) return;
    const unsigned channels = p.head_count * head;
    const unsigned half = threadIdx.x / attention::thread_count;
    const unsigned long long row = (unsigned long long)at.batch * p.key_count + key_first;
    attention::load_rows<head, tile_keys, true>(
        stage + half * tile_keys * head,
        p.keys_values + row * 2 * channels + half * channels + head_index * head, 2 * channels,
        p.key_count - key_first, head
    );
}

// The keys' turns come behind those of the product.
__device__ static __forceinline__ void load_turn(
    const Problem& p, const Place& at, unsigned turn, unsigned short* stage
) {
    if (turn < at.product_turns) {
        load_product(p, at, turn, stage);
    } else {
        load_keys(p, at, turn - at.product_turns, stage);
    }
    cp_async_commit();
}

// One head of the block's rows; `turn` is that of its first tile of keys.
template <typename T>
__device__ static __forceinline__ void attend(
    const Problem& p,
    const Place& at,
    const float (*queries)[4],
    unsigned turn,
    unsigned head_index,
    unsigned short* stages
) {
    using namespace wgmma_product;
    unsigned q[1][head / 16][4];
#pragma unroll
    for (int k = 0; k < head / 16; k++) attention::as_left<T>(q[0][k], queries + 2 * k);
    float out[1][head / 8][4];
    float references[1][2];
    float sums[1][2];
    attention::begin_rows(out, references, sums);
    for (unsigned tile = 0; tile < at.key_tiles; tile++, turn++) {
        wait_for_stage();
        load_turn(p, at, turn + ahead, stage_of(stages, stage_elements, turn + ahead));
        const unsigned short* const keys = stage_of(stages, stage_elements, turn);
        const unsigned key_count = p.key_count - tile * tile_keys;
        float scores[1][tile_keys / 8][4];
        attention::multiply_keys<T, head>(scores, q, keys);
        if (key_count < tile_keys) attention::mask_scores(scores, key_count, false, 0, 0);
        attention::weigh(scores, out, references, sums, p.scale);
        attention::multiply_values<T, head>(out, scores, keys + tile_keys * head);
    }
    attention::join_sums(sums);
    const unsigned channels = p.head_count * head;
    const unsigned long long row = (unsigned long long)at.batch * p.query_count + at.query_first;
    attention::write_rows<T, head, 1, true>(
        p.out + row * channels + head_index * head, channels, out, sums, stages + result_place,
        p.query_count - at.query_first, head
    );
    // Before the next head's results.
    __syncwarp();
}

// Grid (tiles of rows, tiles of heads, batch): blocks that run at once share rows of w, which come
// from memory, and x stays in the cache.
template <typename T>
__device__ static __forceinline__ void run(const Problem& p, unsigned short* memory) {
    using namespace wgmma_product;
    unsigned short* const stages = first_stage(memory);
    Place at;
    at.batch = blockIdx.z;
    at.query_first = blockIdx.x * rows;
    at.head_first = blockIdx.y * tile_heads;
    at.key_tiles = (p.key_count + tile_keys - 1) / tile_keys;
    at.product_turns = turns_of(p.depth);
    float queries[tile_columns / 8][4];
    multiply<T, tile_columns>(
        queries, stages, stage_elements, at.product_turns,
        [&](unsigned turn, unsigned short* stage) { load_turn(p, at, turn, stage); }
    );
    unsigned turn = at.product_turns;
#pragma unroll
    for (int h = 0; h < tile_heads; h++, turn += at.key_tiles) {
        const unsigned head_index = at.head_first + h;
        if (head_index >= p.head_count) break;
        attend<T>(p, at, queries + h * (head / 8), turn, head_index, stages);
    }
}

} // namespace cross_attention

WGMMA_KERNEL(
    cross_attention_wgmma_f16,
    cross_attention::Problem,
    cross_attention::run<TensorF16>(problem, memory)
)
WGMMA_KERNEL(
    cross_attention_wgmma_bf16,
    cross_attention::Problem,
    cross_attention::run<TensorBf16>(problem, memory)
)
