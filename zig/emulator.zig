//! The root of libbasedxl_emulated: NVIDIA's driver and libraries under their own names, executed
//! on the CPU. The product opens it by path instead of libcuda.so.1 and the others; the kernels are
//! cuda/*.cu, compiled as C++. For tests.
//!
//! In reading order:
//!   state                 the lock, the random order, the devices, the error report
//!   faults                failures that tests inject
//!   calls_*               the driver's functions: devices, memory, kernels, streams
//!   gpu_model, resources  the GPUs that it can be, and what kernels need of them
//!   image                 which device images a driver takes
//!   memory, guards        allocations between guard pages
//!   stream, work, graph   streams and events, their pending work, CUDA graphs
//!   kernel, block, warp   a launch, the threads of a block, warp functions
//!   shared, stack         a block's shared memory, the stacks of its threads
//!   library, numbers      how the libraries below use streams and memory; f16 and bf16
//!   cublaslt*, product    matrix products
//!   cudnn*                convolutions: descriptors, operation graphs, arithmetic
//!   nccl*                 communicators, groups, messages to other processes
//!   fixture, tests        the emulator's own tests; library_fixture serves the libraries'

const std = @import("std");
const calls_device = @import("emulator/calls_device.zig");
const driver = @import("nvidia/driver.zig");
const faults = @import("emulator/faults.zig");
const gpu_models = @import("emulator/gpu_model.zig");
const state = @import("emulator/state.zig");

/// Where the functions of `driver.Driver` are.
const call_files = .{
    calls_device,
    @import("emulator/calls_memory.zig"),
    @import("emulator/calls_kernel.zig"),
    @import("emulator/calls_stream.zig"),
};

comptime {
    // These export by themselves.
    _ = @import("emulator/cublaslt.zig");
    _ = @import("emulator/cudnn.zig");
    _ = @import("emulator/nccl.zig");
    @setEvalBranchQuota(10_000);
    for (@typeInfo(driver.Driver).@"struct".fields) |field| {
        const function: field.type = functionOf(field.name);
        @export(function, .{ .name = field.name });
    }
}

/// Seeds all random orders with `seed`. The number of GPUs can change only while no context exists.
/// Returns 0, or 1 where that cannot be.
export fn bxl_emulator_configure(seed: u64, gpu_count: u32) c_int {
    state.lock();
    defer state.unlock();
    if (gpu_count > state.device_count_max) return 1;
    if (gpu_count != state.device_count) {
        for (&state.devices) |*device| if (device.retain_count > 0) return 1;
        state.device_count = gpu_count;
    }
    state.prng = .init(seed);
    state.clearReport();
    return 0;
}

/// The memory of every GPU, in bytes.
export fn bxl_emulator_set_memory(bytes: u64) void {
    state.lock();
    defer state.unlock();
    state.memory_bytes = @intCast(bytes);
}

/// Makes allocations of GPUs of one size, from `bytes_min` on, one memory: for benches that compute
/// nothing, and whose machine has not the memory of all GPUs. To be set while there is no context.
export fn bxl_emulator_share_memory(bytes_min: u64) void {
    state.lock();
    defer state.unlock();
    state.shared_bytes_min = @intCast(bytes_min);
}

/// Ten times the compute capability of every GPU; its limits are those of the GPU that has it. 0:
/// the GPU that the environment chose.
export fn bxl_emulator_set_capability(capability: u32) void {
    state.lock();
    defer state.unlock();
    // Or the first session would undo it.
    calls_device.readEnvironment();
    state.gpu = if (capability == 0) state.chosen_gpu else gpu_models.byCapability(capability);
}

/// What cuDriverGetVersion reports: 12040 for CUDA 12.4.
export fn bxl_emulator_set_driver(version: u32) void {
    state.lock();
    defer state.unlock();
    state.driver_version = version;
}

/// Whether GPUs reach each other's memory.
export fn bxl_emulator_set_peers(possible: bool) void {
    state.lock();
    defer state.unlock();
    state.peers_possible = possible;
}

/// Bytes copied from the host to a GPU since its context was made, out of pinned memory or not.
export fn bxl_emulator_bytes_to_gpu(gpu: u32, is_pinned: bool) u64 {
    if (gpu >= state.device_count_max) return 0;
    state.lock();
    defer state.unlock();
    const device = &state.devices[gpu];
    return if (is_pinned) device.pinned_bytes else device.pageable_bytes;
}

/// What is wrong with copies between GPUs: nothing, other bytes arrive, they never end.
export fn bxl_emulator_set_peer_fault(fault: u32) c_int {
    state.lock();
    defer state.unlock();
    state.peer_fault = std.enums.fromInt(state.PeerFault, fault) orelse return 1;
    return 0;
}

/// The `index`th call of a kind (`faults.Call`) for a GPU from now on fails; 0 for none.
export fn bxl_emulator_fail_call(call: u32, gpu: u32, index: u32) c_int {
    if (gpu >= state.device_count_max) return 1;
    faults.set(std.enums.fromInt(faults.Call, call) orelse return 1, gpu, index);
    return 0;
}

/// Calls of a kind for a GPU since then.
export fn bxl_emulator_call_count(call: u32, gpu: u32) u32 {
    if (gpu >= state.device_count_max) return 0;
    return faults.countOf(std.enums.fromInt(faults.Call, call) orelse return 0, gpu);
}

/// Whether failures stay off stderr, for tests that mean to fail.
export fn bxl_emulator_set_quiet(is_quiet: bool) void {
    state.lock();
    defer state.unlock();
    state.is_quiet = is_quiet;
}

/// What the last failed kernel, block and thread were, as on stderr; "" since `configure` if none.
export fn bxl_emulator_last_report() [*:0]const u8 {
    return state.lastReport();
}

// --- internal ---

fn functionOf(comptime name: []const u8) @TypeOf(&@field(fileWith(name), name)) {
    return &@field(fileWith(name), name);
}

fn fileWith(comptime name: []const u8) type {
    for (call_files) |file| if (@hasDecl(file, name)) return file;
    @compileError("the emulated driver lacks " ++ name);
}
