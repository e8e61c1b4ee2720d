//! The message of the first error. Zig errors carry no text, so it is kept here; ranks that fail
//! because another rank failed do not overwrite it.

const std = @import("std");

pub const Diagnostics = struct {
    claimed: std.atomic.Value(bool) = .init(false),
    complete: std.atomic.Value(bool) = .init(false),
    buffer: [1024]u8 = undefined,
    len: usize = 0,

    /// Keeps the message if it is the first and returns `err`, for `return d.fail(...)`.
    pub fn fail(
        d: *Diagnostics,
        err: anytype,
        comptime format: []const u8,
        args: anytype,
    ) @TypeOf(err) {
        if (d.claimed.swap(true, .acq_rel)) return err;
        if (std.fmt.bufPrint(&d.buffer, format, args)) |text| {
            d.len = text.len;
        } else |_| {
            d.len = d.buffer.len;
        }
        d.complete.store(true, .release);
        return err;
    }

    /// The message, or "" where nothing failed.
    pub fn message(d: *const Diagnostics) []const u8 {
        return if (d.complete.load(.acquire)) d.buffer[0..d.len] else "";
    }

    pub fn reset(d: *Diagnostics) void {
        d.complete.store(false, .release);
        d.claimed.store(false, .release);
    }
};

test "the first sentence stays" {
    var d: Diagnostics = .{};
    try std.testing.expectEqualStrings("", d.message());
    try std.testing.expectEqual(error.First, d.fail(error.First, "tensor {s}", .{"a"}));
    try std.testing.expectEqual(error.Second, d.fail(error.Second, "tensor {s}", .{"b"}));
    try std.testing.expectEqualStrings("tensor a", d.message());
}

test "a sentence longer than the buffer is cut, not lost" {
    var d: Diagnostics = .{};
    d.fail(error.Long, "{s}", .{"x" ** 2000}) catch {};
    try std.testing.expectEqual(@as(usize, 1024), d.message().len);
}
