//! One block of a kernel: its threads as fibers of one host thread. A thread runs until a barrier
//! or warp function, then a random thread continues, so that order dependence shows over seeds. A
//! thread without synchronisation is a plain call on a stack that the next one reuses.

const std = @import("std");
const builtin = @import("builtin");
const fibre = @import("fibre");
const shared = @import("shared.zig");
const Stack = @import("stack.zig").Stack;
const state = @import("state.zig");
const warps = @import("warp.zig");
const Result = @import("../nvidia/driver.zig").Result;
const Warp = warps.Warp;

pub const thread_count_max = 1024;
pub const Dim = extern struct { x: u32 = 1, y: u32 = 1, z: u32 = 1 };

/// What a kernel reads of its place, under the names that CUDA gives them.
pub export var blockIdx: Dim = .{};
pub export var threadIdx: Dim = .{};
pub export var blockDim: Dim = .{};
pub export var gridDim: Dim = .{};

/// Runs one thread of a kernel.
pub const Body = *const fn (parameters: [*]const *anyopaque) callconv(.c) void;

/// Calls of `wait_for_earlier_kernels` by the threads of the block; each calls it once.
pub var grid_waits: u64 = 0;

/// A 16-byte copy under way; zeros where `from` is null.
const Copy = struct { to: [*]u8, from: ?[*]const u8, group: u32 };

const Progress = enum(u8) { new, ready, at_barrier, meeting, done };

pub const Thread = struct {
    index: Dim = .{},
    progress: Progress = .new,
    stack: u16 = 0,
    saved: usize = 0,
    line: u32 = 0,
    meeting: ?*const warps.Meeting = null,
    mask: u32 = 0,
    copies: std.ArrayList(Copy) = .empty,
    copy_group: u32 = 0,
};

pub var threads: [thread_count_max]Thread = @splat(.{});
/// The thread that runs.
pub var current: u16 = 0;
var all_warps: [thread_count_max / warps.lane_count]Warp = undefined;

/// Why a block ended early; `text` is for people.
pub const Failure = struct { result: Result, text: []const u8 };

/// Once per launch: the places of a block's threads.
pub fn prepare(dim: Dim, seed: u64) void {
    blockDim = dim;
    thread_count = @intCast(dim.x * dim.y * dim.z);
    order = seed | 1;
    for (threads[0..thread_count], 0..) |*thread, i| {
        const at: u32 = @intCast(i);
        thread.index = .{
            .x = at % dim.x,
            .y = at / dim.x % dim.y,
            .z = at / dim.x / dim.y,
        };
    }
}

/// Runs one block to its end.
pub fn run(new_body: Body, new_parameters: [*]const *anyopaque, place: Dim) ?Failure {
    body = new_body;
    parameters = new_parameters;
    blockIdx = place;
    failure = null;
    live_count = thread_count;
    barrier_count = 0;
    ready_count = thread_count;
    stack_count = 0;
    free_count = 0;
    for (threads[0..thread_count], 0..) |*thread, i| {
        thread.progress = .new;
        thread.copies.clearRetainingCapacity();
        thread.copy_group = 0;
        ready[i] = @intCast(i);
    }
    const warp_count = (thread_count + warps.lane_count - 1) / warps.lane_count;
    for (all_warps[0..warp_count], 0..) |*warp, i| {
        warp.begin(thread_count - i * warps.lane_count);
    }
    shared.begin();
    become(draw().?);
    const first = newStack();
    threads[current].stack = first;
    fibre.switchTo(&driver_stack, stacks[first].prepare(main));
    if (failure == null) failure = shared.check();
    return failure;
}

/// Ends the block from inside a kernel's thread.
pub fn fail(result: Result, comptime format: []const u8, arguments: anytype) noreturn {
    setFailure(result, format, arguments);
    fibre.jumpTo(driver_stack);
}

/// The same from a signal handler, which then goes on at the address that this returns.
pub fn failFromSignal(
    result: Result,
    comptime format: []const u8,
    arguments: anytype,
) usize {
    setFailure(result, format, arguments);
    return driver_stack;
}

/// Switches to another thread; returns once this one has been listed as ready.
pub fn suspendThread() void {
    const next = draw() orelse stuck();
    if (next == current) return become(next);
    const saved = &threads[current].saved;
    const is_new = threads[next].progress == .new;
    become(next);
    if (is_new) {
        threads[next].stack = newStack();
        fibre.switchTo(saved, stacks[threads[next].stack].prepare(main));
    } else fibre.switchTo(saved, threads[next].saved);
}

pub fn makeReady(thread: usize) void {
    threads[thread].progress = .ready;
    ready[ready_count] = @intCast(thread);
    ready_count += 1;
}

// --- internal ---

var body: Body = undefined;
var parameters: [*]const *anyopaque = undefined;
var thread_count: u16 = 0;
var live_count: u16 = 0;
var barrier_count: u16 = 0;
var barrier_line: u32 = 0;
var ready: [thread_count_max]u16 = undefined;
var ready_count: u16 = 0;
var order: u64 = 1;
var driver_stack: usize = 0;
var failure: ?Failure = null;
var failure_text: [256]u8 = undefined;
var stacks: [thread_count_max]Stack = undefined;
var stacks_made: u16 = 0;
/// Stacks of this block in use so far, and those which ended threads left.
var stack_count: u16 = 0;
var free_stacks: [thread_count_max]u16 = undefined;
var free_count: u16 = 0;

/// Runs new threads one after another while the random choice selects new ones.
fn main() callconv(.c) noreturn {
    while (true) {
        body(parameters);
        endThread();
        const next = draw() orelse {
            if (live_count > 0) stuck();
            forgetCall();
            fibre.jumpTo(driver_stack);
        };
        const stack = threads[current].stack;
        const is_new = threads[next].progress == .new;
        become(next);
        if (is_new) {
            threads[next].stack = stack;
            continue;
        }
        free_stacks[free_count] = stack;
        free_count += 1;
        forgetCall();
        fibre.jumpTo(threads[next].saved);
    }
}

/// Before a function ends by a jump. ThreadSanitizer has one stack of calls for all fibers of a
/// host thread: the calls that it shows in a kernel are mixed, but as many end as begin. After a
/// failed block some do not; the device runs no other.
inline fn forgetCall() void {
    if (builtin.sanitize_thread) __tsan_func_exit();
}

extern fn __tsan_func_exit() callconv(.c) void;

fn become(thread: u16) void {
    current = thread;
    threadIdx = threads[thread].index;
}

fn draw() ?u16 {
    if (ready_count == 0) return null;
    // xorshift64: a switch should not cost more than the draw.
    order ^= order << 13;
    order ^= order >> 7;
    order ^= order << 17;
    const i: u16 = @intCast(@as(u64, @as(u32, @truncate(order >> 16))) * ready_count >> 32);
    const thread = ready[i];
    ready_count -= 1;
    ready[i] = ready[ready_count];
    return thread;
}

fn newStack() u16 {
    if (free_count > 0) {
        free_count -= 1;
        return free_stacks[free_count];
    }
    if (stack_count == stacks_made) {
        stacks[stacks_made] = .init(stacks_made);
        stacks_made += 1;
    }
    stack_count += 1;
    return stack_count - 1;
}

fn endThread() void {
    threads[current].progress = .done;
    live_count -= 1;
    const warp = &all_warps[current / warps.lane_count];
    warp.leave(current % warps.lane_count);
}

/// Deadlock: reports which threads wait at which barrier.
fn stuck() noreturn {
    const done_count = thread_count - live_count;
    if (barrier_count > 0 and barrier_count == live_count) {
        fail(.launch_failed, "{d} of {d} threads ended before the __syncthreads of line {d}", .{
            done_count, thread_count, barrier_line,
        });
    }
    for (threads[0..thread_count]) |*thread| {
        if (thread.progress != .meeting) continue;
        fail(.launch_failed, "lanes of mask {x:0>8} never all came to line {d} " ++
            "({d} threads wait at a __syncthreads, {d} ended)", .{
            thread.mask, thread.line, barrier_count, done_count,
        });
    }
    fail(.launch_failed, "its threads wait for each other", .{});
}

fn setFailure(result: Result, comptime format: []const u8, arguments: anytype) void {
    failure = .{
        .result = result,
        .text = std.fmt.bufPrint(&failure_text, format, arguments) catch &failure_text,
    };
}

export fn bxl_host_barrier(line: c_uint) void {
    if (barrier_count == 0) barrier_line = line;
    if (barrier_line != line) {
        fail(.launch_failed, "threads wait at the __syncthreads of line {d} and of line {d}", .{
            barrier_line, line,
        });
    }
    threads[current].progress = .at_barrier;
    barrier_count += 1;
    if (barrier_count == thread_count) {
        barrier_count = 0;
        ready_count = 0;
        for (0..thread_count) |thread| makeReady(thread);
    }
    suspendThread();
}

export fn bxl_host_meet(
    meeting: *const warps.Meeting,
    operands: *anyopaque,
    mask: u32,
    line: c_uint,
) void {
    const lane: u5 = @intCast(current % warps.lane_count);
    if (mask >> lane & 1 == 0) {
        fail(.launch_failed, "line {d}: lane {d} is not in its mask {x:0>8}", .{
            line, lane, mask,
        });
    }
    const thread = &threads[current];
    thread.progress = .meeting;
    thread.meeting = meeting;
    thread.mask = mask;
    thread.line = line;
    const warp = &all_warps[current / warps.lane_count];
    if (!warp.arrive(lane, operands)) suspendThread();
}

export fn bxl_host_copy_start(to: [*]u8, from: ?[*]const u8) void {
    const thread = &threads[current];
    thread.copies.append(state.allocator, .{
        .to = to,
        .from = from,
        .group = thread.copy_group,
    }) catch @panic("out of memory");
    // Whoever reads before the wait must not see what was there, nor what comes.
    @memset(to[0..16], 0xff);
}

export fn bxl_host_copy_commit() void {
    threads[current].copy_group += 1;
}

export fn bxl_host_copy_wait(newest: c_uint) void {
    const thread = &threads[current];
    var kept: usize = 0;
    for (thread.copies.items) |copy| {
        // The group that no commit ended yet is not waited for.
        if (copy.group + newest >= thread.copy_group) {
            thread.copies.items[kept] = copy;
            kept += 1;
        } else if (copy.from) |from| @memcpy(copy.to[0..16], from) else @memset(copy.to[0..16], 0);
    }
    thread.copies.items.len = kept;
}

export fn bxl_host_grid_wait() void {
    grid_waits += 1;
}

export fn bxl_host_misaligned(address: usize) void {
    fail(.misaligned_address, "0x{x} is not aligned", .{address});
}

export fn bxl_host_trap(reason: [*:0]const u8) void {
    fail(.launch_failed, "{s}", .{reason});
}
