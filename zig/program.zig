//! The root of the executables, one of which the build option `program` names. They share this
//! folder as their module's root, so that each may import the library's files.
//!
//! gpu_program.zig is `basedxl-gpu`, replay.zig what sanitizers look at. The benches, in reading
//! order:
//!   bench/cpu.zig      times operations of the CPU backend, made by bench/cases.zig
//!   bench/peak.zig     the rates of cores and memory that these are compared with
//!   bench/gpu.zig      times operations of the CUDA backend, made by bench/gpu_cases.zig on the
//!                      GPU of bench/gpu_fixture.zig
//!   bench/signals.zig  times signals between ranks
//!   bench/cudnn_plans.zig  asks cuDNN for plans on GPUs that are only described

const std = @import("std");
const Program = enum { bindings, bench_cpu, bench_gpu, bench_signals, cudnn_plans, gpu, replay };
const program = std.meta.stringToEnum(Program, @import("program_options").program).?;

pub const main = switch (program) {
    .bindings => @import("abi/bindings.zig").main,
    .bench_cpu => @import("bench/cpu.zig").main,
    .bench_gpu => @import("bench/gpu.zig").main,
    .bench_signals => @import("bench/signals.zig").main,
    .cudnn_plans => @import("bench/cudnn_plans.zig").main,
    .gpu => @import("gpu_program.zig").main,
    .replay => @import("replay.zig").main,
};
