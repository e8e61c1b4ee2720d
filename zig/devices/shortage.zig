//! Memory that an image needs and a device has not got.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Shortage = struct {
    /// null on the CPU.
    gpu: ?u32 = null,
    /// Bytes of weights that are still to be loaded.
    weights: u64,
    /// Bytes that the arenas of `ranks` must still grow by.
    scratch: u64,
    ranks: u32,
    /// Bytes that are free.
    free: u64,

    /// Null where everything fits.
    pub fn orNull(shortage: Shortage) ?Shortage {
        return if (shortage.weights +| shortage.scratch > shortage.free) shortage else null;
    }

    /// `advice` is a sentence with what would fit.
    pub fn fail(
        shortage: *const Shortage,
        diagnostics: *Diagnostics,
        advice: []const u8,
    ) error{NotEnoughMemory} {
        var place: [32]u8 = undefined;
        const where = if (shortage.gpu) |index|
            std.fmt.bufPrint(&place, " on GPU {d}", .{index}) catch unreachable
        else
            "";
        const sentence = "The image needs {d:.2} GiB of free memory{s} ({d:.2} GiB for weights, " ++
            "{d:.2} GiB of scratch for {d} {s}), and {d:.2} GiB are free. {s}";
        return diagnostics.fail(error.NotEnoughMemory, sentence, .{
            gibibytes(shortage.weights +| shortage.scratch),
            where,
            gibibytes(shortage.weights),
            gibibytes(shortage.scratch),
            shortage.ranks,
            if (shortage.ranks == 1) "rank" else "ranks",
            gibibytes(shortage.free),
            advice,
        });
    }
};

// --- internal ---

fn gibibytes(bytes: u64) f64 {
    return @as(f64, @floatFromInt(bytes)) / (1 << 30);
}

test "what fits to the byte is no shortage" {
    const whole: Shortage = .{ .weights = 3, .scratch = 4, .ranks = 1, .free = 7 };
    try std.testing.expectEqual(null, whole.orNull());
    var less = whole;
    less.free = 6;
    try std.testing.expect(less.orNull() != null);
    less.weights = std.math.maxInt(u64);
    try std.testing.expect(less.orNull() != null);
}
