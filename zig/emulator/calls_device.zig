//! The emulated driver's calls about devices, contexts and errors.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const faults = @import("faults.zig");
const gpu_models = @import("gpu_model.zig");
const graphs = @import("graph.zig");
const memory = @import("memory.zig");
const state = @import("state.zig");
const work = @import("work.zig");
const Result = driver.Result;
const Device = driver.Device;
const Context = driver.Context;

pub fn cuInit(flags: c_uint) callconv(.c) Result {
    if (flags != 0) return .invalid_value;
    state.lock();
    defer state.unlock();
    readEnvironment();
    state.is_initialized = true;
    return if (state.device_count == 0) .no_device else .success;
}

pub fn cuDriverGetVersion(version: *c_int) callconv(.c) Result {
    // Answered before cuInit, too.
    state.lock();
    defer state.unlock();
    readEnvironment();
    version.* = @intCast(state.driver_version);
    return .success;
}

pub fn cuGetErrorName(result: Result, name: *?[*:0]const u8) callconv(.c) Result {
    for (words) |word| {
        if (word.result != result) continue;
        name.* = word.name;
        return .success;
    }
    name.* = null;
    return .invalid_value;
}

pub fn cuGetErrorString(result: Result, text: *?[*:0]const u8) callconv(.c) Result {
    for (words) |word| {
        if (word.result != result) continue;
        text.* = word.text;
        return .success;
    }
    text.* = null;
    return .invalid_value;
}

pub fn cuDeviceGetCount(count: *c_int) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    count.* = @intCast(state.device_count);
    return .success;
}

pub fn cuDeviceGet(device: *Device, ordinal: c_int) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    _ = deviceOf(ordinal) orelse return .invalid_device;
    device.* = ordinal;
    return .success;
}

pub fn cuDeviceGetName(name: [*]u8, len: c_int, device: Device) callconv(.c) Result {
    return putText(name, len, device, "Emulated GPU {d}");
}

pub fn cuDeviceGetPCIBusId(id: [*]u8, len: c_int, device: Device) callconv(.c) Result {
    return putText(id, len, device, "0000:{x:0>2}:00.0");
}

pub fn cuDeviceGetAttribute(
    value: *c_int,
    attribute: driver.DeviceAttribute,
    device: Device,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    _ = deviceOf(device) orelse return .invalid_device;
    const gpu = &state.gpu;
    // Of cuda.h's names; the limits of all, and an H200's clocks.
    value.* = switch (@intFromEnum(attribute)) {
        1 => 1024, // max threads per block
        2, 3 => 1024, // max block x, y
        4 => 64, // max block z
        5 => std.math.maxInt(i32), // max grid x
        6, 7 => 65535, // max grid y, z
        8 => 48 << 10, // max shared memory per block
        10 => 32, // warp size
        12 => 65536, // registers per block
        13 => 1_980_000, // clock rate, kHz
        16 => gpu.multiprocessors,
        18 => 0, // integrated
        20 => 0, // compute mode
        31 => 1, // concurrent kernels
        33 => device, // PCI bus
        34, 50 => 0, // PCI device, domain
        36 => 3_201_000, // memory clock, kHz
        37 => 6144, // memory bus, bits
        38 => gpu.l2_mib << 20, // L2 cache
        39 => @intCast(gpu.threads), // threads per multiprocessor
        40 => 3, // copy engines
        41 => 1, // unified addressing
        75 => @intCast(gpu.capability / 10),
        76 => @intCast(gpu.capability % 10),
        78 => 1, // stream priorities
        81 => @intCast(gpu.shared_kib << 10), // shared memory per multiprocessor
        82 => 65536, // registers per multiprocessor
        95 => 1, // cooperative launch
        97 => @intCast(gpu.shared_block_kib << 10), // shared memory per block, opt-in
        106 => @intCast(gpu.blocks), // blocks per multiprocessor
        115 => 1, // memory pools
        else => return .invalid_value,
    };
    return .success;
}

pub fn cuDeviceTotalMem_v2(bytes: *usize, device: Device) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    _ = deviceOf(device) orelse return .invalid_device;
    bytes.* = state.memory_bytes;
    return .success;
}

pub fn cuDeviceCanAccessPeer(can: *c_int, device: Device, peer: Device) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    _ = deviceOf(device) orelse return .invalid_device;
    _ = deviceOf(peer) orelse return .invalid_device;
    can.* = @intFromBool(state.peers_possible and device != peer);
    return .success;
}

pub fn cuDevicePrimaryCtxRetain(context: *?Context, device: Device) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    const found = deviceOf(device) orelse return .invalid_device;
    if (faults.isGone(found.ordinal)) return .unknown;
    found.retain_count += 1;
    context.* = found.handle();
    return .success;
}

pub fn cuDevicePrimaryCtxRelease_v2(device: Device) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    const found = deviceOf(device) orelse return .invalid_device;
    if (found.retain_count == 0) return .invalid_context;
    found.retain_count -= 1;
    if (found.retain_count > 0) return .success;
    work.drain();
    memory.releaseAll(found);
    found.* = .{ .ordinal = found.ordinal };
    return .success;
}

pub fn cuCtxSetCurrent(context: ?Context) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    const wanted = context orelse {
        state.current = null;
        return .success;
    };
    const found = state.Device.of(wanted) orelse return .invalid_context;
    if (found.retain_count == 0) return .invalid_context;
    state.current = found;
    return .success;
}

pub fn cuCtxGetCurrent(context: *?Context) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    context.* = if (state.current) |device| device.handle() else null;
    return .success;
}

pub fn cuCtxSynchronize() callconv(.c) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    const refused = graphs.forbidden();
    if (refused != .success) return refused;
    work.forceDevice(device.?);
    return device.?.failure;
}

pub fn cuCtxGetStreamPriorityRange(least: *c_int, greatest: *c_int) callconv(.c) Result {
    least.* = 0;
    greatest.* = -5;
    return .success;
}

pub fn cuCtxEnablePeerAccess(peer: Context, flags: c_uint) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (flags != 0) return .invalid_value;
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    const other = state.Device.of(peer) orelse return .invalid_context;
    if (other == device.?) return .invalid_device;
    if (!state.peers_possible) return .peer_access_unsupported;
    if (device.?.peers[other.ordinal]) return .peer_access_already_enabled;
    device.?.peers[other.ordinal] = true;
    return .success;
}

pub fn cuCtxDisablePeerAccess(peer: Context) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    const other = state.Device.of(peer) orelse return .invalid_context;
    if (!device.?.peers[other.ordinal]) return .peer_access_not_enabled;
    device.?.peers[other.ordinal] = false;
    return .success;
}

/// Once.
pub fn readEnvironment() void {
    if (is_environment_read) return;
    is_environment_read = true;
    if (numberOf("BASEDXL_EMULATOR_SEED")) |seed| state.prng = .init(seed);
    if (numberOf("BASEDXL_EMULATOR_GPUS")) |count| {
        state.device_count = @intCast(@min(count, state.device_count_max));
    }
    if (numberOf("BASEDXL_EMULATOR_MEMORY_MIB")) |mib| state.memory_bytes = mib << 20;
    if (textOf("BASEDXL_EMULATOR_GPU")) |name| {
        state.gpu = gpu_models.byName(name) orelse state.gpu;
    }
    if (numberOf("BASEDXL_EMULATOR_CAPABILITY")) |value| {
        state.gpu = gpu_models.byCapability(@intCast(value));
    }
    state.chosen_gpu = state.gpu;
    if (numberOf("BASEDXL_EMULATOR_DRIVER")) |value| state.driver_version = @intCast(value);
    if (textOf("BASEDXL_EMULATOR_PEERS")) |name| {
        state.peer_fault = std.meta.stringToEnum(state.PeerFault, name) orelse .none;
    }
    state.has_race = textOf("BASEDXL_EMULATOR_RACE") != null;
    state.hanging_kernel = textOf("BASEDXL_EMULATOR_HANG");
    state.blocking_kernel = textOf("BASEDXL_EMULATOR_BLOCK");
    state.wrong_kernel = textOf("BASEDXL_EMULATOR_WRONG");
    state.crashing_kernel = textOf("BASEDXL_EMULATOR_CRASH");
    if (textOf("BASEDXL_EMULATOR_FAULT")) |fault| chooseFault(fault);
}

// --- internal ---

fn deviceOf(ordinal: c_int) ?*state.Device {
    if (ordinal < 0 or ordinal >= state.device_count) return null;
    return &state.devices[@intCast(ordinal)];
}

fn putText(target: [*]u8, len: c_int, device: Device, comptime format: []const u8) Result {
    state.lock();
    defer state.unlock();
    if (!state.is_initialized) return .not_initialized;
    const found = deviceOf(device) orelse return .invalid_device;
    if (len < 1) return .invalid_value;
    var text: [64]u8 = undefined;
    const whole = std.fmt.bufPrint(&text, format, .{found.ordinal}) catch unreachable;
    const kept = @min(whole.len, @as(usize, @intCast(len)) - 1);
    @memcpy(target[0..kept], whole[0..kept]);
    target[kept] = 0;
    return .success;
}

var is_environment_read: bool = false;

fn numberOf(name: [*:0]const u8) ?u64 {
    return std.fmt.parseInt(u64, textOf(name) orelse return null, 10) catch null;
}

/// "call:gpu:index", as of `faults.set`.
fn chooseFault(text: []const u8) void {
    var parts = std.mem.splitScalar(u8, text, ':');
    const call = std.meta.stringToEnum(faults.Call, parts.first()) orelse return;
    const gpu = std.fmt.parseInt(u32, parts.next() orelse "", 10) catch return;
    const index = std.fmt.parseInt(u32, parts.next() orelse "", 10) catch return;
    if (gpu < state.device_count_max) faults.set(call, gpu, index);
}

fn textOf(name: [*:0]const u8) ?[]const u8 {
    return std.mem.span(std.c.getenv(name) orelse return null);
}

const Words = struct { result: Result, name: [*:0]const u8, text: [*:0]const u8 };

/// As the driver words them.
const words = [_]Words{
    of(.success, "SUCCESS", "no error"),
    of(.invalid_value, "INVALID_VALUE", "invalid argument"),
    of(.out_of_memory, "OUT_OF_MEMORY", "out of memory"),
    of(.not_initialized, "NOT_INITIALIZED", "initialization error"),
    of(.no_device, "NO_DEVICE", "no CUDA-capable device is detected"),
    of(.invalid_device, "INVALID_DEVICE", "invalid device ordinal"),
    of(.invalid_image, "INVALID_IMAGE", "device kernel image is invalid"),
    of(.invalid_context, "INVALID_CONTEXT", "invalid device context"),
    of(.no_binary_for_gpu, "NO_BINARY_FOR_GPU", "no kernel image is available for execution " ++
        "on the device"),
    of(.peer_access_unsupported, "PEER_ACCESS_UNSUPPORTED", "peer access is not supported " ++
        "between these two devices"),
    of(.unsupported_ptx_version, "UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with " ++
        "an unsupported toolchain."),
    of(.invalid_handle, "INVALID_HANDLE", "invalid resource handle"),
    of(.not_found, "NOT_FOUND", "named symbol not found"),
    of(.not_ready, "NOT_READY", "device not ready"),
    of(.illegal_address, "ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    of(.launch_out_of_resources, "LAUNCH_OUT_OF_RESOURCES", "too many resources requested " ++
        "for launch"),
    of(.peer_access_already_enabled, "PEER_ACCESS_ALREADY_ENABLED", "peer access is already " ++
        "enabled"),
    of(.peer_access_not_enabled, "PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled"),
    of(.host_memory_already_registered, "HOST_MEMORY_ALREADY_REGISTERED", "part or all of the " ++
        "requested memory range is already mapped"),
    of(.misaligned_address, "MISALIGNED_ADDRESS", "misaligned address"),
    of(.launch_failed, "LAUNCH_FAILED", "unspecified launch failure"),
    of(.not_permitted, "NOT_PERMITTED", "operation not permitted"),
    of(.not_supported, "NOT_SUPPORTED", "operation not supported"),
    of(.stream_capture_unsupported, "STREAM_CAPTURE_UNSUPPORTED", "operation not permitted " ++
        "when stream is capturing"),
    of(.stream_capture_invalidated, "STREAM_CAPTURE_INVALIDATED", "operation failed due to a " ++
        "previous error during capture"),
    of(.stream_capture_merge, "STREAM_CAPTURE_MERGE", "operation would result in a merge of " ++
        "separate capture sequences"),
    of(.stream_capture_unmatched, "STREAM_CAPTURE_UNMATCHED", "capture was not ended in the " ++
        "same stream as it began"),
    of(.stream_capture_unjoined, "STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"),
    of(.stream_capture_isolation, "STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured " ++
        "work in another stream"),
    of(.stream_capture_implicit, "STREAM_CAPTURE_IMPLICIT", "operation would make the legacy " ++
        "stream depend on a capturing blocking stream"),
    of(.captured_event, "CAPTURED_EVENT", "operation not permitted on an event last recorded in " ++
        "a capturing stream"),
    of(.stream_capture_wrong_thread, "STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a " ++
        "thread-local capture sequence from another thread"),
    of(.unknown, "UNKNOWN", "unknown error"),
};

fn of(result: Result, comptime name: []const u8, text: [*:0]const u8) Words {
    const prefix = if (result == .success) "CUDA_" else "CUDA_ERROR_";
    return .{ .result = result, .name = prefix ++ name, .text = text };
}
