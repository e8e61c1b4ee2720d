//! Who computes what: ranks = guidance branches x patches of rows. With guidance and an even rank
//! count the branches split first, since that is exact and needs no exchange inside the UNet; then
//! rows. Rows are dealt in units that every level of the UNet can halve, as evenly as possible.

const std = @import("std");
const assert = std.debug.assert;

pub const rank_count_max = @import("../transport.zig").rank_count_max;
pub const RankRange = @import("../transport.zig").RankRange;

/// The largest share of a rank.
pub const share_max = 1000;

/// Parts of an image's rows that ranks get, in any unit; none for equal parts.
pub const Shares = struct {
    list: [rank_count_max]u32 = @splat(0),
    count: u32 = 0,

    pub fn even(count: u32) Shares {
        var shares: Shares = .{ .count = count };
        @memset(shares.list[0..count], 1);
        return shares;
    }

    pub fn slice(shares: *const Shares) []const u32 {
        return shares.list[0..shares.count];
    }
};

/// Units of rows of each rank so that the last one is done as early as can be: each at least one,
/// no more than `limit`. Of equal shares the first get what does not come out even.
pub fn unitsBy(shares: Shares, unit_count: u32, limit: u32) Shares {
    assert(shares.count >= 1 and unit_count >= shares.count);
    assert(limit * shares.count >= unit_count);
    var units: Shares = .even(shares.count);
    for (shares.count..unit_count) |_| {
        var best: ?usize = null;
        for (units.slice(), shares.slice(), 0..) |count, share, i| {
            if (count == limit) continue;
            const other = best orelse {
                best = i;
                continue;
            };
            // (count + 1) / share, in whole numbers.
            const mine = @as(u64, count + 1) * shares.list[other];
            if (mine < @as(u64, units.list[other] + 1) * share) best = i;
        }
        units.list[best.?] += 1;
    }
    return units;
}

/// The most that a rank gets where speeds are measured: memory is reserved for so much.
pub fn measuredUnitsMax(unit_count: u32, rank_count: u32) u32 {
    const even = std.math.divCeil(u32, unit_count, rank_count) catch unreachable;
    return @min(2 * even, unit_count - (rank_count - 1));
}

/// Rows [row_first, row_first + row_count) of the latent.
pub const Patch = struct { row_first: u32, row_count: u32 };

pub const Patches = struct {
    list: [rank_count_max]Patch,
    count: u32,

    pub fn slice(patches: *const Patches) []const Patch {
        return patches.list[0..patches.count];
    }

    /// Cuts `rows` into `count` patches of whole units, by the shares of the first `count` ranks
    /// where there are any, else as evenly as possible.
    pub fn deal(
        shares: Shares,
        rows: u32,
        unit: u32,
        count: u32,
    ) error{NotDealable}!Patches {
        assert(rows % unit == 0 and count >= 1 and count <= rank_count_max);
        assert(shares.count == 0 or count <= shares.count);
        if (rows / unit < count) return error.NotDealable;
        var first: Shares = if (shares.count == 0) .even(count) else shares;
        first.count = count;
        const units = unitsBy(first, rows / unit, rows / unit);
        var patches: Patches = .{ .list = undefined, .count = count };
        var row: u32 = 0;
        for (patches.list[0..count], units.slice()) |*patch, share| {
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
    /// One per rank, which then all have every branch; none for equal parts.
    shares: Shares = .{},
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
        assert(o.shares.count == 0 or o.shares.count == o.rank_count);
        const is_pair = o.branch_count == 2 and o.rank_count % 2 == 0;
        const splits = o.split_batch and o.shares.count == 0 and is_pair;
        const group_count: u32 = if (splits) 2 else 1;
        return .{
            .rank_count = o.rank_count,
            .branch_count = o.branch_count,
            .group_count = group_count,
            .patches = try .deal(o.shares, o.rows, o.unit, o.rank_count / group_count),
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
            .patches = Patches.deal(o.shares, o.rows, o.unit, patch_count) catch unreachable,
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
            .patches = Patches.deal(.{}, rows, 1, 1) catch unreachable,
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

test "equal shares deal as none do, and unequal ones so that the last is done early" {
    for (1..9) |count| for (count..20) |unit_count| {
        var shares: Shares = .{ .count = @intCast(count) };
        @memset(shares.list[0..count], 7);
        const rows: u32 = @intCast(4 * unit_count);
        const even: Patches = try .deal(.{}, rows, 4, @intCast(count));
        const same: Patches = try .deal(shares, rows, 4, @intCast(count));
        try std.testing.expectEqualSlices(Patch, even.slice(), same.slice());
        for (even.slice(), 0..) |patch, i| {
            const units = unit_count / count + @intFromBool(i < unit_count % count);
            try std.testing.expectEqual(4 * units, patch.row_count);
        }
    };
    const shares: Shares = .{ .list = .{ 2, 1, 1, 1 } ++ @as([12]u32, @splat(0)), .count = 4 };
    const patches: Patches = try .deal(shares, 40, 4, 4);
    for (patches.slice(), [_]u32{ 16, 8, 8, 8 }) |patch, row_count| {
        try std.testing.expectEqual(row_count, patch.row_count);
    }
    const lopsided: Shares = .{ .list = .{ 1000, 1 } ++ @as([14]u32, @splat(0)), .count = 2 };
    const thin: Patches = try .deal(lopsided, 12, 4, 2);
    try std.testing.expectEqual(4, thin.list[1].row_count);
}
