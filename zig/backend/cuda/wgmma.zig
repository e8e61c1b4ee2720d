//! Hopper's own tensor core instructions (cuda/wgmma.cuh): whether a GPU has them, and machine code
//! that uses them.

const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;

/// Of cuda/wgmma_product.cuh: threads of a block, and rows of x that it takes.
pub const thread_count = 256;
pub const tile_rows = 128;

/// Dynamic shared memory for stages of so many rows of weights beside those of x; the first begins
/// at a multiple of 1024 bytes.
pub fn sharedBytes(weight_rows: u32) u32 {
    const depth = 64;
    const stage_count = 4;
    return stage_count * (tile_rows + weight_rows) * depth * 2 + 1024;
}

/// What the driver compiles for Hopper from the fatbin's PTX has empty kernels.
pub fn isThere(cuda: *Cuda) cudas.Error!bool {
    if (cuda.has_wgmma) |known| return known;
    const major = try cuda.deviceAttribute(.compute_capability_major);
    const minor = try cuda.deviceAttribute(.compute_capability_minor);
    var found = false;
    if (major == 9 and minor == 0) {
        // Of any of them: one compilation makes all.
        const name = if (cuda.activation == .bf16) probe ++ "_bf16" else probe ++ "_f16";
        found = try cuda.functionAttribute(name, .ptx_version) >= hopper_ptx_version;
    }
    cuda.has_wgmma = found;
    return found;
}

// --- internal ---

const probe = "linear_geglu_wgmma";
/// CU_FUNC_ATTRIBUTE_PTX_VERSION of code for compute_90 or compute_90a.
const hopper_ptx_version = 90;
