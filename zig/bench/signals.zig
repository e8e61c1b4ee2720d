//! `zig build bench-signals`, shown by `bun run bench signals`: the cost of signals between ranks
//! of one process, with one signal per slot or one per group of slots. Ranks signal the slots of a
//! step between units of work of uneven length, wait for the signals of the step before, and end
//! the step with a barrier; nothing else of a denoising step is here.

const std = @import("std");
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const LocalRanks = @import("../transport/local_ranks.zig").LocalRanks;

/// Slots of SDXL's UNet.
const slot_count = 155;
const step_count = 200;
const repeat_count = 5;
/// Slots signalled at once: each, eight, DistriFusion's 60, all.
const group_sizes = [_]u64{ 1, 8, 60, slot_count };
const rank_counts = [_]u32{ 2, 4, 8 };
/// Rounds of arithmetic between two signals: a few microseconds.
const work_rounds = 4000;

const Cost = struct { cpu_ns: i96, wall_ns: i96 };

pub fn main(init: std.process.Init) !void {
    var buffer: [1024]u8 = undefined;
    var stdout = Io.File.stdout().writerStreaming(init.io, &buffer);
    const w = &stdout.interface;
    for (rank_counts) |rank_count| for (group_sizes) |group_size| {
        const worked = try least(init.io, rank_count, group_size, work_rounds);
        try w.print("{d} {d} {d} {d}\n", .{
            rank_count,
            group_size,
            @divTrunc(worked.cpu_ns, step_count * rank_count),
            @divTrunc(worked.wall_ns, step_count),
        });
        try w.flush();
    };
}

/// Other work on the machine only adds to it: the least of several is nearest to the truth.
fn least(io: Io, rank_count: u32, group_size: u64, rounds: u32) !Cost {
    var best: Cost = .{ .cpu_ns = std.math.maxInt(i96), .wall_ns = std.math.maxInt(i96) };
    for (0..repeat_count) |_| {
        const cost = try measure(io, rank_count, group_size, rounds);
        best.cpu_ns = @min(best.cpu_ns, cost.cpu_ns);
        best.wall_ns = @min(best.wall_ns, cost.wall_ns);
    }
    return best;
}

fn measure(io: Io, rank_count: u32, group_size: u64, rounds: u32) !Cost {
    var diagnostics: Diagnostics = .{};
    var local: LocalRanks = .init(io, rank_count, &diagnostics, .{});
    var threads: [16]std.Thread = undefined;
    const cpu_start = Io.Timestamp.now(io, .cpu_process).toNanoseconds();
    const wall_start = Io.Timestamp.now(io, .awake).toNanoseconds();
    for (threads[0..rank_count], 0..) |*thread, rank| {
        const arguments = .{ &local, @as(u32, @intCast(rank)), group_size, rounds };
        thread.* = try std.Thread.spawn(.{}, runRank, arguments);
    }
    for (threads[0..rank_count]) |thread| thread.join();
    return .{
        .cpu_ns = Io.Timestamp.now(io, .cpu_process).toNanoseconds() - cpu_start,
        .wall_ns = Io.Timestamp.now(io, .awake).toNanoseconds() - wall_start,
    };
}

fn runRank(local: *LocalRanks, rank: u32, group_size: u64, rounds: u32) void {
    // Nothing is injected and nobody aborts: there is nothing to fail.
    for (0..step_count) |step| runStep(local, rank, step, group_size, rounds) catch unreachable;
}

fn runStep(local: *LocalRanks, rank: u32, step: u64, group_size: u64, rounds: u32) !void {
    const first = step * slot_count;
    for (1..slot_count + 1) |slot| {
        // A fifth more or less, so that some rank always waits for another.
        work(rounds - rounds / 5 + rounds / 5 * ((rank + step) % 3));
        const is_signalled = slot % group_size == 0 or slot == slot_count;
        if (is_signalled) try local.signal(rank, .unet, first + slot);
        if (step == 0) continue;
        const other = (rank + 1) % local.rank_count;
        try local.waitFor(rank, .unet, other, first - slot_count + slot);
    }
    try local.barrier(rank);
}

fn work(rounds: u64) void {
    var value: u64 = rounds;
    for (0..rounds) |_| value = value *% 6364136223846793005 +% 1442695040888963407;
    std.mem.doNotOptimizeAway(value);
}
