//! Which algorithm won for which problem, measured once and kept in a file per GPU, library and
//! version. The file is a convenience: one that is missing, damaged, or cannot be written is as if
//! it were empty. It is written under another name and renamed, so that no reader sees half of it.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const library_folders = @import("../../nvidia/library_folders.zig");

/// More than all models and sizes of a long life, plans of 70 kB among them; a file beyond it is
/// damaged.
const file_bytes_max = 64 << 20;
const first_line = "basedxl choices 1";

pub const AlgorithmCache = struct {
    gpa: Allocator,
    io: Io,
    mutex: Io.Mutex = .init,
    /// Problem to algorithm, both as text without line breaks or tabs.
    entries: std.StringArrayHashMapUnmanaged([]const u8) = .empty,
    arena: std.heap.ArenaAllocator,
    /// "" where nothing is kept.
    path: []const u8 = "",
    /// GPU, library and version, as the file's second line says them.
    owner: []const u8 = "",
    is_changed: bool = false,

    /// `folder` null keeps nothing beyond the process.
    pub fn open(
        gpa: Allocator,
        io: Io,
        folder: ?[]const u8,
        owner: Owner,
    ) Allocator.Error!*AlgorithmCache {
        const cache = try gpa.create(AlgorithmCache);
        errdefer gpa.destroy(cache);
        cache.* = .{ .gpa = gpa, .io = io, .arena = .init(gpa) };
        errdefer cache.arena.deinit();
        const arena = cache.arena.allocator();
        cache.owner = try std.fmt.allocPrint(arena, "{s} {d} {s}", .{
            owner.library, owner.version, owner.gpu_name,
        });
        if (folder) |path| {
            cache.path = try std.fs.path.join(arena, &.{ path, try fileName(arena, owner) });
            try cache.read();
        }
        return cache;
    }

    /// Does not save.
    pub fn close(cache: *AlgorithmCache) void {
        cache.entries.deinit(cache.gpa);
        cache.arena.deinit();
        cache.gpa.destroy(cache);
    }

    /// What was chosen for a problem; valid until `close`.
    pub fn get(cache: *AlgorithmCache, problem: []const u8) ?[]const u8 {
        cache.mutex.lockUncancelable(cache.io);
        defer cache.mutex.unlock(cache.io);
        return cache.entries.get(problem);
    }

    /// Keeps a choice; the first one stays, so that ranks agree.
    pub fn put(
        cache: *AlgorithmCache,
        problem: []const u8,
        choice: []const u8,
    ) Allocator.Error!void {
        cache.mutex.lockUncancelable(cache.io);
        defer cache.mutex.unlock(cache.io);
        try cache.putOwned(problem, choice);
        cache.is_changed = true;
    }

    /// Writes what is new; what another process wrote meanwhile is kept. Failing is no error: it
    /// costs the next run its measurements again.
    pub fn save(cache: *AlgorithmCache) void {
        cache.mutex.lockUncancelable(cache.io);
        defer cache.mutex.unlock(cache.io);
        if (cache.path.len == 0 or !cache.is_changed) return;
        cache.read() catch return;
        cache.write() catch return;
        cache.is_changed = false;
    }

    // --- internal ---

    fn putOwned(
        cache: *AlgorithmCache,
        problem: []const u8,
        choice: []const u8,
    ) Allocator.Error!void {
        if (cache.entries.contains(problem)) return;
        const arena = cache.arena.allocator();
        const key = try arena.dupe(u8, problem);
        try cache.entries.put(cache.gpa, key, try arena.dupe(u8, choice));
    }

    /// Adds what the file has; nothing where it is not whole or another owner's.
    fn read(cache: *AlgorithmCache) Allocator.Error!void {
        const gpa = cache.gpa;
        const folder = Io.Dir.cwd();
        const limit: Io.Limit = .limited(file_bytes_max);
        const text = folder.readFileAlloc(cache.io, cache.path, gpa, limit) catch |err| {
            return if (err == error.OutOfMemory) error.OutOfMemory else {};
        };
        defer gpa.free(text);
        const body = checkedBody(text, cache.owner) orelse return;
        var lines = std.mem.tokenizeScalar(u8, body, '\n');
        while (lines.next()) |line| {
            const tab = std.mem.indexOfScalar(u8, line, '\t') orelse return;
            try cache.putOwned(line[0..tab], line[tab + 1 ..]);
        }
    }

    fn write(cache: *AlgorithmCache) !void {
        var text: std.Io.Writer.Allocating = .init(cache.gpa);
        defer text.deinit();
        const w = &text.writer;
        for (cache.entries.keys(), cache.entries.values()) |problem, choice| {
            try w.print("{s}\t{s}\n", .{ problem, choice });
        }
        const body = w.buffered();
        var whole: std.Io.Writer.Allocating = .init(cache.gpa);
        defer whole.deinit();
        try whole.writer.print("{s}\n{s}\n{x:0>16}\n{s}", .{
            first_line, cache.owner, checksum(body), body,
        });
        const folder = Io.Dir.cwd();
        try folder.createDirPath(cache.io, std.fs.path.dirname(cache.path) orelse ".");
        const arena = cache.arena.allocator();
        const temporary = try std.fmt.allocPrint(arena, "{s}.{d}", .{
            cache.path, std.c.getpid(),
        });
        errdefer folder.deleteFile(cache.io, temporary) catch {};
        const data = whole.writer.buffered();
        try folder.writeFile(cache.io, .{ .sub_path = temporary, .data = data });
        try folder.rename(temporary, folder, cache.path, cache.io);
    }
};

pub const Owner = struct {
    /// "cublaslt"
    library: []const u8,
    version: u32,
    gpu_name: []const u8,
};

/// BASEDXL_CACHE_DIR, else XDG_CACHE_HOME/basedxl, else ~/.cache/basedxl, else nowhere.
pub fn defaultFolder(arena: Allocator) Allocator.Error!?[]const u8 {
    if (library_folders.variable("BASEDXL_CACHE_DIR")) |folder| return folder;
    if (library_folders.variable("XDG_CACHE_HOME")) |cache| {
        return try std.fs.path.join(arena, &.{ cache, "basedxl" });
    }
    const home = library_folders.variable("HOME") orelse return null;
    return try std.fs.path.join(arena, &.{ home, ".cache", "basedxl" });
}

// --- internal ---

/// cublaslt-130101-NVIDIA_H200.txt
fn fileName(arena: Allocator, owner: Owner) Allocator.Error![]const u8 {
    const name = try std.fmt.allocPrint(arena, "{s}-{d}-{s}.txt", .{
        owner.library, owner.version, owner.gpu_name,
    });
    for (name) |*character| {
        const is_plain = std.ascii.isAlphanumeric(character.*) or
            std.mem.indexOfScalar(u8, "-.", character.*) != null;
        if (!is_plain) character.* = '_';
    }
    return name;
}

/// The lines after the head, or null where anything is not as it was written.
fn checkedBody(text: []const u8, owner: []const u8) ?[]const u8 {
    var rest = text;
    if (!std.mem.eql(u8, takeLine(&rest) orelse return null, first_line)) return null;
    if (!std.mem.eql(u8, takeLine(&rest) orelse return null, owner)) return null;
    const sum = takeLine(&rest) orelse return null;
    const expected = std.fmt.parseInt(u64, sum, 16) catch return null;
    return if (checksum(rest) == expected) rest else null;
}

fn takeLine(rest: *[]const u8) ?[]const u8 {
    const end = std.mem.indexOfScalar(u8, rest.*, '\n') orelse return null;
    defer rest.* = rest.*[end + 1 ..];
    return rest.*[0..end];
}

fn checksum(body: []const u8) u64 {
    return std.hash.Wyhash.hash(0, body);
}

const test_owner: Owner = .{ .library = "cublaslt", .version = 130101, .gpu_name = "NVIDIA H200" };
const test_file = "cublaslt-130101-NVIDIA_H200.txt";

fn testFolder(tmp: *const std.testing.TmpDir, buffer: []u8) []const u8 {
    return std.fmt.bufPrint(buffer, ".zig-cache/tmp/{s}/a/b", .{tmp.sub_path}) catch unreachable;
}

fn openTest(folder: []const u8, owner: Owner) !*AlgorithmCache {
    return AlgorithmCache.open(std.testing.allocator, std.testing.io, folder, owner);
}

test "algorithms outlive their process, for the same GPU, library and version" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [128]u8 = undefined;
    const folder = testFolder(&tmp, &buffer);
    const first = try openTest(folder, test_owner);
    defer first.close();
    try first.put("4096x640x640", "one");
    try first.put("4096x640x640", "another");
    first.save();
    const second = try openTest(folder, test_owner);
    defer second.close();
    try std.testing.expectEqualStrings("one", second.get("4096x640x640").?);
    try std.testing.expectEqual(@as(?[]const u8, null), second.get("8192x640x640"));
    var newer = test_owner;
    newer.version += 1;
    const third = try openTest(folder, newer);
    defer third.close();
    try std.testing.expectEqual(@as(?[]const u8, null), third.get("4096x640x640"));
    // Nothing temporary stays.
    var directory = try tmp.dir.openDir(std.testing.io, "a/b", .{ .iterate = true });
    defer directory.close(std.testing.io);
    var entries = directory.iterate();
    while (try entries.next(std.testing.io)) |entry| {
        try std.testing.expectEqualStrings(test_file, entry.name);
    }
}

test "two processes that save at once keep each other's algorithms" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [128]u8 = undefined;
    const folder = testFolder(&tmp, &buffer);
    const first = try openTest(folder, test_owner);
    defer first.close();
    const second = try openTest(folder, test_owner);
    defer second.close();
    try first.put("a", "1");
    try second.put("b", "2");
    first.save();
    second.save();
    const third = try openTest(folder, test_owner);
    defer third.close();
    try std.testing.expectEqualStrings("1", third.get("a").?);
    try std.testing.expectEqualStrings("2", third.get("b").?);
}

test "a file damaged anywhere counts as empty and is written anew" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    const io = std.testing.io;
    var buffer: [128]u8 = undefined;
    const folder = testFolder(&tmp, &buffer);
    {
        const cache = try openTest(folder, test_owner);
        defer cache.close();
        try cache.put("problem", "choice");
        cache.save();
    }
    var whole_buffer: [512]u8 = undefined;
    const path = "a/b/" ++ test_file;
    const whole = try tmp.dir.readFile(io, path, &whole_buffer);
    var damaged_buffer: [512]u8 = undefined;
    for (0..whole.len) |i| {
        // A byte changed, then the file cut there.
        const damaged = damaged_buffer[0..whole.len];
        @memcpy(damaged, whole);
        damaged[i] ^= 1 + @as(u8, @intCast(i % 100));
        for ([_][]const u8{ damaged, whole[0..i] }) |text| {
            try tmp.dir.writeFile(io, .{ .sub_path = path, .data = text });
            const cache = try openTest(folder, test_owner);
            defer cache.close();
            try std.testing.expectEqual(@as(?[]const u8, null), cache.get("problem"));
        }
    }
    const cache = try openTest(folder, test_owner);
    defer cache.close();
    try cache.put("problem", "choice");
    cache.save();
    try std.testing.expectEqualStrings(whole, try tmp.dir.readFile(io, path, &damaged_buffer));
}

test "a folder that cannot be made is as if nothing were kept" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    try tmp.dir.writeFile(std.testing.io, .{ .sub_path = "a", .data = "" });
    var buffer: [128]u8 = undefined;
    const cache = try openTest(testFolder(&tmp, &buffer), test_owner);
    defer cache.close();
    try cache.put("problem", "choice");
    cache.save();
    try std.testing.expectEqualStrings("choice", cache.get("problem").?);
}
