//! Errors of the driver and of NVIDIA's libraries: whatever call fails, the message begins with its
//! name, the error code's name and its number. One function of the table after the other is
//! replaced by one that fails.

const std = @import("std");
const backend = @import("../../../backend.zig");
const convolutions = @import("../conv.zig");
const cpu_support = @import("../../cpu/tests/support.zig");
const cudnn = @import("../../../nvidia/cudnn.zig");
const drivers = @import("../../../nvidia/driver.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const library_fixture = @import("../../../emulator/library_fixture.zig");
const lt = @import("../../../nvidia/cublaslt.zig");
const matmuls = @import("../gemm.zig");
const nccl = @import("../../../nvidia/nccl.zig");
const Communicator = @import("../../../transport/communicator.zig").Communicator;
const Endpoint = @import("../../../transport.zig").Endpoint;
const Cuda = @import("../../cuda.zig").Cuda;
const Diagnostics = @import("../../../diagnostics.zig").Diagnostics;
const Gpu = @import("../gpu.zig").Gpu;
const GraphKey = @import("../graph_key.zig").GraphKey;
const LibraryFixture = library_fixture.LibraryFixture;
const Scratch = @import("../../../scratch.zig").Scratch;
const tensors = @import("../../../tensor.zig");
const Tensor = tensors.Tensor;

/// Returns a fixed code, whatever the arguments: the caller removes them, by C's convention.
fn Failing(comptime Code: type, comptime code: Code) type {
    return struct {
        fn call() callconv(.c) Code {
            return code;
        }
    };
}

/// A copy of a table in which one function fails.
fn failing(table: anytype, comptime name: []const u8, comptime code: anytype) @TypeOf(table) {
    var copy = table;
    @field(copy, name) = @ptrCast(&Failing(@TypeOf(code), code).call);
    return copy;
}

fn expectMessage(
    d: *const Diagnostics,
    comptime call: []const u8,
    comptime code: []const u8,
) !void {
    const start = call ++ " failed: " ++ code;
    if (std.mem.startsWith(u8, d.message(), start)) return;
    std.debug.print("expected \"{s}...\", got \"{s}\"\n", .{ start, d.message() });
    return error.TestUnexpectedResult;
}

test "every driver call of a rank's stream" {
    const out_of_memory: drivers.Result = .out_of_memory;
    inline for (.{
        "cuCtxGetCurrent",      "cuStreamCreate",              "cuMemAlloc_v2",
        "cuMemcpyHtoDAsync_v2", "cuModuleGetFunction",         "cuDeviceGetAttribute",
        "cuFuncGetAttribute",   "cuFuncSetAttribute",          "cuLaunchKernel",
        "cuStreamQuery",        "cuMemcpyDtoHAsync_v2",        "cuMemcpyDtoDAsync_v2",
        "cuMemsetD8Async",      "cuMemsetD32Async",            "cuEventCreate",
        "cuEventRecord",        "cuStreamWaitEvent",           "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",   "cuGraphInstantiateWithFlags", "cuGraphLaunch",
        "cuMemHostAlloc",       "cuEventQuery",
    }) |name| {
        var fixture: fixtures.Fixture = try .initQuiet(1);
        defer fixture.deinit();
        const driver = failing(fixture.driver, name, out_of_memory);
        var diagnostics: Diagnostics = .{};
        const result = runStream(&fixture, &driver, &diagnostics);
        try std.testing.expectError(error.GpuFailed, result);
        try expectMessage(&diagnostics, name, "CUDA_ERROR_OUT_OF_MEMORY (2), out of memory");
    }
}

test "a kernel behind a kernel is a dependent launch where that is on, and not behind a copy" {
    for ([_]bool{ true, false }) |is_on| {
        var fixture: fixtures.Fixture = try .initQuiet(2);
        defer fixture.deinit();
        // Older GPUs have no such launches.
        defer fixture.emulator.bxl_emulator_set_capability(0);
        fixture.emulator.bxl_emulator_set_capability(90);
        const out_of_memory: drivers.Result = .out_of_memory;
        const driver = failing(fixture.driver, "cuLaunchKernelEx", out_of_memory);
        var diagnostics: Diagnostics = .{};
        const cuda: *Cuda = try .init(std.testing.allocator, .{
            .driver = &driver,
            .device = fixture.device,
            .module = fixture.module,
            .activation = .f16,
            .weights_base = 0,
            .diagnostics = &diagnostics,
            .cancelled = &cpu_support.not_cancelled,
            .dependent_launches = is_on,
        });
        defer cuda.deinit();
        const shape: tensors.Shape = .vector(1, 64);
        const x: Tensor = .{ .address = try fixture.alloc(f16, 64), .shape = shape, .dtype = .f16 };
        for (0..2) |_| {
            try cuda.upload(x, &@as([128]u8, @splat(0)));
            try cuda.add(x, x, x, 1);
        }
        if (!is_on) {
            try cuda.add(x, x, x, 1);
            continue;
        }
        try std.testing.expectError(error.GpuFailed, cuda.add(x, x, x, 1));
        try expectMessage(&diagnostics, "cuLaunchKernelEx", "CUDA_ERROR_OUT_OF_MEMORY");
    }
}

/// Every kind of call that a rank makes, through the methods that make it.
fn runStream(
    fixture: *fixtures.Fixture,
    driver: *const drivers.Driver,
    diagnostics: *Diagnostics,
) !void {
    const cuda: *Cuda = try .init(std.testing.allocator, .{
        .driver = driver,
        .device = fixture.device,
        .module = fixture.module,
        .activation = .f16,
        .weights_base = 0,
        .diagnostics = diagnostics,
        .cancelled = &cpu_support.not_cancelled,
    });
    defer {
        // Where the end of the capture is what fails, the stream would go on capturing.
        var graph: ?drivers.Graph = null;
        _ = fixture.driver.cuStreamEndCapture(cuda.stream, &graph);
        cuda.driver = &fixture.driver;
        cuda.deinit();
    }
    var scratch: Scratch = .planning();
    scratch.base = try fixture.alloc(u8, 4096);
    scratch.capacity = 4096;
    const b: backend.Backend = .{ .scratch = &scratch, .device = .{ .cuda = cuda } };
    const x = try b.upload(.vector(1, 64), .f32, &@as([256]u8, @splat(0)));
    const y = try b.alloc(.vector(1, 64), .f32);
    try b.zero(y.address, 256);
    try std.testing.expect(try b.isFinite(x));
    try recordAndWait(cuda);
    for (0..3) |_| try b.runGraphed(.of(.unet, x, .{}), copyOnce, .{ b, y, x });
    var bytes: [256]u8 = undefined;
    try b.download(y, &bytes);
}

/// The events are made first and destroyed last, whichever call fails.
fn recordAndWait(cuda: *Cuda) !void {
    var endpoint: Endpoint = try .open(cuda);
    defer endpoint.close();
    try endpoint.record(.gather_written, cuda.stream);
    try endpoint.waitFor(cuda.exchange_streams[0], &endpoint, .gather_written);
}

fn copyOnce(b: backend.Backend, y: Tensor, x: Tensor) backend.Error!void {
    try b.copy(y, x);
}

test "every driver call of opening a GPU" {
    const invalid: drivers.Result = .invalid_value;
    inline for (.{
        "cuDeviceGet",           "cuDeviceGetAttribute",  "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",       "cuModuleLoadData",      "cuMemGetInfo_v2",
        "cuDeviceCanAccessPeer", "cuCtxEnablePeerAccess", "cuMemAlloc_v2",
        "cuStreamCreate",
    }) |name| {
        var fixture: fixtures.Fixture = try .initQuiet(1);
        defer fixture.deinit();
        const driver = failing(fixture.driver, name, invalid);
        var diagnostics: Diagnostics = .{};
        try std.testing.expectError(error.GpuFailed, openGpus(&driver, &diagnostics));
        try expectMessage(&diagnostics, name, "CUDA_ERROR_INVALID_VALUE (1), ");
    }
}

fn openGpus(driver: *const drivers.Driver, diagnostics: *Diagnostics) !void {
    var first: Gpu = try .open(driver, 0, diagnostics);
    defer first.close();
    var second: Gpu = try .open(driver, 1, diagnostics);
    defer second.close();
    _ = try first.freeBytes();
    try first.reach(&second);
    _ = driver.cuCtxDisablePeerAccess(second.context);
    const address = try first.allocate(64);
    _ = driver.cuMemFree_v2(address);
}

test "every cuBLASLt call of a matrix product" {
    const status: lt.Status = .alloc_failed;
    inline for (.{
        "cublasLtCreate",
        "cublasLtMatmulDescCreate",
        "cublasLtMatmulDescSetAttribute",
        "cublasLtMatrixLayoutCreate",
        "cublasLtMatmulPreferenceCreate",
        "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmul",
    }) |name| {
        var l: LibraryFixture = try .init(1, null);
        defer l.deinit();
        l.libraries.cublaslt = failing(l.libraries.cublaslt, name, status);
        try std.testing.expectError(error.GpuFailed, multiply(&l));
        try expectMessage(&l.diagnostics, name, "CUBLAS_STATUS_ALLOC_FAILED (3), ");
    }
}

fn multiply(l: *LibraryFixture) !void {
    var matmul: matmuls.Matmul = try .open(std.testing.allocator, .{
        .driver = &l.fixture.driver,
        .library = &l.libraries.cublaslt,
        .algorithms = l.algorithms,
        .diagnostics = &l.diagnostics,
        .workspace = l.workspace,
        .workspace_bytes = library_fixture.workspace_bytes,
        .may_measure = false,
    });
    defer matmul.close();
    const x = try l.fixture.alloc(u16, 64);
    try matmul.run(l.fixture.stream, .{
        .m = 8,
        .n = 8,
        .k = 8,
        .input = .f16,
        .output = .f16,
        .out = try l.fixture.alloc(u16, 64),
        .x = x,
        .w = x,
    });
}

test "every cuDNN call of a convolution" {
    const status: cudnn.Status = .execution_failed;
    inline for (.{
        "cudnnCreate",
        "cudnnSetStream",
        "cudnnBackendCreateDescriptor",
        "cudnnBackendSetAttribute",
        "cudnnBackendGetAttribute",
        "cudnnBackendFinalize",
        "cudnnBackendExecute",
    }) |name| {
        var l: LibraryFixture = try .init(1, null);
        defer l.deinit();
        l.libraries.cudnn = failing(l.libraries.cudnn, name, status);
        try std.testing.expectError(error.GpuFailed, convolve(&l));
        const is_read = comptime std.mem.eql(u8, name, "cudnnBackendGetAttribute");
        // Without its heuristics there is no engine, which is what is reported at last.
        const code = if (is_read) "CUDNN_STATUS_" else "CUDNN_STATUS_EXECUTION_FAILED (5000)";
        const call = if (is_read) "cudnnBackendFinalize" else name;
        try expectMessage(&l.diagnostics, call, code);
    }
}

fn convolve(l: *LibraryFixture) !void {
    var convolution: convolutions.Convolution = try .open(std.testing.allocator, .{
        .driver = &l.fixture.driver,
        .library = &l.libraries.cudnn,
        .algorithms = l.algorithms,
        .diagnostics = &l.diagnostics,
        .workspace = l.workspace,
        .workspace_bytes = library_fixture.workspace_bytes,
        .may_measure = false,
    });
    defer convolution.close();
    const x = try l.fixture.alloc(u16, 64);
    _ = try convolution.run(l.fixture.stream, .{
        .batch = 1,
        .rows = 2,
        .width = 2,
        .channels = 8,
        .out_channels = 8,
        .kernel = 1,
        .stride = 1,
        .padding = 0,
        .dtype = .f16,
        .out = try l.fixture.alloc(u16, 64),
        .x = x,
        .w = x,
    });
}

test "every NCCL call of opening a communicator and of an exchange" {
    const result: nccl.Result = .system_error;
    inline for (.{
        "ncclGetUniqueId", "ncclGroupStart", "ncclCommInitRank", "ncclGroupEnd",
        "ncclSend",        "ncclRecv",
    }) |name| {
        var l: LibraryFixture = try .init(1, null);
        defer l.deinit();
        const table = l.libraries.nccl.?;
        const broken = failing(table, name, result);
        try std.testing.expectError(error.GpuFailed, exchange(&l, &broken));
        try expectMessage(&l.diagnostics, name, "ncclSystemError (2), ");
        // No failure leaves a group open.
        const is_end = comptime std.mem.eql(u8, name, "ncclGroupEnd");
        if (!is_end) try std.testing.expectEqual(.invalid_usage, table.ncclGroupEnd());
        if (is_end) _ = table.ncclGroupEnd();
    }
}

fn exchange(l: *LibraryFixture, library: *const nccl.Nccl) !void {
    var communicators: [1]Communicator = undefined;
    const contexts = [_]drivers.Context{l.fixture.context};
    const members: Communicator.Members = .{ .rank_count = 1, .rank_first = 0, .id = null };
    const driver = &l.fixture.driver;
    const d = &l.diagnostics;
    try Communicator.openAll(library, driver, &contexts, members, &communicators, d);
    defer communicators[0].abort();
    const x = try l.fixture.alloc(u8, 64);
    try communicators[0].begin();
    {
        errdefer communicators[0].drop();
        try communicators[0].send(x, 64, 0, l.fixture.stream);
        try communicators[0].receive(x, 64, 0, l.fixture.stream);
    }
    try communicators[0].end(1);
}
