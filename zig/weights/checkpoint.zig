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

pub const Checkpoint = struct {
    arena: std.heap.ArenaAllocator,
    io: Io,
    diagnostics: *Diagnostics,
    files: std.ArrayList(MappedFile) = .empty,
    entries: std.StringHashMapUnmanaged(Entry) = .empty,

    pub const Entry = struct {
        tensor: safetensors.Tensor,
        path: []const u8,
        is_used: bool = false,
    };

    /// Maps the component's files (one, or all shards) and reads their headers. `interrupt` is
    /// set when a mapped file loses pages; see `MappedFile`.
    pub fn open(
        gpa: Allocator,
        io: Io,
        paths: []const []const u8,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!Checkpoint {
        var checkpoint: Checkpoint = .{
            .arena = .init(gpa),
            .io = io,
            .diagnostics = diagnostics,
        };
        errdefer checkpoint.close();
        for (paths) |path| try checkpoint.addFile(path, interrupt);
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
            try list.append(arena, item.key_ptr.*);
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

    pub fn mappedBytes(checkpoint: *const Checkpoint) usize {
        var bytes: usize = 0;
        for (checkpoint.files.items) |mapped| bytes += mapped.memory.len;
        return bytes;
    }

    // --- internal ---

    fn addFile(
        checkpoint: *Checkpoint,
        path_borrowed: []const u8,
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
        for (try parsed) |tensor| {
            const slot = try checkpoint.entries.getOrPut(arena, tensor.name);
            if (slot.found_existing) {
                const sentence = "tensor {f} is in two files, {s} and {s}.";
                const both = .{ shown(tensor.name), slot.value_ptr.path, path };
                return d.fail(error.BadWeights, sentence, both);
            }
            slot.value_ptr.* = .{ .tensor = tensor, .path = path };
        }
    }
};
