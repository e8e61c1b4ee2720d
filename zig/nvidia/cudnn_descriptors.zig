//! cuDNN's descriptors: made, given attributes, finalized, destroyed together.

const std = @import("std");
const cudnn = @import("cudnn.zig");
const Cudnn = cudnn.Cudnn;
const Descriptor = cudnn.Descriptor;

/// Refused: the library does not support the operation.
pub const Error = error{Refused};

/// The most that go together: those of the longest graph, or a list of engines.
const part_count_max = 24;

/// Descriptors that go together.
pub const Parts = struct {
    library: *const Cudnn,
    list: [part_count_max]Descriptor = undefined,
    count: usize = 0,

    pub fn deinit(parts: *Parts) void {
        while (parts.count > 0) {
            parts.count -= 1;
            _ = parts.library.cudnnBackendDestroyDescriptor(parts.list[parts.count]);
        }
    }

    pub fn create(parts: *Parts, kind: cudnn.DescriptorType) Error!Descriptor {
        const descriptor = try createAlone(parts.library, kind);
        std.debug.assert(parts.count < parts.list.len);
        parts.list[parts.count] = descriptor;
        parts.count += 1;
        return descriptor;
    }
};

pub fn createAlone(library: *const Cudnn, kind: cudnn.DescriptorType) Error!Descriptor {
    var descriptor: ?Descriptor = null;
    const status = library.cudnnBackendCreateDescriptor(kind, &descriptor);
    try library.expect(.cudnnBackendCreateDescriptor, status);
    return descriptor.?;
}

pub fn set(
    library: *const Cudnn,
    descriptor: Descriptor,
    attribute: cudnn.Attribute,
    kind: cudnn.AttributeType,
    elements: anytype,
) Error!void {
    const count: i64 = @intCast(elements.len);
    const pointer: *const anyopaque = @ptrCast(elements);
    const status = library.cudnnBackendSetAttribute(descriptor, attribute, kind, count, pointer);
    try library.expect(.cudnnBackendSetAttribute, status);
}

/// One element.
pub fn get(
    library: *const Cudnn,
    descriptor: Descriptor,
    attribute: cudnn.Attribute,
    kind: cudnn.AttributeType,
    element: anytype,
) Error!void {
    var count: i64 = 0;
    const into: *anyopaque = @ptrCast(element);
    const status = library.cudnnBackendGetAttribute(descriptor, attribute, kind, 1, &count, into);
    try library.expect(.cudnnBackendGetAttribute, status);
    if (count != 1) try library.expect(.cudnnBackendGetAttribute, .internal_error);
}

pub fn finalize(library: *const Cudnn, descriptor: Descriptor) Error!void {
    try library.expect(.cudnnBackendFinalize, library.cudnnBackendFinalize(descriptor));
}

/// As many elements as there are and fit, at the beginning of `elements`; returns how many.
pub fn getMany(
    library: *const Cudnn,
    descriptor: Descriptor,
    attribute: cudnn.Attribute,
    kind: cudnn.AttributeType,
    elements: anytype,
) Error!usize {
    var count: i64 = 0;
    const most: i64 = @intCast(elements.len);
    const into: *anyopaque = @ptrCast(elements);
    const status = library.cudnnBackendGetAttribute(
        descriptor,
        attribute,
        kind,
        most,
        &count,
        into,
    );
    try library.expect(.cudnnBackendGetAttribute, status);
    return @intCast(@min(count, most));
}

/// How a graph holds a tensor: in memory, inside the kernel alone, or as a number of the pack.
pub const Storage = enum { stored, virtual, by_value };

/// A tensor of `parts`; `strides` in elements.
pub fn createTensor(
    parts: *Parts,
    id: i64,
    dtype: cudnn.DataType,
    dimensions: [4]i64,
    strides: [4]i64,
    storage: Storage,
) Error!Descriptor {
    const library = parts.library;
    const t = try parts.create(.tensor);
    try set(library, t, .tensor_data_type, .data_type, &[_]cudnn.DataType{dtype});
    try set(library, t, .tensor_dimensions, .int64, &dimensions);
    try set(library, t, .tensor_strides, .int64, &strides);
    try set(library, t, .tensor_unique_id, .int64, &[_]i64{id});
    try set(library, t, .tensor_byte_alignment, .int64, &[_]i64{16});
    const yes = [_]bool{true};
    switch (storage) {
        .stored => {},
        .virtual => try set(library, t, .tensor_is_virtual, .boolean, &yes),
        .by_value => try set(library, t, .tensor_is_by_value, .boolean, &yes),
    }
    try finalize(library, t);
    return t;
}

/// The graph of `operations`, which belong to `parts` as it does.
pub fn createGraph(
    parts: *Parts,
    gpu: cudnn.Gpu,
    operations: []const Descriptor,
) Error!Descriptor {
    const library = parts.library;
    const graph = try parts.create(.operation_graph);
    if (gpu == .handle) {
        const handles = [_]cudnn.Handle{gpu.handle};
        try set(library, graph, .operationgraph_handle, .handle, &handles);
    }
    try set(library, graph, .operationgraph_ops, .backend_descriptor, operations);
    try finalize(library, graph);
    return graph;
}

/// A tensor's name and where it is; those at 0 are left out of a pack.
pub const Place = struct { id: i64, address: usize };

/// The addresses of one run, the caller's to destroy.
pub fn createPack(
    library: *const Cudnn,
    comptime count_max: usize,
    places: [count_max]Place,
    workspace: usize,
) Error!Descriptor {
    var ids: [count_max]i64 = undefined;
    var addresses: [count_max]usize = undefined;
    var count: usize = 0;
    for (places) |place| {
        if (place.address == 0) continue;
        ids[count] = place.id;
        addresses[count] = place.address;
        count += 1;
    }
    const variant = try createAlone(library, .variant_pack);
    errdefer _ = library.cudnnBackendDestroyDescriptor(variant);
    try set(library, variant, .variant_pack_unique_ids, .int64, ids[0..count]);
    try set(library, variant, .variant_pack_data_pointers, .void_ptr, addresses[0..count]);
    try set(library, variant, .variant_pack_workspace, .void_ptr, &[_]usize{workspace});
    try finalize(library, variant);
    return variant;
}
