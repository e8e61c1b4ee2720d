//! A GPU to time operations on: opened as a session opens it, with one queue. Work is taken down as
//! a CUDA graph and timed by the GPU's own events, so that what the host does is not in it.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Cuda = @import("../backend/cuda.zig").Cuda;
const Gpu = @import("../backend/cuda/gpu.zig").Gpu;
const Pool = @import("../backend/cuda/random_weights.zig").Pool;
const drivers = @import("../nvidia/driver.zig");
const Timer = @import("../backend/cuda/measure.zig").Timer;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const machines = @import("../devices.zig");
const DType = @import("../tensor.zig").DType;

pub const Error = machines.Error || error{OutOfScratch};

const not_cancelled: std.atomic.Value(bool) = .init(false);
const pool_count = 1 << 22;
/// What is asked for beside them, and drawn once.
const pool_count_emulated = 1 << 12;

pub const About = struct {
    gpu: []const u8,
    multiprocessors: c_int,
    l2_bytes: u64,
    memory_bytes: u64,
    driver: u32,
    cublaslt: u32,
    cudnn: u32,
    is_emulated: bool,
};

pub const Rig = struct {
    machine: machines.Machine,
    diagnostics: Diagnostics,
    cuda: *Cuda,
    gpu: *Gpu,
    pool: Pool,
    timer: Timer,
    names: drivers.Gpus,
    l2_bytes: u64,
    is_emulated: bool,

    /// Must not move. Where it fails, `diagnostics` has the sentence.
    pub fn open(
        rig: *Rig,
        gpa: Allocator,
        io: Io,
        activation: DType,
        emulator: [:0]const u8,
    ) Error!void {
        rig.diagnostics = .{};
        rig.is_emulated = emulator.len > 0;
        rig.machine = .{
            .gpa = gpa,
            .io = io,
            .options = .{
                .kind = .cuda,
                .activation = activation,
                .here = .{ .first = 0, .end = 1 },
                .cuda_library = emulator,
            },
            .diagnostics = &rig.diagnostics,
            .cancelled = &not_cancelled,
            .arena = .init(gpa),
        };
        try rig.machine.open(1);
        errdefer rig.machine.close();
        rig.cuda = rig.machine.ranks[0].device.cuda;
        rig.gpu = rig.machine.ranks[0].gpu.?;
        try rig.gpu.makeCurrent();
        rig.names = drivers.listGpus(rig.gpu.driver);
        rig.l2_bytes = @intCast(@max(0, rig.attribute(.l2_cache_size)));
        rig.pool = try .init(
            rig.cuda,
            rig.gpu,
            if (rig.is_emulated) pool_count_emulated else pool_count,
        );
        errdefer rig.pool.deinit(rig.gpu);
        rig.timer = Timer.init(rig.gpu.driver) orelse {
            return rig.diagnostics.fail(error.GpuFailed, "The GPU gave no events.", .{});
        };
    }

    pub fn close(rig: *Rig) void {
        rig.timer.deinit();
        rig.pool.deinit(rig.gpu);
        rig.machine.close();
    }

    pub fn about(rig: *const Rig) About {
        const libraries = &rig.machine.libraries;
        var total: usize = 0;
        _ = rig.gpu.driver.cuDeviceTotalMem_v2(&total, rig.gpu.device);
        return .{
            .gpu = rig.names.name(0),
            .multiprocessors = rig.attribute(.multiprocessor_count),
            .l2_bytes = rig.l2_bytes,
            .memory_bytes = total,
            .driver = libraries.driver.version(),
            .cublaslt = libraries.cublaslt_version,
            .cudnn = libraries.cudnn_version,
            .is_emulated = rig.is_emulated,
        };
    }

    /// A graph of what `work.run(i)` queues, for every i below `count`.
    pub fn capture(rig: *Rig, work: anytype, count: usize) Error!drivers.GraphExec {
        const d = rig.gpu.driver;
        const stream = rig.cuda.stream;
        try rig.cuda.check(d.cuStreamBeginCapture_v2(stream, .thread_local), "taking down a graph");
        var failure: ?Error = null;
        for (0..count) |i| work.run(i) catch |err| {
            failure = err;
            break;
        };
        var graph: ?drivers.Graph = null;
        const ended = d.cuStreamEndCapture(stream, &graph);
        defer if (graph) |there| {
            _ = d.cuGraphDestroy(there);
        };
        if (failure) |err| return err;
        try rig.cuda.check(ended, "taking down a graph");
        var exec: ?drivers.GraphExec = null;
        const made = d.cuGraphInstantiateWithFlags(&exec, graph.?, 0);
        try rig.cuda.check(made, "making a graph ready");
        return exec.?;
    }

    /// Milliseconds of what `work.run(i)` queues, for every i below `count`.
    pub fn elapsed(rig: *Rig, work: anytype, count: usize) Error!f64 {
        const d = rig.gpu.driver;
        const cuda = rig.cuda;
        try cuda.check(d.cuEventRecord(rig.timer.start, cuda.stream), "a mark");
        for (0..count) |i| try work.run(i);
        try cuda.check(d.cuEventRecord(rig.timer.end, cuda.stream), "a mark");
        try cuda.check(d.cuEventSynchronize(rig.timer.end), "waiting for a mark");
        var milliseconds: f32 = 0;
        const asked = d.cuEventElapsedTime(&milliseconds, rig.timer.start, rig.timer.end);
        try cuda.check(asked, "asking how long it took");
        return milliseconds;
    }

    // --- internal ---

    fn attribute(rig: *const Rig, which: drivers.DeviceAttribute) c_int {
        var value: c_int = 0;
        const result = rig.gpu.driver.cuDeviceGetAttribute(&value, which, rig.gpu.device);
        return if (result == .success) value else 0;
    }
};

/// A captured graph as work: each run is a launch of the whole.
pub const Replay = struct {
    rig: *Rig,
    exec: drivers.GraphExec,

    pub fn run(replay: Replay, _: usize) Error!void {
        const cuda = replay.rig.cuda;
        try cuda.check(cuda.driver.cuGraphLaunch(replay.exec, cuda.stream), "starting a graph");
    }
};
