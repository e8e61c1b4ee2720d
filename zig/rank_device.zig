//! What one rank owns on the machine for as long as the session lives: its threads and its arena.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Cpu = @import("backend.zig").Cpu;

pub const RankDevice = struct {
    cpu: *Cpu,
    memory: []align(64) u8 = &.{},

    /// Room for `bytes`, larger or as it was.
    pub fn reserve(device: *RankDevice, gpa: Allocator, bytes: usize) Allocator.Error!void {
        if (device.memory.len >= bytes) return;
        gpa.free(device.memory);
        device.memory = &.{};
        device.memory = try gpa.alignedAlloc(u8, .fromByteUnits(64), bytes);
    }

    pub fn close(device: *RankDevice, gpa: Allocator) void {
        gpa.free(device.memory);
        device.cpu.deinit();
    }
};
