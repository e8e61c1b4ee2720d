// What follows the sums of an int8 product, for both ways to them (linear_int8.cu, and cuBLASLt's
// product with finish_int8.cu behind it): the same arithmetic, so that the bits are the same.
#pragma once

#include "elementwise.cuh"

/// out = activation(scale * row_scales[m] * column_scales[n] * sums[m, n] + bias[n]) + residual,
/// with the activation of elementwise.cuh; or, gated, the first half of the columns times the GELU
/// of the second: scales and bias then have 2 * column_count. Rows of the residual lie as those of
/// `out`. Addresses and strides are multiples of 16 bytes, and column_count of 8.
/// The same struct in zig/backend/cuda/linear_int8.zig.
struct Int8Epilogue {
    void* out;
    const float* row_scales;
    const float* column_scales;
    /// Null for none, as the residual.
    const void* bias;
    const void* residual;
    unsigned out_stride;
    unsigned row_count;
    unsigned column_count;
    unsigned activation;
    float scale;
    unsigned unused;
};

static_assert(sizeof(Int8Epilogue) == 64, "must match Epilogue in linear_int8.zig");

/// In the CPU's order, and never contracted.
__device__ __forceinline__ float dequantize(
    int sum, float scale, float row_scale, float column_scale, float bias
) {
    const float factor = __fmul_rn(row_scale, column_scale);
    return __fadd_rn(__fmul_rn(__fmul_rn(factor, __int2float_rn(sum)), scale), bias);
}
