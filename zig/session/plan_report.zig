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
const Networks = @import("networks.zig").Networks;
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

pub const Peaks = struct { text: u64, denoise: u64, decode: u64 };

pub const Report = struct {
    /// On each GPU; on the CPU, in the files.
    weight_bytes: u64,
    /// Of these, in 8 bits: on GPUs those that have such numbers keep.
    weight_f8_bytes: u64,
    /// Of these, of products in int8, on GPUs.
    weight_int8_bytes: u64,
    /// Of the weights that the first image's adapters make: in host memory on the CPU; GPUs hold
    /// them in place of the model's own, or beside those that stay in 8 bits.
    adapter_bytes: u64,
    /// Of the networks beside the model that the first image uses, on each device.
    network_bytes: u64,
    ranks: []const Rank,
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
    // The offsets also decide which linear layers are one product.
    var placement: device_weights.Placement = .{ .block_bytes = 0 };
    if (is_cuda) {
        const activation = session.options.devices.activation_dtype;
        placement = device_weights.place(session.model.weights, activation, true);
    } else {
        placement.block_bytes = session.model.weightBytes().mapped;
        placement.kept_f8_bytes = session.model.f8Bytes();
    }
    var job = try session.options.first.job(arena);
    defer job.deinit();
    const described = session.options.first.networks;
    const networks = try session.networks.open(arena, described, &session.model.config, null);
    defer session.networks.deinit();
    const planner = session.planner(networks);
    var plan = try planner.plan(&job);
    defer plan.deinit();
    const layout = &plan.layout;
    const ranks = try arena.alloc(Rank, layout.rank_count);
    for (ranks, 0..) |*rank, i| {
        const index: u32 = @intCast(i);
        var op_trace: OpTrace = .{ .gpa = arena };
        const traced = try planner.trace(&plan, &job, index, &op_trace);
        if (op_trace.is_incomplete) return error.OutOfMemory;
        const peaks = &op_trace.peaks;
        rank.* = .{
            .index = index,
            .rows = layout.patches.list[layout.patchOf(index)].row_count,
            .scratch_bytes = std.mem.max(usize, &peaks.values),
            .peaks = .{
                .text = peaks.get(.text),
                .denoise = peaks.get(.denoise),
                .decode = peaks.get(.decode),
            },
            .exchange_bytes = traced.exchange_bytes,
            .workspace_bytes = if (is_cuda)
                products.workspace_bytes + placement.widen_bytes
            else
                0,
            .partial_bytes = if (is_cuda) cudas.reduction_workspace_bytes else 0,
            .operations = op_trace.entries.items,
        };
    }
    const first_adapters = session.options.first_adapters;
    const activation = if (is_cuda) session.options.devices.activation_dtype else null;
    const merged =
        try devices.mergedBytes(arena, &session.model, first_adapters, activation);
    return .{
        .weight_bytes = placement.block_bytes,
        .network_bytes = Networks.missingBytes(networks, &session.devices),
        .weight_f8_bytes = placement.kept_f8_bytes,
        .weight_int8_bytes = placement.int8_bytes,
        .adapter_bytes = merged,
        .ranks = ranks,
    };
}
