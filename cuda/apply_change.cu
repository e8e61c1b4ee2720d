// Adds a change of quantize_change.cu, which describes it, to a receiver's view (zig/backend.zig,
// applyChange): view += q * scale, in the same two roundings as the sender's.
// One warp per group of channels, two channels a lane. Reads three bytes (two and a half in 4 bits)
// and writes two per element: at 1024x1024 the views of three ranks are 2.9 GB a step, 0.6 ms on an
// H200.
#include "common.cuh"

namespace apply_change {

template <typename T>
__device__ __forceinline__ void run(
    T* view,
    const uint8_t* change,
    unsigned groups_per_row,
    unsigned group,
    unsigned bits,
    uint64_t group_count
) {
    const uint64_t index = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) / warp_lanes;
    const unsigned channel = 2 * (threadIdx.x % warp_lanes);
    if (index >= group_count || channel >= group) return;
    const uint64_t row = index / groups_per_row;
    const unsigned at = unsigned(index % groups_per_row);
    const unsigned row_elements = groups_per_row * group;
    const uint8_t* const in = change + row * (row_elements * bits / 8 + 2 * groups_per_row);
    const float scale = to_float(reinterpret_cast<const bf16*>(in + row_elements * bits / 8)[at]);
    const unsigned element = at * group + channel;
    int q[2];
    if (bits == 8) {
        q[0] = int8_t(in[element]);
        q[1] = int8_t(in[element + 1]);
    } else {
        const unsigned both = in[element / 2];
        q[0] = int(both & 15) - 16 * int(both >> 3 & 1);
        q[1] = int(both >> 4) - 16 * int(both >> 7);
    }
    const uint64_t first = index * group + channel;
    for (unsigned i = 0; i < 2; i++) {
        const float seen = to_float(view[first + i]);
        view[first + i] = from_float<T>(__fadd_rn(seen, __fmul_rn(float(q[i]), scale)));
    }
}

}  // namespace apply_change

KERNEL_PER_TYPE_BOUNDED(
    apply_change,
    (256),
    (
        T* view, const uint8_t* change, unsigned groups_per_row, unsigned group, unsigned bits,
        uint64_t group_count
    ),
    apply_change::run(view, change, groups_per_row, group, bits, group_count)
)
