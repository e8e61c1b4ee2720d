// The statistics of a picture from those of its bands, as zig/backend/cpu/ops_norm.zig:
//   s = sum_p weight_p * part_p (+ local - corrected_from)      for mean and mean of squares
//   variance = s.square - s.mean^2; where correction turned it negative, the local one
//   out = (s.mean, s.mean^2 + variance_factor * variance)
// Layout: every tensor (batch, groups, 2) f64, `pair_count` = batch * groups; corrected_from may be
// null. One thread per pair: for 2x32 pairs of 8 parts 8 KB, nothing; the launch is all it costs.
#include "elementwise.cuh"

constexpr unsigned statistics_part_count_max = 16;

/// Must match StatisticsParts in zig/backend/cuda/ops_norm.zig. By value: a captured graph keeps
/// addresses and weights, which are the same in each of its runs.
struct StatisticsParts {
    const double* data[statistics_part_count_max];
    double weights[statistics_part_count_max];
};
static_assert(sizeof(StatisticsParts) == 256, "must match StatisticsParts in ops_norm.zig");

extern "C" __global__ void combine_statistics(
    double* out,
    const double* local,
    const double* corrected_from,
    StatisticsParts parts,
    unsigned part_count,
    double variance_factor,
    unsigned pair_count
) {
    const unsigned pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= pair_count) return;
    double mean = 0.0;
    double square = 0.0;
#pragma unroll
    for (unsigned p = 0; p < statistics_part_count_max; p++) {
        if (p >= part_count) continue;
        mean += parts.weights[p] * parts.data[p][pair * 2];
        square += parts.weights[p] * parts.data[p][pair * 2 + 1];
    }
    const double local_mean = local[pair * 2];
    const double local_square = local[pair * 2 + 1];
    if (corrected_from) {
        mean += local_mean - corrected_from[pair * 2];
        square += local_square - corrected_from[pair * 2 + 1];
    }
    double variance = square - mean * mean;
    if (variance < 0.0 && corrected_from) variance = local_square - local_mean * local_mean;
    out[pair * 2] = mean;
    out[pair * 2 + 1] = mean * mean + variance_factor * variance;
}
EXPORT_KERNEL(combine_statistics)
