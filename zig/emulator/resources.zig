//! Registers of the kernels as ptxas reports them, from the table in the repository
//! (src/bench/kernels.md): a compiler for the CPU knows none.

const std = @import("std");
const state = @import("state.zig");

/// Of a multiprocessor, and the most of a block.
const registers_max = 65536;
/// Registers are given out to a warp at a time, so many for each of its threads.
const per_thread_unit = 8;
const warp_size = 32;
/// Of kernels that the table does not have: those of the emulator's own tests.
const unknown_registers = 32;

/// Registers of a thread on the emulated GPU.
pub fn registersOf(name: []const u8) u32 {
    return find(table, name, state.gpu.name) orelse unknown_registers;
}

/// Whether a block of so many threads has the registers that it needs.
pub fn fits(name: []const u8, thread_count: u64) bool {
    const warps = std.math.divCeil(u64, thread_count, warp_size) catch unreachable;
    const per_thread = std.mem.alignForward(u64, registersOf(name), per_thread_unit);
    return warps * warp_size * per_thread <= registers_max;
}

// --- internal ---

const table = @embedFile("kernel_resources");

/// Of a line "| name | threads | shared | 29 x 8 | ...", under a heading of the same form.
fn find(text: []const u8, name: []const u8, gpu_name: []const u8) ?u32 {
    var column: ?usize = null;
    var lines = std.mem.tokenizeScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (line[0] != '|') {
            // A table of something else follows.
            if (column != null) return null;
            continue;
        }
        if (column) |wanted| {
            if (!std.mem.eql(u8, cellOf(line, 0) orelse continue, name)) continue;
            var words = std.mem.tokenizeScalar(u8, cellOf(line, wanted) orelse return null, ' ');
            return std.fmt.parseInt(u32, words.next() orelse return null, 10) catch null;
        }
        var i: usize = 0;
        while (cellOf(line, i)) |cell| : (i += 1) {
            // sm_90a stands for sm_90.
            if (std.mem.eql(u8, std.mem.trimEnd(u8, cell, "a"), gpu_name)) column = i;
        }
    }
    return null;
}

fn cellOf(line: []const u8, index: usize) ?[]const u8 {
    var cells = std.mem.splitScalar(u8, std.mem.trim(u8, line, "| "), '|');
    for (0..index) |_| _ = cells.next() orelse return null;
    return std.mem.trim(u8, cells.next() orelse return null, " ");
}
