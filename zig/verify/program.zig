//! `basedxl-gpu verify`: flags, lines to standard output, an exit code.

const std = @import("std");
const Io = std.Io;
const options_file = @import("options.zig");
const Report = @import("report.zig").Report;
const runs = @import("run.zig");

/// `args` are those behind the command's name. Returns the exit code.
pub fn main(init: std.process.Init, args: []const [:0]const u8) !u8 {
    const io = init.io;
    const arena = init.arena.allocator();
    const folder = try std.process.executableDirPathAlloc(io, arena);
    const emulator = try std.fs.path.joinZ(arena, &.{
        folder, "..", "lib", "libbasedxl_emulated.so",
    });
    const options = switch (try options_file.parse(arena, args, emulator)) {
        .options => |options| options,
        .help => {
            try Io.File.stdout().writeStreamingAll(io, options_file.usage);
            return 0;
        },
        .refused => |sentence| {
            try Io.File.stderr().writeStreamingAll(io, sentence);
            try Io.File.stderr().writeStreamingAll(io, "\n");
            return 2;
        },
    };
    var buffer: [4096]u8 = undefined;
    var out = Io.File.stdout().writerStreaming(io, &buffer);
    var report: Report = .init(init.gpa, &out.interface, options.is_json);
    defer report.deinit();
    try runs.run(init.gpa, io, &options, &report);
    return if (report.hasPassed()) 0 else 1;
}
