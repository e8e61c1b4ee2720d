//! Attention by cuDNN's unified SDPA (9.13 and newer): softmax(q k^T * scale) v per head, in 16
//! bits with sums in f32, and the log-sum-exp of each row where asked for. Tensors are rows of
//! heads side by side, read in place with the strides that they have. Its kernels are compiled when
//! a plan is made, one for each problem; where it has none, the caller has a kernel of its own.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const cudnn = @import("../../nvidia/cudnn.zig");
const descriptors = @import("../../nvidia/cudnn_descriptors.zig");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const drivers = @import("../../nvidia/driver.zig");
const DType = @import("../../tensor.zig").DType;
const Engines = @import("cudnn_engines.zig").Engines;
const graphs = @import("sdpa_graph.zig");
const AlgorithmCache = @import("autotune.zig").AlgorithmCache;
const kept_plans = @import("cudnn_plan.zig");
const Address = drivers.Address;

pub const Error = error{GpuFailed};

/// cudnnGetVersion of the first that has the operation.
pub const version_min = 91300;
/// The largest head that is asked for; cuDNN's kernels take heads in groups of 8 channels.
pub const head_size_max = 128;

/// One attention. Strides are elements from one position to the next.
pub const Call = struct {
    batch: u32,
    heads: u32,
    head_size: u32,
    queries: u32,
    keys: u32,
    /// f16 or bf16; of everything but statistics.
    dtype: DType,
    q: Address,
    q_stride: u32,
    k: Address,
    v: Address,
    /// Of k and v.
    kv_stride: u32,
    /// (batch, queries, heads * head size)
    out: Address,
    /// (batch, heads, queries) f32, the natural log-sum-exp of the scaled scores; 0 for none.
    statistics: Address = 0,
    /// Of the scores.
    scale: f32,
};

/// What an engine depends on: everything but addresses.
pub const Problem = struct {
    batch: u32,
    heads: u32,
    head_size: u32,
    queries: u32,
    keys: u32,
    dtype: DType,
    q_stride: u32,
    kv_stride: u32,
    has_statistics: bool,

    pub fn of(call: Call) Problem {
        return .{
            .batch = call.batch,
            .heads = call.heads,
            .head_size = call.head_size,
            .queries = call.queries,
            .keys = call.keys,
            .dtype = call.dtype,
            .q_stride = call.q_stride,
            .kv_stride = call.kv_stride,
            .has_statistics = call.statistics != 0,
        };
    }

    /// Its name in the cache file.
    fn write(p: Problem, buffer: []u8) []const u8 {
        return std.fmt.bufPrint(buffer, "{t} {d} {d}x{d} q{d}/{d} k{d}/{d}{s}", .{
            p.dtype,
            p.batch,
            p.heads,
            p.head_size,
            p.queries,
            p.q_stride,
            p.keys,
            p.kv_stride,
            if (p.has_statistics) " statistics" else "",
        }) catch unreachable; // Seven numbers fit 128 bytes.
    }
};

/// Whether the library may be asked for heads of this size.
pub fn takesHeads(head_size: u32) bool {
    return head_size % 8 == 0 and head_size <= head_size_max;
}

pub const Options = struct {
    library: *const cudnn.Cudnn,
    /// Those that have been compiled, for later processes.
    plans: *AlgorithmCache,
    diagnostics: *Diagnostics,
    /// Shared with the convolutions of the same stream.
    workspace: Address,
    workspace_bytes: usize,
};

const Plan = struct {
    plan: cudnn.Descriptor,
    /// What it was last run with.
    pack: ?cudnn.Descriptor = null,
    packed_call: Call = undefined,

    fn deinit(plan: *Plan, library: *const cudnn.Cudnn) void {
        if (plan.pack) |pack| _ = library.cudnnBackendDestroyDescriptor(pack);
        _ = library.cudnnBackendDestroyDescriptor(plan.plan);
    }
};

/// The attentions of one rank, on the handle of its convolutions.
pub const Sdpa = struct {
    gpa: Allocator,
    options: Options,
    handle: cudnn.Handle,
    stream: ?drivers.Stream = null,
    /// Null for a problem without an engine. Plans never move: packs point into them.
    plans: std.AutoHashMapUnmanaged(Problem, ?*Plan) = .empty,

    pub fn open(gpa: Allocator, options: Options, handle: cudnn.Handle) Sdpa {
        return .{ .gpa = gpa, .options = options, .handle = handle };
    }

    pub fn close(sdpa: *Sdpa) void {
        var all = sdpa.plans.valueIterator();
        while (all.next()) |maybe| if (maybe.*) |plan| {
            plan.deinit(sdpa.options.library);
            sdpa.gpa.destroy(plan);
        };
        sdpa.plans.deinit(sdpa.gpa);
    }

    /// Whether the library has an engine for such a call; the first question makes its plan.
    pub fn has(sdpa: *Sdpa, call: Call) Error!bool {
        return try sdpa.planOf(call) != null;
    }

    /// Queues a call that `has` an engine.
    pub fn run(sdpa: *Sdpa, stream: drivers.Stream, call: Call) Error!void {
        assert((call.q | call.k | call.v | call.out | call.statistics) % 16 == 0);
        const library = sdpa.options.library;
        const plan = (try sdpa.planOf(call)).?;
        sdpa.execute(stream, plan, call) catch return sdpa.options.diagnostics.fail(
            error.GpuFailed,
            "{f}, in an attention of {d} heads of {d}, {d} queries and {d} keys in {s}.",
            .{
                @TypeOf(library.*).lastRefused(), call.heads, call.head_size,
                call.queries,                     call.keys,  @tagName(call.dtype),
            },
        );
    }

    // --- internal ---

    fn planOf(sdpa: *Sdpa, call: Call) Error!?*Plan {
        assert(takesHeads(call.head_size));
        const problem: Problem = .of(call);
        if (sdpa.plans.get(problem)) |known| return known;
        const made = sdpa.make(problem) catch return sdpa.failMemory();
        sdpa.plans.put(sdpa.gpa, problem, made) catch return sdpa.failMemory();
        return made;
    }

    fn make(sdpa: *Sdpa, problem: Problem) Allocator.Error!?*Plan {
        var buffer: [128]u8 = undefined;
        const name = problem.write(&buffer);
        const descriptor = sdpa.kept(name) orelse try sdpa.compile(problem, name) orelse
            return null;
        const plan = try sdpa.gpa.create(Plan);
        plan.* = .{ .plan = descriptor };
        return plan;
    }

    /// The plan of an earlier process, if the library still takes it.
    fn kept(sdpa: *Sdpa, name: []const u8) ?cudnn.Descriptor {
        const library = sdpa.options.library;
        const text = sdpa.options.plans.get(name) orelse return null;
        const plan = kept_plans.read(library, sdpa.handle, text) catch return null;
        const limit = sdpa.options.workspace_bytes;
        const bytes = kept_plans.workspaceBytes(library, plan) catch limit + 1;
        if (bytes <= limit) return plan;
        _ = library.cudnnBackendDestroyDescriptor(plan);
        return null;
    }

    fn compile(sdpa: *Sdpa, problem: Problem, name: []const u8) Allocator.Error!?cudnn.Descriptor {
        const library = sdpa.options.library;
        const gpu: cudnn.Gpu = .{ .handle = sdpa.handle };
        var graph = graphs.Graph.init(library, gpu, problem) catch return null;
        defer graph.deinit();
        var engines: Engines = .{ .library = library, .gpu = gpu };
        defer engines.deinit();
        // Each of them would be compiled: the library's first is taken unmeasured.
        engines.find(graph.graph, sdpa.options.workspace_bytes, null, 1) catch return null;
        const plan = engines.take(0);
        errdefer _ = library.cudnnBackendDestroyDescriptor(plan);
        const text = kept_plans.write(sdpa.gpa, library, plan) catch |err| {
            return if (err == error.OutOfMemory) error.OutOfMemory else plan;
        };
        defer sdpa.gpa.free(text);
        try sdpa.options.plans.put(name, text);
        return plan;
    }

    fn execute(
        sdpa: *Sdpa,
        stream: drivers.Stream,
        plan: *Plan,
        call: Call,
    ) descriptors.Error!void {
        const library = sdpa.options.library;
        if (sdpa.stream != stream) {
            try library.expect(.cudnnSetStream, library.cudnnSetStream(sdpa.handle, stream));
            sdpa.stream = stream;
        }
        if (plan.pack == null or !std.meta.eql(call, plan.packed_call)) {
            if (plan.pack) |pack| _ = library.cudnnBackendDestroyDescriptor(pack);
            plan.pack = null;
            plan.packed_call = call;
            plan.pack = try graphs.pack(library, &plan.packed_call, sdpa.options.workspace);
        }
        const status = library.cudnnBackendExecute(sdpa.handle, plan.plan, plan.pack.?);
        try library.expect(.cudnnBackendExecute, status);
    }

    fn failMemory(sdpa: *Sdpa) Error {
        const sentence = "Host memory ran out while an attention was prepared.";
        return sdpa.options.diagnostics.fail(error.GpuFailed, sentence, .{});
    }
};
