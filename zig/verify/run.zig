//! Runs the checks one after the other. What fails is reported and the run goes on; where the GPU
//! answers nothing any more, the rest is counted as not run.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Check = @import("check.zig").Check;
const Device = @import("device.zig").Device;
const DType = @import("../tensor.zig").DType;
const operations = @import("operations.zig");
const Options = @import("options.zig").Options;
const Pair = @import("pair.zig").Pair;
const reports = @import("report.zig");
const Report = reports.Report;

/// Shapes of each operation and type.
const draw_count = 20;
const draw_count_quick = 3;

/// Where it returns, the report is finished, whatever was found.
pub fn run(gpa: Allocator, io: Io, options: *const Options, report: *Report) !void {
    var r: Run = .{ .gpa = gpa, .io = io, .options = options, .report = report };
    for ([_]DType{ .f16, .bf16 }) |activation| try r.runOperations(activation);
    if (report.lines.items.len == 0) try report.stop("No check has such a name.");
    try report.finish();
}

const Run = struct {
    gpa: Allocator,
    io: Io,
    options: *const Options,
    report: *Report,

    fn runOperations(r: *Run, activation: DType) !void {
        var device: Device = undefined;
        var is_open = false;
        defer if (is_open) device.close();
        for (operations.all) |check| {
            if (!r.options.includes(check.name)) continue;
            if (check.is_f16_alone and activation != .f16) continue;
            const type_name = @tagName(activation);
            if (!is_open and r.report.stopped_by.len == 0) {
                if (device.open(r.gpa, r.io, activation, r.options.library)) {
                    is_open = true;
                    try r.describe(&device);
                } else |err| try r.stop(device.diagnostics.message(), err);
            }
            if (r.report.stopped_by.len > 0) {
                try r.report.add(.{ .name = check.name, .type = type_name, .verdict = .not_run });
            } else try r.runCheck(&device, check);
        }
    }

    fn runCheck(r: *Run, device: *Device, check: *const Check) !void {
        const count: u32 = if (r.options.is_quick) draw_count_quick else draw_count;
        var line: reports.Line = .{
            .name = check.name,
            .type = @tagName(device.cuda.activation),
            .verdict = .ok,
        };
        var failed_count: u32 = 0;
        var text: [1024]u8 = undefined;
        for (0..count) |i| {
            const seed = r.options.seed +% i;
            device.diagnostics.reset();
            var pair: Pair = .init(r.gpa, device.cpu, device.cuda, seed);
            defer pair.deinit();
            const result = check.run(&pair);
            if (pair.worst.allowed > 0 and !(pair.worst.off <= line.off orelse 0)) {
                line.off = pair.worst.off;
                line.allowed = pair.worst.allowed;
            }
            const err = if (result) continue else |err| err;
            if (err == error.OutOfMemory) return error.OutOfMemory;
            failed_count += 1;
            if (line.verdict == .ok) {
                line.verdict = .failed;
                line.seed = seed;
                line.detail = problemOf(&text, &pair, &device.diagnostics, err);
            }
            if (device.isBroken()) break;
        }
        var whole: [1200]u8 = undefined;
        line.detail = if (failed_count > 0)
            std.fmt.bufPrint(&whole, "{s}; {d} of {d} draws failed", .{
                line.detail, failed_count, count,
            }) catch line.detail
        else
            try std.fmt.bufPrint(&whole, "{d} draws", .{count});
        try r.report.add(line);
        if (failed_count > 0 and device.isBroken()) {
            try r.report.stop("After this error the GPU answers nothing more: no other check ran.");
        }
    }

    fn describe(r: *Run, device: *const Device) !void {
        if (r.report.device.len > 0) return;
        var buffer: [512]u8 = undefined;
        try r.report.describeDevice(device.describe(&buffer));
    }

    fn stop(r: *Run, sentence: []const u8, err: anyerror) !void {
        try r.report.stop(if (sentence.len > 0) sentence else @errorName(err));
    }
};

/// The draw and what went wrong, without a full stop.
fn problemOf(
    buffer: []u8,
    pair: *const Pair,
    diagnostics: anytype,
    err: anyerror,
) []const u8 {
    const sentence = if (err == error.Inaccurate)
        pair.problem
    else if (diagnostics.message().len > 0)
        std.mem.trimEnd(u8, diagnostics.message(), ".")
    else
        @errorName(err);
    return std.fmt.bufPrint(buffer, "{s}: {s}", .{ pair.shape, sentence }) catch sentence;
}
