//! What every rank has for one job and others may look at: its exchanges, inside the UNet and in
//! the VAE (who has which rows, and what is read when; they know each other once the ranks run),
//! and what follows from the prompt.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Conditioning = @import("../model/unet.zig").Conditioning;
const Exchange = @import("exchange.zig").Exchange;
const Job = @import("../session/job.zig").Job;
const layouts = @import("layout.zig");
const Bands = layouts.Bands;
const Layout = layouts.Layout;
const mirrors_file = @import("device_buffers.zig");
const Mirrors = mirrors_file.Mirrors;
const modes = @import("sync_mode.zig");
const Tensor = @import("../tensor.zig").Tensor;

pub const Seats = struct {
    unet: []Exchange,
    vae: []Exchange,
    /// With room for `context_slot_count` tensors each; made by `prompts.zig`.
    prompts: []Conditioning,

    /// All in `arena`. On GPUs the parts are in `mirrors`.
    pub fn init(
        arena: Allocator,
        io: Io,
        layout: *const Layout,
        job: *const Job,
        context_slot_count: u32,
        is_cuda: bool,
    ) error{ OutOfMemory, NotDealable }!Seats {
        const vae_bands = try arena.create(Bands);
        vae_bands.* = try Bands.deal(job.latent_rows, 1, layout.rank_count);
        const unet = try arena.alloc(Exchange, layout.rank_count);
        const vae = try arena.alloc(Exchange, layout.rank_count);
        for (unet, vae, 0..) |*in_unet, *in_vae, i| {
            const rank: u32 = @intCast(i);
            in_unet.* = .{
                .b = undefined,
                .io = io,
                .transport = .plan,
                .bands = layout.bands.slice(),
                .index = layout.bandOf(rank),
                .rank_first = layout.groupOf(rank) * layout.bands.count,
                .mirrors = try makeMirrors(arena, is_cuda, 0),
                .mode = job.mode,
                .warmup_steps = job.warmup_steps,
                .predicts_borders = job.predicts_borders and
                    modes.freshness(job.mode, .border_rows, false) == .one_step_old,
                .bessel_variance = job.bessel_variance,
            };
            in_vae.* = .{
                .b = undefined,
                .io = io,
                .transport = .plan,
                .bands = vae_bands.slice(),
                .index = rank,
                .rank_first = 0,
                .mirrors = try makeMirrors(arena, is_cuda, mirrors_file.Marks.count),
                .mode = .full_sync,
                .warmup_steps = 0,
            };
        }
        const prompts = try arena.alloc(Conditioning, layout.rank_count);
        for (prompts) |*prompt| {
            prompt.* = .{
                .addition = undefined,
                .keys_values = try arena.alloc(Tensor, context_slot_count),
            };
        }
        return .{ .unet = unet, .vae = vae, .prompts = prompts };
    }
};

// --- internal ---

/// Null on the CPU, where ranks read each other's buffers.
fn makeMirrors(arena: Allocator, is_cuda: bool, mark_first: usize) Allocator.Error!?*Mirrors {
    if (!is_cuda) return null;
    const mirrors = try arena.create(Mirrors);
    mirrors.* = .{ .marks = .{ .first = mark_first } };
    return mirrors;
}
