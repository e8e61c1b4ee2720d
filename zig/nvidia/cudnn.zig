//! cuDNN's backend (graph) interface as a table of functions, opened at run time. Everything is a
//! descriptor that is created, given attributes, and finalized. Types and numbers are checked
//! against cudnn_graph.h by `zig build check-headers`.
//! Source: https://docs.nvidia.com/deeplearning/cudnn/backend (cuDNN 9).

const std = @import("std");
const call_error = @import("call_error.zig");
const driver = @import("driver.zig");

/// cudnnStatus_t: thousands are classes; the distinguished ones have names.
pub const Status = enum(c_int) {
    success = 0,
    not_initialized = 1001,
    sublibrary_version_mismatch = 1002,
    sublibrary_loading_failed = 1008,
    bad_param = 2000,
    bad_param_null_pointer = 2002,
    bad_param_misaligned_pointer = 2003,
    bad_param_not_finalized = 2004,
    bad_param_out_of_bound = 2005,
    bad_param_size_insufficient = 2006,
    bad_param_shape_mismatch = 2008,
    bad_param_attribute_type = 2010,
    bad_param_descriptor_type = 2012,
    not_supported = 3000,
    not_supported_graph_pattern = 3001,
    not_supported_shape = 3002,
    not_supported_data_type = 3003,
    not_supported_layout = 3004,
    not_supported_incompatible_cuda_driver = 3005,
    not_supported_arch_mismatch = 3007,
    internal_error = 4000,
    execution_failed = 5000,
    _,
};

/// cudnnDataType_t
pub const DataType = enum(c_int) { f32 = 0, f16 = 2, bf16 = 9, _ };
/// cudnnConvolutionMode_t
pub const ConvolutionMode = enum(c_int) { convolution = 0, cross_correlation = 1 };
/// cudnnPointwiseMode_t
pub const PointwiseMode = enum(c_int) { add = 0, mul = 1, _ };
/// cudnnBackendHeurMode_t
pub const HeurMode = enum(c_int) { instant = 0, b = 1, fallback = 2, a = 3 };

/// cudnnBackendBehaviorNote_t
pub const BehaviorNote = enum(c_int) { runtime_compilation = 0, _ };

/// cudnnBackendDescriptorType_t
pub const DescriptorType = enum(c_int) {
    pointwise = 0,
    convolution = 1,
    engine = 2,
    engine_config = 3,
    engine_heuristics = 4,
    execution_plan = 5,
    knob_choice = 7,
    operation_convolution_forward = 10,
    operation_pointwise = 13,
    operation_graph = 15,
    variant_pack = 16,
    tensor = 17,
    deviceprop = 38,
    operation_sdpa_fwd = 41,
    _,
};

/// cudnnBackendAttributeType_t
pub const AttributeType = enum(c_int) {
    handle = 0,
    data_type = 1,
    boolean = 2,
    int64 = 3,
    float = 4,
    double = 5,
    void_ptr = 6,
    convolution_mode = 7,
    heur_mode = 8,
    knob_type = 9,
    pointwise_mode = 14,
    backend_descriptor = 15,
    behavior_note = 19,
    int32 = 23,
    char = 24,
    _,
};

/// cudnnBackendAttributeName_t
pub const Attribute = enum(c_int) {
    pointwise_mode = 0,
    pointwise_math_prec = 1,
    convolution_comp_type = 100,
    convolution_conv_mode = 101,
    convolution_dilations = 102,
    convolution_filter_strides = 103,
    convolution_post_paddings = 104,
    convolution_pre_paddings = 105,
    convolution_spatial_dims = 106,
    engineheur_mode = 200,
    engineheur_operation_graph = 201,
    engineheur_results = 202,
    engineheur_deviceprop = 204,
    enginecfg_engine = 300,
    enginecfg_knob_choices = 302,
    execution_plan_handle = 400,
    execution_plan_engine_config = 401,
    execution_plan_workspace_size = 402,
    execution_plan_json_representation = 405,
    execution_plan_deviceprop = 407,
    knob_choice_knob_type = 600,
    knob_choice_knob_value = 601,
    operation_convolution_forward_alpha = 700,
    operation_convolution_forward_beta = 701,
    operation_convolution_forward_conv_desc = 702,
    operation_convolution_forward_w = 703,
    operation_convolution_forward_x = 704,
    operation_convolution_forward_y = 705,
    operation_pointwise_pw_descriptor = 750,
    operation_pointwise_xdesc = 751,
    operation_pointwise_bdesc = 752,
    operation_pointwise_ydesc = 753,
    operation_pointwise_alpha1 = 754,
    operationgraph_handle = 800,
    operationgraph_ops = 801,
    tensor_byte_alignment = 900,
    tensor_data_type = 901,
    tensor_dimensions = 902,
    tensor_strides = 903,
    tensor_unique_id = 906,
    tensor_is_virtual = 907,
    tensor_is_by_value = 908,
    variant_pack_unique_ids = 1000,
    variant_pack_data_pointers = 1001,
    variant_pack_workspace = 1003,
    engine_global_index = 1301,
    engine_behavior_note = 1305,
    deviceprop_json_representation = 2702,
    operation_sdpa_fwd_qdesc = 2800,
    operation_sdpa_fwd_kdesc = 2801,
    operation_sdpa_fwd_vdesc = 2802,
    operation_sdpa_fwd_odesc = 2803,
    operation_sdpa_fwd_statsdesc = 2804,
    operation_sdpa_fwd_scaledesc = 2805,
    _,
};

pub const Handle = *opaque {};
pub const Descriptor = *opaque {};

/// What plans are made for: the GPU of a handle, or one described by a finalized descriptor
/// (cuDNN 9.8; nothing can be run).
pub const Gpu = union(enum) { handle: Handle, description: Descriptor };

/// cudnnGetVersion of the oldest that is used.
pub const version_min = 90000;

/// A function of the library, as the call that failed.
pub const Call = std.meta.FieldEnum(Cudnn);

/// The last call on this thread that `expect` failed at, with room for cuDNN's own message.
threadlocal var refused: call_error.CallError = .{};
threadlocal var refused_text: [256]u8 = undefined;

pub const Cudnn = struct {
    cudnnGetVersion: *const fn () callconv(.c) usize,
    /// The CUDA that the library was built for: 13000.
    cudnnGetCudartVersion: *const fn () callconv(.c) usize,
    cudnnGetErrorString: *const fn (Status) callconv(.c) ?[*:0]const u8,
    /// Message of this thread's last failure.
    cudnnGetLastErrorString: *const fn (message: [*]u8, bytes: usize) callconv(.c) void,
    cudnnCreate: *const fn (handle: *?Handle) callconv(.c) Status,
    cudnnDestroy: *const fn (Handle) callconv(.c) Status,
    cudnnSetStream: *const fn (Handle, driver.Stream) callconv(.c) Status,
    cudnnBackendCreateDescriptor: *const fn (
        DescriptorType,
        descriptor: *?Descriptor,
    ) callconv(.c) Status,
    cudnnBackendDestroyDescriptor: *const fn (Descriptor) callconv(.c) Status,
    cudnnBackendFinalize: *const fn (Descriptor) callconv(.c) Status,
    cudnnBackendSetAttribute: *const fn (
        Descriptor,
        Attribute,
        AttributeType,
        count: i64,
        elements: *const anyopaque,
    ) callconv(.c) Status,
    cudnnBackendGetAttribute: *const fn (
        Descriptor,
        Attribute,
        AttributeType,
        requested: i64,
        count: *i64,
        elements: ?*anyopaque,
    ) callconv(.c) Status,
    cudnnBackendExecute: *const fn (
        Handle,
        plan: Descriptor,
        variant_pack: Descriptor,
    ) callconv(.c) Status,

    /// Valid until the next failure on this thread: cuDNN keeps one message for each.
    pub fn callError(library: *const Cudnn, call: Call, status: Status) call_error.CallError {
        @memset(&refused_text, 0);
        library.cudnnGetLastErrorString(&refused_text, refused_text.len);
        return .{
            .call = @tagName(call),
            .name = std.mem.span(library.cudnnGetErrorString(status) orelse ""),
            .code = @intFromEnum(status),
            .text = std.mem.sliceTo(&refused_text, 0),
        };
    }

    /// Keeps which call failed, for the message about the whole operation.
    pub fn expect(library: *const Cudnn, call: Call, status: Status) error{Refused}!void {
        if (status == .success) return;
        refused = library.callError(call, status);
        return error.Refused;
    }

    /// The call that `expect` failed at last on this thread.
    pub fn lastRefused() call_error.CallError {
        return refused;
    }
};
