//! Peak rates of this machine's cores and memory, as ceilings for kernels: loops of independent
//! multiply-adds in registers, in assembly so that the compiler does not choose the vector width,
//! and a copy larger than every cache.

const std = @import("std");
const builtin = @import("builtin");
const arguments = @import("../backend/cpu/arguments.zig");
const InstructionSet = @import("../backend/cpu/dispatch.zig").InstructionSet;
const Int8Set = @import("../backend/cpu/int8_dispatch.zig").Int8Set;

/// A loop of multiply-adds, enough in flight for two units of four cycles latency.
pub const Loop = struct {
    run: *const fn (turns: usize) callconv(.c) void,
    flops_per_turn: usize,
};

/// The loop of int8 products.
pub fn int8Loop(set: Int8Set) ?Loop {
    return switch (set) {
        .avx512_vnni => if (builtin.cpu.arch == .x86_64)
            .{ .run = &bxl_peak_zmm_int8, .flops_per_turn = 24 * 2 * 64 }
        else
            null,
        else => null,
    };
}

/// The loop of an instruction set, in f32 or with pairs of bf16 where it has those.
pub fn loopOf(set: InstructionSet, bf16: bool) ?Loop {
    if (builtin.cpu.arch == .aarch64) {
        return if (bf16) null else .{ .run = &bxl_peak_neon, .flops_per_turn = 24 * 2 * 4 };
    }
    if (bf16) {
        if (set != .x86_64_v4_bf16) return null;
        return .{ .run = &bxl_peak_zmm_bf16, .flops_per_turn = 24 * 2 * 32 };
    }
    return switch (set) {
        .x86_64_v4, .x86_64_v4_bf16 => .{ .run = &bxl_peak_zmm, .flops_per_turn = 24 * 2 * 16 },
        .x86_64_v3 => .{ .run = &bxl_peak_ymm, .flops_per_turn = 12 * 2 * 8 },
        .x86_64 => .{ .run = &bxl_peak_xmm, .flops_per_turn = 12 * 2 * 4 },
        .aarch64 => null,
    };
}

pub const Arguments = struct { loop: Loop, turns: usize };

/// One task: the loop, so many turns.
pub fn kernel(args: *const anyopaque, _: usize, _: [*]align(64) u8) callconv(.c) void {
    const peak: *const Arguments = @ptrCast(@alignCast(args));
    peak.loop.run(peak.turns);
}

extern fn bxl_peak_zmm(turns: usize) callconv(.c) void;
extern fn bxl_peak_zmm_bf16(turns: usize) callconv(.c) void;
extern fn bxl_peak_zmm_int8(turns: usize) callconv(.c) void;
extern fn bxl_peak_ymm(turns: usize) callconv(.c) void;
extern fn bxl_peak_xmm(turns: usize) callconv(.c) void;
extern fn bxl_peak_neon(turns: usize) callconv(.c) void;

// --- internal ---

/// A function of one loop: clears the registers 0 to `last`, then repeats `each`, in which # is
/// one of `first` to `last`. Sums of zeros stay zeros: no number ever slows a unit down.
fn loopText(comptime o: struct {
    name: []const u8,
    first: usize,
    last: usize,
    clear: []const u8,
    each: []const u8,
    next: []const u8 = "decq %rdi\njnz 1b\nretq\n",
}) []const u8 {
    comptime {
        var text: []const u8 = ".text\n.p2align 6\n.globl " ++ o.name ++ "\n" ++ o.name ++ ":\n";
        for (0..o.last + 1) |i| text = text ++ numbered(o.clear, i);
        text = text ++ ".p2align 6\n1:\n";
        for (o.first..o.last + 1) |i| text = text ++ numbered(o.each, i);
        return text ++ o.next;
    }
}

fn numbered(comptime line: []const u8, comptime register: usize) []const u8 {
    comptime {
        @setEvalBranchQuota(1_000_000);
        var text: []const u8 = "";
        for (line) |c| {
            text = text ++ if (c == '#') std.fmt.comptimePrint("{d}", .{register}) else &[_]u8{c};
        }
        return text ++ "\n";
    }
}

comptime {
    if (builtin.cpu.arch == .x86_64) {
        const zmm = "vpxord %zmm#, %zmm#, %zmm#";
        asm (loopText(.{
                .name = "bxl_peak_zmm",
                .first = 8,
                .last = 31,
                .clear = zmm,
                .each = "vfmadd231ps %zmm1, %zmm0, %zmm#",
            }));
        asm (loopText(.{
                .name = "bxl_peak_zmm_bf16",
                .first = 8,
                .last = 31,
                .clear = zmm,
                .each = "vdpbf16ps %zmm1, %zmm0, %zmm#",
            }));
        asm (loopText(.{
                .name = "bxl_peak_zmm_int8",
                .first = 8,
                .last = 31,
                .clear = zmm,
                .each = "vpdpbusd %zmm1, %zmm0, %zmm#",
            }));
        asm (loopText(.{
                .name = "bxl_peak_ymm",
                .first = 4,
                .last = 15,
                .clear = "vxorps %ymm#, %ymm#, %ymm#",
                .each = "vfmadd231ps %ymm1, %ymm0, %ymm#",
            }));
        // Products and sums are instructions of their own here.
        asm (loopText(.{
                .name = "bxl_peak_xmm",
                .first = 4,
                .last = 15,
                .clear = "xorps %xmm#, %xmm#",
                .each = "mulps %xmm0, %xmm#\naddps %xmm1, %xmm#",
            }));
    } else if (builtin.cpu.arch == .aarch64) {
        asm (loopText(.{
                .name = "bxl_peak_neon",
                .first = 8,
                .last = 31,
                .clear = "eor v#.16b, v#.16b, v#.16b",
                .each = "fmla v#.4s, v0.4s, v1.4s",
                .next = "subs x0, x0, #1\nb.ne 1b\nret\n",
            }));
    }
}
