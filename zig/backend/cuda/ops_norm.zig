//! Launchers of group norm and layer norm. How positions are cut into slabs depends on the shape of
//! one image alone: its sums have the same bits in every run, alone and in a batch.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const grids = @import("grids.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const Shape = @import("../../tensor.zig").Shape;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

/// A block of 512 threads, each with eight channels; SDXL's widest group norm has 2560.
pub const channel_count_max = 4096;
/// Positions that a thread sums in f32 (cuda/group_norm_stats.cu).
const positions_per_thread_max = 32;
/// Blocks of one image that keep a large GPU busy.
const slab_count_wanted = 256;
/// Slabs whose sums a warp adds up in a few turns.
const slab_count_max = 1024;
const warp_size = 32;
/// Channels of the longest row that `layer_norm` keeps in registers (cuda/layer_norm.cu).
const layer_norm_channel_count_max = 5 * warp_size * grids.pack_count;

const part_count_max = 16;

/// Must match StatisticsParts in cuda/combine_statistics.cu.
const StatisticsParts = extern struct {
    data: [part_count_max]usize = @splat(0),
    weights: [part_count_max]f64 = @splat(0),
};

/// How a block shares the positions of one image.
const Slabs = struct {
    /// Threads side by side cover the channels, `row_count` such rows take turns at positions.
    row_count: u32,
    block_size: u32,
    positions_per_slab: u32,
    count: u32,

    /// Slabs of at least `per_thread_min` positions per thread, `count_max` at most.
    fn init(shape: Shape, per_thread_min: u32, count_max: u32) Slabs {
        assert(shape.channels <= channel_count_max);
        const positions: u32 = @intCast(shape.positionCount());
        const columns: u32 = @intCast(grids.packs(shape.channels));
        const row_count = @max(1, grids.block_size / columns);
        const wanted = divCeil(positions, row_count * slab_count_wanted);
        const needed = divCeil(positions, row_count * count_max);
        const per_thread = @max(
            std.math.clamp(wanted, per_thread_min, positions_per_thread_max),
            needed,
        );
        const positions_per_slab = row_count * per_thread;
        return .{
            .row_count = row_count,
            .block_size = std.mem.alignForward(u32, columns * row_count, warp_size),
            .positions_per_slab = positions_per_slab,
            .count = divCeil(positions, positions_per_slab),
        };
    }
};

/// `addend` (batch, 1, 1, channels) is added to every position of `x` on the way.
pub fn groupNormStats(cuda: *Cuda, out: Tensor, x: Tensor, addend: ?Tensor) Error!void {
    assert(out.dtype == .f64);
    const group_count = out.shape.rows;
    const pair_bytes = 2 * @sizeOf(f64);
    // By the room for one image, whatever the batch; batches that do not fit take turns.
    const room: u32 = @intCast(cudas.reduction_workspace_bytes / (group_count * pair_bytes));
    const slabs: Slabs = .init(x.shape, 4, @min(slab_count_max, room));
    const batch_max = @min(room / slabs.count, cudas.arrived_count);
    if (x.shape.batch > batch_max) {
        const rest = x.shape.batch - batch_max;
        for ([_]u32{ 0, batch_max }, [_]u32{ batch_max, rest }) |first, count| {
            const part = if (addend) |whole| whole.batchSlice(first, count) else null;
            const stats = out.batchSlice(first, count);
            try groupNormStats(cuda, stats, x.batchSlice(first, count), part);
        }
        return;
    }
    const positions: u32 = @intCast(x.shape.positionCount());
    const columns: u32 = @intCast(grids.packs(x.shape.channels));
    const shared_bytes = 2 * slabs.row_count * columns * grids.pack_count * @sizeOf(f32);
    const grid: cudas.Dim3 = .{ .x = slabs.count, .y = x.shape.batch };
    const group_channels = x.shape.channels / group_count;
    const element_count: f64 = @floatFromInt(@as(u64, positions) * group_channels);
    const block: cudas.Dim3 = .{ .x = slabs.block_size };
    return cuda.launch("group_norm_stats", .typed, grid, block, shared_bytes, .{
        out.address,
        cuda.reduction_workspace,
        cuda.arrived(),
        x.address,
        grids.addressOrNull(addend),
        positions,
        slabs.positions_per_slab,
        x.shape.channels,
        group_count,
        slabs.row_count,
        element_count,
    });
}

pub fn combineStatistics(cuda: *Cuda, out: Tensor, o: backend.CombineStatistics) Error!void {
    assert(o.parts.len <= part_count_max);
    var parts: StatisticsParts = .{};
    for (o.parts, o.weights, 0..) |part, weight, i| {
        parts.data[i] = part.address;
        parts.weights[i] = weight;
    }
    const n: f64 = @floatFromInt(o.bessel_count);
    const variance_factor: f64 = if (o.bessel_count > 1) n / (n - 1) else 1;
    const pair_count: u32 = out.shape.batch * out.shape.rows;
    return cuda.launch("combine_statistics", .untyped, grids.blocks(pair_count), grids.block, 0, .{
        out.address,
        o.local.address,
        grids.addressOrNull(o.corrected_from),
        parts,
        @as(u32, @intCast(o.parts.len)),
        o.variance_floor,
        variance_factor,
        pair_count,
    });
}

pub fn groupNormApply(
    cuda: *Cuda,
    out: Tensor,
    x: Tensor,
    addend: ?Tensor,
    stats: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    epsilon: f32,
    activation: backend.Activation,
) Error!void {
    const group_count = stats.shape.rows;
    // Eight positions pay for a thread's scales and shifts.
    const slabs: Slabs = .init(x.shape, 8, std.math.maxInt(u16));
    const shared_bytes = 2 * group_count * @sizeOf(f32);
    const grid: cudas.Dim3 = .{ .x = slabs.count, .y = x.shape.batch };
    const block: cudas.Dim3 = .{ .x = slabs.block_size };
    return cuda.launch("group_norm_apply", .typed, grid, block, shared_bytes, .{
        out.address,
        x.address,
        grids.addressOrNull(addend),
        stats.address,
        cuda.addressOf(weight),
        cuda.addressOf(bias),
        epsilon,
        @intFromEnum(activation),
        @as(u32, @intCast(x.shape.positionCount())),
        slabs.positions_per_slab,
        x.shape.channels,
        group_count,
        slabs.row_count,
    });
}

pub fn layerNorm(
    cuda: *Cuda,
    out: Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    epsilon: f32,
) Error!void {
    const rows: u32 = @intCast(x.shape.rowCount());
    const grid = grids.blocks(@as(u64, rows) * warp_size);
    const args = .{
        out.address,          x.address, cuda.addressOf(weight),
        cuda.addressOf(bias), epsilon,   x.shape.channels,
        rows,
    };
    if (x.shape.channels <= layer_norm_channel_count_max) {
        return cuda.launch("layer_norm", .typed, grid, grids.block, 0, args);
    }
    return cuda.launch("layer_norm_wide", .typed, grid, grids.block, 0, args);
}

// --- internal ---

fn divCeil(total: u32, part: u32) u32 {
    return std.math.divCeil(u32, total, part) catch unreachable;
}

test "slabs cover an image, fit a block and do not ask for the batch" {
    var random: std.Random.DefaultPrng = .init(1);
    for (0..500) |_| {
        const shape: Shape = .{
            .batch = 1,
            .rows = random.random().intRangeAtMost(u32, 1, 700),
            .width = random.random().intRangeAtMost(u32, 1, 700),
            .channels = random.random().intRangeAtMost(u32, 1, channel_count_max),
        };
        const slabs: Slabs = .init(shape, 4, slab_count_max);
        const positions = shape.positionCount();
        const covered = @as(u64, slabs.count) * slabs.positions_per_slab;
        try std.testing.expect(covered >= positions);
        try std.testing.expect(covered - slabs.positions_per_slab < positions);
        try std.testing.expect(slabs.count <= slab_count_max);
        try std.testing.expect(slabs.block_size <= 512);
        const columns = grids.packs(shape.channels);
        try std.testing.expect(slabs.block_size >= columns * slabs.row_count);
    }
}
