//! The result of a job: outputs, timings, and statistics of each rank. The ranks of a process share
//! one result and write to disjoint parts of it; it can be read until the next job.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Job = @import("job.zig").Job;
const VaeConfig = @import("../model/config.zig").VaeConfig;

/// All f32 except `rgb` (u8), `step_ns` (u64), `step_parts` and `rank_stats`. Decoded images and
/// latents are NCHW, `rgb` is (images, rows, width, 3).
pub const Output = enum(u32) {
    rgb = 0,
    latents = 1,
    step_ns = 2,
    prompt_embeds = 3,
    pooled = 4,
    noise_prediction = 5,
    decoded = 6,
    /// `RankStats` of every rank.
    rank_stats = 7,
    /// The newest preview, while the job runs; see `Preview.front`.
    preview = 8,
    /// `StepParts` of every step.
    step_parts = 9,
    /// u64: the step from which on rows were dealt by measured speed, then the share of each rank;
    /// empty where they were not.
    dealt = 10,
    /// u64: synchronous steps after the first, where the job found how many.
    warmup = 11,
};

/// Statistics of one rank in the denoising loop; bytes are those received from other ranks.
pub const RankStats = extern struct {
    compute_ns: u64 = 0,
    wait_ns: u64 = 0,
    halo_row_bytes: u64 = 0,
    statistics_bytes: u64 = 0,
    keys_values_bytes: u64 = 0,
    gather_bytes: u64 = 0,
    /// Receive buffers of the UNet's exchange.
    buffer_bytes: u64 = 0,
    scratch_bytes: u64 = 0,
    /// CUDA graphs captured in this job, and graph launches.
    graphs_captured: u64 = 0,
    graphs_replayed: u64 = 0,
    /// Rows of the latent that went through the UNet, counted for each branch, image and step.
    unet_rows: u64 = 0,
};

const alignment = @alignOf(RankStats);

pub const Result = struct {
    arena: std.heap.ArenaAllocator,
    outputs: std.EnumArray(Output, []align(alignment) u8) = .initFill(&.{}),
    /// Time that making the adapters' weights took.
    adapt_ns: u64 = 0,
    text_ns: u64 = 0,
    /// Of the image that the job starts from.
    encode_ns: u64 = 0,
    denoise_ns: u64 = 0,
    decode_ns: u64 = 0,

    pub fn init(gpa: Allocator) Result {
        return .{ .arena = .init(gpa) };
    }

    pub fn deinit(result: *Result) void {
        result.arena.deinit();
        result.* = undefined;
    }

    /// Allocates an output of `count` values.
    pub fn alloc(
        result: *Result,
        comptime T: type,
        name: Output,
        count: usize,
    ) Allocator.Error![]T {
        const gpa = result.arena.allocator();
        const memory = try gpa.alignedAlloc(u8, .fromByteUnits(alignment), count * @sizeOf(T));
        result.outputs.set(name, memory);
        return result.values(T, name);
    }

    /// The values of an output, to be read or written; empty where it was not allocated.
    pub fn values(result: *const Result, comptime T: type, name: Output) []T {
        return std.mem.bytesAsSlice(T, result.outputs.get(name));
    }

    pub fn bytes(result: *const Result, name: Output) []const u8 {
        return result.outputs.get(name);
    }

    /// The same of a job that enlarges an image `scale` times.
    pub fn allocEnlarged(result: *Result, job: *const Job, scale: usize) Allocator.Error!void {
        const pixels = scale * job.upscale.rows * scale * job.upscale.width;
        _ = try result.alloc(u8, .rgb, 3 * pixels);
        if (job.wants_decoded) _ = try result.alloc(f32, .decoded, 3 * pixels);
    }

    /// Allocates the outputs of an image job that several ranks write to, before any rank runs.
    pub fn allocShared(
        result: *Result,
        job: *const Job,
        rank_count: u32,
        vae: *const VaeConfig,
    ) Allocator.Error!void {
        const factor: usize = vae.factor();
        const pixels = job.latent_rows * factor * job.latent_width * factor;
        const count = job.seeds.len * pixels * vae.out_channels;
        if (!job.skips_decode) _ = try result.alloc(u8, .rgb, count);
        if (job.wants_decoded) _ = try result.alloc(f32, .decoded, count);
        // Entries of ranks in other processes stay zero.
        @memset(try result.alloc(RankStats, .rank_stats, rank_count), .{});
    }
};
