//! The device of one rank for the lifetime of the session: its CPU threads or its stream on a GPU,
//! and its arena.

const std = @import("std");
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const Gpu = @import("../backend/cuda/gpu.zig").Gpu;
const Endpoint = @import("../transport.zig").Endpoint;
const Scratch = @import("../scratch.zig").Scratch;
const huge_pages = @import("../system/huge_pages.zig");

pub const Error = Allocator.Error || error{GpuFailed};

pub const RankDevice = struct {
    device: backend.Device,
    /// Null on the CPU.
    gpu: ?*Gpu = null,
    /// The GPU's end of transfers between ranks; null on the CPU.
    endpoint: ?*Endpoint = null,
    base: usize = 0,
    bytes: usize = 0,

    /// Called on the thread or fiber that will run the rank.
    pub fn enter(rank: *const RankDevice) error{GpuFailed}!void {
        if (rank.gpu) |gpu| try gpu.makeCurrent();
    }

    /// Grows the arena to at least `bytes`.
    pub fn reserve(rank: *RankDevice, gpa: Allocator, bytes: usize) Error!void {
        if (rank.bytes >= bytes) return;
        try rank.enter();
        rank.release(gpa);
        rank.base = if (rank.gpu) |gpu|
            try gpu.allocate(bytes)
        else
            @intFromPtr((try huge_pages.alloc(gpa, bytes)).ptr);
        rank.bytes = bytes;
    }

    pub fn scratch(rank: *const RankDevice) Scratch {
        return .{ .base = rank.base, .capacity = rank.bytes };
    }

    /// Waits, after a failed job, until the queued work has ended.
    pub fn recover(rank: *const RankDevice) void {
        if (rank.endpoint) |endpoint| endpoint.abort();
        switch (rank.device) {
            .cuda => |cuda| cuda.drain(),
            .cpu, .plan => {},
        }
    }

    /// Whether its stream did not end after a failure: no further job can run.
    pub fn isAbandoned(rank: *const RankDevice) bool {
        return rank.device == .cuda and rank.device.cuda.is_abandoned;
    }

    /// Whether closing it would wait for work that never ends.
    pub fn isStuck(rank: *const RankDevice) bool {
        return rank.isAbandoned() or (rank.gpu != null and rank.gpu.?.has_stuck_work);
    }

    pub fn close(rank: *RankDevice, gpa: Allocator) void {
        rank.enter() catch {};
        if (rank.endpoint) |endpoint| endpoint.close();
        switch (rank.device) {
            .cpu => |cpu| cpu.deinit(),
            .cuda => |cuda| cuda.deinit(),
            .plan => unreachable,
        }
        rank.release(gpa);
    }

    // --- internal ---

    fn release(rank: *RankDevice, gpa: Allocator) void {
        if (rank.bytes == 0) return;
        if (rank.gpu) |gpu| {
            if (!gpu.has_stuck_work) _ = gpu.driver.cuMemFree_v2(rank.base);
        } else {
            const first: [*]align(64) u8 = @ptrFromInt(rank.base);
            huge_pages.free(gpa, first[0..rank.bytes]);
        }
        rank.base = 0;
        rank.bytes = 0;
    }
};
