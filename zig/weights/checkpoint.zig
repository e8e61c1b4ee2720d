//! The checkpoint of one model component: its files' tensors by their keys, in read-only mapped
//! memory.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const MappedFile = @import("mapped_file.zig").MappedFile;
const quantization = @import("quantization.zig");
const safetensors = @import("safetensors.zig");
const shown = @import("shown.zig").shown;

pub const Error = safetensors.Error;

/// Keys that fine-tunes contain and no model reads, and the mark of 8-bit files.
fn isIgnored(name: []const u8) bool {
    return std.mem.endsWith(u8, name, "embeddings.position_ids") or
        std.mem.eql(u8, name, quantization.marker);
}

/// Of a scale's key in files with other names than the model's.
const own_name_max = 1024;

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
    formats: quantization.LayerFormats = .{},

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

    /// Whether its files are those at `paths` now.
    pub fn isOf(checkpoint: *const Checkpoint, io: Io, paths: []const []const u8) bool {
        const files = checkpoint.files.items;
        if (files.len != paths.len) return false;
        for (files, paths) |*mapped, path| if (!mapped.isAt(io, path)) return false;
        return true;
    }

    /// Fails where a file has changed since it was opened.
    pub fn checkUnchanged(checkpoint: *const Checkpoint) error{BadWeights}!void {
        for (checkpoint.files.items) |*mapped| {
            try mapped.checkUnchanged(checkpoint.io, checkpoint.diagnostics);
        }
    }

    /// How a weight is quantized; refuses other ways than those that are read.
    pub fn formatOf(checkpoint: *Checkpoint, key: []const u8) Error!quantization.Layer {
        const d = checkpoint.diagnostics;
        const arena = checkpoint.arena.allocator();
        const layer = quantization.layerOf(key) orelse return .{};
        const own_layer = quantization.layerOf(checkpoint.nameInFiles(key)) orelse return .{};
        var path = checkpoint.firstPath();
        var format = checkpoint.formats.find(own_layer);
        if (try checkpoint.sibling(layer, quantization.format_suffix)) |entry| {
            entry.is_used = true;
            path = entry.path;
            format = quantization.formatOf(arena, entry.tensor.bytes) catch |err| switch (err) {
                error.OutOfMemory => return error.OutOfMemory,
                error.BadJson => return d.fail(error.BadWeights, "{s}: tensor {f} is not JSON.", .{
                    path, shown(entry.tensor.name),
                }),
            };
        }
        const found: quantization.Layer = format orelse .{};
        if (found.format.len == 0 or quantization.isRead(found.format)) return found;
        return d.fail(error.BadWeights, "{s}: layer {f} is quantized as {f}, which is not read; " ++
            "float8_e4m3fn, float8_e5m2 and int8_tensorwise are, as are F16, BF16 and F32.", .{
            path, shown(own_layer), shown(found.format),
        });
    }

    /// `row_count` scales of a weight; null where the files have none.
    pub fn rowScales(
        checkpoint: *Checkpoint,
        key: []const u8,
        row_count: usize,
    ) Error!?[]const f32 {
        const layer = quantization.layerOf(key) orelse return null;
        for (quantization.input_suffixes) |suffix| {
            if (try checkpoint.sibling(layer, suffix)) |entry| entry.is_used = true;
        }
        var found: ?*Entry = null;
        for (quantization.scale_suffixes ++ quantization.unread_suffixes, 0..) |suffix, i| {
            const entry = try checkpoint.sibling(layer, suffix) orelse continue;
            if (found != null or i >= quantization.scale_suffixes.len) {
                const sentence = "{s}: tensor {f} scales the layer's weight in a way that is " ++
                    "not read; one scale_weight or weight_scale is.";
                const values = .{ entry.path, shown(entry.tensor.name) };
                return checkpoint.diagnostics.fail(error.BadWeights, sentence, values);
            }
            found = entry;
        }
        const entry = found orelse return null;
        entry.is_used = true;
        const arena = checkpoint.arena.allocator();
        if (try quantization.rowScales(arena, &entry.tensor, row_count)) |scales| return scales;
        const sentence = "{s}: tensor {f} has shape {any} in {f}; a scale is one finite number, " ++
            "or one for each of {d} rows, in F32, F16 or BF16.";
        return checkpoint.diagnostics.fail(error.BadWeights, sentence, .{
            entry.path,
            shown(entry.tensor.name),
            entry.tensor.shape(),
            shown(entry.tensor.dtype),
            row_count,
        });
    }

    /// Bytes of the component's tensors: its files may hold other components as well.
    pub fn mappedBytes(checkpoint: *const Checkpoint) usize {
        var bytes: usize = 0;
        var entries = checkpoint.entries.valueIterator();
        while (entries.next()) |entry| bytes += entry.tensor.bytes.len;
        return bytes;
    }

    // --- internal ---

    /// The tensor of the layer with this suffix.
    fn sibling(
        checkpoint: *Checkpoint,
        layer: []const u8,
        suffix: []const u8,
    ) Allocator.Error!?*Entry {
        const gpa = checkpoint.arena.child_allocator;
        const key = try std.mem.concat(gpa, u8, &.{ layer, suffix });
        defer gpa.free(key);
        return checkpoint.entries.getPtr(key);
    }

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
        const header = try parsed;
        if (header.quantization.len > 0) try checkpoint.addFormats(path, header.quantization);
        if (names.len > 0) return checkpoint.addNamed(path, header.tensors, names);
        for (header.tensors) |tensor| {
            try checkpoint.add(tensor.name, .{ .tensor = tensor, .path = path });
        }
    }

    fn addFormats(checkpoint: *Checkpoint, path: []const u8, text: []const u8) Error!void {
        checkpoint.formats.add(checkpoint.arena.allocator(), text) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.BadJson => return checkpoint.diagnostics.fail(
                error.BadWeights,
                "{s}: {s} in the header is not JSON of layers and their formats.",
                .{ path, quantization.metadata_key },
            ),
        };
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
        for (names) |name| try checkpoint.addSiblings(path, &by_name, name);
    }

    /// Adds what lies beside a weight and has no name of its own: scales and formats.
    fn addSiblings(
        checkpoint: *Checkpoint,
        path: []const u8,
        by_name: *const std.StringHashMapUnmanaged(*const safetensors.Tensor),
        name: Name,
    ) Error!void {
        const layer = quantization.layerOf(name.key) orelse return;
        const own_layer = quantization.layerOf(name.name) orelse return;
        var buffer: [own_name_max]u8 = undefined;
        for (quantization.suffixes) |suffix| {
            const own = std.fmt.bufPrint(&buffer, "{s}{s}", .{ own_layer, suffix }) catch return;
            const tensor = by_name.get(own) orelse continue;
            const key = try std.mem.concat(checkpoint.arena.allocator(), u8, &.{ layer, suffix });
            if (checkpoint.entries.contains(key)) continue;
            try checkpoint.add(key, .{ .tensor = tensor.*, .path = path });
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
