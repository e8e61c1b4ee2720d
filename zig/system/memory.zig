//! How much memory a process may still take, so that a job that cannot fit is refused before it
//! starts: the system's own estimate, or less where a control group allows less.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;
const control_groups = @import("control_groups.zig");

/// Available bytes, or null where the system does not report them.
pub fn available(io: Io) ?u64 {
    if (builtin.os.tag != .linux) return null;
    var buffer: [8192]u8 = undefined;
    const system = field(read(io, "/proc/meminfo", &buffer) orelse return null, "MemAvailable:");
    const group = ownGroupsAvailable(io);
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

fn ownGroupsAvailable(io: Io) ?u64 {
    var buffer: [4096]u8 = undefined;
    const text = read(io, "/proc/self/cgroup", &buffer) orelse return null;
    return groupsAvailable(io, .cwd(), control_groups.mount_default, text);
}

/// The minimum that any group in the text of /proc/self/cgroup, or one above it, leaves.
fn groupsAvailable(io: Io, root: Io.Dir, mount: []const u8, text: []const u8) ?u64 {
    var least: ?u64 = null;
    var groups: control_groups.Iterator = .init(io, root, mount, .memory, text);
    while (groups.next()) |group| {
        const bytes = groupAvailable(group) orelse continue;
        least = @min(least orelse bytes, bytes);
    }
    return least;
}

/// The limit minus memory in use that cannot be reclaimed.
fn groupAvailable(group: control_groups.Group) ?u64 {
    const names: [3][]const u8 = switch (group.version) {
        .one => .{ "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file " },
        .two => .{ "memory.max", "memory.current", "inactive_file " },
    };
    const limit = group.number(names[0]) orelse return null;
    const used = group.number(names[1]) orelse return null;
    var buffer: [8192]u8 = undefined;
    const stat = group.read("memory.stat", &buffer) orelse return limit -| used;
    var lines = std.mem.splitScalar(u8, stat, '\n');
    var cached: u64 = 0;
    while (lines.next()) |line| {
        if (!std.mem.startsWith(u8, line, names[2])) continue;
        cached = std.fmt.parseInt(u64, line[names[2].len..], 10) catch 0;
    }
    return (limit +| cached) -| used;
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

const TestFile = control_groups.TestFile;

fn expectAvailable(expected: ?u64, groups: []const u8, files: []const TestFile) !void {
    var tmp = try control_groups.testFolder(files);
    defer tmp.cleanup();
    const bytes = groupsAvailable(std.testing.io, tmp.dir, "mount", groups);
    try std.testing.expectEqual(expected, bytes);
}

test "version 2: the group of the process and those above it count" {
    const files = [_]TestFile{
        .{ .path = "mount/job/step/memory.max", .data = "1000\n" },
        .{ .path = "mount/job/step/memory.current", .data = "700\n" },
        .{ .path = "mount/job/step/memory.stat", .data = "anon 1\ninactive_file 50\n" },
        .{ .path = "mount/job/memory.max", .data = "900\n" },
        .{ .path = "mount/job/memory.current", .data = "800\n" },
        .{ .path = "mount/memory.max", .data = "max\n" },
        .{ .path = "mount/memory.current", .data = "800\n" },
    };
    try expectAvailable(100, "0::/job/step\n", &files);
    try expectAvailable(350, "0::/job/step\n", files[0..3]);
    try expectAvailable(null, "0::/\n", &files);
    try expectAvailable(null, "0::/elsewhere\n", &files);
    // More in use than the limit, as after it was lowered.
    try expectAvailable(0, "0::/\n", &.{
        .{ .path = "mount/memory.max", .data = "10\n" },
        .{ .path = "mount/memory.current", .data = "20\n" },
    });
}

test "version 1: the memory controller's own folder" {
    const files = [_]TestFile{
        .{ .path = "mount/memory/x/memory.limit_in_bytes", .data = "1000\n" },
        .{ .path = "mount/memory/x/memory.usage_in_bytes", .data = "400\n" },
        .{ .path = "mount/memory/x/memory.stat", .data = "inactive_file 9\ntotal_inactive_file 5" },
        .{ .path = "mount/memory/memory.limit_in_bytes", .data = "9223372036854771712\n" },
        .{ .path = "mount/memory/memory.usage_in_bytes", .data = "400\n" },
    };
    try expectAvailable(605, "3:cpu:/y\n2:memory:/x\n0::/\n", &files);
    try expectAvailable(9223372036854771312, "2:memory:/\n", &files);
    try expectAvailable(null, "3:cpu:/x\n", &files);
}
