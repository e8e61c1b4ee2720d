// Convolutions that tensor cores have no use for, since their channels in or out are no multiple of
// eight: the first and the last of UNet and VAE. Any kernel, stride, padding, halo rows and nearest
// enlargement; the epilogue in the same pass:
//   out[b, y, c, o] = activation(bias[o] + channel_bias[b, o] + product_scale *
//       sum over taps and i of weight[o, tap, i] * input[b, y', c', i]) + residual[b, y, c, o]
// Layout: x (batch, rows, width, channels), weight (out_channels, taps, channels), out (batch,
// out_rows, out_width, out_channels), halos (batch, 1, width, channels) or null, bias and
// channel_bias and residual or null.
// A thread computes `tile` output channels of one position: it reads packs of eight inputs, and the
// block's weights come from shared memory as f32, where all threads read the same word. Tiles of 4
// outputs for the last convolutions, of 32 for the first.
// UNet's first, 4 -> 320 at 128x128 twice (guidance), is 0.8 GFLOP and 22 MB; VAE's last, 128 -> 3
// at 1024x1024, 7.2 GFLOP and 275 MB, of which a quarter is wasted on a fourth output: 0.15 ms at
// the 60 TFLOP/s of an H200's f32 units, 0.06 ms at 4.3 TB/s.
#include "elementwise.cuh"

/// Must match DirectConvolution in zig/backend/cuda/ops_convolution.zig.
struct DirectConvolution {
    unsigned batch;
    unsigned rows;
    unsigned width;
    unsigned channels;
    unsigned out_rows;
    unsigned out_width;
    unsigned out_channels;
    unsigned kernel_rows;
    unsigned kernel_width;
    unsigned stride;
    unsigned top;
    unsigned left;
    unsigned scale;
    unsigned activation;
    float product_scale;
};
static_assert(sizeof(DirectConvolution) == 60, "must match DirectConvolution");

namespace conv_direct {

/// Weights in shared memory, 16 KB; also in zig/backend/cuda/ops_convolution.zig.
constexpr unsigned weight_count_max = 4096;
constexpr unsigned block_size = 128;

template <typename T>
struct Tensors {
    T* out;
    const T* x;
    const T* halo_above;
    const T* halo_below;
    const T* weight;
    const T* bias;
    const T* channel_bias;
    const T* residual;
};

/// The channels of one input position, null where there are only zeros.
template <typename T>
__device__ __forceinline__ const T* input_at(
    const Tensors<T>& t,
    const DirectConvolution& c,
    unsigned batch,
    int row,
    int column
) {
    const int width = c.width * c.scale;
    const int rows = c.rows * c.scale;
    if (column < 0 || column >= width) return nullptr;
    const uint64_t x_column = unsigned(column) / c.scale;
    const uint64_t halo_at = (uint64_t(batch) * c.width + x_column) * c.channels;
    if (row < 0) return t.halo_above ? t.halo_above + halo_at : nullptr;
    if (row >= rows) return t.halo_below ? t.halo_below + halo_at : nullptr;
    const uint64_t x_row = uint64_t(batch) * c.rows + unsigned(row) / c.scale;
    return t.x + (x_row * c.width + x_column) * c.channels;
}

/// Channels [first, first + count) of the block's outputs, as (taps, count, tile) in f32.
template <typename T, unsigned tile>
__device__ __forceinline__ void stage_weights(
    float* staged,
    const T* weight,
    const DirectConvolution& c,
    unsigned taps,
    unsigned first,
    unsigned count
) {
    for (unsigned i = threadIdx.x; i < taps * count * tile; i += block_size) {
        // Channels vary fastest, since they do in memory.
        const unsigned channel = i % count;
        const unsigned tap = i / count % taps;
        const unsigned o = i / count / taps;
        const unsigned out_channel = blockIdx.y * tile + o;
        const uint64_t at = (uint64_t(out_channel) * taps + tap) * c.channels + first + channel;
        staged[(tap * count + channel) * tile + o] =
            out_channel < c.out_channels ? to_float(weight[at]) : 0.0f;
    }
}

template <typename T, unsigned tile>
__device__ __forceinline__ void accumulate(
    float (&sum)[tile],
    const T* input,
    const float* staged,
    unsigned count
) {
    for (unsigned first = 0; first < count; first += pack_count) {
        float value[pack_count];
        const unsigned left = pack_size(count - first);
        load_pack(input + first, left, value);
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            if (i >= left) continue;
#pragma unroll
            for (unsigned o = 0; o < tile; o += 4) {
                const float4 w = *reinterpret_cast<const float4*>(staged + (first + i) * tile + o);
                sum[o] = fmaf(value[i], w.x, sum[o]);
                sum[o + 1] = fmaf(value[i], w.y, sum[o + 1]);
                sum[o + 2] = fmaf(value[i], w.z, sum[o + 2]);
                sum[o + 3] = fmaf(value[i], w.w, sum[o + 3]);
            }
        }
    }
}

/// The epilogue for up to eight neighbouring outputs.
template <typename T>
__device__ __forceinline__ void finish_pack(
    float (&y)[pack_count],
    const Tensors<T>& t,
    const DirectConvolution& c,
    unsigned batch,
    uint64_t position,
    unsigned channel
) {
    const unsigned left = pack_size(c.out_channels - channel);
    const uint64_t at = position * c.out_channels + channel;
    if (t.bias) add_pack(y, t.bias + channel, left);
    if (t.channel_bias) {
        add_pack(y, t.channel_bias + uint64_t(batch) * c.out_channels + channel, left);
    }
#pragma unroll
    for (unsigned i = 0; i < pack_count; i++) y[i] = activate_one(c.activation, y[i]);
    if (t.residual) add_pack(y, t.residual + at, left);
    store_pack(t.out + at, left, y);
}

template <typename T, unsigned tile>
__device__ __forceinline__ void run(const Tensors<T>& t, const DirectConvolution& c) {
    SHARED(float, staged, weight_count_max);
    const unsigned position = blockIdx.x * block_size + threadIdx.x;
    const unsigned out_positions = c.out_rows * c.out_width;
    const unsigned batch = position / out_positions;
    const unsigned out_row = position / c.out_width % c.out_rows;
    const unsigned out_column = position % c.out_width;
    const int row_first = int(out_row * c.stride) - int(c.top);
    const int column_first = int(out_column * c.stride) - int(c.left);
    const unsigned taps = c.kernel_rows * c.kernel_width;
    // Whole packs where there is more than one, so that loads stay aligned.
    unsigned chunk = min(c.channels, weight_count_max / (taps * tile));
    if (chunk < c.channels && chunk > pack_count) chunk = chunk / pack_count * pack_count;
    float sum[tile] = {};
    for (unsigned first = 0; first < c.channels; first += chunk) {
        const unsigned count = min(chunk, c.channels - first);
        __syncthreads();
        stage_weights<T, tile>(staged, t.weight, c, taps, first, count);
        __syncthreads();
        if (batch >= c.batch) continue;
        for (unsigned tap = 0; tap < taps; tap++) {
            const int row = row_first + int(tap / c.kernel_width);
            const int column = column_first + int(tap % c.kernel_width);
            const T* input = input_at(t, c, batch, row, column);
            if (!input) continue;
            accumulate<T, tile>(sum, input + first, staged + tap * count * tile, count);
        }
    }
    if (batch >= c.batch) return;
#pragma unroll
    for (unsigned first = 0; first < tile; first += pack_count) {
        const unsigned channel = blockIdx.y * tile + first;
        if (channel >= c.out_channels) continue;
        float y[pack_count];
#pragma unroll
        for (unsigned i = 0; i < pack_count; i++) {
            y[i] = first + i < tile ? sum[first + i] * c.product_scale : 0.0f;
        }
        finish_pack(y, t, c, batch, position, channel);
    }
}

}  // namespace conv_direct

#define CONV_DIRECT(name, T, tile)                                                       \
    extern "C" __global__ void __launch_bounds__(conv_direct::block_size) name(          \
        T* out,                                                                          \
        const T* x,                                                                      \
        const T* halo_above,                                                             \
        const T* halo_below,                                                             \
        const T* weight,                                                                 \
        const T* bias,                                                                   \
        const T* channel_bias,                                                           \
        const T* residual,                                                               \
        DirectConvolution c                                                              \
    ) {                                                                                  \
        wait_for_earlier_kernels();                                                      \
        const conv_direct::Tensors<T> t = {                                              \
            out, x, halo_above, halo_below, weight, bias, channel_bias, residual,        \
        };                                                                               \
        conv_direct::run<T, tile>(t, c);                                                 \
    }                                                                                    \
    EXPORT_KERNEL(name)

CONV_DIRECT(conv_direct_4_f16, f16, 4)
CONV_DIRECT(conv_direct_4_bf16, bf16, 4)
CONV_DIRECT(conv_direct_32_f16, f16, 32)
CONV_DIRECT(conv_direct_32_bf16, bf16, 32)
