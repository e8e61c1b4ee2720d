//! Execution plans of cuDNN as one line of text, with the kernels that were compiled for them: a
//! process that reads one waits a millisecond where making it takes a third of a second.

const std = @import("std");
const Allocator = std.mem.Allocator;
const cudnn = @import("../../nvidia/cudnn.zig");
const descriptors = @import("../../nvidia/cudnn_descriptors.zig");
const Cudnn = cudnn.Cudnn;
const Descriptor = cudnn.Descriptor;
const Error = descriptors.Error;
const set = descriptors.set;

/// Larger ones are not kept.
const text_bytes_max = 4 << 20;

/// The caller's to free. Refused too where the text is not one line.
pub fn write(
    gpa: Allocator,
    library: *const Cudnn,
    plan: Descriptor,
) (Error || Allocator.Error)![]u8 {
    const kind: cudnn.Attribute = .execution_plan_json_representation;
    var count: i64 = 0;
    const get = library.cudnnBackendGetAttribute;
    try library.expect(.cudnnBackendGetAttribute, get(plan, kind, .char, 0, &count, null));
    if (count < 1 or count > text_bytes_max) return error.Refused;
    const text = try gpa.alloc(u8, @intCast(count));
    errdefer gpa.free(text);
    const status = get(plan, kind, .char, count, &count, text.ptr);
    try library.expect(.cudnnBackendGetAttribute, status);
    const is_line = std.mem.indexOfAny(u8, text, "\t\n\r\x00") == null;
    if (count != text.len or !is_line) return error.Refused;
    return text;
}

/// The caller's to destroy.
pub fn read(library: *const Cudnn, handle: cudnn.Handle, text: []const u8) Error!Descriptor {
    const plan = try descriptors.createAlone(library, .execution_plan);
    errdefer _ = library.cudnnBackendDestroyDescriptor(plan);
    try set(library, plan, .execution_plan_json_representation, .char, text);
    try set(library, plan, .execution_plan_handle, .handle, &[_]cudnn.Handle{handle});
    try descriptors.finalize(library, plan);
    return plan;
}

pub fn workspaceBytes(library: *const Cudnn, plan: Descriptor) Error!usize {
    var bytes: i64 = 0;
    try descriptors.get(library, plan, .execution_plan_workspace_size, .int64, &bytes);
    return if (bytes >= 0) @intCast(bytes) else error.Refused;
}
