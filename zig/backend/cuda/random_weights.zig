//! Random weights generated on the GPU, for benches: normal numbers whose products keep the
//! magnitude of their input, norms of 1, biases of 0. Their images mean nothing, their times do.
//! Not zeros: a GPU computes with zeros faster.

const std = @import("std");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const device_weights = @import("weights.zig");
const Gpu = @import("gpu.zig").Gpu;
const linear_int8 = @import("linear_int8.zig");
const ops_elementwise = @import("ops_elementwise.zig");
const ops_sampler = @import("ops_sampler.zig");
const PhiloxGenerator = @import("../../random/philox.zig").PhiloxGenerator;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

pub const Error = cudas.Error;

const seed = 20261125;
/// Numbers that are sampled; longer weights repeat them.
const pool_count_max = 1 << 24;
/// Below 1, so that sums over residuals stay within f16.
const gain = 0.7;

/// Fills every weight at the offset that `device_weights.place` assigned. `filled_bytes` counts up.
pub fn fill(
    cuda: *Cuda,
    gpu: *const Gpu,
    weights: []const *Weight,
    filled_bytes: *std.atomic.Value(u64),
) Error!void {
    const pool: Pool = try .init(cuda, gpu, device_weights.largestCount(weights));
    defer pool.deinit(gpu);
    const rounded = try gpu.allocate(@max(1, roundedCount(weights)) * cuda.activation.size());
    defer _ = gpu.driver.cuMemFree_v2(rounded);
    for (weights) |weight| {
        const address = gpu.weights + weight.device_offset;
        if (weight.dtype == .i8) {
            const rows, const depth = .{ weight.shape[0], weight.shape[1] };
            const scales = gpu.weights + weight.int8_scales_offset;
            const group = weight.int8_group;
            try fillOne(cuda, rounded, weight, pool);
            try linear_int8.quantizeRows(cuda, address, scales, rounded, rows, depth, group);
        } else try fillOne(cuda, address, weight, pool);
        const bytes = device_weights.deviceBytes(weight, cuda.activation);
        _ = filled_bytes.fetchAdd(bytes, .monotonic);
    }
    try cuda.synchronize();
}

/// Elements of the largest int8 weight, which is made of numbers elsewhere.
fn roundedCount(weights: []const *Weight) usize {
    var largest: usize = 0;
    for (weights) |weight| {
        if (weight.dtype == .i8) largest = @max(largest, weight.elementCount());
    }
    return largest;
}

/// Normal numbers on the GPU, for use by many weights.
pub const Pool = struct {
    /// (1, 1, count, 1) f32
    numbers: Tensor,

    /// For tensors of up to `largest` elements; longer ones repeat them.
    pub fn init(cuda: *Cuda, gpu: *const Gpu, largest: usize) Error!Pool {
        const count: u32 = @intCast(@min(@max(largest, 1), pool_count_max));
        const numbers: Tensor = .{
            .address = try gpu.allocate(count * @sizeOf(f32)),
            .shape = .tokens(1, count, 1),
            .dtype = .f32,
        };
        errdefer _ = gpu.driver.cuMemFree_v2(numbers.address);
        var generator: PhiloxGenerator = .init(seed, PhiloxGenerator.block_count_reference);
        try ops_sampler.philoxNormal(cuda, numbers, generator.next(count), 1);
        return .{ .numbers = numbers };
    }

    pub fn deinit(pool: Pool, gpu: *const Gpu) void {
        _ = gpu.driver.cuMemFree_v2(pool.numbers.address);
    }

    /// `count` elements of the activations' type from `address` on, of this deviation.
    pub fn fill(pool: Pool, cuda: *Cuda, address: usize, count: usize, deviation: f32) Error!void {
        const whole = pool.numbers.shape.width;
        var done: usize = 0;
        while (done < count) : (done += whole) {
            var numbers = pool.numbers;
            numbers.shape.width = @intCast(@min(whole, count - done));
            const target: Tensor = .{
                .address = address + done * cuda.activation.size(),
                .shape = numbers.shape,
                .dtype = cuda.activation,
            };
            try ops_elementwise.scaleRepeat(cuda, target, numbers, deviation);
        }
    }
};

// --- internal ---

fn fillOne(cuda: *Cuda, address: usize, weight: *const Weight, pool: Pool) Error!void {
    const count = weight.elementCount();
    if (weight.layout != .vector) {
        const inner: f32 = @floatFromInt(count / weight.shape[0]);
        return pool.fill(cuda, address, count, gain / @sqrt(inner));
    }
    const is_bias = std.mem.endsWith(u8, weight.name, "bias");
    if (is_bias) return ops_elementwise.zero(cuda, address, count * cuda.activation.size());
    // Two at a time: the weights' alignment leaves room behind the last one.
    const one: u32 = if (cuda.activation == .f16) 0x3c00 else 0x3f80;
    const pairs = (count + 1) / 2;
    cuda.dependent_launches.follows_kernel = false;
    const result = cuda.driver.cuMemsetD32Async(address, one << 16 | one, pairs, cuda.stream);
    return cuda.check(.cuMemsetD32Async, result, "generating random weights");
}
