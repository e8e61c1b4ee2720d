//! Products that ranks do together against the same products done alone: the same bits, whatever
//! rank comes when, waits for another's values, stalls, gives up or is cancelled.

const std = @import("std");
const testing = std.testing;
const support = @import("support.zig");
const tensors = @import("../../../tensor.zig");
const cpus = @import("../../cpu.zig");
const Cpu = cpus.Cpu;
const RankFibers = cpus.RankFibers;
const InstructionSet = @import("../dispatch.zig").InstructionSet;
const Weight = @import("../../../weights.zig").Weight;
const Shape = tensors.Shape;
const Tensor = tensors.Tensor;

const rank_count = 5;
/// Above what is done alone.
const channels = 520;

/// What every rank does, each with images of its own height: 1080 rows of a product in all, more
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
        try cpu.conv2d(data.pixels, data.image, program.convolution, program.bias, .{
            .halo_above = data.halo,
            .channel_bias = data.channel_bias,
        });
        try cpu.conv2d(data.enlarged, data.image, program.convolution, program.bias, .{
            .upsample = true,
        });
    }
};

const Data = struct {
    tokens: Tensor,
    out: Tensor,
    image: Tensor,
    halo: ?Tensor,
    channel_bias: Tensor,
    pixels: Tensor,
    enlarged: Tensor,

    fn init(a: *support.Arena, rank: u32) !Data {
        const shape: Shape = .{ .batch = 2, .rows = 2 + 5 * rank, .width = 9, .channels = 64 };
        var halo_shape = shape;
        halo_shape.rows = 1;
        const pixels = shape.withChannels(channels);
        var enlarged = pixels;
        enlarged.rows *= 2;
        enlarged.width *= 2;
        return .{
            .tokens = try a.randomTensor(.tokens(2, 20 + 7 * rank, channels)),
            .out = try a.tensor(.tokens(2, 20 + 7 * rank, channels), .f32),
            .image = try a.randomTensor(shape),
            .halo = if (rank > 0) try a.randomTensor(halo_shape) else null,
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

const Fixture = struct {
    a: support.Arena,
    program: Program,
    data: [rank_count]Data,
    expected: [rank_count][3][]u32,
    cancelled: std.atomic.Value(bool) = .init(false),
    fibers: RankFibers,
    cpus: [rank_count]*Cpu,
    /// Turns that each rank has ended, of so many.
    turns: [rank_count]std.atomic.Value(u64) = @splat(.init(0)),
    turn_count: u64 = 0,
    /// Rank 1's.
    trouble: Trouble = .none,
    failures: [rank_count]?anyerror = @splat(null),

    fn init(fixture: *Fixture, thread_count: usize, set: ?InstructionSet) !void {
        fixture.* = .{
            .a = .init(thread_count),
            .program = undefined,
            .data = undefined,
            .expected = undefined,
            .fibers = undefined,
            .cpus = undefined,
        };
        try fixture.fibers.init(.{
            .io = testing.io,
            .cancelled = &fixture.cancelled,
            .thread_count = thread_count,
            .rank_count = rank_count,
        });
        fixture.program = try .init(&fixture.a);
        const alone = try support.open(set, 1);
        defer alone.deinit();
        for (&fixture.data, &fixture.expected, &fixture.cpus, 0..) |*data, *expected, *cpu, rank| {
            data.* = try .init(&fixture.a, @intCast(rank));
            try fixture.program.run(alone, data);
            for (expected, data.results()) |*bits, result| {
                bits.* = try fixture.a.allocator().dupe(u32, result.host(u32));
                @memset(result.host(u32), 0xffffffff);
            }
            cpu.* = try .init(testing.allocator, testing.io, .{
                .thread_count = 1,
                .instruction_set = set,
                .cancelled = &fixture.cancelled,
                .fiber_slot = .{ .fibers = &fixture.fibers, .rank = rank },
            });
        }
    }

    fn deinit(fixture: *Fixture) void {
        for (fixture.cpus) |cpu| cpu.deinit();
        fixture.fibers.deinit();
        fixture.a.deinit();
    }

    /// Every rank does its program `turn_count` times.
    fn run(fixture: *Fixture, turn_count: u64, trouble: Trouble) !void {
        fixture.turn_count = turn_count;
        fixture.trouble = trouble;
        for (&fixture.turns) |*turn| turn.store(0, .monotonic);
        fixture.fibers.run(rank_count, fixture, runRank);
        for (fixture.failures) |failure| if (failure) |err| return err;
    }

    fn runUnheard(fixture: *Fixture, turn_count: u64) void {
        fixture.run(turn_count, .none) catch {};
    }

    fn runRank(context: *anyopaque, rank: usize) void {
        const fixture: *Fixture = @ptrCast(@alignCast(context));
        for (0..fixture.turn_count) |turn| {
            if (rank == 1) switch (fixture.trouble) {
                .none => {},
                .waits_for_another => fixture.waitUntil(rank, &fixture.turns[2], turn + 1),
                .leaves => if (turn == 1) return,
                // The others end all their turns meanwhile.
                .stalls => for (0..rank_count) |other| {
                    if (other != rank) fixture.waitUntil(
                        rank,
                        &fixture.turns[other],
                        fixture.turn_count,
                    );
                },
            };
            fixture.program.run(fixture.cpus[rank], &fixture.data[rank]) catch |err| {
                fixture.failures[rank] = err;
                return;
            };
            fixture.turns[rank].store(turn + 1, .release);
            fixture.fibers.notify();
        }
    }

    fn waitUntil(
        fixture: *Fixture,
        rank: usize,
        value: *const std.atomic.Value(u64),
        count: u64,
    ) void {
        while (value.load(.acquire) < count and !fixture.cancelled.load(.acquire)) {
            fixture.fibers.waitFor(rank, value, count, &fixture.cancelled);
        }
    }

    fn expectSame(fixture: *const Fixture) !void {
        for (fixture.data, fixture.expected) |data, expected| {
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
            var fixture: Fixture = undefined;
            try fixture.init(thread_count, set);
            defer fixture.deinit();
            try fixture.run(2, .none);
            try fixture.expectSame();
        }
    }
}

test "nobody waits for a rank that waits, leaves or stalls" {
    var fixture: Fixture = undefined;
    try fixture.init(2, null);
    defer fixture.deinit();
    for ([_]Trouble{ .waits_for_another, .leaves, .stalls }) |trouble| {
        try fixture.run(10, trouble);
        try fixture.expectSame();
    }
}

test "cancelled ranks come back, and the fibers lives on" {
    var fixture: Fixture = undefined;
    try fixture.init(2, null);
    defer fixture.deinit();
    fixture.cancelled.store(true, .monotonic);
    try testing.expectError(error.Cancelled, fixture.run(1, .none));
    fixture.failures = @splat(null);
    fixture.cancelled.store(false, .monotonic);
    const thread: std.Thread = try .spawn(.{}, Fixture.runUnheard, .{ &fixture, 1_000_000 });
    try testing.io.sleep(.fromMilliseconds(10), .awake);
    fixture.cancelled.store(true, .monotonic);
    thread.join();
    for (fixture.failures) |failure| try testing.expectEqual(error.Cancelled, failure.?);
    fixture.failures = @splat(null);
    fixture.cancelled.store(false, .monotonic);
    try fixture.run(1, .none);
    try fixture.expectSame();
}
