//! Per-rank state of one job that other ranks read: the exchanges of UNet and VAE, opened with the
//! plan's slots, and the prompt's conditioning. Each rank sets its exchanges' device, transport and
//! peers when it starts.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Conditioning = @import("../model/unet.zig").Conditioning;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Job = @import("../pipeline/job.zig").Job;
const Model = @import("../model.zig").Model;
const Patches = @import("../patch/layout.zig").Patches;
const Plan = @import("plan.zig").Plan;
const Layout = @import("../patch/layout.zig").Layout;
const DeviceBuffers = @import("../patch/device_buffers.zig").DeviceBuffers;
const modes = @import("../patch/sync_mode.zig");
const slots = @import("../patch/slots.zig");
const Sequences = @import("../model/layers.zig").Sequences;

/// What the exchanges of a job have in common.
pub const Shape = struct {
    layout: *const Layout,
    together: *const Layout,
    positive: *const Layout,
    /// Rows of the latent that each rank decodes: all ranks, one unit of one row.
    vae_patches: *const Patches,
    /// Cross-attentions of the UNet.
    context_slot_count: u32,
    is_cuda: bool,

    pub fn of(plan: *const Plan, model: *const Model, is_cuda: bool) Shape {
        return .{
            .layout = &plan.layout,
            .together = &plan.together,
            .positive = &plan.positive,
            .vae_patches = &plan.vae_patches,
            .context_slot_count = model.unet.context_slot_count,
            .is_cuda = is_cuda,
        };
    }
};

/// The exchanges of one rank.
pub const Exchanges = struct {
    unet: Exchange,
    unet_together: Exchange,
    unet_positive: Exchange,
    vae: Exchange,
};

pub const RankStates = struct {
    unet: []Exchange,
    unet_together: []Exchange,
    unet_positive: []Exchange,
    vae: []Exchange,
    /// Of each rank, one per set of the job's prompts: written by `text.zig`, in room for every
    /// cross-attention's keys and values.
    prompts: [][]Conditioning,

    /// All in `arena`. `slot_lists` are the plan's, of every rank.
    pub fn init(
        arena: Allocator,
        shape: Shape,
        job: *const Job,
        slot_lists: []const slots.SlotLists,
    ) Allocator.Error!RankStates {
        const rank_count = shape.layout.rank_count;
        const states: RankStates = .{
            .unet = try arena.alloc(Exchange, rank_count),
            .unet_together = try arena.alloc(Exchange, rank_count),
            .unet_positive = try arena.alloc(Exchange, rank_count),
            .vae = try arena.alloc(Exchange, rank_count),
            .prompts = try arena.alloc([]Conditioning, rank_count),
        };
        for (slot_lists, 0..) |*lists, i| {
            const exchanges = try exchangesOf(arena, shape, job, @intCast(i), lists);
            states.unet[i] = exchanges.unet;
            states.unet_together[i] = exchanges.unet_together;
            states.unet_positive[i] = exchanges.unet_positive;
            states.vae[i] = exchanges.vae;
            states.prompts[i] = try emptyConditionings(arena, shape.context_slot_count, job);
        }
        return states;
    }
};

/// On GPUs the parts of other patches are copied to `device_buffers`.
pub fn exchangesOf(
    arena: Allocator,
    shape: Shape,
    job: *const Job,
    rank: u32,
    lists: *const slots.SlotLists,
) Allocator.Error!Exchanges {
    var unet = try unetExchange(arena, shape, job, rank, shape.layout);
    unet.slots = lists.get(.unet);
    var unet_together = try unetExchange(arena, shape, job, rank, shape.together);
    unet_together.slots = lists.get(.unet_together);
    var unet_positive = try unetExchange(arena, shape, job, rank, shape.positive);
    unet_positive.slots = lists.get(.unet_positive);
    return .{
        .unet = unet,
        .unet_together = unet_together,
        .unet_positive = unet_positive,
        .vae = .{
            .b = undefined,
            .transport = .none,
            .channel = .vae,
            .patches = shape.vae_patches.slice(),
            .index = rank,
            .rank_first = 0,
            .device_buffers = try makeDeviceBuffers(arena, shape.is_cuda),
            .slots = lists.get(.vae),
            .mode = .full_sync,
            .warmup_steps = 0,
        },
    };
}

pub fn emptyConditionings(
    arena: Allocator,
    context_slot_count: u32,
    job: *const Job,
) Allocator.Error![]Conditioning {
    const conditionings = try arena.alloc(Conditioning, job.setCount());
    for (conditionings) |*conditioning| conditioning.* = .{
        .addition = undefined,
        .keys_values = try arena.alloc(Sequences, context_slot_count),
    };
    return conditionings;
}

// --- internal ---

fn unetExchange(
    arena: Allocator,
    shape: Shape,
    job: *const Job,
    rank: u32,
    layout: *const Layout,
) Allocator.Error!Exchange {
    const is_idle = layout.isIdle(rank);
    return .{
        .b = undefined,
        .transport = .none,
        .channel = .unet,
        .patches = layout.patches.slice(),
        .index = if (is_idle) 0 else layout.patchOf(rank),
        .rank_first = if (is_idle) 0 else layout.groupOf(rank) * layout.patches.count,
        .device_buffers = try makeDeviceBuffers(arena, shape.is_cuda),
        .mode = job.sync_mode,
        .warmup_steps = job.warmup_steps,
        .fresh_deep = job.fresh_deep and job.outer_skips > 0 and job.sync_mode != .no_sync,
        .extrapolates_halos = job.extrapolate_halos and
            modes.freshness(job.sync_mode, .halo_rows, false) == .one_step_old,
        .compression = if (job.sync_mode.readsOldValues()) job.compress_exchange else .none,
        .bessel_variance = job.bessel_variance,
    };
}

/// Null on the CPU, where ranks read each other's buffers in place.
fn makeDeviceBuffers(arena: Allocator, is_cuda: bool) Allocator.Error!?*DeviceBuffers {
    if (!is_cuda) return null;
    const device_buffers = try arena.create(DeviceBuffers);
    device_buffers.* = .{};
    return device_buffers;
}
