//! NCCL as ranks will use it, a thread and a GPU each, on the emulated library: all-gathers, passes
//! both ways, replays of graphs, and an abort that lets a stalled stream go on.

const std = @import("std");
const drivers = @import("driver.zig");
const library_fixture = @import("../emulator/library_fixture.zig");
const nccl = @import("nccl.zig");
const fixtures = @import("../emulator/fixture.zig");
const LibraryFixture = library_fixture.LibraryFixture;
const ok = fixtures.ok;

const count = 100;

fn done(result: nccl.Result) !void {
    try std.testing.expectEqual(nccl.Result.success, result);
}

/// One rank's thread and what it needs.
const Rank = struct {
    l: *LibraryFixture,
    comm: nccl.Comm,
    rank: u32,
    rank_count: u32,

    fn table(r: *const Rank) *const nccl.Nccl {
        return &r.l.libraries.nccl.?;
    }

    /// Numbers that identify rank, round and position.
    fn number(rank: usize, round: usize, i: usize) f32 {
        return @floatFromInt(1000 * rank + 100_000 * round + i);
    }

    fn source(r: *const Rank, round: usize) !usize {
        var values: [count]f32 = undefined;
        for (&values, 0..) |*value, i| value.* = number(r.rank, round, i);
        return r.l.fixture.upload(f32, &values);
    }

    fn expectFrom(values: []const f32, rank: usize, round: usize) !void {
        for (values, 0..) |value, i| {
            try std.testing.expectEqual(number(rank, round, i), value);
        }
    }
};

/// Runs `body` on every rank at once; the first error of any counts.
fn onRanks(rank_count: u32, seed: u64, comptime body: fn (Rank) anyerror!void) !void {
    const Thread = struct {
        fn main(rank: u32, ranks: u32, s: u64, id: nccl.UniqueId, failure: *?anyerror) void {
            work(rank, ranks, s, id) catch |err| {
                failure.* = err;
            };
        }

        fn work(rank: u32, ranks: u32, s: u64, id: nccl.UniqueId) !void {
            var l: LibraryFixture = try .initOn(@intCast(rank), s, null);
            defer l.deinit();
            var comm: ?nccl.Comm = null;
            const table = &l.libraries.nccl.?;
            try done(table.ncclCommInitRank(&comm, @intCast(ranks), id, @intCast(rank)));
            try body(.{ .l = &l, .comm = comm.?, .rank = rank, .rank_count = ranks });
        }
    };
    var l: LibraryFixture = try .init(seed, null);
    defer l.deinit();
    var id: nccl.UniqueId = undefined;
    try done(l.libraries.nccl.?.ncclGetUniqueId(&id));
    var failures: [2]?anyerror = @splat(null);
    var threads: [2]std.Thread = undefined;
    for (threads[0..rank_count], 0..) |*thread, i| {
        const rank: u32 = @intCast(i);
        thread.* = try .spawn(.{}, Thread.main, .{ rank, rank_count, seed, id, &failures[i] });
    }
    for (threads[0..rank_count]) |thread| thread.join();
    for (failures) |failure| if (failure) |err| return err;
}

fn gatherOften(r: Rank) !void {
    const t = r.table();
    const target = try r.l.fixture.alloc(f32, count * r.rank_count);
    for (0..5) |round| {
        const from = try r.source(round);
        const stream = r.l.fixture.stream;
        try done(t.ncclAllGather(from, target, count, .float32, r.comm, stream));
        const values = try r.l.download(.f32, target, count * r.rank_count);
        for (0..r.rank_count) |rank| {
            try Rank.expectFrom(values[rank * count ..][0..count], rank, round);
        }
    }
    try done(t.ncclCommDestroy(r.comm));
}

fn passBothWays(r: Rank) !void {
    const t = r.table();
    const other: c_int = @intCast(1 - r.rank);
    const stream = r.l.fixture.stream;
    const target = try r.l.fixture.alloc(f32, 2 * count);
    for (0..4) |round| {
        const from = try r.source(round);
        try done(t.ncclGroupStart());
        // Two at once: matched by their order.
        try done(t.ncclSend(from, count, .float32, other, r.comm, stream));
        try done(t.ncclRecv(target, count, .float32, other, r.comm, stream));
        const next = try r.source(round + 10);
        try done(t.ncclRecv(target + 4 * count, count, .float32, other, r.comm, stream));
        try done(t.ncclSend(next, count, .float32, other, r.comm, stream));
        try done(t.ncclGroupEnd());
        const values = try r.l.download(.f32, target, 2 * count);
        try Rank.expectFrom(values[0..count], 1 - r.rank, round);
        try Rank.expectFrom(values[count..], 1 - r.rank, round + 10);
    }
}

fn replay(r: Rank) !void {
    const t = r.table();
    const d = &r.l.fixture.driver;
    const stream = r.l.fixture.stream;
    const from = try r.source(0);
    const target = try r.l.fixture.alloc(f32, 2 * count);
    try ok(d.cuStreamBeginCapture_v2(stream, .thread_local));
    try done(t.ncclAllGather(from, target, count, .float32, r.comm, stream));
    var graph: ?drivers.Graph = null;
    try ok(d.cuStreamEndCapture(stream, &graph));
    var exec: ?drivers.GraphExec = null;
    try ok(d.cuGraphInstantiateWithFlags(&exec, graph.?, 0));
    for (0..4) |round| {
        const fresh = try r.source(round);
        try ok(d.cuMemcpyDtoDAsync_v2(from, fresh, 4 * count, stream));
        try ok(d.cuGraphLaunch(exec.?, stream));
        const values = try r.l.download(.f32, target, 2 * count);
        for (0..2) |rank| try Rank.expectFrom(values[rank * count ..][0..count], rank, round);
    }
    try ok(d.cuGraphExecDestroy(exec.?));
    try ok(d.cuGraphDestroy(graph.?));
}

fn abortAlone(r: Rank) !void {
    if (r.rank == 1) return;
    const t = r.table();
    const stream = r.l.fixture.stream;
    const from = try r.source(0);
    const target = try r.l.fixture.alloc(f32, 2 * count);
    // The other rank never comes.
    try done(t.ncclAllGather(from, target, count, .float32, r.comm, stream));
    try std.testing.expectEqual(drivers.Result.not_ready, r.l.fixture.driver.cuStreamQuery(stream));
    try done(t.ncclCommAbort(r.comm));
    try ok(r.l.fixture.synchronize());
    const again = t.ncclAllGather(from, target, count, .float32, r.comm, stream);
    try std.testing.expectEqual(nccl.Result.invalid_argument, again);
}

fn refuseNonsense(r: Rank) !void {
    const t = r.table();
    const stream = r.l.fixture.stream;
    const expectEqual = std.testing.expectEqual;
    const from = try r.source(0);
    const argument = nccl.Result.invalid_argument;
    try expectEqual(argument, t.ncclSend(from, count, .float32, 2, r.comm, stream));
    try expectEqual(argument, t.ncclSend(0, count, .float32, 1, r.comm, stream));
    const strange: nccl.DataType = @enumFromInt(99);
    try expectEqual(argument, t.ncclAllGather(from, from, count, strange, r.comm, stream));
    try expectEqual(nccl.Result.invalid_usage, t.ncclGroupEnd());
}

test "all-gathers bring every rank every part, in any schedule" {
    for (0..8) |seed| try onRanks(2, seed, gatherOften);
    try onRanks(1, 0, gatherOften);
}

test "sends and receives of a group go both ways at once" {
    for (0..8) |seed| try onRanks(2, seed, passBothWays);
}

test "a graph with an all-gather can be replayed" {
    for (0..4) |seed| try onRanks(2, seed, replay);
}

test "an abort lets a stalled stream go on" {
    try onRanks(2, 1, abortAlone);
}

test "nonsense is refused" {
    try onRanks(2, 1, refuseNonsense);
}
