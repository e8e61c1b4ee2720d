//! CUDA graphs: a piece of work that comes again with the same addresses is queued by one call.
//! The first time it runs as it is (libraries measure their algorithms then), the second time it is
//! captured, and from there on replayed. While replaying, the same model code runs once more over
//! nothing, so that the arena's books and the exchange go on as always.
//!
//! A capture may be cut: what no graph can hold (waiting for another rank, copies between GPUs)
//! stands between `pause` and `proceed`, and each stretch between is a graph of its own.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const drivers = @import("../../nvidia/driver.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error || Allocator.Error;

/// A size has three for the UNet's steps and one for the VAE; the text encoders have three that
/// serve every prompt. The oldest go.
const entry_count_max = 48;

const Segments = std.ArrayList(drivers.GraphExec);

const Entry = struct {
    key: u64,
    /// Of its last use.
    turn: u64,
    is_captured: bool = false,
    segments: Segments = .empty,
};

pub const Pass = enum { eager, capture, replay };

/// Pieces of work, however many graphs each is.
pub const Counts = struct { captured: u64 = 0, replayed: u64 = 0 };

pub const Graphs = struct {
    gpa: Allocator,
    enabled: bool,
    /// Since it was opened.
    counts: Counts = .{},
    pass: Pass = .eager,
    entries: [entry_count_max]Entry = undefined,
    entry_count: usize = 0,
    turn: u64 = 0,
    current: usize = 0,
    segment_next: usize = 0,

    pub fn init(gpa: Allocator, enabled: bool) Graphs {
        return .{ .gpa = gpa, .enabled = enabled };
    }

    pub fn deinit(graphs: *Graphs, cuda: *Cuda) void {
        for (0..graphs.entry_count) |i| graphs.drop(cuda, i);
    }

    /// What is to be done for work of this key. Nothing is captured inside a capture.
    pub fn passFor(graphs: *Graphs, cuda: *Cuda, key: u64) Pass {
        if (!graphs.enabled or graphs.pass != .eager) return .eager;
        graphs.turn += 1;
        for (graphs.entries[0..graphs.entry_count], 0..) |*entry, i| {
            if (entry.key != key) continue;
            entry.turn = graphs.turn;
            graphs.current = i;
            return if (entry.is_captured) .replay else .capture;
        }
        const i = graphs.makeRoom(cuda);
        graphs.entries[i] = .{ .key = key, .turn = graphs.turn };
        return .eager;
    }

    pub fn beginCapture(graphs: *Graphs, cuda: *Cuda) Error!void {
        assert(graphs.pass == .eager);
        graphs.pass = .capture;
        try graphs.beginSegment(cuda);
    }

    pub fn endCapture(graphs: *Graphs, cuda: *Cuda) Error!void {
        try graphs.endSegment(cuda);
        graphs.entries[graphs.current].is_captured = true;
        graphs.counts.captured += 1;
        graphs.pass = .eager;
    }

    pub fn beginReplay(graphs: *Graphs, cuda: *Cuda) Error!void {
        assert(graphs.pass == .eager);
        graphs.pass = .replay;
        graphs.counts.replayed += 1;
        graphs.segment_next = 0;
        try graphs.launchSegment(cuda);
    }

    pub fn endReplay(graphs: *Graphs) void {
        assert(graphs.segment_next == graphs.entries[graphs.current].segments.items.len);
        graphs.pass = .eager;
    }

    /// After a failure: the stream captures no more and the entry is forgotten.
    pub fn abandon(graphs: *Graphs, cuda: *Cuda) void {
        if (graphs.pass == .eager) return;
        var status: drivers.CaptureStatus = .none;
        _ = cuda.driver.cuStreamIsCapturing(cuda.stream, &status);
        var graph: ?drivers.Graph = null;
        if (status != .none) _ = cuda.driver.cuStreamEndCapture(cuda.stream, &graph);
        if (graph) |g| _ = cuda.driver.cuGraphDestroy(g);
        graphs.pass = .eager;
        graphs.drop(cuda, graphs.current);
        graphs.entry_count -= 1;
        graphs.entries[graphs.current] = graphs.entries[graphs.entry_count];
    }

    /// Ends a stretch. True: what stands until `proceed` is to be done now; false: this only takes
    /// down what there is.
    pub fn pause(graphs: *Graphs, cuda: *Cuda) Error!bool {
        if (graphs.pass != .capture) return true;
        try graphs.endSegment(cuda);
        return false;
    }

    pub fn proceed(graphs: *Graphs, cuda: *Cuda) Error!void {
        switch (graphs.pass) {
            .eager => {},
            .capture => try graphs.beginSegment(cuda),
            .replay => try graphs.launchSegment(cuda),
        }
    }

    // --- internal ---

    fn beginSegment(graphs: *Graphs, cuda: *Cuda) Error!void {
        _ = graphs;
        const result = cuda.driver.cuStreamBeginCapture_v2(cuda.stream, .thread_local);
        try cuda.check(result, "taking down a graph");
    }

    fn endSegment(graphs: *Graphs, cuda: *Cuda) Error!void {
        const d = cuda.driver;
        var graph: ?drivers.Graph = null;
        try cuda.check(d.cuStreamEndCapture(cuda.stream, &graph), "taking down a graph");
        defer _ = d.cuGraphDestroy(graph.?);
        var exec: ?drivers.GraphExec = null;
        try cuda.check(d.cuGraphInstantiateWithFlags(&exec, graph.?, 0), "making a graph ready");
        errdefer _ = d.cuGraphExecDestroy(exec.?);
        try graphs.entries[graphs.current].segments.append(graphs.gpa, exec.?);
    }

    fn launchSegment(graphs: *Graphs, cuda: *Cuda) Error!void {
        const exec = graphs.entries[graphs.current].segments.items[graphs.segment_next];
        graphs.segment_next += 1;
        if (cuda.cancelled.load(.monotonic)) return error.Cancelled;
        try cuda.check(cuda.driver.cuGraphLaunch(exec, cuda.stream), "starting a graph");
    }

    fn makeRoom(graphs: *Graphs, cuda: *Cuda) usize {
        if (graphs.entry_count < entry_count_max) {
            graphs.entry_count += 1;
            return graphs.entry_count - 1;
        }
        var oldest: usize = 0;
        for (graphs.entries, 0..) |entry, i| {
            if (entry.turn < graphs.entries[oldest].turn) oldest = i;
        }
        graphs.drop(cuda, oldest);
        return oldest;
    }

    /// The driver keeps a graph that still runs until it is done.
    fn drop(graphs: *Graphs, cuda: *Cuda, i: usize) void {
        const entry = &graphs.entries[i];
        for (entry.segments.items) |exec| _ = cuda.driver.cuGraphExecDestroy(exec);
        entry.segments.deinit(graphs.gpa);
        entry.segments = .empty;
    }
};
