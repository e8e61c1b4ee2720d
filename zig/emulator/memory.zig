//! Device and pinned memory: every allocation is a separate mapping between guard pages, so that an
//! out-of-bounds access faults. Memory starts as 0xff, which is NaN in every type, and is unmapped
//! when freed. The padding to the alignment of 256 bytes is checked for writes. For benches, large
//! allocations of several GPUs can share one memory.

const std = @import("std");
const guards = @import("guards.zig");
const state = @import("state.zig");
const Device = state.Device;

pub const Kind = enum { device, pinned, registered };

pub const Allocation = struct {
    kind: Kind,
    device: *Device,
    address: usize,
    bytes: usize,
    /// With its guards; empty for memory of the host that was only registered.
    mapping: []align(std.heap.page_size_min) u8,

    pub fn end(allocation: *const Allocation) usize {
        return allocation.address + allocation.bytes;
    }

    fn data(allocation: *const Allocation) []u8 {
        return guards.dataOf(allocation.mapping);
    }

    /// False where something was written beside the allocation, inside its own pages.
    pub fn isIntact(allocation: *const Allocation) bool {
        if (allocation.mapping.len == 0) return true;
        const whole = allocation.data();
        const before = allocation.address - @intFromPtr(whole.ptr);
        const near = whole[before -| watched_bytes..before];
        const after = whole[before + allocation.bytes ..];
        return std.mem.allEqual(u8, near, 0xff) and std.mem.allEqual(u8, after, 0xff);
    }
};

/// What cuMemAlloc aligns to.
const alignment = 256;
const watched_bytes = 256;

/// By address.
pub var allocations: std.ArrayList(Allocation) = .empty;

pub fn allocate(device: *Device, kind: Kind, bytes: usize) error{OutOfMemory}!usize {
    if (kind == .device and bytes > state.memory_bytes - device.used_bytes) {
        return error.OutOfMemory;
    }
    const is_shared = kind == .device and bytes >= state.shared_bytes_min;
    const made = if (is_shared) mapShared(bytes) else guards.mapPoisoned(bytes);
    const mapping = made catch return error.OutOfMemory;
    errdefer std.posix.munmap(mapping);
    const end = @intFromPtr(mapping.ptr) + mapping.len - guards.bytes;
    const address = end - std.mem.alignForward(usize, bytes, alignment);
    try insert(.{
        .kind = kind,
        .device = device,
        .address = address,
        .bytes = bytes,
        .mapping = mapping,
    });
    if (kind == .device) device.used_bytes += bytes;
    return address;
}

/// Memory of the host's own that copies may read when their turn comes.
pub fn register(device: *Device, address: usize, bytes: usize) error{OutOfMemory}!void {
    try insert(.{
        .kind = .registered,
        .device = device,
        .address = address,
        .bytes = bytes,
        .mapping = &.{},
    });
}

/// The allocation that starts at `address` leaves; false where there is none of this kind.
pub fn release(kind: Kind, address: usize) bool {
    const index = indexOf(address) orelse return false;
    const allocation = allocations.items[index];
    if (allocation.address != address or allocation.kind != kind) return false;
    if (!allocation.isIntact()) {
        state.report("freed memory at 0x{x} ({d} bytes) was written outside its bounds", .{
            address,
            allocation.bytes,
        });
    }
    _ = allocations.orderedRemove(index);
    if (allocation.mapping.len > 0) std.posix.munmap(allocation.mapping);
    if (kind == .device) allocation.device.used_bytes -= allocation.bytes;
    return true;
}

/// Everything that `device` holds goes, as with its context.
pub fn releaseAll(device: *Device) void {
    var i = allocations.items.len;
    while (i > 0) {
        i -= 1;
        const allocation = allocations.items[i];
        if (allocation.device == device) _ = release(allocation.kind, allocation.address);
    }
}

/// The allocation that holds all of the range, if one does.
pub fn find(address: usize, bytes: usize) ?*const Allocation {
    const allocation = &allocations.items[indexOf(address) orelse return null];
    if (bytes > allocation.end() - address) return null;
    return allocation;
}

/// The allocation at or before `address`, for a message on what lies near.
pub fn nearest(address: usize) ?*const Allocation {
    var best: ?*const Allocation = null;
    for (allocations.items) |*allocation| {
        if (address + guards.bytes < allocation.address) continue;
        if (address > allocation.end() + guards.bytes) continue;
        best = allocation;
    }
    return best;
}

// --- internal ---

/// The memory that another allocation of this size has, or where there is none, new memory.
fn mapShared(bytes: usize) ![]align(std.heap.page_size_min) u8 {
    for (allocations.items) |allocation| {
        const is_device = allocation.kind == .device;
        if (is_device and allocation.bytes == bytes) return guards.mapAgain(allocation.mapping);
    }
    const mapping = try guards.mapShared(bytes);
    // Only what is checked: the padding.
    const data = guards.dataOf(mapping);
    const after = data.len - std.mem.alignForward(usize, bytes, alignment);
    guards.poison(data[0..after]);
    guards.poison(data[after + bytes ..]);
    return mapping;
}

fn insert(allocation: Allocation) error{OutOfMemory}!void {
    const items = allocations.items;
    const at = std.sort.lowerBound(Allocation, items, allocation.address, compareAddress);
    try allocations.insert(state.allocator, at, allocation);
}

/// The allocation whose range holds `address`, its end included.
fn indexOf(address: usize) ?usize {
    const items = allocations.items;
    const after = std.sort.upperBound(Allocation, items, address, compareAddress);
    if (after == 0) return null;
    return if (address <= items[after - 1].end()) after - 1 else null;
}

fn compareAddress(address: usize, allocation: Allocation) std.math.Order {
    return std.math.order(address, allocation.address);
}
