//! NVIDIA's driver as a table of functions, opened at run time so that the library loads where
//! there is none. Fields carry the exported symbols' names, versions included; types are checked
//! against cuda.h by `zig build check-headers`.
//! Source: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api.

const std = @import("std");
const CallError = @import("call_error.zig").CallError;
const dynamic = @import("dynamic.zig");

/// CUresult: the distinguished codes; the rest keep their numbers.
pub const Result = enum(c_int) {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    not_initialized = 3,
    deinitialized = 4,
    no_device = 100,
    invalid_device = 101,
    invalid_image = 200,
    invalid_context = 201,
    no_binary_for_gpu = 209,
    peer_access_unsupported = 217,
    unsupported_ptx_version = 222,
    invalid_handle = 400,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    launch_out_of_resources = 701,
    peer_access_already_enabled = 704,
    peer_access_not_enabled = 705,
    host_memory_already_registered = 712,
    misaligned_address = 716,
    launch_failed = 719,
    not_permitted = 800,
    not_supported = 801,
    system_driver_mismatch = 803,
    stream_capture_unsupported = 900,
    stream_capture_invalidated = 901,
    stream_capture_merge = 902,
    stream_capture_unmatched = 903,
    stream_capture_unjoined = 904,
    stream_capture_isolation = 905,
    stream_capture_implicit = 906,
    captured_event = 907,
    stream_capture_wrong_thread = 908,
    unknown = 999,
    _,
};

/// CUdevice: an ordinal, not a handle.
pub const Device = c_int;
/// CUdeviceptr: an address on the device.
pub const Address = usize;
pub const Context = *opaque {};
pub const Module = *opaque {};
pub const Function = *opaque {};
/// Null would be the legacy stream, which the product never uses.
pub const Stream = *opaque {};
pub const Event = *opaque {};
pub const Graph = *opaque {};
pub const GraphExec = *opaque {};

/// CUdevice_attribute: the queried ones.
pub const DeviceAttribute = enum(c_int) {
    multiprocessor_count = 16,
    integrated = 18,
    compute_mode = 20,
    pci_bus_id = 33,
    l2_cache_size = 38,
    async_engine_count = 40,
    compute_capability_major = 75,
    compute_capability_minor = 76,
    max_shared_memory_per_multiprocessor = 81,
    max_shared_memory_per_block_optin = 97,
    _,
};

/// CUfunction_attribute: those that are queried or set.
pub const FunctionAttribute = enum(c_int) {
    max_threads_per_block = 0,
    shared_size_bytes = 1,
    local_size_bytes = 3,
    num_regs = 4,
    ptx_version = 5,
    max_dynamic_shared_size_bytes = 8,
    _,
};

/// CUlaunchAttributeID: the one that is used.
pub const LaunchAttributeId = enum(c_int) { programmatic_stream_serialization = 6, _ };

/// CUlaunchAttribute, whose value is a union of 64 bytes.
pub const LaunchAttribute = extern struct {
    id: LaunchAttributeId,
    pad: [4]u8 = @splat(0),
    value: extern union { allowed: c_int, bytes: [64]u8 align(8) },
};

/// CUlaunchConfig.
pub const LaunchConfig = extern struct {
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: Stream,
    attributes: ?[*]const LaunchAttribute = null,
    attribute_count: c_uint = 0,
};

pub const CaptureMode = enum(c_int) { global = 0, thread_local = 1, relaxed = 2 };
pub const CaptureStatus = enum(c_int) { none = 0, active = 1, invalidated = 2 };

pub const stream_non_blocking: c_uint = 1;
pub const event_disable_timing: c_uint = 2;
/// cuEventRecordWithFlags: while capturing, a node that records the event at each launch.
pub const event_record_external: c_uint = 1;
/// cuStreamWaitEvent: while capturing, a node that waits for the event's state at launch.
pub const event_wait_external: c_uint = 1;
pub const host_alloc_portable: c_uint = 1;
pub const host_register_portable: c_uint = 1;

/// The oldest supported driver, as reported by cuDriverGetVersion: CUDA 12.0.
pub const version_min = 12000;

/// A function of the driver, as the call that failed.
pub const Call = std.meta.FieldEnum(Driver);

pub const Driver = struct {
    cuInit: *const fn (flags: c_uint) callconv(.c) Result,
    cuDriverGetVersion: *const fn (version: *c_int) callconv(.c) Result,
    cuGetErrorName: *const fn (Result, name: *?[*:0]const u8) callconv(.c) Result,
    cuGetErrorString: *const fn (Result, text: *?[*:0]const u8) callconv(.c) Result,

    cuDeviceGetCount: *const fn (count: *c_int) callconv(.c) Result,
    cuDeviceGet: *const fn (device: *Device, ordinal: c_int) callconv(.c) Result,
    cuDeviceGetName: *const fn (name: [*]u8, len: c_int, Device) callconv(.c) Result,
    cuDeviceGetAttribute: *const fn (
        value: *c_int,
        DeviceAttribute,
        Device,
    ) callconv(.c) Result,
    cuDeviceTotalMem_v2: *const fn (bytes: *usize, Device) callconv(.c) Result,
    cuDeviceGetPCIBusId: *const fn (id: [*]u8, len: c_int, Device) callconv(.c) Result,
    cuDeviceCanAccessPeer: *const fn (
        can_access: *c_int,
        device: Device,
        peer: Device,
    ) callconv(.c) Result,

    cuDevicePrimaryCtxRetain: *const fn (context: *?Context, Device) callconv(.c) Result,
    cuDevicePrimaryCtxRelease_v2: *const fn (Device) callconv(.c) Result,
    cuCtxSetCurrent: *const fn (?Context) callconv(.c) Result,
    cuCtxGetCurrent: *const fn (context: *?Context) callconv(.c) Result,
    cuCtxSynchronize: *const fn () callconv(.c) Result,
    cuCtxGetStreamPriorityRange: *const fn (
        least: *c_int,
        greatest: *c_int,
    ) callconv(.c) Result,
    cuCtxEnablePeerAccess: *const fn (peer: Context, flags: c_uint) callconv(.c) Result,
    cuCtxDisablePeerAccess: *const fn (peer: Context) callconv(.c) Result,

    cuMemGetInfo_v2: *const fn (free: *usize, total: *usize) callconv(.c) Result,
    cuMemAlloc_v2: *const fn (address: *Address, bytes: usize) callconv(.c) Result,
    cuMemFree_v2: *const fn (Address) callconv(.c) Result,
    cuMemHostAlloc: *const fn (
        pointer: *?*anyopaque,
        bytes: usize,
        flags: c_uint,
    ) callconv(.c) Result,
    cuMemFreeHost: *const fn (*anyopaque) callconv(.c) Result,
    cuMemHostRegister_v2: *const fn (
        *anyopaque,
        bytes: usize,
        flags: c_uint,
    ) callconv(.c) Result,
    cuMemHostUnregister: *const fn (*anyopaque) callconv(.c) Result,

    cuMemcpyHtoD_v2: *const fn (
        target: Address,
        source: *const anyopaque,
        bytes: usize,
    ) callconv(.c) Result,
    cuMemcpyDtoH_v2: *const fn (
        target: *anyopaque,
        source: Address,
        bytes: usize,
    ) callconv(.c) Result,
    cuMemcpyHtoDAsync_v2: *const fn (
        target: Address,
        source: *const anyopaque,
        bytes: usize,
        Stream,
    ) callconv(.c) Result,
    cuMemcpyDtoHAsync_v2: *const fn (
        target: *anyopaque,
        source: Address,
        bytes: usize,
        Stream,
    ) callconv(.c) Result,
    cuMemcpyDtoDAsync_v2: *const fn (
        target: Address,
        source: Address,
        bytes: usize,
        Stream,
    ) callconv(.c) Result,
    cuMemcpyPeerAsync: *const fn (
        target: Address,
        target_context: Context,
        source: Address,
        source_context: Context,
        bytes: usize,
        Stream,
    ) callconv(.c) Result,
    cuMemsetD8Async: *const fn (
        target: Address,
        value: u8,
        count: usize,
        Stream,
    ) callconv(.c) Result,
    cuMemsetD32Async: *const fn (
        target: Address,
        value: c_uint,
        count: usize,
        Stream,
    ) callconv(.c) Result,

    cuModuleLoadData: *const fn (module: *?Module, image: *const anyopaque) callconv(.c) Result,
    cuModuleUnload: *const fn (Module) callconv(.c) Result,
    cuModuleGetFunction: *const fn (
        function: *?Function,
        Module,
        name: [*:0]const u8,
    ) callconv(.c) Result,
    cuFuncGetAttribute: *const fn (
        value: *c_int,
        FunctionAttribute,
        Function,
    ) callconv(.c) Result,
    cuFuncSetAttribute: *const fn (
        Function,
        FunctionAttribute,
        value: c_int,
    ) callconv(.c) Result,
    cuOccupancyMaxActiveBlocksPerMultiprocessor: *const fn (
        count: *c_int,
        Function,
        block_size: c_int,
        dynamic_shared_bytes: usize,
    ) callconv(.c) Result,
    cuLaunchKernel: *const fn (
        Function,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        Stream,
        params: ?[*]?*anyopaque,
        extra: ?[*]?*anyopaque,
    ) callconv(.c) Result,
    cuLaunchKernelEx: *const fn (
        *const LaunchConfig,
        Function,
        params: ?[*]?*anyopaque,
        extra: ?[*]?*anyopaque,
    ) callconv(.c) Result,

    cuStreamCreate: *const fn (stream: *?Stream, flags: c_uint) callconv(.c) Result,
    cuStreamCreateWithPriority: *const fn (
        stream: *?Stream,
        flags: c_uint,
        priority: c_int,
    ) callconv(.c) Result,
    cuStreamDestroy_v2: *const fn (Stream) callconv(.c) Result,
    cuStreamSynchronize: *const fn (Stream) callconv(.c) Result,
    cuStreamQuery: *const fn (Stream) callconv(.c) Result,
    cuStreamWaitEvent: *const fn (Stream, Event, flags: c_uint) callconv(.c) Result,
    cuStreamBeginCapture_v2: *const fn (Stream, CaptureMode) callconv(.c) Result,
    cuStreamEndCapture: *const fn (Stream, graph: *?Graph) callconv(.c) Result,
    cuStreamIsCapturing: *const fn (Stream, status: *CaptureStatus) callconv(.c) Result,
    cuThreadExchangeStreamCaptureMode: *const fn (mode: *CaptureMode) callconv(.c) Result,

    cuEventCreate: *const fn (event: *?Event, flags: c_uint) callconv(.c) Result,
    cuEventDestroy_v2: *const fn (Event) callconv(.c) Result,
    cuEventRecord: *const fn (Event, Stream) callconv(.c) Result,
    cuEventRecordWithFlags: *const fn (Event, Stream, flags: c_uint) callconv(.c) Result,
    cuEventQuery: *const fn (Event) callconv(.c) Result,
    cuEventSynchronize: *const fn (Event) callconv(.c) Result,
    cuEventElapsedTime: *const fn (
        milliseconds: *f32,
        start: Event,
        end: Event,
    ) callconv(.c) Result,

    cuGraphInstantiateWithFlags: *const fn (
        exec: *?GraphExec,
        Graph,
        flags: c_ulonglong,
    ) callconv(.c) Result,
    cuGraphUpload: *const fn (GraphExec, Stream) callconv(.c) Result,
    cuGraphLaunch: *const fn (GraphExec, Stream) callconv(.c) Result,
    cuGraphExecDestroy: *const fn (GraphExec) callconv(.c) Result,
    cuGraphDestroy: *const fn (Graph) callconv(.c) Result,

    /// The driver's own words for an error: "an illegal memory access was encountered".
    pub fn describe(driver: *const Driver, result: Result) []const u8 {
        var text: ?[*:0]const u8 = null;
        if (driver.cuGetErrorString(result, &text) != .success) return "unknown error";
        return std.mem.span(text orelse return "unknown error");
    }

    /// "CUDA_ERROR_ILLEGAL_ADDRESS".
    pub fn nameOf(driver: *const Driver, result: Result) []const u8 {
        var text: ?[*:0]const u8 = null;
        if (driver.cuGetErrorName(result, &text) != .success) return "CUDA_ERROR_UNKNOWN";
        return std.mem.span(text orelse return "CUDA_ERROR_UNKNOWN");
    }

    pub fn callError(driver: *const Driver, call: Call, result: Result) CallError {
        return .{
            .call = @tagName(call),
            .name = driver.nameOf(result),
            .code = @intFromEnum(result),
            .text = driver.describe(result),
        };
    }

    /// 12040 for CUDA 12.4; 0 where the driver does not report it.
    pub fn version(driver: *const Driver) u32 {
        var value: c_int = 0;
        if (driver.cuDriverGetVersion(&value) != .success or value < 0) return 0;
        return @intCast(value);
    }
};

pub const name_bytes_max = 96;
pub const gpu_count_max = 16;

pub const Gpus = struct {
    count: u32 = 0,
    names: [gpu_count_max][name_bytes_max:0]u8 = undefined,

    pub fn name(gpus: *const Gpus, i: usize) []const u8 {
        return std.mem.sliceTo(&gpus.names[i], 0);
    }
};

/// The GPUs that the system's driver shows; none where there is no driver or it refuses to start.
pub fn findGpus() Gpus {
    var missing: []const u8 = "";
    for (system_names) |soname| {
        const library = dynamic.open(soname) orelse continue;
        const driver = dynamic.load(Driver, library, &missing) catch return .{};
        return listGpus(&driver);
    }
    return .{};
}

/// The GPUs of an opened driver.
pub fn listGpus(driver: *const Driver) Gpus {
    var gpus: Gpus = .{};
    if (driver.cuInit(0) != .success) return gpus;
    var count: c_int = 0;
    if (driver.cuDeviceGetCount(&count) != .success or count <= 0) return gpus;
    for (0..@min(@as(usize, @intCast(count)), gpu_count_max)) |i| {
        var device: Device = 0;
        if (driver.cuDeviceGet(&device, @intCast(i)) != .success) break;
        const name = &gpus.names[gpus.count];
        @memset(name, 0);
        if (driver.cuDeviceGetName(name, name_bytes_max, device) != .success) break;
        gpus.count += 1;
    }
    return gpus;
}

/// What the driver's library is called; it comes with the kernel module and is never searched for.
pub const system_names = [_][:0]const u8{ "libcuda.so.1", "libcuda.so" };

test "asking for GPUs never fails, whatever the machine" {
    const gpus = findGpus();
    for (0..gpus.count) |i| try std.testing.expect(gpus.name(i).len > 0);
}
