//! Memory between stretches that nobody may touch, wide enough that an index which is somewhat
//! wrong meets them and not a neighbour.

const std = @import("std");

/// On either side; address space alone.
pub const bytes = 1 << 20;

/// At least `data_bytes` of zeros, a whole number of pages, between two guards.
pub fn map(data_bytes: usize) ![]align(std.heap.page_size_min) u8 {
    const whole = std.mem.alignForward(usize, data_bytes, std.heap.pageSize());
    const mapping = try std.posix.mmap(
        null,
        whole + 2 * bytes,
        .{},
        .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .NORESERVE = true },
        -1,
        0,
    );
    errdefer std.posix.munmap(mapping);
    const data: *align(std.heap.page_size_min) anyopaque = @ptrCast(@alignCast(&mapping[bytes]));
    const failed = std.c.mprotect(data, whole, .{ .READ = true, .WRITE = true }) != 0;
    return if (failed) error.OutOfMemory else mapping;
}

/// Full of 0xff, a NaN in every type. Whole lines that the compiler must not turn into memset:
/// compiler-rt's, which a library brings along, goes byte by byte.
pub fn poison(data: []u8) void {
    const Line = @Vector(64, u8);
    const full: Line = @splat(0xff);
    var at: usize = 0;
    while (at + @sizeOf(Line) <= data.len) : (at += @sizeOf(Line)) {
        const line: *align(1) volatile Line = @ptrCast(data[at..].ptr);
        line.* = full;
    }
    for (data[at..]) |*byte| byte.* = 0xff;
}
