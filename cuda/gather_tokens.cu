// One position of each batch element: out[b] = x[b, index_b], the text encoders' pooled token.
// Layout: x (batch, tokens, channels), out (batch, channels); types of 2 bytes, whose bits are
// moved as they are. blockIdx.y is the batch element. Indices lie in device memory, so that a
// captured graph serves every prompt; one out of range takes the last position.
// 1280 channels are 5 KB: the launch is all it costs.
#include "elementwise.cuh"

extern "C" __global__ void gather_tokens(
    uint16_t* out,
    const uint16_t* x,
    const unsigned* indices,
    unsigned tokens,
    unsigned channels
) {
    wait_for_earlier_kernels();
    const unsigned channel = (blockIdx.x * blockDim.x + threadIdx.x) * pack_count;
    if (channel >= channels) return;
    const uint64_t row = uint64_t(blockIdx.y) * tokens + min(indices[blockIdx.y], tokens - 1);
    copy_pack(
        out + uint64_t(blockIdx.y) * channels + channel,
        x + row * channels + channel,
        pack_size(channels - channel)
    );
}
EXPORT_KERNEL(gather_tokens)
