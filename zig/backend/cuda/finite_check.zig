//! Whether tensors have finite numbers only. A check is queued like any operation and its answer is
//! read later, so that the GPU goes on meanwhile: the denoising loop looks at a step when the next
//! one is queued. The host waits for one event, behind which the answer is in pinned memory.

const std = @import("std");
const assert = std.debug.assert;
const FiniteCheck = @import("../options.zig").FiniteCheck;
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const drivers = @import("../../nvidia/driver.zig");
const grids = @import("grids.zig");
const Tensor = @import("../../tensor.zig").Tensor;

pub const check_count = @typeInfo(FiniteCheck).@"enum".fields.len;
/// On the device, and as many on the host.
pub const flag_bytes = check_count * @sizeOf(u32);

pub const FiniteChecks = struct {
    /// On the device, one per check: not 0 where a number was found that is not finite.
    flags: usize,
    /// Their copies in pinned memory.
    answers: *[check_count]u32,
    answered: [check_count]drivers.Event,

    /// The context must be current; `flags` has room for `flag_bytes`.
    pub fn init(cuda: *Cuda, flags: usize) Error!FiniteChecks {
        const d = cuda.driver;
        var memory: ?*anyopaque = null;
        const allocated = d.cuMemHostAlloc(&memory, flag_bytes, 0);
        try cuda.check(.cuMemHostAlloc, allocated, "allocating pinned memory for flags");
        errdefer _ = d.cuMemFreeHost(memory.?);
        var checks: FiniteChecks = .{
            .flags = flags,
            .answers = @ptrCast(@alignCast(memory.?)),
            .answered = undefined,
        };
        for (&checks.answered, 0..) |*event, i| {
            errdefer for (checks.answered[0..i]) |made| {
                _ = d.cuEventDestroy_v2(made);
            };
            var made: ?drivers.Event = null;
            const created = d.cuEventCreate(&made, drivers.event_disable_timing);
            try cuda.check(.cuEventCreate, created, "creating an event");
            event.* = made.?;
        }
        return checks;
    }

    /// The stream must have ended.
    pub fn deinit(checks: *FiniteChecks, cuda: *Cuda) void {
        for (checks.answered) |event| _ = cuda.driver.cuEventDestroy_v2(event);
        _ = cuda.driver.cuMemFreeHost(checks.answers);
    }
};

/// Waits for the answer.
pub fn isFinite(cuda: *Cuda, x: Tensor) Error!bool {
    try beginFiniteCheck(cuda, x, .alone);
    return endFiniteCheck(cuda, .alone);
}

pub fn beginFiniteCheck(cuda: *Cuda, x: Tensor, number: FiniteCheck) Error!void {
    const d = cuda.driver;
    const i: usize = @intFromEnum(number);
    const checks = &cuda.finite_checks;
    const flag = checks.flags + i * @sizeOf(u32);
    cuda.dependent_launches.follows_kernel = false;
    const cleared = d.cuMemsetD32Async(flag, 0, 1, cuda.stream);
    try cuda.check(.cuMemsetD32Async, cleared, "clearing a flag");
    const count: u64 = x.shape.elementCount();
    const grid = grids.blocks(grids.packs(count));
    const args = .{ flag, x.address, count };
    if (x.dtype == .f32) {
        try cuda.launch("is_finite_f32", .untyped, grid, grids.block, 0, args);
    } else {
        assert(x.dtype == cuda.activation);
        try cuda.launch("is_finite", .typed, grid, grids.block, 0, args);
    }
    cuda.dependent_launches.follows_kernel = false;
    const copied = d.cuMemcpyDtoHAsync_v2(&checks.answers[i], flag, @sizeOf(u32), cuda.stream);
    try cuda.check(.cuMemcpyDtoHAsync_v2, copied, "copying a flag from the GPU");
    const recorded = d.cuEventRecord(checks.answered[i], cuda.stream);
    try cuda.check(.cuEventRecord, recorded, "recording an event");
}

/// Waits for the check alone.
pub fn endFiniteCheck(cuda: *Cuda, number: FiniteCheck) Error!bool {
    const i: usize = @intFromEnum(number);
    const event = cuda.finite_checks.answered[i];
    const result = try cuda.waits.untilReached(cuda.driver, event);
    try cuda.check(.cuEventQuery, result, "running the stream");
    return cuda.finite_checks.answers[i] == 0;
}
