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
const Patches = layouts.Patches;
const Layout = layouts.Layout;
const buffers_file = @import("device_buffers.zig");
const DeviceBuffers = buffers_file.DeviceBuffers;
const modes = @import("sync_mode.zig");
const Tensor = @import("../tensor.zig").Tensor;

pub const RankStates = struct {
    unet: []Exchange,
    vae: []Exchange,
    /// With room for `context_slot_count` tensors each; made by `prompts.zig`.
    prompts: []Conditioning,

    /// All in `arena`. On GPUs the parts are in `device_buffers`.
    pub fn init(
        arena: Allocator,
        io: Io,
        layout: *const Layout,
        job: *const Job,
        context_slot_count: u32,
        is_cuda: bool,
    ) error{ OutOfMemory, NotDealable }!RankStates {
        const vae_patches = try arena.create(Patches);
        vae_patches.* = try Patches.deal(job.latent_rows, 1, layout.rank_count);
        const unet = try arena.alloc(Exchange, layout.rank_count);
        const vae = try arena.alloc(Exchange, layout.rank_count);
        for (unet, vae, 0..) |*in_unet, *in_vae, i| {
            const rank: u32 = @intCast(i);
            in_unet.* = .{
                .b = undefined,
                .io = io,
                .transport = .plan,
                .patches = layout.patches.slice(),
                .index = layout.patchOf(rank),
                .rank_first = layout.groupOf(rank) * layout.patches.count,
                .device_buffers = try makeDeviceBuffers(arena, is_cuda, 0),
                .mode = job.mode,
                .warmup_steps = job.warmup_steps,
                .extrapolates_halos = job.extrapolates_halos and
                    modes.freshness(job.mode, .halo_rows, false) == .one_step_old,
                .bessel_variance = job.bessel_variance,
            };
            in_vae.* = .{
                .b = undefined,
                .io = io,
                .transport = .plan,
                .patches = vae_patches.slice(),
                .index = rank,
                .rank_first = 0,
                .device_buffers = try makeDeviceBuffers(arena, is_cuda, buffers_file.Events.count),
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
fn makeDeviceBuffers(
    arena: Allocator,
    is_cuda: bool,
    mark_first: usize,
) Allocator.Error!?*DeviceBuffers {
    if (!is_cuda) return null;
    const device_buffers = try arena.create(DeviceBuffers);
    device_buffers.* = .{ .marks = .{ .first = mark_first } };
    return device_buffers;
}
