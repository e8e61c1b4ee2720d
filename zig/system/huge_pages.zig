//! Allocates large memory on huge pages: first touches cost one page fault per 2 MiB instead of
//! 512, and the TLB covers the activations of a whole image.

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;

const page_bytes = 2 << 20;

const alignment: std.mem.Alignment = .fromByteUnits(64);
const page_alignment: std.mem.Alignment = .fromByteUnits(page_bytes);

/// Memory aligned to 64 bytes, to be given back with `free`.
pub fn alloc(gpa: Allocator, bytes: usize) Allocator.Error![]align(64) u8 {
    if (!isLarge(bytes)) return gpa.alignedAlloc(u8, alignment, bytes);
    // Raw: Debug builds fill what others allocate and free, which touches pages that nobody uses.
    const start = gpa.rawAlloc(bytes, page_alignment, @returnAddress()) orelse
        return error.OutOfMemory;
    const memory: []align(64) u8 = @alignCast(start[0..bytes]);
    const whole = std.mem.alignBackward(usize, bytes, page_bytes);
    // Only advice: without huge pages the system uses small ones.
    _ = std.os.linux.madvise(memory.ptr, whole, std.os.linux.MADV.HUGEPAGE);
    return memory;
}

pub fn free(gpa: Allocator, memory: []align(64) u8) void {
    if (!isLarge(memory.len)) return gpa.free(memory);
    gpa.rawFree(memory, page_alignment, @returnAddress());
}

/// Comptime-known on systems without huge pages.
inline fn isLarge(bytes: usize) bool {
    return builtin.os.tag == .linux and bytes >= page_bytes;
}

test "memory of any size is written whole and given back" {
    for ([_]usize{ 0, 1, page_bytes - 1, page_bytes, page_bytes + 1, 4 * page_bytes }) |n| {
        const memory = try alloc(std.testing.allocator, n);
        defer free(std.testing.allocator, memory);
        @memset(memory, 1);
        try std.testing.expectEqual(n, memory.len);
    }
}
