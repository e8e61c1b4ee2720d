//! A `libcuda.so.1` without a GPU: cuDNN asks for one before it plans kernels that are compiled at
//! run time, and loads what it has compiled. Nothing can be run. What planning does not call is
//! there because cuDNN looks it up, and reports that there is no device.

/// CUDA_SUCCESS, CUDA_ERROR_NO_DEVICE
const success = 0;
const no_device = 100;

/// Looked up by cuDNN 9.24.
const unused = [_][]const u8{
    "cuCtxGetCurrent",
    "cuCtxGetDevice",
    "cuCtxGetLimit",
    "cuCtxPopCurrent",
    "cuCtxPushCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDevicePrimaryCtxRelease",
    "cuDevicePrimaryCtxReset",
    "cuDevicePrimaryCtxRetain",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuKernelGetAttribute",
    "cuLaunchCooperativeKernel",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuLibraryLoadFromFile",
    "cuLinkAddData",
    "cuLinkAddData_v2",
    "cuLinkAddFile_v2",
    "cuLinkComplete",
    "cuLinkCreate",
    "cuLinkCreate_v2",
    "cuLinkDestroy",
    "cuMemcpyDtoH_v2",
    "cuModuleGetFunction",
    "cuModuleGetGlobal_v2",
    "cuModuleLoadData",
    "cuModuleLoadDataEx",
    "cuModuleLoadFatBinary",
    "cuModuleUnload",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuOccupancyMaxPotentialClusterSize",
    "cuStreamGetCtx",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
};

comptime {
    for (unused) |name| @export(&refuse, .{ .name = name });
}

fn refuse() callconv(.c) c_int {
    return no_device;
}

/// What handles point at.
var object: usize = 0;

export fn cuDriverGetVersion(version: *c_int) c_int {
    version.* = 13000;
    return success;
}

export fn cuLibraryLoadData(library: *?*anyopaque) c_int {
    library.* = &object;
    return success;
}

export fn cuLibraryGetKernel(kernel: *?*anyopaque) c_int {
    kernel.* = &object;
    return success;
}

export fn cuLibraryUnload() c_int {
    return success;
}

export fn cuKernelGetFunction(function: *?*anyopaque) c_int {
    function.* = &object;
    return success;
}

export fn cuKernelSetAttribute() c_int {
    return success;
}
