//! What libFuzzer runs (`zig build fuzz`, `bun run fuzz`): a target per parser of weights and per
//! check of what crosses the ABI; BASEDXL_FUZZ_TARGET names it. Any bytes are parsed or refused in
//! one sentence; what is parsed lies within the bytes; nothing leaks. A panic is a crash that
//! libFuzzer keeps.
//!
//! In reading order: `fuzz/header.zig` (the header of a file), `fuzz/files.zig` (a model's file and
//! an adapter's, mapped from memory), `fuzz/abi.zig` (configurations and requests as structs).

const std = @import("std");
const abi = @import("fuzz/abi.zig");
const files = @import("fuzz/files.zig");
const header = @import("fuzz/header.zig");

const Target = enum { safetensors, checkpoint, adapter, @"abi-configs", @"abi-requests" };

var target: Target = .safetensors;

export fn LLVMFuzzerInitialize(_: *c_int, _: *[*][*:0]u8) c_int {
    const name = std.c.getenv("BASEDXL_FUZZ_TARGET") orelse @panic("no BASEDXL_FUZZ_TARGET");
    target = std.meta.stringToEnum(Target, std.mem.span(name)) orelse @panic("no such target");
    announceCounters();
    return 0;
}

export fn LLVMFuzzerTestOneInput(address: [*]const u8, len: usize) c_int {
    const bytes = address[0..len];
    var state: std.heap.DebugAllocator(.{ .stack_trace_frames = 0 }) = .init;
    run(state.allocator(), bytes) catch |err| std.debug.panic("{t}", .{err});
    if (state.deinit() == .leak) @panic("memory is leaked");
    return 0;
}

/// Of Zig's compiler_rt, which cannot be built with instrumentation. The guard page is reached by
/// no frame of what is fuzzed.
export fn __zig_probe_stack() callconv(.naked) void {
    asm volatile ("ret");
}

/// Likewise, by glibc's name.
export fn roundq(value: f128) f128 {
    return roundf128(value);
}

extern fn roundf128(value: f128) f128;

// --- internal ---

fn run(gpa: std.mem.Allocator, bytes: []const u8) !void {
    switch (target) {
        .safetensors => try header.run(gpa, bytes),
        .checkpoint => try files.runCheckpoint(gpa, bytes),
        .adapter => try files.runAdapter(gpa, bytes),
        .@"abi-configs" => try abi.runConfig(gpa, bytes),
        .@"abi-requests" => try abi.runRequest(gpa, bytes),
    }
}

/// Zig instruments but calls no initializer of its own in an object; libFuzzer wants two words per
/// counter where Zig has one.
fn announceCounters() void {
    const counters_start = @extern([*]u8, .{ .name = "__start___sancov_cntrs" });
    const counters_end = @extern([*]u8, .{ .name = "__stop___sancov_cntrs" });
    const pcs_start = @extern([*]const usize, .{ .name = "__start___sancov_pcs1" });
    const count = @intFromPtr(counters_end) - @intFromPtr(counters_start);
    __sanitizer_cov_8bit_counters_init(counters_start, counters_end);
    const pairs = std.heap.page_allocator.alloc([2]usize, count) catch @panic("out of memory");
    for (pairs, pcs_start[0..count]) |*pair, pc| pair.* = .{ pc, 0 };
    __sanitizer_cov_pcs_init(pairs.ptr, pairs.ptr + count);
}

extern fn __sanitizer_cov_8bit_counters_init(start: [*]u8, end: [*]u8) void;
extern fn __sanitizer_cov_pcs_init(start: [*]const [2]usize, end: [*]const [2]usize) void;
