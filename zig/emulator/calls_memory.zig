//! The emulated driver's calls about memory and copies.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const faults = @import("faults.zig");
const graphs = @import("graph.zig");
const memory = @import("memory.zig");
const state = @import("state.zig");
const streams = @import("stream.zig");
const work = @import("work.zig");
const Address = driver.Address;
const Result = driver.Result;
const Stream = streams.Stream;

pub fn cuMemGetInfo_v2(free: *usize, total: *usize) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    total.* = state.memory_bytes;
    free.* = state.memory_bytes - device.?.used_bytes;
    return .success;
}

pub fn cuMemAlloc_v2(address: *Address, bytes: usize) callconv(.c) Result {
    return allocate(.device, address, bytes);
}

pub fn cuMemFree_v2(address: Address) callconv(.c) Result {
    if (address == 0) return .success;
    return release(.device, address);
}

pub fn cuMemHostAlloc(pointer: *?*anyopaque, bytes: usize, flags: c_uint) callconv(.c) Result {
    if (flags & ~@as(c_uint, 7) != 0) return .invalid_value;
    var address: Address = 0;
    const result = allocate(.pinned, &address, bytes);
    if (result == .success) pointer.* = @ptrFromInt(address);
    return result;
}

pub fn cuMemFreeHost(pointer: *anyopaque) callconv(.c) Result {
    return release(.pinned, @intFromPtr(pointer));
}

pub fn cuMemHostRegister_v2(
    pointer: *anyopaque,
    bytes: usize,
    flags: c_uint,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = unsafe(&device);
    if (result != .success) return result;
    if (bytes == 0 or flags & ~@as(c_uint, 15) != 0) return .invalid_value;
    const address = @intFromPtr(pointer);
    if (memory.find(address, 1) != null) return .host_memory_already_registered;
    memory.register(device.?, address, bytes) catch return .out_of_memory;
    return .success;
}

pub fn cuMemHostUnregister(pointer: *anyopaque) callconv(.c) Result {
    return release(.registered, @intFromPtr(pointer));
}

pub fn cuMemcpyHtoD_v2(
    target: Address,
    source: *const anyopaque,
    bytes: usize,
) callconv(.c) Result {
    return copyNow(.{ .to = target, .from = @intFromPtr(source), .bytes = bytes }, .to_device);
}

pub fn cuMemcpyDtoH_v2(target: *anyopaque, source: Address, bytes: usize) callconv(.c) Result {
    return copyNow(.{ .to = @intFromPtr(target), .from = source, .bytes = bytes }, .to_host);
}

pub fn cuMemcpyHtoDAsync_v2(
    target: Address,
    source: *const anyopaque,
    bytes: usize,
    stream: driver.Stream,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    var copy: work.Copy = .{ .to = target, .from = @intFromPtr(source), .bytes = bytes };
    if (!isWithin(target, bytes)) return .invalid_value;
    if (bytes == 0) return .success;
    if (faults.fails(.copy_to_device, found.device.ordinal)) return .unknown;
    if (found.capture == null and memory.find(copy.from, bytes) == null) {
        found.device.pageable_bytes += bytes;
        const from: [*]const u8 = @ptrCast(source);
        copy.staged = state.allocator.dupe(u8, from[0..bytes]) catch return .out_of_memory;
        copy.from = @intFromPtr(copy.staged.ptr);
    } else found.device.pinned_bytes += bytes;
    return found.enqueue(.{ .copy = copy });
}

pub fn cuMemcpyDtoHAsync_v2(
    target: *anyopaque,
    source: Address,
    bytes: usize,
    stream: driver.Stream,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    if (!isWithin(source, bytes)) return .invalid_value;
    if (bytes == 0) return .success;
    if (faults.fails(.copy_from_device, found.device.ordinal)) return .unknown;
    const to = @intFromPtr(target);
    const result = found.enqueue(.{ .copy = .{ .to = to, .from = source, .bytes = bytes } });
    if (result != .success or found.capture != null) return result;
    // Into pageable memory: the driver comes back when the bytes are there.
    if (memory.find(to, bytes) == null) work.force(found.tail.?);
    return found.device.failure;
}

pub fn cuMemcpyDtoDAsync_v2(
    target: Address,
    source: Address,
    bytes: usize,
    stream: driver.Stream,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    if (!isWithin(target, bytes) or !isWithin(source, bytes)) return .invalid_value;
    if (bytes == 0) return .success;
    return found.enqueue(.{ .copy = .{ .to = target, .from = source, .bytes = bytes } });
}

pub fn cuMemcpyPeerAsync(
    target: Address,
    target_context: driver.Context,
    source: Address,
    source_context: driver.Context,
    bytes: usize,
    stream: driver.Stream,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    const to_device = state.Device.of(target_context) orelse return .invalid_context;
    const from_device = state.Device.of(source_context) orelse return .invalid_context;
    if (bytes == 0) return .success;
    const to = memory.find(target, bytes) orelse return .invalid_value;
    const from = memory.find(source, bytes) orelse return .invalid_value;
    if (to.device != to_device or from.device != from_device) return .invalid_value;
    if (faults.fails(.copy_peer, to_device.ordinal)) return .unknown;
    const fault: state.PeerFault = if (to_device == from_device) .none else state.peer_fault;
    return found.enqueue(.{ .copy = .{
        .to = target,
        .from = source,
        .bytes = bytes,
        .fault = fault,
    } });
}

pub fn cuMemsetD8Async(
    target: Address,
    value: u8,
    count: usize,
    stream: driver.Stream,
) callconv(.c) Result {
    return fill(.{ .address = target, .value = value, .value_bytes = 1, .count = count }, stream);
}

pub fn cuMemsetD32Async(
    target: Address,
    value: c_uint,
    count: usize,
    stream: driver.Stream,
) callconv(.c) Result {
    if (target % 4 != 0) return .invalid_value;
    return fill(.{ .address = target, .value = value, .value_bytes = 4, .count = count }, stream);
}

// --- internal ---

/// For calls that no capture may see.
fn unsafe(device: *?*state.Device) Result {
    const result = state.active(device);
    return if (result == .success) graphs.forbidden() else result;
}

fn allocate(kind: memory.Kind, address: *Address, bytes: usize) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = unsafe(&device);
    if (result != .success) return result;
    if (bytes == 0) return .invalid_value;
    address.* = memory.allocate(device.?, kind, bytes) catch return .out_of_memory;
    return .success;
}

/// Waits for the device first, as the driver does.
fn release(kind: memory.Kind, address: usize) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    // A failed context still gives its memory back here, so that a session closes without leaks.
    const result = state.active(&device);
    if (device == null) return result;
    const refused = graphs.forbidden();
    if (refused != .success) return refused;
    const allocation = memory.find(address, 0) orelse return .invalid_value;
    if (allocation.kind != kind) return .invalid_value;
    work.forceDevice(allocation.device);
    return if (memory.release(kind, address)) result else .invalid_value;
}

const Direction = enum { to_device, to_host };

/// On the legacy stream: behind everything that blocking streams of this device hold.
fn copyNow(copy: work.Copy, direction: Direction) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = unsafe(&device);
    if (result != .success) return result;
    const far = if (direction == .to_device) copy.to else copy.from;
    if (!isWithin(far, copy.bytes)) return .invalid_value;
    if (copy.bytes == 0) return .success;
    const legacy = streams.legacyOf(device.?) catch return .out_of_memory;
    var taken = copy;
    // From pageable memory the driver returns once the bytes have been taken: they arrive later,
    // and only streams that wait for the legacy one can rely on it.
    const is_late = direction == .to_device and memory.find(copy.from, copy.bytes) == null;
    if (is_late) {
        const from: [*]const u8 = @ptrFromInt(copy.from);
        taken.staged = state.allocator.dupe(u8, from[0..copy.bytes]) catch return .out_of_memory;
        taken.from = @intFromPtr(taken.staged.ptr);
    }
    const queued = legacy.enqueue(.{ .copy = taken });
    if (queued != .success) return queued;
    if (!is_late) work.force(legacy.tail.?);
    return device.?.failure;
}

fn fill(what: work.Fill, stream: driver.Stream) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    if (!isWithin(what.address, what.count * what.value_bytes)) return .invalid_value;
    if (what.count == 0) return .success;
    return found.enqueue(.{ .fill = what });
}

fn isWithin(address: Address, bytes: usize) bool {
    return bytes == 0 or memory.find(address, bytes) != null;
}
