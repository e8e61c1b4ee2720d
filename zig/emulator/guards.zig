//! Memory between guard pages, wide enough that a slightly wrong index hits the guard and not
//! another allocation.

const std = @import("std");

/// Bytes of each guard; address space only.
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

/// As `map`, but filled with 0xff, a NaN in every type. Pages map one shared file copy-on-write, so
/// large, mostly unused workspaces cost little.
pub fn mapPoisoned(data_bytes: usize) ![]align(std.heap.page_size_min) u8 {
    const mapping = try map(data_bytes);
    errdefer std.posix.munmap(mapping);
    const file = try poisonFile();
    var rest = dataOf(mapping);
    while (rest.len > 0) {
        const count = @min(poison_bytes, rest.len);
        _ = try std.posix.mmap(
            rest.ptr,
            count,
            .{ .READ = true, .WRITE = true },
            .{ .TYPE = .PRIVATE, .FIXED = true, .NORESERVE = true },
            file,
            0,
        );
        rest = @alignCast(rest[count..]);
    }
    return mapping;
}

/// As `map`, but memory that `mapAgain` can map elsewhere, too.
pub fn mapShared(data_bytes: usize) ![]align(std.heap.page_size_min) u8 {
    const mapping = try map(data_bytes);
    errdefer std.posix.munmap(mapping);
    const data = dataOf(mapping);
    _ = try std.posix.mmap(
        data.ptr,
        data.len,
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .SHARED, .ANONYMOUS = true, .FIXED = true, .NORESERVE = true },
        -1,
        0,
    );
    return mapping;
}

/// The data of `shared`, which `mapShared` or this made, at a second address between guards of its
/// own. Each of the mappings may go first.
pub fn mapAgain(
    shared: []align(std.heap.page_size_min) u8,
) ![]align(std.heap.page_size_min) u8 {
    const data = dataOf(shared);
    const mapping = try map(data.len);
    errdefer std.posix.munmap(mapping);
    // Moving no bytes of a shared mapping duplicates it.
    const flags: std.os.linux.MREMAP = .{ .MAYMOVE = true, .FIXED = true };
    _ = try std.posix.mremap(data.ptr, 0, data.len, flags, dataOf(mapping).ptr);
    return mapping;
}

/// What lies between the guards of a mapping.
pub fn dataOf(mapping: []align(std.heap.page_size_min) u8) []align(std.heap.page_size_min) u8 {
    return @alignCast(mapping[bytes .. mapping.len - bytes]);
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

// --- internal ---

const poison_bytes = 8 << 20;
var poison_file: ?std.posix.fd_t = null;

/// Nothing but 0xff, made at the first call.
fn poisonFile() !std.posix.fd_t {
    if (poison_file) |file| return file;
    const file = try std.posix.memfd_create("basedxl-poison", std.os.linux.MFD.CLOEXEC);
    errdefer _ = std.c.close(file);
    if (std.c.ftruncate(file, poison_bytes) != 0) return error.OutOfMemory;
    const all = try std.posix.mmap(
        null,
        poison_bytes,
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .SHARED },
        file,
        0,
    );
    defer std.posix.munmap(all);
    poison(all);
    poison_file = file;
    return file;
}

test "poisoned memory is full of NaNs, each mapping its own" {
    const a = try mapPoisoned(poison_bytes + 5);
    defer std.posix.munmap(a);
    const data = a[bytes .. a.len - bytes];
    try std.testing.expect(data.len >= poison_bytes + 5);
    try std.testing.expect(std.mem.allEqual(u8, data, 0xff));
    @memset(data, 1);
    const b = try mapPoisoned(1);
    defer std.posix.munmap(b);
    try std.testing.expect(std.mem.allEqual(u8, b[bytes .. b.len - bytes], 0xff));
}
