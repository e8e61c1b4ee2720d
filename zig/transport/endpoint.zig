//! A GPU rank's end of all transfers, for the life of a session: its CUDA events and, where ranks
//! use NCCL, its communicator. Events are numbered here and nowhere else. They order streams of
//! this rank and of others on the device; the host signals another thread first, so that a wait is
//! queued after the record that it waits for.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Cuda = @import("../backend/cuda.zig").Cuda;
const Communicator = @import("communicator.zig").Communicator;
const drivers = @import("../nvidia/driver.zig");
const local_ranks = @import("local_ranks.zig");
const positions = @import("position.zig");
const Channel = positions.Channel;
const Depth = positions.Depth;
const Position = positions.Position;
const Swap = @import("swap.zig").Swap;

pub const Error = local_ranks.Error || error{ GpuFailed, OutOfMemory };

/// Events for written slots are reused in turn: a rank is at most one slot ahead of another that
/// still waits for its event.
const slot_event_count = 4;

pub const Event = union(enum) {
    /// A position in the compute stream.
    at: struct { Channel, Position },
    /// This rank has queued all its copies of the outer or deep slots of a step; others may
    /// overwrite theirs.
    part_read: struct { Channel, Depth },
    /// This rank's tensor of a gather is written.
    gather_written,
    /// This rank has copied every other rank's tensor of a gather.
    gather_copied,
    /// The last NCCL call on the other stream.
    nccl_order,

    const groups_end = positions.depth_count * positions.group_count_max;
    const slots_end = groups_end + slot_event_count;
    const per_channel = slots_end + positions.depth_count;
    const channels_end = positions.channel_count * per_channel;
    pub const count = channels_end + 3;

    fn first(channel: Channel) usize {
        return per_channel * @as(usize, @intFromEnum(channel));
    }

    fn ofDepth(depth: Depth) usize {
        return positions.group_count_max * @as(usize, @intFromEnum(depth));
    }

    fn index(event: Event) usize {
        return switch (event) {
            .at => |at| first(at[0]) + switch (at[1].what) {
                .group_complete => ofDepth(at[1].depth) + at[1].group(),
                .slot_written => groups_end + at[1].slot % slot_event_count,
            },
            .part_read => |of| first(of[0]) + slots_end + @intFromEnum(of[1]),
            .gather_written => channels_end,
            .gather_copied => channels_end + 1,
            .nccl_order => channels_end + 2,
        };
    }
};

pub const Endpoint = struct {
    cuda: *Cuda,
    events: [Event.count]drivers.Event,
    /// Null where ranks copy from each other's memory.
    communicator: ?Communicator = null,
    /// For the deep slots, split from the first by the first job that has cached steps.
    deep_communicator: Communicator = undefined,
    /// Set by the rank's thread; another may abort.
    has_deep_communicator: std.atomic.Value(bool) = .init(false),
    /// Set by whoever ends this rank's call to NCCL at the stall limit, before it is ended; the
    /// rank may read it meanwhile, where another one has aborted the communicator.
    is_stalled: std.atomic.Value(bool) = .init(false),

    /// The rank's context must be current.
    pub fn open(cuda: *Cuda) error{GpuFailed}!Endpoint {
        var endpoint: Endpoint = .{ .cuda = cuda, .events = undefined };
        for (&endpoint.events, 0..) |*event, i| {
            errdefer endpoint.destroyEvents(i);
            var made: ?drivers.Event = null;
            const result = cuda.driver.cuEventCreate(&made, drivers.event_disable_timing);
            try cuda.check(.cuEventCreate, result, "creating an event");
            event.* = made.?;
        }
        return endpoint;
    }

    /// Waits for queued transfers first. The rank's context must be current.
    pub fn close(endpoint: *Endpoint) void {
        const d = endpoint.cuda.driver;
        for (endpoint.cuda.exchange_streams) |stream| _ = d.cuStreamSynchronize(stream);
        _ = d.cuStreamSynchronize(endpoint.cuda.stream);
        endpoint.closeCommunicators();
        endpoint.destroyEvents(Event.count);
    }

    /// What an abort has left of them too.
    pub fn closeCommunicators(endpoint: *Endpoint) void {
        if (endpoint.has_deep_communicator.load(.seq_cst)) endpoint.deep_communicator.close();
        endpoint.has_deep_communicator.store(false, .seq_cst);
        if (endpoint.communicator) |*communicator| communicator.close();
        endpoint.communicator = null;
    }

    /// After a failure of any rank: ends NCCL calls that wait for a rank that no longer answers. By
    /// any thread. The communicator cannot be used again.
    pub fn abort(endpoint: *Endpoint) void {
        if (endpoint.communicator) |*communicator| communicator.abort();
        if (endpoint.has_deep_communicator.load(.seq_cst)) endpoint.deep_communicator.abort();
    }

    /// Makes the communicator of the deep slots where there is none yet: every rank's thread calls.
    pub fn openDeep(endpoint: *Endpoint) Error!void {
        if (endpoint.has_deep_communicator.load(.seq_cst)) return;
        try endpoint.cuda.synchronize();
        const communicator = &endpoint.communicator.?;
        endpoint.deep_communicator = communicator.split(endpoint.nowNs()) catch |err| {
            return endpoint.nameEnd(err);
        };
        endpoint.has_deep_communicator.store(true, .seq_cst);
        // Whoever aborted the first one meanwhile has not seen this one.
        if (!communicator.isAborted()) return;
        endpoint.deep_communicator.abort();
        return endpoint.nameEnd(error.Cancelled);
    }

    /// Whether its communicator must be made anew before the next job.
    pub fn isAborted(endpoint: *const Endpoint) bool {
        const communicator = if (endpoint.communicator) |*c| c else return false;
        if (communicator.isAborted()) return true;
        return endpoint.has_deep_communicator.load(.seq_cst) and
            endpoint.deep_communicator.isAborted();
    }

    /// Begins a group of sends and receives.
    pub fn beginCalls(endpoint: *Endpoint, depth: Depth) Error!*Communicator {
        const communicator = endpoint.communicatorOf(depth);
        communicator.begin() catch |err| return endpoint.nameEnd(err);
        return communicator;
    }

    /// Hands the group to NCCL: at the first contact of two ranks it returns when both are there.
    pub fn endCalls(endpoint: *Endpoint, communicator: *Communicator) Error!void {
        const now_ns = endpoint.nowNs();
        communicator.end(now_ns) catch |err| return endpoint.nameEnd(err);
    }

    /// When this rank's thread entered the NCCL call in which it is; 0 where it is in none.
    pub fn enteredNs(endpoint: *const Endpoint) i64 {
        const communicator = if (endpoint.communicator) |*c| c else return 0;
        const entered_ns = communicator.entered_ns.load(.acquire);
        if (entered_ns != 0 or !endpoint.has_deep_communicator.load(.seq_cst)) return entered_ns;
        return endpoint.deep_communicator.entered_ns.load(.acquire);
    }

    /// Of the clock of `enteredNs`, never 0.
    pub fn nowNs(_: *const Endpoint) i64 {
        const io = std.Io.Threaded.global_single_threaded.io();
        return @intCast(@max(1, std.Io.Timestamp.now(io, .awake).toNanoseconds()));
    }

    pub fn record(endpoint: *Endpoint, event: Event, stream: drivers.Stream) Error!void {
        const cuda = endpoint.cuda;
        const result = cuda.driver.cuEventRecord(endpoint.events[event.index()], stream);
        try cuda.check(.cuEventRecord, result, "recording an event");
    }

    /// `stream` goes on when `other`, perhaps this endpoint, has reached the event.
    pub fn waitFor(
        endpoint: *Endpoint,
        stream: drivers.Stream,
        other: *const Endpoint,
        event: Event,
    ) Error!void {
        const cuda = endpoint.cuda;
        const awaited = other.events[event.index()];
        cuda.dependent_launches.follows_kernel = false;
        const result = cuda.driver.cuStreamWaitEvent(stream, awaited, 0);
        try cuda.check(.cuStreamWaitEvent, result, "making a stream wait for an event");
    }

    /// Where groups of slots travel: deep ones on a stream of their own, so that those of the outer
    /// blocks, which the next step reads, do not wait behind them.
    pub fn exchangeStream(endpoint: *const Endpoint, depth: Depth) drivers.Stream {
        return endpoint.cuda.exchange_streams[@intFromEnum(depth)];
    }

    /// The part of a swap that all transports share: signals that this rank is at the position, and
    /// queues the local copies. Returns the stream in which the transfers go on.
    pub fn beginSwap(
        endpoint: *Endpoint,
        port: local_ranks.Port,
        swap: *const Swap,
    ) Error!drivers.Stream {
        const cuda = endpoint.cuda;
        const event: Event = .{ .at = .{ swap.channel, swap.position } };
        try endpoint.record(event, cuda.stream);
        try port.signal(swap.channel, swap.position);
        const stream = switch (swap.position.what) {
            .slot_written => cuda.stream,
            .group_complete => endpoint.exchangeStream(swap.position.depth),
        };
        if (stream != cuda.stream) try endpoint.waitFor(stream, endpoint, event);
        for (swap.copySlice()) |copy| {
            const d = cuda.driver;
            const result = d.cuMemcpyDtoDAsync_v2(copy.target, copy.source, copy.bytes, stream);
            try cuda.check(.cuMemcpyDtoDAsync_v2, result, "keeping the last step's shards");
        }
        return stream;
    }

    // --- internal ---

    fn communicatorOf(endpoint: *Endpoint, depth: Depth) *Communicator {
        return switch (depth) {
            .outer => &endpoint.communicator.?,
            .deep => &endpoint.deep_communicator,
        };
    }

    fn nameEnd(endpoint: *const Endpoint, err: error{ GpuFailed, Cancelled }) Error {
        const is_stalled = endpoint.is_stalled.load(.acquire);
        return if (err == error.Cancelled and is_stalled) error.RankStalled else err;
    }

    fn destroyEvents(endpoint: *const Endpoint, count: usize) void {
        for (endpoint.events[0..count]) |event| {
            _ = endpoint.cuda.driver.cuEventDestroy_v2(event);
        }
    }
};

test "every event has a number of its own" {
    var seen: [Event.count]u32 = @splat(0);
    for (std.enums.values(Channel)) |channel| {
        for (0..slot_event_count) |slot| {
            const event: Event = .{ .at = .{ channel, .{
                .step = 0,
                .slot = @intCast(slot),
                .slot_count = positions.slot_count_max,
            } } };
            seen[event.index()] += 1;
        }
        for (std.enums.values(Depth)) |depth| {
            for (0..positions.group_count_max) |group| {
                const event: Event = .{ .at = .{ channel, .{
                    .step = 0,
                    .slot = @intCast((group + 1) * positions.group_slot_count - 1),
                    .slot_count = positions.slot_count_max,
                    .what = .group_complete,
                    .depth = depth,
                } } };
                seen[event.index()] += 1;
            }
            seen[(Event{ .part_read = .{ channel, depth } }).index()] += 1;
        }
    }
    for ([_]Event{ .gather_written, .gather_copied, .nccl_order }) |event| {
        seen[event.index()] += 1;
    }
    try std.testing.expectEqual(@as([Event.count]u32, @splat(1)), seen);
}
