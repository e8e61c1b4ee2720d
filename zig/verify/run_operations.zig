//! Every operation in one type: so many draws of each check, and a line for all of them.

const std = @import("std");
const Check = @import("check.zig").Check;
const Device = @import("device.zig").Device;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;
const operations = @import("operations.zig");
const Pair = @import("pair.zig").Pair;
const reports = @import("report.zig");
const runs = @import("run.zig");
const Run = runs.Run;

/// Shapes of each operation and type.
const draw_count = 20;
const draw_count_quick = 3;
/// No further draw is begun after so long on a GPU: where cuDNN compiles a kernel for each odd
/// shape, the checks behind this one are worth more.
const check_ms = 8000;
const check_ms_quick = 1500;

pub fn run(r: *Run, activation: DType) runs.Error!void {
    var device: Device = undefined;
    var is_open = false;
    defer if (is_open) device.close();
    for (operations.all) |check| {
        if (check.is_f16_alone and activation != .f16) continue;
        if (!is_open and r.report.stopped_by.len == 0 and r.isLeft(check.name)) {
            is_open = try open(r, &device, activation);
        }
        if (!try r.begins(check.name, @tagName(activation))) continue;
        try runCheck(r, &device, check);
        // A context that has failed answers the same to every call. Another one may do.
        if (!device.isBroken()) continue;
        device.close();
        is_open = try open(r, &device, activation);
    }
}

// --- internal ---

/// Where it fails, nothing more can run, and the report says why.
fn open(r: *Run, device: *Device, activation: DType) runs.Error!bool {
    device.open(r.gpa, r.io, activation, r.options.library) catch |err| {
        try r.stop(device.diagnostics.message(), err);
        return false;
    };
    if (r.report.device.len > 0) return true;
    var buffer: [512]u8 = undefined;
    try r.report.describeDevice(device.describe(&buffer));
    return true;
}

fn runCheck(r: *Run, device: *Device, check: *const Check) runs.Error!void {
    var count: u32 = if (r.options.is_quick) draw_count_quick else draw_count;
    const limit_ms: i64 = if (r.options.is_quick) check_ms_quick else check_ms;
    const start = std.Io.Timestamp.now(r.io, .awake);
    var line: reports.Line = .{
        .name = check.name,
        .type = @tagName(device.cuda.activation),
        .verdict = .ok,
    };
    var failed_count: u32 = 0;
    var text: [1400]u8 = undefined;
    for (0..count) |i| {
        const took_ms = start.durationTo(.now(r.io, .awake)).toMilliseconds();
        // The emulator has all the time that it needs.
        if (i > 0 and took_ms > limit_ms and r.options.library.len == 0) {
            count = @intCast(i);
            break;
        }
        const seed = r.options.seed +% i;
        device.diagnostics.reset();
        var pair: Pair = .init(r.gpa, device.cpu, device.cuda, seed);
        defer pair.deinit();
        const result = check.run(&pair);
        if (pair.worst.allowed > 0 and !(pair.worst.off <= line.relative_error orelse 0)) {
            line.relative_error = pair.worst.off;
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
    var whole: [1500]u8 = undefined;
    line.detail = if (failed_count > 0) std.fmt.bufPrint(&whole, "{s}; {d} of {d} draws failed", .{
        line.detail, failed_count, count,
    }) catch line.detail else std.fmt.bufPrint(&whole, "{d} draws", .{count}) catch unreachable;
    if (line.relative_error) |off| if (!std.math.isFinite(off)) {
        line.relative_error = null;
    };
    try r.report.add(line);
}

/// The draw and what went wrong, without a full stop.
fn problemOf(
    buffer: []u8,
    pair: *const Pair,
    diagnostics: *const Diagnostics,
    err: anyerror,
) []const u8 {
    const sentence = if (err == error.Inaccurate)
        pair.problem
    else if (diagnostics.message().len > 0)
        std.mem.trimEnd(u8, diagnostics.message(), ".")
    else
        @errorName(err);
    if (pair.shape.len == 0) return sentence;
    return std.fmt.bufPrint(buffer, "{s}: {s}", .{ pair.shape, sentence }) catch sentence;
}
