//! A rank's matrix products and convolutions: handles of NVIDIA's libraries, bound to one GPU, with
//! one workspace that they use in stream order.

const std = @import("std");
const Allocator = std.mem.Allocator;
const AlgorithmCache = @import("autotune.zig").AlgorithmCache;
const choices = @import("autotune.zig");
const convolutions = @import("conv.zig");
const drivers = @import("../../nvidia/driver.zig");
const Libraries = @import("../../nvidia/libraries.zig").Libraries;
const matmuls = @import("gemm.zig");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const Waits = @import("waits.zig").Waits;

pub const Error = Allocator.Error || error{ GpuFailed, Cancelled };

/// What cuBLASLt asks for on Hopper; cuDNN's fastest kernels take as much.
pub const workspace_bytes = 64 << 20;

/// Which algorithms won on one GPU, shared by its ranks.
pub const AlgorithmCaches = struct {
    matmul: *AlgorithmCache,
    convolution: *AlgorithmCache,

    /// `folder` null forgets them with the process.
    pub fn open(
        gpa: Allocator,
        io: std.Io,
        folder: ?[]const u8,
        libraries: *const Libraries,
        gpu_name: []const u8,
    ) Allocator.Error!AlgorithmCaches {
        const matmul = try AlgorithmCache.open(gpa, io, folder, .{
            .library = "cublaslt",
            .version = libraries.cublaslt_version,
            .gpu_name = gpu_name,
        });
        errdefer matmul.close();
        return .{ .matmul = matmul, .convolution = try AlgorithmCache.open(gpa, io, folder, .{
            .library = "cudnn",
            .version = libraries.cudnn_version,
            .gpu_name = gpu_name,
        }) };
    }

    pub fn save(measured: AlgorithmCaches) void {
        measured.matmul.save();
        measured.convolution.save();
    }

    pub fn close(measured: AlgorithmCaches) void {
        measured.matmul.close();
        measured.convolution.close();
    }
};

/// XDG_CACHE_HOME/basedxl, else ~/.cache/basedxl, else null.
pub const defaultFolder = choices.defaultFolder;

pub const Options = struct {
    driver: *const drivers.Driver,
    libraries: *const Libraries,
    measured: AlgorithmCaches,
    diagnostics: *Diagnostics,
    waits: ?*const Waits = null,
};

pub const LibraryHandles = struct {
    driver: *const drivers.Driver,
    workspace: drivers.Address,
    matmul: matmuls.Matmul,
    convolution: convolutions.Convolution,

    /// The GPU's context must be current.
    pub fn open(gpa: Allocator, o: Options) Error!LibraryHandles {
        var workspace: drivers.Address = 0;
        const result = o.driver.cuMemAlloc_v2(&workspace, workspace_bytes);
        if (result != .success) return o.diagnostics.fail(
            error.GpuFailed,
            "{f} (allocating {d} MiB of workspace for cuBLASLt and cuDNN).",
            .{ o.driver.callError(.cuMemAlloc_v2, result), workspace_bytes >> 20 },
        );
        errdefer _ = o.driver.cuMemFree_v2(workspace);
        var matmul = try matmuls.Matmul.open(gpa, .{
            .driver = o.driver,
            .library = &o.libraries.cublaslt,
            .algorithms = o.measured.matmul,
            .diagnostics = o.diagnostics,
            .workspace = workspace,
            .workspace_bytes = workspace_bytes,
            .waits = o.waits,
        });
        errdefer matmul.close();
        const convolution = try convolutions.Convolution.open(gpa, .{
            .driver = o.driver,
            .library = &o.libraries.cudnn,
            .algorithms = o.measured.convolution,
            .diagnostics = o.diagnostics,
            .workspace = workspace,
            .workspace_bytes = workspace_bytes,
            .waits = o.waits,
        });
        return .{
            .driver = o.driver,
            .workspace = workspace,
            .matmul = matmul,
            .convolution = convolution,
        };
    }

    pub fn close(handles: *LibraryHandles) void {
        handles.convolution.close();
        handles.matmul.close();
        _ = handles.driver.cuMemFree_v2(handles.workspace);
    }
};
