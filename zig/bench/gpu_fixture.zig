//! A GPU to time operations on: opened as a session opens it, with one rank. Work is captured as
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
const devices = @import("../devices.zig");
const Devices = devices.Devices;
const DType = @import("../tensor.zig").DType;

pub const Error = devices.Error || error{OutOfScratch};

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

pub const Fixture = struct {
    devices: Devices,
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
        fixture: *Fixture,
        gpa: Allocator,
        io: Io,
        activation: DType,
        emulator: [:0]const u8,
    ) Error!void {
        fixture.diagnostics = .{};
        fixture.is_emulated = emulator.len > 0;
        try fixture.devices.openOneGpu(.{
            .gpa = gpa,
            .io = io,
            .activation = activation,
            .library = emulator,
            .diagnostics = &fixture.diagnostics,
        });
        errdefer fixture.devices.close();
        fixture.cuda = fixture.devices.ranks[0].device.cuda;
        fixture.gpu = fixture.devices.ranks[0].gpu.?;
        try fixture.gpu.makeCurrent();
        fixture.names = drivers.listGpus(fixture.gpu.driver);
        fixture.l2_bytes = @intCast(@max(0, fixture.attribute(.l2_cache_size)));
        fixture.pool = try .init(
            fixture.cuda,
            fixture.gpu,
            if (fixture.is_emulated) pool_count_emulated else pool_count,
        );
        errdefer fixture.pool.deinit(fixture.gpu);
        fixture.timer = Timer.init(fixture.gpu.driver, null) orelse {
            return fixture.diagnostics.fail(error.GpuFailed, "The GPU gave no events.", .{});
        };
    }

    pub fn close(fixture: *Fixture) void {
        fixture.timer.deinit();
        fixture.pool.deinit(fixture.gpu);
        fixture.devices.close();
    }

    pub fn about(fixture: *const Fixture) About {
        const libraries = &fixture.devices.gpu.?.libraries;
        var total: usize = 0;
        _ = fixture.gpu.driver.cuDeviceTotalMem_v2(&total, fixture.gpu.device);
        return .{
            .gpu = fixture.names.name(0),
            .multiprocessors = fixture.attribute(.multiprocessor_count),
            .l2_bytes = fixture.l2_bytes,
            .memory_bytes = total,
            .driver = libraries.driver.version(),
            .cublaslt = libraries.cublaslt_version,
            .cudnn = libraries.cudnn_version,
            .is_emulated = fixture.is_emulated,
        };
    }

    /// A graph of what `work.run(i)` queues, for every i below `count`.
    pub fn capture(fixture: *Fixture, work: anytype, count: usize) Error!drivers.GraphExec {
        const d = fixture.gpu.driver;
        const stream = fixture.cuda.stream;
        fixture.cuda.dependent_launches.follows_kernel = false;
        const began = d.cuStreamBeginCapture_v2(stream, .thread_local);
        try fixture.cuda.check(.cuStreamBeginCapture_v2, began, "beginning a capture");
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
        try fixture.cuda.check(.cuStreamEndCapture, ended, "ending a capture");
        var exec: ?drivers.GraphExec = null;
        const made = d.cuGraphInstantiateWithFlags(&exec, graph.?, 0);
        try fixture.cuda.check(.cuGraphInstantiateWithFlags, made, "instantiating a graph");
        return exec.?;
    }

    /// Milliseconds of what `work.run(i)` queues, for every i below `count`.
    pub fn elapsed(fixture: *Fixture, work: anytype, count: usize) Error!f64 {
        const d = fixture.gpu.driver;
        const cuda = fixture.cuda;
        const started = d.cuEventRecord(fixture.timer.start, cuda.stream);
        try cuda.check(.cuEventRecord, started, "recording the start event");
        for (0..count) |i| try work.run(i);
        const ended = d.cuEventRecord(fixture.timer.end, cuda.stream);
        try cuda.check(.cuEventRecord, ended, "recording the end event");
        const waited = d.cuEventSynchronize(fixture.timer.end);
        try cuda.check(.cuEventSynchronize, waited, "waiting for the end event");
        var milliseconds: f32 = 0;
        const asked = d.cuEventElapsedTime(&milliseconds, fixture.timer.start, fixture.timer.end);
        try cuda.check(.cuEventElapsedTime, asked, "reading the elapsed time");
        return milliseconds;
    }

    // --- internal ---

    fn attribute(fixture: *const Fixture, which: drivers.DeviceAttribute) c_int {
        var value: c_int = 0;
        const result = fixture.gpu.driver.cuDeviceGetAttribute(&value, which, fixture.gpu.device);
        return if (result == .success) value else 0;
    }
};

/// A captured graph as work: each run is a launch of the whole.
pub const Replay = struct {
    fixture: *Fixture,
    exec: drivers.GraphExec,

    pub fn run(replay: Replay, _: usize) Error!void {
        const cuda = replay.fixture.cuda;
        const result = cuda.driver.cuGraphLaunch(replay.exec, cuda.stream);
        try cuda.check(.cuGraphLaunch, result, "launching a graph");
    }
};
