//! The allocator behind the C ABI: that of heap.zig, or malloc alone where valgrind and
//! ThreadSanitizer watch it. A build with -Dfind-leaks takes one that remembers where each
//! allocation was made, and ends the process, with a list of them, where the last session has been
//! freed and something is still allocated.

const std = @import("std");
const builtin = @import("builtin");
const heap = @import("heap.zig");
const finds_leaks = @import("memory_options").finds_leaks;

/// Frames of a stack that the list has of each allocation.
const frame_count = 12;
/// Of the process; tests/sanitize knows it.
const exit_code = 86;

pub const allocator: std.mem.Allocator = if (finds_leaks)
    checked.allocator()
else if (builtin.valgrind_support or builtin.sanitize_thread)
    std.heap.c_allocator
else
    heap.allocator;

/// A session, or whatever else lives between calls, has been opened.
pub fn began() void {
    if (finds_leaks) _ = live_count.fetchAdd(1, .acq_rel);
}

/// It has been freed. With `was_abandoned` threads may still use its memory: nothing is checked in
/// this process any more.
pub fn ended(was_abandoned: bool) void {
    if (!finds_leaks or was_abandoned) return;
    if (live_count.fetchSub(1, .acq_rel) > 1) return;
    const count = checked.detectLeaks();
    if (count == 0) return;
    std.debug.print("{d} allocations were never freed.\n", .{count});
    std.c._exit(exit_code);
}

// --- internal ---

var checked: std.heap.DebugAllocator(.{ .stack_trace_frames = frame_count }) = .init;
var live_count: std.atomic.Value(u32) = .init(0);

/// For the test that a leak is found.
fn leak() callconv(.c) void {
    _ = allocator.create(u8) catch {};
}

comptime {
    if (finds_leaks) @export(&leak, .{ .name = "bxl_leak" });
}
