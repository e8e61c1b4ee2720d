//! The swap of a slot or of a group of slots between the patches of an image: which bytes move
//! where. `patch/` fills it in, a transport that copies carries it out.

const std = @import("std");
const position = @import("position.zig");
const rank_count_max = @import("ranks.zig").rank_count_max;

/// A copy within this rank's memory.
pub const Copy = struct { target: usize, source: usize, bytes: usize };

/// This rank and `rank` send each other their shards.
pub const Transfer = struct {
    rank: u32,
    send_address: usize,
    send_bytes: usize,
    receive_address: usize,
    receive_bytes: usize,
    /// Where the other rank's shard lies in its own memory, for transports that read it from there.
    /// The base is written before that rank's first signal, and must not be read before it.
    remote_base: *const usize,
    remote_offset: usize,
    /// The next operation reads the shard there: it is waited for and not copied.
    is_read_there: bool = false,
};

/// Shards of a group lie side by side: one transfer per kind and other patch, and no more than five
/// copies per kind.
const kind_count_max = 3;
const transfer_count_max = kind_count_max * (rank_count_max - 1);
const copy_count_max = kind_count_max * 5;

pub const Swap = struct {
    channel: position.Channel,
    /// `slot_written`: the values are needed by the next operation, so they are transferred in the
    /// compute stream. `group_complete`: they are needed in the next step, so they are transferred
    /// beside the computation.
    position: position.Position,
    /// Done before anything is received: they keep older values.
    copies: [copy_count_max]Copy = undefined,
    copy_count: usize = 0,
    /// Ordered by rank.
    transfers: [transfer_count_max]Transfer = undefined,
    transfer_count: usize = 0,

    pub fn addCopy(swap: *Swap, copy: Copy) void {
        if (copy.bytes == 0) return;
        swap.copies[swap.copy_count] = copy;
        swap.copy_count += 1;
    }

    pub fn addTransfer(swap: *Swap, transfer: Transfer) void {
        if (transfer.send_bytes == 0) return;
        swap.transfers[swap.transfer_count] = transfer;
        swap.transfer_count += 1;
    }

    pub fn copySlice(swap: *const Swap) []const Copy {
        return swap.copies[0..swap.copy_count];
    }

    pub fn transferSlice(swap: *const Swap) []const Transfer {
        return swap.transfers[0..swap.transfer_count];
    }
};
