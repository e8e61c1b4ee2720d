// What own matrix products share: tiles of 16-bit operands on their way to shared memory, and tiles
// of results on their way back. Rows are `depth` elements in units of 8 (16 bytes), swizzled so
// that 8 rows at one unit fall on 8 different 16-byte columns of the banks; with a depth of 64 that
// is the 128-byte swizzle of Hopper's wgmma, where tiles begin at multiples of 1024 bytes.
#pragma once

#include "common.cuh"
#include "mma.cuh"

namespace product {

template <int depth>
__device__ static __forceinline__ unsigned swizzled(unsigned row, unsigned unit) {
    static_assert(depth == 32 || depth == 64, "two rows or one to the width of the banks");
    const unsigned mask = depth == 64 ? row & 7 : (row >> 1) & 3;
    return row * depth + ((unit ^ mask) << 3);
}

// `rows` rows from `source` on, of which `row_count` are there, and `depth` columns from
// `column_first` on of `column_count`; zeros past the end of either.
template <int rows, int depth, int threads>
__device__ static __forceinline__ void load_tile(
    unsigned short* shared,
    const unsigned short* source,
    unsigned stride,
    unsigned row_count,
    unsigned column_first,
    unsigned column_count
) {
    constexpr unsigned units = depth / 8;
    constexpr unsigned step_rows = threads / units;
    static_assert(rows % step_rows == 0, "threads share the units evenly");
    const unsigned unit = threadIdx.x % units;
    const unsigned column = column_first + unit * 8;
#pragma unroll
    for (unsigned step = 0; step < rows / step_rows; step++) {
        const unsigned row = step * step_rows + threadIdx.x / units;
        const bool valid = row < row_count && column < column_count;
        const unsigned long long place = (unsigned long long)row * stride + column;
        cp_async_16(shared + swizzled<depth>(row, unit), source + (valid ? place : 0), valid);
    }
}

// Rows of a matrix from `first` on.
__device__ static __forceinline__ unsigned rows_left(unsigned count, unsigned first) {
    return count > first ? count - first : 0;
}

// Where a pair of results waits for `store_tile`: blocks of 64 columns, one behind the other.
template <int rows>
__device__ static __forceinline__ unsigned* pair_in_tile(
    unsigned short* shared, unsigned row, unsigned column
) {
    const unsigned place = column / 64 * (rows * 64) + swizzled<64>(row, column / 8 % 8);
    return reinterpret_cast<unsigned*>(shared + place + column % 8);
}

// A tile of results to global memory in 16-byte units.
template <int rows, int columns, int threads>
__device__ static __forceinline__ void store_tile(
    unsigned short* target,
    const unsigned short* shared,
    unsigned long long stride,
    unsigned row_count,
    unsigned column_count
) {
    constexpr unsigned units = columns / 8;
    for (unsigned i = threadIdx.x; i < rows * units; i += threads) {
        const unsigned row = i / units;
        const unsigned unit = i % units;
        if (row >= row_count || unit * 8 >= column_count) continue;
        const unsigned short* from =
            shared + unit / 8 * (rows * 64) + swizzled<64>(row, unit % 8);
        *reinterpret_cast<uint4*>(target + row * stride + unit * 8) =
            *reinterpret_cast<const uint4*>(from);
    }
}

} // namespace product
