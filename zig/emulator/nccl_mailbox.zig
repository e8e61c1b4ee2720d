//! Ranks of other processes, for the emulated NCCL: a folder that the unique id names, in which
//! each rank leaves its name, and each message is a file until its receiver takes it. A message is
//! sent when its turn comes in the sender's stream, whether the receiver is there or not.

const std = @import("std");

/// With the 0 that ends it.
pub const path_bytes_max = 112;

pub const Mailbox = struct {
    folder: [path_bytes_max]u8 = @splat(0),

    /// The folder of an id, created by `announce`.
    pub fn name(mailbox: *Mailbox, key: u64) void {
        const set = if (std.c.getenv("TMPDIR")) |value| std.mem.span(value) else "/tmp";
        mailbox.* = .{};
        mailbox.print(set, key) catch mailbox.print("/tmp", key) catch unreachable;
    }

    /// This rank is here.
    pub fn announce(mailbox: *const Mailbox, rank: usize) bool {
        _ = std.c.mkdir(@ptrCast(&mailbox.folder), 0o700);
        var buffer: Buffer = undefined;
        return write(pathOf(mailbox, &buffer, "rank-{d}", .{rank}), &.{});
    }

    pub fn isThere(mailbox: *const Mailbox, rank: usize) bool {
        var buffer: Buffer = undefined;
        return std.c.access(pathOf(mailbox, &buffer, "rank-{d}", .{rank}), 0) == 0;
    }

    /// The last one to leave takes the folder along, unless there is still mail. Where this rank
    /// has come to stays known to those who are there: they may yet have to see it.
    pub fn leave(mailbox: *const Mailbox, rank: usize, rank_count: usize) void {
        var buffer: Buffer = undefined;
        // First: of two that leave at once, one at least sees that the other has gone.
        _ = std.c.unlink(pathOf(mailbox, &buffer, "rank-{d}", .{rank}));
        for (0..rank_count) |peer| {
            if (!mailbox.isThere(peer)) mailbox.forget(rank, peer);
        }
        _ = std.c.rmdir(@ptrCast(&mailbox.folder));
    }

    /// `rank` is in the call of its first send to `peer`, or receive from it.
    pub fn come(mailbox: *const Mailbox, rank: usize, peer: usize, is_send: bool) void {
        var buffer: Buffer = undefined;
        _ = write(mailbox.pathOfContact(&buffer, rank, peer, is_send), &.{});
    }

    pub fn hasCome(mailbox: *const Mailbox, rank: usize, peer: usize, is_send: bool) bool {
        var buffer: Buffer = undefined;
        return std.c.access(mailbox.pathOfContact(&buffer, rank, peer, is_send), 0) == 0;
    }

    /// When both have left.
    fn forget(mailbox: *const Mailbox, rank: usize, peer: usize) void {
        for ([_]bool{ false, true }) |is_send| {
            var buffer: Buffer = undefined;
            _ = std.c.unlink(mailbox.pathOfContact(&buffer, rank, peer, is_send));
            _ = std.c.unlink(mailbox.pathOfContact(&buffer, peer, rank, is_send));
        }
    }

    pub const Letter = struct { sender: u32, receiver: u32, index: usize };

    /// Whole or not at all: it gets its name once it is written.
    pub fn post(mailbox: *const Mailbox, letter: Letter, bytes: []const u8) bool {
        var buffer: Buffer = undefined;
        var draft_buffer: Buffer = undefined;
        const path = mailbox.pathOfLetter(&buffer, letter, "");
        const draft = mailbox.pathOfLetter(&draft_buffer, letter, ".part");
        return write(draft, bytes) and std.c.rename(draft, path) == 0;
    }

    pub fn has(mailbox: *const Mailbox, letter: Letter) bool {
        var buffer: Buffer = undefined;
        return std.c.access(mailbox.pathOfLetter(&buffer, letter, ""), 0) == 0;
    }

    /// False where the letter is not as long as `target`.
    pub fn take(mailbox: *const Mailbox, letter: Letter, target: []u8) bool {
        var buffer: Buffer = undefined;
        const path = mailbox.pathOfLetter(&buffer, letter, "");
        const file = std.c.open(path, .{ .ACCMODE = .RDONLY });
        if (file < 0) return false;
        defer _ = std.c.close(file);
        _ = std.c.unlink(path);
        var done: usize = 0;
        while (done < target.len) {
            const count = std.c.read(file, target[done..].ptr, target.len - done);
            if (count <= 0) return false;
            done += @intCast(count);
        }
        var more: [1]u8 = undefined;
        return std.c.read(file, &more, 1) == 0;
    }

    // --- internal ---

    const Buffer = [path_bytes_max + 64]u8;

    fn print(mailbox: *Mailbox, parent: []const u8, key: u64) !void {
        const room = mailbox.folder[0 .. path_bytes_max - 1];
        _ = try std.fmt.bufPrint(room, "{s}/basedxl-nccl-{x:0>16}", .{ parent, key });
    }

    fn pathOf(
        mailbox: *const Mailbox,
        buffer: *Buffer,
        comptime format: []const u8,
        args: anytype,
    ) [*:0]const u8 {
        const folder = std.mem.sliceTo(&mailbox.folder, 0);
        const all = .{folder} ++ args;
        return (std.fmt.bufPrintZ(buffer, "{s}/" ++ format, all) catch unreachable).ptr;
    }

    fn pathOfLetter(
        mailbox: *const Mailbox,
        buffer: *Buffer,
        l: Letter,
        ending: []const u8,
    ) [*:0]const u8 {
        const args = .{ l.sender, l.receiver, l.index, ending };
        return mailbox.pathOf(buffer, "from-{d}-to-{d}-{d}{s}", args);
    }

    fn pathOfContact(
        mailbox: *const Mailbox,
        buffer: *Buffer,
        rank: usize,
        peer: usize,
        is_send: bool,
    ) [*:0]const u8 {
        const verb: []const u8 = if (is_send) "sends" else "receives";
        return mailbox.pathOf(buffer, "rank-{d}-{s}-{d}", .{ rank, verb, peer });
    }

    fn write(path: [*:0]const u8, bytes: []const u8) bool {
        const mode: std.c.mode_t = 0o600;
        const file = std.c.open(path, .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true }, mode);
        if (file < 0) return false;
        defer _ = std.c.close(file);
        var done: usize = 0;
        while (done < bytes.len) {
            const count = std.c.write(file, bytes[done..].ptr, bytes.len - done);
            if (count <= 0) return false;
            done += @intCast(count);
        }
        return true;
    }
};

test "a rank that has left has still come to those who are there" {
    var mailbox: Mailbox = undefined;
    mailbox.name(@intCast(std.c.getpid()));
    for (0..3) |rank| try std.testing.expect(mailbox.announce(rank));
    mailbox.come(2, 0, true);
    mailbox.come(0, 2, false);
    mailbox.leave(2, 3);
    try std.testing.expect(!mailbox.isThere(2));
    try std.testing.expect(mailbox.hasCome(2, 0, true));
    mailbox.leave(1, 3);
    mailbox.leave(0, 3);
    try std.testing.expect(std.c.access(@ptrCast(&mailbox.folder), 0) != 0);
}
