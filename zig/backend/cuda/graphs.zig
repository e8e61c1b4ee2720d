//! The cache of CUDA graphs: work that comes again with the same key and the same addresses is
//! launched by one call. It runs eagerly the first time (the libraries time their algorithms then),
//! is captured the second time, and is replayed from then on. During a replay the same model code
//! runs again with a backend that launches nothing, so that allocations and the exchange proceed
//! as they do eagerly.
//!
//! A capture can be split into segments. Work that cannot be captured (host waits, peer copies)
//! goes between endSegment() and beginSegment(); each segment is a CUDA graph of its own.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const drivers = @import("../../nvidia/driver.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const keys = @import("graph_key.zig");
const GraphKey = keys.GraphKey;
const GraphMemory = keys.GraphMemory;
const Scratch = @import("../../scratch.zig").Scratch;
const Error = cudas.Error || Allocator.Error;

/// An image size has three entries for the UNet's steps and one for the VAE; the text encoders have
/// three that serve every prompt. The least recently used entry is evicted.
const entry_count_max = 48;

const Segments = std.ArrayList(drivers.GraphExec);

const Entry = struct {
    key: GraphKey,
    memory: GraphMemory,
    /// Value of `Graphs.turn` at its last use.
    turn: u64,
    is_captured: bool = false,
    segments: Segments = .empty,
};

pub const Pass = enum { eager, capture, replay };

/// Entries captured and replayed, whatever their number of segments.
pub const Counts = struct { captured: u64 = 0, replayed: u64 = 0 };

pub const Graphs = struct {
    gpa: Allocator,
    enabled: bool,
    /// Since the device was opened.
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

    /// How to run the work of this key with the arena as it is. Captures do not nest.
    pub fn passFor(
        graphs: *Graphs,
        cuda: *Cuda,
        key: GraphKey,
        scratch: *const Scratch,
    ) Allocator.Error!Pass {
        if (!graphs.enabled or graphs.pass != .eager) return .eager;
        graphs.turn += 1;
        for (graphs.entries[0..graphs.entry_count], 0..) |*entry, i| {
            if (!entry.key.eql(key) or !entry.memory.matches(scratch)) continue;
            entry.turn = graphs.turn;
            graphs.current = i;
            return if (entry.is_captured) .replay else .capture;
        }
        const memory: GraphMemory = try .of(graphs.gpa, scratch);
        const i = graphs.makeRoom(cuda);
        graphs.entries[i] = .{ .key = key, .memory = memory, .turn = graphs.turn };
        return .eager;
    }

    pub fn beginCapture(graphs: *Graphs, cuda: *Cuda) Error!void {
        assert(graphs.pass == .eager);
        graphs.pass = .capture;
        try graphs.startCapture(cuda);
    }

    pub fn endCapture(graphs: *Graphs, cuda: *Cuda) Error!void {
        try graphs.finishCapture(cuda);
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

    /// After a failure: ends the stream's capture and drops the entry.
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

    /// Ends the current segment, before work that cannot be captured. Returns false while
    /// capturing: the caller must then skip that work.
    pub fn endSegment(graphs: *Graphs, cuda: *Cuda) Error!bool {
        if (graphs.pass != .capture) return true;
        try graphs.finishCapture(cuda);
        return false;
    }

    /// Begins the next segment, after work that cannot be captured.
    pub fn beginSegment(graphs: *Graphs, cuda: *Cuda) Error!void {
        switch (graphs.pass) {
            .eager => {},
            .capture => try graphs.startCapture(cuda),
            .replay => try graphs.launchSegment(cuda),
        }
    }

    // --- internal ---

    fn startCapture(_: *Graphs, cuda: *Cuda) Error!void {
        cuda.dependent_launches.follows_kernel = false;
        const result = cuda.driver.cuStreamBeginCapture_v2(cuda.stream, .thread_local);
        try cuda.check(.cuStreamBeginCapture_v2, result, "beginning a capture");
    }

    fn finishCapture(graphs: *Graphs, cuda: *Cuda) Error!void {
        const d = cuda.driver;
        var graph: ?drivers.Graph = null;
        const ended = d.cuStreamEndCapture(cuda.stream, &graph);
        try cuda.check(.cuStreamEndCapture, ended, "ending a capture");
        defer _ = d.cuGraphDestroy(graph.?);
        var exec: ?drivers.GraphExec = null;
        const instantiated = d.cuGraphInstantiateWithFlags(&exec, graph.?, 0);
        try cuda.check(.cuGraphInstantiateWithFlags, instantiated, "instantiating a graph");
        errdefer _ = d.cuGraphExecDestroy(exec.?);
        try graphs.entries[graphs.current].segments.append(graphs.gpa, exec.?);
    }

    fn launchSegment(graphs: *Graphs, cuda: *Cuda) Error!void {
        cuda.dependent_launches.follows_kernel = false;
        const exec = graphs.entries[graphs.current].segments.items[graphs.segment_next];
        graphs.segment_next += 1;
        if (cuda.cancelled.load(.monotonic)) return error.Cancelled;
        const result = cuda.driver.cuGraphLaunch(exec, cuda.stream);
        try cuda.check(.cuGraphLaunch, result, "launching a graph");
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

    /// The driver keeps a graph that is still running until it has finished.
    fn drop(graphs: *Graphs, cuda: *Cuda, i: usize) void {
        const entry = &graphs.entries[i];
        for (entry.segments.items) |exec| _ = cuda.driver.cuGraphExecDestroy(exec);
        entry.segments.deinit(graphs.gpa);
        entry.memory.deinit(graphs.gpa);
    }
};
