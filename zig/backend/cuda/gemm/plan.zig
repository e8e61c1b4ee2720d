//! One problem of cuBLASLt: its descriptors and its algorithm. cuBLASLt counts columns first, so
//! what it is told is the transposed product: out^T (n, m) = w (n, k) * x^T (k, m), where a
//! row-major matrix read by columns is its own transpose.

const std = @import("std");
const DType = @import("../../../tensor.zig").DType;
const lt = @import("../../../nvidia/cublaslt.zig");
const drivers = @import("../../../nvidia/driver.zig");
const matmuls = @import("../gemm.zig");
const measure = @import("../measure.zig");
const Call = matmuls.Call;
const Options = matmuls.Options;

/// What an algorithm depends on: everything but addresses, of which the alignment counts.
pub const Problem = struct {
    m: u32,
    n: u32,
    k: u32,
    input: DType,
    output: DType,
    strides: [4]u64,
    /// Of w, x, residual and out.
    alignments: [4]u16,
    is_in_out: bool,
    has_bias: bool,
    has_residual: bool,
    activation: matmuls.Activation,
    batch_count: u32,
    steps: [4]u64,

    /// Of a call that has all its strides.
    pub fn of(call: Call) Problem {
        const batch: matmuls.Batch = call.batch orelse
            .{ .count = 1, .x_step = 0, .w_step = 0, .out_step = 0 };
        const residual = if (call.residual != 0) call.residual else call.out;
        return .{
            .m = call.m,
            .n = call.n,
            .k = call.k,
            .input = call.input,
            .output = call.output,
            .strides = .{
                call.w_stride,
                call.x_stride,
                if (call.residual != 0) call.residual_stride else call.out_stride,
                call.out_stride,
            },
            .alignments = .{
                measure.alignmentOf(call.w),
                measure.alignmentOf(call.x),
                measure.alignmentOf(residual),
                measure.alignmentOf(call.out),
            },
            .is_in_out = call.w_order == .in_out,
            .has_bias = call.bias != 0,
            .has_residual = call.residual != 0,
            .activation = call.activation,
            .batch_count = batch.count,
            .steps = .{
                batch.w_step,
                batch.x_step,
                if (call.residual != 0) batch.residual_step else batch.out_step,
                batch.out_step,
            },
        };
    }

    /// Its name in the cache file.
    fn write(p: *const Problem, buffer: []u8) []const u8 {
        return std.fmt.bufPrint(buffer, "{s} {s} {d}x{d}x{d} {any} {any} {s}{s}{s}{s} {d} {any}", .{
            @tagName(p.input),
            @tagName(p.output),
            p.m,
            p.n,
            p.k,
            p.strides,
            p.alignments,
            if (p.is_in_out) "kn" else "nk",
            if (p.has_bias) " bias" else "",
            if (p.has_residual) " residual" else "",
            if (p.activation == .gelu_tanh) " gelu" else "",
            p.batch_count,
            p.steps,
        }) catch unreachable; // Seventeen numbers fit 1024 bytes.
    }
};

pub const Plan = struct {
    desc: lt.Desc,
    /// Of w, x, residual and out.
    layouts: [4]lt.Layout,
    algo: lt.Algo,

    pub fn deinit(plan: *Plan, library: *const lt.CublasLt) void {
        for (plan.layouts) |layout| _ = library.cublasLtMatrixLayoutDestroy(layout);
        _ = library.cublasLtMatmulDescDestroy(plan.desc);
    }

    pub fn run(
        plan: *Plan,
        options: *const Options,
        handle: lt.Handle,
        stream: drivers.Stream,
        call: Call,
        algo: *const lt.Algo,
    ) error{Refused}!void {
        const library = options.library;
        if (call.bias != 0) try setDesc(library, plan.desc, .bias_pointer, call.bias);
        const alpha, const beta = factors(call);
        const status = library.cublasLtMatmul(
            handle,
            plan.desc,
            &alpha,
            call.w,
            plan.layouts[0],
            call.x,
            plan.layouts[1],
            &beta,
            if (call.residual != 0) call.residual else call.out,
            plan.layouts[2],
            call.out,
            plan.layouts[3],
            algo,
            options.workspace,
            options.workspace_bytes,
            stream,
        );
        try library.expect(.cublasLtMatmul, status);
    }
};

pub const MakeError = error{ Refused, OutOfMemory, Cancelled, GpuFailed };

/// Algorithms to choose from: the library's ranking is a guess. Each costs a first image about a
/// millisecond, once.
const alternatives_max = 24;

/// Describes the problem to the library and decides on its algorithm.
pub fn make(
    options: *const Options,
    handle: lt.Handle,
    stream: drivers.Stream,
    problem: Problem,
    call: Call,
) MakeError!Plan {
    const library = options.library;
    var plan: Plan = undefined;
    plan.desc = try makeDesc(library, &problem);
    errdefer _ = library.cublasLtMatmulDescDestroy(plan.desc);
    var made: usize = 0;
    errdefer for (plan.layouts[0..made]) |layout| {
        _ = library.cublasLtMatrixLayoutDestroy(layout);
    };
    while (made < plan.layouts.len) : (made += 1) {
        plan.layouts[made] = try makeLayout(library, &problem, made);
    }
    var name_buffer: [1024]u8 = undefined;
    const name = problem.write(&name_buffer);
    if (known(options, handle, &plan, name)) |algo| {
        plan.algo = algo;
        return plan;
    }
    var results: [alternatives_max]lt.HeuristicResult = undefined;
    const usable = try heuristics(options, handle, &plan, &problem, &results);
    plan.algo = usable[0].algo;
    if (!options.may_measure or measure.isCapturing(options.driver, stream)) return plan;
    const probe = probeOf(options, call) orelse return plan;
    const runner: Runner = .{
        .plan = &plan,
        .options = &probe.options,
        .handle = handle,
        .stream = stream,
        .call = probe.call,
        .results = usable,
    };
    const best = try measure.fastest(
        options.driver,
        stream,
        options.waits,
        runner,
        usable.len,
    );
    plan.algo = usable[best].algo;
    var choice_buffer: [8 * 17]u8 = undefined;
    try options.algorithms.put(name, writeAlgo(&plan.algo, &choice_buffer));
    // Another rank may have been first: all take the same.
    if (known(options, handle, &plan, name)) |algo| plan.algo = algo;
    return plan;
}

// --- internal ---

/// The library's alpha and beta, as bits of f32, or int32 for sums of integers.
fn factors(call: Call) [2]u32 {
    if (call.input == .i8) return .{ 1, 0 };
    const beta: f32 = if (call.residual != 0) 1 else 0;
    return .{ @bitCast(call.scale), @bitCast(beta) };
}

fn makeDesc(library: *const lt.CublasLt, problem: *const Problem) MakeError!lt.Desc {
    var desc: ?lt.Desc = null;
    const in_int8 = problem.input == .i8;
    const compute: lt.ComputeType = if (in_int8) .i32 else .f32;
    const status = library.cublasLtMatmulDescCreate(&desc, compute, if (in_int8) .i32 else .f32);
    try library.expect(.cublasLtMatmulDescCreate, status);
    errdefer _ = library.cublasLtMatmulDescDestroy(desc.?);
    const w_operation: lt.Operation = if (problem.is_in_out) .none else .transpose;
    const epilogue: lt.Epilogue = switch (problem.activation) {
        .none => if (problem.has_bias) .bias else .default,
        .gelu_tanh => if (problem.has_bias) .gelu_bias else .gelu,
    };
    try setDesc(library, desc.?, .transa, w_operation);
    try setDesc(library, desc.?, .transb, lt.Operation.none);
    try setDesc(library, desc.?, .epilogue, epilogue);
    return desc.?;
}

fn makeLayout(library: *const lt.CublasLt, p: *const Problem, which: usize) MakeError!lt.Layout {
    const is_input = which < 2;
    const rows: u64, const columns: u64 = switch (which) {
        0 => if (p.is_in_out) .{ p.n, p.k } else .{ p.k, p.n },
        1 => .{ p.k, p.m },
        else => .{ p.n, p.m },
    };
    var layout: ?lt.Layout = null;
    const dtype = dataType(if (is_input) p.input else p.output);
    const stride: i64 = @intCast(p.strides[which]);
    const status = library.cublasLtMatrixLayoutCreate(&layout, dtype, rows, columns, stride);
    try library.expect(.cublasLtMatrixLayoutCreate, status);
    errdefer _ = library.cublasLtMatrixLayoutDestroy(layout.?);
    if (p.batch_count > 1) {
        const count: i32 = @intCast(p.batch_count);
        const step: i64 = @intCast(p.steps[which]);
        const set = library.cublasLtMatrixLayoutSetAttribute;
        for ([_]lt.Status{
            set(layout.?, .batch_count, &count, @sizeOf(i32)),
            set(layout.?, .strided_batch_offset, &step, @sizeOf(i64)),
        }) |result| try library.expect(.cublasLtMatrixLayoutSetAttribute, result);
    }
    return layout.?;
}

/// What an earlier run chose, if the library still takes it.
fn known(
    options: *const Options,
    handle: lt.Handle,
    plan: *const Plan,
    name: []const u8,
) ?lt.Algo {
    const algo = readAlgo(options.algorithms.get(name) orelse return null) orelse return null;
    var result: lt.HeuristicResult = undefined;
    const l = &plan.layouts;
    const status = options.library.cublasLtMatmulAlgoCheck(
        handle,
        plan.desc,
        l[0],
        l[1],
        l[2],
        l[3],
        &algo,
        &result,
    );
    if (status != .success or result.workspace_size > options.workspace_bytes) return null;
    return algo;
}

/// The library's own ranking, likely ones first; at least one.
fn heuristics(
    options: *const Options,
    handle: lt.Handle,
    plan: *const Plan,
    problem: *const Problem,
    results: *[alternatives_max]lt.HeuristicResult,
) MakeError![]lt.HeuristicResult {
    const library = options.library;
    var preference: ?lt.Preference = null;
    const created = library.cublasLtMatmulPreferenceCreate(&preference);
    try library.expect(.cublasLtMatmulPreferenceCreate, created);
    defer _ = library.cublasLtMatmulPreferenceDestroy(preference.?);
    const set = library.cublasLtMatmulPreferenceSetAttribute;
    const workspace_bytes: u64 = options.workspace_bytes;
    // Parts of a sum are added up in f32 or not parted at all: in the output's own 16 bits they
    // would round each time.
    const reductions: u32 = lt.reduction_compute_type;
    for ([_]lt.Status{
        set(preference.?, .max_workspace_bytes, &workspace_bytes, @sizeOf(u64)),
        set(preference.?, .reduction_scheme_mask, &reductions, @sizeOf(u32)),
    }) |result| try library.expect(.cublasLtMatmulPreferenceSetAttribute, result);
    for ([_]lt.PreferenceAttribute{
        .min_alignment_a_bytes,
        .min_alignment_b_bytes,
        .min_alignment_c_bytes,
        .min_alignment_d_bytes,
    }, problem.alignments) |attribute, alignment| {
        const bytes: u32 = alignment;
        const result = set(preference.?, attribute, &bytes, @sizeOf(u32));
        try library.expect(.cublasLtMatmulPreferenceSetAttribute, result);
    }
    const l = &plan.layouts;
    var count: c_int = 0;
    const status = library.cublasLtMatmulAlgoGetHeuristic(
        handle,
        plan.desc,
        l[0],
        l[1],
        l[2],
        l[3],
        preference.?,
        results.len,
        results,
        &count,
    );
    try library.expect(.cublasLtMatmulAlgoGetHeuristic, status);
    var usable: usize = 0;
    for (results[0..@intCast(count)]) |result| {
        if (result.state != .success) continue;
        results[usable] = result;
        usable += 1;
    }
    if (usable == 0) try library.expect(.cublasLtMatmulAlgoGetHeuristic, .not_supported);
    return results[0..usable];
}

const Runner = struct {
    plan: *Plan,
    options: *const Options,
    handle: lt.Handle,
    stream: drivers.Stream,
    call: Call,
    results: []const lt.HeuristicResult,

    pub fn run(runner: Runner, index: usize) bool {
        const result = &runner.results[index];
        if (result.workspace_size > runner.options.workspace_bytes) return false;
        const plan = runner.plan;
        const stream = runner.stream;
        plan.run(runner.options, runner.handle, stream, runner.call, &result.algo) catch {
            return false;
        };
        return true;
    }
};

/// The call as it may be repeated: what would add to its own residual again and again writes to the
/// workspace's end instead, or is not measured where that is too small.
fn probeOf(options: *const Options, call: Call) ?struct { options: Options, call: Call } {
    if (call.residual == 0) return .{ .options = options.*, .call = call };
    const rows: u64 = call.m - 1;
    var elements = rows * call.out_stride + call.n;
    if (call.batch) |batch| elements += (batch.count - 1) * batch.out_step;
    const bytes = std.mem.alignForward(u64, elements * call.output.size(), 256);
    if (bytes > options.workspace_bytes) return null;
    var apart: Options = options.*;
    apart.workspace_bytes -= bytes;
    apart.workspace_bytes &= ~@as(usize, 255);
    var other = call;
    other.out = apart.workspace + apart.workspace_bytes;
    return .{ .options = apart, .call = other };
}

fn setDesc(
    library: *const lt.CublasLt,
    desc: lt.Desc,
    attribute: lt.DescAttribute,
    value: anytype,
) error{Refused}!void {
    const set = library.cublasLtMatmulDescSetAttribute;
    const status = set(desc, attribute, &value, @sizeOf(@TypeOf(value)));
    try library.expect(.cublasLtMatmulDescSetAttribute, status);
}

fn dataType(dtype: DType) lt.DataType {
    return switch (dtype) {
        .f16 => .f16,
        .bf16 => .bf16,
        .f32 => .f32,
        .i8 => .i8,
        .i32 => .i32,
        else => unreachable, // `Matmul.run` checks.
    };
}

fn writeAlgo(algo: *const lt.Algo, buffer: *[8 * 17]u8) []const u8 {
    for (algo.data, 0..) |word, i| {
        _ = std.fmt.bufPrint(buffer[i * 17 ..], "{x:0>16} ", .{word}) catch unreachable;
    }
    return buffer[0 .. buffer.len - 1];
}

fn readAlgo(text: []const u8) ?lt.Algo {
    var algo: lt.Algo = undefined;
    var words = std.mem.splitScalar(u8, text, ' ');
    for (&algo.data) |*word| {
        word.* = std.fmt.parseInt(u64, words.next() orelse return null, 16) catch return null;
    }
    return if (words.next() == null) algo else null;
}

test "an algorithm survives being written" {
    const algo: lt.Algo = .{ .data = .{ 1, 2, 3, std.math.maxInt(u64), 5, 6, 7, 0xabc } };
    var buffer: [8 * 17]u8 = undefined;
    const text = writeAlgo(&algo, &buffer);
    try std.testing.expectEqual(algo, readAlgo(text).?);
    try std.testing.expectEqual(@as(?lt.Algo, null), readAlgo(text[0..40]));
    try std.testing.expectEqual(@as(?lt.Algo, null), readAlgo("x"));
}

test "cuBLASLt itself takes every descriptor and layout, where it is installed" {
    const libraries = @import("../../../nvidia/libraries.zig");
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const found = try libraries.search(arena.allocator(), std.testing.io, .system, .ofProcess());
    const library = &(found.cublaslt.table orelse return error.SkipZigTest);
    for (0..8) |extras| {
        const problem: Problem = .of(.{
            .m = 4096,
            .n = 640,
            .k = 320,
            .input = .bf16,
            .output = .bf16,
            .out = 0x1000,
            .out_stride = 640,
            .x = 0x2000,
            .x_stride = 320,
            .w = 0x3000,
            .w_stride = 640,
            .w_order = if (extras & 1 != 0) .in_out else .out_in,
            .bias = if (extras & 2 != 0) 0x4000 else 0,
            .activation = if (extras & 4 != 0) .gelu_tanh else .none,
            .batch = .{ .count = 3, .x_step = 8, .w_step = 0, .out_step = 640 * 4096 },
        });
        const desc = try makeDesc(library, &problem);
        _ = library.cublasLtMatmulDescDestroy(desc);
        for (0..4) |which| {
            const layout = try makeLayout(library, &problem, which);
            _ = library.cublasLtMatrixLayoutDestroy(layout);
        }
    }
}
