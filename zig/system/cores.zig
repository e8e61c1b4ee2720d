//! Number of cores that a process may use: its CPU affinity (`taskset`, cpusets), limited by the
//! CPU quota of its control groups (`docker --cpus`, Kubernetes' limits). With more threads than
//! that, all of them would be throttled in each period. Source: Linux,
//! Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;
const control_groups = @import("control_groups.zig");

/// At least 1.
pub fn count(io: Io) u32 {
    const allowed: u32 = @intCast(std.Thread.getCpuCount() catch 1);
    if (builtin.os.tag != .linux) return allowed;
    var buffer: [4096]u8 = undefined;
    const root = Io.Dir.cwd();
    const groups = root.readFile(io, "/proc/self/cgroup", &buffer) catch return allowed;
    const limit = limitOf(io, root, control_groups.mount_default, groups);
    return @min(allowed, limit orelse return allowed);
}

// --- internal ---

/// The smallest limit of the groups in the text of /proc/self/cgroup, in cores, rounded up; null
/// where there is none. Groups are folders below `mount`.
fn limitOf(io: Io, root: Io.Dir, mount: []const u8, text: []const u8) ?u32 {
    var smallest: ?u32 = null;
    var groups: control_groups.Iterator = .init(io, root, mount, .cpu, text);
    while (groups.next()) |group| {
        const cores = groupLimit(group) orelse continue;
        smallest = @min(smallest orelse cores, cores);
    }
    return smallest;
}

fn groupLimit(group: control_groups.Group) ?u32 {
    var buffers: [2][64]u8 = undefined;
    switch (group.version) {
        .two => {
            var words = std.mem.tokenizeScalar(
                u8,
                group.read("cpu.max", &buffers[0]) orelse return null,
                ' ',
            );
            return coresOf(words.next() orelse return null, words.next() orelse return null);
        },
        .one => return coresOf(
            group.read("cpu.cfs_quota_us", &buffers[0]) orelse return null,
            group.read("cpu.cfs_period_us", &buffers[1]) orelse return null,
        ),
    }
}

/// CPU quota in microseconds per period; "max" and -1 mean no limit.
fn coresOf(quota_text: []const u8, period_text: []const u8) ?u32 {
    const quota = std.fmt.parseInt(u32, quota_text, 10) catch return null;
    const period = std.fmt.parseInt(u32, period_text, 10) catch return null;
    if (period == 0) return null;
    return @max(1, std.math.divCeil(u32, quota, period) catch unreachable);
}

const TestFile = control_groups.TestFile;

fn expectLimit(expected: ?u32, groups: []const u8, files: []const TestFile) !void {
    var tmp = try control_groups.testFolder(files);
    defer tmp.cleanup();
    try std.testing.expectEqual(expected, limitOf(std.testing.io, tmp.dir, "mount", groups));
}

test "version 2: the least of a group and those above, parts of a core counted whole" {
    const files = [_]TestFile{
        .{ .path = "mount/a/b/cpu.max", .data = "max 100000\n" },
        .{ .path = "mount/a/cpu.max", .data = "150000 100000\n" },
        .{ .path = "mount/cpu.max", .data = "400000 100000\n" },
    };
    try expectLimit(2, "0::/a/b\n", &files);
    try expectLimit(4, "0::/\n", &files);
    try expectLimit(4, "0::/of/the/host\n", &files);
    try expectLimit(null, "0::/a/b\n", files[0..1]);
    try expectLimit(null, "0::/a/b\n", &.{});
    try expectLimit(1, "0::/\n", &.{.{ .path = "mount/cpu.max", .data = "1000 100000\n" }});
    for ([_][]const u8{ "", "5\n", "x y\n", "100000 0\n", "-1 100000\n" }) |data| {
        try expectLimit(null, "0::/\n", &.{.{ .path = "mount/cpu.max", .data = data }});
    }
}

test "version 1: the controller's own folder, alone or shared by two" {
    const files = [_]TestFile{
        .{ .path = "mount/cpu/docker/x/cpu.cfs_quota_us", .data = "300000\n" },
        .{ .path = "mount/cpu/docker/x/cpu.cfs_period_us", .data = "100000\n" },
        .{ .path = "mount/cpu/cpu.cfs_quota_us", .data = "-1\n" },
        .{ .path = "mount/cpu/cpu.cfs_period_us", .data = "100000\n" },
    };
    try expectLimit(3, "4:memory:/y\n2:cpu,cpuacct:/docker/x\n0::/\n", &files);
    try expectLimit(null, "3:cpuset:/docker/x\n2:cpu:/\n", &files);
    try expectLimit(null, "", &files);
}

test "this machine has a core" {
    try std.testing.expect(count(std.testing.io) >= 1);
}
