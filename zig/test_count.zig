//! A check that every `test` block of the tree ran. Files of `emulated_files` in build.zig belong
//! to `zig build test-cuda`, which has the emulated driver, all others to `zig build test`. Each of
//! the two executables compares the tests that it holds with the blocks of its files, so that a
//! file that no facade lists and a filter that matches nothing fail.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;
const options = @import("test_options");

/// Of this executable: whether it runs the tests that need the emulator.
pub fn expectAllRun(runs_emulated: bool) !void {
    const gpa = std.testing.allocator;
    const io = std.testing.io;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const a = arena.allocator();
    var folder = try Io.Dir.cwd().openDir(io, options.source_folder, .{ .iterate = true });
    defer folder.close(io);
    var names: std.StringHashMapUnmanaged(void) = .empty;
    for (builtin.test_functions) |function| try names.put(a, function.name, {});
    var walker = try folder.walk(a);
    defer walker.deinit();
    var count: usize = 0;
    var is_complete = true;
    while (try walker.next(io)) |entry| {
        if (entry.kind != .file or !std.mem.endsWith(u8, entry.path, ".zig")) continue;
        const module = try moduleOf(a, entry.path);
        if (isEmulated(module) != runs_emulated) continue;
        const text = try folder.readFileAlloc(io, entry.path, a, .limited(1 << 20));
        var lines = std.mem.splitScalar(u8, text, '\n');
        while (lines.next()) |line| {
            const start = "test \"";
            if (!std.mem.startsWith(u8, line, start)) continue;
            const end = std.mem.lastIndexOfScalar(u8, line, '"').?;
            const name = try std.fmt.allocPrint(a, "{s}.test.{s}", .{
                module, line[start.len..end],
            });
            count += 1;
            if (names.contains(name)) continue;
            is_complete = false;
            std.debug.print("not among the tests: {s}\n", .{name});
        }
    }
    try std.testing.expect(is_complete);
    try std.testing.expect(count > 50);
}

// --- internal ---

/// "backend/cuda/tests/norm.zig" is "backend.cuda.tests.norm".
fn moduleOf(a: std.mem.Allocator, path: []const u8) ![]const u8 {
    const module = try a.dupe(u8, path[0 .. path.len - ".zig".len]);
    std.mem.replaceScalar(u8, module, '/', '.');
    return module;
}

fn isEmulated(module: []const u8) bool {
    var buffer: [256]u8 = undefined;
    const dotted = std.fmt.bufPrint(&buffer, "{s}.", .{module}) catch unreachable;
    return for (options.emulated_files) |prefix| {
        if (std.mem.startsWith(u8, dotted, prefix)) break true;
    } else false;
}
