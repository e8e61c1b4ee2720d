//! What tests of the emulated driver need around a call: the library opened as the product opens
//! NVIDIA's, a context, streams, memory and launches by name.

const std = @import("std");
const dynamic = @import("../nvidia/dynamic.zig");
const drivers = @import("../nvidia/driver.zig");
const Result = drivers.Result;
const library_path = std.fmt.comptimePrint("{s}", .{@import("emulator").library_path});

pub const Emulator = struct {
    bxl_emulator_configure: *const fn (seed: u64, gpu_count: u32) callconv(.c) c_int,
    bxl_emulator_set_memory: *const fn (bytes: u64) callconv(.c) void,
    bxl_emulator_set_peers: *const fn (possible: bool) callconv(.c) void,
    bxl_emulator_set_quiet: *const fn (is_quiet: bool) callconv(.c) void,
    bxl_emulator_last_report: *const fn () callconv(.c) [*:0]const u8,
};

pub const Rig = struct {
    driver: drivers.Driver,
    emulator: Emulator,
    device: c_int,
    context: drivers.Context,
    module: drivers.Module,
    stream: drivers.Stream,

    /// GPU 0 of two.
    pub fn init(seed: u64) !Rig {
        return initOn(0, seed);
    }

    /// For tests that mean to fail.
    pub fn initQuiet(seed: u64) !Rig {
        const rig: Rig = try .initOn(0, seed);
        rig.emulator.bxl_emulator_set_quiet(true);
        return rig;
    }

    pub fn initOn(device: c_int, seed: u64) !Rig {
        const library = dynamic.open(library_path) orelse {
            std.debug.print("{s}\n", .{dynamic.lastError()});
            return error.LibraryMissing;
        };
        var missing: []const u8 = "";
        var rig: Rig = .{
            .driver = try dynamic.load(drivers.Driver, library, &missing),
            .emulator = try dynamic.load(Emulator, library, &missing),
            .device = device,
            .context = undefined,
            .module = undefined,
            .stream = undefined,
        };
        const d = &rig.driver;
        try ok(d.cuInit(0));
        try std.testing.expectEqual(0, rig.emulator.bxl_emulator_configure(seed, 2));
        var context: ?drivers.Context = null;
        try ok(d.cuDevicePrimaryCtxRetain(&context, device));
        rig.context = context.?;
        try rig.use();
        var module: ?drivers.Module = null;
        try ok(d.cuModuleLoadData(&module, "any image"));
        rig.module = module.?;
        rig.stream = try rig.makeStream();
        return rig;
    }

    /// Whatever failed goes with the context.
    pub fn deinit(rig: *Rig) void {
        defer rig.emulator.bxl_emulator_set_quiet(false);
        rig.use() catch {};
        _ = rig.driver.cuStreamDestroy_v2(rig.stream);
        _ = rig.driver.cuModuleUnload(rig.module);
        _ = rig.driver.cuDevicePrimaryCtxRelease_v2(rig.device);
    }

    /// Calls of this thread mean this rig's GPU from here on.
    pub fn use(rig: *const Rig) !void {
        try ok(rig.driver.cuCtxSetCurrent(rig.context));
    }

    pub fn makeStream(rig: *const Rig) !drivers.Stream {
        var stream: ?drivers.Stream = null;
        try ok(rig.driver.cuStreamCreate(&stream, drivers.stream_non_blocking));
        return stream.?;
    }

    pub fn makeEvent(rig: *const Rig) !drivers.Event {
        var event: ?drivers.Event = null;
        try ok(rig.driver.cuEventCreate(&event, 0));
        return event.?;
    }

    /// Fresh memory, as poisoned as it comes.
    pub fn alloc(rig: *const Rig, comptime T: type, count: usize) !usize {
        var address: usize = 0;
        try ok(rig.driver.cuMemAlloc_v2(&address, count * @sizeOf(T)));
        return address;
    }

    pub fn upload(rig: *const Rig, comptime T: type, values: []const T) !usize {
        const address = try rig.alloc(T, values.len);
        try ok(rig.driver.cuMemcpyHtoD_v2(address, values.ptr, values.len * @sizeOf(T)));
        return address;
    }

    /// Waits for nothing but the copy itself, as the driver does.
    pub fn download(rig: *const Rig, comptime T: type, address: usize, values: []T) !void {
        try ok(rig.driver.cuMemcpyDtoH_v2(values.ptr, address, values.len * @sizeOf(T)));
    }

    pub const Shape = struct { grid: u32 = 1, block: u32 = 1, shared_bytes: u32 = 0 };

    /// Arguments in the kernel's order, each of the kernel's own type.
    pub fn launchOn(
        rig: *const Rig,
        stream: drivers.Stream,
        name: [*:0]const u8,
        shape: Shape,
        arguments: anytype,
    ) !Result {
        var function: ?drivers.Function = null;
        try ok(rig.driver.cuModuleGetFunction(&function, rig.module, name));
        var values: [arguments.len][8]u8 align(8) = undefined;
        var pointers: [arguments.len]?*anyopaque = undefined;
        inline for (arguments, &values, &pointers) |argument, *value, *pointer| {
            @memcpy(value[0..@sizeOf(@TypeOf(argument))], std.mem.asBytes(&argument));
            pointer.* = value;
        }
        const none = 1;
        return rig.driver.cuLaunchKernel(
            function.?,
            shape.grid,
            none,
            none,
            shape.block,
            none,
            none,
            shape.shared_bytes,
            stream,
            &pointers,
            null,
        );
    }

    pub fn launch(
        rig: *const Rig,
        name: [*:0]const u8,
        shape: Shape,
        arguments: anytype,
    ) !void {
        try ok(try rig.launchOn(rig.stream, name, shape, arguments));
    }

    pub fn synchronize(rig: *const Rig) Result {
        return rig.driver.cuStreamSynchronize(rig.stream);
    }

    pub fn lastReport(rig: *const Rig) []const u8 {
        return std.mem.span(rig.emulator.bxl_emulator_last_report());
    }

    /// The context failed with `result`, and the report holds every one of `parts`.
    pub fn expectFailure(rig: *const Rig, result: Result, parts: []const []const u8) !void {
        try std.testing.expectEqual(result, rig.synchronize());
        const report = rig.lastReport();
        for (parts) |part| {
            if (std.mem.find(u8, report, part) != null) continue;
            std.debug.print("\"{s}\" is not in: {s}\n", .{ part, report });
            return error.TestUnexpectedResult;
        }
        // Sticky: everything after it answers the same.
        var bytes: usize = 0;
        try std.testing.expectEqual(result, rig.driver.cuMemGetInfo_v2(&bytes, &bytes));
    }
};

pub fn ok(result: Result) !void {
    try std.testing.expectEqual(Result.success, result);
}
