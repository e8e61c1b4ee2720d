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
