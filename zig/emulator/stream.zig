//! Streams and events as objects: where a stream's next work goes (behind its last, or into the
//! graph that it records), and what an event stands for.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const graphs = @import("graph.zig");
const state = @import("state.zig");
const work = @import("work.zig");
const Result = driver.Result;

pub const Stream = struct {
    magic: u32 = live,
    device: *state.Device,
    id: u64,
    /// Shares the order of the device's legacy stream, on which blocking copies run.
    is_blocking: bool,
    priority: c_int = 0,
    /// Its last work; the next waits for it.
    tail: ?*work.Node = null,
    capture: ?*graphs.Capture = null,
    /// While it records: the graph's nodes that its next one waits for.
    capture_tail: std.ArrayList(u32) = .empty,

    const live = 0x53545245;

    pub fn create(
        device: *state.Device,
        is_blocking: bool,
        priority: c_int,
    ) error{OutOfMemory}!*Stream {
        const stream = try state.allocator.create(Stream);
        id_last += 1;
        stream.* = .{
            .device = device,
            .id = id_last,
            .is_blocking = is_blocking,
            .priority = priority,
        };
        try all.append(state.allocator, stream);
        return stream;
    }

    /// Null for a handle that is none or was destroyed (the memory of those is kept).
    pub fn of(handle: driver.Stream) ?*Stream {
        const stream: *Stream = @ptrCast(@alignCast(handle));
        return if (stream.magic == live) stream else null;
    }

    /// Work already queued still runs.
    pub fn destroy(stream: *Stream) void {
        stream.magic = 0;
        const index = std.mem.findScalar(*Stream, all.items, stream).?;
        _ = all.swapRemove(index);
        stream.setTail(null);
        stream.capture_tail.clearAndFree(state.allocator);
    }

    pub fn setTail(stream: *Stream, node: ?*work.Node) void {
        if (stream.tail) |tail| tail.drop();
        stream.tail = if (node) |kept| kept.retain() else null;
    }

    /// Queues or records `action`, which is taken whatever the answer.
    pub fn enqueue(stream: *Stream, action: work.Action) Result {
        const task = work.Task.create(stream.device, action) catch return .out_of_memory;
        if (stream.device.failure != .success) {
            task.drop();
            return stream.device.failure;
        }
        if (stream.capture) |capture| return capture.record(stream, .{ .task = task });
        if (stream == legacy[stream.device.ordinal] and isBlockingCaptured(stream.device)) {
            task.drop();
            return .stream_capture_implicit;
        }
        _ = stream.append(task, null) catch return .out_of_memory;
        return .success;
    }

    /// A node behind the stream's last, and behind `also`; it becomes the last.
    pub fn append(stream: *Stream, task: *work.Task, also: ?*work.Node) !*work.Node {
        const node = try work.Node.create(task, stream.id);
        try node.waitFor(stream.tail);
        try node.waitFor(also);
        if (stream.is_blocking) for (all.items) |other| {
            const is_legacy = stream == legacy[stream.device.ordinal];
            const shares_order = other.device == stream.device and other.is_blocking;
            if (!shares_order) continue;
            if (is_legacy or other == legacy[stream.device.ordinal]) {
                try node.waitFor(other.tail);
            }
        };
        stream.setTail(node);
        try node.submit();
        return node;
    }

    /// A mark behind all that the stream holds so far.
    pub fn mark(stream: *Stream, also: ?*work.Node) !*work.Node {
        return stream.append(try work.Task.create(stream.device, .nothing), also);
    }

    pub fn isIdle(stream: *const Stream) bool {
        return if (stream.tail) |tail| tail.is_done else true;
    }
};

pub const Event = struct {
    magic: u32 = live,
    device: *state.Device,
    is_timed: bool,
    /// What it stands for; null before the first record.
    node: ?*work.Node = null,
    /// Recorded while its stream recorded: it then stands for these nodes of that graph.
    capture_id: u64 = 0,
    capture_nodes: std.ArrayList(u32) = .empty,

    const live = 0x45564e54;

    pub fn create(device: *state.Device, is_timed: bool) error{OutOfMemory}!*Event {
        const event = try state.allocator.create(Event);
        event.* = .{ .device = device, .is_timed = is_timed };
        return event;
    }

    pub fn of(handle: driver.Event) ?*Event {
        const event: *Event = @ptrCast(@alignCast(handle));
        return if (event.magic == live) event else null;
    }

    pub fn destroy(event: *Event) void {
        event.magic = 0;
        event.standFor(null);
        event.capture_nodes.clearAndFree(state.allocator);
    }

    pub fn standFor(event: *Event, node: ?*work.Node) void {
        if (event.node) |old| old.drop();
        event.node = if (node) |kept| kept.retain() else null;
        event.capture_id = 0;
    }

    pub fn record(event: *Event, stream: *Stream, is_external: bool) Result {
        if (event.device != stream.device) return .invalid_handle;
        if (stream.capture) |capture| {
            if (is_external) return capture.record(stream, .{ .record = event });
            return capture.mark(stream, event);
        }
        const node = stream.mark(null) catch return .out_of_memory;
        event.standFor(node);
        return .success;
    }

    /// Makes what `stream` gets from now on wait for what the event stands for now.
    pub fn makeWait(event: *Event, stream: *Stream, is_external: bool) Result {
        if (is_external) {
            const capture = stream.capture orelse return .invalid_value;
            return capture.record(stream, .{ .wait = event });
        }
        if (graphs.Capture.find(event.capture_id)) |capture| return capture.join(stream, event);
        // What was captured stands for nothing outside of its graph.
        if (event.capture_id != 0) return .invalid_value;
        if (stream.capture) |capture| return capture.invalidate(.stream_capture_isolation);
        _ = stream.mark(event.node) catch return .out_of_memory;
        return .success;
    }
};

/// The stream that blocking copies run on.
pub fn legacyOf(device: *state.Device) error{OutOfMemory}!*Stream {
    const place = &legacy[device.ordinal];
    if (place.* == null) place.* = try .create(device, true, 0);
    return place.*.?;
}

// --- internal ---

var id_last: u64 = 0;
var all: std.ArrayList(*Stream) = .empty;
var legacy: [state.device_count_max]?*Stream = @splat(null);

fn isBlockingCaptured(device: *const state.Device) bool {
    for (all.items) |stream| {
        const counts = stream.device == device and stream.is_blocking;
        if (!counts) continue;
        const capture = stream.capture orelse continue;
        _ = capture.invalidate(.stream_capture_implicit);
        return true;
    }
    return false;
}
