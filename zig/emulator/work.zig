//! Pending work of streams. A node runs only when something forces it, after the nodes it waits
//! for, and otherwise in random order over all streams of all devices: work on two streams without
//! an event between them runs in any order.

const std = @import("std");
const kernels = @import("kernel.zig");
const state = @import("state.zig");
const Result = @import("../nvidia/driver.zig").Result;
const Device = state.Device;

pub const Copy = struct {
    to: usize,
    from: usize,
    bytes: usize,
    /// Pageable memory as it was at the call, which `from` then points into.
    staged: []u8 = &.{},
    fault: state.PeerFault = .none,
};

pub const Fill = struct { address: usize, value: u32, value_bytes: u32, count: usize };

/// Work of an emulated library. All functions are called with the lock held.
pub const Call = struct {
    /// The library's function, for messages.
    label: []const u8,
    context: *anyopaque,
    run: *const fn (context: *anyopaque, token: u64) Result,
    /// Called once, when neither a stream nor a graph will run it again.
    destroy: *const fn (context: *anyopaque) void,
    /// Its turn in its stream came, once per run: a collective counts itself in, and gives a token
    /// that `isReady` and `run` get.
    arrive: ?*const fn (context: *anyopaque) u64 = null,
    /// False while it must wait for other ranks.
    isReady: ?*const fn (context: *anyopaque, token: u64) bool = null,
};

pub const Action = union(enum) {
    nothing,
    launch: kernels.Launch,
    copy: Copy,
    fill: Fill,
    call: Call,
};

/// What is to be done; a graph keeps it and many nodes run it.
pub const Task = struct {
    device: *Device,
    action: Action,
    reference_count: u32 = 1,

    /// Takes the action, whatever comes of it.
    pub fn create(device: *Device, action: Action) error{OutOfMemory}!*Task {
        const task = state.allocator.create(Task) catch {
            var owned = action;
            release(&owned);
            return error.OutOfMemory;
        };
        task.* = .{ .device = device, .action = action };
        return task;
    }

    pub fn retain(task: *Task) *Task {
        task.reference_count += 1;
        return task;
    }

    pub fn drop(task: *Task) void {
        task.reference_count -= 1;
        if (task.reference_count > 0) return;
        release(&task.action);
        state.allocator.destroy(task);
    }

    fn release(action: *Action) void {
        switch (action.*) {
            .nothing, .fill => {},
            .launch => |*launch| launch.deinit(),
            .copy => |copy| state.allocator.free(copy.staged),
            .call => |call| call.destroy(call.context),
        }
    }

    fn run(task: *Task, token: u64) Result {
        switch (task.action) {
            .nothing => return .success,
            .launch => |*launch| return launch.run(task.device),
            .copy => |copy| {
                const to: [*]u8 = @ptrFromInt(copy.to);
                const from: [*]const u8 = @ptrFromInt(copy.from);
                @memmove(to[0..copy.bytes], from[0..copy.bytes]);
                if (copy.fault == .garbles) to[copy.bytes / 2] ^= 0x40;
                return .success;
            },
            .fill => |fill| return runFill(fill),
            .call => |call| {
                const result = call.run(call.context, token);
                if (result != .success) state.report("{s} failed on its stream", .{call.label});
                return result;
            },
        }
    }
};

/// One run of a task at one place of a stream.
pub const Node = struct {
    task: *Task,
    /// Names the stream, for orders that stay with one.
    stream_id: u64,
    reference_count: u32 = 1,
    waits_for: u32 = 0,
    followers: std.ArrayList(*Node) = .empty,
    is_done: bool = false,
    has_arrived: bool = false,
    token: u64 = 0,
    done_ns: u64 = 0,

    /// Takes the task. The node waits for nothing yet; `submit` lets it run.
    pub fn create(task: *Task, stream_id: u64) error{OutOfMemory}!*Node {
        errdefer task.drop();
        const node = try state.allocator.create(Node);
        node.* = .{ .task = task, .stream_id = stream_id, .waits_for = 1 };
        pending_counts[task.device.ordinal] += 1;
        return node;
    }

    pub fn waitFor(node: *Node, earlier: ?*Node) error{OutOfMemory}!void {
        const before = earlier orelse return;
        if (before.is_done) return;
        try before.followers.append(state.allocator, node.retain());
        node.waits_for += 1;
    }

    /// All dependencies are registered; the node runs once these are done.
    pub fn submit(node: *Node) error{OutOfMemory}!void {
        try node.letGo();
        state.announceChange();
    }

    pub fn retain(node: *Node) *Node {
        node.reference_count += 1;
        return node;
    }

    pub fn drop(node: *Node) void {
        node.reference_count -= 1;
        if (node.reference_count > 0) return;
        node.followers.deinit(state.allocator);
        node.task.drop();
        state.allocator.destroy(node);
    }

    fn letGo(node: *Node) error{OutOfMemory}!void {
        node.waits_for -= 1;
        if (node.waits_for == 0) try runnable.append(state.allocator, node.retain());
    }

    /// False while a collective's other ranks are not there, and always for what never ends.
    fn isReady(node: *Node) bool {
        if (node.task.device.failure != .success) return true;
        const call = switch (node.task.action) {
            .call => |call| call,
            .launch => |launch| return !kernels.isNamed(launch.kernel, state.hanging_kernel),
            .copy => |copy| return copy.fault != .hangs,
            else => return true,
        };
        if (!node.has_arrived) {
            node.has_arrived = true;
            if (call.arrive) |arrive| node.token = arrive(call.context);
        }
        const isCallReady = call.isReady orelse return true;
        return isCallReady(call.context, node.token);
    }

    fn run(node: *Node) void {
        const device = node.task.device;
        if (device.failure == .success) device.failure = node.task.run(node.token);
        node.is_done = true;
        has_news = true;
        node.done_ns = state.now();
        pending_counts[device.ordinal] -= 1;
        for (node.followers.items) |follower| {
            follower.letGo() catch @panic("out of memory");
            follower.drop();
        }
        node.followers.clearAndFree(state.allocator);
        // `submit`'s caller may keep the node for an event; its own reference goes with the run.
        node.drop();
    }
};

/// Runs work until `node` is done; waits for other threads where their part is missing.
pub fn force(node: *Node) void {
    const kept = node.retain();
    defer kept.drop();
    is_sticky = state.random().boolean();
    while (!kept.is_done) {
        if (!step()) wait();
    }
    pause();
}

/// Runs some work, as time passes between two queries; often all that leads to `node`.
pub fn forceSome(node: *Node) void {
    const kept = node.retain();
    defer kept.drop();
    is_sticky = state.random().boolean();
    const all = state.random().boolean();
    const count = if (all) std.math.maxInt(u32) else state.random().uintLessThan(u32, 8);
    for (0..count) |_| {
        if (kept.is_done or !step()) break;
    }
    pause();
}

/// Runs work until `device` has none left.
pub fn forceDevice(device: *const Device) void {
    is_sticky = state.random().boolean();
    while (pending_counts[device.ordinal] > 0) {
        if (!step()) wait();
    }
    pause();
}

/// Runs all that can run now.
pub fn drain() void {
    while (step()) {}
    pause();
}

// --- internal ---

var runnable: std.ArrayList(*Node) = .empty;
var pending_counts: [state.device_count_max]usize = @splat(0);
/// Orders of two kinds: any stream at each step, or one stream far ahead of the others.
var is_sticky: bool = false;
/// Work has run since other threads were last notified.
var has_news: bool = false;
var last_stream_id: u64 = 0;

/// Nothing can run until another thread does its part.
fn wait() void {
    pause();
    if (state.is_polling) state.waitBriefly(1) else state.waitForChange();
}

/// This thread runs no more work for now. Others may wait for what it ran; where it ran nothing
/// they sleep on, or two that wait would wake each other for ever.
fn pause() void {
    kernels.leave();
    if (has_news) state.announceChange();
    has_news = false;
}

/// Runs one node that nothing holds back; false when there is none.
fn step() bool {
    const count = runnable.items.len;
    if (count == 0) return false;
    const start = state.random().uintLessThan(usize, count);
    var chosen: ?usize = null;
    for (0..count) |i| {
        const at = (start + i) % count;
        const node = runnable.items[at];
        if (!node.isReady()) continue;
        if (chosen == null) chosen = at;
        if (!is_sticky) break;
        if (node.stream_id == last_stream_id) {
            chosen = at;
            break;
        }
    }
    const node = runnable.swapRemove(chosen orelse return false);
    last_stream_id = if (state.random().uintLessThan(u32, 32) == 0) 0 else node.stream_id;
    node.run();
    node.drop();
    return true;
}

fn runFill(fill: Fill) Result {
    const bytes: [*]u8 = @ptrFromInt(fill.address);
    switch (fill.value_bytes) {
        1 => @memset(bytes[0..fill.count], @truncate(fill.value)),
        4 => {
            const words: [*]align(1) u32 = @ptrCast(bytes);
            @memset(words[0..fill.count], fill.value);
        },
        else => return .invalid_value,
    }
    return .success;
}
