//! Panels of int8 weights in the user's cache folder, so that a model is rounded once: a file named
//! by the hash of what it was made of, written beside its place and renamed, mapped by later
//! starts. A file that is not whole, not this user's, or open to others' writing is made anew.

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const MappedFile = @import("../weights/mapped_file.zig").MappedFile;
const Model = @import("../model.zig").Model;
const Sha256 = std.crypto.hash.sha2.Sha256;

/// Raised with every change of rounding or layout.
const format_version = 1;
const magic = "BXL-int8";
/// Files that are kept: those that were written last.
const kept_count_max = 4;
const ending = ".int8";

/// A page, so that panels are aligned.
const head_bytes = 4096;
const Head = extern struct {
    magic: [8]u8,
    key: [32]u8,
    body_bytes: u64,
    checksum: u64,
};

pub const Key = [32]u8;

/// Of all that decides the panels: the files by path, size and time, and the weights.
pub fn keyOf(model: *const Model) Key {
    var hasher: Sha256 = .init(.{});
    hasher.update(std.mem.asBytes(&@as(u64, format_version)));
    for (&model.residents.values) |*maybe| {
        const resident = if (maybe.*) |*r| r else continue;
        var is_named = false;
        for (resident.weights.items) |weight| {
            if (weight.dtype != .i8) continue;
            if (!is_named) for (resident.checkpoint.files.items) |*file| {
                hasher.update(file.path);
                hasher.update(std.mem.asBytes(&file.size));
                hasher.update(std.mem.asBytes(&file.modified.nanoseconds));
            };
            is_named = true;
            hasher.update(weight.name);
            hasher.update(std.mem.asBytes(&weight.shape));
            hasher.update(std.mem.asBytes(&weight.int8_group));
        }
    }
    return hasher.finalResult();
}

/// The file's place in `folder`, of `arena`.
pub fn pathOf(arena: Allocator, folder: []const u8, key: *const Key) Allocator.Error![]const u8 {
    const name = std.fmt.bytesToHex(key[0..16].*, .lower) ++ ending;
    return std.fs.path.join(arena, &.{ folder, "int8", name });
}

/// The panels of `path`, mapped; null where they are not `bytes` whole ones of `key`.
pub fn open(
    io: Io,
    path: []const u8,
    key: *const Key,
    bytes: usize,
    interrupt: *std.atomic.Value(bool),
) ?MappedFile {
    if (!isOwn(path)) return null;
    // Failing is no error here: the panels are made again.
    var unread: Diagnostics = .{};
    const file = MappedFile.open(io, path, interrupt, &unread) catch return null;
    if (isWhole(file.memory, key, bytes)) return file;
    file.close(io);
    return null;
}

/// The panels of an open file.
pub fn panelsOf(file: *const MappedFile) []align(64) const u8 {
    return @alignCast(file.memory[head_bytes..]);
}

/// Writes `panels`. Failing is no error: it costs the next start its rounding again.
pub fn save(io: Io, path: []const u8, key: *const Key, panels: []const u8) void {
    trySave(io, path, key, panels) catch return;
    removeOld(io, path) catch return;
}

// --- internal ---

fn isWhole(memory: []align(std.heap.page_size_min) const u8, key: *const Key, bytes: usize) bool {
    if (memory.len != head_bytes + bytes) return false;
    const head: *const Head = @ptrCast(memory.ptr);
    return std.mem.eql(u8, &head.magic, magic) and std.mem.eql(u8, &head.key, key) and
        head.body_bytes == bytes and head.checksum == checksumOf(memory[head_bytes..]);
}

fn checksumOf(panels: []const u8) u64 {
    return std.hash.Wyhash.hash(format_version, panels);
}

/// Whether the file is this user's, and nobody else may write to it.
fn isOwn(path: []const u8) bool {
    if (builtin.os.tag != .linux) return true;
    const linux = std.os.linux;
    const name = std.posix.toPosixPath(path) catch return false;
    var stat: linux.Statx = undefined;
    const mask: linux.STATX = .{ .MODE = true, .UID = true };
    const result = linux.statx(linux.AT.FDCWD, &name, linux.AT.SYMLINK_NOFOLLOW, mask, &stat);
    if (linux.errno(result) != .SUCCESS) return false;
    const others_write = 0o022;
    return stat.uid == linux.geteuid() and stat.mode & others_write == 0;
}

fn trySave(io: Io, path: []const u8, key: *const Key, panels: []const u8) !void {
    const folder = Io.Dir.cwd();
    try folder.createDirPath(io, std.fs.path.dirname(path).?);
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const temporary = try std.fmt.bufPrint(&buffer, "{s}.{d}", .{ path, std.c.getpid() });
    errdefer folder.deleteFile(io, temporary) catch {};
    {
        const file = try folder.createFile(io, temporary, .{ .permissions = .fromMode(0o600) });
        defer file.close(io);
        var head: [head_bytes]u8 = @splat(0);
        const fields: Head = .{
            .magic = magic.*,
            .key = key.*,
            .body_bytes = panels.len,
            .checksum = checksumOf(panels),
        };
        @memcpy(head[0..@sizeOf(Head)], std.mem.asBytes(&fields));
        try file.writeStreamingAll(io, &head);
        try file.writeStreamingAll(io, panels);
    }
    try folder.rename(temporary, folder, path, io);
}

/// Leaves `path`, and of the others those that were written last.
fn removeOld(io: Io, path: []const u8) !void {
    var folder = try Io.Dir.cwd().openDir(io, std.fs.path.dirname(path).?, .{ .iterate = true });
    defer folder.close(io);
    var buffer: [Io.Dir.max_name_bytes]u8 = undefined;
    while (try oldestOfTooMany(io, folder, std.fs.path.basename(path), &buffer)) |name| {
        try folder.deleteFile(io, name);
    }
}

/// Null where there are no more than are kept. Clocks are coarse: several may be equally old.
fn oldestOfTooMany(io: Io, folder: Io.Dir, kept: []const u8, buffer: []u8) !?[]const u8 {
    var count: usize = 0;
    var oldest: []const u8 = "";
    var oldest_time: i96 = std.math.maxInt(i96);
    var entries = folder.iterate();
    while (try entries.next(io)) |entry| {
        if (!std.mem.endsWith(u8, entry.name, ending)) continue;
        count += 1;
        if (std.mem.eql(u8, entry.name, kept)) continue;
        const stat = folder.statFile(io, entry.name, .{}) catch continue;
        if (stat.mtime.nanoseconds >= oldest_time) continue;
        oldest_time = stat.mtime.nanoseconds;
        oldest = std.fmt.bufPrint(buffer, "{s}", .{entry.name}) catch unreachable;
    }
    return if (count > kept_count_max and oldest.len > 0) oldest else null;
}

const testing = std.testing;

test "panels are found again whole, and not where anything has changed" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const io = testing.io;
    const root = try tmp.dir.realPathFileAlloc(io, ".", arena.allocator());
    var panels: [640]u8 align(64) = undefined;
    for (&panels, 0..) |*byte, i| byte.* = @truncate(i *% 7);
    const key: Key = @splat(3);
    const other: Key = @splat(4);
    const path = try pathOf(arena.allocator(), root, &key);
    var interrupt: std.atomic.Value(bool) = .init(false);
    try testing.expectEqual(null, open(io, path, &key, panels.len, &interrupt));
    save(io, path, &key, &panels);
    {
        const file = open(io, path, &key, panels.len, &interrupt).?;
        defer file.close(io);
        try testing.expectEqualSlices(u8, &panels, panelsOf(&file));
    }
    try testing.expectEqual(null, open(io, path, &other, panels.len, &interrupt));
    try testing.expectEqual(null, open(io, path, &key, panels.len - 64, &interrupt));
    const cwd = Io.Dir.cwd();
    const whole = try cwd.readFileAlloc(io, path, arena.allocator(), .unlimited);
    whole[head_bytes + 100] ^= 1;
    try cwd.writeFile(io, .{ .sub_path = path, .data = whole });
    try testing.expectEqual(null, open(io, path, &key, panels.len, &interrupt));
    save(io, path, &key, &panels);
    const file = open(io, path, &key, panels.len, &interrupt).?;
    file.close(io);
}

test "the file written last is kept, and no more than a few others" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const io = testing.io;
    const root = try tmp.dir.realPathFileAlloc(io, ".", arena.allocator());
    var path: []const u8 = "";
    // At once: times may be equal.
    for (0..kept_count_max + 2) |i| {
        const key: Key = @splat(@intCast(i));
        path = try pathOf(arena.allocator(), root, &key);
        save(io, path, &key, "panels");
    }
    var folder = try tmp.dir.openDir(io, "int8", .{ .iterate = true });
    defer folder.close(io);
    var count: usize = 0;
    var entries = folder.iterate();
    while (try entries.next(io)) |_| count += 1;
    try testing.expectEqual(kept_count_max, count);
    try folder.access(io, std.fs.path.basename(path), .{});
}
