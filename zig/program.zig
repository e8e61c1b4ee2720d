//! The root of the executables, one of which the build option `program` names. They share this
//! folder as their module's root, so that each may import the library's files.

const std = @import("std");
const Program = enum { bindings, bench_cpu, bench_gpu, bench_signals };
const program = std.meta.stringToEnum(Program, @import("program_options").program).?;

pub const main = switch (program) {
    .bindings => @import("abi/bindings.zig").main,
    .bench_cpu => @import("bench/cpu.zig").main,
    .bench_gpu => @import("bench/gpu.zig").main,
    .bench_signals => @import("bench/signals.zig").main,
};
