//! What `verify` says: a line for each check as it ends and a summary, or one JSON object.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;

pub const Verdict = enum { ok, failed, skipped, not_run };

/// One check, as JSON has it.
pub const Line = struct {
    name: []const u8,
    /// "f16", "bf16"; "" where both or none.
    type: []const u8 = "",
    verdict: Verdict,
    /// What was compared, why it failed, was skipped or did not run.
    detail: []const u8 = "",
    /// The seed of a draw that failed: `--only NAME --seed N` runs it again, first.
    seed: ?u64 = null,
    /// The largest relative error, and what is allowed, where numbers are compared.
    relative_error: ?f64 = null,
    allowed: ?f64 = null,
};

pub const Report = struct {
    arena: std.heap.ArenaAllocator,
    writer: *Io.Writer,
    is_json: bool,
    lines: std.ArrayList(Line) = .empty,
    counts: std.EnumArray(Verdict, u32) = .initFill(0),
    /// The GPU, its driver and libraries.
    device: []const u8 = "",
    /// Why nothing more could run; "" where everything did.
    stopped_by: []const u8 = "",

    pub const Error = Allocator.Error || Io.Writer.Error;

    pub fn init(gpa: Allocator, writer: *Io.Writer, is_json: bool) Report {
        return .{ .arena = .init(gpa), .writer = writer, .is_json = is_json };
    }

    pub fn deinit(report: *Report) void {
        report.arena.deinit();
    }

    pub fn hasPassed(report: *const Report) bool {
        return report.counts.get(.failed) == 0 and report.counts.get(.not_run) == 0 and
            report.stopped_by.len == 0;
    }

    pub fn describeDevice(report: *Report, text: []const u8) Error!void {
        report.device = try report.arena.allocator().dupe(u8, text);
        if (!report.is_json) try report.writer.print("{s}\n", .{text});
        try report.writer.flush();
    }

    /// A check begins.
    pub fn announce(report: *Report, name: []const u8, type_name: []const u8) Error!void {
        if (report.is_json) return;
        const comma = if (type_name.len > 0) ", " else "";
        try report.writer.print("begins   {s}{s}{s}\n", .{ name, comma, type_name });
        try report.writer.flush();
    }

    /// Copies the line.
    pub fn add(report: *Report, line: Line) Error!void {
        const a = report.arena.allocator();
        var own = line;
        own.name = try a.dupe(u8, line.name);
        own.detail = try a.dupe(u8, line.detail);
        try report.lines.append(a, own);
        report.counts.getPtr(line.verdict).* += 1;
        if (report.is_json or line.verdict == .not_run) return;
        const w = report.writer;
        const word = switch (line.verdict) {
            .ok => "ok     ",
            .failed => "FAILED ",
            .skipped => "skipped",
            .not_run => unreachable,
        };
        try w.print("{s}  {s}", .{ word, own.name });
        if (own.type.len > 0) try w.print(", {s}", .{own.type});
        if (own.detail.len > 0) try w.print(": {s}", .{own.detail});
        if (own.seed) |seed| try w.print(" (seed {d})", .{seed});
        if (line.verdict == .ok) if (own.relative_error) |off| {
            try w.print(", off by {e:.1} of {e:.1}", .{ off, own.allowed.? });
        };
        try w.writeByte('\n');
        try w.flush();
    }

    /// Nothing more can run; the sentence says why.
    pub fn stop(report: *Report, sentence: []const u8) Error!void {
        report.stopped_by = try report.arena.allocator().dupe(u8, sentence);
        if (report.is_json) return;
        try report.writer.print("{s}\n", .{sentence});
        try report.writer.flush();
    }

    /// The summary, or the JSON object.
    pub fn finish(report: *Report) Error!void {
        const w = report.writer;
        const counts = &report.counts;
        if (report.is_json) {
            try std.json.Stringify.value(.{
                .device = report.device,
                .ok = counts.get(.ok),
                .failed = counts.get(.failed),
                .skipped = counts.get(.skipped),
                .not_run = counts.get(.not_run),
                .stopped_by = report.stopped_by,
                .checks = report.lines.items,
            }, .{}, w);
            try w.writeByte('\n');
            return w.flush();
        }
        try w.print("{d} ok, {d} failed, {d} skipped", .{
            counts.get(.ok), counts.get(.failed), counts.get(.skipped),
        });
        if (counts.get(.not_run) > 0) try w.print(", {d} not run", .{counts.get(.not_run)});
        try w.writeAll(".\n");
        try w.flush();
    }
};
