//! Who computes what: ranks = guidance branches x bands of rows. Branches split first, since that
//! is exact and needs no exchange inside the UNet. Bands are not dealt yet: ranks beyond the
//! branches stay idle, and the caller is told so.

const std = @import("std");
const assert = std.debug.assert;

pub const Layout = struct {
    pub const rank_count_max = 16;

    /// Ranks that work.
    rank_count: u32,
    /// 1, or 2 with guidance: the negative branch, then the positive.
    branch_count: u32,

    pub fn init(ranks_asked: u32, branch_count: u32) Layout {
        assert(ranks_asked >= 1 and (branch_count == 1 or branch_count == 2));
        return .{ .rank_count = @min(ranks_asked, branch_count), .branch_count = branch_count };
    }

    /// Branches that one rank computes.
    pub fn branchesPerRank(layout: Layout) u32 {
        return layout.branch_count / layout.rank_count;
    }

    pub fn branchFirst(layout: Layout, rank: u32) u32 {
        assert(rank < layout.rank_count);
        return rank * layout.branchesPerRank();
    }

    pub fn splitsBranches(layout: Layout) bool {
        return layout.rank_count > 1;
    }
};

test "every branch is computed once" {
    for (1..17) |ranks| {
        for (1..3) |branches| {
            const layout: Layout = .init(@intCast(ranks), @intCast(branches));
            var seen: [2]u32 = @splat(0);
            for (0..layout.rank_count) |rank| {
                const first = layout.branchFirst(@intCast(rank));
                for (first..first + layout.branchesPerRank()) |branch| seen[branch] += 1;
            }
            for (seen[0..branches]) |count| try std.testing.expectEqual(@as(u32, 1), count);
        }
    }
}
