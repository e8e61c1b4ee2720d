//! The kernels that the library holds, by name, and a launch: blocks in random order, arguments
//! that name memory checked first, faults turned into the driver's errors with kernel, block and
//! thread named.

const std = @import("std");
const block = @import("block.zig");
const faults = @import("faults.zig");
const memory = @import("memory.zig");
const shared = @import("shared.zig");
const state = @import("state.zig");
const Result = @import("../nvidia/driver.zig").Result;
pub const Dim = block.Dim;

const Parameter = extern struct { bytes: u32, is_pointer: u32 };

/// As cuda/host/registry.h registers it.
pub const Kernel = extern struct {
    name: [*:0]const u8,
    call: block.Body,
    parameter_count: u32,
    parameters: [*]const Parameter,
    next: ?*Kernel,
};

pub const parameter_count_max = 64;

/// Whether this is the kernel that `name` names, if it names any.
pub fn isNamed(kernel: *const Kernel, name: ?[]const u8) bool {
    return std.mem.eql(u8, std.mem.span(kernel.name), name orelse return false);
}

pub fn find(name: [*:0]const u8) ?*const Kernel {
    var at = first;
    while (at) |kernel| : (at = kernel.next) {
        if (std.mem.orderZ(u8, kernel.name, name) == .eq) return kernel;
    }
    return null;
}

/// A launch with its arguments by value.
pub const Launch = struct {
    kernel: *const Kernel,
    grid: Dim,
    dim: Dim,
    shared_bytes: u32,
    /// May begin before the kernel ahead of it has ended: each of its threads must wait for that.
    is_dependent: bool = false,
    /// The arguments one after another, each aligned to 16.
    arguments: []align(16) u8,

    pub fn init(
        kernel: *const Kernel,
        grid: Dim,
        dim: Dim,
        shared_bytes: u32,
        values: []const ?*const anyopaque,
    ) !Launch {
        var bytes: usize = 0;
        for (kernel.parameters[0..kernel.parameter_count]) |parameter| bytes += padded(parameter);
        const arguments = try state.allocator.alignedAlloc(u8, .@"16", bytes);
        var at: usize = 0;
        for (kernel.parameters[0..kernel.parameter_count], values) |parameter, value| {
            const source: [*]const u8 = @ptrCast(value orelse unreachable);
            @memcpy(arguments[at..][0..parameter.bytes], source);
            at += padded(parameter);
        }
        return .{
            .kernel = kernel,
            .grid = grid,
            .dim = dim,
            .shared_bytes = shared_bytes,
            .arguments = arguments,
        };
    }

    pub fn deinit(launch: *Launch) void {
        state.allocator.free(launch.arguments);
    }

    pub fn run(launch: *const Launch, device: *state.Device) Result {
        var values: [parameter_count_max]*anyopaque = undefined;
        var at: usize = 0;
        const parameters = launch.kernel.parameters[0..launch.kernel.parameter_count];
        for (parameters, values[0..parameters.len], 0..) |parameter, *value, i| {
            value.* = &launch.arguments[at];
            const argument = launch.arguments[at..][0..parameter.bytes];
            at += padded(parameter);
            const refused = refusal(device, parameter, argument) orelse continue;
            state.report("{s}: argument {d} (0x{x}) {s}", .{
                launch.kernel.name, i, std.mem.readInt(u64, argument[0..8], .little), refused,
            });
            return .illegal_address;
        }
        if (isNamed(launch.kernel, state.crashing_kernel)) return .illegal_address;
        if (faults.ofKernel(device.ordinal)) |result| return result;
        const failure = launch.runBlocks(&values) orelse launch.checkAround() orelse
            return .success;
        state.report("{s}: {s}, in block ({d}, {d}, {d}), thread ({d}, {d}, {d})", .{
            launch.kernel.name, failure.text,
            block.blockIdx.x,   block.blockIdx.y,
            block.blockIdx.z,   block.threadIdx.x,
            block.threadIdx.y,  block.threadIdx.z,
        });
        return failure.result;
    }

    fn runBlocks(launch: *const Launch, values: [*]const *anyopaque) ?block.Failure {
        const grid = launch.grid;
        const count = @as(u64, grid.x) * grid.y * grid.z;
        const threads = @as(u64, launch.dim.x) * launch.dim.y * launch.dim.z;
        block.gridDim = grid;
        block.prepare(launch.dim, state.random().int(u64));
        shared.prepare(launch.shared_bytes);
        running_thread = std.c.pthread_self();
        is_running = true;
        defer is_running = false;
        if (!are_faults_caught) bxl_host_faults_begin();
        are_faults_caught = true;
        // i * step + start modulo count meets every block once.
        const start = state.random().uintLessThan(u64, count);
        var step = state.random().uintLessThan(u64, count) | 1;
        while (std.math.gcd(step, count) != 1) step += 2;
        step %= count;
        var at = start;
        const is_wrong = isNamed(launch.kernel, state.wrong_kernel);
        for (0..count) |_| {
            defer at = (at + step) % count;
            if (is_wrong and at == count - 1) continue;
            const place: Dim = .{
                .x = @intCast(at % grid.x),
                .y = @intCast(at / grid.x % grid.y),
                .z = @intCast(at / grid.x / grid.y),
            };
            block.grid_waits = 0;
            if (block.run(launch.kernel.call, values, place)) |failure| return failure;
            if (!launch.is_dependent or block.grid_waits == threads) continue;
            return .{
                .result = .launch_failed,
                .text = "a dependent launch, and a thread did not wait for earlier kernels",
            };
        }
        return null;
    }

    /// Looks beside the memory that the arguments name for writes past its end.
    fn checkAround(launch: *const Launch) ?block.Failure {
        var at: usize = 0;
        for (launch.kernel.parameters[0..launch.kernel.parameter_count]) |parameter| {
            defer at += padded(parameter);
            if (parameter.is_pointer == 0) continue;
            const address = std.mem.readInt(usize, launch.arguments[at..][0..8], .little);
            const allocation = memory.find(address, 0) orelse continue;
            if (allocation.isIntact()) continue;
            return .{ .result = .illegal_address, .text = "memory was written outside its bounds" };
        }
        return null;
    }
};

/// After the last of several launches, before this thread does anything else: signals are again
/// whose they were. A dozen system calls, which not every launch should pay.
pub fn leave() void {
    if (are_faults_caught) bxl_host_faults_end();
    are_faults_caught = false;
}

// --- internal ---

var are_faults_caught: bool = false;
var first: ?*Kernel = null;
var is_running: bool = false;
var running_thread: std.c.pthread_t = undefined;

extern fn bxl_host_faults_begin() callconv(.c) void;
extern fn bxl_host_faults_end() callconv(.c) void;

export fn bxl_host_register(kernel: *Kernel) void {
    kernel.next = first;
    first = kernel;
}

fn padded(parameter: Parameter) usize {
    return std.mem.alignForward(usize, parameter.bytes, 16);
}

/// Why a kernel on `device` must not get this argument: a pointer that is neither null nor memory
/// of a device or pinned, or, wherever in the argument, memory of a device without peer access.
fn refusal(device: *state.Device, parameter: Parameter, argument: []const u8) ?[]const u8 {
    var i: usize = 0;
    while (i + 8 <= argument.len) : (i += 8) {
        const address = std.mem.readInt(usize, argument[i..][0..8], .little);
        const allocation = memory.find(address, 0) orelse {
            if (parameter.is_pointer != 0 and address != 0) return "is no memory of a device";
            continue;
        };
        const is_far = allocation.kind == .device and allocation.device != device;
        if (is_far and !device.peers[allocation.device.ordinal]) {
            return "is another device's, and there is no peer access";
        }
    }
    return null;
}

const segmentation_fault = @intFromEnum(std.c.SIG.SEGV);
const bus_error = @intFromEnum(std.c.SIG.BUS);

export fn bxl_host_fault(signal: c_int, address: usize, is_write: c_int) usize {
    if (!is_running or std.c.pthread_self() != running_thread) return 0;
    // The compiler's alignment checks end in an instruction that is none.
    if (signal != segmentation_fault and signal != bus_error) {
        return block.failFromSignal(
            .misaligned_address,
            "a misaligned access, or an address that cannot be",
            .{},
        );
    }
    const verb: []const u8 = switch (is_write) {
        0 => "read",
        1 => "write",
        else => "access",
    };
    const near = memory.nearest(address) orelse
        return block.failFromSignal(.illegal_address, "illegal {s} of 0x{x}", .{ verb, address });
    const is_after = address >= near.address;
    const distance = if (is_after) address -| near.end() else near.address - address;
    return block.failFromSignal(
        .illegal_address,
        "illegal {s} of 0x{x}, {d} bytes {s} an allocation of {d} bytes",
        .{ verb, address, distance, if (is_after) "after" else "before", near.bytes },
    );
}
