//! One GPU of the machine: its context, the kernels, and its copy of the model's weights, shared by
//! the ranks that run on it.

const std = @import("std");
const Allocator = std.mem.Allocator;
const drivers = @import("../../nvidia/driver.zig");
const Driver = drivers.Driver;
const kernels = @import("../../nvidia/kernels.zig");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const block_count_max = @import("../../weights.zig").block_count_max;
const AlgorithmCaches = @import("library_handles.zig").AlgorithmCaches;

pub const Error = error{GpuFailed};

/// The oldest architecture that the kernels are compiled for: Ampere, 8.0.
const capability_min = 80;
/// The oldest one with 8-bit floating-point numbers: Ada, 8.9.
const capability_f8 = 89;

pub const Gpu = struct {
    driver: *const Driver,
    device: drivers.Device,
    /// Ten times the compute capability.
    capability: u32 = capability_min,
    context: drivers.Context,
    module: drivers.Module,
    /// Weights are copied in it: legacy copies of pageable memory end after they return.
    copy_stream: drivers.Stream,
    /// Null in tests of kernels.
    measured: ?AlgorithmCaches = null,
    weights: usize = 0,
    /// Those of networks beside the model, by `Weight.block`; 0 where there is none.
    networks: [block_count_max]usize = @splat(0),
    /// Addresses of the copies in the activations' type of weights that are kept in 8 bits, by
    /// their index; 0 for none. See `weights.zig`.
    wide_copies: []usize = &.{},
    diagnostics: *Diagnostics,
    /// Work in a stream that nobody waits for will never end: freeing memory would wait for it.
    has_stuck_work: bool = false,

    /// Its context becomes current. The driver must have been initialized.
    pub fn open(
        driver: *const Driver,
        ordinal: c_int,
        diagnostics: *Diagnostics,
    ) Error!Gpu {
        var gpu: Gpu = .{
            .driver = driver,
            .device = ordinal,
            .context = undefined,
            .module = undefined,
            .copy_stream = undefined,
            .diagnostics = diagnostics,
        };
        try gpu.check(.cuDeviceGet, driver.cuDeviceGet(&gpu.device, ordinal), "opening it");
        try gpu.readCapability();
        var context: ?drivers.Context = null;
        const retained = driver.cuDevicePrimaryCtxRetain(&context, gpu.device);
        try gpu.check(.cuDevicePrimaryCtxRetain, retained, "opening its context");
        errdefer _ = driver.cuDevicePrimaryCtxRelease_v2(gpu.device);
        gpu.context = context.?;
        try gpu.makeCurrent();
        var module: ?drivers.Module = null;
        const loaded = driver.cuModuleLoadData(&module, kernels.image.ptr);
        try gpu.check(.cuModuleLoadData, loaded, "loading the kernels");
        gpu.module = module.?;
        errdefer _ = driver.cuModuleUnload(gpu.module);
        var stream: ?drivers.Stream = null;
        const created = driver.cuStreamCreate(&stream, drivers.stream_non_blocking);
        try gpu.check(.cuStreamCreate, created, "creating a stream");
        gpu.copy_stream = stream.?;
        return gpu;
    }

    pub fn close(gpu: *Gpu) void {
        gpu.makeCurrent() catch {};
        if (gpu.measured) |measured| {
            measured.save();
            measured.close();
        }
        for (gpu.wide_copies) |copy| if (copy != 0) {
            _ = gpu.driver.cuMemFree_v2(copy);
        };
        if (gpu.weights != 0) _ = gpu.driver.cuMemFree_v2(gpu.weights);
        for (0..block_count_max) |block| gpu.freeNetwork(@intCast(block));
        _ = gpu.driver.cuStreamDestroy_v2(gpu.copy_stream);
        _ = gpu.driver.cuModuleUnload(gpu.module);
        _ = gpu.driver.cuDevicePrimaryCtxRelease_v2(gpu.device);
    }

    /// Where the block of weights begins: the model's, or a network's.
    pub fn blockBase(gpu: *const Gpu, block: u32) usize {
        return if (block == 0) gpu.weights else gpu.networks[block];
    }

    /// Only while no work of the GPU reads it.
    pub fn freeNetwork(gpu: *Gpu, block: u32) void {
        if (gpu.networks[block] != 0) _ = gpu.driver.cuMemFree_v2(gpu.networks[block]);
        gpu.networks[block] = 0;
    }

    /// Whether it computes with 8-bit floating-point numbers: Ada, Hopper and newer.
    pub fn hasF8(gpu: *const Gpu) bool {
        return gpu.capability >= capability_f8;
    }

    /// Calls of this thread then mean this GPU.
    pub fn makeCurrent(gpu: *const Gpu) Error!void {
        const result = gpu.driver.cuCtxSetCurrent(gpu.context);
        try gpu.check(.cuCtxSetCurrent, result, "making its context current");
    }

    /// Whether its context answers every call with an error, as it does once a kernel has made an
    /// illegal access or the GPU is gone. Only another context ends that.
    pub fn isBroken(gpu: *const Gpu) bool {
        if (gpu.driver.cuCtxSetCurrent(gpu.context) != .success) return true;
        return switch (gpu.driver.cuStreamQuery(gpu.copy_stream)) {
            .success, .not_ready => false,
            else => true,
        };
    }

    /// Bytes that can still be had.
    pub fn freeBytes(gpu: *const Gpu) Error!u64 {
        return (try gpu.memory()).free;
    }

    /// Bytes that are taken, by whatever runs there.
    pub fn usedBytes(gpu: *const Gpu) Error!u64 {
        const there = try gpu.memory();
        return there.total - there.free;
    }

    pub fn allocate(gpu: *const Gpu, bytes: usize) Error!usize {
        var address: usize = 0;
        const result = gpu.driver.cuMemAlloc_v2(&address, bytes);
        if (result != .success) return gpu.diagnostics.fail(
            error.GpuFailed,
            "{f} (GPU {d}: allocating {d} MiB).",
            .{ gpu.driver.callError(.cuMemAlloc_v2, result), gpu.device, bytes >> 20 },
        );
        return address;
    }

    /// Whether the machine lets this GPU read the memory of `other`.
    pub fn canReach(gpu: *const Gpu, other: *const Gpu) Error!bool {
        if (gpu.device == other.device) return true;
        var can: c_int = 0;
        const asked = gpu.driver.cuDeviceCanAccessPeer(&can, gpu.device, other.device);
        try gpu.check(.cuDeviceCanAccessPeer, asked, "asking for peer access");
        return can != 0;
    }

    /// Lets kernels and copies of this GPU reach `other` directly, where the machine can.
    pub fn reach(gpu: *const Gpu, other: *const Gpu) Error!void {
        if (gpu.device == other.device or !try gpu.canReach(other)) return;
        try gpu.makeCurrent();
        const result = gpu.driver.cuCtxEnablePeerAccess(other.context, 0);
        if (result == .peer_access_already_enabled) return;
        try gpu.check(.cuCtxEnablePeerAccess, result, "enabling peer access");
    }

    /// Turns a driver error into an error message; `what` is what was attempted.
    pub fn check(
        gpu: *const Gpu,
        call: drivers.Call,
        result: drivers.Result,
        what: []const u8,
    ) Error!void {
        if (result == .success) return;
        return gpu.diagnostics.fail(error.GpuFailed, "{f} (GPU {d}: {s}).", .{
            gpu.driver.callError(call, result), gpu.device, what,
        });
    }

    // --- internal ---

    fn memory(gpu: *const Gpu) Error!struct { free: u64, total: u64 } {
        var free: usize = 0;
        var total: usize = 0;
        try gpu.makeCurrent();
        const result = gpu.driver.cuMemGetInfo_v2(&free, &total);
        try gpu.check(.cuMemGetInfo_v2, result, "reading its free memory");
        return .{ .free = free, .total = total };
    }

    /// Refuses a GPU that is too old for the kernels.
    fn readCapability(gpu: *Gpu) Error!void {
        var major: c_int = 0;
        var minor: c_int = 0;
        const d = gpu.driver;
        const asked = "reading its compute capability";
        const major_name: drivers.DeviceAttribute = .compute_capability_major;
        const minor_name: drivers.DeviceAttribute = .compute_capability_minor;
        for ([_]drivers.Result{
            d.cuDeviceGetAttribute(&major, major_name, gpu.device),
            d.cuDeviceGetAttribute(&minor, minor_name, gpu.device),
        }) |result| try gpu.check(.cuDeviceGetAttribute, result, asked);
        gpu.capability = @intCast(major * 10 + minor);
        if (gpu.capability >= capability_min) return;
        return gpu.diagnostics.fail(error.GpuFailed, "GPU {d} has compute capability {d}.{d}; " ++
            "8.0 (Ampere) or newer is needed. --device cpu generates images without it.", .{
            gpu.device, major, minor,
        });
    }
};
