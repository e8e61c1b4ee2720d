//! What all of the emulated driver shares: one lock, the random order, the devices, and the words
//! for what went wrong. Every call of the driver holds the lock, kernels included: ranks are
//! threads of the host and take turns.

const std = @import("std");
const builtin = @import("builtin");
const driver = @import("../nvidia/driver.zig");
const gpu_models = @import("gpu_model.zig");
const GpuModel = gpu_models.GpuModel;
const Result = driver.Result;

pub const allocator = std.heap.c_allocator;
pub const device_count_max = driver.gpu_count_max;

pub const PeerFault = enum(u32) { none, garbles, hangs };

pub const Device = struct {
    ordinal: u32,
    /// cuDevicePrimaryCtxRetain's count; 0: the context is not there.
    retain_count: u32 = 0,
    used_bytes: usize = 0,
    /// Copied to it from the host since its context was made, by where the bytes were.
    pinned_bytes: u64 = 0,
    pageable_bytes: u64 = 0,
    /// The first failure of work on this device: every later call answers it, as the driver does.
    failure: Result = .success,
    /// Whose memory its kernels may touch.
    peers: [device_count_max]bool = @splat(false),

    pub fn of(context: driver.Context) ?*Device {
        for (&devices) |*device| {
            if (@intFromPtr(device) == @intFromPtr(context)) return device;
        }
        return null;
    }

    pub fn handle(device: *Device) driver.Context {
        return @ptrCast(device);
    }
};

pub var devices: [device_count_max]Device = makeDevices();
pub var device_count: u32 = 2;
pub var memory_bytes: usize = 24 << 30;
/// Allocations of one size, from this on, are one memory, whatever the GPU.
pub var shared_bytes_min: usize = std.math.maxInt(usize);
/// What every GPU is.
pub var gpu: GpuModel = gpu_models.default;
/// What the environment says they are.
pub var chosen_gpu: GpuModel = gpu_models.default;
/// As cuDriverGetVersion reports it.
pub var driver_version: u32 = 13000;
/// A kernel that never ends, and one whose launch never returns; null for none.
pub var hanging_kernel: ?[]const u8 = null;
pub var blocking_kernel: ?[]const u8 = null;
/// A kernel that computes wrong, since its last block does nothing, and one that ends in an illegal
/// access; null for none.
pub var wrong_kernel: ?[]const u8 = null;
pub var crashing_kernel: ?[]const u8 = null;
/// Whether calls are counted without the lock: a race that must be found.
pub var has_race: bool = false;
var raced_call_count: u32 = 0;
pub var peers_possible: bool = true;
/// What is wrong with copies between GPUs, whatever the driver says of them.
pub var peer_fault: PeerFault = .none;
pub var is_initialized: bool = false;
/// Reports are kept, not printed.
pub var is_quiet: bool = false;
/// Poll: another process may complete what work waits for, without a notification.
pub var is_polling: bool = false;
pub var prng: std.Random.DefaultPrng = .init(0);

/// The context that calls of this host thread mean.
pub threadlocal var current: ?*Device = null;

pub fn random() std.Random {
    return prng.random();
}

pub fn lock() void {
    if (builtin.sanitize_thread and has_race) raced_call_count +%= 1;
    _ = std.c.pthread_mutex_lock(&mutex);
}

pub fn unlock() void {
    _ = std.c.pthread_mutex_unlock(&mutex);
}

/// Lets go of the lock until some other thread changed something.
pub fn waitForChange() void {
    _ = std.c.pthread_cond_wait(&changed, &mutex);
}

/// As `waitForChange`, but no longer than so.
pub fn waitBriefly(milliseconds: u32) void {
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.REALTIME, &time);
    const nsec = @as(i64, time.nsec) + @as(i64, milliseconds) * std.time.ns_per_ms;
    time.sec += @intCast(@divFloor(nsec, std.time.ns_per_s));
    time.nsec = @intCast(@mod(nsec, std.time.ns_per_s));
    _ = std.c.pthread_cond_timedwait(&changed, &mutex, &time);
}

pub fn announceChange() void {
    _ = std.c.pthread_cond_broadcast(&changed);
}

/// The device that this thread's calls mean, or what the driver answers instead.
pub fn active(device: *?*Device) Result {
    if (!is_initialized) return .not_initialized;
    const found = current orelse return .invalid_context;
    if (found.retain_count == 0) return .invalid_context;
    device.* = found;
    return found.failure;
}

/// Says in one line on stderr what the driver's number cannot: which kernel, block and thread.
pub fn report(comptime format: []const u8, arguments: anytype) void {
    const text = std.fmt.bufPrint(
        report_buffer[0 .. report_buffer.len - 2],
        "CUDA emulator: " ++ format,
        arguments,
    ) catch report_buffer[0 .. report_buffer.len - 2];
    report_buffer[text.len] = '\n';
    if (!is_quiet) _ = std.c.write(2, &report_buffer, text.len + 1);
    report_buffer[text.len] = 0;
}

/// The last such line, for tests.
pub fn lastReport() [*:0]const u8 {
    return @ptrCast(&report_buffer);
}

pub fn clearReport() void {
    report_buffer[0] = 0;
}

/// Nanoseconds of a clock that never goes back.
pub fn now() u64 {
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

// --- internal ---

var mutex: std.c.pthread_mutex_t = std.c.PTHREAD_MUTEX_INITIALIZER;
var changed: std.c.pthread_cond_t = std.c.PTHREAD_COND_INITIALIZER;
var report_buffer: [1024]u8 = @splat(0);

fn makeDevices() [device_count_max]Device {
    var all: [device_count_max]Device = undefined;
    for (&all, 0..) |*device, i| device.* = .{ .ordinal = i };
    return all;
}
