//! What was planned stays planned: a session that draws the same sizes in turn walks the graph over
//! nothing once for each. Arenas and CUDA graphs stay as well, in `rank_device.zig` and
//! `backend/cuda/graphs.zig`.

const std = @import("std");
const Job = @import("job.zig").Job;
const layouts = @import("../patch/layout.zig");
const Layout = layouts.Layout;
const rank_count_max = layouts.rank_count_max;

/// Sizes, modes and batches that one session goes back and forth between; the oldest go.
const entry_count_max = 16;

pub const Plan = struct {
    /// Scratch bytes of each rank.
    bytes: [rank_count_max]usize = @splat(0),
    /// Of the first rank, before the decode.
    undecoded_bytes: usize = 0,
};

pub const PlanCache = struct {
    keys: [entry_count_max]u64 = undefined,
    plans: [entry_count_max]Plan = undefined,
    count: usize = 0,
    oldest: usize = 0,

    pub fn get(cache: *const PlanCache, key: u64) ?Plan {
        for (cache.keys[0..cache.count], cache.plans[0..cache.count]) |known, plan| {
            if (known == key) return plan;
        }
        return null;
    }

    pub fn put(cache: *PlanCache, key: u64, plan: Plan) void {
        const i = if (cache.count < entry_count_max) cache.count else cache.oldest;
        if (cache.count < entry_count_max) cache.count += 1;
        cache.oldest = (i + 1) % entry_count_max;
        cache.keys[i] = key;
        cache.plans[i] = plan;
    }
};

/// Of everything in a job that its memory depends on; values are not among it.
pub fn keyOf(layout: *const Layout, job: *const Job) u64 {
    var hash: std.hash.Wyhash = .init(0);
    std.hash.autoHash(&hash, .{
        layout.rank_count,
        job.kind,
        job.latent_rows,
        job.latent_width,
        job.branch_count,
        job.split_batch,
        job.seeds.len,
        job.mode,
        job.extrapolates_halos,
        job.vae_tile_latent,
        job.batch,
        job.prompt_embeds.len,
        job.negative == null,
    });
    return hash.final();
}

test "the last plans are remembered, each under its own key" {
    var cache: PlanCache = .{};
    for (0..entry_count_max + 3) |i| cache.put(i, .{ .bytes = @splat(i), .undecoded_bytes = i });
    try std.testing.expectEqual(@as(?Plan, null), cache.get(2));
    for (3..entry_count_max + 3) |i| {
        const expected: Plan = .{ .bytes = @splat(i), .undecoded_bytes = i };
        try std.testing.expectEqual(@as(?Plan, expected), cache.get(i));
    }
}
