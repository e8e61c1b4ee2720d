//! A run of `verify` on a thread of its own, whose text is fetched as it comes: for callers that
//! must not wait.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Options = @import("options.zig").Options;
const Report = @import("report.zig").Report;
const run = @import("run.zig").run;

pub const VerifyState = enum(u32) {
    running = 0,
    /// Everything agrees.
    passed = 1,
    /// Something does not, or did not run.
    failed = 2,
};

pub const Verification = struct {
    gpa: Allocator,
    io: Io,
    /// The texts of `options`.
    arena: std.heap.ArenaAllocator,
    options: Options,
    thread: std.Thread = undefined,
    state: std.atomic.Value(VerifyState) = .init(.running),
    mutex: Io.Mutex = .init,
    /// What was not fetched yet.
    text: std.ArrayList(u8) = .empty,
    writer: Io.Writer,
    write_buffer: [1024]u8 = undefined,

    /// Starts it; copies the texts of `options`.
    pub fn open(
        gpa: Allocator,
        io: Io,
        options: Options,
    ) (Allocator.Error || error{ThreadsUnavailable})!*Verification {
        const v = try gpa.create(Verification);
        errdefer gpa.destroy(v);
        v.* = .{
            .gpa = gpa,
            .io = io,
            .arena = .init(gpa),
            .options = options,
            .writer = .{ .vtable = &.{ .drain = drain }, .buffer = undefined },
        };
        errdefer v.arena.deinit();
        v.writer.buffer = &v.write_buffer;
        v.options.library = try v.arena.allocator().dupeZ(u8, options.library);
        v.options.only = try v.arena.allocator().dupe(u8, options.only);
        v.thread = std.Thread.spawn(.{}, work, .{v}) catch return error.ThreadsUnavailable;
        return v;
    }

    /// Once `state` is not `running`.
    pub fn close(v: *Verification) void {
        v.thread.join();
        v.text.deinit(v.gpa);
        v.arena.deinit();
        v.gpa.destroy(v);
    }

    /// Moves text that has come since, as much as `buffer` takes; its bytes.
    pub fn read(v: *Verification, buffer: []u8) usize {
        v.mutex.lockUncancelable(v.io);
        defer v.mutex.unlock(v.io);
        const count = @min(buffer.len, v.text.items.len);
        @memcpy(buffer[0..count], v.text.items[0..count]);
        v.text.replaceRangeAssumeCapacity(0, count, &.{});
        return count;
    }

    // --- internal ---

    fn work(v: *Verification) void {
        var report: Report = .init(v.gpa, &v.writer, v.options.is_json);
        defer report.deinit();
        const is_done = if (run(v.gpa, v.io, &v.options, &report)) true else |_| false;
        const has_passed = is_done and report.hasPassed();
        v.state.store(if (has_passed) .passed else .failed, .release);
    }

    /// `Io.Writer`'s way out of its buffer.
    fn drain(w: *Io.Writer, data: []const []const u8, splat: usize) Io.Writer.Error!usize {
        const v: *Verification = @alignCast(@fieldParentPtr("writer", w));
        v.mutex.lockUncancelable(v.io);
        defer v.mutex.unlock(v.io);
        v.text.appendSlice(v.gpa, w.buffered()) catch return error.WriteFailed;
        w.end = 0;
        var count: usize = 0;
        for (data, 0..) |bytes, i| {
            const times = if (i + 1 == data.len) splat else 1;
            for (0..times) |_| {
                v.text.appendSlice(v.gpa, bytes) catch return error.WriteFailed;
                count += bytes.len;
            }
        }
        return count;
    }
};

test "a run without libraries ends with a sentence, in parts of any length" {
    const options: Options = .{ .library = "no/such/library.so", .only = "geglu" };
    const v: *Verification = try .open(std.testing.allocator, std.testing.io, options);
    defer v.close();
    var text: std.ArrayList(u8) = .empty;
    defer text.deinit(std.testing.allocator);
    while (true) {
        const has_ended = v.state.load(.acquire) != .running;
        var buffer: [7]u8 = undefined;
        const count = v.read(&buffer);
        try text.appendSlice(std.testing.allocator, buffer[0..count]);
        if (has_ended and count == 0) break;
        if (count == 0) std.Thread.yield() catch {};
    }
    try std.testing.expectEqual(.failed, v.state.load(.acquire));
    try std.testing.expect(std.mem.indexOf(u8, text.items, "no/such/library.so") != null);
    try std.testing.expect(std.mem.endsWith(u8, text.items, "not run.\n"));
}
