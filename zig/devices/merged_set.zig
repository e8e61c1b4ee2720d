//! One set of adapters with the weights that it makes, as the devices store them: the memory, the
//! key under which the set is found again, and the state of its files when they were read.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Adapter = @import("../weights.zig").adapters.Adapter;
const DType = @import("../tensor.zig").DType;
const huge_pages = @import("../system/huge_pages.zig");
const Weight = @import("../weights.zig").Weight;

/// A weight of a set.
pub const Merged = struct {
    weight: *Weight,
    dtype: DType,
    /// In the set's memory.
    offset: usize,
    len: usize,
    /// The model's own address and type, while the CPU reads the merged weight.
    own_address: usize = 0,
    own_dtype: DType = .f32,
};

/// What tells a file from its next version.
const Stamp = struct { size: u64, modified_ns: i96, inode: u64 };

pub const MergedSet = struct {
    gpa: Allocator,
    arena: std.heap.ArenaAllocator,
    adapters: []const Adapter,
    stamps: []const ?Stamp,
    /// In the order of the adapters' targets, each weight once.
    weights: []Merged,
    /// Empty where only GPUs have the weights.
    memory: []align(64) u8 = &.{},

    /// Takes the stamps of the files, before they are read. `weights` are still to be set.
    pub fn create(gpa: Allocator, io: Io, adapters: []const Adapter) Allocator.Error!*MergedSet {
        const set = try gpa.create(MergedSet);
        errdefer gpa.destroy(set);
        set.* = .{
            .gpa = gpa,
            .arena = .init(gpa),
            .adapters = &.{},
            .stamps = &.{},
            .weights = &.{},
        };
        errdefer set.arena.deinit();
        const arena = set.arena.allocator();
        const copies = try arena.alloc(Adapter, adapters.len);
        const stamps = try arena.alloc(?Stamp, adapters.len);
        for (copies, stamps, adapters) |*copy, *stamp, *adapter| {
            copy.* = try adapter.dupe(arena);
            stamp.* = stampOf(io, adapter.path);
        }
        set.adapters = copies;
        set.stamps = stamps;
        return set;
    }

    pub fn destroy(set: *MergedSet) void {
        set.freeMemory();
        set.arena.deinit();
        set.gpa.destroy(set);
    }

    pub fn allocate(set: *MergedSet, bytes: usize) Allocator.Error!void {
        set.memory = try huge_pages.alloc(set.gpa, bytes);
    }

    pub fn freeMemory(set: *MergedSet) void {
        huge_pages.free(set.gpa, set.memory);
        set.memory = &.{};
    }

    pub fn bytesOf(set: *const MergedSet, merged: *const Merged) []u8 {
        return set.memory[merged.offset..][0..merged.len];
    }

    /// Whether it is what `adapters` would make now: the files are those that were read.
    pub fn isOf(set: *const MergedSet, io: Io, adapters: []const Adapter) bool {
        if (set.adapters.len != adapters.len) return false;
        for (set.adapters, adapters) |*a, *b| if (!a.eql(b)) return false;
        for (set.adapters, set.stamps) |*adapter, stamp| {
            const now = stampOf(io, adapter.path);
            if (now == null or !std.meta.eql(now, stamp)) return false;
        }
        return true;
    }
};

// --- internal ---

/// Null where there is no such file.
fn stampOf(io: Io, path: []const u8) ?Stamp {
    const stat = Io.Dir.cwd().statFile(io, path, .{}) catch return null;
    return .{ .size = stat.size, .modified_ns = stat.mtime.nanoseconds, .inode = stat.inode };
}
