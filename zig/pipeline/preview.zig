//! Previews: what the image will be by the newest step's estimate, for a reader on another thread.
//! The first local rank makes them, between steps: the estimate itself, or where the model has a
//! TAESD its RGB. Double buffered: the rank writes the back buffer, then swaps it with the front
//! buffer under a lock. The lock is held for one copy at most, so that steps hardly wait for a
//! reader.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Context = @import("../model/layers.zig").Context;
const TinyDecoder = @import("../model/taesd.zig").TinyDecoder;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Patch = @import("../patch/layout.zig").Patch;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Tensor = @import("../tensor.zig").Tensor;

const Buffer = []align(@alignOf(f32)) u8;

pub const Preview = struct {
    gpa: Allocator,
    io: Io,
    mutex: Io.Mutex = .init,
    /// The buffer to be read, and the one that a rank writes next: f32 (images, rows, width,
    /// channels), or with TAESD u8 (images, factor * rows, factor * width, 3).
    front: Buffer = &.{},
    back: Buffer = &.{},
    /// Finished steps of what is in `front`; 0 for none yet.
    step: std.atomic.Value(u32) = .init(0),

    pub fn deinit(preview: *Preview) void {
        preview.gpa.free(preview.front);
        preview.gpa.free(preview.back);
        preview.* = undefined;
    }

    /// Called before a job: no preview yet.
    pub fn reset(preview: *Preview) void {
        preview.step.store(0, .release);
    }

    /// Copies the newest preview and returns its size in bytes; copies nothing where `len` differs.
    pub fn read(preview: *Preview, buffer: ?[*]u8, len: u64) u64 {
        preview.mutex.lockUncancelable(preview.io);
        defer preview.mutex.unlock(preview.io);
        if (preview.step.load(.acquire) == 0) return 0;
        const bytes = preview.front;
        if (buffer) |target| {
            if (len == bytes.len) @memcpy(target[0..bytes.len], bytes);
        }
        return bytes.len;
    }

    // --- internal ---

    /// Room for the next preview, which `publish` then shows.
    fn room(preview: *Preview, byte_count: usize) Allocator.Error!Buffer {
        if (preview.back.len != byte_count) {
            preview.gpa.free(preview.back);
            preview.back = &.{};
            preview.back = try preview.gpa.alignedAlloc(u8, .of(f32), byte_count);
        }
        return preview.back;
    }

    fn publish(preview: *Preview, step: u32) void {
        preview.mutex.lockUncancelable(preview.io);
        defer preview.mutex.unlock(preview.io);
        std.mem.swap(Buffer, &preview.front, &preview.back);
        preview.step.store(step, .release);
    }
};

/// Whether this rank shows step `number`, from 1; there is no preview of the last one. A dry run
/// has one step and plans for a preview.
pub fn isDue(rank: *const Rank, number: usize) bool {
    const every = rank.job.preview_steps;
    if (every == 0 or rank.index != rank.local_ranks.first) return false;
    if (rank.isPlanning()) return true;
    return rank.reporter != null and number % every == 0 and number < rank.job.steps.len;
}

/// Shows `estimate` (images, rows, width, channels), the latent that `LatentState.estimate` gave at
/// step `number`.
pub fn show(rank: *Rank, estimate: Tensor, number: usize) Error!void {
    const preview: ?*Preview = if (rank.reporter) |reporter| &reporter.preview else null;
    if (rank.model.taesd) |*decoder| {
        try showDecoded(rank, decoder, estimate, preview);
    } else if (preview) |p| {
        const bytes = try p.room(estimate.shape.elementCount() * @sizeOf(f32));
        try rank.b.downloadFloats(estimate, std.mem.bytesAsSlice(f32, bytes));
    }
    if (preview) |p| p.publish(@intCast(number));
}

/// The image of one latent in f32, by the rank alone: others may be in the next step already.
pub fn decode(rank: *Rank, decoder: *const TinyDecoder, latent: Tensor) Error!Tensor {
    const patches: [1]Patch = .{.{ .row_first = 0, .row_count = latent.shape.rows }};
    var exchange: Exchange = .ofSinglePatch(rank.b, &patches);
    const ctx: Context = .{ .b = rank.b, .exchange = &exchange };
    return decoder.decode(ctx, latent);
}

// --- internal ---

fn showDecoded(
    rank: *Rank,
    decoder: *const TinyDecoder,
    estimate: Tensor,
    preview: ?*Preview,
) Error!void {
    const count = estimate.shape.batch;
    for (0..count) |i| {
        const decoded = try decode(rank, decoder, estimate.batchSlice(@intCast(i), 1));
        defer rank.b.free(decoded);
        const rgb = try rank.b.toRgb(decoded);
        defer rank.b.free(rgb);
        const p = preview orelse continue;
        const len = rgb.byteCount();
        const bytes = try p.room(count * len);
        try rank.b.download(rgb, bytes[i * len ..][0..len]);
    }
}
