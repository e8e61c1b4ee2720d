//! What was planned stays planned: a session that draws the same sizes in turn walks the graph over
//! nothing once for each. Arenas and CUDA graphs stay as well, in `rank_device.zig` and
//! `backend/cuda/graphs.zig`.

const std = @import("std");
const Job = @import("job.zig").Job;
const layouts = @import("patch/layout.zig");
const Layout = layouts.Layout;
const rank_count_max = layouts.rank_count_max;

/// Sizes, modes and batches that one session goes back and forth between; the oldest go.
const entry_count_max = 16;

/// Scratch bytes of each rank.
pub const Bytes = [rank_count_max]usize;

pub const PlanCache = struct {
    keys: [entry_count_max]u64 = undefined,
    plans: [entry_count_max]Bytes = undefined,
    count: usize = 0,
    oldest: usize = 0,

    pub fn get(cache: *const PlanCache, key: u64) ?Bytes {
        for (cache.keys[0..cache.count], cache.plans[0..cache.count]) |known, bytes| {
            if (known == key) return bytes;
        }
        return null;
    }

    pub fn put(cache: *PlanCache, key: u64, bytes: Bytes) void {
        const i = if (cache.count < entry_count_max) cache.count else cache.oldest;
        if (cache.count < entry_count_max) cache.count += 1;
        cache.oldest = (i + 1) % entry_count_max;
        cache.keys[i] = key;
        cache.plans[i] = bytes;
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
        job.predicts_borders,
        job.vae_tile_latent,
        job.batch,
        job.prompt_embeds.len,
        job.negative == null,
    });
    return hash.final();
}

test "the last plans are remembered, each under its own key" {
    var cache: PlanCache = .{};
    for (0..entry_count_max + 3) |i| cache.put(i, @splat(i));
    try std.testing.expectEqual(@as(?Bytes, null), cache.get(2));
    for (3..entry_count_max + 3) |i| {
        try std.testing.expectEqual(@as(?Bytes, @splat(i)), cache.get(i));
    }
}
