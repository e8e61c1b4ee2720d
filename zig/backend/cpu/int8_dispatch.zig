//! Selects the kernels of int8 products, as `dispatch.zig` selects the others: by the instruction
//! that adds up products of bytes. All of them make the same integers.

const std = @import("std");
const builtin = @import("builtin");
const dispatch = @import("dispatch.zig");
const Int8Kernels = @import("arguments.zig").Int8Kernels;

pub const Int8Set = enum {
    /// pmaddwd
    sse2,
    avx2,
    avx512,
    /// vpdpbusd of AVX-VNNI
    avx_vnni,
    /// vpdpbusd of AVX512_VNNI
    avx512_vnni,
    /// Multiplications of 32 bits
    neon,
    /// sdot
    dotprod,
    /// smmla
    i8mm,
};

const symbols = switch (builtin.cpu.arch) {
    .x86_64 => struct {
        extern const bxl_cpu_int8_sse2: Int8Kernels;
        extern const bxl_cpu_int8_avx2: Int8Kernels;
        extern const bxl_cpu_int8_avx512: Int8Kernels;
        extern const bxl_cpu_int8_avx_vnni: Int8Kernels;
        extern const bxl_cpu_int8_avx512_vnni: Int8Kernels;
    },
    .aarch64 => struct {
        extern const bxl_cpu_int8_neon: Int8Kernels;
        extern const bxl_cpu_int8_dotprod: Int8Kernels;
        extern const bxl_cpu_int8_i8mm: Int8Kernels;
    },
    else => @compileError("no CPU kernels for " ++ @tagName(builtin.cpu.arch)),
};

/// The kernels of a set, null where this machine cannot run them.
pub fn kernels(set: Int8Set) ?*const Int8Kernels {
    if (!isSupported(set)) return null;
    return switch (builtin.cpu.arch) {
        .x86_64 => switch (set) {
            .sse2 => &symbols.bxl_cpu_int8_sse2,
            .avx2 => &symbols.bxl_cpu_int8_avx2,
            .avx512 => &symbols.bxl_cpu_int8_avx512,
            .avx_vnni => &symbols.bxl_cpu_int8_avx_vnni,
            .avx512_vnni => &symbols.bxl_cpu_int8_avx512_vnni,
            .neon, .dotprod, .i8mm => null,
        },
        .aarch64 => switch (set) {
            .neon => &symbols.bxl_cpu_int8_neon,
            .dotprod => &symbols.bxl_cpu_int8_dotprod,
            .i8mm => &symbols.bxl_cpu_int8_i8mm,
            else => null,
        },
        else => unreachable,
    };
}

/// The fastest set of this machine.
pub fn best() Int8Set {
    const in_order: []const Int8Set = switch (builtin.cpu.arch) {
        .aarch64 => &.{ .i8mm, .dotprod, .neon },
        else => &.{ .avx512_vnni, .avx512, .avx_vnni, .avx2, .sse2 },
    };
    for (in_order) |set| if (isSupported(set)) return set;
    unreachable;
}

pub fn isSupported(set: Int8Set) bool {
    if (builtin.cpu.arch == .aarch64) return switch (set) {
        .neon => true,
        .dotprod => hasDotProducts(),
        .i8mm => hasMatrixProducts(),
        else => false,
    };
    return switch (set) {
        .sse2 => true,
        .avx2 => dispatch.isSupported(.x86_64_v3),
        .avx512 => dispatch.isSupported(.x86_64_v4),
        .avx_vnni => dispatch.isSupported(.x86_64_v3) and dispatch.hasAvxVnni(),
        .avx512_vnni => dispatch.isSupported(.x86_64_v4) and dispatch.hasAvx512Vnni(),
        .neon, .dotprod, .i8mm => false,
    };
}

// --- internal ---

/// Of the bits that Linux gives for arm64 (HWCAP_ASIMDDP); all of Apple's have them.
fn hasDotProducts() bool {
    if (builtin.os.tag.isDarwin()) return true;
    if (builtin.os.tag != .linux) return false;
    const asimd_dot_product = 1 << 20;
    return std.os.linux.getauxval(std.elf.AT_HWCAP) & asimd_dot_product != 0;
}

/// HWCAP2_I8MM; of Apple's from the M2 on.
fn hasMatrixProducts() bool {
    if (builtin.os.tag.isDarwin()) {
        var has: c_int = 0;
        var bytes: usize = @sizeOf(c_int);
        const status = std.c.sysctlbyname("hw.optional.arm.FEAT_I8MM", &has, &bytes, null, 0);
        return status == 0 and has != 0;
    }
    if (builtin.os.tag != .linux) return false;
    const int8_matrix_product = 1 << 13;
    return std.os.linux.getauxval(std.elf.AT_HWCAP2) & int8_matrix_product != 0;
}

test "the best int8 kernels are supported" {
    try std.testing.expect(isSupported(best()));
    try std.testing.expect(kernels(best()) != null);
}
