//! What tests of the emulated driver need around a call: the library opened as the product opens
//! NVIDIA's, a context, streams, memory and launches by name.

const std = @import("std");
const dynamic = @import("../nvidia/dynamic.zig");
const drivers = @import("../nvidia/driver.zig");
const kernels = @import("../nvidia/kernels.zig");
const Result = drivers.Result;
const library_path = std.fmt.comptimePrint("{s}", .{@import("emulator").library_path});

pub const Emulator = struct {
    bxl_emulator_configure: *const fn (seed: u64, gpu_count: u32) callconv(.c) c_int,
    bxl_emulator_bytes_to_gpu: *const fn (gpu: u32, is_pinned: bool) callconv(.c) u64,
    bxl_emulator_set_capability: *const fn (capability: u32) callconv(.c) void,
    bxl_emulator_set_driver: *const fn (version: u32) callconv(.c) void,
    bxl_emulator_set_memory: *const fn (bytes: u64) callconv(.c) void,
    bxl_emulator_share_memory: *const fn (bytes_min: u64) callconv(.c) void,
    bxl_emulator_set_peers: *const fn (possible: bool) callconv(.c) void,
    bxl_emulator_set_quiet: *const fn (is_quiet: bool) callconv(.c) void,
    bxl_emulator_last_report: *const fn () callconv(.c) [*:0]const u8,
};

pub const Fixture = struct {
    driver: drivers.Driver,
    emulator: Emulator,
    device: c_int,
    context: drivers.Context,
    module: drivers.Module,
    stream: drivers.Stream,

    /// GPU 0 of two.
    pub fn init(seed: u64) !Fixture {
        return initOn(0, seed);
    }

    /// For tests that mean to fail.
    pub fn initQuiet(seed: u64) !Fixture {
        const fixture: Fixture = try .initOn(0, seed);
        fixture.emulator.bxl_emulator_set_quiet(true);
        return fixture;
    }

    pub fn initOn(device: c_int, seed: u64) !Fixture {
        const library = dynamic.open(library_path) orelse {
            std.debug.print("{s}\n", .{dynamic.lastError()});
            return error.LibraryMissing;
        };
        var missing: []const u8 = "";
        var fixture: Fixture = .{
            .driver = try dynamic.load(drivers.Driver, library, &missing),
            .emulator = try dynamic.load(Emulator, library, &missing),
            .device = device,
            .context = undefined,
            .module = undefined,
            .stream = undefined,
        };
        const d = &fixture.driver;
        try ok(d.cuInit(0));
        try std.testing.expectEqual(0, fixture.emulator.bxl_emulator_configure(seed, 2));
        var context: ?drivers.Context = null;
        try ok(d.cuDevicePrimaryCtxRetain(&context, device));
        fixture.context = context.?;
        try fixture.use();
        try fixture.expectChosenGpu();
        var module: ?drivers.Module = null;
        try ok(d.cuModuleLoadData(&module, kernels.image.ptr));
        fixture.module = module.?;
        fixture.stream = try fixture.makeStream();
        return fixture;
    }

    /// No test before this one left another GPU than was chosen for the run.
    fn expectChosenGpu(fixture: *const Fixture) !void {
        const name = std.c.getenv("BASEDXL_EMULATOR_GPU") orelse "sm_90";
        const expected = try std.fmt.parseInt(c_int, std.mem.span(name)["sm_".len..], 10);
        const get = fixture.driver.cuDeviceGetAttribute;
        var major: c_int = 0;
        var minor: c_int = 0;
        try ok(get(&major, .compute_capability_major, fixture.device));
        try ok(get(&minor, .compute_capability_minor, fixture.device));
        try std.testing.expectEqual(expected, 10 * major + minor);
    }

    /// Whatever failed goes with the context.
    pub fn deinit(fixture: *Fixture) void {
        defer fixture.emulator.bxl_emulator_set_quiet(false);
        fixture.use() catch {};
        _ = fixture.driver.cuStreamDestroy_v2(fixture.stream);
        _ = fixture.driver.cuModuleUnload(fixture.module);
        _ = fixture.driver.cuDevicePrimaryCtxRelease_v2(fixture.device);
    }

    /// Calls of this thread mean this fixture's GPU from here on.
    pub fn use(fixture: *const Fixture) !void {
        try ok(fixture.driver.cuCtxSetCurrent(fixture.context));
    }

    pub fn makeStream(fixture: *const Fixture) !drivers.Stream {
        var stream: ?drivers.Stream = null;
        try ok(fixture.driver.cuStreamCreate(&stream, drivers.stream_non_blocking));
        return stream.?;
    }

    pub fn makeEvent(fixture: *const Fixture) !drivers.Event {
        var event: ?drivers.Event = null;
        try ok(fixture.driver.cuEventCreate(&event, 0));
        return event.?;
    }

    /// Fresh memory, as poisoned as it comes.
    pub fn alloc(fixture: *const Fixture, comptime T: type, count: usize) !usize {
        var address: usize = 0;
        try ok(fixture.driver.cuMemAlloc_v2(&address, count * @sizeOf(T)));
        return address;
    }

    pub fn upload(fixture: *const Fixture, comptime T: type, values: []const T) !usize {
        const address = try fixture.alloc(T, values.len);
        try ok(fixture.driver.cuMemcpyHtoD_v2(address, values.ptr, values.len * @sizeOf(T)));
        // What comes next may be on a stream that does not wait for the copy.
        try ok(fixture.driver.cuCtxSynchronize());
        return address;
    }

    /// Waits for nothing but the copy itself, as the driver does.
    pub fn download(fixture: *const Fixture, comptime T: type, address: usize, values: []T) !void {
        try ok(fixture.driver.cuMemcpyDtoH_v2(values.ptr, address, values.len * @sizeOf(T)));
    }

    pub const Shape = struct { grid: u32 = 1, block: u32 = 1, shared_bytes: u32 = 0 };

    /// Arguments in the kernel's order, each of the kernel's own type.
    pub fn launchOn(
        fixture: *const Fixture,
        stream: drivers.Stream,
        name: [*:0]const u8,
        shape: Shape,
        arguments: anytype,
    ) !Result {
        return fixture.launchWith(stream, name, shape, &.{}, arguments);
    }

    /// With attributes of the launch.
    pub fn launchWith(
        fixture: *const Fixture,
        stream: drivers.Stream,
        name: [*:0]const u8,
        shape: Shape,
        attributes: []const drivers.LaunchAttribute,
        arguments: anytype,
    ) !Result {
        var function: ?drivers.Function = null;
        try ok(fixture.driver.cuModuleGetFunction(&function, fixture.module, name));
        var values: [arguments.len][8]u8 align(8) = undefined;
        var pointers: [arguments.len]?*anyopaque = undefined;
        inline for (arguments, &values, &pointers) |argument, *value, *pointer| {
            @memcpy(value[0..@sizeOf(@TypeOf(argument))], std.mem.asBytes(&argument));
            pointer.* = value;
        }
        const config: drivers.LaunchConfig = .{
            .grid_x = shape.grid,
            .grid_y = 1,
            .grid_z = 1,
            .block_x = shape.block,
            .block_y = 1,
            .block_z = 1,
            .shared_bytes = shape.shared_bytes,
            .stream = stream,
            .attributes = attributes.ptr,
            .attribute_count = @intCast(attributes.len),
        };
        return fixture.driver.cuLaunchKernelEx(&config, function.?, &pointers, null);
    }

    pub fn launch(
        fixture: *const Fixture,
        name: [*:0]const u8,
        shape: Shape,
        arguments: anytype,
    ) !void {
        try ok(try fixture.launchOn(fixture.stream, name, shape, arguments));
    }

    pub fn synchronize(fixture: *const Fixture) Result {
        return fixture.driver.cuStreamSynchronize(fixture.stream);
    }

    pub fn lastReport(fixture: *const Fixture) []const u8 {
        return std.mem.span(fixture.emulator.bxl_emulator_last_report());
    }

    /// The context failed with `result`, and the report holds every one of `parts`.
    pub fn expectFailure(fixture: *const Fixture, result: Result, parts: []const []const u8) !void {
        try std.testing.expectEqual(result, fixture.synchronize());
        const report = fixture.lastReport();
        for (parts) |part| {
            if (std.mem.find(u8, report, part) != null) continue;
            std.debug.print("\"{s}\" is not in: {s}\n", .{ part, report });
            return error.TestUnexpectedResult;
        }
        // Sticky: everything after it answers the same.
        var bytes: usize = 0;
        try std.testing.expectEqual(result, fixture.driver.cuMemGetInfo_v2(&bytes, &bytes));
    }
};

pub fn ok(result: Result) !void {
    try std.testing.expectEqual(Result.success, result);
}
