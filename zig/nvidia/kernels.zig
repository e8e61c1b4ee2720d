//! The CUDA kernels that the build compiled in, as one fatbin of all files of cuda/; none in a
//! build without nvcc.

const std = @import("std");
const build_options = @import("build_options");
const table = @import("cuda_kernels");

/// First word of a fatbin (fatbinary_section.h).
const fatbin_magic = 0xba55ed50;

/// What cuModuleLoadData takes; empty in a build without nvcc.
pub const image: []const u8 = table.fatbin;

/// The architectures of the kernels, "" where there are none or what was embedded is no fatbin.
pub fn architectures() []const u8 {
    if (image.len < 4) return "";
    if (std.mem.readInt(u32, image[0..4], .little) != fatbin_magic) return "";
    return build_options.cuda_architectures;
}

test "a build without nvcc has no kernels, and says so" {
    try std.testing.expectEqualStrings("", architectures());
}
