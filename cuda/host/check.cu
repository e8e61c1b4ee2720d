// Kernels that are wrong on purpose, and small right ones: the emulator's own tests run them
// (zig/emulator/tests/driver.zig). Not in the product's fatbin.
#include "../common.cuh"
#include "../mma.cuh"

/// x[i] = 2 x[i] + add: the result of several calls depends on their order.
extern "C" __global__ void check_step(float* x, float add, unsigned count) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) x[i] = 2.0f * x[i] + add;
}
EXPORT_KERNEL(check_step)

/// Each thread reads its neighbour's number from shared memory, with or without waiting for it.
extern "C" __global__ void check_neighbour(float* out, unsigned waits) {
    SHARED(float, numbers, 64);
    numbers[threadIdx.x] = (float)threadIdx.x;
    if (waits) __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = numbers[(threadIdx.x + 1) % blockDim.x];
}
EXPORT_KERNEL(check_neighbour)

/// Reads x[i + offset] and writes it to x[i], or the reverse.
extern "C" __global__ void check_bounds(float* x, long long offset, unsigned writes) {
    const long long i = blockIdx.x * blockDim.x + threadIdx.x;
    if (writes) {
        x[i + offset] = x[i];
    } else {
        x[i] = x[i + offset];
    }
}
EXPORT_KERNEL(check_bounds)

extern "C" __global__ void check_shared_bounds(float* out, unsigned at) {
    DYNAMIC_SHARED(float, numbers);
    numbers[at] = 1.0f;
    out[threadIdx.x] = numbers[threadIdx.x];
}
EXPORT_KERNEL(check_shared_bounds)

/// Threads from `first` on leave; 0: they wait at another barrier.
extern "C" __global__ void check_divergence(float* out, unsigned first, unsigned leaves) {
    if (threadIdx.x >= first) {
        if (leaves) return;
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1.0f;
}
EXPORT_KERNEL(check_divergence)

extern "C" __global__ void check_lanes(float* out, unsigned first) {
    float x = (float)threadIdx.x;
    if (threadIdx.x >= first) x += __shfl_xor_sync(0xffffffffu, x, 1);
    if (threadIdx.x < first) __syncthreads();
    out[threadIdx.x] = x;
}
EXPORT_KERNEL(check_lanes)

extern "C" __global__ void check_vector(uint4* out, const float* x, unsigned offset) {
    out[threadIdx.x] = *reinterpret_cast<const uint4*>(x + 4 * threadIdx.x + offset);
}
EXPORT_KERNEL(check_vector)

/// Sums and the greatest over a block, and shuffles of each kind.
extern "C" __global__ void check_reductions(const float* x, float* out) {
    const float mine = x[threadIdx.x];
    const double sum = block_sum((double)mine);
    const float most = block_max(mine);
    const float up = __shfl_up_sync(full_mask, mine, 1);
    const float down = __shfl_down_sync(full_mask, mine, 2, 16);
    const float first = __shfl_sync(full_mask, mine, 3, 8);
    const unsigned votes = __ballot_sync(full_mask, mine > 0.0f);
    float* row = out + 6 * threadIdx.x;
    row[0] = (float)sum;
    row[1] = most;
    row[2] = up;
    row[3] = down;
    row[4] = first;
    row[5] = (float)__popc(votes);
}
EXPORT_KERNEL(check_reductions)

__device__ __forceinline__ void multiply(float* d, const unsigned* a, const unsigned* b, f16) {
    mma_m16n8k16_f16(d, a, b);
}
__device__ __forceinline__ void multiply(float* d, const unsigned* a, const unsigned* b, bf16) {
    mma_m16n8k16_bf16(d, a, b);
}

/// d (16, 8) += a (16, 16) b^T, with b (8, 16), through shared memory and ldmatrix; where
/// `transposes`, b is (16, 8). Without `waits` it reads before the copies landed.
template <typename T>
__device__ __forceinline__ void check_product(
    const T* a, const T* b, float* d, unsigned transposes, unsigned waits
) {
    SHARED(T, a_tile, 16 * 16);
    SHARED(T, b_tile, 16 * 8);
    const unsigned lane = threadIdx.x;
    cp_async_16(a_tile + lane * 8, a + lane * 8, true);
    if (lane < 16) cp_async_16(b_tile + lane * 8, b + lane * 8, true);
    cp_async_commit();
    if (waits) cp_async_wait<0>();
    __syncthreads();
    unsigned a_part[4];
    unsigned b_part[2];
    ldmatrix_x4(a_part, a_tile + lane % 16 * 16 + lane / 16 * 8);
    if (transposes) {
        ldmatrix_x2_trans(b_part, b_tile + lane % 16 * 8);
    } else {
        ldmatrix_x2(b_part, b_tile + lane % 8 * 16 + lane / 8 % 2 * 8);
    }
    const unsigned g = lane / 4;
    const unsigned t = lane % 4;
    float* const rows[2] = {d + g * 8 + 2 * t, d + (g + 8) * 8 + 2 * t};
    float sums[4] = {rows[0][0], rows[0][1], rows[1][0], rows[1][1]};
    multiply(sums, a_part, b_part, T());
    for (int i = 0; i < 4; i++) rows[i / 2][i % 2] = sums[i];
}

extern "C" __global__ void check_product_f16(
    const f16* a, const f16* b, float* d, unsigned transposes, unsigned waits
) {
    check_product(a, b, d, transposes, waits);
}
EXPORT_KERNEL(check_product_f16)

extern "C" __global__ void check_product_bf16(
    const bf16* a, const bf16* b, float* d, unsigned transposes, unsigned waits
) {
    check_product(a, b, d, transposes, waits);
}
EXPORT_KERNEL(check_product_bf16)

/// Rounds f32 to both 16-bit types.
extern "C" __global__ void check_rounding(const float* x, f16* half, bf16* brain) {
    half[threadIdx.x] = from_float<f16>(x[threadIdx.x]);
    brain[threadIdx.x] = from_float<bf16>(x[threadIdx.x]);
}
EXPORT_KERNEL(check_rounding)

extern "C" __global__ void check_atomics(float* sum, unsigned* count) {
    atomicAdd(sum, 0.5f);
    atomicAdd(count, 1u);
}
EXPORT_KERNEL(check_atomics)
