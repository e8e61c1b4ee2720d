//! The emulated driver's calls about modules, functions and launches.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const faults = @import("faults.zig");
const graphs = @import("graph.zig");
const images = @import("image.zig");
const kernels = @import("kernel.zig");
const resources = @import("resources.zig");
const shared = @import("shared.zig");
const state = @import("state.zig");
const streams = @import("stream.zig");
const Result = driver.Result;
const Stream = streams.Stream;

/// What a device image would hold is in this library already.
const Module = struct {
    magic: u32 = live,
    functions: std.ArrayList(*Function) = .empty,

    const live = 0x4d4f4455;

    fn of(handle: driver.Module) ?*Module {
        const module: *Module = @ptrCast(@alignCast(handle));
        return if (module.magic == live) module else null;
    }
};

const Function = struct {
    magic: u32 = live,
    kernel: *const kernels.Kernel,
    dynamic_bytes_max: u32 = shared.static_bytes_max,

    const live = 0x46554e43;

    fn of(handle: driver.Function) ?*Function {
        const function: *Function = @ptrCast(@alignCast(handle));
        return if (function.magic == live) function else null;
    }
};

pub fn cuModuleLoadData(module: *?driver.Module, image: *const anyopaque) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    const refused = graphs.forbidden();
    if (refused != .success) return refused;
    const taken = images.check(image);
    if (taken != .success) return taken;
    const created = state.allocator.create(Module) catch return .out_of_memory;
    created.* = .{};
    module.* = @ptrCast(created);
    return .success;
}

pub fn cuModuleUnload(module: driver.Module) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Module.of(module) orelse return .invalid_handle;
    for (found.functions.items) |function| function.magic = 0;
    found.functions.clearAndFree(state.allocator);
    found.magic = 0;
    return .success;
}

pub fn cuModuleGetFunction(
    function: *?driver.Function,
    module: driver.Module,
    name: [*:0]const u8,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Module.of(module) orelse return .invalid_handle;
    const kernel = kernels.find(name) orelse return .not_found;
    const created = state.allocator.create(Function) catch return .out_of_memory;
    created.* = .{ .kernel = kernel };
    found.functions.append(state.allocator, created) catch return .out_of_memory;
    function.* = @ptrCast(created);
    return .success;
}

pub fn cuFuncGetAttribute(
    value: *c_int,
    attribute: driver.FunctionAttribute,
    function: driver.Function,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Function.of(function) orelse return .invalid_handle;
    value.* = switch (attribute) {
        .max_threads_per_block => 1024,
        .max_dynamic_shared_size_bytes => @intCast(found.dynamic_bytes_max),
        .num_regs => @intCast(resources.registersOf(std.mem.span(found.kernel.name))),
        // As machine code for the emulated GPU, from PTX of its own version.
        .ptx_version => @intCast(state.gpu.capability),
        // A compiler for the CPU knows no spills.
        .shared_size_bytes, .local_size_bytes => 0,
        else => return .invalid_value,
    };
    return .success;
}

pub fn cuFuncSetAttribute(
    function: driver.Function,
    attribute: driver.FunctionAttribute,
    value: c_int,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Function.of(function) orelse return .invalid_handle;
    if (attribute != .max_dynamic_shared_size_bytes) return .invalid_value;
    if (value < 0 or value > state.gpu.shared_block_kib << 10) return .invalid_value;
    found.dynamic_bytes_max = @intCast(value);
    return .success;
}

pub fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    count: *c_int,
    function: driver.Function,
    block_size: c_int,
    dynamic_shared_bytes: usize,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    _ = Function.of(function) orelse return .invalid_handle;
    if (block_size < 1 or block_size > 1024) return .invalid_value;
    const by_threads: usize = state.gpu.threads / @as(usize, @intCast(block_size));
    const by_shared = (state.gpu.shared_kib << 10) / (dynamic_shared_bytes + 1024);
    count.* = @intCast(@min(by_threads, by_shared, state.gpu.blocks));
    return .success;
}

pub fn cuLaunchKernel(
    function: driver.Function,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: driver.Stream,
    params: ?[*]?*anyopaque,
    extra: ?[*]?*anyopaque,
) callconv(.c) Result {
    const config: driver.LaunchConfig = .{
        .grid_x = grid_x,
        .grid_y = grid_y,
        .grid_z = grid_z,
        .block_x = block_x,
        .block_y = block_y,
        .block_z = block_z,
        .shared_bytes = shared_bytes,
        .stream = stream,
    };
    return cuLaunchKernelEx(&config, function, params, extra);
}

pub fn cuLaunchKernelEx(
    config: *const driver.LaunchConfig,
    function: driver.Function,
    params: ?[*]?*anyopaque,
    extra: ?[*]?*anyopaque,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Function.of(function) orelse return .invalid_handle;
    const target = Stream.of(config.stream) orelse return .invalid_handle;
    if (faults.fails(.launch_kernel, target.device.ordinal)) return .unknown;
    const shared_bytes = config.shared_bytes;
    const grid: kernels.Dim = .{ .x = config.grid_x, .y = config.grid_y, .z = config.grid_z };
    const block: kernels.Dim = .{ .x = config.block_x, .y = config.block_y, .z = config.block_z };
    const is_dependent = isDependent(config) orelse return .invalid_value;
    if (is_dependent) {
        const refused = refuseDependent(found.kernel.name, target);
        if (refused != .success) return refused;
    }
    if (extra != null or !isLaunchable(grid, block)) return .invalid_value;
    if (shared_bytes > found.dynamic_bytes_max) return .invalid_value;
    const kernel = found.kernel;
    const name = std.mem.span(kernel.name);
    const thread_count = @as(u64, block.x) * block.y * block.z;
    if (!resources.fits(name, thread_count)) {
        state.report("{s}: {d} registers for each of {d} threads are more than a block has", .{
            name, resources.registersOf(name), thread_count,
        });
        return .launch_out_of_resources;
    }
    while (kernels.isNamed(kernel, state.blocking_kernel)) state.waitForChange();
    if (kernel.parameter_count > kernels.parameter_count_max) return .invalid_value;
    const values: []const ?*const anyopaque = if (kernel.parameter_count == 0)
        &.{}
    else
        (params orelse return .invalid_value)[0..kernel.parameter_count];
    var launch = kernels.Launch.init(kernel, grid, block, shared_bytes, values) catch
        return .out_of_memory;
    launch.is_dependent = is_dependent;
    return target.enqueue(.{ .launch = launch });
}

// --- internal ---

/// Whether the launch may begin early; null where it has an attribute that is not emulated.
fn isDependent(config: *const driver.LaunchConfig) ?bool {
    if (config.attribute_count == 0) return false;
    const attributes = config.attributes orelse return null;
    var is_dependent = false;
    for (attributes[0..config.attribute_count]) |attribute| {
        if (attribute.id != .programmatic_stream_serialization) return null;
        is_dependent = attribute.value.allowed != 0;
    }
    return is_dependent;
}

/// GPUs before Hopper have no such launches. In a graph they become programmatic edges, which
/// begin at kernels.
fn refuseDependent(name: [*:0]const u8, stream: *const Stream) Result {
    if (state.gpu.capability < 90) return .not_supported;
    const capture = stream.capture orelse return .success;
    const tail = stream.capture_tail.items;
    if (tail.len == 1) switch (capture.graph.nodes.items[tail[0]].operation) {
        .task => |task| switch (task.action) {
            .launch, .call => return .success,
            .nothing, .copy, .fill => {},
        },
        .record, .wait => {},
    };
    state.report("{s}: its programmatic launch is captured behind what is no kernel", .{name});
    return .not_supported;
}

fn isLaunchable(grid: kernels.Dim, block: kernels.Dim) bool {
    if (grid.x == 0 or grid.y == 0 or grid.z == 0) return false;
    if (grid.x > std.math.maxInt(i32) or grid.y > 65535 or grid.z > 65535) return false;
    if (block.x == 0 or block.y == 0 or block.z == 0) return false;
    if (block.x > 1024 or block.y > 1024 or block.z > 64) return false;
    return @as(u64, block.x) * block.y * block.z <= 1024;
}
