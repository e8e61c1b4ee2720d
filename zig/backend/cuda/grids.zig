//! How many threads a kernel that handles packs of eight elements needs (cuda/elementwise.cuh), and
//! what it asks of addresses.

const std = @import("std");
const assert = std.debug.assert;
const Dim3 = @import("../cuda.zig").Dim3;
const Tensor = @import("../../tensor.zig").Tensor;

/// Elements that a thread handles at once: of 16 bits, what one access of 16 bytes moves.
pub const pack_count = 8;
pub const block_size = 256;
/// Of a grid's y and z.
pub const grid_rows_max = 65535;

pub const block: Dim3 = .{ .x = block_size };

/// Blocks of `block_size` threads, one thread for each of `thread_count`.
pub fn blocks(thread_count: u64) Dim3 {
    return .{ .x = @intCast(@max(1, std.math.divCeil(u64, thread_count, block_size) catch 0)) };
}

/// As `blocks`, `row_count` times.
pub fn blockRows(thread_count: u64, row_count: usize) Dim3 {
    assert(row_count <= grid_rows_max);
    return .{ .x = blocks(thread_count).x, .y = @intCast(row_count) };
}

/// Packs of `element_count` elements in a row.
pub fn packs(element_count: u64) u64 {
    return std.math.divCeil(u64, element_count, pack_count) catch unreachable;
}

/// Packs of all positions of a tensor with so many channels. Kernels count them in 32 bits.
pub fn positionPacks(tensor: Tensor, channels: u32) u32 {
    return @intCast(tensor.shape.rowCount() * packs(channels));
}

/// Whether 16 bytes can be moved at once from and to all of them; so can null, which is not read.
pub fn areAligned(addresses: []const usize) bool {
    for (addresses) |address| if (address % 16 != 0) return false;
    return true;
}

/// The device address of a tensor that may be missing: kernels take null for that.
pub fn addressOrNull(tensor: ?Tensor) usize {
    return if (tensor) |there| there.address else 0;
}
