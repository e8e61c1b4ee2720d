//! `basedxl-gpu bench`: times the operations of a list that src/setup/kit.ts writes, the heaviest
//! first, each against the rate of a large product or copy in the same run.
//!
//!     basedxl-gpu bench LIST.jsonl SECONDS [EMULATOR] [SKIP]
//!
//! Without the first SKIP operations behind the ceilings, which another process has begun: after
//! some errors a process cannot use the GPU any more, and the next one goes on. Every line tells of
//! one operation, and its name is there before it runs. Its checksum is a hash of what it computes
//! from operands that are the same in every run; replayed from a CUDA graph after the timing it
//! must have the same bits. No operation is begun after SECONDS. The exit code is 1 where one
//! failed.

const std = @import("std");
const Io = std.Io;
const cases = @import("gpu_cases.zig");
const fixtures = @import("gpu_fixture.zig");
const Operation = @import("../backend/op_trace.zig").Operation;

const list_bytes_max = 16 << 20;
const sample_count = 5;
/// Operations that are figures, as many as PyTorch times (tests/reference/gpu_kit_peer.py).
const figure_count_max = 10;

const Line = struct {
    /// The part of an image; "ceiling" for what rates are compared with.
    part: []const u8,
    name: []const u8,
    /// How often a step, a decoding or a prompt has it.
    count: u32,
    flops: u64,
    bytes: u64,
    operation: Operation,

    fn isCeiling(line: *const Line) bool {
        return std.mem.eql(u8, line.part, "ceiling");
    }
};

pub fn main(init: std.process.Init, args: []const [:0]const u8) !u8 {
    const arena = init.arena.allocator();
    const io = init.io;
    var buffer: [4096]u8 = undefined;
    var out = Io.File.stdout().writerStreaming(io, &buffer);
    const w = &out.interface;
    defer w.flush() catch {};
    if (args.len < 2) {
        try w.writeAll("usage: basedxl-gpu bench LIST.jsonl SECONDS [EMULATOR] [SKIP]\n");
        return 2;
    }
    const text = try Io.Dir.cwd().readFileAlloc(io, args[0], arena, .limited(list_bytes_max));
    const seconds = try std.fmt.parseInt(u32, args[1], 10);
    var skip_count = if (args.len > 3) try std.fmt.parseInt(u32, args[3], 10) else 0;
    var fixture: fixtures.Fixture = undefined;
    var runner: cases.Runner = undefined;
    var bench: Bench = .{
        .w = w,
        .gpa = init.gpa,
        .io = io,
        .emulator = if (args.len > 2) args[2] else "",
        .fixture = &fixture,
        .runner = &runner,
        .skipped_count = skip_count,
    };
    if (!try bench.open()) return 1;
    defer bench.close();
    try w.print("{f}\n\n", .{std.json.fmt(fixture.about(), .{})});
    const limit_ns = @as(i96, seconds) * std.time.ns_per_s;
    const start = Io.Timestamp.now(io, .awake);
    var lines = std.mem.tokenizeScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (start.durationTo(.now(io, .awake)).nanoseconds > limit_ns) {
            bench.skipped_count += 1;
            continue;
        }
        const parsed = try std.json.parseFromSliceLeaky(Line, arena, line, .{});
        if (skip_count > 0 and !parsed.isCeiling()) {
            skip_count -= 1;
            continue;
        }
        if (try bench.measure(parsed)) continue;
        // After an error a CUDA context may compute nothing any more.
        bench.close();
        if (!try bench.open()) {
            while (lines.next() != null) bench.skipped_count += 1;
            bench.is_lost = true;
            break;
        }
    }
    try bench.conclude(seconds);
    return @intFromBool(bench.failed_count + bench.differing_count > 0);
}

// --- internal ---

const Bench = struct {
    w: *Io.Writer,
    gpa: std.mem.Allocator,
    io: Io,
    emulator: [:0]const u8,
    is_open: bool = false,
    fixture: *fixtures.Fixture,
    runner: *cases.Runner,
    /// FLOP and bytes per millisecond; 0 until they are measured.
    flop_rate: f64 = 0,
    byte_rate: f64 = 0,
    step_ms: f64 = 0,
    figure_count: u32 = 0,
    timed_count: u32 = 0,
    failed_count: u32 = 0,
    differing_count: u32 = 0,
    skipped_count: u32 = 0,
    /// Nothing more can be computed in this process.
    is_lost: bool = false,

    /// False where there is no GPU, after a sentence.
    fn open(bench: *Bench) !bool {
        if (bench.fixture.open(bench.gpa, bench.io, .f16, bench.emulator)) {
            bench.runner.* = .init(bench.fixture);
            bench.is_open = true;
        } else |_| {
            try bench.w.print("FAILED: {s}\n", .{bench.fixture.diagnostics.message()});
        }
        return bench.is_open;
    }

    fn close(bench: *Bench) void {
        if (!bench.is_open) return;
        bench.runner.deinit();
        bench.fixture.close();
        bench.is_open = false;
    }

    /// False where it failed.
    fn measure(bench: *Bench, line: Line) !bool {
        bench.fixture.diagnostics.reset();
        try bench.w.print("{s: <8} {s: <52} {d: >4} x ", .{ line.part, line.name, line.count });
        try bench.w.flush();
        const sums = bench.run(line) catch |err| {
            bench.failed_count += 1;
            const sentence = bench.fixture.diagnostics.message();
            const reason = if (sentence.len > 0) sentence else @errorName(err);
            try bench.w.print("\nFAILED {s}, {s}: {s}\n", .{ line.part, line.name, reason });
            try bench.w.flush();
            return false;
        };
        try bench.show(line, sums);
        return true;
    }

    fn show(bench: *Bench, line: Line, sums: Sums) !void {
        const rate = if (line.flops > 0) line.flops else line.bytes;
        const per_ms = @as(f64, @floatFromInt(rate)) / sums.ms;
        const is_ceiling = line.isCeiling();
        const ceiling = if (line.flops > 0) &bench.flop_rate else &bench.byte_rate;
        if (is_ceiling) ceiling.* = per_ms;
        const all_ms = sums.ms * @as(f64, @floatFromInt(line.count));
        if (std.mem.eql(u8, line.part, "UNet")) bench.step_ms += all_ms;
        bench.timed_count += 1;
        if (!sums.isSame()) bench.differing_count += 1;
        const w = bench.w;
        try w.print("{d: >9.1} us", .{1e3 * sums.ms});
        const unit: struct { f64, []const u8 } =
            if (line.flops > 0) .{ 1e9, "TFLOP/s" } else .{ 1e6, "GB/s   " };
        try w.print(" {d: >8.1} {s}", .{ per_ms / unit[0], unit[1] });
        const share = if (ceiling.* > 0) 100 * per_ms / ceiling.* else 0;
        try w.print(" {d: >4.0} % {d: >8.3} ms {x:0>16}", .{ share, all_ms, sums.eager });
        try w.writeAll(if (sums.isSame()) "\n" else " DIFFERS in a graph\n");
        if (!is_ceiling and bench.figure_count < figure_count_max) {
            bench.figure_count += 1;
            try w.print("figure\t{s}\t{d:.2}\tus\n", .{ line.name, 1e3 * sums.ms });
        }
        try w.flush();
    }

    const Sums = struct {
        ms: f64,
        eager: u64,
        replayed: u64,

        fn isSame(sums: Sums) bool {
            return sums.eager == sums.replayed;
        }
    };

    fn run(bench: *Bench, line: Line) !Sums {
        var samples: [sample_count]f64 = undefined;
        const count: usize = if (bench.fixture.is_emulated) 1 else sample_count;
        for (samples[0..count]) |*ms| ms.* = try bench.runner.time(line.operation);
        std.mem.sort(f64, samples[0..count], {}, std.sort.asc(f64));
        return .{
            .ms = samples[count / 2],
            .eager = try bench.runner.checksum(.eager),
            .replayed = try bench.runner.checksum(.replayed),
        };
    }

    fn conclude(bench: *Bench, seconds: u32) !void {
        const w = bench.w;
        try w.print("\n{d} operations timed, {d} failed, {d} differ in a graph\n", .{
            bench.timed_count, bench.failed_count, bench.differing_count,
        });
        if (bench.skipped_count > 0) {
            try w.print("{d} more were left out", .{bench.skipped_count});
            if (bench.is_lost) try w.writeAll(": no GPU\n") else {
                try w.print(": begun before, or {d} s were over\n", .{seconds});
            }
        }
        try w.print("figure\tlarge product\t{d:.1}\tTFLOP/s\n", .{bench.flop_rate / 1e9});
        try w.print("figure\tlarge copy\t{d:.1}\tGB/s\n", .{bench.byte_rate / 1e6});
        const rest = if (bench.skipped_count > 0) ", as far as timed" else "";
        const name = "UNet step, operation by operation";
        try w.print("figure\t{s}{s}\t{d:.3}\tms\n", .{ name, rest, bench.step_ms });
    }
};
