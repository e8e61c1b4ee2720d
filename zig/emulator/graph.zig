//! Graphs: what streams do while they are captured is recorded with its arguments by value, and a
//! launch queues all of it anew. What must not happen meanwhile ends the capture with the driver's
//! own errors.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const state = @import("state.zig");
const streams = @import("stream.zig");
const work = @import("work.zig");
const Result = driver.Result;
const Stream = streams.Stream;
const Event = streams.Event;

pub const Operation = union(enum) {
    task: *work.Task,
    /// Events the event at each launch.
    record: *Event,
    /// Waits for what the event stands for at each launch.
    wait: *Event,
};

const Node = struct { operation: Operation, after: []const u32 };

pub const Graph = struct {
    magic: u32 = live,
    nodes: std.ArrayList(Node) = .empty,

    const live = 0x47525048;

    pub fn of(handle: driver.Graph) ?*Graph {
        const graph: *Graph = @ptrCast(@alignCast(handle));
        return if (graph.magic == live) graph else null;
    }

    pub fn destroy(graph: *Graph) void {
        graph.magic = 0;
        releaseNodes(graph.nodes.items);
        graph.nodes.clearAndFree(state.allocator);
    }
};

pub const Exec = struct {
    magic: u32 = live,
    nodes: []Node,
    /// The end of its last launch: launches of one graph follow each other.
    end: ?*work.Node = null,

    const live = 0x47455845;

    pub fn of(handle: driver.GraphExec) ?*Exec {
        const exec: *Exec = @ptrCast(@alignCast(handle));
        return if (exec.magic == live) exec else null;
    }

    pub fn create(graph: *const Graph) error{OutOfMemory}!*Exec {
        const nodes = try state.allocator.alloc(Node, graph.nodes.items.len);
        for (nodes, graph.nodes.items) |*node, from| {
            switch (from.operation) {
                .task => |task| _ = task.retain(),
                else => {},
            }
            node.* = .{
                .operation = from.operation,
                .after = try state.allocator.dupe(u32, from.after),
            };
        }
        const exec = try state.allocator.create(Exec);
        exec.* = .{ .nodes = nodes };
        return exec;
    }

    pub fn destroy(exec: *Exec) void {
        exec.magic = 0;
        releaseNodes(exec.nodes);
        state.allocator.free(exec.nodes);
        if (exec.end) |end| end.drop();
        exec.end = null;
    }

    /// Queues every node, then makes the stream go on behind all of them.
    pub fn launch(exec: *Exec, stream: *Stream) !Result {
        for (exec.nodes) |*node| switch (node.operation) {
            .task => {},
            // A destroyed event in a graph: the real driver reads freed memory here.
            .record, .wait => |event| if (event.magic == 0) return .invalid_handle,
        };
        const start = try stream.mark(exec.end);
        const queued = try state.allocator.alloc(*work.Node, exec.nodes.len);
        defer state.allocator.free(queued);
        const end = try work.Node.create(
            try work.Task.create(stream.device, .nothing),
            stream.id,
        );
        try end.waitFor(start);
        for (exec.nodes, queued, 0..) |*node, *queue, i| {
            const task = switch (node.operation) {
                .task => |task| task.retain(),
                else => try work.Task.create(stream.device, .nothing),
            };
            // Branches count as separate streams in the random order.
            queue.* = try work.Node.create(task, stream.id << 16 | i);
            try queue.*.waitFor(start);
            for (node.after) |before| try queue.*.waitFor(queued[before]);
            switch (node.operation) {
                .task => {},
                .record => |event| event.standFor(queue.*),
                .wait => |event| try queue.*.waitFor(event.node),
            }
            try end.waitFor(queue.*);
        }
        for (queued) |queue| try queue.submit();
        stream.setTail(end);
        if (exec.end) |old| old.drop();
        exec.end = end.retain();
        try end.submit();
        return .success;
    }
};

/// A graph in the making, from cuStreamBeginCapture on `origin` to its end.
pub const Capture = struct {
    id: u64,
    graph: *Graph,
    origin: *Stream,
    mode: driver.CaptureMode,
    thread: std.c.pthread_t,
    status: driver.CaptureStatus = .active,
    /// Every stream that takes part.
    streams: std.ArrayList(*Stream) = .empty,

    pub fn begin(origin: *Stream, mode: driver.CaptureMode) !*Capture {
        const graph = try state.allocator.create(Graph);
        graph.* = .{};
        const capture = try state.allocator.create(Capture);
        id_last += 1;
        capture.* = .{
            .id = id_last,
            .graph = graph,
            .origin = origin,
            .mode = mode,
            .thread = std.c.pthread_self(),
        };
        try capture.streams.append(state.allocator, origin);
        try captures.append(state.allocator, capture);
        origin.capture = capture;
        origin.capture_tail.clearRetainingCapacity();
        return capture;
    }

    pub fn find(id: u64) ?*Capture {
        if (id == 0) return null;
        for (captures.items) |capture| if (capture.id == id) return capture;
        return null;
    }

    /// Ends the capture for all its streams; the graph is the caller's where all went well.
    pub fn end(capture: *Capture, graph: *?*Graph) Result {
        graph.* = null;
        var result: Result = .success;
        if (!capture.isJoined()) result = .stream_capture_unjoined;
        if (capture.status != .active) result = .stream_capture_invalidated;
        for (capture.streams.items) |stream| {
            stream.capture = null;
            stream.capture_tail.clearRetainingCapacity();
        }
        for (captures.items, 0..) |other, i| {
            if (other != capture) continue;
            _ = captures.swapRemove(i);
            break;
        }
        if (result == .success) graph.* = capture.graph else capture.graph.destroy();
        capture.streams.deinit(state.allocator);
        state.allocator.destroy(capture);
        return result;
    }

    /// A node behind the stream's last. Takes a task, whatever the answer.
    pub fn record(capture: *Capture, stream: *Stream, operation: Operation) Result {
        if (capture.status != .active) {
            drop(operation);
            return .stream_capture_invalidated;
        }
        const nodes = &capture.graph.nodes;
        const index: u32 = @intCast(nodes.items.len);
        const after = state.allocator.dupe(u32, stream.capture_tail.items) catch
            return .out_of_memory;
        nodes.append(state.allocator, .{ .operation = operation, .after = after }) catch
            return .out_of_memory;
        stream.capture_tail.clearRetainingCapacity();
        stream.capture_tail.append(state.allocator, index) catch return .out_of_memory;
        return .success;
    }

    /// The event stands for the stream's last nodes, inside this graph alone.
    pub fn mark(capture: *Capture, stream: *Stream, event: *Event) Result {
        if (capture.status != .active) return .stream_capture_invalidated;
        event.standFor(null);
        event.capture_id = capture.id;
        event.capture_nodes.clearRetainingCapacity();
        event.capture_nodes.appendSlice(state.allocator, stream.capture_tail.items) catch
            return .out_of_memory;
        return .success;
    }

    /// The stream takes part from here on, behind what the event stands for.
    pub fn join(capture: *Capture, stream: *Stream, event: *Event) Result {
        if (capture.status != .active) return .stream_capture_invalidated;
        if (stream.capture) |other| {
            if (other != capture) return capture.invalidate(.stream_capture_merge);
        } else {
            stream.capture = capture;
            stream.capture_tail.clearRetainingCapacity();
            capture.streams.append(state.allocator, stream) catch return .out_of_memory;
        }
        for (event.capture_nodes.items) |node| {
            if (std.mem.findScalar(u32, stream.capture_tail.items, node) != null) continue;
            stream.capture_tail.append(state.allocator, node) catch return .out_of_memory;
        }
        return .success;
    }

    pub fn invalidate(capture: *Capture, why: Result) Result {
        capture.status = .invalidated;
        return why;
    }

    /// Whether the origin's last nodes come after every other node.
    fn isJoined(capture: *const Capture) bool {
        const nodes = capture.graph.nodes.items;
        const reached = state.allocator.alloc(bool, nodes.len) catch return false;
        defer state.allocator.free(reached);
        @memset(reached, false);
        for (capture.origin.capture_tail.items) |node| reached[node] = true;
        var i = nodes.len;
        while (i > 0) {
            i -= 1;
            if (reached[i]) for (nodes[i].after) |before| {
                reached[before] = true;
            };
        }
        return std.mem.allEqual(bool, reached, true);
    }
};

/// How calls of this thread take to captures elsewhere: cuThreadExchangeStreamCaptureMode.
pub threadlocal var thread_mode: driver.CaptureMode = .global;

/// For calls that a capture forbids, such as allocating or waiting: the driver's error while one is
/// under way that this thread must respect, which then is spoilt.
pub fn forbidden() Result {
    for (captures.items) |capture| {
        const is_own = capture.thread == std.c.pthread_self();
        const counts = switch (thread_mode) {
            .global => capture.mode == .global or (is_own and capture.mode == .thread_local),
            .thread_local => is_own and capture.mode != .relaxed,
            else => false,
        };
        if (counts) return capture.invalidate(.stream_capture_unsupported);
    }
    return .success;
}

// --- internal ---

var captures: std.ArrayList(*Capture) = .empty;
var id_last: u64 = 0;

fn drop(operation: Operation) void {
    switch (operation) {
        .task => |task| task.drop(),
        else => {},
    }
}

fn releaseNodes(nodes: []const Node) void {
    for (nodes) |node| {
        drop(node.operation);
        state.allocator.free(node.after);
    }
}
