//! Where the vendor's libraries may lie, in the order in which they are tried: by name, as the
//! system's own loader finds them; the CUDA toolkit's folders; Python environments, whose packages
//! keep them in `nvidia/*/lib`. Nothing here opens a library.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;

/// What of the process's environment matters, apart so that tests can give another. Relative paths
/// do not count: what they name depends on the current folder, and opening a library runs its code.
pub const Environment = struct {
    cuda_home: ?[]const u8 = null,
    cuda_path: ?[]const u8 = null,
    virtual_env: ?[]const u8 = null,
    conda_prefix: ?[]const u8 = null,
    pythonpath: ?[]const u8 = null,
    path: ?[]const u8 = null,
    home: ?[]const u8 = null,
    /// Folders that every system may have; tests give none.
    toolkit: []const []const u8 = &.{"/usr/local/cuda"},
    python_prefixes: []const []const u8 = &.{ "/usr/local", "/usr" },

    pub fn ofProcess() Environment {
        return .{
            .cuda_home = variable("CUDA_HOME"),
            .cuda_path = variable("CUDA_PATH"),
            .virtual_env = variable("VIRTUAL_ENV"),
            .conda_prefix = variable("CONDA_PREFIX"),
            .pythonpath = variable("PYTHONPATH"),
            .path = variable("PATH"),
            .home = variable("HOME"),
        };
    }
};

/// The value of an environment variable; null where it is not set or empty.
pub fn variable(name: [*:0]const u8) ?[]const u8 {
    const value = std.mem.span(std.c.getenv(name) orelse return null);
    return if (value.len > 0) value else null;
}

/// What to give dlopen, best first: `sonames` alone, then as files that exist in the folders.
pub fn candidates(
    arena: Allocator,
    io: Io,
    environment: Environment,
    sonames: []const []const u8,
) Allocator.Error![]const [:0]const u8 {
    var list: std.ArrayList([:0]const u8) = .empty;
    for (sonames) |soname| try list.append(arena, try arena.dupeZ(u8, soname));
    for (try folders(arena, io, environment)) |folder| {
        for (sonames) |soname| {
            const path = try std.fs.path.joinZ(arena, &.{ folder, soname });
            Io.Dir.cwd().access(io, path, .{}) catch continue;
            if (!contains(list.items, path)) try list.append(arena, path);
        }
    }
    return list.items;
}

// --- internal ---

/// Every folder that there is, the toolkit's first.
fn folders(arena: Allocator, io: Io, e: Environment) Allocator.Error![]const []const u8 {
    var walk: Walk = .{ .arena = arena, .io = io };
    for ([_]?[]const u8{ e.cuda_home, e.cuda_path }) |home| {
        if (absolute(home)) |prefix| try walk.toolkit(prefix);
    }
    for (e.toolkit) |prefix| try walk.toolkit(prefix);
    if (absolute(e.virtual_env)) |prefix| try walk.python(prefix);
    if (absolute(e.conda_prefix)) |prefix| {
        try walk.toolkit(prefix);
        try walk.python(prefix);
    }
    if (e.pythonpath) |paths| {
        var entries = std.mem.tokenizeScalar(u8, paths, ':');
        while (entries.next()) |entry| try walk.packages(absolute(entry) orelse continue);
    }
    if (e.path) |paths| {
        var entries = std.mem.tokenizeScalar(u8, paths, ':');
        while (entries.next()) |bin| {
            if (absolute(bin) == null) continue;
            const is_python = try walk.exists(&.{ bin, "python3" });
            if (is_python) try walk.python(std.fs.path.dirname(bin) orelse continue);
        }
    }
    if (absolute(e.home)) |home| try walk.python(try std.fs.path.join(arena, &.{ home, ".local" }));
    for (e.python_prefixes) |prefix| try walk.python(prefix);
    return walk.found.items;
}

fn absolute(path: ?[]const u8) ?[]const u8 {
    const given = path orelse return null;
    return if (std.fs.path.isAbsolute(given)) given else null;
}

const Walk = struct {
    arena: Allocator,
    io: Io,
    found: std.ArrayList([]const u8) = .empty,

    fn toolkit(walk: *Walk, prefix: []const u8) Allocator.Error!void {
        for ([_][]const u8{ "lib64", "lib" }) |name| try walk.add(&.{ prefix, name });
        const targets = try std.fs.path.join(walk.arena, &.{ prefix, "targets" });
        for (try walk.names(targets, "")) |name| try walk.add(&.{ targets, name, "lib" });
    }

    /// A Python prefix: `lib/python3.12/site-packages`, newest Python first.
    fn python(walk: *Walk, prefix: []const u8) Allocator.Error!void {
        const lib = try std.fs.path.join(walk.arena, &.{ prefix, "lib" });
        for (try walk.names(lib, "python3")) |version| {
            for ([_][]const u8{ "site-packages", "dist-packages" }) |name| {
                try walk.packages(try std.fs.path.join(walk.arena, &.{ lib, version, name }));
            }
        }
    }

    /// A folder of Python packages: `nvidia/cublas/lib`, `nvidia/cu13/lib`.
    fn packages(walk: *Walk, folder: []const u8) Allocator.Error!void {
        const nvidia = try std.fs.path.join(walk.arena, &.{ folder, "nvidia" });
        for (try walk.names(nvidia, "")) |name| try walk.add(&.{ nvidia, name, "lib" });
    }

    fn add(walk: *Walk, parts: []const []const u8) Allocator.Error!void {
        const path = try std.fs.path.join(walk.arena, parts);
        if (!contains(walk.found.items, path) and try walk.exists(&.{path})) {
            try walk.found.append(walk.arena, path);
        }
    }

    fn exists(walk: *Walk, parts: []const []const u8) Allocator.Error!bool {
        const path = try std.fs.path.join(walk.arena, parts);
        Io.Dir.cwd().access(walk.io, path, .{}) catch return false;
        return true;
    }

    /// Entries that begin with `start`, the greatest number first: python3.12 before python3.9.
    fn names(
        walk: *Walk,
        folder: []const u8,
        start: []const u8,
    ) Allocator.Error![]const []const u8 {
        var list: std.ArrayList([]const u8) = .empty;
        var directory = Io.Dir.cwd().openDir(walk.io, folder, .{ .iterate = true }) catch {
            return list.items;
        };
        defer directory.close(walk.io);
        var entries = directory.iterate();
        while (entries.next(walk.io) catch null) |entry| {
            if (!std.mem.startsWith(u8, entry.name, start)) continue;
            try list.append(walk.arena, try walk.arena.dupe(u8, entry.name));
        }
        std.mem.sort([]const u8, list.items, {}, isNewer);
        return list.items;
    }
};

fn isNewer(_: void, a: []const u8, b: []const u8) bool {
    if (a.len != b.len and std.mem.startsWith(u8, a, "python3.")) return a.len > b.len;
    return std.mem.order(u8, a, b) == .gt;
}

fn contains(list: anytype, path: []const u8) bool {
    for (list) |known| if (std.mem.eql(u8, known, path)) return true;
    return false;
}

/// Makes an empty file under `root` with the folders above it.
fn plant(root: Io.Dir, path: []const u8) !void {
    try root.createDirPath(std.testing.io, std.fs.path.dirname(path).?);
    try root.writeFile(std.testing.io, .{ .sub_path = path, .data = "" });
}

test "the system's name comes first, then CUDA_HOME, then Python environments" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    const planted = [_][]const u8{
        "cuda/lib64/libx.so.2",
        "cuda/targets/x86_64-linux/lib/libx.so.2",
        "cuda/targets/x86_64-linux/lib/libx.so.1",
        "venv/lib/python3.12/site-packages/nvidia/cu13/lib/libx.so.2",
        "venv/lib/python3.9/site-packages/nvidia/x/lib/libx.so.1",
        "conda/lib/libx.so.1",
        "target/nvidia/x/lib/libx.so.2",
        "pyenv/lib/python3.11/site-packages/nvidia/x/lib/libx.so.2",
        "home/.local/lib/python3.10/site-packages/nvidia/x/lib/libx.so.2",
    };
    for (planted) |path| try plant(tmp.dir, path);
    try plant(tmp.dir, "pyenv/bin/python3");
    try plant(tmp.dir, "venv/lib/python3.12/site-packages/nvidia/x/lib/libother.so.2");
    const a = arena.allocator();
    const root = try tmp.dir.realPathFileAlloc(std.testing.io, ".", a);
    const found = try candidates(a, std.testing.io, .{
        .cuda_home = try std.fs.path.join(a, &.{ root, "cuda" }),
        .virtual_env = try std.fs.path.join(a, &.{ root, "venv" }),
        .conda_prefix = try std.fs.path.join(a, &.{ root, "conda" }),
        .pythonpath = try std.fs.path.join(a, &.{ root, "target" }),
        .path = try std.fmt.allocPrint(a, "{s}/none:{s}/pyenv/bin", .{ root, root }),
        .home = try std.fs.path.join(a, &.{ root, "home" }),
        .toolkit = &.{},
        .python_prefixes = &.{},
    }, &.{ "libx.so.2", "libx.so.1" });
    try std.testing.expectEqual(2 + planted.len, found.len);
    try std.testing.expectEqualStrings("libx.so.2", found[0]);
    try std.testing.expectEqualStrings("libx.so.1", found[1]);
    for (planted, found[2..]) |path, candidate| {
        try std.testing.expectEqualStrings(path, candidate[root.len + 1 ..]);
    }
}

test "relative paths do not count: they name what the current folder holds" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    for ([_][]const u8{
        "lib64/libx.so",
        "lib/python3.12/site-packages/nvidia/x/lib/libx.so",
        ".local/lib/python3.12/site-packages/nvidia/x/lib/libx.so",
        "nvidia/x/lib/libx.so",
        "bin/python3",
    }) |path| try plant(tmp.dir, path);
    const a = arena.allocator();
    const here = try std.fmt.allocPrint(a, ".zig-cache/tmp/{s}", .{tmp.sub_path});
    const bin = try std.fs.path.join(a, &.{ here, "bin" });
    const environments = [_]Environment{
        .{ .cuda_home = here },
        .{ .cuda_path = here },
        .{ .virtual_env = here },
        .{ .conda_prefix = here },
        .{ .pythonpath = here },
        .{ .path = bin },
        .{ .home = here },
    };
    for (environments) |given| {
        var environment = given;
        environment.toolkit = &.{};
        environment.python_prefixes = &.{};
        const found = try candidates(a, std.testing.io, environment, &.{"libx.so"});
        try std.testing.expectEqual(1, found.len);
    }
}

test "an environment without anything leaves the system's name alone" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const found = try candidates(arena.allocator(), std.testing.io, .{
        .cuda_home = "no/such/folder",
        .toolkit = &.{},
        .python_prefixes = &.{},
    }, &.{"libx.so.2"});
    try std.testing.expectEqual(@as(usize, 1), found.len);
}
