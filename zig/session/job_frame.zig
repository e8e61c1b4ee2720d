//! What is done around a job before and after its ranks run: the first shape that is planned, the
//! outputs that all ranks write to, and whose failure counts.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Layout = @import("../patch/layout.zig").Layout;
const jobs = @import("job.zig");
const Job = jobs.Job;
const models = @import("../model.zig");
const sessions = @import("../session.zig");
const Error = sessions.Error;
const Options = sessions.Options;

/// What will be asked for first, as far as sizes go.
pub fn firstJob(gpa: Allocator, o: *const Options) Allocator.Error!Job {
    var first: Job = .{
        .arena = .init(gpa),
        .kind = .image,
        .latent_rows = o.latent_rows,
        .latent_width = o.latent_width,
        .branch_count = o.branch_count,
        .split_batch = o.split_batch,
        .vae_tile_latent = o.vae_tile_latent,
    };
    errdefer first.deinit();
    first.seeds = try first.arena.allocator().alloc(u64, o.image_count);
    return first;
}

/// What all ranks write to together.
pub fn makeOutputs(
    job: *Job,
    layout: *const Layout,
    config: *const models.ModelConfig,
) Allocator.Error!void {
    const factor: usize = config.vae.factor();
    const pixels = job.latent_rows * factor * job.latent_width * factor;
    _ = try job.output(u8, .rgb, job.seeds.len * pixels * config.vae.out_channels);
    if (job.wants_decoded) {
        _ = try job.output(f32, .decoded, job.seeds.len * pixels * config.vae.out_channels);
    }
    // Those of other machines stay there.
    @memset(try job.output(jobs.RankCounts, .rank_counts, layout.rank_count), .{});
}

/// A rank that was only woken by another's failure says Cancelled: the other's reason counts.
pub fn firstFailure(failures: []const ?Error) Error!void {
    var cancelled = false;
    for (failures) |maybe| {
        const failure = maybe orelse continue;
        if (failure != error.Cancelled) return failure;
        cancelled = true;
    }
    if (cancelled) return error.Cancelled;
}
