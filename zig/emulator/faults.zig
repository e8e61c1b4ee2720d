//! Failures that tests inject: one call of a kind, made for one GPU, answers an error instead of
//! doing anything, once; a kernel's failure lasts as long as its context, a device's until the next
//! choice. Calls of each kind are counted, so that a test can choose among those of a run that went
//! well.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");

/// Kinds of calls that may fail. Those of the driver are named as it names them.
pub const Call = enum(u32) {
    none,
    launch_kernel,
    event_record,
    stream_wait_event,
    begin_capture,
    end_capture,
    graph_launch,
    copy_to_device,
    copy_from_device,
    /// A group of NCCL calls that ends, before it comes into contact with other ranks.
    nccl_group,
    /// Between two devices' memory, or two places of one.
    copy_peer,
    /// A kernel ends in an illegal access.
    kernel,
    /// When a kernel begins its device is gone, as one that has fallen off the bus.
    device,
};

/// The `index`th call of the kind from now on, from 0, fails; `none` for no failure. The counts
/// begin anew.
pub fn set(call: Call, device: u32, index: u32) void {
    chosen_device.store(device, .monotonic);
    chosen_index.store(index, .monotonic);
    for (&counts) |*of_device| for (of_device) |*count| count.store(0, .monotonic);
    for (&gone) |*is_gone| is_gone.store(false, .monotonic);
    chosen.store(@intFromEnum(call), .release);
}

/// Calls of a kind for a device since `set`.
pub fn countOf(call: Call, device: u32) u32 {
    return counts[device][@intFromEnum(call)].load(.monotonic);
}

/// Counts a call; true where it must fail.
pub fn fails(call: Call, device: u32) bool {
    const index = counts[device][@intFromEnum(call)].fetchAdd(1, .monotonic);
    if (chosen.load(.acquire) != @intFromEnum(call)) return false;
    if (chosen_device.load(.monotonic) != device) return false;
    return chosen_index.load(.monotonic) == index;
}

/// What a kernel of the device ends with before it does anything; null where it runs.
pub fn ofKernel(device: u32) ?driver.Result {
    // Both are counted.
    const crashes = fails(.kernel, device);
    if (fails(.device, device)) gone[device].store(true, .monotonic);
    if (isGone(device)) return .unknown;
    return if (crashes) .illegal_address else null;
}

/// Whether the device answers nothing any more.
pub fn isGone(device: u32) bool {
    return gone[device].load(.monotonic);
}

// --- internal ---

const Counter = std.atomic.Value(u32);
const kind_count = @typeInfo(Call).@"enum".fields.len;

var counts: [driver.gpu_count_max][kind_count]Counter = @splat(@splat(.init(0)));
var gone: [driver.gpu_count_max]std.atomic.Value(bool) = @splat(.init(false));
var chosen: Counter = .init(@intFromEnum(Call.none));
var chosen_device: Counter = .init(0);
var chosen_index: Counter = .init(0);
