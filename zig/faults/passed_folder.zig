//! A folder as a file system of its own, whose calls fail or are slow where a test says so. The
//! kernel's requests are answered one after the other.

const std = @import("std");
const linux = std.os.linux;
const choices = @import("choices.zig");
const fuse = @import("fuse.zig");

/// `read`, `write`, `sync` and `look` (attributes, names) fail with errno `value`, EIO by default;
/// `slow` reads take `value` milliseconds more; `forget` makes the kernel read files anew.
pub const Kind = enum { read, write, sync, look, slow, forget };

const write_bytes_max = 128 * 1024;
const buffer_bytes = write_bytes_max + 4096;
const node_count_max = 4096;

pub const Folder = struct {
    gpa: std.mem.Allocator,
    /// The folder itself, under what is mounted over it.
    root: linux.fd_t,
    device: linux.fd_t,
    entries: *choices.Entries(Kind),
    /// Faults are of files whose names end so.
    suffix: []const u8,
    /// Paths of files that the kernel has asked about, by node - 1.
    paths: [node_count_max][:0]const u8 = undefined,
    node_count: std.atomic.Value(u64) = .init(0),

    /// Answers until nothing is mounted any more.
    pub fn serve(folder: *Folder) void {
        _ = folder.nodeOf(".") catch return;
        var request: [buffer_bytes]u8 align(8) = undefined;
        while (true) {
            const length = linux.read(folder.device, &request, request.len);
            switch (linux.errno(length)) {
                .SUCCESS => folder.answer(request[0..length]) catch return,
                .INTR, .AGAIN, .NOENT => {},
                else => return,
            }
        }
    }

    /// Whether a call of this kind, of the file of this path, fails; and how.
    fn faultOf(folder: *Folder, kind: Kind, path: []const u8) ?i64 {
        if (!std.mem.endsWith(u8, path, folder.suffix)) return null;
        const entry = &folder.entries[@intFromEnum(kind)];
        return if (entry.choose()) entry.value else null;
    }

    fn check(folder: *Folder, kind: Kind, node: u64) Error!void {
        const value = folder.faultOf(kind, folder.pathOf(node)) orelse return;
        failed_errno = if (value == 0) .IO else @enumFromInt(value);
        return error.Failed;
    }

    /// The kernel's pages of all files are dropped, where a test asks for it. Not by the thread
    /// that answers: the kernel may wait for a page that it has asked for.
    pub fn forgetWhereAsked(folder: *Folder) void {
        const entry = &folder.entries[@intFromEnum(Kind.forget)];
        if (@atomicLoad(u64, &entry.first, .acquire) == 0) return;
        @atomicStore(u64, &entry.first, 0, .release);
        for (1..folder.node_count.load(.acquire) + 1) |node| {
            const which: fuse.ForgetContents = .{ .node = node };
            folder.send(0, fuse.forget_contents, std.mem.asBytes(&which));
        }
        _ = @atomicRmw(u64, &entry.hits, .Add, 1, .release);
    }

    fn answer(folder: *Folder, request: []align(8) u8) error{Unmounted}!void {
        const header: *const fuse.RequestHeader = @ptrCast(request.ptr);
        const rest = request[@sizeOf(fuse.RequestHeader)..];
        switch (header.opcode) {
            .forget, .batch_forget, .interrupt => return,
            .destroy => return error.Unmounted,
            else => {},
        }
        var reply: [buffer_bytes]u8 align(8) = undefined;
        const bytes = folder.replyTo(header, @alignCast(rest), &reply) catch |err| {
            const errno: linux.E = switch (err) {
                error.Failed => failed_errno,
                error.OutOfMemory => .NOMEM,
                error.Unknown => .NOSYS,
            };
            return folder.send(header.unique, -@as(i32, @intFromEnum(errno)), "");
        };
        folder.send(header.unique, 0, bytes);
    }

    fn send(folder: *Folder, unique: u64, errno: i32, bytes: []const u8) void {
        const header: fuse.ReplyHeader = .{
            .len = @intCast(@sizeOf(fuse.ReplyHeader) + bytes.len),
            .@"error" = errno,
            .unique = unique,
        };
        const parts = [_]std.posix.iovec_const{
            .{ .base = @ptrCast(&header), .len = @sizeOf(fuse.ReplyHeader) },
            .{ .base = bytes.ptr, .len = bytes.len },
        };
        _ = linux.writev(folder.device, &parts, if (bytes.len == 0) 1 else 2);
    }

    fn replyTo(
        folder: *Folder,
        header: *const fuse.RequestHeader,
        rest: []align(8) const u8,
        out: []align(8) u8,
    ) Error![]const u8 {
        return switch (header.opcode) {
            .init => put(out, fuse.InitOut{
                .max_readahead = as(fuse.InitIn, rest).max_readahead,
                .flags = fuse.init_flags & as(fuse.InitIn, rest).flags,
                .max_write = write_bytes_max,
            }),
            .lookup => folder.lookUp(try folder.childOf(header.node, rest), out),
            .getattr => folder.attributesOf(header.node, out),
            .setattr => folder.setAttributes(header.node, as(fuse.SetAttributesIn, rest), out),
            .open, .opendir => folder.open(header, as(fuse.OpenIn, rest).flags, out),
            .create => folder.create(header.node, rest, out),
            .read => folder.read(header.node, as(fuse.TransferIn, rest), out),
            .readdir => list(as(fuse.TransferIn, rest), out),
            .write => folder.write(header.node, rest, out),
            .fsync => folder.sync(header.node, as(fuse.ReleaseIn, rest).handle),
            .release, .releasedir => release(as(fuse.ReleaseIn, rest).handle),
            .statfs => put(out, fuse.StatfsOut{}),
            .mkdir, .unlink, .rmdir, .rename, .rename2 => folder.change(header, rest, out),
            else => error.Unknown,
        };
    }

    // --- names ---

    fn pathOf(folder: *const Folder, node: u64) [:0]const u8 {
        return folder.paths[node - 1];
    }

    /// The node of a path; a new one where the kernel has not asked about it yet.
    fn nodeOf(folder: *Folder, path: []const u8) Error!u64 {
        const count = folder.node_count.load(.acquire);
        for (folder.paths[0..count], 1..) |known, node| {
            if (std.mem.eql(u8, known, path)) return node;
        }
        if (count == node_count_max) return error.OutOfMemory;
        folder.paths[count] = try folder.gpa.dupeZ(u8, path);
        folder.node_count.store(count + 1, .release);
        return count + 1;
    }

    /// The path of what a request names in a folder.
    fn childOf(folder: *Folder, parent: u64, rest: []const u8) Error![:0]const u8 {
        const name = std.mem.sliceTo(rest, 0);
        const both = .{ folder.pathOf(parent), name };
        return std.fmt.allocPrintSentinel(folder.gpa, "{s}/{s}", both, 0);
    }

    /// A file of another name is another one from now on, as are those in a folder.
    fn rename(folder: *Folder, from: []const u8, to: []const u8) Error!void {
        const count = folder.node_count.load(.acquire);
        for (folder.paths[0..count]) |*path| {
            if (std.mem.eql(u8, path.*, to)) path.* = "(replaced)";
            if (!std.mem.startsWith(u8, path.*, from)) continue;
            const end = path.*[from.len..];
            if (end.len > 0 and end[0] != '/') continue;
            path.* = try std.fmt.allocPrintSentinel(folder.gpa, "{s}{s}", .{ to, end }, 0);
        }
    }

    // --- requests ---

    fn stat(folder: *const Folder, path: [:0]const u8) Error!linux.Statx {
        var found: linux.Statx = undefined;
        const flags = linux.AT.SYMLINK_NOFOLLOW;
        _ = try done(linux.statx(folder.root, path, flags, linux.STATX.BASIC_STATS, &found));
        return found;
    }

    /// What is not there gets no node.
    fn lookUp(folder: *Folder, path: [:0]const u8, out: []align(8) u8) Error![]const u8 {
        const found = try folder.stat(path);
        const node = try folder.nodeOf(path);
        try folder.check(.look, node);
        return put(out, fuse.EntryOut{ .node = node, .attributes = .of(&found, node) });
    }

    fn attributesOf(folder: *Folder, node: u64, out: []align(8) u8) Error![]const u8 {
        try folder.check(.look, node);
        const found = try folder.stat(folder.pathOf(node));
        return put(out, fuse.AttributesOut{ .attributes = .of(&found, node) });
    }

    fn setAttributes(
        folder: *Folder,
        node: u64,
        in: fuse.SetAttributesIn,
        out: []align(8) u8,
    ) Error![]const u8 {
        const path = folder.pathOf(node);
        if (in.valid & fuse.SetAttributesIn.mode_bit != 0)
            _ = try done(linux.fchmodat(folder.root, path, in.mode & 0o7777));
        if (in.valid & fuse.SetAttributesIn.size_bit != 0) {
            try folder.check(.write, node);
            const file = try done(linux.openat(folder.root, path, .{ .ACCMODE = .WRONLY }, 0));
            defer _ = linux.close(@intCast(file));
            _ = try done(linux.ftruncate(@intCast(file), @intCast(in.size)));
        }
        return folder.attributesOf(node, out);
    }

    fn open(
        folder: *Folder,
        header: *const fuse.RequestHeader,
        flags: u32,
        out: []align(8) u8,
    ) Error![]const u8 {
        const file = try folder.opened(header.node, flags, 0);
        return put(out, fuse.OpenOut{ .handle = file });
    }

    fn opened(folder: *Folder, node: u64, flags: u32, mode: u32) Error!u64 {
        var how: linux.O = @bitCast(flags);
        // Offsets come with each write.
        how.APPEND = false;
        how.CLOEXEC = true;
        return done(linux.openat(folder.root, folder.pathOf(node), how, mode));
    }

    fn create(
        folder: *Folder,
        parent: u64,
        rest: []align(8) const u8,
        out: []align(8) u8,
    ) Error![]const u8 {
        const in = as(fuse.CreateIn, rest);
        const path = try folder.childOf(parent, rest[@sizeOf(fuse.CreateIn)..]);
        const node = try folder.nodeOf(path);
        try folder.check(.write, node);
        const file = try folder.opened(node, in.flags, in.mode & ~in.umask);
        const found = try folder.stat(path);
        const entry: fuse.EntryOut = .{ .node = node, .attributes = .of(&found, node) };
        const first = (try put(out, entry)).len;
        const second = try put(@alignCast(out[first..]), fuse.OpenOut{ .handle = file });
        return out[0 .. first + second.len];
    }

    fn read(
        folder: *Folder,
        node: u64,
        in: fuse.TransferIn,
        out: []align(8) u8,
    ) Error![]const u8 {
        if (folder.faultOf(.slow, folder.pathOf(node))) |milliseconds| {
            const ns = milliseconds * std.time.ns_per_ms;
            _ = linux.nanosleep(&.{ .sec = 0, .nsec = ns }, null);
        }
        try folder.check(.read, node);
        const size = @min(in.size, out.len);
        const count = linux.pread(@intCast(in.handle), out.ptr, size, @intCast(in.offset));
        return out[0..try done(count)];
    }

    fn write(
        folder: *Folder,
        node: u64,
        rest: []align(8) const u8,
        out: []align(8) u8,
    ) Error![]const u8 {
        const in = as(fuse.TransferIn, rest);
        try folder.check(.write, node);
        const bytes = rest[@sizeOf(fuse.TransferIn)..][0..in.size];
        const offset: i64 = @intCast(in.offset);
        const count = try done(linux.pwrite(@intCast(in.handle), bytes.ptr, bytes.len, offset));
        return put(out, fuse.WriteOut{ .size = @intCast(count) });
    }

    fn sync(folder: *Folder, node: u64, handle: u64) Error![]const u8 {
        try folder.check(.sync, node);
        _ = try done(linux.fsync(@intCast(handle)));
        return "";
    }

    fn change(
        folder: *Folder,
        header: *const fuse.RequestHeader,
        rest: []align(8) const u8,
        out: []align(8) u8,
    ) Error![]const u8 {
        const root = folder.root;
        switch (header.opcode) {
            .mkdir => {
                const path = try folder.childOf(header.node, rest[@sizeOf(fuse.MakeFolderIn)..]);
                const in = as(fuse.MakeFolderIn, rest);
                _ = try done(linux.mkdirat(root, path, in.mode & ~in.umask));
                return folder.lookUp(path, out);
            },
            .unlink, .rmdir => {
                const path = try folder.childOf(header.node, rest);
                const flags: u32 = if (header.opcode == .rmdir) linux.AT.REMOVEDIR else 0;
                _ = try done(linux.unlinkat(root, path, flags));
            },
            else => {
                const is_second = header.opcode == .rename2;
                const flags = if (is_second) as(fuse.Rename2In, rest).flags else 0;
                const in_bytes: usize =
                    if (is_second) @sizeOf(fuse.Rename2In) else @sizeOf(fuse.RenameIn);
                const names = rest[in_bytes..];
                const from = try folder.childOf(header.node, names);
                const new_parent = as(fuse.RenameIn, rest).folder;
                const second = names[std.mem.sliceTo(names, 0).len + 1 ..];
                const to = try folder.childOf(new_parent, second);
                const how: linux.RENAME = @bitCast(flags);
                _ = try done(linux.renameat2(root, from, root, to, how));
                try folder.rename(from, to);
            },
        }
        return "";
    }
};

// --- internal ---

const Error = error{ Failed, OutOfMemory, Unknown };

/// Of `error.Failed`; the thread that answers is one.
var failed_errno: linux.E = .SUCCESS;

/// The result of a system call.
fn done(result: usize) Error!usize {
    const errno = linux.errno(result);
    if (errno == .SUCCESS) return result;
    failed_errno = errno;
    return error.Failed;
}

fn as(comptime T: type, bytes: []align(8) const u8) T {
    var value: T = undefined;
    const count = @min(@sizeOf(T), bytes.len);
    @memcpy(std.mem.asBytes(&value)[0..count], bytes[0..count]);
    return value;
}

fn put(out: []align(8) u8, value: anytype) Error![]const u8 {
    const bytes = std.mem.asBytes(&value);
    @memcpy(out[0..bytes.len], bytes);
    return out[0..bytes.len];
}

fn release(handle: u64) Error![]const u8 {
    _ = linux.close(@intCast(handle));
    return "";
}

/// Entries of a folder, as many as fit, from where the kernel has left off.
fn list(in: fuse.TransferIn, out: []align(8) u8) Error![]const u8 {
    const file: linux.fd_t = @intCast(in.handle);
    _ = try done(linux.lseek(file, @intCast(in.offset), linux.SEEK.SET));
    var found: [4096]u8 align(8) = undefined;
    // The kernel's entries are at most twice as long.
    const length = try done(linux.getdents64(file, &found, @min(found.len, in.size / 2)));
    var writer: std.Io.Writer = .fixed(out);
    var at: usize = 0;
    while (at < length) {
        const entry: *align(1) const linux.dirent64 = @ptrCast(&found[at]);
        const name = std.mem.sliceTo(found[at + @offsetOf(linux.dirent64, "name") ..], 0);
        const header: fuse.FolderEntry = .{
            .ino = entry.ino,
            .off = entry.off,
            .name_bytes = @intCast(name.len),
            .type = entry.type,
        };
        writer.writeAll(std.mem.asBytes(&header)) catch break;
        writer.writeAll(name) catch break;
        writer.splatByteAll(0, std.mem.alignForward(usize, name.len, 8) - name.len) catch break;
        at += entry.reclen;
    }
    return writer.buffered();
}
