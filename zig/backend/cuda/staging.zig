//! Bytes on their way from the host to the same place of a block on every GPU: they are gathered in
//! chunks of pinned memory, and each chunk is copied to all GPUs side by side while the next one is
//! filled. Copies out of pinned memory are asynchronous: nothing is on the GPUs before `finish`.

const std = @import("std");
const assert = std.debug.assert;
const drivers = @import("../../nvidia/driver.zig");
const Gpu = @import("gpu.zig").Gpu;
const waits_file = @import("waits.zig");

pub const Error = error{ GpuFailed, Cancelled };

/// Large enough for a link's full bandwidth, small enough to be pinned at once.
pub const chunk_bytes_default = 16 << 20;
const chunk_count = 3;
/// A chunk takes milliseconds; a GPU that has not taken it by then does not answer.
const limit_ns = 60 * std.time.ns_per_s;

const Chunk = struct {
    memory: []u8,
    /// By GPU: its copy of the chunk has ended.
    copied: [drivers.gpu_count_max]?drivers.Event = @splat(null),
    is_sent: bool = false,
};

pub const Staging = struct {
    gpus: []Gpu,
    cancelled: *const std.atomic.Value(bool),
    chunk_bytes: usize,
    /// Of the weights; see `Weight.block`.
    block: u32 = 0,
    chunks: [chunk_count]Chunk = @splat(.{ .memory = &.{} }),
    current: usize = 0,
    /// Where the current chunk goes in the block, and how much of it is filled.
    first: usize = 0,
    filled: usize = 0,

    /// The GPUs must have their blocks. `deinit` also where it fails.
    pub fn init(
        s: *Staging,
        gpus: []Gpu,
        chunk_bytes: usize,
        cancelled: *const std.atomic.Value(bool),
    ) Error!void {
        assert(gpus.len > 0 and gpus.len <= drivers.gpu_count_max);
        s.* = .{ .gpus = gpus, .cancelled = cancelled, .chunk_bytes = chunk_bytes };
        for (&s.chunks) |*chunk| {
            const gpu = &gpus[0];
            try gpu.makeCurrent();
            var memory: ?*anyopaque = null;
            const flags = drivers.host_alloc_portable;
            const allocated = gpu.driver.cuMemHostAlloc(&memory, chunk_bytes, flags);
            try gpu.check(.cuMemHostAlloc, allocated, "allocating pinned memory for the weights");
            chunk.memory = @as([*]u8, @ptrCast(memory.?))[0..chunk_bytes];
            for (gpus, chunk.copied[0..gpus.len]) |*one, *event| {
                try one.makeCurrent();
                const made = one.driver.cuEventCreate(event, drivers.event_disable_timing);
                try one.check(.cuEventCreate, made, "creating an event");
            }
        }
    }

    /// Also ends what a failure has left in the streams.
    pub fn deinit(s: *Staging) void {
        const d = s.gpus[0].driver;
        for (s.gpus) |*gpu| _ = waits_file.poll(d.cuStreamQuery, gpu.copy_stream, limit_ns, null);
        for (&s.chunks) |*chunk| {
            for (chunk.copied) |event| if (event) |one| {
                _ = d.cuEventDestroy_v2(one);
            };
            s.gpus[0].makeCurrent() catch {};
            if (chunk.memory.len > 0) _ = d.cuMemFreeHost(chunk.memory.ptr);
        }
    }

    /// Copies `bytes` to `offset` of the block on every GPU; they may change afterwards.
    pub fn write(s: *Staging, offset: usize, bytes: []const u8) Error!void {
        // What alignment leaves free between weights travels with them.
        const end = s.first + s.filled;
        const follows = s.filled > 0 and offset >= end and offset - s.first < s.chunk_bytes;
        if (!follows) {
            try s.send();
            s.first = offset;
        } else {
            @memset(s.chunks[s.current].memory[s.filled .. offset - s.first], 0);
            s.filled = offset - s.first;
        }
        var rest = bytes;
        while (rest.len > 0) {
            if (s.filled == s.chunk_bytes) {
                const next = s.first + s.filled;
                try s.send();
                s.first = next;
            }
            if (s.filled == 0) try s.waitFor(&s.chunks[s.current]);
            const count = @min(rest.len, s.chunk_bytes - s.filled);
            @memcpy(s.chunks[s.current].memory[s.filled..][0..count], rest[0..count]);
            s.filled += count;
            rest = rest[count..];
        }
    }

    /// Returns when every GPU has all bytes.
    pub fn finish(s: *Staging) Error!void {
        try s.send();
        for (&s.chunks) |*chunk| try s.waitFor(chunk);
    }

    // --- internal ---

    /// Queues the copies of the current chunk, and goes to the next one.
    fn send(s: *Staging) Error!void {
        if (s.filled == 0) return;
        const chunk = &s.chunks[s.current];
        for (s.gpus, chunk.copied[0..s.gpus.len]) |*gpu, event| {
            try gpu.makeCurrent();
            const target = gpu.blockBase(s.block) + s.first;
            const memory = chunk.memory.ptr;
            const stream = gpu.copy_stream;
            const copied = gpu.driver.cuMemcpyHtoDAsync_v2(target, memory, s.filled, stream);
            try gpu.check(.cuMemcpyHtoDAsync_v2, copied, "uploading the weights");
            const recorded = gpu.driver.cuEventRecord(event.?, stream);
            try gpu.check(.cuEventRecord, recorded, "recording an event");
        }
        chunk.is_sent = true;
        s.filled = 0;
        s.current = (s.current + 1) % chunk_count;
    }

    /// Returns when every GPU has taken what the chunk had.
    fn waitFor(s: *Staging, chunk: *Chunk) Error!void {
        if (!chunk.is_sent) return;
        for (s.gpus, chunk.copied[0..s.gpus.len]) |*gpu, event| {
            const query = gpu.driver.cuEventQuery;
            const result = waits_file.poll(query, event.?, limit_ns, null);
            try gpu.check(.cuEventQuery, result, "waiting for the weights");
        }
        if (s.cancelled.load(.monotonic)) return error.Cancelled;
        chunk.is_sent = false;
    }
};
