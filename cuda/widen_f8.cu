// An 8-bit weight in the activation type, right before its product:
// out[i] = round(value(data[i]) * scales[i / row_length]).
// Layout: `source` says where the weight is now: its own bytes and a scale for each row, or, while
// adapters are merged into it, a copy in the activation type. Graphs hold `source`, not what it
// says. A thread makes a pack of elements. e4m3: bias 7, no infinity, one NaN; e5m2: half of f16.
// Reads 1 byte and writes 2 per element: SDXL's largest matrix, of 13 M elements, is 39 MB, 9 us on
// an H200 at 4.3 TB/s; the 2.6 G elements of the UNet are 7.7 GB, 1.8 ms of each call.
#include "elementwise.cuh"

/// Must match Source in zig/backend/cuda/ops_widen.zig.
struct WidenSource {
    const void* data;
    /// Null for a copy in the activation type.
    const float* scales;
    unsigned type;
    unsigned unused;
};

namespace widen_f8 {

enum : unsigned { type_e4m3, type_e5m2, type_wide };

/// The codes of both types are sign, exponent and fraction of f16 at other places.
__device__ __forceinline__ float value_of(unsigned type, unsigned code) {
    const unsigned sign = (code & 0x80) << 8;
    const unsigned magnitude = code & 0x7f;
    if (type == type_e5m2) return __half2float(__ushort_as_half(sign | magnitude << 8));
    const float value = 0x1p8f * __half2float(__ushort_as_half(sign | magnitude << 7));
    return magnitude == 0x7f ? __uint_as_float(0x7fc00000) : value;
}

/// Up to a pack of codes, from any address.
__device__ __forceinline__ void load_codes(
    const uint8_t* x,
    unsigned count,
    unsigned (&codes)[pack_count]
) {
    if (count >= pack_count && reinterpret_cast<uintptr_t>(x) % 8 == 0) {
        const uint2 bits = *reinterpret_cast<const uint2*>(x);
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            codes[i] = (i < 4 ? bits.x >> 8 * i : bits.y >> 8 * (i - 4)) & 0xff;
        }
        return;
    }
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) codes[i] = i < count ? x[i] : 0;
}

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const WidenSource* source,
    unsigned row_length,
    unsigned count
) {
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * pack_count;
    if (first >= count) return;
    const unsigned left = pack_size(count - first);
    const WidenSource from = *source;
    float a[pack_count];
    if (from.type == type_wide) {
        load_pack(static_cast<const T*>(from.data) + first, left, a);
        return store_pack(out + first, left, a);
    }
    unsigned codes[pack_count];
    load_codes(static_cast<const uint8_t*>(from.data) + first, left, codes);
    unsigned row = unsigned(first) / row_length;
    unsigned row_left = row_length - unsigned(first) % row_length;
    float scale = from.scales[row];
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) {
        if (row_left == 0 && i < left) {
            scale = from.scales[++row];
            row_left = row_length;
        }
        row_left--;
        a[i] = value_of(from.type, codes[i]) * scale;
    }
    store_pack(out + first, left, a);
}

}  // namespace widen_f8

KERNEL_PER_TYPE(
    widen_f8,
    (T* out, const WidenSource* source, unsigned row_length, unsigned count),
    widen_f8::run(out, source, row_length, count)
)
