// Rows of activations as int8 products read them: each group of a row is multiplied by the
// normalised Kronecker power of H = 1/2 [[1,1,1,-1],[1,1,-1,1],[1,-1,1,1],[-1,1,1,1]], and the row
// rounded by a scale of its own, its largest magnitude / 127. The integers are those of the CPU
// (zig/backend/cpu/kernels/int8_rotate.zig): the same additions in the same order.
// Layout: x, out (rows, depth), scales (rows); depth a multiple of the group (256, 64, 16; 1 for
// none) and of 16, addresses multiples of 16. A thread has 16 neighbours: two passes of four are in
// its registers, the two of larger groups behind a transposition in shared memory. A row is
// whole warps of one block.
// Reads 2 bytes and writes 1 per element, 16 at a time: 64x64x640 twice (guidance) is 16 MB, 4 us
// on an H200 at 4.3 TB/s.
#include "common.cuh"

namespace quantize_rows {

constexpr unsigned thread_count_max = 512;
/// Of a thread.
constexpr unsigned count = 16;
/// Floats between the neighbours of two threads: 8 threads that write 16 bytes each, and 16 that
/// read 4 bytes each, meet all banks once.
constexpr unsigned line = 20;
/// Of 16 threads, whose elements are a group of 256; a second one begins half way round the banks.
constexpr unsigned square = 16 * line + 16;

/// Of four numbers `step` apart, each becomes half their sum less the one opposite.
template <unsigned step>
__device__ static __forceinline__ void pass(float (&a)[count]) {
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        if (i / step % 4 != 0) continue;
        const float last = a[i + 3 * step];
        const float half = 0.5f * ((a[i] + a[i + step]) + (a[i + 2 * step] + last));
        a[i + 3 * step] = half - a[i];
        const float second = a[i + step];
        a[i + step] = half - a[i + 2 * step];
        a[i + 2 * step] = half - second;
        a[i] = half - last;
    }
}

__device__ static __forceinline__ void put_line(float* to, const float (&a)[count]) {
#pragma unroll
    for (unsigned i = 0; i < count; i += 4) {
        Vector<float> four;
#pragma unroll
        for (unsigned j = 0; j < 4; j++) four.set(j, a[i + j]);
        store_vector(to + i, four);
    }
}

/// Largest magnitude of a row, as its bits: they have the order of their numbers, NaN above them.
/// Every thread of the block calls it.
__device__ static __forceinline__ unsigned largest_of_row(const float (&a)[count]) {
    SHARED(unsigned, partial, thread_count_max / warp_lanes);
    unsigned largest = 0;
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        largest = max(largest, __float_as_uint(a[i]) & 0x7fffffffu);
    }
    for (int step = warp_lanes / 2; step > 0; step /= 2) {
        largest = max(largest, __shfl_xor_sync(full_mask, largest, step));
    }
    const unsigned row_warps = blockDim.x / warp_lanes;
    const unsigned first = threadIdx.y * row_warps;
    if (threadIdx.x % warp_lanes == 0) partial[first + threadIdx.x / warp_lanes] = largest;
    __syncthreads();
    for (unsigned i = 0; i < row_warps; i++) largest = max(largest, partial[first + i]);
    return largest;
}

struct Scale {
    float scale;
    float inverse;
};

/// A number that is not finite makes the scale, and with it all results of the row, NaN.
__device__ static __forceinline__ Scale scale_of(unsigned largest) {
    const float amax = __uint_as_float(largest);
    if (largest >= 0x7f800000u) return {__uint_as_float(0x7fc00000u), 0.0f};
    if (amax < 0x1p-100f) return {0.0f, 0.0f};
    return {__fdiv_rn(amax, 127.0f), __fdiv_rn(127.0f, amax)};
}

/// To the nearest, ties to even; 0 of what is not finite.
__device__ static __forceinline__ int8_t rounded(float x, float inverse) {
    return inverse == 0.0f ? int8_t(0) : int8_t(__float2int_rn(__fmul_rn(x, inverse)));
}

/// Behind the passes of its registers, a thread's line in shared memory becomes a column (groups of
/// 256) or four columns of four lines (64), for the passes across lines.
__device__ static __forceinline__ void rotate_across(
    float (&a)[count], float* lines, unsigned index, unsigned group, bool is_there
) {
    if (is_there) put_line(lines + index * line, a);
    __syncthreads();
    if (!is_there) return;
    if (group == 256) {
#pragma unroll
        for (unsigned i = 0; i < count; i++) a[i] = lines[i * line + index];
        pass<1>(a);
        pass<4>(a);
        return;
    }
    const float* const first = lines + index / 4 * 4 * line + index % 4 * 4;
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const Vector<float> four = load_vector(first + i * line);
#pragma unroll
        for (unsigned j = 0; j < 4; j++) a[i * 4 + j] = four.get(j);
    }
    pass<4>(a);
}

/// Integers to where the thread whose line they are of finds 16.
__device__ static __forceinline__ void put_integers(
    int8_t* lines, const float (&a)[count], float inverse, unsigned index, unsigned group
) {
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        const int8_t integer = rounded(a[i], inverse);
        if (group == 256) {
            lines[i * count + index] = integer;
        } else if (group == 64) {
            lines[(index / 4 * 4 + i / 4) * count + index % 4 * 4 + i % 4] = integer;
        } else {
            lines[index * count + i] = integer;
        }
    }
}

template <typename T>
__device__ static __forceinline__ void run(
    int8_t* out, float* scales, const T* x, unsigned depth, unsigned group, unsigned rows,
    float* memory
) {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    const unsigned first = threadIdx.x * count;
    const bool is_there = row < rows && first < depth;
    const uint64_t place = uint64_t(row) * depth + first;
    float a[count] = {};
    if (is_there) {
#pragma unroll
        for (unsigned i = 0; i < count; i += vector_count<T>) {
            const Vector<T> vector = load_vector(x + place + i);
#pragma unroll
            for (unsigned j = 0; j < vector_count<T>; j++) a[i + j] = vector.get(j);
        }
        if (group > 1) {
            pass<1>(a);
            pass<4>(a);
        }
    }
    const unsigned squares = blockDim.x / 16;
    float* const lines = memory + (threadIdx.y * squares + threadIdx.x / 16) * square;
    const unsigned index = threadIdx.x % 16;
    if (group > 16) rotate_across(a, lines, index, group, is_there);
    // Behind its barrier every line has been read.
    const Scale found = scale_of(largest_of_row(a));
    int8_t* const integers = reinterpret_cast<int8_t*>(lines);
    if (is_there) put_integers(integers, a, found.inverse, index, group);
    __syncthreads();
    if (!is_there) return;
    *reinterpret_cast<uint4*>(out + place) =
        *reinterpret_cast<const uint4*>(integers + index * count);
    if (threadIdx.x == 0) scales[row] = found.scale;
}

}  // namespace quantize_rows

KERNEL_PER_TYPE_BOUNDED(
    quantize_rows,
    (quantize_rows::thread_count_max),
    (int8_t* out, float* scales, const T* x, unsigned depth, unsigned group, unsigned rows),
    DYNAMIC_SHARED(float, memory);
    quantize_rows::run(out, scales, x, depth, group, rows, memory)
)
