//! How ranks reach each other. The interface stays on the host's side and small, so that a new
//! way (NCCL, peer copies) is one file and one line here. `plan` stands for ranks that are not
//! there.

const backends = @import("backend.zig");
const Tensor = @import("tensor.zig").Tensor;
pub const Loopback = @import("transport/loopback.zig").Loopback;
pub const rank_count_max = @import("transport/loopback.zig").rank_count_max;

pub const Transport = union(enum) {
    plan,
    loopback: Port,

    pub const Port = struct { shared: *Loopback, rank: u32 };

    /// Every rank's `mine` in the order of the ranks, along the batch of a new tensor.
    pub fn allGather(
        transport: Transport,
        b: backends.Backend,
        rank_count: u32,
        mine: Tensor,
    ) backends.Error!Tensor {
        var shape = mine.shape;
        shape.batch *= rank_count;
        const out = try b.alloc(shape, mine.dtype);
        switch (transport) {
            .plan => {},
            .loopback => |port| try port.shared.allGather(b, port.rank, out, mine),
        }
        return out;
    }

    /// This rank gives up: the others must not wait for it.
    pub fn abort(transport: Transport) void {
        switch (transport) {
            .plan => {},
            .loopback => |port| port.shared.abort(),
        }
    }
};
