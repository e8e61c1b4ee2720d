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
const Position = positions.Position;
const Swap = @import("swap.zig").Swap;

pub const Error = local_ranks.Error || error{ GpuFailed, OutOfMemory };

/// Events for written slots are reused in turn: a rank is at most one slot ahead of another that
/// still waits for its event.
const slot_event_count = 4;

pub const Event = union(enum) {
    /// A position in the compute stream.
    at: struct { Channel, Position },
    /// This rank has queued all its copies of a step; others may overwrite their shards.
    step_read: Channel,
    /// This rank's tensor of a gather is written.
    gather_written,
    /// This rank has copied every other rank's tensor of a gather.
    gather_copied,
    /// The last NCCL call on the other stream.
    nccl_order,

    const per_channel = positions.group_count_max + slot_event_count + 1;
    const channels_end = positions.channel_count * per_channel;
    pub const count = channels_end + 3;

    fn first(channel: Channel) usize {
        return per_channel * @as(usize, @intFromEnum(channel));
    }

    fn index(event: Event) usize {
        return switch (event) {
            .at => |at| first(at[0]) + switch (at[1].what) {
                .group_complete => at[1].group(),
                .slot_written => positions.group_count_max + at[1].slot % slot_event_count,
            },
            .step_read => |channel| first(channel) + per_channel - 1,
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
    /// Set by whoever ended this rank's call to NCCL at the stall limit, before it was ended.
    is_stalled: bool = false,

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
        _ = d.cuStreamSynchronize(endpoint.cuda.exchange_stream);
        _ = d.cuStreamSynchronize(endpoint.cuda.stream);
        if (endpoint.communicator) |*communicator| communicator.close();
        endpoint.communicator = null;
        endpoint.destroyEvents(Event.count);
    }

    /// After a failure of any rank: ends NCCL calls that wait for a rank that no longer answers. By
    /// any thread. The communicator cannot be used again.
    pub fn abort(endpoint: *Endpoint) void {
        if (endpoint.communicator) |*communicator| communicator.abort();
    }

    /// Whether its communicator must be made anew before the next job.
    pub fn isAborted(endpoint: *const Endpoint) bool {
        return if (endpoint.communicator) |*communicator| communicator.isAborted() else false;
    }

    /// Begins a group of sends and receives.
    pub fn beginCalls(endpoint: *Endpoint) Error!*Communicator {
        const communicator = &endpoint.communicator.?;
        communicator.begin() catch |err| return endpoint.nameEnd(err);
        return communicator;
    }

    /// Hands the group to NCCL: at the first contact of two ranks it returns when both are there.
    pub fn endCalls(endpoint: *Endpoint) Error!void {
        const now_ns = endpoint.nowNs();
        endpoint.communicator.?.end(now_ns) catch |err| return endpoint.nameEnd(err);
    }

    /// When this rank's thread entered the NCCL call in which it is; 0 where it is in none.
    pub fn enteredNs(endpoint: *const Endpoint) i64 {
        const communicator = if (endpoint.communicator) |*c| c else return 0;
        return communicator.entered_ns.load(.acquire);
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
            .group_complete => cuda.exchange_stream,
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

    fn nameEnd(endpoint: *const Endpoint, err: error{ GpuFailed, Cancelled }) Error {
        return if (err == error.Cancelled and endpoint.is_stalled) error.RankStalled else err;
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
        for (0..positions.group_count_max) |group| {
            const event: Event = .{ .at = .{ channel, .{
                .step = 0,
                .slot = @intCast((group + 1) * positions.group_slot_count - 1),
                .slot_count = positions.slot_count_max,
                .what = .group_complete,
            } } };
            seen[event.index()] += 1;
        }
        seen[(Event{ .step_read = channel }).index()] += 1;
    }
    for ([_]Event{ .gather_written, .gather_copied, .nccl_order }) |event| {
        seen[event.index()] += 1;
    }
    try std.testing.expectEqual(@as([Event.count]u32, @splat(1)), seen);
}
