//! What would make an image fit that needs too much memory. Every variant that is named has been
//! planned and compared with the free memory: advice that does not help is never given.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Devices = @import("../devices.zig").Devices;
const pipeline = @import("../pipeline.zig");
const Job = pipeline.Job;
const plans = @import("plan.zig");
const Planner = plans.Planner;

/// Sizes that are tried, as parts of 64 of what was asked for.
const size_parts = [_]u32{ 56, 48, 40, 32, 24, 16, 8, 4, 2, 1 };

pub const Advisor = struct {
    planner: *const Planner,
    devices: *const Devices,
    job: *const Job,
    /// Rows and columns of the latent in a tile of `--vae-tiling`; 0 where there are none.
    tile_latent: u32,
    /// Weights that are still to be loaded.
    weight_bytes: u64,

    /// A sentence in `arena`: flags and sizes of which each alone makes the image fit.
    pub fn sentence(advisor: *const Advisor, arena: Allocator) Allocator.Error![]const u8 {
        var found: std.ArrayList([]const u8) = .empty;
        if (advisor.job.kind == .upscale) {
            try advisor.findTiles(arena, &found);
        } else {
            try advisor.findFlags(arena, &found);
            try advisor.findSize(arena, &found);
        }
        if (found.items.len == 0) {
            return "No smaller image fits either: free memory, or take a device with more.";
        }
        var text: std.ArrayList(u8) = .empty;
        try text.appendSlice(arena, "What fits: ");
        for (found.items, 0..) |item, i| {
            const separator = if (i == 0) "" else if (i + 1 < found.items.len) ", " else ", or ";
            try text.appendSlice(arena, separator);
            try text.appendSlice(arena, item);
        }
        try text.append(arena, '.');
        return text.items;
    }

    // --- internal ---

    /// Smaller tiles of an upscaler.
    fn findTiles(
        advisor: *const Advisor,
        arena: Allocator,
        found: *std.ArrayList([]const u8),
    ) Allocator.Error!void {
        var smaller = advisor.job.*;
        const size = &smaller.upscale;
        // An image may be smaller than its tile.
        size.tile = @min(size.tile, @max(size.rows, size.width));
        while (size.tile / 2 >= pipeline.upscale_tile_min) {
            size.tile /= 2;
            if (!advisor.fits(&smaller, advisor.planner.rank_count)) continue;
            return found.append(arena, try print(arena, "tiles of {d} pixels", .{size.tile}));
        }
    }

    /// The flags that keep the size.
    fn findFlags(
        advisor: *const Advisor,
        arena: Allocator,
        found: *std.ArrayList([]const u8),
    ) Allocator.Error!void {
        const rank_count = advisor.planner.rank_count;
        const tiled = advisor.tiledJob();
        const fits_tiled = if (tiled) |job| advisor.fits(&job, rank_count) else false;
        if (fits_tiled) try found.append(arena, "--vae-tiling");
        if (advisor.largestBatch(advisor.job)) |count| {
            try found.append(arena, try print(arena, "--batch-size {d}", .{count}));
        } else if (!fits_tiled and tiled != null) {
            if (advisor.largestBatch(&tiled.?)) |count| {
                const text = "--batch-size {d} with --vae-tiling";
                try found.append(arena, try print(arena, text, .{count}));
            }
        }
        if (advisor.fewerRanks()) |count| {
            try found.append(arena, try print(arena, "--gpus {d}", .{count}));
        }
    }

    /// The largest size of the same shape, with what was asked for otherwise; where nothing else
    /// helps, one image at a time.
    fn findSize(
        advisor: *const Advisor,
        arena: Allocator,
        found: *std.ArrayList([]const u8),
    ) Allocator.Error!void {
        const factor = advisor.planner.model.config.vae.factor();
        if (advisor.largestSize(advisor.job)) |job| {
            const size = .{ job.latent_width * factor, job.latent_rows * factor };
            return found.append(arena, try print(arena, "a size of {d}x{d}", size));
        }
        if (found.items.len > 0 or advisor.job.seeds.len < 2) return;
        const single = advisor.job.withImages(1);
        const job = advisor.largestSize(&single) orelse return;
        const size = .{ job.latent_width * factor, job.latent_rows * factor };
        const text = "a size of {d}x{d} with --batch-size 1";
        return found.append(arena, try print(arena, text, size));
    }

    fn largestSize(advisor: *const Advisor, job: *const Job) ?Job {
        const unit = advisor.planner.model.config.latentMultiple();
        for (size_parts) |part| {
            var smaller = job.*;
            smaller.latent_rows = scaled(job.latent_rows, part, unit);
            smaller.latent_width = scaled(job.latent_width, part, unit);
            const is_same = smaller.latent_rows == job.latent_rows and
                smaller.latent_width == job.latent_width;
            if (!is_same and advisor.fits(&smaller, advisor.planner.rank_count)) return smaller;
        }
        return null;
    }

    /// The job in tiles; null where tiles change nothing or are not to be had.
    fn tiledJob(advisor: *const Advisor) ?Job {
        const job = advisor.job;
        const tile = advisor.tile_latent;
        if (tile == 0 or job.vae_tile_latent > 0 or advisor.planner.rank_count > 1) return null;
        if (job.latent_rows <= tile and job.latent_width <= tile) return null;
        var tiled = job.*;
        tiled.vae_tile_latent = tile;
        return tiled;
    }

    fn largestBatch(advisor: *const Advisor, job: *const Job) ?usize {
        var count = job.seeds.len;
        while (count > 1) {
            count -= 1;
            const fewer = job.withImages(count);
            if (advisor.fits(&fewer, advisor.planner.rank_count)) return count;
        }
        return null;
    }

    /// Where ranks share memory, fewer of them need less.
    fn fewerRanks(advisor: *const Advisor) ?u32 {
        const all = advisor.planner.rank_count;
        if (advisor.planner.local_ranks.count() < all) return null;
        if (!advisor.devices.sharesMemory()) return null;
        var count = all;
        while (count > 1) {
            count -= 1;
            if (advisor.fits(advisor.job, count)) return count;
        }
        return null;
    }

    fn fits(advisor: *const Advisor, job: *const Job, rank_count: u32) bool {
        // What a variant cannot be planned for is no message for the user.
        var diagnostics: Diagnostics = .{};
        var planner = advisor.planner.*;
        planner.diagnostics = &diagnostics;
        if (rank_count != planner.rank_count) {
            planner.rank_count = rank_count;
            planner.local_ranks = .{ .first = 0, .end = rank_count };
        }
        var plan = planner.plan(job) catch return false;
        defer plan.deinit();
        const local = plan.localRanks(planner.rank_count, planner.local_ranks);
        const shortage = advisor.devices.shortage(.{
            .scratch = plan.scratch_bytes[local.first..local.end],
            .weight_bytes = advisor.weight_bytes,
        }) catch return false;
        return shortage == null;
    }
};

// --- internal ---

/// `part` parts of 64, as a multiple of `unit`, at least one.
fn scaled(length: u32, part: u32, unit: u32) u32 {
    return @max(unit, length * part / 64 / unit * unit);
}

fn print(arena: Allocator, comptime format: []const u8, args: anytype) Allocator.Error![]u8 {
    return std.fmt.allocPrint(arena, format, args);
}

test "sizes shrink in whole units and never to nothing" {
    try std.testing.expectEqual(96, scaled(128, 48, 4));
    try std.testing.expectEqual(4, scaled(8, 32, 4));
    try std.testing.expectEqual(4, scaled(4, 8, 4));
    try std.testing.expectEqual(20, scaled(36, 40, 4));
}
