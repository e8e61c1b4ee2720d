//! The devices of a process's ranks: pools of CPU threads, or GPUs that hold the model's weights.
//!
//! In reading order:
//!   options      what a session asks for, and the errors
//!   rank_device  the device of one rank and its scratch arena
//!   cpu_ranks    thread pools, or fibers where there are more ranks than threads
//!   gpu_ranks    GPUs, their weights, a stream per rank, the connection between ranks
//!   int8_weights the panels of int8 weights on the CPU
//!   int8_cache   the file of them in the user's cache folder
//!   merged_set   the weights that a set of adapters makes
//!   adapted_weights  which set the ranks compute with, and those that are kept
//!   shortage     whether weights and scratch fit into free memory

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const cacheFolder = @import("backend/cuda/autotune.zig").defaultFolder;
const adapted_weights = @import("devices/adapted_weights.zig");
const backend = @import("backend.zig");
const cores = @import("system/cores.zig");
const CpuRanks = @import("devices/cpu_ranks.zig").CpuRanks;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const DType = @import("tensor.zig").DType;
const GpuRanks = @import("devices/gpu_ranks.zig").GpuRanks;
const Int8Weights = @import("devices/int8_weights.zig").Int8Weights;
const Model = @import("model.zig").Model;
const Network = @import("model.zig").Network;
const device_weights = @import("backend/cuda/weights.zig");
const options_file = @import("devices/options.zig");
const RankDevice = @import("devices/rank_device.zig").RankDevice;
const Resident = @import("weights.zig").Resident;
const shortages = @import("devices/shortage.zig");
const transports = @import("transport.zig");

pub const AdaptedWeights = adapted_weights.AdaptedWeights;
pub const AdaptProgress = adapted_weights.Progress;
pub const DeviceKind = options_file.DeviceKind;
pub const Error = options_file.Error;
pub const mergedBytes = adapted_weights.mergedBytes;
pub const Needs = shortages.Needs;
pub const Options = options_file.Options;
pub const Shortage = shortages.Shortage;
pub const TransportKind = transports.TransportKind;

/// For work that nobody cancels.
pub const not_cancelled: std.atomic.Value(bool) = .init(false);

pub const Devices = struct {
    gpa: Allocator,
    io: Io,
    options: Options,
    diagnostics: *Diagnostics,
    cancelled: *const std.atomic.Value(bool),
    arena: std.heap.ArenaAllocator,
    /// The local ranks, in order.
    ranks: []RankDevice = &.{},
    /// Null on GPUs, and before `open`.
    cpu: ?CpuRanks = null,
    /// Null on the CPU, and before `open`.
    gpu: ?GpuRanks = null,
    int8: Int8Weights = .{},

    /// Opens the local ranks; `rank_count` is that of all processes. Must not move afterwards.
    pub fn open(devices: *Devices, rank_count: u32) Error!void {
        errdefer devices.close();
        const arena = devices.arena.allocator();
        const ranks = try arena.alloc(RankDevice, devices.options.local_ranks.count());
        switch (devices.options.kind) {
            .cpu => {
                const o = &devices.options;
                devices.cpu = try .open(devices.gpa, arena, devices.io, devices.cancelled, o);
            },
            .cuda => {
                devices.gpu = .{
                    .gpa = devices.gpa,
                    .arena = arena,
                    .io = devices.io,
                    .diagnostics = devices.diagnostics,
                    .cancelled = devices.cancelled,
                    .options = &devices.options,
                };
                try devices.gpu.?.openGpus();
            },
        }
        for (ranks, 0..) |*rank, i| {
            rank.* = switch (devices.options.kind) {
                .cpu => try devices.cpu.?.openRank(@intCast(i)),
                .cuda => try devices.gpu.?.openRank(@intCast(i)),
            };
            devices.ranks = ranks[0 .. i + 1];
        }
        if (devices.gpu) |*gpu| try gpu.connect(ranks, rank_count);
    }

    /// One GPU with one rank, for programs that run operations there.
    pub const OneGpu = struct {
        gpa: Allocator,
        io: Io,
        activation: DType,
        /// The emulated driver; "" for the system's.
        library: [:0]const u8,
        keeps_algorithms: bool = true,
        /// Has the sentence where it fails.
        diagnostics: *Diagnostics,
    };

    /// Must not move.
    pub fn openOneGpu(devices: *Devices, o: OneGpu) Error!void {
        devices.* = .{
            .gpa = o.gpa,
            .io = o.io,
            .options = .{
                .kind = .cuda,
                .activation_dtype = o.activation,
                .local_ranks = .{ .first = 0, .end = 1 },
                .cuda_library = o.library,
                .keeps_algorithms = o.keeps_algorithms,
            },
            .diagnostics = o.diagnostics,
            .cancelled = &not_cancelled,
            .arena = .init(o.gpa),
        };
        return devices.open(1);
    }

    /// Whether no further job can run: a GPU was given up or its context is broken, or the
    /// processes of a distributed job lost each other. Between jobs.
    pub fn isLost(devices: *const Devices) bool {
        for (devices.ranks) |rank| if (rank.isAbandoned()) return true;
        if (devices.gpu) |gpu_ranks| {
            for (gpu_ranks.gpus) |*gpu| if (gpu.isBroken()) return true;
        }
        return devices.connection().isLost();
    }

    /// Replaces the communicators that a failed job has aborted. Must not be lost.
    pub fn prepare(devices: *Devices) Error!void {
        if (devices.gpu) |*gpu| try gpu.connection.restore();
    }

    /// A GPU whose stream never ends may still write, and freeing memory would wait for it: then
    /// everything is left allocated until the process ends.
    pub fn close(devices: *Devices) void {
        for (devices.ranks) |rank| if (rank.isStuck()) return;
        for (devices.ranks) |*rank| rank.close(devices.gpa);
        devices.ranks = &.{};
        if (devices.cpu) |*cpu| cpu.close();
        devices.cpu = null;
        devices.int8.deinit(devices.io);
        if (devices.gpu) |*gpu| gpu.close();
        devices.gpu = null;
        devices.arena.deinit();
    }

    /// A sentence for the user about how the ranks are connected; "" for none.
    pub fn connectionNote(devices: *const Devices) []const u8 {
        return if (devices.gpu) |*gpu| gpu.connection_note else "";
    }

    /// How the local ranks reach each other's data.
    pub fn connection(devices: *const Devices) transports.Connection {
        return if (devices.gpu) |*gpu| gpu.connection else .shared_memory;
    }

    /// Set where CPU ranks share threads.
    pub fn fibers(devices: *const Devices) ?*backend.cpus.RankFibers {
        return if (devices.cpu) |*cpu| cpu.fibers else null;
    }

    /// The dry-run device that stands for these.
    pub fn planned(devices: *const Devices) backend.Planned {
        return .{
            .activation = devices.options.activation_dtype,
            .is_cuda = devices.options.kind == .cuda,
        };
    }

    /// Bytes of the weights on each device of ranks: on a GPU with what they need there. Before
    /// `loadWeights`.
    pub fn placeWeights(devices: *Devices, model: *const Model) u64 {
        if (devices.gpu) |*gpu| return gpu.placeWeights(model.weights);
        const bytes = model.weightBytes();
        return bytes.mapped + bytes.copied;
    }

    /// Loads the weights to where the ranks read them. `interrupt` is set when a page is lost.
    pub fn loadWeights(
        devices: *Devices,
        model: *Model,
        interrupt: *std.atomic.Value(bool),
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        if (devices.gpu) |*gpu| return devices.loadToGpus(gpu, model, interrupt, copied_bytes);
        for (&model.residents.values) |*maybe| {
            if (maybe.*) |*r| try r.loadToHost(devices.cancelled, copied_bytes);
        }
        devices.int8 = try devices.loadInt8(model, interrupt, copied_bytes);
    }

    /// Bytes of a network beside the model, on each device.
    pub fn networkBytes(devices: *const Devices, network: *const Network) u64 {
        return devices.residentBytes(&network.resident, false);
    }

    /// Bytes of one network's weights alone, on each device; `keeps_f8` as in `place`. Before
    /// these are loaded.
    pub fn residentBytes(devices: *const Devices, resident: *const Resident, keeps_f8: bool) u64 {
        if (devices.options.kind == .cuda) {
            const activation = devices.options.activation_dtype;
            const list = resident.weights.items;
            return device_weights.place(list, activation, keeps_f8).block_bytes;
        }
        return resident.checkpoint.mappedBytes() + resident.copiedBytes();
    }

    /// Loads a network beside the model to where the ranks read it. Only between jobs.
    pub fn loadNetwork(
        devices: *Devices,
        network: *Network,
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        const gpu = if (devices.gpu) |*gpu| gpu else {
            return network.resident.loadToHost(devices.cancelled, copied_bytes);
        };
        const bytes = devices.networkBytes(network);
        return gpu.loadNetwork(devices.ranks, network.weights, bytes, copied_bytes);
    }

    /// Frees what `loadNetwork` allocated on GPUs; on the CPU closing the network does.
    pub fn freeNetwork(devices: *Devices, network: *const Network) void {
        if (devices.gpu) |*gpu| gpu.freeNetwork(network.block);
    }

    /// Int8 weights go to GPUs by way of the panels that the CPU reads, which are rounded once.
    fn loadToGpus(
        devices: *Devices,
        gpu: *GpuRanks,
        model: *Model,
        interrupt: *std.atomic.Value(bool),
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        // Bytes count when they are on the GPUs.
        var panel_bytes: std.atomic.Value(u64) = .init(0);
        const is_random = devices.options.random_weights;
        var int8: Int8Weights = if (is_random)
            .{}
        else
            try devices.loadInt8(model, interrupt, &panel_bytes);
        defer {
            int8.deinit(devices.io);
            for (model.weights) |weight| weight.address = 0;
        }
        const loaded = gpu.loadWeights(devices.ranks, model.weights, copied_bytes);
        try int8.checkUnchanged(devices.io, devices.diagnostics);
        return loaded;
    }

    fn loadInt8(
        devices: *Devices,
        model: *const Model,
        interrupt: *std.atomic.Value(bool),
        copied_bytes: *std.atomic.Value(u64),
    ) Error!Int8Weights {
        return .load(devices.gpa, devices.io, .{
            .model = model,
            .thread_count = devices.threadCount(),
            .cache_folder = try cacheFolder(devices.arena.allocator()),
            .cancelled = interrupt,
            .copied_bytes = copied_bytes,
        });
    }

    /// The weights of the loaded `model`, to be adapted between jobs.
    pub fn adaptedWeights(
        devices: *Devices,
        model: *Model,
        cancelled: *std.atomic.Value(bool),
        progress: *AdaptProgress,
    ) AdaptedWeights {
        const o = &devices.options;
        return .{
            .gpa = devices.gpa,
            .io = devices.io,
            .model = model,
            .diagnostics = devices.diagnostics,
            .cancelled = cancelled,
            .gpu = if (devices.gpu) |*gpu| gpu else null,
            .activation = o.activation_dtype,
            .thread_count = devices.threadCount(),
            .progress = progress,
        };
    }

    fn threadCount(devices: *const Devices) usize {
        const asked = devices.options.thread_count;
        return if (asked > 0) asked else cores.count(devices.io);
    }

    /// Memory in use on the first GPU, by all programs; 0 on the CPU or where it is unknown.
    pub fn usedBytes(devices: *const Devices) u64 {
        if (devices.gpu) |*gpu| return gpu.gpus[0].usedBytes() catch 0;
        return 0;
    }

    /// The memory that is missing where `needs` does not fit into what is free; null where it does.
    /// On the CPU it may be asked before `open`.
    pub fn shortage(devices: *const Devices, needs: Needs) Error!?Shortage {
        return switch (devices.options.kind) {
            .cpu => Shortage.onHost(devices.io, devices.ranks, needs),
            .cuda => Shortage.onGpus(devices.gpu.?.gpus, devices.ranks, needs),
        };
    }

    /// What `needs` are on the device with most of them.
    pub fn bytesOf(devices: *const Devices, needs: Needs) u64 {
        var scratch: u64 = 0;
        for (needs.scratch) |bytes| {
            scratch = if (devices.sharesMemory()) scratch + bytes else @max(scratch, bytes);
        }
        return needs.weight_bytes + scratch;
    }

    /// Whether several ranks take their scratch from the same memory.
    pub fn sharesMemory(devices: *const Devices) bool {
        return devices.options.kind == .cpu or devices.options.share_gpu;
    }
};

test {
    _ = @import("devices/int8_cache.zig");
    _ = shortages;
}
