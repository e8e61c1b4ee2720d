//! cuBLASLt as a table of functions, opened at run time. Descriptors are the library's own; every
//! attribute set here is a plain integer or pointer whose size goes with it. Types and numbers are
//! checked against cublasLt.h by `zig build check-headers`.
//! Source: https://docs.nvidia.com/cuda/cublas (Using the cuBLASLt API).

const std = @import("std");
const call_error = @import("call_error.zig");
const driver = @import("driver.zig");

/// cublasStatus_t
pub const Status = enum(c_int) {
    success = 0,
    not_initialized = 1,
    alloc_failed = 3,
    invalid_value = 7,
    arch_mismatch = 8,
    mapping_error = 11,
    execution_failed = 13,
    internal_error = 14,
    not_supported = 15,
    license_error = 16,
    _,
};

/// cudaDataType_t
pub const DataType = enum(c_int) { f32 = 0, f16 = 2, i8 = 3, i32 = 10, bf16 = 14, _ };
/// cublasComputeType_t
pub const ComputeType = enum(c_int) { f32 = 68, i32 = 72, _ };
/// cublasOperation_t
pub const Operation = enum(c_int) { none = 0, transpose = 1, _ };
/// cublasLtOrder_t
pub const Order = enum(c_int) { column = 0, row = 1, _ };

/// cublasLtEpilogue_t. The library's GELU is the one by tanh.
pub const Epilogue = enum(c_int) { default = 1, bias = 4, gelu = 32, gelu_bias = 36, _ };

/// cublasLtMatmulDescAttributes_t
pub const DescAttribute = enum(c_int) {
    compute_type = 0,
    scale_type = 1,
    pointer_mode = 2,
    transa = 3,
    transb = 4,
    epilogue = 7,
    bias_pointer = 8,
    bias_data_type = 26,
    _,
};

/// cublasLtMatrixLayoutAttribute_t
pub const LayoutAttribute = enum(c_int) {
    type = 0,
    order = 1,
    rows = 2,
    cols = 3,
    ld = 4,
    batch_count = 5,
    strided_batch_offset = 6,
    _,
};

/// cublasLtMatmulPreferenceAttributes_t
pub const PreferenceAttribute = enum(c_int) {
    search_mode = 0,
    max_workspace_bytes = 1,
    reduction_scheme_mask = 3,
    min_alignment_a_bytes = 5,
    min_alignment_b_bytes = 6,
    min_alignment_c_bytes = 7,
    min_alignment_d_bytes = 8,
    _,
};

/// cublasLtReductionScheme_t, one bit: split-K partial sums are added in the compute type.
pub const reduction_compute_type: u32 = 2;

/// cublasLtMatmulAlgo_t: plain data, the same for one version of the library on one kind of GPU.
pub const Algo = extern struct { data: [8]u64 };

/// cublasLtMatmulHeuristicResult_t
pub const HeuristicResult = extern struct {
    algo: Algo,
    workspace_size: usize,
    state: Status,
    waves_count: f32,
    reserved: [4]c_int,
};

pub const Handle = *opaque {};
pub const Desc = *opaque {};
pub const Layout = *opaque {};
pub const Preference = *opaque {};

/// cublasLtGetVersion of the oldest that is used: CUDA 12.0's.
pub const version_min = 120000;

/// A function of the library, as the call that failed.
pub const Call = std.meta.FieldEnum(CublasLt);

/// The last failed call on this thread, set by `refuse`.
threadlocal var refused: call_error.CallError = .{};

pub const CublasLt = struct {
    cublasLtGetVersion: *const fn () callconv(.c) usize,
    cublasLtGetStatusString: *const fn (Status) callconv(.c) ?[*:0]const u8,
    cublasLtCreate: *const fn (handle: *?Handle) callconv(.c) Status,
    cublasLtDestroy: *const fn (Handle) callconv(.c) Status,

    cublasLtMatmulDescCreate: *const fn (
        desc: *?Desc,
        compute: ComputeType,
        scale: DataType,
    ) callconv(.c) Status,
    cublasLtMatmulDescDestroy: *const fn (Desc) callconv(.c) Status,
    cublasLtMatmulDescSetAttribute: *const fn (
        Desc,
        DescAttribute,
        value: *const anyopaque,
        bytes: usize,
    ) callconv(.c) Status,

    cublasLtMatrixLayoutCreate: *const fn (
        layout: *?Layout,
        DataType,
        rows: u64,
        cols: u64,
        ld: i64,
    ) callconv(.c) Status,
    cublasLtMatrixLayoutDestroy: *const fn (Layout) callconv(.c) Status,
    cublasLtMatrixLayoutSetAttribute: *const fn (
        Layout,
        LayoutAttribute,
        value: *const anyopaque,
        bytes: usize,
    ) callconv(.c) Status,

    cublasLtMatmulPreferenceCreate: *const fn (preference: *?Preference) callconv(.c) Status,
    cublasLtMatmulPreferenceDestroy: *const fn (Preference) callconv(.c) Status,
    cublasLtMatmulPreferenceSetAttribute: *const fn (
        Preference,
        PreferenceAttribute,
        value: *const anyopaque,
        bytes: usize,
    ) callconv(.c) Status,

    cublasLtMatmulAlgoGetHeuristic: *const fn (
        Handle,
        Desc,
        a: Layout,
        b: Layout,
        c: Layout,
        d: Layout,
        Preference,
        requested: c_int,
        results: [*]HeuristicResult,
        returned: *c_int,
    ) callconv(.c) Status,
    cublasLtMatmulAlgoCheck: *const fn (
        Handle,
        Desc,
        a: Layout,
        b: Layout,
        c: Layout,
        d: Layout,
        algo: *const Algo,
        result: *HeuristicResult,
    ) callconv(.c) Status,
    cublasLtMatmul: *const fn (
        Handle,
        Desc,
        alpha: *const anyopaque,
        a: driver.Address,
        a_layout: Layout,
        b: driver.Address,
        b_layout: Layout,
        beta: *const anyopaque,
        c: driver.Address,
        c_layout: Layout,
        d: driver.Address,
        d_layout: Layout,
        algo: ?*const Algo,
        workspace: driver.Address,
        workspace_bytes: usize,
        driver.Stream,
    ) callconv(.c) Status,

    pub fn callError(library: *const CublasLt, call: Call, status: Status) call_error.CallError {
        return .{
            .call = @tagName(call),
            .name = call_error.upperName("CUBLAS_STATUS_", status),
            .code = @intFromEnum(status),
            .text = std.mem.span(library.cublasLtGetStatusString(status) orelse ""),
        };
    }

    /// Keeps which call failed, for the message about the whole operation.
    pub fn expect(library: *const CublasLt, call: Call, status: Status) error{Refused}!void {
        if (status == .success) return;
        refused = library.callError(call, status);
        return error.Refused;
    }

    /// The call that `expect` failed at last on this thread.
    pub fn lastRefused() call_error.CallError {
        return refused;
    }
};
