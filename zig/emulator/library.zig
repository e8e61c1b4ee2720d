//! What the emulated libraries (cuBLASLt, cuDNN, NCCL) get of the emulated driver: their work takes
//! its place in a stream or a graph and runs in its turn, and may ask which memory is whose.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const memory = @import("memory.zig");
const state = @import("state.zig");
const streams = @import("stream.zig");
const work = @import("work.zig");

/// See `Call` in work.zig: `run`, `arrive`, `isReady` and `destroy` are called with the lock held,
/// `run` once per launch where a graph holds the work.
pub const Call = work.Call;

/// Queues or records the call; takes its context, whatever the answer. Locks.
pub fn enqueue(stream: driver.Stream, call: Call) driver.Result {
    state.lock();
    defer state.unlock();
    const found = streams.Stream.of(stream) orelse {
        call.destroy(call.context);
        return .invalid_handle;
    };
    return found.enqueue(.{ .call = call });
}

/// Queues `run(context, token)` over a copy of `context`, which goes with the call; null where
/// there is no memory for the copy.
pub fn enqueueCopy(
    comptime label: []const u8,
    context: anytype,
    stream: driver.Stream,
    comptime run: fn (*anyopaque, u64) driver.Result,
) ?driver.Result {
    const Context = @TypeOf(context);
    const kept = allocator.create(Context) catch return null;
    kept.* = context;
    const destroy = struct {
        fn destroy(copy: *anyopaque) void {
            const own: *Context = @ptrCast(@alignCast(copy));
            allocator.destroy(own);
        }
    }.destroy;
    return enqueue(stream, .{ .label = label, .context = kept, .run = run, .destroy = destroy });
}

/// The device whose stream this is; null for no stream.
pub fn deviceOf(stream: driver.Stream) ?u32 {
    const found = streams.Stream.of(stream) orelse return null;
    return found.device.ordinal;
}

/// The device that calls of this thread mean.
pub fn currentDevice() ?u32 {
    const device = state.current orelse return null;
    return device.ordinal;
}

/// Whether all of the range is memory that work on `device` may touch: its own, pinned, or that of
/// a device to which it has peer access. For `run`: call it with the lock held.
pub fn isReachable(device: u32, address: usize, bytes: usize) bool {
    if (bytes == 0) return true;
    const allocation = memory.find(address, bytes) orelse return false;
    if (allocation.kind != .device or allocation.device.ordinal == device) return true;
    return state.devices[device].peers[allocation.device.ordinal];
}

/// One line on stderr: which call, which operand, what is wrong with it.
pub const report = state.report;

/// For what a library keeps outside of its calls, such as communicators.
pub const lock = state.lock;
pub const unlock = state.unlock;
/// With the lock held: until another thread queued or ran something, or called `announceChange`.
pub const waitForChange = state.waitForChange;
pub const now = state.now;
pub const waitBriefly = state.waitBriefly;
pub const announceChange = state.announceChange;

/// From now on work waits for what other processes do.
pub fn poll() void {
    state.is_polling = true;
}

pub const allocator = state.allocator;
