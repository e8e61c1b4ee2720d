//! cuDNN's descriptors for one convolution: tensors, operations, the graph of them, and the pack of
//! addresses. Dimensions go by cuDNN's order (batch, channels, rows, width); the strides say that
//! channels lie innermost.

const std = @import("std");
const convolutions = @import("../conv.zig");
const cudnn = @import("../../../nvidia/cudnn.zig");
const descriptors = @import("../../../nvidia/cudnn_descriptors.zig");
const plans = @import("plan.zig");
const Cudnn = cudnn.Cudnn;
const Descriptor = cudnn.Descriptor;
const Error = descriptors.Error;
const Parts = descriptors.Parts;
const Problem = plans.Problem;
const finalize = descriptors.finalize;
const set = descriptors.set;

/// Names of tensors, for the pack of addresses; virtual ones count on from `virtual`.
const Id = enum(i64) { x = 1, w, out, bias, residual, scale, virtual };
const operation_count_max = 4;

pub const Graph = struct {
    problem: Problem,
    order: plans.Order,
    graph: Descriptor,
    parts: Parts,

    pub fn init(
        library: *const Cudnn,
        gpu: cudnn.Gpu,
        problem: Problem,
        order: plans.Order,
    ) Error!Graph {
        var parts: Parts = .{ .library = library };
        errdefer parts.deinit();
        var operations: [operation_count_max]Descriptor = undefined;
        const count = try describe(&parts, problem, order, &operations);
        const graph = try descriptors.createGraph(&parts, gpu, operations[0..count]);
        return .{ .problem = problem, .order = order, .graph = graph, .parts = parts };
    }

    pub fn deinit(graph: *Graph) void {
        graph.parts.deinit();
    }
};

/// The addresses of one run, the caller's to destroy; `call` must outlive it.
pub fn pack(
    library: *const Cudnn,
    problem: Problem,
    order: plans.Order,
    call: *const convolutions.Call,
    workspace: usize,
) Error!Descriptor {
    // By value: read from host memory when the graph is run.
    const scale_address = if (multiplies(problem, order)) @intFromPtr(&call.scale) else 0;
    const residual = if (problem.has_residual) call.residual else 0;
    return descriptors.createPack(library, 6, .{
        .{ .id = @intFromEnum(Id.x), .address = call.x },
        .{ .id = @intFromEnum(Id.w), .address = call.w },
        .{ .id = @intFromEnum(Id.out), .address = call.out },
        .{ .id = @intFromEnum(Id.bias), .address = if (problem.has_bias) call.bias else 0 },
        .{ .id = @intFromEnum(Id.residual), .address = residual },
        .{ .id = @intFromEnum(Id.scale), .address = scale_address },
    }, workspace);
}

// --- internal ---

/// Whether the scale is an operation of its own, and not a constant of another.
fn multiplies(p: Problem, order: plans.Order) bool {
    return order == .residual_last and !p.isBare() and p.scale() != 1;
}

/// The operations of a problem, in order; returns how many.
fn describe(
    parts: *Parts,
    p: Problem,
    order: plans.Order,
    operations: *[operation_count_max]Descriptor,
) Error!usize {
    const dtype = dataType(p);
    const out_dimensions = outDimensions(p);
    const x_dimensions = [4]i64{ p.batch, p.channels, p.rows, p.width };
    const w_dimensions = [4]i64{ p.out_channels, p.channels, p.kernel, p.kernel };
    const x = try tensor(parts, @intFromEnum(Id.x), dtype, x_dimensions, .stored);
    const w = try tensor(parts, @intFromEnum(Id.w), dtype, w_dimensions, .stored);
    var addends: [3]Addend = undefined;
    const after_count = listAddends(p, order, &addends);
    // Between operations values are f32 and never leave the kernel; the last one is stored.
    var results: [operation_count_max]Descriptor = undefined;
    for (results[0 .. after_count + 1], 0..) |*result, i| {
        const id = @intFromEnum(Id.virtual) + @as(i64, @intCast(i));
        result.* = if (i < after_count)
            try tensor(parts, id, .f32, out_dimensions, .virtual)
        else
            try tensor(parts, @intFromEnum(Id.out), dtype, out_dimensions, .stored);
    }
    const alpha = if (p.isBare()) p.scale() else 1;
    operations[0] = try convolution(parts, p, alpha, x, w, results[0]);
    for (addends[0..after_count], 1..) |addend, i| {
        const mode: cudnn.PointwiseMode = if (addend == .scale) .mul else .add;
        const is_scaled = order == .residual_first and addend == .residual;
        operations[i] = try pointwise(
            parts,
            mode,
            if (is_scaled) p.scale() else 1,
            results[i - 1],
            try addend.tensorOf(parts, p),
            results[i],
        );
    }
    return 1 + after_count;
}

/// The second operand of an operation after the convolution.
const Addend = enum {
    scale,
    bias,
    residual,

    fn tensorOf(addend: Addend, parts: *Parts, p: Problem) Error!Descriptor {
        const dtype = dataType(p);
        return switch (addend) {
            .scale => tensor(parts, @intFromEnum(Id.scale), .f32, .{ 1, 1, 1, 1 }, .by_value),
            .bias => tensor(
                parts,
                @intFromEnum(Id.bias),
                dtype,
                .{ 1, p.out_channels, 1, 1 },
                .stored,
            ),
            .residual => tensor(
                parts,
                @intFromEnum(Id.residual),
                dtype,
                outDimensions(p),
                .stored,
            ),
        };
    }
};

fn listAddends(p: Problem, order: plans.Order, list: *[3]Addend) usize {
    const residual_first = [_]Addend{ .residual, .bias };
    const residual_last = [_]Addend{ .scale, .bias, .residual };
    const all: []const Addend = switch (order) {
        .residual_first => &residual_first,
        .residual_last => &residual_last,
    };
    var count: usize = 0;
    for (all) |addend| {
        const is_there = switch (addend) {
            .scale => multiplies(p, order),
            .bias => p.has_bias,
            .residual => p.has_residual,
        };
        if (!is_there) continue;
        list[count] = addend;
        count += 1;
    }
    return count;
}

fn dataType(p: Problem) cudnn.DataType {
    return if (p.dtype == .bf16) .bf16 else .f16;
}

fn outDimensions(p: Problem) [4]i64 {
    const rows = (p.rows + 2 * p.padding - p.kernel) / p.stride + 1;
    const width = (p.width + 2 * p.padding - p.kernel) / p.stride + 1;
    return .{ p.batch, p.out_channels, rows, width };
}

/// `dimensions` by (batch, channels, rows, width).
fn tensor(
    parts: *Parts,
    id: i64,
    dtype: cudnn.DataType,
    dimensions: [4]i64,
    storage: descriptors.Storage,
) Error!Descriptor {
    const c = dimensions[1];
    const width = dimensions[3];
    const strides = [4]i64{ c * dimensions[2] * width, 1, c * width, c };
    return descriptors.createTensor(parts, id, dtype, dimensions, strides, storage);
}

/// `y = alpha * a op b`
fn pointwise(
    parts: *Parts,
    mode: cudnn.PointwiseMode,
    alpha: f32,
    a: Descriptor,
    b: Descriptor,
    y: Descriptor,
) Error!Descriptor {
    const library = parts.library;
    const kind = try parts.create(.pointwise);
    try set(library, kind, .pointwise_mode, .pointwise_mode, &[_]cudnn.PointwiseMode{mode});
    try set(library, kind, .pointwise_math_prec, .data_type, &[_]cudnn.DataType{.f32});
    try finalize(library, kind);
    const operation = try parts.create(.operation_pointwise);
    for ([_]cudnn.Attribute{
        .operation_pointwise_pw_descriptor,
        .operation_pointwise_xdesc,
        .operation_pointwise_bdesc,
        .operation_pointwise_ydesc,
    }, [_]Descriptor{ kind, a, b, y }) |attribute, descriptor| {
        try set(library, operation, attribute, .backend_descriptor, &[_]Descriptor{descriptor});
    }
    if (alpha != 1) {
        try set(library, operation, .operation_pointwise_alpha1, .float, &[_]f32{alpha});
    }
    try finalize(library, operation);
    return operation;
}

/// `y = alpha * (x conv w)`
fn convolution(
    parts: *Parts,
    p: Problem,
    alpha: f32,
    x: Descriptor,
    w: Descriptor,
    y: Descriptor,
) Error!Descriptor {
    const library = parts.library;
    const kind = try parts.create(.convolution);
    const padding: i64 = p.padding;
    const stride: i64 = p.stride;
    const mode = [_]cudnn.ConvolutionMode{.cross_correlation};
    try set(library, kind, .convolution_comp_type, .data_type, &[_]cudnn.DataType{.f32});
    try set(library, kind, .convolution_conv_mode, .convolution_mode, &mode);
    try set(library, kind, .convolution_spatial_dims, .int64, &[_]i64{2});
    try set(library, kind, .convolution_pre_paddings, .int64, &[_]i64{ padding, padding });
    try set(library, kind, .convolution_post_paddings, .int64, &[_]i64{ padding, padding });
    try set(library, kind, .convolution_filter_strides, .int64, &[_]i64{ stride, stride });
    try set(library, kind, .convolution_dilations, .int64, &[_]i64{ 1, 1 });
    try finalize(library, kind);
    const operation = try parts.create(.operation_convolution_forward);
    for ([_]cudnn.Attribute{
        .operation_convolution_forward_conv_desc,
        .operation_convolution_forward_x,
        .operation_convolution_forward_w,
        .operation_convolution_forward_y,
    }, [_]Descriptor{ kind, x, w, y }) |attribute, descriptor| {
        try set(library, operation, attribute, .backend_descriptor, &[_]Descriptor{descriptor});
    }
    const zero = [_]f32{0};
    try set(library, operation, .operation_convolution_forward_alpha, .float, &[_]f32{alpha});
    try set(library, operation, .operation_convolution_forward_beta, .float, &zero);
    try finalize(library, operation);
    return operation;
}

test "cuDNN itself takes every tensor, operation and pack, where it is installed" {
    const libraries = @import("../../../nvidia/libraries.zig");
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const found = try libraries.search(arena.allocator(), std.testing.io, .system, .ofProcess());
    const library = &(found.cudnn.table orelse return error.SkipZigTest);
    for (0..8) |extras| for ([_]@FieldType(convolutions.Call, "dtype"){ .f16, .bf16 }) |dtype| {
        const call: convolutions.Call = .{
            .batch = 2,
            .rows = 128,
            .width = 96,
            .channels = 320,
            .out_channels = 640,
            .kernel = 3,
            .stride = 2,
            .padding = 1,
            .dtype = dtype,
            .out = 0x1000,
            .x = 0x2000,
            .w = 0x3000,
            .bias = if (extras & 1 != 0) 0x4000 else 0,
            .residual = if (extras & 2 != 0) 0x5000 else 0,
            .scale = if (extras & 4 != 0) 0.5 else 1,
        };
        const problem: Problem = .of(call);
        for (problem.orders()) |order| {
            var parts: Parts = .{ .library = library };
            defer parts.deinit();
            var operations: [operation_count_max]Descriptor = undefined;
            const count = try describe(&parts, problem, order, &operations);
            const sums = @as(usize, @intFromBool(problem.has_bias)) +
                @intFromBool(problem.has_residual) + @intFromBool(multiplies(problem, order));
            try std.testing.expectEqual(1 + sums, count);
            const addresses = try pack(library, problem, order, &call, 0x10000);
            _ = library.cudnnBackendDestroyDescriptor(addresses);
        }
    };
}
