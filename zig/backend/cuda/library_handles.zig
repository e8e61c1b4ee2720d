//! A rank's matrix products and convolutions: handles of NVIDIA's libraries, bound to one GPU, with
//! one workspace that they use in stream order.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Choices = @import("autotune.zig").Choices;
const choices = @import("autotune.zig");
const convolutions = @import("conv.zig");
const drivers = @import("../../nvidia/driver.zig");
const Libraries = @import("../../nvidia/libraries.zig").Libraries;
const matmuls = @import("gemm.zig");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;

pub const Error = Allocator.Error || error{GpuFailed};

/// What cuBLASLt asks for on Hopper; cuDNN's fastest kernels take as much.
pub const workspace_bytes = 64 << 20;

/// Which algorithms won on one GPU, shared by its ranks.
pub const Measured = struct {
    matmul: *Choices,
    convolution: *Choices,

    /// `folder` null forgets them with the process.
    pub fn open(
        gpa: Allocator,
        io: std.Io,
        folder: ?[]const u8,
        libraries: *const Libraries,
        gpu_name: []const u8,
    ) Allocator.Error!Measured {
        const matmul = try Choices.open(gpa, io, folder, .{
            .library = "cublaslt",
            .version = libraries.cublaslt_version,
            .gpu_name = gpu_name,
        });
        errdefer matmul.close();
        return .{ .matmul = matmul, .convolution = try Choices.open(gpa, io, folder, .{
            .library = "cudnn",
            .version = libraries.cudnn_version,
            .gpu_name = gpu_name,
        }) };
    }

    pub fn save(measured: Measured) void {
        measured.matmul.save();
        measured.convolution.save();
    }

    pub fn close(measured: Measured) void {
        measured.matmul.close();
        measured.convolution.close();
    }
};

/// XDG_CACHE_HOME/basedxl, else ~/.cache/basedxl, else null.
pub const defaultFolder = choices.defaultFolder;

pub const Options = struct {
    driver: *const drivers.Driver,
    libraries: *const Libraries,
    measured: Measured,
    diagnostics: *Diagnostics,
};

pub const Products = struct {
    driver: *const drivers.Driver,
    workspace: drivers.Address,
    matmul: matmuls.Matmul,
    convolution: convolutions.Convolution,

    /// The GPU's context must be current.
    pub fn open(gpa: Allocator, o: Options) Error!Products {
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
            .choices = o.measured.matmul,
            .diagnostics = o.diagnostics,
            .workspace = workspace,
            .workspace_bytes = workspace_bytes,
        });
        errdefer matmul.close();
        const convolution = try convolutions.Convolution.open(gpa, .{
            .driver = o.driver,
            .library = &o.libraries.cudnn,
            .choices = o.measured.convolution,
            .diagnostics = o.diagnostics,
            .workspace = workspace,
            .workspace_bytes = workspace_bytes,
        });
        return .{
            .driver = o.driver,
            .workspace = workspace,
            .matmul = matmul,
            .convolution = convolution,
        };
    }

    pub fn close(products: *Products) void {
        products.convolution.close();
        products.matmul.close();
        _ = products.driver.cuMemFree_v2(products.workspace);
    }
};
