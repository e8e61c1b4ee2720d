//! The ncclUniqueId of a run in several processes: made in one process and sent to the others over
//! TCP (src/distributed/rendezvous.ts), then used by all of them to open their communicators.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Communicator = @import("communicator.zig").Communicator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const libraries = @import("../nvidia/libraries.zig");
const nccl = @import("../nvidia/nccl.zig");

pub const Error = Allocator.Error || error{ GpuFailed, LibraryMissing };

/// Makes a new id. `emulator` is the path of a library that replaces NVIDIA's, with or without a
/// trailing 0 byte; "" for NVIDIA's. Nothing in `arena` is needed afterwards.
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
    return d.fail(error.LibraryMissing, "A run in several processes needs NCCL. {s}", .{
        opened.nccl_sentence,
    });
}

/// The id from the bytes of the ABI; null for none.
pub fn idOf(bytes: []const u8) ?nccl.UniqueId {
    if (bytes.len != nccl.unique_id_bytes) return null;
    return .{ .internal = bytes[0..nccl.unique_id_bytes].* };
}
