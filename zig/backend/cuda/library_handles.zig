//! A rank's matrix products, convolutions and attentions: handles of NVIDIA's libraries, bound to
//! one GPU, with one workspace that they use in stream order.

const std = @import("std");
const Allocator = std.mem.Allocator;
const AlgorithmCache = @import("autotune.zig").AlgorithmCache;
const AttentionKind = @import("../options.zig").AttentionKind;
const choices = @import("autotune.zig");
const convolutions = @import("conv.zig");
const drivers = @import("../../nvidia/driver.zig");
const Cudnn = @import("../../nvidia/cudnn.zig").Cudnn;
const Libraries = @import("../../nvidia/libraries.zig").Libraries;
const versionText = @import("../../nvidia/libraries.zig").versionText;
const matmuls = @import("gemm.zig");
const sdpas = @import("sdpa.zig");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const Waits = @import("waits.zig").Waits;

pub const Error = Allocator.Error || error{ GpuFailed, Cancelled };

/// What cuBLASLt asks for on Hopper; cuDNN's fastest kernels take as much.
pub const workspace_bytes = 64 << 20;

/// Which algorithms won on one GPU, shared by its ranks.
pub const AlgorithmCaches = struct {
    matmul: *AlgorithmCache,
    convolution: *AlgorithmCache,
    /// Whole plans, with the kernels that cuDNN has compiled for them.
    attention: *AlgorithmCache,

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
        const convolution = try AlgorithmCache.open(gpa, io, folder, .{
            .library = "cudnn",
            .version = libraries.cudnn_version,
            .gpu_name = gpu_name,
        });
        errdefer convolution.close();
        const attention = try AlgorithmCache.open(gpa, io, folder, .{
            .library = "cudnn-plans",
            .version = libraries.cudnn_version,
            .gpu_name = gpu_name,
        });
        return .{ .matmul = matmul, .convolution = convolution, .attention = attention };
    }

    pub fn save(measured: AlgorithmCaches) void {
        measured.matmul.save();
        measured.convolution.save();
        measured.attention.save();
    }

    pub fn close(measured: AlgorithmCaches) void {
        measured.matmul.close();
        measured.convolution.close();
        measured.attention.close();
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
    attention: AttentionKind = .auto,
};

pub const LibraryHandles = struct {
    driver: *const drivers.Driver,
    workspace: drivers.Address,
    matmul: matmuls.Matmul,
    convolution: convolutions.Convolution,
    /// Null where the library is too old for it or the session does without.
    sdpa: ?sdpas.Sdpa,

    /// The GPU's context must be current.
    pub fn open(gpa: Allocator, o: Options) Error!LibraryHandles {
        const is_new = o.libraries.cudnn_version >= sdpas.version_min;
        if (o.attention == .cudnn and !is_new) {
            return failOld(o.diagnostics, o.libraries.cudnn_version);
        }
        const has_sdpa = is_new and o.attention != .own;
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
            .sdpa = if (has_sdpa) .open(gpa, .{
                .library = &o.libraries.cudnn,
                .plans = o.measured.attention,
                .diagnostics = o.diagnostics,
                .workspace = workspace,
                .workspace_bytes = workspace_bytes,
            }, convolution.handle) else null,
        };
    }

    fn failOld(diagnostics: *Diagnostics, version: u32) error{GpuFailed} {
        var have: [32]u8 = undefined;
        var need: [32]u8 = undefined;
        return diagnostics.fail(
            error.GpuFailed,
            "cuDNN {s} has no attention of its own; {s} or newer has. Leave out --attention.",
            .{
                versionText(&have, Cudnn, version),
                versionText(&need, Cudnn, sdpas.version_min),
            },
        );
    }

    pub fn close(handles: *LibraryHandles) void {
        if (handles.sdpa) |*sdpa| sdpa.close();
        handles.convolution.close();
        handles.matmul.close();
        _ = handles.driver.cuMemFree_v2(handles.workspace);
    }
};
