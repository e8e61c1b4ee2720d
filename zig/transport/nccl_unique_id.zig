//! What ranks of several processes meet by: NCCL's unique id, made in one process and carried to
//! the others over TCP (src/distributed/rendezvous.ts).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Communicator = @import("communicator.zig").Communicator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const libraries = @import("../nvidia/libraries.zig");
const nccl = @import("../nvidia/nccl.zig");

pub const Error = Allocator.Error || error{ GpuFailed, LibraryMissing };

/// A new one. `emulator` is the path of a library in place of NVIDIA's, with or without a 0 byte at
/// its end; "" for these. `arena` keeps nothing that is needed later.
pub fn makeId(
    arena: Allocator,
    io: Io,
    emulator: []const u8,
    d: *Diagnostics,
) Error!nccl.UniqueId {
    const path = try arena.dupeZ(u8, std.mem.sliceTo(emulator, 0));
    const source: libraries.Source = if (path.len > 0) .{ .emulated = path } else .system;
    const opened = try libraries.open(arena, io, source, .ofProcess(), d);
    if (opened.nccl) |*library| return Communicator.makeId(library, d);
    return d.fail(error.LibraryMissing, "Several machines meet by NCCL. {s}", .{
        opened.nccl_sentence,
    });
}

/// As it comes over the boundary; null for none.
pub fn idOf(bytes: []const u8) ?nccl.UniqueId {
    if (bytes.len != nccl.unique_id_bytes) return null;
    return .{ .internal = bytes[0..nccl.unique_id_bytes].* };
}
