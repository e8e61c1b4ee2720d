//! The CUDA kernels that the build compiled in, one fatbin per file of cuda/; none in a build
//! without nvcc. Nothing launches them yet: this version draws on the CPU.

const std = @import("std");
const build_options = @import("build_options");
const table = @import("cuda_kernels");

/// First word of a fatbin (fatbinary_section.h).
const fatbin_magic = 0xba55ed50;

/// The architectures of the kernels, "" where there are none or what was embedded is no fatbin.
pub fn architectures() []const u8 {
    for (&table.all) |*kernel| {
        if (kernel.fatbin.len < 4) return "";
        if (std.mem.readInt(u32, kernel.fatbin[0..4], .little) != fatbin_magic) return "";
    }
    return if (table.all.len > 0) build_options.cuda_architectures else "";
}

test "a build without nvcc has no kernels, and says so" {
    try std.testing.expectEqualStrings("", architectures());
}
