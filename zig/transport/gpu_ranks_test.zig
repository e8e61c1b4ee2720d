//! Peer copies and NCCL between two ranks on two emulated GPUs, in many schedules of the emulator:
//! fresh values arrive before they are read, stale values are exactly one step old (of deep slots
//! one full step), nothing is overwritten that is still read, and a gather brings every rank's
//! tensor.

const std = @import("std");
const cpu_support = @import("../backend/cpu/tests/support.zig");
const Cuda = @import("../backend/cuda.zig").Cuda;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const LibraryFixture = @import("../emulator/library_fixture.zig").LibraryFixture;
const fixtures = @import("../emulator/fixture.zig");
const ok = fixtures.ok;
const Communicator = @import("communicator.zig").Communicator;
const nccl = @import("../nvidia/nccl.zig");
const transports = @import("../transport.zig");
const Endpoint = transports.Endpoint;
const Transport = transports.Transport;
const Tensor = @import("../tensor.zig").Tensor;

const rank_count = 2;
/// The others are cached.
const full_steps = [_]u32{ 0, 1, 4, 6 };
const step_count = 8;
/// Two full groups and the beginning of a third.
const slot_count = 2 * transports.group_slot_count + 3;
/// The slots that cached steps leave out: the end of a group, one of its own, and the next's first.
const deep_first = 5;
const deep_end = slot_count - 2;
/// Values of a slot, all the same.
const value_count = 4;
const slot_bytes = value_count * @sizeOf(f32);
const log_count = step_count * slot_count * value_count;

const Kind = enum { peer_copy, nccl };

/// What the threads of the ranks share.
const Shared = struct {
    kind: Kind,
    seed: u64,
    local: transports.LocalRanks,
    diagnostics: Diagnostics = .{},
    endpoints: [rank_count]*Endpoint = undefined,
    /// The ranks' shards, written before their first signal.
    bases: [rank_count]usize = undefined,
    /// How many ranks are ready, and how many are done.
    ready: std.atomic.Value(u32) = .init(0),
    done: std.atomic.Value(u32) = .init(0),
    unique_id: nccl.UniqueId = undefined,
    failures: [rank_count]?anyerror = @splat(null),

    fn waitForAll(count: *std.atomic.Value(u32)) void {
        _ = count.fetchAdd(1, .acq_rel);
        while (count.load(.acquire) < rank_count) std.Thread.yield() catch {};
    }
};

const Rank = struct {
    shared: *Shared,
    index: u32,
    cuda: *Cuda,
    transport: Transport,
    own: usize,
    theirs: usize,
    /// Every value of the other rank that was read, in order.
    log: usize,

    fn other(r: *const Rank) u32 {
        return 1 - r.index;
    }

    /// Tells rank, step and slot apart.
    fn value(rank: u32, step: u32, slot: u32) f32 {
        return @floatFromInt(1 + rank + 2 * (slot + slot_count * step));
    }

    fn write(r: *Rank, address: usize, x: f32) !void {
        const bits: c_uint = @bitCast(x);
        try ok(r.cuda.driver.cuMemsetD32Async(address, bits, value_count, r.cuda.stream));
    }

    fn swap(r: *Rank, first: u32, position: transports.Position) !void {
        const end = position.slot + 1;
        var s: transports.Swap = .{ .channel = .unet, .position = position };
        s.addTransfer(.{
            .rank = r.other(),
            .send_address = r.own + first * slot_bytes,
            .send_bytes = (end - first) * slot_bytes,
            .receive_address = r.theirs + first * slot_bytes,
            .receive_bytes = (end - first) * slot_bytes,
            .remote_base = &r.shared.bases[r.other()],
            .remote_offset = first * slot_bytes,
        });
        try r.transport.swap(&s);
    }

    fn runStep(r: *Rank, step: u32) !void {
        const group: transports.RankRange = .{ .first = 0, .end = rank_count };
        try r.transport.beginPart(.unet, .outer, group, step == 0);
        try r.runSlots(step, 0, deep_first, .outer);
        if (isFull(step)) {
            try r.transport.beginPart(.unet, .deep, group, step == 0);
            try r.runSlots(step, deep_first, deep_end, .deep);
            try r.transport.endPart(.unet, .deep);
        }
        try r.runSlots(step, deep_end, slot_count, .outer);
        try r.transport.endPart(.unet, .outer);
    }

    /// As `slot_swaps.zig`: the first step reads fresh values, the others stale ones.
    fn runSlots(r: *Rank, step: u32, first: u32, end: u32, depth: transports.Depth) !void {
        var group_first = first;
        for (first..end) |i| {
            const slot: u32 = @intCast(i);
            try r.write(r.own + slot * slot_bytes, value(r.index, step, slot));
            var position: transports.Position = .{
                .step = step,
                .slot = slot,
                .slot_count = slot_count,
                .depth = depth,
            };
            if (step == 0) try r.swap(slot, position);
            const read = r.log + (step * slot_count + slot) * slot_bytes;
            const source = r.theirs + slot * slot_bytes;
            const stream = r.cuda.stream;
            try ok(r.cuda.driver.cuMemcpyDtoDAsync_v2(read, source, slot_bytes, stream));
            const is_complete = (slot + 1) % transports.group_slot_count == 0 or slot + 1 == end;
            if (!is_complete) continue;
            position.what = .group_complete;
            if (step > 0) try r.swap(group_first, position);
            group_first = slot + 1;
        }
    }

    /// Gathers one tensor of each rank; the own one is overwritten right after.
    fn gather(r: *Rank, step: u32, tensor: Tensor, received: Tensor) !void {
        try r.write(tensor.address, value(r.index, step, 0));
        var shards: [rank_count]Tensor = @splat(tensor);
        shards[r.other()] = received;
        try r.transport.gather(tensor, &shards);
        try r.transport.endGather();
        try r.write(tensor.address, -1);
    }
};

fn isFull(step: u32) bool {
    return std.mem.findScalar(u32, &full_steps, step) != null;
}

fn fullBefore(step: u32) u32 {
    var last: u32 = 0;
    for (full_steps) |full| if (full < step) {
        last = full;
    };
    return last;
}

fn open(kind: Kind, seed: u64) Shared {
    return .{ .kind = kind, .seed = seed, .local = undefined };
}

fn work(shared: *Shared, index: u32) !void {
    var l: LibraryFixture = try .initOn(@intCast(index), shared.seed, null);
    defer l.deinit();
    const cuda: *Cuda = try .init(std.testing.allocator, .{
        .driver = &l.fixture.driver,
        .device = l.fixture.device,
        .module = l.fixture.module,
        .activation = .f16,
        .weights_base = 0,
        .diagnostics = &shared.diagnostics,
        .cancelled = &cpu_support.not_cancelled,
        .rank = index,
    });
    defer cuda.deinit();
    var endpoint: Endpoint = try .open(cuda);
    defer endpoint.close();
    shared.endpoints[index] = &endpoint;
    if (shared.kind == .nccl) {
        const members: Communicator.Members = .{
            .rank_count = rank_count,
            .rank_first = index,
            .id = shared.unique_id,
        };
        var one: [1]Communicator = undefined;
        const d = &shared.diagnostics;
        const contexts = [1]@TypeOf(cuda.context){cuda.context};
        try Communicator.openAll(&l.libraries.nccl.?, cuda.driver, &contexts, members, &one, d);
        endpoint.communicator = one[0];
    }
    const port: @FieldType(transports.SharedMemory, "port") = .{
        .local = &shared.local,
        .rank = index,
    };
    var rank: Rank = .{
        .shared = shared,
        .index = index,
        .cuda = cuda,
        .transport = switch (shared.kind) {
            .peer_copy => .{ .peer_copy = .{ .port = port, .endpoints = &shared.endpoints } },
            .nccl => .{ .nccl = .{
                .port = port,
                .own = &endpoint,
                .endpoints = shared.endpoints[index..][0..1],
            } },
        },
        .own = try l.fixture.alloc(f32, slot_count * value_count),
        .theirs = try l.fixture.alloc(f32, slot_count * value_count),
        .log = try l.fixture.alloc(f32, log_count),
    };
    shared.bases[index] = rank.own;
    Shared.waitForAll(&shared.ready);
    // No rank leaves before the other has read its memory.
    defer Shared.waitForAll(&shared.done);
    errdefer rank.transport.abort();
    try rank.transport.openDeep();
    try runSteps(&rank, &l);
}

fn runSteps(rank: *Rank, l: *LibraryFixture) !void {
    const gathered = try l.fixture.alloc(f32, step_count * value_count);
    const tensor: Tensor = .{
        .address = try l.fixture.alloc(f32, value_count),
        .shape = .vector(1, value_count),
        .dtype = .f32,
    };
    for (0..step_count) |i| {
        const step: u32 = @intCast(i);
        try rank.runStep(step);
        var received = tensor;
        received.address = gathered + step * slot_bytes;
        try rank.gather(step, tensor, received);
    }
    try rank.cuda.synchronize();
    for (rank.cuda.exchange_streams) |stream| {
        try ok(rank.cuda.driver.cuStreamSynchronize(stream));
    }
    var log: [log_count]f32 = undefined;
    try l.fixture.download(f32, rank.log, &log);
    var outputs: [step_count * value_count]f32 = undefined;
    try l.fixture.download(f32, gathered, &outputs);
    for (0..step_count) |i| {
        const step: u32 = @intCast(i);
        for (outputs[step * value_count ..][0..value_count]) |x| {
            try std.testing.expectEqual(Rank.value(rank.other(), step, 0), x);
        }
        for (0..slot_count) |slot| {
            const is_deep = slot >= deep_first and slot < deep_end;
            if (is_deep and !isFull(step)) continue;
            const seen = if (is_deep) fullBefore(step) else step -| 1;
            const expected = Rank.value(rank.other(), seen, @intCast(slot));
            const first = (step * slot_count + slot) * value_count;
            for (log[first..][0..value_count]) |x| try std.testing.expectEqual(expected, x);
        }
    }
}

fn runRank(shared: *Shared, index: u32) void {
    work(shared, index) catch |err| {
        shared.failures[index] = err;
        shared.local.abort();
    };
}

fn runBoth(kind: Kind, seed: u64) !void {
    var shared = open(kind, seed);
    shared.local = .init(std.testing.io, rank_count, &shared.diagnostics, .{});
    // Keeps the emulated GPUs as they are while the ranks come and go.
    var l: LibraryFixture = try .init(seed, null);
    defer l.deinit();
    if (kind == .nccl) {
        const table = &l.libraries.nccl.?;
        try std.testing.expectEqual(.success, table.ncclGetUniqueId(&shared.unique_id));
    }
    const thread: std.Thread = try .spawn(.{}, runRank, .{ &shared, 1 });
    runRank(&shared, 0);
    thread.join();
    for (shared.failures) |failure| if (failure) |err| {
        std.debug.print("{s}\n", .{shared.diagnostics.message()});
        return err;
    };
}

test "peer copies bring fresh values at once and stale values after one step" {
    for (0..12) |seed| try runBoth(.peer_copy, seed);
}

test "NCCL brings what peer copies bring" {
    for (0..12) |seed| try runBoth(.nccl, seed);
}
