//! Products that ranks do together against the same products done alone: the same bits, whatever
//! rank comes when, waits for another's values, stalls, gives up or is cancelled.

const std = @import("std");
const testing = std.testing;
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const cpus = @import("../../cpu.zig");
const Cpu = cpus.Cpu;
const Crew = cpus.Crew;
const InstructionSet = @import("../dispatch.zig").InstructionSet;
const Weight = @import("../../../weights.zig").Weight;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;

const rank_count = 5;
/// Above what is done alone.
const channels = 520;

/// What every rank does, each with pictures of its own height: 1080 rows of a product in all, more
/// than a block holds, so that blocks end within a rank's rows.
const Program = struct {
    linear: *const Weight,
    convolution: *const Weight,
    bias: *const Weight,

    fn init(a: *support.Arena) !Program {
        return .{
            .linear = try a.weight(.{ channels, channels, 1, 1 }, .f16, 0.04),
            .convolution = try a.weight(.{ channels, 3, 3, 64 }, .f16, 0.04),
            .bias = try a.vector(channels),
        };
    }

    fn run(program: *const Program, cpu: *Cpu, data: *const Data) !void {
        try cpu.linear(data.out, 0, data.tokens, program.linear, program.bias, .{
            .activation = .silu,
            .residual = data.tokens,
        });
        try cpu.conv2d(data.pixels, data.picture, program.convolution, program.bias, .{
            .halo_above = data.border,
            .channel_bias = data.channel_bias,
        });
        try cpu.conv2d(data.enlarged, data.picture, program.convolution, program.bias, .{
            .upsample = true,
        });
    }
};

const Data = struct {
    tokens: Tensor,
    out: Tensor,
    picture: Tensor,
    border: ?Tensor,
    channel_bias: Tensor,
    pixels: Tensor,
    enlarged: Tensor,

    fn init(a: *support.Arena, rank: u32) !Data {
        const shape: Shape = .{ .batch = 2, .rows = 2 + 5 * rank, .width = 9, .channels = 64 };
        var border_shape = shape;
        border_shape.rows = 1;
        const pixels = shape.withChannels(channels);
        var enlarged = pixels;
        enlarged.rows *= 2;
        enlarged.width *= 2;
        return .{
            .tokens = try a.randomTensor(.tokens(2, 20 + 7 * rank, channels)),
            .out = try a.tensor(.tokens(2, 20 + 7 * rank, channels), .f32),
            .picture = try a.randomTensor(shape),
            .border = if (rank > 0) try a.randomTensor(border_shape) else null,
            .channel_bias = try a.randomTensor(.vector(2, channels)),
            .pixels = try a.tensor(pixels, .f32),
            .enlarged = try a.tensor(enlarged, .f32),
        };
    }

    fn results(data: *const Data) [3]Tensor {
        return .{ data.out, data.pixels, data.enlarged };
    }
};

/// What can happen to a rank between its turns.
const Trouble = enum { none, waits_for_another, leaves, stalls };

const Rig = struct {
    a: support.Arena,
    program: Program,
    data: [rank_count]Data,
    expected: [rank_count][3][]u32,
    cancelled: std.atomic.Value(bool) = .init(false),
    crew: Crew,
    cpus: [rank_count]*Cpu,
    /// Turns that each rank has ended, of so many.
    turns: [rank_count]std.atomic.Value(u64) = @splat(.init(0)),
    turn_count: u64 = 0,
    /// Rank 1's.
    trouble: Trouble = .none,
    failures: [rank_count]?anyerror = @splat(null),

    fn init(rig: *Rig, thread_count: usize, set: ?InstructionSet) !void {
        rig.* = .{
            .a = .init(thread_count),
            .program = undefined,
            .data = undefined,
            .expected = undefined,
            .crew = undefined,
            .cpus = undefined,
        };
        try rig.crew.init(.{
            .io = testing.io,
            .cancelled = &rig.cancelled,
            .thread_count = thread_count,
            .rank_count = rank_count,
        });
        rig.program = try .init(&rig.a);
        const alone = try support.open(set, 1);
        defer alone.deinit();
        for (&rig.data, &rig.expected, &rig.cpus, 0..) |*data, *expected, *cpu, rank| {
            data.* = try .init(&rig.a, @intCast(rank));
            try rig.program.run(alone, data);
            for (expected, data.results()) |*bits, result| {
                bits.* = try rig.a.allocator().dupe(u32, result.host(u32));
                @memset(result.host(u32), 0xffffffff);
            }
            cpu.* = try .init(testing.allocator, testing.io, .{
                .thread_count = 1,
                .instruction_set = set,
                .cancelled = &rig.cancelled,
                .place = .{ .crew = &rig.crew, .rank = rank },
            });
        }
    }

    fn deinit(rig: *Rig) void {
        for (rig.cpus) |cpu| cpu.deinit();
        rig.crew.deinit();
        rig.a.deinit();
    }

    /// Every rank does its program `turn_count` times.
    fn run(rig: *Rig, turn_count: u64, trouble: Trouble) !void {
        rig.turn_count = turn_count;
        rig.trouble = trouble;
        for (&rig.turns) |*turn| turn.store(0, .monotonic);
        rig.crew.run(rank_count, rig, runRank);
        for (rig.failures) |failure| if (failure) |err| return err;
    }

    fn runUnheard(rig: *Rig, turn_count: u64) void {
        rig.run(turn_count, .none) catch {};
    }

    fn runRank(context: *anyopaque, rank: usize) void {
        const rig: *Rig = @ptrCast(@alignCast(context));
        for (0..rig.turn_count) |turn| {
            if (rank == 1) switch (rig.trouble) {
                .none => {},
                .waits_for_another => rig.waitUntil(rank, &rig.turns[2], turn + 1),
                .leaves => if (turn == 1) return,
                // The others end all their turns meanwhile.
                .stalls => for (0..rank_count) |other| {
                    if (other != rank) rig.waitUntil(rank, &rig.turns[other], rig.turn_count);
                },
            };
            rig.program.run(rig.cpus[rank], &rig.data[rank]) catch |err| {
                rig.failures[rank] = err;
                return;
            };
            rig.turns[rank].store(turn + 1, .release);
            rig.crew.tellNews();
        }
    }

    fn waitUntil(rig: *Rig, rank: usize, value: *const std.atomic.Value(u64), count: u64) void {
        while (value.load(.acquire) < count and !rig.cancelled.load(.acquire)) {
            rig.crew.waitFor(rank, value, count, &rig.cancelled);
        }
    }

    fn expectSame(rig: *const Rig) !void {
        for (rig.data, rig.expected) |data, expected| {
            for (data.results(), expected) |result, bits| {
                try testing.expectEqualSlices(u32, bits, result.host(u32));
                @memset(result.host(u32), 0xffffffff);
            }
        }
    }
};

test "together and alone give the same bits, on every instruction set" {
    var buffer: [support.set_count_max]InstructionSet = undefined;
    for (support.sets(&buffer)) |set| {
        for ([_]usize{ 1, 2, 4 }) |thread_count| {
            var rig: Rig = undefined;
            try rig.init(thread_count, set);
            defer rig.deinit();
            try rig.run(2, .none);
            try rig.expectSame();
        }
    }
}

test "nobody waits for a rank that waits, leaves or stalls" {
    var rig: Rig = undefined;
    try rig.init(2, null);
    defer rig.deinit();
    for ([_]Trouble{ .waits_for_another, .leaves, .stalls }) |trouble| {
        try rig.run(10, trouble);
        try rig.expectSame();
    }
}

test "cancelled ranks come back, and the crew lives on" {
    var rig: Rig = undefined;
    try rig.init(2, null);
    defer rig.deinit();
    rig.cancelled.store(true, .monotonic);
    try testing.expectError(error.Cancelled, rig.run(1, .none));
    rig.failures = @splat(null);
    rig.cancelled.store(false, .monotonic);
    const thread: std.Thread = try .spawn(.{}, Rig.runUnheard, .{ &rig, 1_000_000 });
    try testing.io.sleep(.fromMilliseconds(10), .awake);
    rig.cancelled.store(true, .monotonic);
    thread.join();
    for (rig.failures) |failure| try testing.expectEqual(error.Cancelled, failure.?);
    rig.failures = @splat(null);
    rig.cancelled.store(false, .monotonic);
    try rig.run(1, .none);
    try rig.expectSame();
}
