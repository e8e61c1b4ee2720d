//! GPU ranks: the GPUs of a process with the model's weights, a stream per rank, and the connection
//! between ranks. The local rank i runs on GPU i, or with `share_gpu` on GPU i modulo their number.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backend = @import("../backend.zig");
const Cuda = backend.Cuda;
const cores = @import("../system/cores.zig");
const dependent_launches = @import("../backend/cuda/dependent_launches.zig");
const device_weights = @import("../backend/cuda/weights.zig");
const Gpu = @import("../backend/cuda/gpu.zig").Gpu;
const library_handles = @import("../backend/cuda/library_handles.zig");
const random_weights = @import("../backend/cuda/random_weights.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const drivers = @import("../nvidia/driver.zig");
const libraries = @import("../nvidia/libraries.zig");
const options_file = @import("options.zig");
const Options = options_file.Options;
const RankDevice = @import("rank_device.zig").RankDevice;
const transports = @import("../transport.zig");
const Endpoint = transports.Endpoint;
const Weight = @import("../weights.zig").Weight;

pub const Error = options_file.Error;

comptime {
    std.debug.assert(transports.rank_count_max <= drivers.gpu_count_max);
}

pub const GpuRanks = struct {
    gpa: Allocator,
    /// Freed after `close`.
    arena: Allocator,
    io: Io,
    diagnostics: *Diagnostics,
    cancelled: *const std.atomic.Value(bool),
    options: *const Options,
    libraries: libraries.Libraries = undefined,
    gpus: []Gpu = &.{},
    connection: transports.Connection = .shared_memory,
    connection_note: []const u8 = "",
    /// Set by `placeWeights`.
    placement: device_weights.Placement = .{ .block_bytes = 0 },

    /// Opens the libraries and the GPUs of all local ranks. Must not move afterwards. The caller
    /// closes it even where this fails.
    pub fn openGpus(ranks: *GpuRanks) Error!void {
        const o = ranks.options;
        const source: libraries.Source = if (o.cuda_library.len > 0)
            .{ .emulated = o.cuda_library }
        else
            .system;
        const environment = libraries.Environment.ofProcess();
        const d = ranks.diagnostics;
        ranks.libraries = try libraries.open(ranks.arena, ranks.io, source, environment, d);
        const driver = &ranks.libraries.driver;
        const names = drivers.listGpus(driver);
        const first = try ranks.firstGpu(names.count);
        // Algorithms timed on the emulator are not cached.
        const folder = if (source == .system and o.keeps_algorithms)
            try library_handles.defaultFolder(ranks.arena)
        else
            null;
        const count = @min(names.count - first, o.local_ranks.count());
        const gpus = try ranks.arena.alloc(Gpu, count);
        for (gpus, first..) |*gpu, i| {
            gpu.* = try .open(driver, @intCast(i), d);
            ranks.gpus = gpus[0 .. i - first + 1];
            gpu.measured = try .open(
                ranks.gpa,
                ranks.io,
                folder,
                &ranks.libraries,
                names.name(i),
            );
        }
        for (gpus) |*gpu| {
            for (gpus) |*other| try gpu.reach(other);
        }
    }

    /// Opens the stream of the local rank `i`.
    pub fn openRank(ranks: *GpuRanks, i: u32) Error!RankDevice {
        const gpu = &ranks.gpus[i % ranks.gpus.len];
        try gpu.makeCurrent();
        const cuda = try Cuda.init(ranks.gpa, .{
            .driver = &ranks.libraries.driver,
            .device = gpu.device,
            .module = gpu.module,
            .weights_base = gpu.weights,
            .activation = ranks.options.activation_dtype,
            .diagnostics = ranks.diagnostics,
            .cancelled = ranks.cancelled,
            .use_graphs = ranks.options.use_graphs,
            .fp16_accumulate = ranks.options.fp16_accumulate,
            .dependent_launches = dependent_launches.isWanted(),
            .rank = ranks.options.local_ranks.first + i,
        });
        errdefer cuda.deinit();
        cuda.libraries = try .open(ranks.gpa, .{
            .driver = &ranks.libraries.driver,
            .libraries = &ranks.libraries,
            .measured = gpu.measured.?,
            .diagnostics = ranks.diagnostics,
            .waits = &cuda.waits,
            .attention = ranks.options.attention,
        });
        const endpoint = try ranks.arena.create(Endpoint);
        endpoint.* = try .open(cuda);
        return .{ .device = .{ .cuda = cuda }, .gpu = gpu, .endpoint = endpoint };
    }

    /// Connects the local ranks with each other, and with those of other processes.
    pub fn connect(ranks: *GpuRanks, local: []const RankDevice, rank_count: u32) Error!void {
        const endpoints = try ranks.arena.alloc(*Endpoint, local.len);
        for (endpoints, local) |*endpoint, rank| endpoint.* = rank.endpoint.?;
        ranks.connection = try .open(.{
            .choice = ranks.options.transport,
            .rank_count = rank_count,
            .rank_first = ranks.options.local_ranks.first,
            .unique_id = ranks.options.nccl_unique_id,
            .endpoints = endpoints,
            .gpus = ranks.gpus,
            .libraries = &ranks.libraries,
            .diagnostics = ranks.diagnostics,
            .arena = ranks.arena,
            .note = &ranks.connection_note,
        });
    }

    /// After the ranks have been closed.
    pub fn close(ranks: *GpuRanks) void {
        for (ranks.gpus) |*gpu| gpu.close();
        ranks.* = undefined;
    }

    /// Decides where every weight goes, and whether 8-bit weights stay so: where all GPUs can.
    /// Returns the bytes that the weights take on a GPU, workspaces included.
    pub fn placeWeights(ranks: *GpuRanks, weights: []const *Weight) u64 {
        var keeps_f8 = !ranks.options.random_weights;
        for (ranks.gpus) |*gpu| keeps_f8 = keeps_f8 and gpu.hasF8();
        const placement = device_weights.place(weights, ranks.options.activation_dtype, keeps_f8);
        ranks.placement = placement;
        const rank_count = ranks.options.local_ranks.count();
        const per_gpu = std.math.divCeil(u64, rank_count, ranks.gpus.len) catch unreachable;
        return placement.block_bytes + per_gpu * placement.widen_bytes;
    }

    /// Copies `weights`, which have been placed, to every GPU, or with `random_weights` generates
    /// them there.
    pub fn loadWeights(
        ranks: *GpuRanks,
        local: []const RankDevice,
        weights: []const *Weight,
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        const activation = ranks.options.activation_dtype;
        const placement = &ranks.placement;
        const is_random = ranks.options.random_weights;
        var converter: device_weights.Converter = undefined;
        try ranks.initConverter(&converter, if (is_random) &.{} else weights);
        defer converter.deinit();
        for (ranks.gpus) |*gpu| {
            try gpu.makeCurrent();
            gpu.weights = try gpu.allocate(placement.block_bytes);
            gpu.wide_copies = try ranks.arena.alloc(usize, placement.kept_f8_count);
            @memset(gpu.wide_copies, 0);
            if (is_random) {
                try random_weights.fill(streamOn(local, gpu), gpu, weights, copied_bytes);
            }
        }
        if (!is_random) {
            try device_weights.upload(ranks.gpus, weights, activation, &converter, copied_bytes);
        }
        for (local) |rank| {
            const cuda = rank.device.cuda;
            cuda.weights_base = rank.gpu.?.weights;
            try rank.gpu.?.makeCurrent();
            try cuda.reserveWiden(placement.widen_bytes);
        }
    }

    /// Copies the weights of a network beside the model, which `device_weights.place` has placed,
    /// to a block of their own on every GPU. Only between jobs; where it fails nothing is left.
    pub fn loadNetwork(
        ranks: *GpuRanks,
        local: []const RankDevice,
        weights: []const *Weight,
        block_bytes: usize,
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        const block = weights[0].block;
        errdefer ranks.freeNetwork(block);
        for (ranks.gpus) |*gpu| {
            try gpu.makeCurrent();
            gpu.networks[block] = try gpu.allocate(block_bytes);
        }
        var converter: device_weights.Converter = undefined;
        try ranks.initConverter(&converter, weights);
        defer converter.deinit();
        const activation = ranks.options.activation_dtype;
        try device_weights.upload(ranks.gpus, weights, activation, &converter, copied_bytes);
        for (local) |rank| {
            rank.device.cuda.network_bases[block] = rank.gpu.?.networks[block];
        }
    }

    pub fn freeNetwork(ranks: *GpuRanks, block: u32) void {
        for (ranks.gpus) |*gpu| {
            gpu.makeCurrent() catch {};
            gpu.freeNetwork(block);
        }
    }

    /// Copies a weight, in the type and order of `device_weights`, to every GPU. Only between jobs.
    pub fn writeWeight(ranks: *GpuRanks, weight: *const Weight, bytes: []const u8) Error!void {
        for (ranks.gpus) |*gpu| try device_weights.write(gpu, weight, bytes);
    }

    /// Whether each GPU has a merged copy of it beside the 8-bit weight.
    pub fn hasWideCopies(ranks: *const GpuRanks, weight: *const Weight) bool {
        const kept = weight.kept_f8 orelse return false;
        for (ranks.gpus) |*gpu| if (gpu.wide_copies[kept.index] == 0) return false;
        return true;
    }

    /// For `restoreWeight` of the largest of `weights`; the caller closes it.
    pub fn initConverter(
        ranks: *const GpuRanks,
        converter: *device_weights.Converter,
        weights: []const *Weight,
    ) Error!void {
        const o = ranks.options;
        const count = if (o.thread_count > 0) o.thread_count else cores.count(ranks.io);
        const largest = device_weights.largestCount(weights);
        return converter.init(ranks.gpa, ranks.io, count, largest, ranks.cancelled);
    }

    /// Returns to the model's own weight on every GPU. Only between jobs.
    pub fn restoreWeight(
        ranks: *GpuRanks,
        weight: *const Weight,
        converter: *device_weights.Converter,
    ) Error!void {
        const bytes = try converter.bytesOf(weight, ranks.options.activation_dtype);
        return ranks.writeWeight(weight, bytes);
    }

    // --- internal ---

    /// The GPU of the first local rank, of `gpu_count` that the driver shows.
    fn firstGpu(ranks: *const GpuRanks, gpu_count: usize) Error!usize {
        const o = ranks.options;
        const rank_count = o.local_ranks.count();
        // Launchers often set CUDA_VISIBLE_DEVICES per process.
        const first = if (gpu_count <= rank_count) 0 else o.gpu_first;
        const d = ranks.diagnostics;
        if (gpu_count == 0 or (gpu_count < rank_count and !o.share_gpu)) {
            return d.fail(error.GpuFailed, "{d} ranks need {d} GPUs, and the driver shows {d}. " ++
                "--share-gpu lets several ranks use one; --device cpu generates without GPUs.", .{
                rank_count, rank_count, gpu_count,
            });
        }
        if (gpu_count < first + rank_count and !o.share_gpu) {
            return d.fail(error.GpuFailed, "{d} ranks would start at GPU {d} (by LOCAL_RANK or " ++
                "--share), and the driver shows {d}: there are more ranks than GPUs here.", .{
                rank_count, first, gpu_count,
            });
        }
        return first;
    }
};

/// The stream of the first rank on `gpu`.
fn streamOn(local: []const RankDevice, gpu: *const Gpu) *Cuda {
    for (local) |rank| {
        if (rank.gpu.? == gpu) return rank.device.cuda;
    }
    unreachable;
}
