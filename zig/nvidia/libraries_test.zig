//! The search for libraries with real files in fake folders: copies of the emulated library under
//! the vendor's names, and files that are no libraries at all.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const fixtures = @import("../emulator/fixture.zig");
const libraries = @import("libraries.zig");
const library_path = @import("../emulator/library_fixture.zig").library_path;
const Io = std.Io;

const Fake = struct {
    arena: std.heap.ArenaAllocator,
    tmp: std.testing.TmpDir,
    root: []const u8,

    fn init() !Fake {
        var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
        const tmp = std.testing.tmpDir(.{});
        // Whole: relative folders are passed over, since they would be the user's.
        const root = try tmp.dir.realPathFileAlloc(std.testing.io, ".", arena.allocator());
        return .{ .arena = arena, .tmp = tmp, .root = root };
    }

    fn deinit(fake: *Fake) void {
        fake.tmp.cleanup();
        fake.arena.deinit();
    }

    fn path(fake: *Fake, name: []const u8) ![]const u8 {
        return std.fs.path.join(fake.arena.allocator(), &.{ fake.root, name });
    }

    fn copy(fake: *Fake, name: []const u8) !void {
        const io = std.testing.io;
        try fake.tmp.dir.createDirPath(io, std.fs.path.dirname(name).?);
        try Io.Dir.cwd().copyFile(library_path, fake.tmp.dir, name, io, .{});
    }

    fn search(fake: *Fake) !libraries.Search {
        return libraries.search(fake.arena.allocator(), std.testing.io, .system, .{
            .cuda_home = try fake.path("cuda"),
            .virtual_env = try fake.path("venv"),
            .toolkit = &.{},
            .python_prefixes = &.{},
        });
    }
};

test "a library in CUDA_HOME comes before one of a Python environment" {
    var fake: Fake = try .init();
    defer fake.deinit();
    try fake.copy("venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9");
    var found = try fake.search();
    // A machine that has its own is asked first; nothing to see here then.
    if (std.mem.indexOf(u8, found.cudnn.path, fake.root) == null) return error.SkipZigTest;
    try std.testing.expect(std.mem.indexOf(u8, found.cudnn.path, "site-packages") != null);
    try std.testing.expectEqual(@as(u32, 92400), found.cudnn.version);
    try fake.copy("cuda/targets/x86_64-linux/lib/libcudnn.so.9");
    found = try fake.search();
    try std.testing.expect(std.mem.indexOf(u8, found.cudnn.path, "targets") != null);
}

test "a file that is no library is passed over, and named where nothing else is found" {
    var fake: Fake = try .init();
    defer fake.deinit();
    const io = std.testing.io;
    try fake.tmp.dir.createDirPath(io, "cuda/lib64");
    const name = "cuda/lib64/libnccl.so.2";
    try fake.tmp.dir.writeFile(io, .{ .sub_path = name, .data = "not a library" });
    var found = try fake.search();
    if (found.nccl.table != null) return error.SkipZigTest;
    const sentence = try found.nccl.sentence(fake.arena.allocator());
    try std.testing.expect(std.mem.indexOf(u8, sentence, name) != null);
    try std.testing.expect(std.mem.indexOf(u8, sentence, "pip install") != null);
    try fake.copy("venv/lib/python3.9/site-packages/nvidia/nccl/lib/libnccl.so.2");
    found = try fake.search();
    try std.testing.expect(found.nccl.table != null);
}

test "a driver older than the kernels' toolkit is refused by name and number" {
    var fixture: fixtures.Fixture = try .init(1);
    defer fixture.deinit();
    defer fixture.emulator.bxl_emulator_set_driver(13000);
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = arena.allocator();
    const source: libraries.Source = .{ .emulated = library_path };
    // The tests are built as if CUDA 13.0 had made the kernels.
    for ([_]u32{ 12000, 12040, 12090 }) |version| {
        fixture.emulator.bxl_emulator_set_driver(version);
        var diagnostics: Diagnostics = .{};
        const opened = libraries.open(a, std.testing.io, source, .{}, &diagnostics);
        try std.testing.expectError(error.LibraryMissing, opened);
        const minor = version % 1000 / 10;
        const start = try std.fmt.allocPrint(a, "The kernels were built by CUDA 13.0 and need " ++
            "driver 580 or newer; this machine's driver is of CUDA 12.{d}: update ", .{minor});
        try std.testing.expectStringStartsWith(diagnostics.message(), start);
    }
    for ([_]u32{ 13000, 13010, 14000 }) |version| {
        fixture.emulator.bxl_emulator_set_driver(version);
        var diagnostics: Diagnostics = .{};
        _ = try libraries.open(a, std.testing.io, source, .{}, &diagnostics);
    }
}
