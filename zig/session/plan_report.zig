//! The plan of a session as JSON, without opening a device or reading a weight: the memory of every
//! rank by its uses, and the operations of an image with one step. Only the headers of files are
//! read.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const cudas = @import("../backend/cuda.zig");
const devices = @import("../devices.zig");
const device_weights = @import("../backend/cuda/weights.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const products = @import("../backend/cuda/library_handles.zig");
const firsts = @import("first.zig");
const pipeline = @import("../pipeline.zig");
const Job = pipeline.Job;
const Component = @import("../model.zig").Component;
const plans = @import("plan.zig");
const sessions = @import("../session.zig");
const Session = sessions.Session;
const tallies = @import("../backend/op_trace.zig");
const OpTrace = tallies.OpTrace;

pub const Rank = struct {
    index: u32,
    /// Latent rows in the UNet.
    rows: u32,
    /// Arena bytes over all stages, and of each stage.
    scratch_bytes: u64,
    peaks: Peaks,
    /// Part of the arena: the exchange buffers of the UNet.
    exchange_bytes: u64,
    /// On GPUs, beside the arena: workspaces of the libraries and of widened weights, and of
    /// reductions.
    workspace_bytes: u64,
    partial_bytes: u64,
    operations: []const tallies.Entry,
};

pub const Peaks = struct { text: u64, encode: u64, denoise: u64, decode: u64, upscale: u64 };

/// A component of the model, or a network beside it, with its bytes on each device.
pub const Part = struct { name: []const u8, weight_bytes: u64 };

/// What of a session is a job of its own.
pub const Pass = struct {
    name: []const u8,
    /// Beside the model, in the order of the job's list.
    networks: []const Part,
    /// Of an upscaler, in all ranks together; else 0.
    tile_count: u32,
    ranks: []const Rank,
};

pub const Report = struct {
    /// On each GPU; on the CPU, in the files.
    weight_bytes: u64,
    /// Of these, in 8 bits: on GPUs those that have such numbers keep.
    weight_f8_bytes: u64,
    /// Of these, of products in int8, on GPUs.
    weight_int8_bytes: u64,
    /// On the CPU, beside the files: weights that it computes with in another form.
    copied_bytes: u64,
    /// Of the weights that the first image's adapters make: in host memory on the CPU; GPUs hold
    /// them in place of the model's own, or beside those that stay in 8 bits.
    adapter_bytes: u64,
    components: []const Part,
    passes: []const Pass,
};

/// Allocated in `arena`. Where it fails, `diagnostics` has the message.
pub fn write(
    arena: Allocator,
    io: Io,
    options: sessions.Options,
    diagnostics: *Diagnostics,
) sessions.Error![]const u8 {
    const session = try arena.create(Session);
    session.init(arena, io, options);
    errdefer diagnostics.fail(error.Planned, "{s}", .{session.diagnostics.message()}) catch {};
    try session.model.open(
        arena,
        io,
        &options.config,
        options.files,
        &session.cancelled,
        &session.diagnostics,
    );
    defer session.model.close();
    if (options.devices.compute_dtype == .int8) session.model.useInt8();
    const report = try collect(arena, session);
    return std.json.Stringify.valueAlloc(arena, report, .{});
}

// --- internal ---

fn collect(arena: Allocator, session: *Session) sessions.Error!Report {
    const is_cuda = session.options.devices.kind == .cuda;
    const model = &session.model;
    const components = try componentsOf(arena, session);
    // The offsets also decide which linear layers are one product: those of all come last.
    var placement: device_weights.Placement = .{ .block_bytes = 0 };
    if (is_cuda) {
        const activation = session.options.devices.activation_dtype;
        placement = device_weights.place(model.weights, activation, true);
    } else {
        placement.block_bytes = model.weightBytes().mapped;
        placement.kept_f8_bytes = model.f8Bytes();
    }
    defer session.networks.deinit();
    var passes: std.ArrayList(Pass) = .empty;
    for (std.enums.values(firsts.Pass)) |pass| {
        var job = try session.options.first.job(pass, arena) orelse continue;
        defer job.deinit();
        try passes.append(arena, try passOf(arena, session, @tagName(pass), &job, placement));
    }
    const adapters = session.options.first.adapters;
    const activation = if (is_cuda) session.options.devices.activation_dtype else null;
    return .{
        .weight_bytes = placement.block_bytes,
        .copied_bytes = if (is_cuda) 0 else model.weightBytes().copied,
        .weight_f8_bytes = placement.kept_f8_bytes,
        .weight_int8_bytes = placement.int8_bytes,
        .adapter_bytes = try devices.mergedBytes(arena, model, adapters, activation),
        .components = components,
        .passes = passes.items,
    };
}

fn componentsOf(arena: Allocator, session: *const Session) Allocator.Error![]const Part {
    var parts: std.ArrayList(Part) = .empty;
    for (std.enums.values(Component)) |component| {
        const resident = session.model.residents.getPtrConst(component);
        if (resident.* == null) continue;
        try parts.append(arena, .{
            .name = @tagName(component),
            .weight_bytes = session.devices.residentBytes(&resident.*.?, true),
        });
    }
    return parts.items;
}

fn passOf(
    arena: Allocator,
    session: *Session,
    name: []const u8,
    job: *Job,
    placement: device_weights.Placement,
) sessions.Error!Pass {
    const networks = try session.networks.open(arena, job.networks, &session.model.config, null);
    const parts = try arena.alloc(Part, networks.len);
    for (parts, networks) |*part, network| part.* = .{
        .name = @tagName(network.graph),
        .weight_bytes = session.devices.networkBytes(network),
    };
    const planner = session.planner(networks);
    var plan = try planner.plan(job);
    defer plan.deinit();
    const ranks = try arena.alloc(Rank, plan.layout.rank_count);
    for (ranks, 0..) |*rank, i| {
        rank.* = try rankOf(arena, &planner, &plan, job, @intCast(i), placement);
    }
    return .{
        .name = name,
        .networks = parts,
        .tile_count = if (job.kind == .upscale)
            pipeline.upscaleTileCount(job.upscale, &networks[0].graph.upscaler.config)
        else
            0,
        .ranks = ranks,
    };
}

fn rankOf(
    arena: Allocator,
    planner: *const plans.Planner,
    plan: *const plans.Plan,
    job: *const Job,
    index: u32,
    placement: device_weights.Placement,
) sessions.Error!Rank {
    const layout = &plan.layout;
    const is_cuda = planner.device.is_cuda;
    var op_trace: OpTrace = .{ .gpa = arena };
    const traced = try planner.trace(plan, job, index, &op_trace);
    if (op_trace.is_incomplete) return error.OutOfMemory;
    const peaks = &op_trace.peaks;
    return .{
        .index = index,
        .rows = if (job.kind == .image) layout.patches.list[layout.patchOf(index)].row_count else 0,
        .scratch_bytes = std.mem.max(usize, &peaks.values),
        .peaks = .{
            .text = peaks.get(.text),
            .encode = peaks.get(.encode),
            .denoise = peaks.get(.denoise),
            .decode = peaks.get(.decode),
            .upscale = peaks.get(.upscale),
        },
        .exchange_bytes = traced.exchange_bytes,
        .workspace_bytes = if (is_cuda) products.workspace_bytes + placement.widen_bytes else 0,
        .partial_bytes = if (is_cuda) cudas.reduction_workspace_bytes else 0,
        .operations = op_trace.entries.items,
    };
}
