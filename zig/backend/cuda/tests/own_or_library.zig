//! The choice between an own kernel and the libraries, on the emulated driver.

const std = @import("std");
const support = @import("support.zig");
const own_or_library = @import("../own_or_library.zig");
const Way = own_or_library.Way;

const Ways = struct {
    failing: Way,
    counts: *std.EnumArray(Way, u32),

    pub fn take(ways: Ways, way: Way) error{GpuFailed}!void {
        ways.counts.getPtr(way).* += 1;
        if (way == ways.failing) return error.GpuFailed;
    }
};

test "a large operation is timed both ways once, and the way that works is kept" {
    for (std.enums.values(Way)) |failing| {
        var emulated: support.Emulated = undefined;
        try emulated.init(1, .f16);
        defer emulated.deinit();
        try emulated.openLibraries();
        const cuda = emulated.pair.cuda;
        cuda.libraries.?.matmul.options.may_measure = true;
        var counts: std.EnumArray(Way, u32) = .initFill(0);
        const ways: Ways = .{ .failing = failing, .counts = &counts };
        const best: Way = if (failing == .own) .library else .own;
        try std.testing.expectEqual(best, try own_or_library.choose(cuda, ways, 1 << 40, "large"));
        for (counts.values) |count| try std.testing.expect(count > 0);
        const before = counts;
        try std.testing.expectEqual(best, try own_or_library.choose(cuda, ways, 1 << 40, "large"));
        try std.testing.expectEqual(.own, try own_or_library.choose(cuda, ways, 1, "small"));
        try std.testing.expectEqual(before, counts);
    }
}
