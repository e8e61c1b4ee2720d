//! The steps in which a part of the network was computed: the age of what its slots hold follows
//! from them, not from the number of the step, since cached steps leave the deep part out.

const std = @import("std");
const assert = std.debug.assert;

const kept_count = 3;

pub const StepHistory = struct {
    /// Newest first; as many as `count` says.
    steps: [kept_count]u32 = undefined,
    count: u32 = 0,
    synchronous_count: u32 = 0,
    last_synchronous: u32 = 0,

    pub fn add(history: *StepHistory, step: u32, is_synchronous: bool) void {
        std.mem.rotate(u32, &history.steps, kept_count - 1);
        history.steps[0] = step;
        history.count += 1;
        if (!is_synchronous) return;
        assert(history.synchronous_count + 1 == history.count);
        history.synchronous_count += 1;
        history.last_synchronous = step;
    }

    /// The step that was `age` such steps ago.
    pub fn stepOf(history: *const StepHistory, age: u32) u32 {
        assert(age < @min(history.count, kept_count));
        return history.steps[age];
    }
};

test "ages count the steps that computed the part" {
    var history: StepHistory = .{};
    for ([_]u32{ 0, 3, 6, 8 }, [_]bool{ true, true, false, false }) |step, is_synchronous| {
        history.add(step, is_synchronous);
    }
    try std.testing.expectEqual(8, history.stepOf(0));
    try std.testing.expectEqual(6, history.stepOf(1));
    try std.testing.expectEqual(3, history.stepOf(2));
    try std.testing.expectEqual(2, history.synchronous_count);
    try std.testing.expectEqual(3, history.last_synchronous);
}
