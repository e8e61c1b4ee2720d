//! Per-rank state of one job that other ranks read: the exchanges of UNet, VAE and ControlNets,
//! opened with the plan's slots, and the prompt's conditioning. Each rank sets its exchanges'
//! device, transport and peers when it starts.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Conditioning = @import("../model/conditioning.zig").Conditioning;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Job = @import("../pipeline/job.zig").Job;
const Plan = @import("plan.zig").Plan;
const layouts = @import("../patch/layout.zig");
const Branches = layouts.Branches;
const Layout = layouts.Layout;
const Model = @import("../model.zig").Model;
const Network = @import("../model.zig").Network;
const DeviceBuffers = @import("../patch/device_buffers.zig").DeviceBuffers;
const modes = @import("../patch/sync_mode.zig");
const slots = @import("../patch/slots.zig");
const Sequences = @import("../model/layers.zig").Sequences;
const Channel = @import("../transport.zig").Channel;

/// What the exchanges of a job have in common.
pub const Shape = struct {
    plan: *const Plan,
    model: *const Model,
    /// Those of the job, by its list.
    networks: []const *const Network,
    is_cuda: bool,

    fn layoutOf(shape: Shape, branches: Branches) *const Layout {
        return switch (branches) {
            .all => &shape.plan.layout,
            .together => &shape.plan.together,
            .positive => &shape.plan.positive,
        };
    }
};

pub const RankStates = struct {
    /// By network (`patch/slots.zig`), then by rank.
    exchanges: []const []Exchange,
    /// Of each rank, one per set of the job's prompts: written by `text.zig`, in room for every
    /// cross-attention's keys and values.
    prompts: [][]Conditioning,

    /// All in `arena`.
    pub fn init(arena: Allocator, shape: Shape, job: *const Job) Allocator.Error!RankStates {
        const rank_count = shape.plan.layout.rank_count;
        const by_network = try arena.alloc([]Exchange, slots.networkCount(job.controls.len));
        for (by_network) |*list| list.* = try arena.alloc(Exchange, rank_count);
        const prompts = try arena.alloc([]Conditioning, rank_count);
        for (prompts, 0..) |*own, i| {
            const rank: u32 = @intCast(i);
            for (by_network, try exchangesOf(arena, shape, job, rank)) |list, exchange| {
                list[i] = exchange;
            }
            own.* = try emptyConditionings(arena, shape, job);
        }
        return .{ .exchanges = by_network, .prompts = prompts };
    }
};

/// Of one rank, by network, with the slots that the plan has of it. On GPUs the parts of other
/// patches are copied to `device_buffers`.
pub fn exchangesOf(
    arena: Allocator,
    shape: Shape,
    job: *const Job,
    rank: u32,
) Allocator.Error![]Exchange {
    const lists = shape.plan.slot_lists[rank];
    const exchanges = try arena.alloc(Exchange, slots.networkCount(job.controls.len));
    exchanges[slots.network_vae] = try vaeExchange(arena, shape, rank, .vae);
    exchanges[slots.network_vae_encoder] = try vaeExchange(arena, shape, rank, .vae_encoder);
    for (std.enums.values(Branches)) |branches| {
        const unet = &exchanges[slots.networkOfUnet(branches)];
        unet.* = try unetExchange(arena, shape, job, rank, branches);
        for (0..job.controls.len) |i| {
            const control = &exchanges[slots.networkOfControl(i, branches)];
            control.* = try unetExchange(arena, shape, job, rank, branches);
            control.channel = .ofControl(i);
        }
    }
    // None while they are recorded.
    if (lists.len > 0) for (exchanges, lists) |*exchange, list| {
        exchange.slots = list;
    };
    return exchanges;
}

pub fn emptyConditionings(
    arena: Allocator,
    shape: Shape,
    job: *const Job,
) Allocator.Error![]Conditioning {
    const conditionings = try arena.alloc(Conditioning, job.setCount());
    for (conditionings) |*conditioning| {
        conditioning.* = try emptyConditioning(arena, shape.model.unet.context_slot_count);
        conditioning.controls = try arena.alloc(?Conditioning, job.controls.len);
        for (conditioning.controls, job.controls) |*own, use| {
            const network = shape.networks[use.network_index];
            own.* = if (network.graph == .controlnet)
                try emptyConditioning(arena, network.contextSlotCount())
            else
                null;
        }
    }
    return conditionings;
}

// --- internal ---

/// Of decoder or encoder.
fn vaeExchange(
    arena: Allocator,
    shape: Shape,
    rank: u32,
    channel: Channel,
) Allocator.Error!Exchange {
    return .{
        .b = undefined,
        .transport = .none,
        .channel = channel,
        .patches = shape.plan.vae_patches.slice(),
        .index = rank,
        .rank_first = 0,
        .device_buffers = try makeDeviceBuffers(arena, shape.is_cuda),
        .mode = .full_sync,
        .warmup_steps = 0,
    };
}

fn emptyConditioning(arena: Allocator, slot_count: u32) Allocator.Error!Conditioning {
    return .{
        .addition = undefined,
        .keys_values = try arena.alloc(Sequences, slot_count),
    };
}

fn unetExchange(
    arena: Allocator,
    shape: Shape,
    job: *const Job,
    rank: u32,
    branches: Branches,
) Allocator.Error!Exchange {
    const layout = shape.layoutOf(branches);
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
