//! Strings from files as messages show them: control characters escaped, long ones cut.

const std = @import("std");

const bytes_max = 120;
const ellipsis = "...";

/// For the format "{f}".
pub fn shown(text: []const u8) Shown {
    return .{ .text = text };
}

pub const Shown = struct {
    text: []const u8,

    pub fn format(self: Shown, w: *std.Io.Writer) std.Io.Writer.Error!void {
        var view = std.unicode.Utf8View.init(self.text) catch return w.writeAll("(not UTF-8)");
        var written: usize = 0;
        var characters = view.iterator();
        while (characters.nextCodepointSlice()) |slice| {
            const character = std.unicode.utf8Decode(slice) catch unreachable;
            var buffer: [8]u8 = undefined;
            // C0, DEL and C1: terminals interpret them.
            const is_control = character < 0x20 or (character >= 0x7f and character < 0xa0);
            const text = if (is_control)
                std.fmt.bufPrint(&buffer, "\\u{x:0>4}", .{character}) catch unreachable
            else
                slice;
            const is_cut = self.text.len > bytes_max and
                written + text.len > bytes_max - ellipsis.len;
            if (is_cut or written + text.len > bytes_max) return w.writeAll(ellipsis);
            try w.writeAll(text);
            written += text.len;
        }
    }
};

test "control characters are escaped, long text is cut between characters" {
    const cases = [_][2][]const u8{
        .{ "", "" },
        .{ "unet.conv_in", "unet.conv_in" },
        .{ "a\x1b]0;b\x07\u{9b}\x7f", "a\\u001b]0;b\\u0007\\u009b\\u007f" },
        .{ "x" ** 120, "x" ** 120 },
        .{ "x" ** 121, "x" ** 117 ++ "..." },
        .{ "\u{e4}" ** 100, "\u{e4}" ** 58 ++ "..." },
        .{ "\xff", "(not UTF-8)" },
    };
    for (cases) |case| {
        var buffer: [256]u8 = undefined;
        const text = try std.fmt.bufPrint(&buffer, "{f}", .{shown(case[0])});
        try std.testing.expectEqualStrings(case[1], text);
    }
    var buffer: [256]u8 = undefined;
    const escapes = try std.fmt.bufPrint(&buffer, "{f}", .{shown("\x1b" ** 100)});
    try std.testing.expectEqual(@as(usize, 123), escapes.len);
}
