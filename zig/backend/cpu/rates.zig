//! The rates of this machine in a few tens of milliseconds: a product as linear layers of SDXL are,
//! and a copy between buffers larger than a core's caches. Estimates of times are made of them.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const cpus = @import("../cpu.zig");
const Cpu = cpus.Cpu;
const tensors = @import("../../tensor.zig");
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;
const Weight = @import("../../weights.zig").Weight;

pub const Rates = struct {
    /// Multiply-adds count twice.
    flops_per_second: u64 = 0,
    /// Read and written.
    bytes_per_second: u64 = 0,
};

const never: std.atomic.Value(bool) = .init(false);
/// The best of so many: other programs only make a run slower.
const run_count = 5;
const row_count = 1024;
const channel_count = 1024;
/// Of each thread.
const copy_bytes = 8 << 20;

/// Products in int8 are measured as those that the model has beside them.
pub fn measure(gpa: Allocator, io: Io, compute: cpus.Compute, thread_count: u32) !Rates {
    const cpu = try Cpu.init(gpa, io, .{
        .thread_count = thread_count,
        .compute = compute,
        .cancelled = &never,
    });
    defer cpu.deinit();
    return .{
        .flops_per_second = try productRate(gpa, io, cpu),
        .bytes_per_second = try copyRate(gpa, io, cpu),
    };
}

// --- internal ---

fn productRate(gpa: Allocator, io: Io, cpu: *Cpu) !u64 {
    const shape: Shape = .tokens(1, row_count, channel_count);
    const values = try gpa.alignedAlloc(f32, .@"64", 2 * shape.elementCount());
    defer gpa.free(values);
    const bytes = try gpa.alignedAlloc(u8, .@"64", channel_count * channel_count * @sizeOf(f16));
    defer gpa.free(bytes);
    // Zeros and denormal numbers may take another time.
    @memset(values, 1);
    @memset(std.mem.bytesAsSlice(f16, bytes), 1);
    const x: Tensor = .{ .address = @intFromPtr(values.ptr), .shape = shape };
    var out = x;
    out.address += x.byteCount();
    const weight: Weight = .{
        .name = "",
        .layout = .matrix,
        .dtype = .f16,
        .shape = .{ channel_count, channel_count, 1, 1 },
        .row_scales = &.{},
        .address = @intFromPtr(bytes.ptr),
        .source = bytes,
        .source_dtype = .f16,
    };
    var best: u64 = 0;
    for (0..run_count) |_| {
        const start = now(io);
        try cpu.linear(out, 0, x, &weight, null, .{});
        const flops = 2 * row_count * channel_count * channel_count;
        best = @max(best, perSecond(flops, now(io) - start));
    }
    return best;
}

fn copyRate(gpa: Allocator, io: Io, cpu: *Cpu) !u64 {
    const count = copy_bytes / @sizeOf(f32) * cpu.pool.thread_count;
    const values = try gpa.alignedAlloc(f32, .@"64", 2 * count);
    defer gpa.free(values);
    @memset(values, 1);
    const x: Tensor = .{ .address = @intFromPtr(values.ptr), .shape = .vector(1, @intCast(count)) };
    var out = x;
    out.address += x.byteCount();
    var best: u64 = 0;
    for (0..run_count) |_| {
        const start = now(io);
        try cpu.copy(out, x);
        best = @max(best, perSecond(2 * x.byteCount(), now(io) - start));
    }
    return best;
}

fn now(io: Io) i96 {
    return Io.Timestamp.now(io, .awake).toNanoseconds();
}

fn perSecond(count: u64, ns: i96) u64 {
    return @intCast(@as(u128, count) * std.time.ns_per_s / @as(u128, @intCast(@max(1, ns))));
}

test "a machine multiplies and copies" {
    const rates = try measure(std.testing.allocator, std.testing.io, .f32, 2);
    try std.testing.expect(rates.flops_per_second > 0);
    try std.testing.expect(rates.bytes_per_second > 0);
}
