//! The CUDA backend: each operation of `backend.zig` becomes launches on one stream of one GPU.
//! Operations neither allocate nor wait, so that a CUDA graph can take them down; only downloads
//! and `isFinite` wait for the stream.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const drivers = @import("../cuda/driver.zig");
const Driver = drivers.Driver;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;
const Weight = @import("../weights.zig").Weight;

pub const Error = error{ Cancelled, GpuFailed };

/// Device bytes that one operation may use between its own launches (`Cuda.partials`).
pub const partial_bytes = 4 << 20;

/// Whether a kernel's name ends in the activations' type.
pub const Typed = enum { typed, untyped };

pub const Dim3 = struct { x: u32 = 1, y: u32 = 1, z: u32 = 1 };

/// Kernels that are known by name; more than there are.
const function_count_max = 256;

pub const Options = struct {
    driver: *const Driver,
    /// Whose primary context is current.
    device: drivers.Device,
    module: drivers.Module,
    /// Of the activations: f16 or bf16.
    activation: DType,
    /// Where this GPU keeps the weights.
    weights_base: usize,
    diagnostics: *Diagnostics,
    /// Looked at before each launch.
    cancelled: *const std.atomic.Value(bool),
};

/// One rank's queue on a GPU: used by one thread at a time, in whose context it was opened.
pub const Cuda = struct {
    gpa: Allocator,
    driver: *const Driver,
    device: drivers.Device,
    module: drivers.Module,
    stream: drivers.Stream,
    activation: DType,
    weights_base: usize,
    /// `partial_bytes` of device memory for sums inside one operation, in stream order.
    partials: usize,
    diagnostics: *Diagnostics,
    cancelled: *const std.atomic.Value(bool),
    /// Found at their first launch, by the address of their name.
    function_names: [function_count_max][*]const u8 = undefined,
    functions: [function_count_max]drivers.Function = undefined,
    function_count: usize = 0,

    /// The GPU's context must be current.
    pub fn init(gpa: Allocator, options: Options) (Allocator.Error || Error)!*Cuda {
        assert(options.activation == .f16 or options.activation == .bf16);
        const cuda = try gpa.create(Cuda);
        errdefer gpa.destroy(cuda);
        cuda.* = .{
            .gpa = gpa,
            .driver = options.driver,
            .device = options.device,
            .module = options.module,
            .stream = undefined,
            .activation = options.activation,
            .weights_base = options.weights_base,
            .partials = 0,
            .diagnostics = options.diagnostics,
            .cancelled = options.cancelled,
        };
        const d = cuda.driver;
        var stream: ?drivers.Stream = null;
        try cuda.check(d.cuStreamCreate(&stream, drivers.stream_non_blocking), "a stream");
        cuda.stream = stream.?;
        errdefer _ = d.cuStreamDestroy_v2(cuda.stream);
        try cuda.check(d.cuMemAlloc_v2(&cuda.partials, partial_bytes), "memory for sums");
        return cuda;
    }

    pub fn deinit(cuda: *Cuda) void {
        _ = cuda.driver.cuMemFree_v2(cuda.partials);
        _ = cuda.driver.cuStreamDestroy_v2(cuda.stream);
        cuda.gpa.destroy(cuda);
    }

    /// Queues a kernel by name, with "_f16" or "_bf16" appended where `typed`. `args` is a tuple in
    /// the kernel's order, each of the kernel's own type (u32, u64, f32; usize for pointers; extern
    /// structs by value).
    pub fn launch(
        cuda: *Cuda,
        comptime name: [:0]const u8,
        comptime typed: Typed,
        grid: Dim3,
        block: Dim3,
        shared_bytes: u32,
        args: anytype,
    ) Error!void {
        if (cuda.cancelled.load(.monotonic)) return error.Cancelled;
        const f16_name = if (typed == .typed) name ++ "_f16" else name;
        const bf16_name = if (typed == .typed) name ++ "_bf16" else name;
        const full: [:0]const u8 = if (cuda.activation == .bf16) bf16_name else f16_name;
        const function = try cuda.functionOf(full);
        var values: std.meta.Tuple(&fieldTypes(@TypeOf(args))) = args;
        var pointers: [values.len]?*anyopaque = undefined;
        inline for (&pointers, 0..) |*pointer, i| pointer.* = @ptrCast(&values[i]);
        const result = cuda.driver.cuLaunchKernel(
            function,
            grid.x,
            grid.y,
            grid.z,
            block.x,
            block.y,
            block.z,
            shared_bytes,
            cuda.stream,
            &pointers,
            null,
        );
        try cuda.check(result, full);
    }

    pub fn addressOf(cuda: *const Cuda, weight: *const Weight) usize {
        return cuda.weights_base + weight.device_offset;
    }

    /// Waits for everything that was queued.
    pub fn synchronize(cuda: *Cuda) Error!void {
        try cuda.check(cuda.driver.cuStreamSynchronize(cuda.stream), "its queue");
    }

    /// A failure of the driver becomes the job's sentence; `what` says what was asked of it.
    pub fn check(cuda: *Cuda, result: drivers.Result, what: []const u8) error{GpuFailed}!void {
        if (result == .success) return;
        return cuda.diagnostics.fail(error.GpuFailed, "The GPU failed at {s}: {s} ({s}).", .{
            what, cuda.driver.describe(result), cuda.driver.nameOf(result),
        });
    }

    // --- internal ---

    fn functionOf(cuda: *Cuda, name: [:0]const u8) Error!drivers.Function {
        for (cuda.function_names[0..cuda.function_count], 0..) |known, i| {
            if (known == name.ptr) return cuda.functions[i];
        }
        assert(cuda.function_count < function_count_max);
        const d = cuda.driver;
        var found: ?drivers.Function = null;
        try cuda.check(d.cuModuleGetFunction(&found, cuda.module, name), name);
        const function = found.?;
        try cuda.allowSharedMemory(function, name);
        cuda.function_names[cuda.function_count] = name.ptr;
        cuda.functions[cuda.function_count] = function;
        cuda.function_count += 1;
        return function;
    }

    /// More than 48 KiB of dynamic shared memory must be asked for; how much there is beside the
    /// kernel's own differs from GPU to GPU.
    fn allowSharedMemory(cuda: *Cuda, function: drivers.Function, name: []const u8) Error!void {
        const d = cuda.driver;
        var most: c_int = 0;
        var own: c_int = 0;
        const optin: drivers.DeviceAttribute = .max_shared_memory_per_block_optin;
        try cuda.check(d.cuDeviceGetAttribute(&most, optin, cuda.device), name);
        try cuda.check(d.cuFuncGetAttribute(&own, .shared_size_bytes, function), name);
        const wanted: drivers.FunctionAttribute = .max_dynamic_shared_size_bytes;
        try cuda.check(d.cuFuncSetAttribute(function, wanted, most - own), name);
    }
};

/// Numbers written without a type have none here: a kernel's argument must say its own.
fn fieldTypes(comptime Args: type) [@typeInfo(Args).@"struct".fields.len]type {
    const fields = @typeInfo(Args).@"struct".fields;
    var types: [fields.len]type = undefined;
    for (&types, fields) |*T, field| {
        if (field.type == comptime_int or field.type == comptime_float) {
            @compileError("A kernel's argument needs a type, as in @as(u32, 1).");
        }
        T.* = field.type;
    }
    return types;
}

test {
    std.testing.refAllDecls(Cuda);
}
