//! Who computes what: ranks = guidance branches x patches of rows. With guidance and an even rank
//! count the branches split first, since that is exact and needs no exchange inside the UNet; then
//! rows. Rows are dealt in units that every level of the UNet can halve, as evenly as possible.

const std = @import("std");
const assert = std.debug.assert;

pub const rank_count_max = @import("../transport.zig").rank_count_max;
pub const RankRange = @import("../transport.zig").RankRange;

/// Rows [row_first, row_first + row_count) of the latent.
pub const Patch = struct { row_first: u32, row_count: u32 };

pub const Patches = struct {
    list: [rank_count_max]Patch,
    count: u32,

    pub fn slice(patches: *const Patches) []const Patch {
        return patches.list[0..patches.count];
    }

    /// Cuts `rows` into `count` patches of whole units; the first ones are larger by a unit where
    /// they do not come out even.
    pub fn deal(rows: u32, unit: u32, count: u32) error{NotDealable}!Patches {
        assert(rows % unit == 0 and count >= 1 and count <= rank_count_max);
        const units = rows / unit;
        if (units < count) return error.NotDealable;
        var patches: Patches = .{ .list = undefined, .count = count };
        var row: u32 = 0;
        for (patches.list[0..count], 0..) |*patch, i| {
            const share = units / count + @intFromBool(i < units % count);
            patch.* = .{ .row_first = row, .row_count = share * unit };
            row += patch.row_count;
        }
        assert(row == rows);
        return patches;
    }
};

/// The guidance branches of a step, and who computes them: every one of the job, on ranks of their
/// own where the layout splits them or together on every rank, or those of the prompt alone.
pub const Branches = enum { all, together, positive };

/// Branches [first, first + count) of a job; with guidance the negative one is 0.
pub const BranchRange = struct {
    first: u32,
    count: u32,

    pub fn end(range: BranchRange) u32 {
        return range.first + range.count;
    }

    /// The smallest range with both.
    pub fn joined(range: BranchRange, other: BranchRange) BranchRange {
        const first = @min(range.first, other.first);
        return .{ .first = first, .count = @max(range.end(), other.end()) - first };
    }
};

pub const Options = struct {
    rank_count: u32,
    /// 1, or with guidance the negative branch, then those of the prompts.
    branch_count: u32,
    split_batch: bool,
    rows: u32,
    unit: u32,
};

pub const Layout = struct {
    rank_count: u32,
    branch_count: u32,
    /// The first branch that is computed.
    branch_first: u32 = 0,
    /// 2 where each branch has ranks of its own. Ranks of a group are neighbours in the count.
    group_count: u32,
    patches: Patches,

    pub fn init(o: Options) error{NotDealable}!Layout {
        assert(o.rank_count >= 1 and o.rank_count <= rank_count_max);
        assert(o.branch_count >= 1);
        const splits = o.split_batch and o.branch_count == 2 and o.rank_count % 2 == 0;
        const group_count: u32 = if (splits) 2 else 1;
        return .{
            .rank_count = o.rank_count,
            .branch_count = o.branch_count,
            .group_count = group_count,
            .patches = try .deal(o.rows, o.unit, o.rank_count / group_count),
        };
    }

    /// The layout of steps that compute the branches of the prompt alone: each rank has rows of
    /// them, or is idle where there are fewer units of rows than ranks.
    pub fn ofPositive(o: Options) Layout {
        const patch_count = @min(o.rank_count, o.rows / o.unit);
        return .{
            .rank_count = o.rank_count,
            .branch_count = @max(2, o.branch_count) - 1,
            .branch_first = @intFromBool(o.branch_count > 1),
            .group_count = 1,
            .patches = Patches.deal(o.rows, o.unit, patch_count) catch unreachable,
        };
    }

    /// The layout of steps whose ranks compute every branch of their rows.
    pub fn ofTogether(o: Options) Layout {
        var layout = ofPositive(o);
        layout.branch_count = o.branch_count;
        layout.branch_first = 0;
        layout.group_count = 1;
        return layout;
    }

    /// One rank that does everything.
    pub fn single(branch_count: u32, rows: u32) Layout {
        return .{
            .rank_count = 1,
            .branch_count = branch_count,
            .group_count = 1,
            .patches = Patches.deal(rows, 1, 1) catch unreachable,
        };
    }

    /// Branches that one rank computes.
    pub fn branchesPerRank(layout: *const Layout) u32 {
        return layout.branch_count / layout.group_count;
    }

    pub fn branchesOf(layout: *const Layout, rank: u32) BranchRange {
        const count = layout.branchesPerRank();
        const first = layout.branch_first + layout.groupOf(rank) * count;
        return .{ .first = first, .count = count };
    }

    /// Whether the rank computes nothing.
    pub fn isIdle(layout: *const Layout, rank: u32) bool {
        return rank >= layout.group_count * layout.patches.count;
    }

    pub fn groupOf(layout: *const Layout, rank: u32) u32 {
        assert(!layout.isIdle(rank));
        return rank / layout.patches.count;
    }

    pub fn patchOf(layout: *const Layout, rank: u32) u32 {
        assert(!layout.isIdle(rank));
        return rank % layout.patches.count;
    }
};

test "every branch of every row is computed once, in shares that differ by a unit" {
    for (1..rank_count_max + 1) |ranks| {
        for ([_]u32{ 4, 8, 28, 64, 104, 128 }) |rows| {
            for ([_]u32{ 1, 2 }) |branches| {
                const layout = Layout.init(.{
                    .rank_count = @intCast(ranks),
                    .branch_count = branches,
                    .split_batch = rows % 8 == 0,
                    .rows = rows,
                    .unit = 4,
                }) catch {
                    const splits = branches == 2 and rows % 8 == 0 and ranks % 2 == 0;
                    try std.testing.expect(rows / 4 < ranks / (if (splits) @as(u32, 2) else 1));
                    continue;
                };
                var seen: [2][128]u32 = @splat(@splat(0));
                for (0..layout.rank_count) |i| {
                    const rank: u32 = @intCast(i);
                    const patch = layout.patches.list[layout.patchOf(rank)];
                    try std.testing.expect(patch.row_count >= 4 and patch.row_count % 4 == 0);
                    const first = layout.branchesOf(rank).first;
                    for (seen[first..][0..layout.branchesPerRank()]) |*rows_seen| {
                        const dealt = rows_seen[patch.row_first..][0..patch.row_count];
                        for (dealt) |*count| count.* += 1;
                    }
                }
                for (seen[0..branches]) |rows_seen| {
                    try std.testing.expect(std.mem.allEqual(u32, rows_seen[0..rows], 1));
                }
            }
        }
    }
}

test "steps that compute all branches together share rows as those of the prompt alone" {
    const o: Options = .{
        .rank_count = 4,
        .branch_count = 2,
        .split_batch = true,
        .rows = 32,
        .unit = 4,
    };
    const together: Layout = .ofTogether(o);
    try std.testing.expectEqual(2, together.branchesPerRank());
    try std.testing.expectEqual(0, together.branchesOf(3).first);
    try std.testing.expectEqual(Layout.ofPositive(o).patches.count, together.patches.count);
}

test "without the negative branch all ranks share the rows, as far as there are units" {
    for ([_]u32{ 1, 2, 3, 8, 16 }) |rank_count| {
        const layout: Layout = .ofPositive(.{
            .rank_count = rank_count,
            .branch_count = 2,
            .split_batch = true,
            .rows = 32,
            .unit = 4,
        });
        var row_count: u32 = 0;
        for (0..rank_count) |i| {
            const rank: u32 = @intCast(i);
            try std.testing.expectEqual(i >= 8, layout.isIdle(rank));
            if (layout.isIdle(rank)) continue;
            row_count += layout.patches.list[layout.patchOf(rank)].row_count;
            const range: BranchRange = .{ .first = 1, .count = 1 };
            try std.testing.expectEqual(range, layout.branchesOf(rank));
        }
        try std.testing.expectEqual(32, row_count);
    }
}
