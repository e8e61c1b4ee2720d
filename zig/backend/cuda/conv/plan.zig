//! One problem of cuDNN: its operation graph, the engine that runs it, and the pack of addresses.
//! The graph is the convolution and what follows it, never stored between, in an `Order`.

const std = @import("std");
const DType = @import("../../../tensor.zig").DType;
const convolutions = @import("../conv.zig");
const cudnn = @import("../../../nvidia/cudnn.zig");
const cudnn_engines = @import("../cudnn_engines.zig");
const drivers = @import("../../../nvidia/driver.zig");
const graphs = @import("graph.zig");
const measure = @import("../measure.zig");
const Call = convolutions.Call;
const Descriptor = cudnn.Descriptor;
const Options = convolutions.Options;

pub const MakeError = error{ Refused, OutOfMemory, Cancelled, GpuFailed };

/// The order of the sums after the convolution. For the first, cuDNN has precompiled kernels where
/// there are a bias and a residual; for the second it compiles one when a plan is made.
pub const Order = enum {
    /// scale * (x conv w) + residual, then + bias
    residual_first,
    /// (x conv w) * scale, then + bias, then + residual
    residual_last,
};

/// What an engine depends on: everything but addresses. The scale is a constant of the graph.
pub const Problem = struct {
    batch: u32,
    rows: u32,
    width: u32,
    channels: u32,
    out_channels: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    dtype: DType,
    has_bias: bool,
    has_residual: bool,
    /// Of an f32.
    scale_bits: u32,

    pub fn of(call: Call) Problem {
        return .{
            .batch = call.batch,
            .rows = call.rows,
            .width = call.width,
            .channels = call.channels,
            .out_channels = call.out_channels,
            .kernel = call.kernel,
            .stride = call.stride,
            .padding = call.padding,
            .dtype = call.dtype,
            .has_bias = call.bias != 0,
            .has_residual = call.residual != 0,
            .scale_bits = @bitCast(call.scale),
        };
    }

    pub fn scale(p: Problem) f32 {
        return @bitCast(p.scale_bits);
    }

    /// Whether nothing is added.
    pub fn isBare(p: Problem) bool {
        return !p.has_bias and !p.has_residual;
    }

    /// Orders of its sums, the one with the better kernels first.
    pub fn orders(p: Problem) []const Order {
        if (p.has_bias and p.has_residual) return &.{ .residual_first, .residual_last };
        return &.{.residual_last};
    }

    /// The scaled convolution alone.
    pub fn bare(p: Problem) Problem {
        var other = p;
        other.has_bias = false;
        other.has_residual = false;
        return other;
    }

    /// Its name in the cache file.
    fn write(p: Problem, order: Order, buffer: []u8) []const u8 {
        return std.fmt.bufPrint(buffer, "{s} {d}x{d}x{d}x{d} {d} k{d} s{d} p{d}{s}{s} {d}", .{
            @tagName(p.dtype),
            p.batch,
            p.rows,
            p.width,
            p.channels,
            p.out_channels,
            p.kernel,
            p.stride,
            p.padding,
            if (p.has_bias) " bias" else "",
            if (!p.has_residual) "" else switch (order) {
                .residual_first => " residual-first",
                .residual_last => " residual",
            },
            p.scale(),
        }) catch unreachable; // Ten numbers fit 256 bytes.
    }
};

/// Never moves: the pack points into it.
pub const Plan = struct {
    graph: graphs.Graph,
    /// An execution plan of the library.
    plan: Descriptor,
    workspace_bytes: usize,
    is_fused: bool = true,
    /// What it was last run with; most layers come back with the same addresses.
    pack: ?Descriptor = null,
    packed_call: Call = undefined,

    pub fn deinit(plan: *Plan, library: *const cudnn.Cudnn) void {
        if (plan.pack) |pack| _ = library.cudnnBackendDestroyDescriptor(pack);
        _ = library.cudnnBackendDestroyDescriptor(plan.plan);
        plan.graph.deinit();
    }

    pub fn run(
        plan: *Plan,
        options: *const Options,
        handle: cudnn.Handle,
        call: Call,
    ) error{Refused}!void {
        const library = options.library;
        if (plan.pack == null or !std.meta.eql(call, plan.packed_call)) {
            if (plan.pack) |pack| _ = library.cudnnBackendDestroyDescriptor(pack);
            plan.pack = null;
            plan.packed_call = call;
            const packed_call = &plan.packed_call;
            const graph = &plan.graph;
            const workspace = options.workspace;
            plan.pack =
                try graphs.pack(library, graph.problem, graph.order, packed_call, workspace);
        }
        const status = library.cudnnBackendExecute(handle, plan.plan, plan.pack.?);
        try library.expect(.cudnnBackendExecute, status);
    }
};

/// Describes the problem to the library and decides on its engine: fused, else the bare
/// convolution, which is scaled before its result is rounded.
pub fn make(
    options: *const Options,
    handle: cudnn.Handle,
    stream: drivers.Stream,
    problem: Problem,
    call: Call,
) MakeError!Plan {
    for (problem.orders()) |order| {
        if (makeOne(options, handle, stream, problem, order, call)) |plan| return plan else |err| {
            if (err != error.Refused or problem.isBare()) return err;
        }
    }
    var bare_call = call;
    bare_call.bias = 0;
    bare_call.residual = 0;
    var plan = try makeOne(options, handle, stream, problem.bare(), .residual_last, bare_call);
    plan.is_fused = false;
    return plan;
}

// --- internal ---

fn makeOne(
    options: *const Options,
    handle: cudnn.Handle,
    stream: drivers.Stream,
    problem: Problem,
    order: Order,
    call: Call,
) MakeError!Plan {
    const library = options.library;
    var graph = try graphs.Graph.init(library, .{ .handle = handle }, problem, order);
    errdefer graph.deinit();
    var name_buffer: [256]u8 = undefined;
    const name = problem.write(order, &name_buffer);
    const is_open = options.may_measure and !measure.isCapturing(options.driver, stream);
    const probe = if (is_open) probeOf(options, call) else null;
    var engines: cudnn_engines.Engines = .{
        .library = library,
        .gpu = .{ .handle = handle },
    };
    defer engines.deinit();
    const wanted = options.algorithms.get(name);
    // One that will do is enough unless there is a contest.
    const most: usize = if (probe != null) measure.alternatives_max else 1;
    try engines.find(graph.graph, options.workspace_bytes, wanted, most);
    var best: usize = 0;
    if (engines.count > 1 and !engines.is_wanted) if (probe) |repeatable| {
        var runner: Runner = .{
            .graph = &graph,
            .engines = &engines,
            .options = &repeatable.options,
            .handle = handle,
            .call = repeatable.call,
        };
        best = try measure.fastest(options.driver, stream, options.waits, &runner, engines.count);
    };
    if (probe != null and !engines.is_wanted) {
        try options.algorithms.put(name, engines.nameOf(best));
    }
    return .{
        .graph = graph,
        .workspace_bytes = engines.workspaces[best],
        .plan = engines.take(best),
    };
}

const Runner = struct {
    graph: *const graphs.Graph,
    engines: *const cudnn_engines.Engines,
    options: *const Options,
    handle: cudnn.Handle,
    call: Call,

    pub fn run(runner: *Runner, index: usize) bool {
        if (runner.engines.workspaces[index] > runner.options.workspace_bytes) return false;
        const library = runner.options.library;
        const problem = runner.graph.problem;
        const workspace = runner.options.workspace;
        const order = runner.graph.order;
        const pack = graphs.pack(library, problem, order, &runner.call, workspace) catch {
            return false;
        };
        defer _ = library.cudnnBackendDestroyDescriptor(pack);
        const plan = runner.engines.plans[index];
        return library.cudnnBackendExecute(runner.handle, plan, pack) == .success;
    }
};

/// The call as it may be repeated: one that would add to its own residual again and again writes to
/// the workspace's end instead, or is not measured where that is too small.
fn probeOf(options: *const Options, call: Call) ?struct { options: Options, call: Call } {
    if (call.residual != call.out) return .{ .options = options.*, .call = call };
    const positions = @as(usize, call.batch) * call.rowsOut() * call.widthOut();
    const bytes = std.mem.alignForward(usize, positions * call.out_channels * 2, 256);
    if (bytes > options.workspace_bytes) return null;
    var apart: Options = options.*;
    apart.workspace_bytes = (apart.workspace_bytes - bytes) & ~@as(usize, 255);
    var other = call;
    other.out = apart.workspace + apart.workspace_bytes;
    return .{ .options = apart, .call = other };
}
