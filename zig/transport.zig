//! How ranks reach each other. The interface stays on the host's side and small, so that a new way
//! (NCCL, peer copies) is one file and one line here. `plan` stands for ranks that are not there.

const std = @import("std");
const Tensor = @import("tensor.zig").Tensor;
pub const Loopback = @import("transport/shared_memory.zig").Loopback;
pub const Error = @import("transport/shared_memory.zig").Error;
pub const faults = @import("transport/faults.zig");

pub const Transport = union(enum) {
    plan,
    loopback: Port,

    /// One rank's place; `shared` serves all of them.
    pub const Port = struct { shared: *Loopback, rank: u32 };

    pub fn portOf(shared: *Loopback, rank: u32) Transport {
        return .{ .loopback = .{ .shared = shared, .rank = rank } };
    }

    /// This rank has written everything up to `count` into its own buffers.
    pub fn post(transport: Transport, count: u64) Error!void {
        switch (transport) {
            .plan => {},
            .loopback => |port| try port.shared.post(port.rank, count),
        }
    }

    /// Returns when rank `other` has written everything up to `count`.
    pub fn waitFor(transport: Transport, other: u32, count: u64) Error!void {
        switch (transport) {
            .plan => {},
            .loopback => |port| try port.shared.waitFor(port.rank, other, count),
        }
    }

    /// Every rank's tensor, readable until the next `meet`; null while planning.
    pub fn gather(transport: Transport, mine: Tensor) Error!?[]const Tensor {
        return switch (transport) {
            .plan => null,
            .loopback => |port| try port.shared.gather(port.rank, mine),
        };
    }

    /// Returns when every rank has come here.
    pub fn meet(transport: Transport) Error!void {
        switch (transport) {
            .plan => {},
            .loopback => |port| try port.shared.meet(port.rank),
        }
    }

    /// The step that this rank works on, counted from 1, for messages about it.
    pub fn enterStep(transport: Transport, step: u32) void {
        switch (transport) {
            .plan => {},
            .loopback => |port| port.shared.steps[port.rank].store(step, .monotonic),
        }
    }

    /// Set once some rank has given up; null where there are no others.
    pub fn failed(transport: Transport) ?*const std.atomic.Value(bool) {
        return switch (transport) {
            .plan => null,
            .loopback => |port| &port.shared.aborted,
        };
    }

    /// This rank gives up: the others must not wait for it.
    pub fn abort(transport: Transport) void {
        switch (transport) {
            .plan => {},
            .loopback => |port| port.shared.abort(),
        }
    }
};
