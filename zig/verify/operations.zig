//! Every comparison of an operation, in the order of `backend.zig`'s reading.

const Check = @import("check.zig").Check;

pub const all = pointersTo(.{
    @import("ops/product.zig").checks,
    @import("ops/eight_bit.zig").checks,
    @import("ops/convolution.zig").checks,
    @import("ops/norm.zig").checks,
    @import("ops/attention.zig").checks,
    @import("ops/elementwise.zig").checks,
    @import("ops/exchange.zig").checks,
    @import("ops/embedding.zig").checks,
    @import("ops/sampler.zig").checks,
});

// --- internal ---

fn pointersTo(comptime groups: anytype) []const *const Check {
    comptime var list: []const *const Check = &.{};
    inline for (groups) |group| {
        inline for (group) |check| {
            const one = check;
            list = list ++ .{&one};
        }
    }
    return list;
}
