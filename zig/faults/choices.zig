//! How a test chooses which calls of a program fail: a file that the test writes and the program
//! has mapped, an `Entry` per kind of call, in their order. The test also reads the counts, while
//! the program runs or afterwards.

const std = @import("std");
const linux = std.os.linux;

pub const Entry = extern struct {
    /// The call from which on calls fail, from 1; 0 for none.
    first: u64,
    /// How many of them.
    count: u64,
    calls: u64,
    hits: u64,
    /// By how many milliseconds the clock is moved, or a call is slow.
    value: i64,

    /// Counts a call; whether it is one of those chosen.
    pub fn choose(entry: *Entry) bool {
        const first = @atomicLoad(u64, &entry.first, .acquire);
        if (first == 0) return false;
        const call = @atomicRmw(u64, &entry.calls, .Add, 1, .monotonic) + 1;
        if (call < first or call - first >= entry.count) return false;
        _ = @atomicRmw(u64, &entry.hits, .Add, 1, .monotonic);
        return true;
    }
};

/// The entries in the file at `path`, an entry per name of `Kind`; null where it cannot be mapped.
pub fn open(comptime Kind: type, path: [*:0]const u8) ?*Entries(Kind) {
    const file = linux.open(path, .{ .ACCMODE = .RDWR, .CLOEXEC = true }, 0);
    if (linux.errno(file) != .SUCCESS) return null;
    const writable: linux.PROT = .{ .READ = true, .WRITE = true };
    const fd: linux.fd_t = @intCast(file);
    const bytes = @sizeOf(Entries(Kind));
    const mapped = linux.mmap(null, bytes, writable, .{ .TYPE = .SHARED }, fd, 0);
    if (linux.errno(mapped) != .SUCCESS) return null;
    return @ptrFromInt(mapped);
}

pub fn Entries(comptime Kind: type) type {
    return [@typeInfo(Kind).@"enum".fields.len]Entry;
}
