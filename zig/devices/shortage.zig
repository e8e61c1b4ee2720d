//! The check that weights and scratch fit into free memory, and the error where they do not.

const std = @import("std");
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Gpu = @import("../backend/cuda/gpu.zig").Gpu;
const memory = @import("../system/memory.zig");
const RankDevice = @import("rank_device.zig").RankDevice;

pub const Needs = struct {
    /// Arena bytes of each local rank.
    scratch: []const usize,
    /// 0 once they are loaded.
    weight_bytes: u64,
    /// Of what is loaded later and stays.
    beside_bytes: u64 = 0,
};

pub const Shortage = struct {
    /// Null on the CPU.
    gpu: ?u32 = null,
    /// Bytes of weights that are still to be loaded.
    weights: u64,
    /// Bytes that the arenas of `ranks` must still grow by.
    scratch: u64,
    ranks: u32,
    /// Bytes that are free.
    free: u64,

    /// The shortage of host memory; null where everything fits or the free memory is unknown.
    /// `ranks` are the open ones, with the arenas that they have already.
    pub fn onHost(io: Io, ranks: []const RankDevice, needs: Needs) ?Shortage {
        var one: Shortage = .{
            .weights = needs.weight_bytes + needs.beside_bytes,
            .scratch = 0,
            .ranks = @intCast(needs.scratch.len),
            .free = memory.available(io) orelse return null,
        };
        for (needs.scratch) |bytes| one.scratch += bytes;
        for (ranks) |rank| one.scratch -|= rank.bytes;
        return one.orNull();
    }

    /// The shortage of the first GPU on which its ranks do not fit; null where they fit on all.
    pub fn onGpus(
        gpus: []const Gpu,
        ranks: []const RankDevice,
        needs: Needs,
    ) error{GpuFailed}!?Shortage {
        for (gpus) |*gpu| {
            var one: Shortage = .{
                .gpu = @intCast(gpu.device),
                .weights = needs.weight_bytes + needs.beside_bytes,
                .scratch = 0,
                .ranks = 0,
                .free = try gpu.freeBytes(),
            };
            for (needs.scratch, ranks[0..needs.scratch.len]) |bytes, rank| {
                if (rank.gpu.? != gpu) continue;
                one.scratch += bytes -| rank.bytes;
                one.ranks += 1;
            }
            if (one.orNull()) |found| return found;
        }
        return null;
    }

    /// Null where everything fits.
    pub fn orNull(shortage: Shortage) ?Shortage {
        return if (shortage.weights +| shortage.scratch > shortage.free) shortage else null;
    }

    /// `what` needs it; `advice` is a sentence with what would fit.
    pub fn fail(
        shortage: *const Shortage,
        diagnostics: *Diagnostics,
        what: []const u8,
        advice: []const u8,
    ) error{NotEnoughMemory} {
        var place: [32]u8 = undefined;
        const where = if (shortage.gpu) |index|
            std.fmt.bufPrint(&place, " on GPU {d}", .{index}) catch unreachable
        else
            "";
        const sentence = "The {s} needs {d:.2} GiB of free memory{s} ({d:.2} GiB for weights, " ++
            "{d:.2} GiB of scratch for {d} {s}), and {d:.2} GiB are free. {s}";
        return diagnostics.fail(error.NotEnoughMemory, sentence, .{
            what,
            gibibytes(shortage.weights +| shortage.scratch),
            where,
            gibibytes(shortage.weights),
            gibibytes(shortage.scratch),
            shortage.ranks,
            if (shortage.ranks == 1) "rank" else "ranks",
            gibibytes(shortage.free),
            advice,
        });
    }
};

// --- internal ---

fn gibibytes(bytes: u64) f64 {
    return @as(f64, @floatFromInt(bytes)) / (1 << 30);
}

test "what fits to the byte is no shortage" {
    const whole: Shortage = .{ .weights = 3, .scratch = 4, .ranks = 1, .free = 7 };
    try std.testing.expectEqual(null, whole.orNull());
    var less = whole;
    less.free = 6;
    try std.testing.expect(less.orNull() != null);
    less.weights = std.math.maxInt(u64);
    try std.testing.expect(less.orNull() != null);
}
