//! Writes C++ that compiles only where the tables of this folder agree with a vendor's header:
//! every enumerator's value, every function's parameters, every struct's layout. Run by `zig build
//! check-headers -Dheaders=FOLDER,FOLDER`; needs the headers, no GPU and no CUDA compiler.

const std = @import("std");
const cublaslt = @import("cublaslt.zig");
const cudnn = @import("cudnn.zig");
const driver = @import("driver.zig");
const nccl = @import("nccl.zig");
const Writer = std.Io.Writer;

/// `header_checks cuda` writes the file for one library, `header_checks count` how many assertions
/// all of them have.
pub fn main(init: std.process.Init) !void {
    var buffer: [4096]u8 = undefined;
    var stdout = std.Io.File.stdout().writerStreaming(init.io, &buffer);
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    if (args.len != 2) return error.OneArgument;
    var total: usize = 0;
    inline for (all) |library| {
        var text: Writer.Allocating = .init(init.arena.allocator());
        total += try write(&text.writer, library);
        if (std.mem.eql(u8, args[1], library.name)) {
            try stdout.interface.writeAll(text.writer.buffered());
            return stdout.interface.flush();
        }
    }
    if (!std.mem.eql(u8, args[1], "count")) return error.UnknownLibrary;
    try stdout.interface.print("{d} assertions about the vendor's headers hold.\n", .{total});
    try stdout.interface.flush();
}

// --- internal ---

const Spelling = enum { upper, camel };
const Other = struct { []const u8, []const u8 };

const Enum = struct {
    type: type,
    prefix: []const u8,
    suffix: []const u8 = "",
    spelling: Spelling = .upper,
    /// Whose name does not follow from ours.
    others: []const Other = &.{},
};

const Constant = struct { name: []const u8, value: u64 };

const Struct = struct {
    type: type,
    name: []const u8,
    /// Of the header, in the order of ours; none leaves the size alone.
    fields: []const []const u8 = &.{},
};

const Library = struct {
    name: []const u8,
    include: []const u8,
    table: type,
    enums: []const Enum,
    constants: []const Constant = &.{},
    structs: []const Struct = &.{},
};

const all = .{ cuda_library, cublaslt_library, cudnn_library, nccl_library };

const cuda_library: Library = .{
    .name = "cuda",
    // With it the header declares old versions of functions under their own names.
    .include = "#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n",
    .table = driver.Driver,
    .enums = &.{
        .{ .type = driver.Result, .prefix = "CUDA_ERROR_", .others = &.{
            .{ "success", "CUDA_SUCCESS" },
        } },
        .{ .type = driver.DeviceAttribute, .prefix = "CU_DEVICE_ATTRIBUTE_" },
        .{ .type = driver.FunctionAttribute, .prefix = "CU_FUNC_ATTRIBUTE_" },
        .{ .type = driver.LaunchAttributeId, .prefix = "CU_LAUNCH_ATTRIBUTE_" },
        .{ .type = driver.CaptureMode, .prefix = "CU_STREAM_CAPTURE_MODE_" },
        .{ .type = driver.CaptureStatus, .prefix = "CU_STREAM_CAPTURE_STATUS_" },
    },
    .constants = &.{
        .{ .name = "CU_STREAM_NON_BLOCKING", .value = driver.stream_non_blocking },
        .{ .name = "CU_EVENT_DISABLE_TIMING", .value = driver.event_disable_timing },
        .{ .name = "CU_EVENT_RECORD_EXTERNAL", .value = driver.event_record_external },
        .{ .name = "CU_EVENT_WAIT_EXTERNAL", .value = driver.event_wait_external },
        .{ .name = "CU_MEMHOSTALLOC_PORTABLE", .value = driver.host_alloc_portable },
        .{ .name = "CU_MEMHOSTREGISTER_PORTABLE", .value = driver.host_register_portable },
        .{ .name = "sizeof(CUdeviceptr)", .value = @sizeOf(driver.Address) },
        .{ .name = "sizeof(CUdevice)", .value = @sizeOf(driver.Device) },
    },
    .structs = &.{
        .{
            .type = driver.LaunchAttribute,
            .name = "CUlaunchAttribute",
            .fields = &.{ "id", "pad", "value" },
        },
        .{ .type = driver.LaunchConfig, .name = "CUlaunchConfig", .fields = &.{
            "gridDimX",  "gridDimY",       "gridDimZ", "blockDimX", "blockDimY",
            "blockDimZ", "sharedMemBytes", "hStream",  "attrs",     "numAttrs",
        } },
    },
};

const cublaslt_library: Library = .{
    .name = "cublaslt",
    .include = "#include <cublasLt.h>\n",
    .table = cublaslt.CublasLt,
    .enums = &.{
        .{ .type = cublaslt.Status, .prefix = "CUBLAS_STATUS_" },
        .{ .type = cublaslt.DataType, .prefix = "CUDA_R_", .others = &.{
            .{ "f32", "CUDA_R_32F" }, .{ "f16", "CUDA_R_16F" }, .{ "bf16", "CUDA_R_16BF" },
            .{ "i8", "CUDA_R_8I" },   .{ "i32", "CUDA_R_32I" },
        } },
        .{ .type = cublaslt.ComputeType, .prefix = "CUBLAS_COMPUTE_", .others = &.{
            .{ "f32", "CUBLAS_COMPUTE_32F" }, .{ "i32", "CUBLAS_COMPUTE_32I" },
        } },
        .{ .type = cublaslt.Operation, .prefix = "CUBLAS_OP_", .others = &.{
            .{ "none", "CUBLAS_OP_N" }, .{ "transpose", "CUBLAS_OP_T" },
        } },
        .{ .type = cublaslt.Order, .prefix = "CUBLASLT_ORDER_", .others = &.{
            .{ "column", "CUBLASLT_ORDER_COL" },
        } },
        .{ .type = cublaslt.Epilogue, .prefix = "CUBLASLT_EPILOGUE_" },
        .{ .type = cublaslt.DescAttribute, .prefix = "CUBLASLT_MATMUL_DESC_" },
        .{ .type = cublaslt.LayoutAttribute, .prefix = "CUBLASLT_MATRIX_LAYOUT_" },
        .{ .type = cublaslt.PreferenceAttribute, .prefix = "CUBLASLT_MATMUL_PREF_" },
    },
    .constants = &.{.{
        .name = "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE",
        .value = cublaslt.reduction_compute_type,
    }},
    .structs = &.{
        .{ .type = cublaslt.Algo, .name = "cublasLtMatmulAlgo_t", .fields = &.{"data"} },
        .{
            .type = cublaslt.HeuristicResult,
            .name = "cublasLtMatmulHeuristicResult_t",
            .fields = &.{ "algo", "workspaceSize", "state", "wavesCount", "reserved" },
        },
    },
};

const cudnn_library: Library = .{
    .name = "cudnn",
    .include = "#include <cudnn.h>\n",
    .table = cudnn.Cudnn,
    .enums = &.{
        .{ .type = cudnn.Status, .prefix = "CUDNN_STATUS_" },
        .{ .type = cudnn.DataType, .prefix = "CUDNN_DATA_", .others = &.{
            .{ "f32", "CUDNN_DATA_FLOAT" },
            .{ "f16", "CUDNN_DATA_HALF" },
            .{ "bf16", "CUDNN_DATA_BFLOAT16" },
        } },
        .{ .type = cudnn.ConvolutionMode, .prefix = "CUDNN_" },
        .{ .type = cudnn.PointwiseMode, .prefix = "CUDNN_POINTWISE_" },
        .{ .type = cudnn.HeurMode, .prefix = "CUDNN_HEUR_MODE_" },
        .{ .type = cudnn.BehaviorNote, .prefix = "CUDNN_BEHAVIOR_NOTE_" },
        .{
            .type = cudnn.DescriptorType,
            .prefix = "CUDNN_BACKEND_",
            .suffix = "_DESCRIPTOR",
            .others = &.{
                .{ "engine_config", "CUDNN_BACKEND_ENGINECFG_DESCRIPTOR" },
                .{ "engine_heuristics", "CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR" },
                .{ "operation_graph", "CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR" },
            },
        },
        .{ .type = cudnn.AttributeType, .prefix = "CUDNN_TYPE_" },
        .{ .type = cudnn.Attribute, .prefix = "CUDNN_ATTR_" },
    },
};

const nccl_library: Library = .{
    .name = "nccl",
    .include = "#include <nccl.h>\n",
    .table = nccl.Nccl,
    .enums = &.{
        .{ .type = nccl.Result, .prefix = "nccl", .spelling = .camel },
        .{ .type = nccl.DataType, .prefix = "nccl", .spelling = .camel },
    },
    .constants = &.{.{ .name = "NCCL_UNIQUE_ID_BYTES", .value = nccl.unique_id_bytes }},
    .structs = &.{
        .{ .type = nccl.UniqueId, .name = "ncclUniqueId", .fields = &.{"internal"} },
    },
};

/// How C++ sees a parameter: by size and by where it is passed. Numbers and pointers travel alike,
/// so an address may be either; what a pointer points to must have our size where we give one.
const prelude =
    \\#include <stddef.h>
    \\template <class T> struct IsFloat { static constexpr bool value = false; };
    \\template <> struct IsFloat<float> { static constexpr bool value = true; };
    \\template <> struct IsFloat<double> { static constexpr bool value = true; };
    \\struct Nothing {};
    \\template <size_t size, bool is_class> struct Word {};
    \\template <size_t size> struct Float {};
    \\template <size_t size> struct Pointer {};
    \\template <class T> struct Target { static constexpr size_t size = sizeof(T); };
    \\template <> struct Target<void> { static constexpr size_t size = 0; };
    \\template <> struct Target<const void> { static constexpr size_t size = 0; };
    \\template <class Ours, class Theirs> struct Same { static constexpr bool value = false; };
    \\template <> struct Same<Nothing, void> { static constexpr bool value = true; };
    \\template <size_t size, bool is_class, class T> struct Same<Word<size, is_class>, T> {
    \\  static constexpr bool value = sizeof(T) == size && !IsFloat<T>::value &&
    \\      __is_class(T) == is_class;
    \\};
    \\template <size_t size, class T> struct Same<Float<size>, T> {
    \\  static constexpr bool value = sizeof(T) == size && IsFloat<T>::value;
    \\};
    \\template <class T> struct Same<Pointer<0>, T *> { static constexpr bool value = true; };
    \\template <size_t size, class T> struct Same<Pointer<size>, T *> {
    \\  static constexpr bool value = Target<T>::size == size || Target<T>::size == 0;
    \\};
    \\template <class... Ours> struct Ours_ {};
    \\template <class Function, class Result, class Parameters> struct Agrees {
    \\  static constexpr bool value = false;
    \\};
    \\template <class R, class... T, class Result, class... Ours>
    \\  requires (sizeof...(T) == sizeof...(Ours))
    \\struct Agrees<R (*)(T...), Result, Ours_<Ours...>> {
    \\  static constexpr bool value = Same<Result, R>::value &&
    \\      (Same<Ours, T>::value && ... && true);
    \\};
    \\
;

/// Returns the number of assertions.
fn write(w: *Writer, comptime library: Library) !usize {
    @setEvalBranchQuota(100_000);
    var count: usize = 0;
    try w.writeAll(library.include);
    try w.writeAll(prelude);
    inline for (library.enums) |each| count += try writeEnum(w, each);
    inline for (library.constants) |constant| {
        try w.print("static_assert((unsigned long long)({s}) == {d}ull);\n", .{
            constant.name, constant.value,
        });
        count += 1;
    }
    inline for (library.structs) |each| count += try writeStruct(w, each);
    inline for (@typeInfo(library.table).@"struct".fields) |field| {
        const function = @typeInfo(@typeInfo(field.type).pointer.child).@"fn";
        try w.print("static_assert(Agrees<decltype(&{s}), ", .{field.name});
        try writeType(w, function.return_type.?);
        try w.writeAll(", Ours_<");
        inline for (function.params, 0..) |param, i| {
            if (i > 0) try w.writeAll(", ");
            try writeType(w, param.type.?);
        }
        try w.print(">>::value, \"{s}\");\n", .{field.name});
        count += 1;
    }
    return count;
}

fn writeEnum(w: *Writer, comptime each: Enum) !usize {
    const fields = @typeInfo(each.type).@"enum".fields;
    inline for (fields) |field| {
        try w.print("static_assert((long long)({s}) == {d});\n", .{
            comptime spell(each, field.name), field.value,
        });
    }
    return fields.len;
}

fn spell(comptime each: Enum, comptime name: []const u8) []const u8 {
    for (each.others) |other| if (std.mem.eql(u8, other[0], name)) return other[1];
    var text: []const u8 = "";
    var is_upper = true;
    for (name) |character| {
        if (each.spelling == .camel and character == '_') {
            is_upper = true;
            continue;
        }
        const upper = each.spelling == .upper or is_upper;
        text = text ++ [_]u8{if (upper) std.ascii.toUpper(character) else character};
        is_upper = false;
    }
    return each.prefix ++ text ++ each.suffix;
}

fn writeStruct(w: *Writer, comptime each: Struct) !usize {
    try w.print("static_assert(sizeof({s}) == {d});\n", .{ each.name, @sizeOf(each.type) });
    inline for (each.fields, @typeInfo(each.type).@"struct".fields) |name, field| {
        const offset = @offsetOf(each.type, field.name);
        const args = .{ each.name, name, offset };
        try w.print("static_assert(offsetof({s}, {s}) == {d});\n", args);
        const size = .{ each.name, name, @sizeOf(field.type) };
        try w.print("static_assert(sizeof((({s} *)nullptr)->{s}) == {d});\n", size);
    }
    return 1 + 2 * each.fields.len;
}

fn writeType(w: *Writer, comptime T: type) !void {
    switch (@typeInfo(T)) {
        .void => try w.writeAll("Nothing"),
        .optional => |optional| try writeType(w, optional.child),
        .float => try w.print("Float<{d}>", .{@sizeOf(T)}),
        .@"struct" => try w.print("Word<{d}, true>", .{@sizeOf(T)}),
        .int, .@"enum" => try w.print("Word<{d}, false>", .{@sizeOf(T)}),
        .pointer => |pointer| try w.print("Pointer<{d}>", .{switch (@typeInfo(pointer.child)) {
            .@"opaque" => 0,
            else => @sizeOf(pointer.child),
        }}),
        else => @compileError("no C type for " ++ @typeName(T)),
    }
}
