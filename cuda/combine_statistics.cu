// The statistics of an image from those of its patches, as zig/backend/cpu/ops_norm.zig:
//   s = sum_p weight_p * part_p (+ local - corrected_from)      for mean and mean of squares
//   variance = s.square - s.mean^2, where corrected at least variance_floor times the mean variance
//   within the patches (the local one for corrected_from); with a floor of 0: negative, the local
// one
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
    double variance_floor,
    double variance_factor,
    unsigned pair_count
) {
    wait_for_earlier_kernels();
    const unsigned pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= pair_count) return;
    const double local_mean = local[pair * 2];
    const double local_square = local[pair * 2 + 1];
    const double own = local_square - local_mean * local_mean;
    double mean = 0.0;
    double square = 0.0;
    double within = 0.0;
#pragma unroll
    for (unsigned p = 0; p < statistics_part_count_max; p++) {
        if (p >= part_count) continue;
        const double part_mean = parts.data[p][pair * 2];
        const double part_square = parts.data[p][pair * 2 + 1];
        const bool is_own = parts.data[p] == corrected_from;
        mean += parts.weights[p] * part_mean;
        square += parts.weights[p] * part_square;
        within += parts.weights[p] * (is_own ? own : part_square - part_mean * part_mean);
    }
    if (corrected_from) {
        mean += local_mean - corrected_from[pair * 2];
        square += local_square - corrected_from[pair * 2 + 1];
    }
    double variance = square - mean * mean;
    if (corrected_from) {
        if (variance_floor > 0.0) {
            variance = fmax(variance, variance_floor * within);
        } else if (variance < 0.0) {
            variance = own;
        }
    }
    out[pair * 2] = mean;
    out[pair * 2 + 1] = mean * mean + variance_factor * variance;
}
EXPORT_KERNEL(combine_statistics)
