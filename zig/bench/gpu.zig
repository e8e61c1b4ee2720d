//! `zig build gpu-bench`: times one operation of the CUDA backend at a time on a GPU that is opened
//! as the product opens it. Reads operations of `op_trace.zig` as lines of JSON, answers with lines
//! of JSON: {"ms":0.1} or {"error":"sentence"}. The first line describes the GPU.
//!
//!     gpu-bench f16|bf16 [EMULATOR]
//!
//! With the emulator in place of NVIDIA's libraries everything runs once; times are meaningless.

const std = @import("std");
const Io = std.Io;
const cases = @import("gpu_cases.zig");
const fixtures = @import("gpu_fixture.zig");
const DType = @import("../tensor.zig").DType;
const Operation = @import("../backend/op_trace.zig").Operation;

const line_bytes_max = 64 * 1024;

const Answer = struct {
    ms: ?f64 = null,
    @"error": ?[]const u8 = null,
};

pub fn main(init: std.process.Init) !void {
    const io = init.io;
    var in_buffer: [line_bytes_max]u8 = undefined;
    var out_buffer: [4096]u8 = undefined;
    var in = Io.File.stdin().readerStreaming(io, &in_buffer);
    var out = Io.File.stdout().writerStreaming(io, &out_buffer);
    const w = &out.interface;
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    const is_bf16 = args.len > 1 and std.mem.eql(u8, args[1], "bf16");
    const activation: DType = if (is_bf16) .bf16 else .f16;
    var fixture: fixtures.Fixture = undefined;
    fixture.open(init.gpa, io, activation, if (args.len > 2) args[2] else "") catch {
        return say(w, Answer{ .@"error" = fixture.diagnostics.message() });
    };
    defer fixture.close();
    try say(w, fixture.about());
    var runner: cases.Runner = .init(&fixture);
    defer runner.deinit();
    while (true) {
        const line = in.interface.takeDelimiterInclusive('\n') catch |err| switch (err) {
            error.EndOfStream => return,
            else => return err,
        };
        const parsed = try std.json.parseFromSlice(Operation, init.gpa, line, .{});
        defer parsed.deinit();
        fixture.diagnostics.reset();
        if (runner.time(parsed.value)) |ms| {
            try say(w, Answer{ .ms = ms });
        } else |err| {
            const sentence = fixture.diagnostics.message();
            try say(w, Answer{ .@"error" = if (sentence.len > 0) sentence else @errorName(err) });
        }
    }
}

fn say(w: *Io.Writer, value: anytype) !void {
    try std.json.Stringify.value(value, .{}, w);
    try w.writeByte('\n');
    try w.flush();
}
