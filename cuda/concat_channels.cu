// Joins tensors of equal positions along the channels: out[r, first_p + c] = part_p[r, c].
// Layout: part p (rows, channels of p), out (rows, channels); a row is one position of one image.
// One block row (blockIdx.y) per part, so that one launch joins all of them. Types of 2 bytes; the
// bits are moved as they are.
// Reads and writes every element once, 4 bytes: 128x128x960 twice (guidance) is 126 MB, 29 us on an
// H200 at 4.3 TB/s.
#include "elementwise.cuh"

constexpr unsigned concat_part_count_max = 16;

/// Must match ConcatParts in zig/backend/cuda/ops_elementwise.zig.
struct ConcatParts {
    const uint16_t* data[concat_part_count_max];
    unsigned channels[concat_part_count_max];
};
static_assert(sizeof(ConcatParts) == 192, "must match ConcatParts in ops_elementwise.zig");

extern "C" __global__ void concat_channels(
    uint16_t* out,
    ConcatParts parts,
    unsigned channels,
    unsigned rows
) {
    wait_for_earlier_kernels();
    // Constant indices only: an array of parameters that is indexed by a variable is copied to
    // local memory.
    const uint16_t* data = nullptr;
    unsigned part_channels = 0;
    unsigned channel_first = 0;
#pragma unroll
    for (unsigned p = 0; p < concat_part_count_max; p++) {
        if (p < blockIdx.y) channel_first += parts.channels[p];
        if (p != blockIdx.y) continue;
        data = parts.data[p];
        part_channels = parts.channels[p];
    }
    const unsigned row_packs = (part_channels + pack_count - 1) / pack_count;
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = index / row_packs;
    if (row >= rows) return;
    const unsigned channel = index % row_packs * pack_count;
    copy_pack(
        out + uint64_t(row) * channels + channel_first + channel,
        data + uint64_t(row) * part_channels + channel,
        pack_size(part_channels - channel)
    );
}
EXPORT_KERNEL(concat_channels)
