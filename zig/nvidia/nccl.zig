//! NCCL as a table of functions, opened at run time; only runs of several GPUs without peer copies,
//! or of several machines, need it. Types and numbers are checked against nccl.h by
//! `zig build check-headers`.
//! Source: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html.

const std = @import("std");
const call_error = @import("call_error.zig");
const driver = @import("driver.zig");

/// ncclResult_t
pub const Result = enum(c_int) {
    success = 0,
    unhandled_cuda_error = 1,
    system_error = 2,
    internal_error = 3,
    invalid_argument = 4,
    invalid_usage = 5,
    remote_error = 6,
    in_progress = 7,
    _,
};

/// ncclDataType_t
pub const DataType = enum(c_int) {
    int8 = 0,
    uint8 = 1,
    int32 = 2,
    uint32 = 3,
    int64 = 4,
    uint64 = 5,
    float16 = 6,
    float32 = 7,
    float64 = 8,
    bfloat16 = 9,
    _,
};

pub const unique_id_bytes = 128;
/// ncclUniqueId: passed by value; rank 0 creates it and sends it to every other rank.
pub const UniqueId = extern struct { internal: [unique_id_bytes]u8 };
pub const Comm = *opaque {};

/// ncclGetVersion of the oldest that is used, 2.18: the first with ncclCommSplit. A group of one
/// process may have a thread per rank, and captures of CUDA graphs work without further care.
pub const version_min = 21800;

/// A function of the library, as the call that failed.
pub const Call = std.meta.FieldEnum(Nccl);

pub const Nccl = struct {
    ncclGetVersion: *const fn (version: *c_int) callconv(.c) Result,
    ncclGetErrorString: *const fn (Result) callconv(.c) ?[*:0]const u8,
    ncclGetLastError: *const fn (?Comm) callconv(.c) ?[*:0]const u8,
    ncclGetUniqueId: *const fn (id: *UniqueId) callconv(.c) Result,
    ncclCommInitRank: *const fn (
        comm: *?Comm,
        rank_count: c_int,
        UniqueId,
        rank: c_int,
    ) callconv(.c) Result,
    /// Of the ranks with the same color, ordered by key. The last argument is a configuration, or
    /// null.
    ncclCommSplit: *const fn (
        Comm,
        color: c_int,
        key: c_int,
        comm: *?Comm,
        config: ?*anyopaque,
    ) callconv(.c) Result,
    ncclCommDestroy: *const fn (Comm) callconv(.c) Result,
    ncclCommAbort: *const fn (Comm) callconv(.c) Result,
    ncclCommGetAsyncError: *const fn (Comm, err: *Result) callconv(.c) Result,
    ncclAllGather: *const fn (
        source: driver.Address,
        target: driver.Address,
        source_count: usize,
        DataType,
        Comm,
        driver.Stream,
    ) callconv(.c) Result,
    ncclSend: *const fn (
        source: driver.Address,
        count: usize,
        DataType,
        peer: c_int,
        Comm,
        driver.Stream,
    ) callconv(.c) Result,
    ncclRecv: *const fn (
        target: driver.Address,
        count: usize,
        DataType,
        peer: c_int,
        Comm,
        driver.Stream,
    ) callconv(.c) Result,
    ncclGroupStart: *const fn () callconv(.c) Result,
    ncclGroupEnd: *const fn () callconv(.c) Result,

    pub fn callError(library: *const Nccl, call: Call, result: Result) call_error.CallError {
        return .{
            .call = @tagName(call),
            .name = call_error.camelName("nccl", result),
            .code = @intFromEnum(result),
            .text = std.mem.span(library.ncclGetErrorString(result) orelse ""),
        };
    }
};
