//! The transport of CPU ranks: all ranks are threads or fibers of one process and read each other's
//! memory in place, so nothing is copied. A reader waits for the writer's signal; the barrier at
//! the end of a step keeps a writer from overwriting what others still read.

const local_ranks = @import("local_ranks.zig");
const Port = local_ranks.Port;
const Error = local_ranks.Error;
const Tensor = @import("../tensor.zig").Tensor;

pub const SharedMemory = struct {
    port: Port,

    /// The ranks' own tensors.
    pub fn gather(t: SharedMemory, own: Tensor, shards: []Tensor) Error!void {
        @memcpy(shards, (try t.port.gather(own))[0..shards.len]);
    }

    /// No rank may free or overwrite its tensor before all have read it.
    pub fn endGather(t: SharedMemory) Error!void {
        return t.port.barrier();
    }
};
