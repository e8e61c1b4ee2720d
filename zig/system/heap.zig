//! The library's allocator: malloc for what is small, pages of its own for what is large. glibc
//! maps a large block by itself only until one is freed (M_MMAP_THRESHOLD rises): later blocks lie
//! between small ones that outlive them, and their pages stay with the process.

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;
const Alignment = std.mem.Alignment;

pub const allocator: Allocator = .{ .ptr = undefined, .vtable = &vtable };

// --- internal ---

/// Where glibc begins, too. Nothing is allocated per step: an mmap costs nothing that counts.
const large_bytes = 128 << 10;

const vtable: Allocator.VTable = .{
    .alloc = alloc,
    .resize = resize,
    .remap = remap,
    .free = free,
};

fn sourceOf(bytes: usize) Allocator {
    return if (bytes < large_bytes) std.heap.c_allocator else std.heap.page_allocator;
}

fn alloc(_: *anyopaque, len: usize, alignment: Alignment, caller: usize) ?[*]u8 {
    return sourceOf(len).rawAlloc(len, alignment, caller);
}

fn resize(_: *anyopaque, memory: []u8, alignment: Alignment, len: usize, caller: usize) bool {
    if (!isOfOneSource(memory.len, len)) return false;
    return sourceOf(len).rawResize(memory, alignment, len, caller);
}

fn remap(_: *anyopaque, memory: []u8, alignment: Alignment, len: usize, caller: usize) ?[*]u8 {
    if (!isOfOneSource(memory.len, len)) return null;
    return sourceOf(len).rawRemap(memory, alignment, len, caller);
}

fn free(_: *anyopaque, memory: []u8, alignment: Alignment, caller: usize) void {
    sourceOf(memory.len).rawFree(memory, alignment, caller);
}

fn isOfOneSource(a: usize, b: usize) bool {
    return (a < large_bytes) == (b < large_bytes);
}

test "memory keeps its contents as it grows and shrinks across the limit" {
    var memory = try allocator.alloc(u8, 100);
    defer allocator.free(memory);
    for (memory, 0..) |*byte, i| byte.* = @intCast(i);
    for ([_]usize{ large_bytes - 1, large_bytes, 3 * large_bytes, large_bytes - 1, 100 }) |len| {
        memory = try allocator.realloc(memory, len);
        try std.testing.expectEqual(len, memory.len);
        for (memory[0..100], 0..) |byte, i| try std.testing.expectEqual(i, byte);
    }
}

test "large memory goes back to the system, beside small memory that stays" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    var kept: [4][]u8 = @splat(&.{});
    defer for (kept) |small| allocator.free(small);
    for (&kept) |*small| {
        const large = try allocator.alignedAlloc(u8, .fromByteUnits(64), 4 * large_bytes);
        small.* = try allocator.alloc(u8, 64);
        allocator.free(large);
        var is_resident: [4 * large_bytes / std.heap.page_size_min]u8 = undefined;
        const result = std.os.linux.mincore(large.ptr, 4 * large_bytes, &is_resident);
        try std.testing.expectEqual(.NOMEM, std.os.linux.errno(result));
    }
}
