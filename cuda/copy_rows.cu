// Rows of every image of a batch to rows of another tensor: halo rows, a rank's patch, the patches
// put together again. Layout: `batch` (blockIdx.y) runs of `run_bytes` bytes, one every
// `out_stride` bytes of out and every `x_stride` bytes of x; any type.
// Reads and writes every byte once: a halo row of 128x320 is 82 KB, under 1 us; the launch costs
// more. Whole patches of a latent are no larger.
#include "elementwise.cuh"

extern "C" __global__ void copy_rows(
    uint8_t* out,
    const uint8_t* x,
    uint64_t run_bytes,
    uint64_t out_stride,
    uint64_t x_stride
) {
    wait_for_earlier_kernels();
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 16;
    if (first >= run_bytes) return;
    const uint64_t left = run_bytes - first;
    copy_pack(
        out + blockIdx.y * out_stride + first,
        x + blockIdx.y * x_stride + first,
        left < 16 ? unsigned(left) : 16
    );
}
EXPORT_KERNEL(copy_rows)
