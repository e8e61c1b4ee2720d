//! The checkpoint of one model component: its files' tensors by their keys, in read-only mapped
//! memory.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const MappedFile = @import("mapped_file.zig").MappedFile;
const safetensors = @import("safetensors.zig");
const shown = @import("shown.zig").shown;

pub const Error = safetensors.Error;

/// Keys that fine-tunes contain and no model reads.
fn isIgnored(name: []const u8) bool {
    return std.mem.endsWith(u8, name, "embeddings.position_ids");
}

/// The files of one component.
pub const Files = struct {
    /// One, or all shards.
    paths: []const []const u8,
    /// Where the files have each weight; empty where they use the model's keys. Tensors without a
    /// name here are not read then: they belong to other components.
    names: []const Name = &.{},
};

/// A weight of the model that files have under another name, or as a part of a tensor.
pub const Name = struct {
    /// The model's key.
    key: []const u8,
    /// The key in the file.
    name: []const u8,
    /// The weight is one of `part_count` equal parts of the tensor's first dimension.
    part_index: u32 = 0,
    part_count: u32 = 1,
    /// Whether the file has the matrix as (in, out).
    is_transposed: bool = false,
};

pub const Checkpoint = struct {
    arena: std.heap.ArenaAllocator,
    io: Io,
    diagnostics: *Diagnostics,
    files: std.ArrayList(MappedFile) = .empty,
    /// By the model's keys.
    entries: std.StringHashMapUnmanaged(Entry) = .empty,
    /// Keys in the files by the model's keys, where they differ.
    names: std.StringHashMapUnmanaged([]const u8) = .empty,

    pub const Entry = struct {
        /// With the file's key; shape and bytes are those of the weight.
        tensor: safetensors.Tensor,
        path: []const u8,
        is_transposed: bool = false,
        is_used: bool = false,
    };

    /// Maps the files and reads their headers. `interrupt` is set when a mapped file loses pages;
    /// see `MappedFile`.
    pub fn open(
        gpa: Allocator,
        io: Io,
        component: Files,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!Checkpoint {
        var checkpoint: Checkpoint = .{
            .arena = .init(gpa),
            .io = io,
            .diagnostics = diagnostics,
        };
        errdefer checkpoint.close();
        const arena = checkpoint.arena.allocator();
        for (component.names) |each| {
            const name = try arena.dupe(u8, each.name);
            try checkpoint.names.put(arena, try arena.dupe(u8, each.key), name);
        }
        for (component.paths) |path| try checkpoint.addFile(path, component.names, interrupt);
        return checkpoint;
    }

    pub fn close(checkpoint: *Checkpoint) void {
        for (checkpoint.files.items) |mapped| mapped.close(checkpoint.io);
        checkpoint.arena.deinit();
        checkpoint.* = undefined;
    }

    /// Path for messages about a tensor that no file has.
    pub fn firstPath(checkpoint: *const Checkpoint) []const u8 {
        const files = checkpoint.files.items;
        return if (files.len > 0) files[0].path else "(no file)";
    }

    /// The key that files have for the model's `key`.
    pub fn nameInFiles(checkpoint: *const Checkpoint, key: []const u8) []const u8 {
        return checkpoint.names.get(key) orelse key;
    }

    /// Names of tensors that the model does not use, in order. diffusers ignores them too:
    /// config.json determines the model.
    pub fn unusedNames(
        checkpoint: *const Checkpoint,
        arena: Allocator,
    ) Allocator.Error![]const []const u8 {
        var list: std.ArrayList([]const u8) = .empty;
        var entries = checkpoint.entries.iterator();
        while (entries.next()) |item| {
            if (item.value_ptr.is_used or isIgnored(item.key_ptr.*)) continue;
            try list.append(arena, item.value_ptr.tensor.name);
        }
        std.mem.sortUnstable([]const u8, list.items, {}, struct {
            fn lessThan(_: void, a: []const u8, b: []const u8) bool {
                return std.mem.lessThan(u8, a, b);
            }
        }.lessThan);
        return list.items;
    }

    /// Fails where a file has changed since it was opened.
    pub fn checkUnchanged(checkpoint: *const Checkpoint) error{BadWeights}!void {
        for (checkpoint.files.items) |*mapped| {
            try mapped.checkUnchanged(checkpoint.io, checkpoint.diagnostics);
        }
    }

    /// Bytes of the component's tensors: its files may hold other components as well.
    pub fn mappedBytes(checkpoint: *const Checkpoint) usize {
        var bytes: usize = 0;
        var entries = checkpoint.entries.valueIterator();
        while (entries.next()) |entry| bytes += entry.tensor.bytes.len;
        return bytes;
    }

    // --- internal ---

    fn addFile(
        checkpoint: *Checkpoint,
        path_borrowed: []const u8,
        names: []const Name,
        interrupt: *std.atomic.Value(bool),
    ) Error!void {
        const d = checkpoint.diagnostics;
        const arena = checkpoint.arena.allocator();
        const path = try arena.dupe(u8, path_borrowed);
        try checkpoint.files.ensureUnusedCapacity(arena, 1);
        const mapped: MappedFile = try .open(checkpoint.io, path, interrupt, d);
        checkpoint.files.appendAssumeCapacity(mapped);
        const parsed = safetensors.parse(arena, path, mapped.memory, d);
        // A change of the file may have caused the error in its header.
        try mapped.checkUnchanged(checkpoint.io, d);
        const tensors = try parsed;
        if (names.len > 0) return checkpoint.addNamed(path, tensors, names);
        for (tensors) |tensor| {
            try checkpoint.add(tensor.name, .{ .tensor = tensor, .path = path });
        }
    }

    /// Adds the tensors that have a name; those that are missing are noticed when they are taken.
    fn addNamed(
        checkpoint: *Checkpoint,
        path: []const u8,
        tensors: []const safetensors.Tensor,
        names: []const Name,
    ) Error!void {
        const arena = checkpoint.arena.allocator();
        var by_name: std.StringHashMapUnmanaged(*const safetensors.Tensor) = .empty;
        const gpa = checkpoint.arena.child_allocator;
        defer by_name.deinit(gpa);
        for (tensors) |*tensor| try by_name.put(gpa, tensor.name, tensor);
        for (names) |name| {
            const whole = by_name.get(name.name) orelse continue;
            const part = partOf(whole, name) orelse {
                const sentence = "{s}: tensor {f} has shape {any}, which is not {d} equal parts.";
                const values = .{ path, shown(name.name), whole.shape(), name.part_count };
                return checkpoint.diagnostics.fail(error.BadWeights, sentence, values);
            };
            try checkpoint.add(try arena.dupe(u8, name.key), .{
                .tensor = part,
                .path = path,
                .is_transposed = name.is_transposed,
            });
        }
    }

    fn add(checkpoint: *Checkpoint, key: []const u8, entry: Entry) Error!void {
        const slot = try checkpoint.entries.getOrPut(checkpoint.arena.allocator(), key);
        if (slot.found_existing) {
            const sentence = "tensor {f} is in two files, {s} and {s}.";
            const both = .{ shown(entry.tensor.name), slot.value_ptr.path, entry.path };
            return checkpoint.diagnostics.fail(error.BadWeights, sentence, both);
        }
        slot.value_ptr.* = entry;
    }
};

// --- internal ---

/// The part of `whole` that `name` asks for; null where the first dimension is not divided so.
fn partOf(whole: *const safetensors.Tensor, name: Name) ?safetensors.Tensor {
    var part = whole.*;
    if (name.part_count == 1) return part;
    const bytes = whole.bytes.len / name.part_count;
    if (whole.rank == 0 or whole.dimensions[0] % name.part_count != 0) return null;
    // Types of unknown size may be packed across rows.
    if (bytes * name.part_count != whole.bytes.len) return null;
    part.dimensions[0] = whole.dimensions[0] / name.part_count;
    part.bytes = whole.bytes[name.part_index * bytes ..][0..bytes];
    return part;
}
