//! The emulated driver's calls about streams, events and graphs.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const faults = @import("faults.zig");
const graphs = @import("graph.zig");
const state = @import("state.zig");
const streams = @import("stream.zig");
const work = @import("work.zig");
const Result = driver.Result;
const Stream = streams.Stream;
const Event = streams.Event;

pub fn cuStreamCreate(stream: *?driver.Stream, flags: c_uint) callconv(.c) Result {
    return cuStreamCreateWithPriority(stream, flags, 0);
}

pub fn cuStreamCreateWithPriority(
    stream: *?driver.Stream,
    flags: c_uint,
    priority: c_int,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (flags > driver.stream_non_blocking) return .invalid_value;
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    const created = Stream.create(device.?, flags == 0, priority) catch return .out_of_memory;
    stream.* = @ptrCast(created);
    return .success;
}

pub fn cuStreamDestroy_v2(stream: driver.Stream) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    if (found.capture) |capture| return capture.invalidate(.stream_capture_unsupported);
    found.destroy();
    return .success;
}

pub fn cuStreamSynchronize(stream: driver.Stream) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    const refused = forbidden(found);
    if (refused != .success) return refused;
    if (found.tail) |tail| work.force(tail);
    return found.device.failure;
}

pub fn cuStreamQuery(stream: driver.Stream) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    const refused = forbidden(found);
    if (refused != .success) return refused;
    if (found.tail) |tail| work.forceSome(tail);
    if (found.device.failure != .success) return found.device.failure;
    return if (found.isIdle()) .success else .not_ready;
}

pub fn cuStreamWaitEvent(
    stream: driver.Stream,
    event: driver.Event,
    flags: c_uint,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    const awaited = Event.of(event) orelse return .invalid_handle;
    if (flags > driver.event_wait_external) return .invalid_value;
    if (faults.fails(.stream_wait_event, found.device.ordinal)) return .unknown;
    return awaited.makeWait(found, flags == driver.event_wait_external);
}

pub fn cuStreamBeginCapture_v2(
    stream: driver.Stream,
    mode: driver.CaptureMode,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    if (found.capture) |capture| return capture.invalidate(.stream_capture_unsupported);
    if (found.device.failure != .success) return found.device.failure;
    if (faults.fails(.begin_capture, found.device.ordinal)) return .unknown;
    _ = graphs.Capture.begin(found, mode) catch return .out_of_memory;
    return .success;
}

pub fn cuStreamEndCapture(stream: driver.Stream, graph: *?driver.Graph) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    graph.* = null;
    const found = Stream.of(stream) orelse return .invalid_handle;
    const capture = found.capture orelse return .invalid_value;
    if (capture.origin != found) return capture.invalidate(.stream_capture_unmatched);
    if (capture.mode != .relaxed and capture.thread != std.c.pthread_self()) {
        return .stream_capture_wrong_thread;
    }
    if (faults.fails(.end_capture, found.device.ordinal)) return .unknown;
    var made: ?*graphs.Graph = null;
    const result = capture.end(&made);
    graph.* = @ptrCast(made);
    return result;
}

pub fn cuStreamIsCapturing(
    stream: driver.Stream,
    status: *driver.CaptureStatus,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    status.* = if (found.capture) |capture| capture.status else .none;
    return .success;
}

pub fn cuThreadExchangeStreamCaptureMode(mode: *driver.CaptureMode) callconv(.c) Result {
    std.mem.swap(driver.CaptureMode, mode, &graphs.thread_mode);
    return .success;
}

pub fn cuEventCreate(event: *?driver.Event, flags: c_uint) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (flags & ~@as(c_uint, 3) != 0) return .invalid_value;
    var device: ?*state.Device = null;
    const result = state.active(&device);
    if (result != .success) return result;
    const is_timed = flags & driver.event_disable_timing == 0;
    const created = Event.create(device.?, is_timed) catch return .out_of_memory;
    event.* = @ptrCast(created);
    return .success;
}

pub fn cuEventDestroy_v2(event: driver.Event) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Event.of(event) orelse return .invalid_handle;
    found.destroy();
    return .success;
}

pub fn cuEventRecord(event: driver.Event, stream: driver.Stream) callconv(.c) Result {
    return cuEventRecordWithFlags(event, stream, 0);
}

pub fn cuEventRecordWithFlags(
    event: driver.Event,
    stream: driver.Stream,
    flags: c_uint,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Stream.of(stream) orelse return .invalid_handle;
    const recorded = Event.of(event) orelse return .invalid_handle;
    if (flags > driver.event_record_external) return .invalid_value;
    // A measurement that fails is no failure of the rank.
    const is_own = !recorded.is_timed;
    if (is_own and faults.fails(.event_record, found.device.ordinal)) return .unknown;
    return recorded.record(found, flags == driver.event_record_external);
}

pub fn cuEventQuery(event: driver.Event) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Event.of(event) orelse return .invalid_handle;
    const refused = forbiddenEvent(found);
    if (refused != .success) return refused;
    const node = found.node orelse return .success;
    work.forceSome(node);
    if (found.device.failure != .success) return found.device.failure;
    return if (node.is_done) .success else .not_ready;
}

pub fn cuEventSynchronize(event: driver.Event) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = Event.of(event) orelse return .invalid_handle;
    const refused = forbiddenEvent(found);
    if (refused != .success) return refused;
    if (found.node) |node| work.force(node);
    return found.device.failure;
}

pub fn cuEventElapsedTime(
    milliseconds: *f32,
    start: driver.Event,
    end: driver.Event,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const first = Event.of(start) orelse return .invalid_handle;
    const last = Event.of(end) orelse return .invalid_handle;
    if (!first.is_timed or !last.is_timed) return .invalid_handle;
    const from = first.node orelse return .invalid_handle;
    const to = last.node orelse return .invalid_handle;
    if (!from.is_done or !to.is_done) return .not_ready;
    const from_ns: f64 = @floatFromInt(from.done_ns);
    const to_ns: f64 = @floatFromInt(to.done_ns);
    milliseconds.* = @floatCast((to_ns - from_ns) / std.time.ns_per_ms);
    return .success;
}

pub fn cuGraphInstantiateWithFlags(
    exec: *?driver.GraphExec,
    graph: driver.Graph,
    flags: c_ulonglong,
) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    if (flags & ~@as(c_ulonglong, 15) != 0) return .invalid_value;
    const found = graphs.Graph.of(graph) orelse return .invalid_value;
    const created = graphs.Exec.create(found) catch return .out_of_memory;
    exec.* = @ptrCast(created);
    return .success;
}

pub fn cuGraphUpload(exec: driver.GraphExec, stream: driver.Stream) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    _ = graphs.Exec.of(exec) orelse return .invalid_value;
    _ = Stream.of(stream) orelse return .invalid_handle;
    return .success;
}

pub fn cuGraphLaunch(exec: driver.GraphExec, stream: driver.Stream) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = graphs.Exec.of(exec) orelse return .invalid_value;
    const target = Stream.of(stream) orelse return .invalid_handle;
    if (target.device.failure != .success) return target.device.failure;
    if (faults.fails(.graph_launch, target.device.ordinal)) return .unknown;
    // A graph inside a graph is a child node to the driver; nothing here makes one.
    if (target.capture) |capture| return capture.invalidate(.not_supported);
    return found.launch(target) catch .out_of_memory;
}

pub fn cuGraphExecDestroy(exec: driver.GraphExec) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = graphs.Exec.of(exec) orelse return .invalid_value;
    found.destroy();
    return .success;
}

pub fn cuGraphDestroy(graph: driver.Graph) callconv(.c) Result {
    state.lock();
    defer state.unlock();
    const found = graphs.Graph.of(graph) orelse return .invalid_value;
    found.destroy();
    return .success;
}

// --- internal ---

/// Waiting and asking are not allowed while this stream, or one that this thread must respect, is
/// captured.
fn forbidden(stream: *const Stream) Result {
    if (stream.capture) |capture| return capture.invalidate(.stream_capture_unsupported);
    return graphs.forbidden();
}

fn forbiddenEvent(event: *const Event) Result {
    if (graphs.Capture.find(event.capture_id)) |capture| {
        return capture.invalidate(.captured_event);
    }
    if (event.capture_id != 0) return .captured_event;
    return graphs.forbidden();
}
