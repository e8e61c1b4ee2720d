//! Programmatic dependent launch: a kernel may start before the one queued ahead of it has ended,
//! and waits in its own code (`wait_for_earlier_kernels`) for that end, so that its launch is
//! hidden. BASEDXL_DEPENDENT_LAUNCHES=1 turns it on: whether it gains anything was not measured.
//!
//! A library's kernel behind an own one is launched as ever, after its end. An own one behind a
//! library's waits for all of it: libraries that let it start early change nothing. Behind work
//! that is no kernel (copies, waits for events, the start of a graph) launches are plain ones: the
//! edges of a graph that are programmatic begin at kernels.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const library_folders = @import("../../nvidia/library_folders.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;

/// The first whose graphs have programmatic edges: CUDA 12.3.
pub const driver_version_min = 12030;
/// What is compiled for older GPUs does not wait, wherever it runs.
const ptx_version_min = 90;

/// Of one stream.
pub const State = struct {
    is_on: bool,
    /// The stream's last work is a kernel, as far as is known.
    follows_kernel: bool = false,

    pub fn init(driver: *const drivers.Driver, is_wanted: bool) State {
        return .{ .is_on = is_wanted and driver.version() >= driver_version_min };
    }

    /// Whether the next kernel, compiled for this version of PTX, may start early.
    pub fn mayOverlap(state: *const State, ptx_version: c_int) bool {
        return state.is_on and state.follows_kernel and ptx_version >= ptx_version_min;
    }
};

pub fn isWanted() bool {
    const value = library_folders.variable(variable_name) orelse return false;
    return std.mem.eql(u8, value, "1");
}

/// Decides for GPUs that this process opens from now on, for programs that time both ways.
pub fn want(is_wanted: bool) void {
    _ = setenv(variable_name, if (is_wanted) "1" else "0", 1);
}

const variable_name = "BASEDXL_DEPENDENT_LAUNCHES";
extern "c" fn setenv(name: [*:0]const u8, value: [*:0]const u8, overwrite: c_int) c_int;

pub fn launch(
    cuda: *Cuda,
    function: drivers.Function,
    name: []const u8,
    config: drivers.LaunchConfig,
    parameters: [*]?*anyopaque,
) cudas.Error!void {
    const attributes = [_]drivers.LaunchAttribute{.{
        .id = .programmatic_stream_serialization,
        .value = .{ .allowed = 1 },
    }};
    var complete = config;
    complete.attributes = &attributes;
    complete.attribute_count = attributes.len;
    const result = cuda.driver.cuLaunchKernelEx(&complete, function, parameters, null);
    try cuda.check(.cuLaunchKernelEx, result, name);
}
