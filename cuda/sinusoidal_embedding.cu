// Sinusoids of each value, as diffusers' get_timestep_embedding with max_period 10000:
//   frequency_i = exp(-ln(10000) * i / (half - frequency_shift)),   angle = value * frequency_i
//   out = [sin | cos] of the angles, or [cos | sin] when flipped
// Roundings to f32 happen where diffusers' do (exponent, frequency, angle), since the sine of an
// angle of thousands magnifies them; exponential and sinusoids themselves are taken in f64: there
// are a few thousand at most.
// Layout: values (count) f32, out (count, 2 * half). One thread per angle. For 2 timesteps of 320
// channels or 12 sizes of 256 the launch is all it costs.
#include "elementwise.cuh"

namespace sinusoidal_embedding {

struct Sinusoids {
    double sine;
    double cosine;
};

/// By quarter turns and Taylor series, within 1e-13 for the angles of timesteps and sizes: the
/// library's own reduction of huge angles would need local memory.
__device__ __forceinline__ Sinusoids sinusoids(double angle) {
    constexpr double half_pi = 1.5707963267948966;
    const double quarter = rint(angle / half_pi);
    const double r = fma(-quarter, half_pi, angle);
    const double square = r * r;
    double sine = 1.0;
    double cosine = 1.0;
#pragma unroll
    for (int n = 16; n > 0; n -= 2) {
        sine = 1.0 - sine * square / double(n * (n + 1));
        cosine = 1.0 - cosine * square / double(n * (n - 1));
    }
    sine *= r;
    const unsigned turn = unsigned(int64_t(quarter)) & 3;
    if (turn == 1) return {cosine, -sine};
    if (turn == 2) return {-sine, -cosine};
    if (turn == 3) return {-cosine, sine};
    return {sine, cosine};
}

template <typename T>
__device__ __forceinline__ void run(
    T* out,
    const float* values,
    unsigned count,
    unsigned half,
    unsigned flip_sin_to_cos,
    float divisor
) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count * half) return;
    const unsigned row = index / half;
    const unsigned i = index % half;
    constexpr float rate = -9.210340371976184f;
    const float exponent = __fmul_rn(rate, float(i)) / divisor;
    const float frequency = float(exp(double(exponent)));
    const Sinusoids s = sinusoids(double(__fmul_rn(values[row], frequency)));
    T* target = out + uint64_t(row) * 2 * half + i;
    target[0] = from_float<T>(float(flip_sin_to_cos ? s.cosine : s.sine));
    target[half] = from_float<T>(float(flip_sin_to_cos ? s.sine : s.cosine));
}

}  // namespace sinusoidal_embedding

KERNEL_PER_TYPE(
    sinusoidal_embedding,
    (
        T* out, const float* values, unsigned count, unsigned half, unsigned flip_sin_to_cos,
        float divisor
    ),
    sinusoidal_embedding::run(out, values, count, half, flip_sin_to_cos, divisor)
)
