//! Runs the checks one after the other. What fails is reported and the run goes on; where the GPU
//! cannot be opened any more, the rest is counted as not run.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const DType = @import("../tensor.zig").DType;
const Golden = @import("golden.zig").Golden;
const Options = @import("options.zig").Options;
const reports = @import("report.zig");
const Report = reports.Report;
const run_images = @import("run_images.zig");
const run_networks = @import("run_networks.zig");
const run_operations = @import("run_operations.zig");
const run_peers = @import("run_peers.zig");

pub const Error = Report.Error;

/// Where it returns, the report is finished, whatever was found.
pub fn run(gpa: Allocator, io: Io, options: *const Options, report: *Report) Error!void {
    var r: Run = .{ .gpa = gpa, .io = io, .options = options, .report = report };
    defer r.golden.close();
    for ([_]DType{ .f16, .bf16 }) |activation| try run_operations.run(&r, activation);
    try run_networks.run(&r);
    try run_images.run(&r);
    try run_peers.run(&r);
    if (r.asked_count == 0) try report.stop("No check has such a name.");
    try report.finish();
}

/// What all parts of a run share.
pub const Run = struct {
    gpa: Allocator,
    io: Io,
    options: *const Options,
    report: *Report,
    /// Made when it is first asked for.
    golden: Golden = .{},
    is_made: bool = false,
    /// Checks that were asked for so far, those left out among them.
    asked_count: u32 = 0,

    /// The tiny model; null where it cannot be made, which is reported then.
    pub fn model(r: *Run, name: []const u8) Error!?*Golden {
        if (r.is_made) return &r.golden;
        r.golden.open(r.gpa, r.io) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => {
                try r.fail(name, "", "the tiny model cannot be made here ({t})", .{err});
                return null;
            },
        };
        r.is_made = true;
        return &r.golden;
    }

    /// Whether `begins` would count its check among those that run.
    pub fn isLeft(r: *const Run, name: []const u8) bool {
        return r.options.includes(name) and r.asked_count >= r.options.skipped_count;
    }

    /// Whether the check `name` is to run now; where it cannot, it is counted.
    pub fn begins(r: *Run, name: []const u8, type_name: []const u8) Error!bool {
        if (!r.options.includes(name)) return false;
        r.asked_count += 1;
        if (r.asked_count <= r.options.skipped_count) return false;
        if (r.report.stopped_by.len == 0) {
            if (r.options.is_announced) try r.report.announce(name, type_name);
            return true;
        }
        try r.report.add(.{ .name = name, .type = type_name, .verdict = .not_run });
        return false;
    }

    pub fn stop(r: *Run, sentence: []const u8, err: anyerror) Error!void {
        try r.report.stop(if (sentence.len > 0) sentence else @errorName(err));
    }

    /// A comparison of numbers by their relative error.
    pub fn compare(
        r: *Run,
        name: []const u8,
        type_name: []const u8,
        what: []const u8,
        off: f64,
        allowed: f64,
    ) Error!void {
        var buffer: [256]u8 = undefined;
        const is_close = off <= allowed;
        const text = if (is_close) what else std.fmt.bufPrint(
            &buffer,
            "{s}: relative error {e:.1}, allowed {e:.1}",
            .{ what, off, allowed },
        ) catch what;
        try r.report.add(.{
            .name = name,
            .type = type_name,
            .verdict = if (is_close) .ok else .failed,
            .detail = text,
            .relative_error = if (std.math.isFinite(off)) off else null,
            .allowed = allowed,
        });
    }

    pub fn fail(
        r: *Run,
        name: []const u8,
        type_name: []const u8,
        comptime format: []const u8,
        args: anytype,
    ) Error!void {
        var buffer: [1200]u8 = undefined;
        const text = std.fmt.bufPrint(&buffer, format, args) catch &buffer;
        try r.report.add(.{
            .name = name,
            .type = type_name,
            .verdict = .failed,
            .detail = text,
        });
    }
};
