//! The GPU that operations are compared on: opened as a session opens it, with one rank, beside the
//! CPU backend.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const cores = @import("../system/cores.zig");
const devices_file = @import("../devices.zig");
const drivers = @import("../nvidia/driver.zig");
const libraries = @import("../nvidia/libraries.zig");
const Cpu = @import("../backend.zig").Cpu;
const Cuda = @import("../backend.zig").Cuda;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;

/// Operations are small: more threads would only wait for each other.
const thread_count_max = 4;

pub const Device = struct {
    devices: devices_file.Devices,
    diagnostics: Diagnostics,
    cpu: *Cpu,
    cuda: *Cuda,

    pub const Error = devices_file.Error || error{UnsupportedInstructionSet};

    /// Must not move. Where it fails, `diagnostics` has the sentence.
    pub fn open(
        device: *Device,
        gpa: Allocator,
        io: Io,
        activation: DType,
        library: [:0]const u8,
    ) !void {
        device.diagnostics = .{};
        try device.devices.openOneGpu(.{
            .gpa = gpa,
            .io = io,
            .activation = activation,
            .library = library,
            .keeps_algorithms = false,
            .diagnostics = &device.diagnostics,
        });
        errdefer device.devices.close();
        const rank = &device.devices.ranks[0];
        try rank.enter();
        device.cuda = rank.device.cuda;
        device.cpu = try .init(gpa, io, .{
            .thread_count = @min(thread_count_max, cores.count(io)),
            .cancelled = &devices_file.not_cancelled,
        });
    }

    pub fn close(device: *Device) void {
        device.cpu.deinit();
        device.devices.close();
    }

    /// Whether every further call answers an error: nothing can be computed there any more.
    pub fn isBroken(device: *const Device) bool {
        var free: usize = 0;
        var total: usize = 0;
        return device.cuda.driver.cuMemGetInfo_v2(&free, &total) != .success;
    }

    /// "NVIDIA H200, driver 13.0, cuBLASLt 13.1.1, cuDNN 9.24.0", in `buffer`.
    pub fn describe(device: *const Device, buffer: []u8) []const u8 {
        const opened = &device.devices.gpu.?.libraries;
        const names = drivers.listGpus(&opened.driver);
        var texts: [3][32]u8 = undefined;
        const driver = libraries.versionText(&texts[0], drivers.Driver, opened.driver.version());
        const Lt = @TypeOf(opened.cublaslt);
        const lt = libraries.versionText(&texts[1], Lt, opened.cublaslt_version);
        const Dnn = @TypeOf(opened.cudnn);
        const dnn = libraries.versionText(&texts[2], Dnn, opened.cudnn_version);
        const format = "{s}, driver of CUDA {s}, cuBLASLt {s}, cuDNN {s}, GPUs: {d}";
        const args = .{ names.name(0), driver, lt, dnn, names.count };
        return std.fmt.bufPrint(buffer, format, args) catch buffer;
    }
};
