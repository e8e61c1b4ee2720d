//! CPU ranks: a thread pool each, or fibers on shared threads where there are more ranks than
//! threads.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backend = @import("../backend.zig");
const cores = @import("../system/cores.zig");
const options_file = @import("options.zig");
const Options = options_file.Options;
const rank_count_max = @import("../transport.zig").rank_count_max;
const RankDevice = @import("rank_device.zig").RankDevice;
const RankFibers = backend.cpus.RankFibers;

pub const Error = options_file.Error;

pub const CpuRanks = struct {
    gpa: Allocator,
    io: Io,
    cancelled: *const std.atomic.Value(bool),
    options: *const Options,
    rank_count: u32,
    thread_count: u32,
    /// Null where every rank has threads of its own.
    fibers: ?*RankFibers,

    /// `arena` holds the fibers until `close`.
    pub fn open(
        gpa: Allocator,
        arena: Allocator,
        io: Io,
        cancelled: *const std.atomic.Value(bool),
        options: *const Options,
    ) Error!CpuRanks {
        comptime assert(rank_count_max <= RankFibers.member_count_max);
        var ranks: CpuRanks = .{
            .gpa = gpa,
            .io = io,
            .cancelled = cancelled,
            .options = options,
            .rank_count = options.local_ranks.count(),
            // Read once: a container's limit may change meanwhile.
            .thread_count = if (options.thread_count > 0) options.thread_count else cores.count(io),
            .fibers = null,
        };
        if (ranks.thread_count >= ranks.rank_count) return ranks;
        const fibers = try arena.create(RankFibers);
        try fibers.init(.{
            .io = io,
            .cancelled = cancelled,
            .thread_count = ranks.thread_count,
            .rank_count = ranks.rank_count,
        });
        ranks.fibers = fibers;
        return ranks;
    }

    /// After the ranks have been closed.
    pub fn close(ranks: *CpuRanks) void {
        if (ranks.fibers) |fibers| fibers.deinit();
        ranks.* = undefined;
    }

    /// Opens the local rank `i`.
    pub fn openRank(ranks: *const CpuRanks, i: u32) Error!RankDevice {
        const count = ranks.rank_count;
        // The first ranks get the remainder.
        const threads = ranks.thread_count / count + @intFromBool(i < ranks.thread_count % count);
        const cpu = backend.Cpu.init(ranks.gpa, ranks.io, .{
            .thread_count = @max(1, threads),
            .compute = ranks.options.compute_dtype,
            .fiber_slot = if (ranks.fibers) |fibers| .{ .fibers = fibers, .rank = i } else null,
            .cancelled = ranks.cancelled,
        }) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => return error.ThreadsUnavailable,
        };
        return .{ .device = .{ .cpu = cpu } };
    }
};
