//! cuDNN's descriptors for one attention: tensors by (batch, heads, positions, head size), the one
//! operation, and the pack of addresses.

const std = @import("std");
const cudnn = @import("../../nvidia/cudnn.zig");
const descriptors = @import("../../nvidia/cudnn_descriptors.zig");
const sdpas = @import("sdpa.zig");
const Cudnn = cudnn.Cudnn;
const Descriptor = cudnn.Descriptor;
const Error = descriptors.Error;
const Parts = descriptors.Parts;
const finalize = descriptors.finalize;
const set = descriptors.set;

/// Names of tensors, for the pack of addresses.
const Id = enum(i64) { q = 1, k, v, out, statistics, scale };

pub const Graph = struct {
    graph: Descriptor,
    parts: Parts,

    pub fn init(library: *const Cudnn, gpu: cudnn.Gpu, problem: sdpas.Problem) Error!Graph {
        var parts: Parts = .{ .library = library };
        errdefer parts.deinit();
        const operations = [_]Descriptor{try describe(&parts, problem)};
        const graph = try descriptors.createGraph(&parts, gpu, &operations);
        return .{ .graph = graph, .parts = parts };
    }

    pub fn deinit(graph: *Graph) void {
        graph.parts.deinit();
    }
};

/// The addresses of one run, the caller's to destroy; `call` must outlive it.
pub fn pack(library: *const Cudnn, call: *const sdpas.Call, workspace: usize) Error!Descriptor {
    // By value: read from host memory when the graph is run.
    const scale_address = @intFromPtr(&call.scale);
    return descriptors.createPack(library, 6, .{
        .{ .id = @intFromEnum(Id.q), .address = call.q },
        .{ .id = @intFromEnum(Id.k), .address = call.k },
        .{ .id = @intFromEnum(Id.v), .address = call.v },
        .{ .id = @intFromEnum(Id.out), .address = call.out },
        .{ .id = @intFromEnum(Id.statistics), .address = call.statistics },
        .{ .id = @intFromEnum(Id.scale), .address = scale_address },
    }, workspace);
}

// --- internal ---

fn describe(parts: *Parts, p: sdpas.Problem) Error!Descriptor {
    const library = parts.library;
    const dtype: cudnn.DataType = if (p.dtype == .bf16) .bf16 else .f16;
    const one = [4]i64{ 1, 1, 1, 1 };
    const q = try rows(parts, .q, dtype, p, p.queries, p.q_stride);
    const k = try rows(parts, .k, dtype, p, p.keys, p.kv_stride);
    const v = try rows(parts, .v, dtype, p, p.keys, p.kv_stride);
    const out = try rows(parts, .out, dtype, p, p.queries, p.heads * p.head_size);
    const scale = try tensor(parts, .scale, .f32, one, one);
    const operation = try parts.create(.operation_sdpa_fwd);
    for ([_]cudnn.Attribute{
        .operation_sdpa_fwd_qdesc,
        .operation_sdpa_fwd_kdesc,
        .operation_sdpa_fwd_vdesc,
        .operation_sdpa_fwd_odesc,
        .operation_sdpa_fwd_scaledesc,
    }, [_]Descriptor{ q, k, v, out, scale }) |attribute, descriptor| {
        try set(library, operation, attribute, .backend_descriptor, &[_]Descriptor{descriptor});
    }
    if (p.has_statistics) {
        const dimensions = [4]i64{ p.batch, p.heads, p.queries, 1 };
        const strides = [4]i64{ @as(i64, p.heads) * p.queries, p.queries, 1, 1 };
        const statistics = [_]Descriptor{
            try tensor(parts, .statistics, .f32, dimensions, strides),
        };
        const attribute: cudnn.Attribute = .operation_sdpa_fwd_statsdesc;
        try set(library, operation, attribute, .backend_descriptor, &statistics);
    }
    try finalize(library, operation);
    return operation;
}

/// `count` positions per batch element, `stride` elements apart, heads side by side in each.
fn rows(
    parts: *Parts,
    id: Id,
    dtype: cudnn.DataType,
    p: sdpas.Problem,
    count: u32,
    stride: u32,
) Error!Descriptor {
    const dimensions = [4]i64{ p.batch, p.heads, count, p.head_size };
    const strides = [4]i64{ @as(i64, count) * stride, p.head_size, stride, 1 };
    return tensor(parts, id, dtype, dimensions, strides);
}

fn tensor(
    parts: *Parts,
    id: Id,
    dtype: cudnn.DataType,
    dimensions: [4]i64,
    strides: [4]i64,
) Error!Descriptor {
    const storage: descriptors.Storage = if (id == .scale) .by_value else .stored;
    const number = @intFromEnum(id);
    return descriptors.createTensor(parts, number, dtype, dimensions, strides, storage);
}
