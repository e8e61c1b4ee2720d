//! The devices of a process's ranks: pools of CPU threads, or GPUs that hold the model's weights.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backends = @import("backend.zig");
const Cpu = backends.Cpu;
const cpus = backends.cpus;
const Cuda = backends.Cuda;
const device_weights = @import("backend/cuda/weights.zig");
const Gpu = @import("backend/cuda/gpu.zig").Gpu;
const products = @import("backend/cuda/library_handles.zig");
const random_weights = @import("backend/cuda/random_weights.zig");
const drivers = @import("nvidia/driver.zig");
const libraries = @import("nvidia/libraries.zig");
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const models = @import("model.zig");
const rank_devices = @import("devices/rank_device.zig");
const RankDevice = rank_devices.RankDevice;
const Shortage = @import("devices/shortage.zig").Shortage;
const transports = @import("transport.zig");
const nccl = @import("nvidia/nccl.zig");
const Endpoint = transports.Endpoint;
const rank_count_max = transports.rank_count_max;
const cores = @import("system/cores.zig");
const memory = @import("system/memory.zig");
const DType = @import("tensor.zig").DType;
const Resident = @import("weights.zig").Resident;
const Weight = @import("weights.zig").Weight;

pub const Error = error{
    OutOfMemory,
    ThreadsUnavailable,
    GpuFailed,
    LibraryMissing,
    Cancelled,
    BadWeights,
    NotEnoughMemory,
};

pub const DeviceKind = enum(u32) { cpu = 0, cuda = 1 };

pub const TransportKind = transports.TransportKind;

pub const Options = struct {
    kind: DeviceKind = .cpu,
    /// Threads of all CPU ranks together; 0 means one per core.
    thread_count: u32 = 0,
    /// Precision of matrix products on the CPU.
    compute_dtype: backends.Compute = .f32,
    /// Type of the activations: f32 on the CPU, f16 or bf16 on GPUs.
    activation_dtype: DType = .f32,
    /// Whether several ranks may run on one GPU.
    share_gpu: bool = false,
    use_graphs: bool = true,
    fp16_accumulate: bool = false,
    transport: TransportKind = .auto,
    /// The ranks of this process.
    local_ranks: transports.RankRange,
    /// The GPU of the first local rank.
    gpu_first: u32 = 0,
    /// The ncclUniqueId of a distributed job; null where all ranks are local.
    nccl_unique_id: ?nccl.UniqueId = null,
    /// Generate weights on the GPU; for benches.
    random_weights: bool = false,
    /// Replaces NVIDIA's libraries; "" for these.
    cuda_library: [:0]const u8 = "",
};

pub const Machine = struct {
    gpa: Allocator,
    io: Io,
    options: Options,
    diagnostics: *Diagnostics,
    cancelled: *const std.atomic.Value(bool),
    arena: std.heap.ArenaAllocator,
    /// Ranks of all processes.
    rank_count: u32 = 0,
    /// The local ranks, in order.
    ranks: []RankDevice = &.{},
    /// Set where CPU ranks share cores.
    fibers: ?*cpus.RankFibers = null,
    gpus: []Gpu = &.{},
    connection: transports.Connection = .shared_memory,
    libraries: libraries.Libraries = undefined,

    /// The process's rank i runs on its GPU i, or with `share_gpu` on GPU i modulo their number.
    /// `rank_count` is that of all processes. Must not move.
    pub fn open(machine: *Machine, rank_count: u32) Error!void {
        errdefer machine.close();
        const here = machine.options.local_ranks;
        machine.rank_count = rank_count;
        machine.ranks = try machine.arena.allocator().alloc(RankDevice, here.count());
        var opened: usize = 0;
        errdefer machine.ranks.len = opened;
        // Read once: a container's limit may change meanwhile.
        const thread_count = machine.threadCount();
        switch (machine.options.kind) {
            .cpu => try machine.openRankFibers(thread_count),
            .cuda => try machine.openGpus(),
        }
        for (machine.ranks, 0..) |*rank, i| {
            rank.* = switch (machine.options.kind) {
                .cpu => try machine.openCpu(i, thread_count),
                .cuda => try machine.openQueue(i),
            };
            opened += 1;
        }
        if (machine.options.kind == .cuda) try machine.connectRanks();
    }

    /// Whether no further job can run: a GPU was given up, or the processes of a distributed job
    /// lost each other.
    pub fn isLost(machine: *const Machine) bool {
        for (machine.ranks) |rank| if (rank.isAbandoned()) return true;
        return machine.connection.isLost();
    }

    /// Replaces the communicators that a failed job has aborted. Must not be lost.
    pub fn prepare(machine: *Machine) Error!void {
        try machine.connection.restore();
    }

    /// A GPU whose stream never ends may still write, and freeing memory would wait for it: then
    /// everything is left allocated until the process ends.
    pub fn close(machine: *Machine) void {
        for (machine.ranks) |rank| if (rank.isAbandoned()) return;
        for (machine.ranks) |*rank| rank.close(machine.gpa);
        machine.ranks = &.{};
        if (machine.fibers) |fibers| fibers.deinit();
        machine.fibers = null;
        for (machine.gpus) |*gpu| gpu.close();
        machine.gpus = &.{};
        machine.arena.deinit();
    }

    /// The dry-run device that stands for these.
    pub fn planned(machine: *const Machine) backends.Planned {
        return .{
            .activation = machine.options.activation_dtype,
            .is_cuda = machine.options.kind == .cuda,
        };
    }

    /// Loads the weights to where the ranks read them.
    pub fn loadWeights(
        machine: *Machine,
        model: *models.Model,
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        if (machine.options.kind == .cpu) {
            for (&model.residents.values) |*maybe| {
                if (maybe.*) |*r| try r.loadToHost(machine.cancelled, copied_bytes);
            }
            return;
        }
        const activation = machine.options.activation_dtype;
        const bytes = device_weights.place(model.weights, activation);
        for (machine.gpus) |*gpu| {
            try gpu.makeCurrent();
            gpu.weights = try gpu.allocate(bytes);
            const c = machine.cancelled;
            if (machine.options.random_weights) {
                try random_weights.fill(machine.queueOn(gpu), gpu, model.weights, copied_bytes);
            } else {
                const w = model.weights;
                try device_weights.upload(machine.gpa, gpu, w, activation, c, copied_bytes);
            }
        }
        for (machine.ranks) |rank| rank.device.cuda.weights_base = rank.gpu.?.weights;
    }

    /// Adds `delta` to a weight wherever it is resident; see `weights.Resident.apply`.
    pub fn applyDelta(
        machine: *Machine,
        resident: *Resident,
        weight: *Weight,
        delta: []const f32,
    ) Error!void {
        if (machine.options.kind == .cpu) return resident.apply(weight, delta);
        const activation = machine.options.activation_dtype;
        for (machine.gpus) |*gpu| {
            try device_weights.apply(machine.gpa, gpu, weight, activation, delta);
        }
    }

    /// Returns to the checkpoint's weight. Refused where its file has changed since.
    pub fn restoreWeight(machine: *Machine, resident: *Resident, weight: *Weight) Error!void {
        if (machine.options.kind == .cpu) return resident.restore(weight);
        const activation = machine.options.activation_dtype;
        for (machine.gpus) |*gpu| {
            try device_weights.restore(machine.gpa, gpu, weight, activation);
        }
        try resident.checkpoint.checkUnchanged();
    }

    /// Memory in use on the first GPU, by all programs; 0 on the CPU or where it is unknown.
    pub fn usedBytes(machine: *const Machine) u64 {
        if (machine.gpus.len == 0) return 0;
        return machine.gpus[0].usedBytes() catch 0;
    }

    pub const Needs = struct {
        /// Arena bytes of each local rank.
        scratch: []const usize,
        /// 0 once they are loaded.
        weight_bytes: u64,
    };

    /// The memory that is missing where `needs` does not fit into what is free; null where it does.
    pub fn shortage(machine: *const Machine, needs: Needs) Error!?Shortage {
        if (machine.options.kind == .cpu) {
            var one: Shortage = .{
                .weights = needs.weight_bytes,
                .scratch = 0,
                .ranks = @intCast(needs.scratch.len),
                .free = memory.available(machine.io) orelse return null,
            };
            for (needs.scratch) |bytes| one.scratch += bytes;
            for (machine.ranks) |rank| one.scratch -|= rank.bytes;
            return one.orNull();
        }
        for (machine.gpus) |*gpu| {
            var one: Shortage = .{
                .gpu = @intCast(gpu.device),
                .weights = needs.weight_bytes,
                .scratch = 0,
                .ranks = 0,
                .free = try gpu.freeBytes(),
            };
            for (needs.scratch, machine.ranks[0..needs.scratch.len]) |bytes, rank| {
                if (rank.gpu.? != gpu) continue;
                one.scratch += bytes -| rank.bytes;
                one.ranks += 1;
            }
            if (one.orNull()) |found| return found;
        }
        return null;
    }

    /// Whether several ranks take their scratch from the same memory.
    pub fn sharesMemory(machine: *const Machine) bool {
        return machine.options.kind == .cpu or machine.options.share_gpu;
    }

    // --- internal ---

    /// Threads of all CPU ranks together.
    fn threadCount(machine: *const Machine) u32 {
        if (machine.options.thread_count > 0) return machine.options.thread_count;
        return cores.count(machine.io);
    }

    fn openRankFibers(machine: *Machine, thread_count: u32) Error!void {
        machine.fibers = null;
        if (thread_count >= machine.ranks.len) return;
        comptime assert(rank_count_max <= cpus.RankFibers.member_count_max);
        const fibers = try machine.arena.allocator().create(cpus.RankFibers);
        try fibers.init(.{
            .io = machine.io,
            .cancelled = machine.cancelled,
            .thread_count = thread_count,
            .rank_count = machine.ranks.len,
        });
        machine.fibers = fibers;
    }

    fn openCpu(machine: *Machine, i: usize, total: u32) Error!RankDevice {
        const count: u32 = @intCast(machine.ranks.len);
        // The first ranks get the remainder.
        const threads = total / count + @intFromBool(i < total % count);
        const cpu = Cpu.init(machine.gpa, machine.io, .{
            .thread_count = @max(1, threads),
            .compute = machine.options.compute_dtype,
            .fiber_slot = if (machine.fibers) |fibers| .{ .fibers = fibers, .rank = i } else null,
            .cancelled = machine.cancelled,
        }) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => return error.ThreadsUnavailable,
        };
        return .{ .device = .{ .cpu = cpu } };
    }

    fn openGpus(machine: *Machine) Error!void {
        const o = &machine.options;
        const rank_count: u32 = @intCast(machine.ranks.len);
        const source: libraries.Source = if (o.cuda_library.len > 0)
            .{ .emulated = o.cuda_library }
        else
            .system;
        const arena = machine.arena.allocator();
        const environment = libraries.Environment.ofProcess();
        const d = machine.diagnostics;
        machine.libraries = try libraries.open(arena, machine.io, source, environment, d);
        const driver = &machine.libraries.driver;
        const names = drivers.listGpus(driver);
        const there = names.count;
        // Launchers often set CUDA_VISIBLE_DEVICES per process.
        const first = if (there <= rank_count) 0 else o.gpu_first;
        // Algorithms timed on the emulator are not cached.
        const folder = if (source == .system) try products.defaultFolder(arena) else null;
        if (there == 0 or (there < rank_count and !o.share_gpu)) {
            return d.fail(error.GpuFailed, "{d} ranks need {d} GPUs, and the driver shows {d}. " ++
                "--share-gpu lets several ranks use one; --device cpu generates without GPUs.", .{
                rank_count, rank_count, there,
            });
        }
        if (there < first + rank_count and !o.share_gpu) {
            return d.fail(error.GpuFailed, "This process's {d} ranks would start at GPU {d} (by " ++
                "LOCAL_RANK), and the driver shows {d}: start fewer processes on this machine.", .{
                rank_count, first, there,
            });
        }
        const gpus = try arena.alloc(Gpu, @min(there - first, rank_count));
        for (gpus, first..) |*gpu, i| {
            gpu.* = try .open(driver, @intCast(i), d);
            machine.gpus = gpus[0 .. i - first + 1];
            gpu.measured = try .open(
                machine.gpa,
                machine.io,
                folder,
                &machine.libraries,
                names.name(i),
            );
        }
        for (gpus) |*gpu| {
            for (gpus) |*other| try gpu.reach(other);
        }
    }

    /// The stream of the first rank on `gpu`.
    fn queueOn(machine: *Machine, gpu: *const Gpu) *Cuda {
        for (machine.ranks) |rank| {
            if (rank.gpu.? == gpu) return rank.device.cuda;
        }
        unreachable;
    }

    fn openQueue(machine: *Machine, i: usize) Error!RankDevice {
        const gpu = &machine.gpus[i % machine.gpus.len];
        try gpu.makeCurrent();
        const cuda = try Cuda.init(machine.gpa, .{
            .driver = &machine.libraries.driver,
            .device = gpu.device,
            .module = gpu.module,
            .weights_base = gpu.weights,
            .activation = machine.options.activation_dtype,
            .diagnostics = machine.diagnostics,
            .cancelled = machine.cancelled,
            .use_graphs = machine.options.use_graphs,
            .fp16_accumulate = machine.options.fp16_accumulate,
            .rank = @intCast(machine.options.local_ranks.first + i),
        });
        errdefer cuda.deinit();
        cuda.libraries = try .open(machine.gpa, .{
            .driver = &machine.libraries.driver,
            .libraries = &machine.libraries,
            .measured = gpu.measured.?,
            .diagnostics = machine.diagnostics,
        });
        const endpoint = try machine.arena.allocator().create(Endpoint);
        endpoint.* = try .open(cuda);
        return .{ .device = .{ .cuda = cuda }, .gpu = gpu, .endpoint = endpoint };
    }

    fn connectRanks(machine: *Machine) Error!void {
        const endpoints = try machine.arena.allocator().alloc(*Endpoint, machine.ranks.len);
        for (endpoints, machine.ranks) |*endpoint, rank| endpoint.* = rank.endpoint.?;
        machine.connection = try .open(.{
            .choice = machine.options.transport,
            .rank_count = machine.rank_count,
            .rank_first = machine.options.local_ranks.first,
            .unique_id = machine.options.nccl_unique_id,
            .endpoints = endpoints,
            .gpus = machine.gpus,
            .libraries = &machine.libraries,
            .diagnostics = machine.diagnostics,
        });
    }
};

comptime {
    std.debug.assert(rank_count_max <= drivers.gpu_count_max);
}
