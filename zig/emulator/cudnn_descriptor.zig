//! A descriptor of the emulated cuDNN: a kind and attributes as they were set. Those that name
//! other descriptors hold them, so that destroying a part after its whole was made does no harm, as
//! in the library.

const std = @import("std");
const attentions = @import("cudnn_sdpa.zig");
const cudnn = @import("../nvidia/cudnn.zig");
const graphs = @import("cudnn_graph.zig");
const library = @import("library.zig");
const Status = cudnn.Status;

const Value = struct {
    kind: cudnn.AttributeType,
    count: usize,
    bytes: []const u8,
};

pub const Descriptor = struct {
    magic: u64 = live,
    kind: cudnn.DescriptorType,
    reference_count: u32 = 1,
    is_finalized: bool = false,
    attributes: std.AutoHashMapUnmanaged(cudnn.Attribute, Value) = .empty,
    /// Of an operation graph, once finalized.
    program: ?graphs.Program = null,
    /// The same, where it is an attention.
    attention: ?attentions.Program = null,
    /// Of engines, configurations and plans.
    engine: i64 = 0,
    graph: ?*Descriptor = null,
    workspace_bytes: usize = 0,

    const live = 0x6465_7363_6c69_7665;

    pub fn create(kind: cudnn.DescriptorType) error{ OutOfMemory, Unknown }!*Descriptor {
        switch (kind) {
            _ => return error.Unknown,
            else => {},
        }
        const descriptor = try library.allocator.create(Descriptor);
        descriptor.* = .{ .kind = kind };
        return descriptor;
    }

    pub fn of(handle: ?cudnn.Descriptor) ?*Descriptor {
        const found: *Descriptor = @ptrCast(@alignCast(handle orelse return null));
        return if (found.magic == live) found else null;
    }

    pub fn drop(descriptor: *Descriptor) void {
        descriptor.reference_count -= 1;
        if (descriptor.reference_count > 0) return;
        descriptor.magic = 0;
        const gpa = library.allocator;
        var all = descriptor.attributes.valueIterator();
        while (all.next()) |held| {
            if (held.kind == .backend_descriptor) {
                for (asDescriptors(held.*)) |part| part.drop();
            }
            gpa.free(held.bytes);
        }
        descriptor.attributes.deinit(gpa);
        if (descriptor.graph) |graph| graph.drop();
        gpa.destroy(descriptor);
    }

    pub fn set(
        descriptor: *Descriptor,
        attribute: cudnn.Attribute,
        kind: cudnn.AttributeType,
        count: usize,
        elements: [*]const u8,
    ) Status {
        const gpa = library.allocator;
        const size = sizeOf(kind) orelse return .bad_param_attribute_type;
        if (typeOf(attribute) != kind) return .bad_param_attribute_type;
        if (descriptor.attributes.contains(attribute)) return .bad_param;
        const alignment: std.mem.Alignment = .@"8";
        const bytes = gpa.alignedAlloc(u8, alignment, size * count) catch return .internal_error;
        @memcpy(bytes, elements[0 .. size * count]);
        const value_held: Value = .{ .kind = kind, .count = count, .bytes = bytes };
        if (kind == .backend_descriptor) {
            const handles: []const ?cudnn.Descriptor = @ptrCast(@alignCast(bytes));
            for (handles) |handle| {
                const part = of(handle) orelse return .bad_param;
                if (!part.is_finalized) return .bad_param_not_finalized;
            }
            for (asDescriptors(value_held)) |part| part.reference_count += 1;
        }
        descriptor.attributes.put(gpa, attribute, value_held) catch return .internal_error;
        return .success;
    }

    /// The only element of an attribute.
    pub fn value(descriptor: *const Descriptor, comptime T: type, attribute: cudnn.Attribute) ?T {
        const all = descriptor.values(T, attribute) orelse return null;
        return if (all.len == 1) all[0] else null;
    }

    pub fn values(
        descriptor: *const Descriptor,
        comptime T: type,
        attribute: cudnn.Attribute,
    ) ?[]const T {
        const held = descriptor.attributes.get(attribute) orelse return null;
        if (sizeOf(held.kind).? != @sizeOf(T)) return null;
        return @as([*]const T, @ptrCast(@alignCast(held.bytes.ptr)))[0..held.count];
    }

    /// The descriptor that an attribute names, if it is of such a kind.
    pub fn get(
        descriptor: *const Descriptor,
        attribute: cudnn.Attribute,
        kind: cudnn.DescriptorType,
    ) ?*Descriptor {
        const handle = descriptor.value(?cudnn.Descriptor, attribute) orelse return null;
        const found = of(handle) orelse return null;
        return if (found.kind == kind) found else null;
    }

    pub fn setGraph(descriptor: *Descriptor, graph: *Descriptor) void {
        graph.reference_count += 1;
        if (descriptor.graph) |old| old.drop();
        descriptor.graph = graph;
    }
};

// --- internal ---

fn asDescriptors(held: Value) []const *Descriptor {
    return @as([*]const *Descriptor, @ptrCast(@alignCast(held.bytes.ptr)))[0..held.count];
}

fn sizeOf(kind: cudnn.AttributeType) ?usize {
    return switch (kind) {
        .boolean, .char => 1,
        .data_type, .float, .convolution_mode, .heur_mode, .pointwise_mode, .int32 => 4,
        .handle, .int64, .double, .void_ptr, .backend_descriptor => 8,
        else => null,
    };
}

/// The required type of each attribute; attributes that are never set have none.
fn typeOf(attribute: cudnn.Attribute) ?cudnn.AttributeType {
    return switch (attribute) {
        .pointwise_mode => .pointwise_mode,
        .pointwise_math_prec, .convolution_comp_type, .tensor_data_type => .data_type,
        .convolution_conv_mode => .convolution_mode,
        .engineheur_mode => .heur_mode,
        .execution_plan_handle, .operationgraph_handle => .handle,
        .convolution_dilations,
        .convolution_filter_strides,
        .convolution_post_paddings,
        .convolution_pre_paddings,
        .convolution_spatial_dims,
        .tensor_byte_alignment,
        .tensor_dimensions,
        .tensor_strides,
        .tensor_unique_id,
        .variant_pack_unique_ids,
        => .int64,
        .operation_convolution_forward_alpha,
        .operation_convolution_forward_beta,
        .operation_pointwise_alpha1,
        => .float,
        .tensor_is_virtual, .tensor_is_by_value => .boolean,
        .execution_plan_json_representation => .char,
        .variant_pack_data_pointers, .variant_pack_workspace => .void_ptr,
        .engineheur_operation_graph,
        .execution_plan_engine_config,
        .operation_convolution_forward_conv_desc,
        .operation_convolution_forward_w,
        .operation_convolution_forward_x,
        .operation_convolution_forward_y,
        .operation_pointwise_pw_descriptor,
        .operation_pointwise_xdesc,
        .operation_pointwise_bdesc,
        .operation_pointwise_ydesc,
        .operation_sdpa_fwd_qdesc,
        .operation_sdpa_fwd_kdesc,
        .operation_sdpa_fwd_vdesc,
        .operation_sdpa_fwd_odesc,
        .operation_sdpa_fwd_statsdesc,
        .operation_sdpa_fwd_scaledesc,
        .operationgraph_ops,
        => .backend_descriptor,
        else => null,
    };
}
