//! Copies between all pairs of GPUs, both ways and of several sizes: what arrives must be what was
//! sent.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const drivers = @import("../nvidia/driver.zig");
const libraries = @import("../nvidia/libraries.zig");
const peer_check = @import("../transport.zig").peer_check;
const runs = @import("run.zig");
const Run = runs.Run;

const sizes = [_]usize{ 4, 4092, 1 << 20, 64 << 20 };
const sizes_quick = [_]usize{ 4, 1 << 20 };
/// Of one copy.
const limit_ms = 5000;
const name_start = "copies between GPUs";

pub fn run(r: *Run) runs.Error!void {
    if (!try r.begins(name_start, "")) return;
    var arena: std.heap.ArenaAllocator = .init(r.gpa);
    defer arena.deinit();
    var d: Diagnostics = .{};
    const library = r.options.library;
    const source: libraries.Source = if (library.len > 0) .{ .emulated = library } else .system;
    const opened = libraries.open(arena.allocator(), r.io, source, .ofProcess(), &d) catch |err|
        return r.stop(d.message(), err);
    const count: u32 = @intCast(drivers.listGpus(&opened.driver).count);
    if (count < 2) return r.report.add(.{
        .name = name_start,
        .verdict = .skipped,
        .detail = "there is one GPU",
    });
    for (0..count) |from| for (0..count) |to| {
        if (from == to) continue;
        const is_stuck = try checkPair(r, &opened.driver, @intCast(from), @intCast(to));
        // Further calls would wait behind the copy that hangs.
        if (is_stuck) return;
    };
}

// --- internal ---

/// Whether a copy did not end.
fn checkPair(r: *Run, driver: *const drivers.Driver, from: u32, to: u32) runs.Error!bool {
    var buffer: [64]u8 = undefined;
    const name = std.fmt.bufPrint(&buffer, "{s}, {d} to {d}", .{ name_start, from, to }) catch
        unreachable;
    var outcome: peer_check.Outcome = undefined;
    const all: []const usize = if (r.options.is_quick) &sizes_quick else &sizes;
    for (all) |bytes| {
        outcome = peer_check.run(driver, from, to, .{ .bytes = bytes, .limit_ms = limit_ms });
        switch (outcome.verdict) {
            .fine => continue,
            .failed => try r.fail(name, "", "{d} bytes: {s}", .{
                bytes, driver.nameOf(outcome.result),
            }),
            .garbled => try r.fail(name, "", "{d} bytes: others arrived; {s}", .{
                bytes, peer_check.advice,
            }),
            .stalled => try r.fail(name, "", "{d} bytes did not arrive within {d} s; {s}", .{
                bytes, limit_ms / 1000, peer_check.advice,
            }),
        }
        return outcome.verdict == .stalled;
    }
    var text: [128]u8 = undefined;
    const way = if (outcome.is_direct) "direct" else "through the host";
    const gigabytes = outcome.bytes_per_second / 1e9;
    const detail = std.fmt.bufPrint(&text, "{s}, {d:.1} GB/s", .{ way, gigabytes }) catch way;
    try r.report.add(.{ .name = name, .verdict = .ok, .detail = detail });
    return false;
}
