//! `zig build cudnn-plans`: asks the real cuDNN how it would run operations on GPUs that are only
//! described (cuDNN 9.8 and newer), with the graphs that the product makes. Nothing is run.
//!
//!     cudnn-plans STUB_DRIVER DESCRIPTION.json...
//!
//! Reads lines of JSON, an operation of `op_trace.zig` each, with the factor of its product;
//! answers each with a line: for every GPU the engine, how many plans were made, and how many of
//! them were compiled. Before all, a line with cuDNN's version, or the sentence about its absence.

const std = @import("std");
const Io = std.Io;
const convolutions = @import("../backend/cuda/conv.zig");
const Engines = @import("../backend/cuda/cudnn_engines.zig").Engines;
const conv_graph = @import("../backend/cuda/conv/graph.zig");
const conv_plan = @import("../backend/cuda/conv/plan.zig");
const cudnn = @import("../nvidia/cudnn.zig");
const descriptors = @import("../nvidia/cudnn_descriptors.zig");
const dynamic = @import("../nvidia/dynamic.zig");
const libraries = @import("../nvidia/libraries.zig");
const measure = @import("../backend/cuda/measure.zig");
const Operation = @import("../backend/op_trace.zig").Operation;
const sdpa_graph = @import("../backend/cuda/sdpa_graph.zig");
const sdpas = @import("../backend/cuda/sdpa.zig");
const workspace_bytes = @import("../backend/cuda/library_handles.zig").workspace_bytes;

const line_bytes_max = 64 * 1024;
const gpu_count_max = 16;

const Question = struct { operation: Operation, scale: f32 = 1, bf16: bool = false };

/// Of one GPU.
const Answer = struct {
    /// "residual_first", ..., "sdpa"; "bare" where nothing is fused; "" where there is no plan.
    how: []const u8 = "",
    engine: []const u8 = "",
    plans: usize = 0,
    compiled: usize = 0,
    ms: f64 = 0,
};

pub fn main(init: std.process.Init) !void {
    const io = init.io;
    var in_buffer: [line_bytes_max]u8 = undefined;
    var out_buffer: [4096]u8 = undefined;
    var in = Io.File.stdin().readerStreaming(io, &in_buffer);
    var out = Io.File.stdout().writerStreaming(io, &out_buffer);
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    if (args.len < 3 or args.len - 2 > gpu_count_max) return error.WrongArguments;
    const arena = init.arena.allocator();
    // Before cuDNN, which finds it by its name among what is loaded.
    _ = dynamic.open(args[1]) orelse return error.StubDriverMissing;
    const found = try libraries.search(arena, io, .system, .ofProcess());
    const library = &(found.cudnn.table orelse {
        return say(&out.interface, .{ .@"error" = try found.cudnn.sentence(arena) });
    });
    try say(&out.interface, .{ .cudnn = found.cudnn.version });
    var gpus: [gpu_count_max]cudnn.Gpu = undefined;
    const gpu_count = args.len - 2;
    for (gpus[0..gpu_count], args[2..]) |*gpu, path| {
        const text = try Io.Dir.cwd().readFileAlloc(io, path, arena, .limited(line_bytes_max));
        gpu.* = .{ .description = try describe(library, try arena.dupeZ(u8, text)) };
    }
    while (true) {
        const line = in.interface.takeDelimiterInclusive('\n') catch |err| switch (err) {
            error.EndOfStream => return,
            else => return err,
        };
        var turn: std.heap.ArenaAllocator = .init(init.gpa);
        defer turn.deinit();
        const question = try std.json.parseFromSliceLeaky(Question, turn.allocator(), line, .{});
        const answers = try turn.allocator().alloc(Answer, gpu_count);
        for (answers, gpus[0..gpu_count]) |*answer, gpu| {
            const start = Io.Timestamp.now(io, .awake).toNanoseconds();
            answer.* = try ask(turn.allocator(), library, gpu, question);
            const end = Io.Timestamp.now(io, .awake).toNanoseconds();
            answer.ms = @as(f64, @floatFromInt(end - start)) / std.time.ns_per_ms;
        }
        try say(&out.interface, answers);
    }
}

// --- internal ---

fn say(w: *Io.Writer, value: anytype) !void {
    try std.json.Stringify.value(value, .{}, w);
    try w.writeByte('\n');
    try w.flush();
}

fn describe(library: *const cudnn.Cudnn, json: [:0]const u8) descriptors.Error!cudnn.Descriptor {
    const description = try descriptors.createAlone(library, .deviceprop);
    const bytes = json[0 .. json.len + 1];
    try descriptors.set(library, description, .deviceprop_json_representation, .char, bytes);
    try descriptors.finalize(library, description);
    return description;
}

/// As `conv/plan.zig` does it on a GPU, where it may measure.
fn ask(
    arena: std.mem.Allocator,
    library: *const cudnn.Cudnn,
    gpu: cudnn.Gpu,
    question: Question,
) error{ OutOfMemory, NotPlanned }!Answer {
    if (question.operation.op == .attention) return attentionPlans(arena, library, gpu, question);
    if (question.operation.op != .conv2d) return error.NotPlanned;
    const problem: conv_plan.Problem = .of(convolutionOf(question));
    for (problem.orders()) |order| {
        const how = @tagName(order);
        if (try plansOf(arena, library, gpu, problem, order, how)) |answer| return answer;
    }
    return try plansOf(arena, library, gpu, problem.bare(), .residual_last, "bare") orelse .{};
}

fn plansOf(
    arena: std.mem.Allocator,
    library: *const cudnn.Cudnn,
    gpu: cudnn.Gpu,
    problem: conv_plan.Problem,
    order: conv_plan.Order,
    how: []const u8,
) error{OutOfMemory}!?Answer {
    var graph = conv_graph.Graph.init(library, gpu, problem, order) catch return null;
    defer graph.deinit();
    var engines: Engines = .{ .library = library, .gpu = gpu };
    defer engines.deinit();
    engines.find(graph.graph, workspace_bytes, null, measure.alternatives_max) catch return null;
    return .{
        .how = how,
        .engine = try arena.dupe(u8, engines.nameOf(0)),
        .plans = engines.count,
        .compiled = engines.compiled_count,
    };
}

fn attentionPlans(
    arena: std.mem.Allocator,
    library: *const cudnn.Cudnn,
    gpu: cudnn.Gpu,
    question: Question,
) error{OutOfMemory}!Answer {
    const o = question.operation;
    const problem: sdpas.Problem = .{
        .batch = o.batch,
        .heads = o.heads,
        .head_size = o.in / o.heads,
        .queries = o.rows * o.width,
        .keys = o.keys / o.chunks,
        .dtype = if (question.bf16) .bf16 else .f16,
        .q_stride = o.in,
        .kv_stride = 2 * o.in,
        .has_statistics = o.chunks > 1,
    };
    var graph = sdpa_graph.Graph.init(library, gpu, problem) catch return .{};
    defer graph.deinit();
    var engines: Engines = .{ .library = library, .gpu = gpu };
    defer engines.deinit();
    // As `sdpa.zig`: the first is taken.
    engines.find(graph.graph, workspace_bytes, null, 1) catch return .{};
    return .{
        .how = "sdpa",
        .engine = try arena.dupe(u8, engines.nameOf(0)),
        .plans = engines.count,
        .compiled = engines.compiled_count,
    };
}

/// Addresses are not looked at, but for whether they are there.
fn convolutionOf(question: Question) convolutions.Call {
    const o = question.operation;
    return .{
        .batch = o.batch,
        .rows = o.rows,
        .width = o.width,
        .channels = o.in,
        .out_channels = o.out,
        .kernel = o.kernel,
        .stride = o.stride,
        .padding = o.padding,
        .dtype = if (question.bf16) .bf16 else .f16,
        .out = 1 << 12,
        .x = 2 << 12,
        .w = 3 << 12,
        .bias = if (o.bias) 4 << 12 else 0,
        .residual = if (o.residual) 5 << 12 else 0,
        .scale = question.scale,
    };
}
