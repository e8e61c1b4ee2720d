//! How many cores a process may keep busy: those that it may run on (`taskset`, cpusets), and no
//! more than its control groups' share of time is worth (`docker --cpus`, Kubernetes' limits). With
//! more threads than that, all of them would be stopped for a part of each period.
//! Source: Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;

/// At least 1.
pub fn count(io: Io) u32 {
    const allowed: u32 = @intCast(std.Thread.getCpuCount() catch 1);
    if (builtin.os.tag != .linux) return allowed;
    var buffer: [4096]u8 = undefined;
    const root = Io.Dir.cwd();
    const groups = root.readFile(io, "/proc/self/cgroup", &buffer) catch return allowed;
    return @min(allowed, limitOf(io, root, "/sys/fs/cgroup", groups) orelse return allowed);
}

// --- internal ---

const path_bytes_max = 1024;

/// The smallest limit of the groups in the text of /proc/self/cgroup and of all above them, in
/// cores, a part of one being one more; null where there is none. Groups are folders below `mount`.
fn limitOf(io: Io, root: Io.Dir, mount: []const u8, groups: []const u8) ?u32 {
    var smallest: ?u32 = null;
    var lines = std.mem.tokenizeScalar(u8, groups, '\n');
    while (lines.next()) |line| {
        // Number, controllers (none in version 2), path.
        var parts = std.mem.splitScalar(u8, line, ':');
        _ = parts.next();
        const controllers = parts.next() orelse continue;
        var path = std.mem.trimEnd(u8, parts.rest(), "/");
        const version: Version = if (controllers.len == 0)
            .two
        else if (hasCpu(controllers))
            .one
        else
            continue;
        // In a container the path may be that of the host, of which only the top is there.
        while (true) {
            if (groupLimit(io, root, mount, version, path)) |cores| {
                smallest = @min(smallest orelse cores, cores);
            }
            if (path.len == 0) break;
            path = path[0 .. std.mem.lastIndexOfScalar(u8, path, '/') orelse 0];
        }
    }
    return smallest;
}

const Version = enum { one, two };

fn hasCpu(controllers: []const u8) bool {
    var names = std.mem.splitScalar(u8, controllers, ',');
    while (names.next()) |name| if (std.mem.eql(u8, name, "cpu")) return true;
    return false;
}

fn groupLimit(
    io: Io,
    root: Io.Dir,
    mount: []const u8,
    version: Version,
    path: []const u8,
) ?u32 {
    var buffers: [2][64]u8 = undefined;
    switch (version) {
        .two => {
            const text = read(io, root, &.{ mount, path, "/cpu.max" }, &buffers[0]) orelse
                return null;
            var words = std.mem.tokenizeScalar(u8, text, ' ');
            return coresOf(words.next() orelse return null, words.next() orelse return null);
        },
        .one => {
            const quota = [_][]const u8{ mount, "/cpu", path, "/cpu.cfs_quota_us" };
            const period = [_][]const u8{ mount, "/cpu", path, "/cpu.cfs_period_us" };
            return coresOf(
                read(io, root, &quota, &buffers[0]) orelse return null,
                read(io, root, &period, &buffers[1]) orelse return null,
            );
        },
    }
}

/// Microseconds of all cores' time in each period; "max" and -1 are no limit.
fn coresOf(quota_text: []const u8, period_text: []const u8) ?u32 {
    const quota = std.fmt.parseInt(u32, quota_text, 10) catch return null;
    const period = std.fmt.parseInt(u32, period_text, 10) catch return null;
    if (period == 0) return null;
    return @max(1, std.math.divCeil(u32, quota, period) catch unreachable);
}

fn read(io: Io, root: Io.Dir, parts: []const []const u8, buffer: []u8) ?[]const u8 {
    var room: [path_bytes_max]u8 = undefined;
    var allocator: std.heap.FixedBufferAllocator = .init(&room);
    const path = std.mem.concat(allocator.allocator(), u8, parts) catch return null;
    const text = root.readFile(io, path, buffer) catch return null;
    return std.mem.trim(u8, text, " \n");
}

const TestFile = struct { path: []const u8, data: []const u8 };

fn expectLimit(expected: ?u32, groups: []const u8, files: []const TestFile) !void {
    const io = std.testing.io;
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    for (files) |file| {
        try tmp.dir.createDirPath(io, std.fs.path.dirname(file.path).?);
        try tmp.dir.writeFile(io, .{ .sub_path = file.path, .data = file.data });
    }
    try std.testing.expectEqual(expected, limitOf(io, tmp.dir, "mount", groups));
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
