//! The control groups that limit this process: its own group of a controller and every group above
//! it, in versions 1 and 2. A limit applies at any level of that path (systemd's MemoryMax,
//! Slurm's jobs, `docker --memory`, Kubernetes' limits).
//! Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

const std = @import("std");
const Io = std.Io;

pub const mount_default = "/sys/fs/cgroup";
const path_bytes_max = 1024;

pub const Controller = enum { cpu, memory };
pub const Version = enum { one, two };

/// One group: its files are at `mount` [/ controller in version 1] / `path`.
pub const Group = struct {
    io: Io,
    root: Io.Dir,
    mount: []const u8,
    controller: Controller,
    version: Version,
    path: []const u8,

    /// The text of one of the group's files, without white space at its ends; null where there is
    /// none.
    pub fn read(group: Group, name: []const u8, buffer: []u8) ?[]const u8 {
        var room: [path_bytes_max]u8 = undefined;
        var allocator: std.heap.FixedBufferAllocator = .init(&room);
        const folder: []const []const u8 = switch (group.version) {
            .one => &.{ group.mount, "/", @tagName(group.controller) },
            .two => &.{group.mount},
        };
        const parts = [_][]const u8{ group.path, "/", name };
        const head = std.mem.concat(allocator.allocator(), u8, folder) catch return null;
        const tail = std.mem.concat(allocator.allocator(), u8, &parts) catch return null;
        const whole = [_][]const u8{ head, tail };
        const path = std.mem.concat(allocator.allocator(), u8, &whole) catch return null;
        const text = group.root.readFile(group.io, path, buffer) catch return null;
        return std.mem.trim(u8, text, " \n");
    }

    /// The number in one of the group's files; null for other text, such as "max".
    pub fn number(group: Group, name: []const u8) ?u64 {
        var buffer: [64]u8 = undefined;
        return std.fmt.parseInt(u64, group.read(name, &buffer) orelse return null, 10) catch null;
    }
};

/// Every group of a controller in the text of /proc/self/cgroup, each followed by those above it.
pub const Iterator = struct {
    io: Io,
    root: Io.Dir,
    mount: []const u8,
    controller: Controller,
    lines: std.mem.TokenIterator(u8, .scalar),
    version: Version = .two,
    path: ?[]const u8 = null,

    /// `mount` is a path below `root`.
    pub fn init(
        io: Io,
        root: Io.Dir,
        mount: []const u8,
        controller: Controller,
        text: []const u8,
    ) Iterator {
        return .{
            .io = io,
            .root = root,
            .mount = mount,
            .controller = controller,
            .lines = std.mem.tokenizeScalar(u8, text, '\n'),
        };
    }

    pub fn next(iterator: *Iterator) ?Group {
        const path = iterator.path orelse iterator.nextLine() orelse return null;
        // In a container the path may be that of the host, of which only the top is there.
        iterator.path = if (path.len == 0)
            null
        else
            path[0 .. std.mem.lastIndexOfScalar(u8, path, '/') orelse 0];
        return .{
            .io = iterator.io,
            .root = iterator.root,
            .mount = iterator.mount,
            .controller = iterator.controller,
            .version = iterator.version,
            .path = path,
        };
    }

    /// The path of the next hierarchy with this controller.
    fn nextLine(iterator: *Iterator) ?[]const u8 {
        while (iterator.lines.next()) |line| {
            // Number, controllers (none in version 2), path.
            var parts = std.mem.splitScalar(u8, line, ':');
            _ = parts.next();
            const controllers = parts.next() orelse continue;
            if (controllers.len > 0 and !includes(controllers, iterator.controller)) continue;
            iterator.version = if (controllers.len == 0) .two else .one;
            return std.mem.trimEnd(u8, parts.rest(), "/");
        }
        return null;
    }
};

// --- internal ---

fn includes(controllers: []const u8, controller: Controller) bool {
    var names = std.mem.splitScalar(u8, controllers, ',');
    while (names.next()) |name| if (std.mem.eql(u8, name, @tagName(controller))) return true;
    return false;
}

pub const TestFile = struct { path: []const u8, data: []const u8 };

/// A folder with `files`, for tests; the caller's to clean up.
pub fn testFolder(files: []const TestFile) !std.testing.TmpDir {
    const io = std.testing.io;
    var tmp = std.testing.tmpDir(.{});
    errdefer tmp.cleanup();
    for (files) |file| {
        try tmp.dir.createDirPath(io, std.fs.path.dirname(file.path).?);
        try tmp.dir.writeFile(io, .{ .sub_path = file.path, .data = file.data });
    }
    return tmp;
}

test "a group is followed by those above it, of its own controller alone" {
    const text = "4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/d\n";
    const cases = .{
        .{ Controller.memory, &[_][]const u8{ "/a/b", "/a", "", "/d", "" } },
        .{ Controller.cpu, &[_][]const u8{ "/c", "", "/d", "" } },
    };
    inline for (cases) |case| {
        var groups: Iterator = .init(std.testing.io, .cwd(), "mount", case[0], text);
        for (case[1]) |path| try std.testing.expectEqualStrings(path, groups.next().?.path);
        try std.testing.expectEqual(null, groups.next());
    }
}
