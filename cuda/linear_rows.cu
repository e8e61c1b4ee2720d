// Several linear layers of the same few rows in one kernel, out_i[m, n] = x w_i^T + bias_i: the
// time embedding's product in every residual block of the UNet, a row for each image.
// Layout: x (rows, depth), w (columns, depth) as checkpoints keep it, bias (columns), out (rows,
// columns); depth a multiple of 8, addresses of x and w of 16 bytes. Sums in f32.
// A warp has one column: it reads 16 bytes of w at a time, for all rows at once.
// Bound by w: 17 layers of 1280 to 320, 640 or 1280 are 35 MB, 8 us at 4.3 TB/s.
#include "elementwise.cuh"

namespace linear_rows {

constexpr unsigned layer_count_max = 32;
constexpr unsigned rows_at_once = 4;

struct Layer {
    void* out;
    const void* w;
    const void* bias;
    unsigned long long column_count;
};

// One call; the same struct in zig/backend/cuda/linear_rows.zig.
struct Problem {
    Layer layers[layer_count_max];
    const void* x;
    unsigned row_count;
    unsigned depth;
};

static_assert(sizeof(Problem) == 1040, "must match Problem in linear_rows.zig");

// Grid (groups of a warp's columns, layers); a thread of every lane reaches each warp_sum.
template <typename T>
__device__ static __forceinline__ void run(const Problem& p) {
    const Layer& layer = p.layers[blockIdx.y];
    const unsigned lane = threadIdx.x % warp_lanes;
    const unsigned column = (blockIdx.x * blockDim.x + threadIdx.x) / warp_lanes;
    if (column >= layer.column_count) return;
    const T* const w = static_cast<const T*>(layer.w) + (uint64_t)column * p.depth;
    const T* const x = static_cast<const T*>(p.x);
    const float bias = to_float(static_cast<const T*>(layer.bias)[column]);
    for (unsigned first = 0; first < p.row_count; first += rows_at_once) {
        float sums[rows_at_once] = {};
        for (unsigned k = lane * pack_count; k < p.depth; k += warp_lanes * pack_count) {
            float a[pack_count];
            load_whole_pack(w + k, a);
#pragma unroll
            for (unsigned r = 0; r < rows_at_once; r++) {
                if (first + r >= p.row_count) continue;
                float b[pack_count];
                load_whole_pack(x + (uint64_t)(first + r) * p.depth + k, b);
#pragma unroll
                for (unsigned i = 0; i < pack_count; i++) sums[r] += a[i] * b[i];
            }
        }
#pragma unroll
        for (unsigned r = 0; r < rows_at_once; r++) {
            const float sum = warp_sum(sums[r]) + bias;
            const uint64_t to = (first + r) * layer.column_count + column;
            if (lane != 0 || first + r >= p.row_count) continue;
            static_cast<T*>(layer.out)[to] = from_float<T>(sum);
        }
    }
}

}  // namespace linear_rows

KERNEL_PER_TYPE(
    linear_rows,
    (const __grid_constant__ linear_rows::Problem problem),
    linear_rows::run<T>(problem)
)
