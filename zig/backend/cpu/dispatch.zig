//! Selects the instruction set: kernels for all of them are compiled in, and CPUID decides at run
//! time. The operating system must save the wide registers too (XGETBV), so the CPU's flags alone
//! are not enough.

const std = @import("std");
const builtin = @import("builtin");
const Kernels = @import("arguments.zig").Kernels;

pub const InstructionSet = enum {
    /// SSE2
    x86_64,
    /// AVX2 and FMA
    x86_64_v3,
    /// AVX-512
    x86_64_v4,
    /// AVX-512 with AVX512_BF16: for `Compute.bf16` only, never for f32.
    x86_64_v4_bf16,
    /// NEON
    aarch64,
};

const symbols = switch (builtin.cpu.arch) {
    .x86_64 => struct {
        extern const bxl_cpu_kernels_x86_64: Kernels;
        extern const bxl_cpu_kernels_x86_64_v3: Kernels;
        extern const bxl_cpu_kernels_x86_64_v4: Kernels;
        extern const bxl_cpu_kernels_x86_64_v4_bf16: Kernels;
    },
    .aarch64 => struct {
        extern const bxl_cpu_kernels_aarch64: Kernels;
    },
    else => @compileError("no CPU kernels for " ++ @tagName(builtin.cpu.arch)),
};

/// The kernels of an instruction set, null where this machine cannot run them.
pub fn kernels(set: InstructionSet) ?*const Kernels {
    if (!isSupported(set)) return null;
    return switch (builtin.cpu.arch) {
        .x86_64 => switch (set) {
            .x86_64 => &symbols.bxl_cpu_kernels_x86_64,
            .x86_64_v3 => &symbols.bxl_cpu_kernels_x86_64_v3,
            .x86_64_v4 => &symbols.bxl_cpu_kernels_x86_64_v4,
            .x86_64_v4_bf16 => &symbols.bxl_cpu_kernels_x86_64_v4_bf16,
            .aarch64 => null,
        },
        .aarch64 => &symbols.bxl_cpu_kernels_aarch64,
        else => unreachable,
    };
}

/// The kernels with bf16 dot products, null where the CPU has none.
pub fn bestBf16() ?InstructionSet {
    return if (isSupported(.x86_64_v4_bf16)) .x86_64_v4_bf16 else null;
}

/// The widest instruction set of this machine.
pub fn best() InstructionSet {
    if (builtin.cpu.arch == .aarch64) return .aarch64;
    // It makes a call of each fused multiply-add, and a job would take minutes.
    if (std.valgrind.runningOnValgrind() > 0) return .x86_64;
    if (isSupported(.x86_64_v4)) return .x86_64_v4;
    if (isSupported(.x86_64_v3)) return .x86_64_v3;
    return .x86_64;
}

pub fn isSupported(set: InstructionSet) bool {
    if (builtin.cpu.arch == .aarch64) return set == .aarch64;
    return switch (set) {
        .aarch64 => false,
        .x86_64 => true,
        .x86_64_v3 => hasV3(),
        .x86_64_v4 => hasV3() and hasV4(),
        .x86_64_v4_bf16 => hasV3() and hasV4() and hasBf16(),
    };
}

// --- internal ---

const Leaf = struct { a: u32, b: u32, c: u32, d: u32 };

fn cpuid(number: u32, sub: u32) Leaf {
    var a: u32 = undefined;
    var b: u32 = undefined;
    var c: u32 = undefined;
    var d: u32 = undefined;
    asm volatile ("cpuid"
        : [_] "={eax}" (a),
          [_] "={ebx}" (b),
          [_] "={ecx}" (c),
          [_] "={edx}" (d),
        : [_] "{eax}" (number),
          [_] "{ecx}" (sub),
    );
    return .{ .a = a, .b = b, .c = c, .d = d };
}

/// The registers that the operating system saves (XCR0). Requires `osxsave`.
fn savedState() u32 {
    return asm volatile (
        \\ xor %%ecx, %%ecx
        \\ xgetbv
        : [_] "={eax}" (-> u32),
        :
        : .{ .edx = true, .ecx = true });
}

fn hasBits(value: u32, comptime bits: []const u5) bool {
    comptime var mask: u32 = 0;
    inline for (bits) |bit| mask |= @as(u32, 1) << bit;
    return value & mask == mask;
}

fn hasV3() bool {
    if (cpuid(0, 0).a < 7 or cpuid(0x8000_0000, 0).a < 0x8000_0001) return false;
    // ssse3, fma, cmpxchg16b, sse4.1, sse4.2, movbe, popcnt, osxsave, avx, f16c; and sse3.
    if (!hasBits(cpuid(1, 0).c, &.{ 0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29 })) return false;
    // bmi1, avx2, bmi2.
    if (!hasBits(cpuid(7, 0).b, &.{ 3, 5, 8 })) return false;
    // lahf, lzcnt.
    if (!hasBits(cpuid(0x8000_0001, 0).c, &.{ 0, 5 })) return false;
    return hasBits(savedState(), &.{ 1, 2 });
}

fn hasV4() bool {
    // avx512 f, dq, cd, bw, vl.
    if (!hasBits(cpuid(7, 0).b, &.{ 16, 17, 28, 30, 31 })) return false;
    return hasBits(savedState(), &.{ 5, 6, 7 });
}

fn hasBf16() bool {
    // avx512_bf16 is in subleaf 1 of leaf 7.
    return cpuid(7, 0).a >= 1 and hasBits(cpuid(7, 1).a, &.{5});
}

/// AVX-VNNI, in subleaf 1 of leaf 7.
pub fn hasAvxVnni() bool {
    return cpuid(7, 0).a >= 1 and hasBits(cpuid(7, 1).a, &.{4});
}

pub fn hasAvx512Vnni() bool {
    return hasBits(cpuid(7, 0).c, &.{11});
}

/// The CPU's brand string in `buffer`, "unknown" where there is none, as on arm64.
pub fn processorName(buffer: *[48]u8) []const u8 {
    if (builtin.cpu.arch == .aarch64) return "arm64";
    if (cpuid(0x8000_0000, 0).a < 0x8000_0004) return "unknown";
    for (0..3) |i| {
        const leaf = cpuid(0x8000_0002 + @as(u32, @intCast(i)), 0);
        inline for (.{ leaf.a, leaf.b, leaf.c, leaf.d }, 0..) |word, w| {
            std.mem.writeInt(u32, buffer[16 * i + 4 * w ..][0..4], word, .little);
        }
    }
    const name = std.mem.trim(u8, std.mem.sliceTo(buffer, 0), " ");
    return if (name.len > 0) name else "unknown";
}

test "the best instruction set is supported and has kernels" {
    try std.testing.expect(isSupported(best()));
    try std.testing.expect(kernels(best()) != null);
    var buffer: [48]u8 = undefined;
    try std.testing.expect(processorName(&buffer).len > 0);
}
