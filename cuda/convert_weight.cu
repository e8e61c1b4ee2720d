// A weight from its file's type and order to the activation type and the kernels' order:
//   out[o, tap, i] = x[o, i, tap], (out, in, height, width) to (out, height, width, in)
// A matrix or vector has one tap: then it is a conversion alone.
// Layout: x `rows` * channels * taps elements of f32, f16 or bf16 (DType in zig/tensor.zig). A
// thread makes one element; neighbouring threads write neighbours.
// Done once at load: SDXL's UNet is 5.1 GB in f16, read and written once 2.4 ms on an H200 at 4.3
// TB/s, less than its way over PCIe by far. Reads of 3x3 weights are strided by 18 bytes, which
// costs them some of that.
#include "elementwise.cuh"

namespace convert_weight {

/// DType in zig/tensor.zig.
enum : unsigned { type_f32 = 0, type_f16 = 1, type_bf16 = 2 };

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const void* x,
    unsigned type,
    unsigned channels,
    unsigned taps,
    uint64_t count
) {
    const uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= count) return;
    uint64_t at = index;
    if (taps > 1) {
        const unsigned per_row = channels * taps;
        const uint64_t row = index / per_row;
        const unsigned rest = unsigned(index % per_row);
        at = row * per_row + rest % channels * taps + rest / channels;
    }
    float value;
    if (type == type_f32) {
        value = static_cast<const float*>(x)[at];
    } else if (type == type_f16) {
        value = to_float(static_cast<const f16*>(x)[at]);
    } else {
        value = to_float(static_cast<const bf16*>(x)[at]);
    }
    out[index] = from_float<T>(value);
}

}  // namespace convert_weight

extern "C" __global__ void convert_weight_f16(
    f16* out,
    const void* x,
    unsigned type,
    unsigned channels,
    unsigned taps,
    uint64_t count
) {
    convert_weight::run(out, x, type, channels, taps, count);
}
EXPORT_KERNEL(convert_weight_f16)

extern "C" __global__ void convert_weight_bf16(
    bf16* out,
    const void* x,
    unsigned type,
    unsigned channels,
    unsigned taps,
    uint64_t count
) {
    convert_weight::run(out, x, type, channels, taps, count);
}
EXPORT_KERNEL(convert_weight_bf16)
