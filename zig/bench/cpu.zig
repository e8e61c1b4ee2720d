//! `zig build cpu-bench`: times one operation of the CPU backend at a time. Reads one JSON case per
//! line on standard input, answers with a line of milliseconds: wall time, then CPU time. src/bench
//! runs it in turns with PyTorch.

const std = @import("std");
const Io = std.Io;
const cases = @import("cases.zig");

const line_bytes_max = 64 * 1024;

pub fn main(init: std.process.Init) !void {
    const io = init.io;
    var in_buffer: [line_bytes_max]u8 = undefined;
    var out_buffer: [256]u8 = undefined;
    var in = Io.File.stdin().readerStreaming(io, &in_buffer);
    var out = Io.File.stdout().writerStreaming(io, &out_buffer);
    var runner: cases.Runner = .init(io);
    defer runner.deinit();
    while (true) {
        const line = in.interface.takeDelimiterInclusive('\n') catch |err| switch (err) {
            error.EndOfStream => return,
            else => return err,
        };
        const parsed = try std.json.parseFromSlice(cases.Case, init.gpa, line, .{});
        defer parsed.deinit();
        const times = try runner.time(parsed.value);
        try out.interface.print("{d} {d}\n", .{ times.wall_ms, times.cpu_ms });
        try out.interface.flush();
    }
}
