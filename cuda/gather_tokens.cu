// One position of each batch element: out[b] = x[b, index_b], the text encoders' pooled token.
// Layout: x (batch, tokens, channels), out (batch, channels); types of 2 bytes, whose bits are
// moved as they are. blockIdx.y is the batch element. Indices lie in device memory where
// `index_pointer` is not null (a captured graph serves every prompt), else in `indices`. An index
// out of range takes the last position.
// 1280 channels are 5 KB: the launch is all it costs.
#include "elementwise.cuh"

constexpr unsigned gather_count_max = 16;

/// Must match GatherIndices in zig/backend/cuda/ops_embedding.zig.
struct GatherIndices {
    unsigned index[gather_count_max];
};

extern "C" __global__ void gather_tokens(
    uint16_t* out,
    const uint16_t* x,
    const unsigned* index_pointer,
    GatherIndices indices,
    unsigned tokens,
    unsigned channels
) {
    const unsigned channel = (blockIdx.x * blockDim.x + threadIdx.x) * pack_count;
    if (channel >= channels) return;
    unsigned index = 0;
    if (index_pointer) {
        index = index_pointer[blockIdx.y];
    } else {
        // Constant indices only, as in concat_channels.
#pragma unroll
        for (unsigned b = 0; b < gather_count_max; b++) {
            if (b == blockIdx.y) index = indices.index[b];
        }
    }
    const uint64_t row = uint64_t(blockIdx.y) * tokens + min(index, tokens - 1);
    copy_pack(
        out + uint64_t(blockIdx.y) * channels + channel,
        x + row * channels + channel,
        pack_size(channels - channel)
    );
}
EXPORT_KERNEL(gather_tokens)
