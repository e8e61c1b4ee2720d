//! How much memory a process may still take, so that a job that cannot fit is refused before it
//! starts: the system's own estimate, or less where a control group allows less.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;

/// Bytes, or null where the system does not tell.
pub fn available(io: Io) ?u64 {
    if (builtin.os.tag != .linux) return null;
    var buffer: [8192]u8 = undefined;
    const system = field(read(io, "/proc/meminfo", &buffer) orelse return null, "MemAvailable:");
    const group = groupAvailable(io);
    if (system == null) return group;
    const bytes = system.? * 1024;
    return if (group) |limit| @min(bytes, limit) else bytes;
}

// --- internal ---

fn read(io: Io, path: []const u8, buffer: []u8) ?[]u8 {
    return Io.Dir.cwd().readFile(io, path, buffer) catch null;
}

/// The number after `name` on a line of /proc/meminfo, in KiB.
fn field(text: []const u8, name: []const u8) ?u64 {
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (!std.mem.startsWith(u8, line, name)) continue;
        var words = std.mem.tokenizeScalar(u8, line[name.len..], ' ');
        return std.fmt.parseInt(u64, words.next() orelse return null, 10) catch null;
    }
    return null;
}

/// Control groups, version 2: the limit less what is in use and cannot be dropped.
fn groupAvailable(io: Io) ?u64 {
    var buffer: [8192]u8 = undefined;
    const limit = number(read(io, "/sys/fs/cgroup/memory.max", &buffer)) orelse return null;
    const used = number(read(io, "/sys/fs/cgroup/memory.current", &buffer)) orelse return null;
    const stat = read(io, "/sys/fs/cgroup/memory.stat", &buffer) orelse return limit -| used;
    var lines = std.mem.splitScalar(u8, stat, '\n');
    var cached: u64 = 0;
    while (lines.next()) |line| {
        if (std.mem.startsWith(u8, line, "inactive_file ")) cached = number(line[14..]) orelse 0;
    }
    return (limit + cached) -| used;
}

fn number(text: ?[]const u8) ?u64 {
    return std.fmt.parseInt(u64, std.mem.trim(u8, text orelse return null, " \n"), 10) catch null;
}

test "a line of meminfo is found and read" {
    const text = "MemTotal:       24000 kB\nMemAvailable:   123 kB\n";
    try std.testing.expectEqual(@as(?u64, 123), field(text, "MemAvailable:"));
    try std.testing.expectEqual(@as(?u64, null), field(text, "SwapFree:"));
    try std.testing.expectEqual(@as(?u64, null), field("MemAvailable: x kB", "MemAvailable:"));
}

test "this machine has some memory left" {
    const bytes = available(std.testing.io) orelse return error.SkipZigTest;
    try std.testing.expect(bytes > 1 << 20);
}
