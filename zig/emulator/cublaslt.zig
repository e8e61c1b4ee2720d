//! cuBLASLt on the CPU: descriptors kept as the library keeps them, checks as strict as its own,
//! and a plain product when the stream comes to it. Its algorithms differ in the workspace and the
//! alignment that they need and give the same bits.

const std = @import("std");
const lt = @import("../nvidia/cublaslt.zig");
const driver = @import("../nvidia/driver.zig");
const library = @import("library.zig");
const products = @import("cublaslt_product.zig");
const Status = lt.Status;

const emulated_version = 130101;

const Handle = struct { device: u32 };

pub const Desc = struct {
    compute: lt.ComputeType,
    scale: lt.DataType,
    transa: lt.Operation = .none,
    transb: lt.Operation = .none,
    epilogue: lt.Epilogue = .default,
    bias: usize = 0,
};

pub const Layout = struct {
    dtype: lt.DataType,
    rows: u64,
    columns: u64,
    ld: i64,
    order: lt.Order = .column,
    batch_count: i32 = 1,
    batch_step: i64 = 0,
};

const Preference = struct {
    workspace_bytes: u64 = 0,
    reductions: u32 = 7,
    alignments: [4]u32 = @splat(256),
};

export fn cublasLtGetVersion() usize {
    return emulated_version;
}

export fn cublasLtGetStatusString(status: Status) ?[*:0]const u8 {
    return switch (status) {
        .success => "CUBLAS_STATUS_SUCCESS",
        .not_initialized => "CUBLAS_STATUS_NOT_INITIALIZED",
        .alloc_failed => "CUBLAS_STATUS_ALLOC_FAILED",
        .invalid_value => "CUBLAS_STATUS_INVALID_VALUE",
        .execution_failed => "CUBLAS_STATUS_EXECUTION_FAILED",
        .not_supported => "CUBLAS_STATUS_NOT_SUPPORTED",
        else => "CUBLAS_STATUS_INTERNAL_ERROR",
    };
}

export fn cublasLtCreate(handle: ?*?lt.Handle) Status {
    const out = handle orelse return .invalid_value;
    const device = library.currentDevice() orelse return .not_initialized;
    return create(Handle, .{ .device = device }, @ptrCast(out));
}

export fn cublasLtDestroy(handle: ?lt.Handle) Status {
    return destroy(Handle, handle);
}

export fn cublasLtMatmulDescCreate(
    desc: ?*?lt.Desc,
    compute: lt.ComputeType,
    scale: lt.DataType,
) Status {
    const out = desc orelse return .invalid_value;
    return create(Desc, .{ .compute = compute, .scale = scale }, @ptrCast(out));
}

export fn cublasLtMatmulDescDestroy(desc: ?lt.Desc) Status {
    return destroy(Desc, desc);
}

export fn cublasLtMatmulDescSetAttribute(
    handle: ?lt.Desc,
    attribute: lt.DescAttribute,
    value: ?*const anyopaque,
    bytes: usize,
) Status {
    const desc = of(Desc, handle) orelse return .invalid_value;
    const from = bytesOf(value, bytes) orelse return .invalid_value;
    return switch (attribute) {
        .transa => assign(lt.Operation, &desc.transa, from),
        .transb => assign(lt.Operation, &desc.transb, from),
        .epilogue => assign(lt.Epilogue, &desc.epilogue, from),
        .bias_pointer => assign(usize, &desc.bias, from),
        else => .invalid_value,
    };
}

export fn cublasLtMatrixLayoutCreate(
    layout: ?*?lt.Layout,
    dtype: lt.DataType,
    rows: u64,
    columns: u64,
    ld: i64,
) Status {
    const out = layout orelse return .invalid_value;
    const made: Layout = .{ .dtype = dtype, .rows = rows, .columns = columns, .ld = ld };
    return create(Layout, made, @ptrCast(out));
}

export fn cublasLtMatrixLayoutDestroy(layout: ?lt.Layout) Status {
    return destroy(Layout, layout);
}

export fn cublasLtMatrixLayoutSetAttribute(
    handle: ?lt.Layout,
    attribute: lt.LayoutAttribute,
    value: ?*const anyopaque,
    bytes: usize,
) Status {
    const layout = of(Layout, handle) orelse return .invalid_value;
    const from = bytesOf(value, bytes) orelse return .invalid_value;
    return switch (attribute) {
        .order => assign(lt.Order, &layout.order, from),
        .ld => assign(i64, &layout.ld, from),
        .batch_count => assign(i32, &layout.batch_count, from),
        .strided_batch_offset => assign(i64, &layout.batch_step, from),
        else => .invalid_value,
    };
}

export fn cublasLtMatmulPreferenceCreate(preference: ?*?lt.Preference) Status {
    const out = preference orelse return .invalid_value;
    return create(Preference, .{}, @ptrCast(out));
}

export fn cublasLtMatmulPreferenceDestroy(preference: ?lt.Preference) Status {
    return destroy(Preference, preference);
}

export fn cublasLtMatmulPreferenceSetAttribute(
    handle: ?lt.Preference,
    attribute: lt.PreferenceAttribute,
    value: ?*const anyopaque,
    bytes: usize,
) Status {
    const preference = of(Preference, handle) orelse return .invalid_value;
    const from = bytesOf(value, bytes) orelse return .invalid_value;
    return switch (attribute) {
        .max_workspace_bytes => assign(u64, &preference.workspace_bytes, from),
        .reduction_scheme_mask => assign(u32, &preference.reductions, from),
        .min_alignment_a_bytes => assign(u32, &preference.alignments[0], from),
        .min_alignment_b_bytes => assign(u32, &preference.alignments[1], from),
        .min_alignment_c_bytes => assign(u32, &preference.alignments[2], from),
        .min_alignment_d_bytes => assign(u32, &preference.alignments[3], from),
        else => .invalid_value,
    };
}

export fn cublasLtMatmulAlgoGetHeuristic(
    handle: ?lt.Handle,
    desc_handle: ?lt.Desc,
    a: ?lt.Layout,
    b: ?lt.Layout,
    c: ?lt.Layout,
    d: ?lt.Layout,
    preference_handle: ?lt.Preference,
    requested: c_int,
    results: ?[*]lt.HeuristicResult,
    returned: ?*c_int,
) Status {
    const out = results orelse return .invalid_value;
    const count = returned orelse return .invalid_value;
    count.* = 0;
    if (of(Handle, handle) == null) return .not_initialized;
    if (requested <= 0) return .invalid_value;
    const preference = of(Preference, preference_handle) orelse return .invalid_value;
    const shape = switch (describe(desc_handle, .{ a, b, c, d })) {
        .refused => |status| return status,
        .shape => |shape| shape,
    };
    var least: u32 = 256;
    for (preference.alignments) |alignment| least = @min(least, alignment);
    // Half-precision sums were not asked for: there are none to offer anyway.
    for (0..algorithms.len) |id| {
        const result = resultOf(&shape, id);
        if (algorithms[id].alignment > least) continue;
        if (result.workspace_size > preference.workspace_bytes) continue;
        if (count.* == requested) break;
        out[@intCast(count.*)] = result;
        count.* += 1;
    }
    return if (count.* > 0) .success else .not_supported;
}

export fn cublasLtMatmulAlgoCheck(
    handle: ?lt.Handle,
    desc_handle: ?lt.Desc,
    a: ?lt.Layout,
    b: ?lt.Layout,
    c: ?lt.Layout,
    d: ?lt.Layout,
    algo: ?*const lt.Algo,
    result: ?*lt.HeuristicResult,
) Status {
    const out = result orelse return .invalid_value;
    if (of(Handle, handle) == null) return .not_initialized;
    const id = idOf(algo orelse return .invalid_value) orelse return .invalid_value;
    const shape = switch (describe(desc_handle, .{ a, b, c, d })) {
        .refused => |status| return status,
        .shape => |shape| shape,
    };
    out.* = resultOf(&shape, id);
    return .success;
}

export fn cublasLtMatmul(
    handle: ?lt.Handle,
    desc_handle: ?lt.Desc,
    alpha: ?*const u32,
    a: usize,
    a_layout: ?lt.Layout,
    b: usize,
    b_layout: ?lt.Layout,
    beta: ?*const u32,
    c: usize,
    c_layout: ?lt.Layout,
    d: usize,
    d_layout: ?lt.Layout,
    algo: ?*const lt.Algo,
    workspace: usize,
    workspace_bytes: usize,
    stream: ?driver.Stream,
) Status {
    const owner = of(Handle, handle) orelse return .not_initialized;
    const layouts = .{ a_layout, b_layout, c_layout, d_layout };
    const shape = switch (describe(desc_handle, layouts)) {
        .refused => |status| return status,
        .shape => |shape| shape,
    };
    // Without an algorithm the library asks its own heuristics.
    const id = if (algo) |given| idOf(given) orelse return .invalid_value else plain_algorithm;
    var call: products.Call = .{
        .shape = shape,
        .alpha = factorOf(&shape, (alpha orelse return .invalid_value).*),
        .beta = factorOf(&shape, (beta orelse return .invalid_value).*),
        .addresses = .{ a, b, c, d },
        .bias = of(Desc, desc_handle).?.bias,
        .workspace = workspace,
        .workspace_bytes = resultOf(&shape, id).workspace_size,
    };
    const refusal = call.refuse(algorithms[id].alignment, workspace_bytes);
    if (refusal != .success) return refusal;
    const queue = stream orelse return .invalid_value;
    if (library.deviceOf(queue) != owner.device) return .invalid_value;
    return call.enqueue(queue, owner.device);
}

// --- internal ---

/// Where an algorithm reads vectors of 16 bytes, addresses must be multiples of them.
const Algorithm = struct { alignment: u32, bytes_per_element: usize };
const algorithms = [_]Algorithm{
    // Splits the depth: two f32 sums per element of the output.
    .{ .alignment = 16, .bytes_per_element = 8 },
    .{ .alignment = 16, .bytes_per_element = 0 },
    .{ .alignment = 4, .bytes_per_element = 0 },
    .{ .alignment = 2, .bytes_per_element = 4 },
    .{ .alignment = 2, .bytes_per_element = 0 },
};
const plain_algorithm = 2;
/// Events an algorithm's data as this library's.
const algorithm_magic = 0x656d_756c_6174_6564;

fn resultOf(shape: *const products.Shape, id: usize) lt.HeuristicResult {
    const elements = shape.m * shape.n * shape.batch_count;
    return .{
        .algo = .{ .data = .{ algorithm_magic, id, 0, 0, 0, 0, 0, 0 } },
        .workspace_size = elements * algorithms[id].bytes_per_element,
        .state = .success,
        .waves_count = 1,
        .reserved = @splat(0),
    };
}

fn idOf(algo: *const lt.Algo) ?usize {
    if (algo.data[0] != algorithm_magic or algo.data[1] >= algorithms.len) return null;
    return @intCast(algo.data[1]);
}

/// A factor as the call has it: of the descriptor's scale type.
fn factorOf(shape: *const products.Shape, bits: u32) f32 {
    if (!shape.is_integer) return @bitCast(bits);
    return @floatFromInt(@as(i32, @bitCast(bits)));
}

const Description = union(enum) { refused: Status, shape: products.Shape };

fn describe(desc_handle: ?lt.Desc, handles: [4]?lt.Layout) Description {
    const desc = of(Desc, desc_handle) orelse return .{ .refused = .invalid_value };
    var layouts: [4]Layout = undefined;
    for (&layouts, handles) |*layout, handle| {
        layout.* = (of(Layout, handle) orelse return .{ .refused = .invalid_value }).*;
    }
    var shape: products.Shape = undefined;
    const status = shape.init(desc.*, layouts);
    return if (status == .success) .{ .shape = shape } else .{ .refused = status };
}

fn bytesOf(value: ?*const anyopaque, bytes: usize) ?[]const u8 {
    return @as([*]const u8, @ptrCast(value orelse return null))[0..bytes];
}

/// Sets a value of the size that the caller passed.
fn assign(comptime T: type, target: *T, from: []const u8) Status {
    if (from.len != @sizeOf(T)) return .invalid_value;
    @memcpy(std.mem.asBytes(target), from);
    return .success;
}

/// What a handle points to, if it is one of `T` and alive.
fn Box(comptime T: type) type {
    return struct { magic: u64, value: T };
}

fn magicOf(comptime T: type) u64 {
    return std.hash.Wyhash.hash(0, @typeName(T));
}

fn create(comptime T: type, value: T, out: *?*anyopaque) Status {
    const box = library.allocator.create(Box(T)) catch return .alloc_failed;
    box.* = .{ .magic = magicOf(T), .value = value };
    out.* = box;
    return .success;
}

fn of(comptime T: type, handle: anytype) ?*T {
    const box: *Box(T) = @ptrCast(@alignCast(handle orelse return null));
    return if (box.magic == magicOf(T)) &box.value else null;
}

/// The memory of what is destroyed is kept, so that a late use of its handle is refused.
fn destroy(comptime T: type, handle: anytype) Status {
    if (handle == null) return .success;
    if (of(T, handle) == null) return .invalid_value;
    const box: *Box(T) = @ptrCast(@alignCast(handle.?));
    box.magic = 0;
    return .success;
}
