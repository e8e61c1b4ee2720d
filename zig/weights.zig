//! The weights of one model component, addressed by the checkpoint's own keys. Opening checks every
//! key and shape against the model without touching the data; `materialize` then makes what the
//! device needs. Matrices stay in the mapped file; only convolutions and vectors are copied.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const DType = @import("tensor.zig").DType;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const MappedFile = @import("weights/mapped_file.zig").MappedFile;
const safetensors = @import("weights/safetensors.zig");
const shown = @import("weights/shown.zig").shown;
const huge_pages = @import("system/huge_pages.zig");

pub const Error = error{ BadWeights, OutOfMemory, Cancelled };

/// What a weight becomes on the device.
pub const Layout = enum {
    /// (out, in), as in the file.
    matrix,
    /// (out, in, height, width) in the file; (out, height, width, in) here, since tensors are NHWC.
    convolution,
    /// (n), widened to f32: biases and norms are small and read everywhere.
    vector,
};

pub const Weight = struct {
    name: []const u8,
    layout: Layout,
    dtype: DType,
    /// In this layout's order; unused dimensions are 1.
    shape: [4]u32,
    /// Where the device finds it. 0 until `Store.materialize`.
    address: usize = 0,
    /// Whether a product with it may be summed in f16 where that is asked for.
    may_cascade: bool = false,
    /// GPUs keep it times this; see `VaeConfig.residual_scale`.
    scale: f32 = 1,
    /// Where GPUs keep it, from the start of their copy of all weights; see `backend/cuda/`.
    device_offset: usize = 0,
    source: []const u8,
    source_dtype: DType,

    pub fn elementCount(weight: *const Weight) usize {
        var count: usize = 1;
        for (weight.shape) |dimension| count *= dimension;
        return count;
    }

    /// Whether the file's bytes can be used where they lie.
    fn isInPlace(weight: *const Weight) bool {
        if (weight.source_dtype != weight.dtype) return false;
        if (weight.layout == .convolution and !isPointwise(weight.shape)) return false;
        return std.mem.isAligned(@intFromPtr(weight.source.ptr), weight.dtype.size());
    }

    fn isPointwise(shape: [4]u32) bool {
        return shape[1] == 1 and shape[2] == 1;
    }
};

/// Keys that real fine-tunes carry and no model reads.
fn isIgnored(name: []const u8) bool {
    return std.mem.endsWith(u8, name, "embeddings.position_ids");
}

pub const Store = struct {
    gpa: Allocator,
    arena: std.heap.ArenaAllocator,
    io: Io,
    diagnostics: *Diagnostics,
    /// Set when a mapped file loses pages; see `MappedFile`.
    interrupt: *std.atomic.Value(bool),
    files: std.ArrayList(MappedFile) = .empty,
    entries: std.StringHashMapUnmanaged(Entry) = .empty,
    weights: std.ArrayList(*Weight) = .empty,
    copies: []align(64) u8 = &.{},

    const Entry = struct { tensor: safetensors.Tensor, path: []const u8, used: bool = false };

    /// Maps the component's files (one, or all shards). `store` must not move afterwards.
    pub fn open(
        store: *Store,
        gpa: Allocator,
        io: Io,
        paths: []const []const u8,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!void {
        store.* = .{
            .gpa = gpa,
            .arena = .init(gpa),
            .io = io,
            .diagnostics = diagnostics,
            .interrupt = interrupt,
        };
        errdefer store.close();
        for (paths) |path| try store.addFile(path);
    }

    pub fn close(store: *Store) void {
        for (store.files.items) |mapped| mapped.close(store.io);
        huge_pages.free(store.gpa, store.copies);
        store.arena.deinit();
        store.* = undefined;
    }

    pub fn view(store: *Store) View {
        return .{ .store = store, .prefix = "" };
    }

    /// Names of tensors that the model has not taken, in order. diffusers ignores them too, since
    /// config.json alone says what the model is.
    pub fn unusedNames(store: *const Store, arena: Allocator) Allocator.Error![]const []const u8 {
        var list: std.ArrayList([]const u8) = .empty;
        var entries = store.entries.iterator();
        while (entries.next()) |item| {
            if (item.value_ptr.used or isIgnored(item.key_ptr.*)) continue;
            try list.append(arena, item.key_ptr.*);
        }
        std.mem.sortUnstable([]const u8, list.items, {}, struct {
            fn lessThan(_: void, a: []const u8, b: []const u8) bool {
                return std.mem.lessThan(u8, a, b);
            }
        }.lessThan);
        return list.items;
    }

    /// Refuses what was read from files that have changed since they were opened.
    pub fn checkUnchanged(store: *const Store) error{BadWeights}!void {
        for (store.files.items) |*mapped| try mapped.checkUnchanged(store.io, store.diagnostics);
    }

    /// Bytes of the files, which stay mapped, and of the copies that `materialize` will make.
    pub fn mappedBytes(store: *const Store) usize {
        var bytes: usize = 0;
        for (store.files.items) |mapped| bytes += mapped.memory.len;
        return bytes;
    }

    pub fn copiedBytes(store: *const Store) usize {
        var bytes: usize = 0;
        for (store.weights.items) |weight| {
            if (!weight.isInPlace()) bytes += copyBytes(weight);
        }
        return bytes;
    }

    /// Gives every weight its address: in the mapped file where possible, else as a copy in the
    /// layout and type that the kernels read. `cancelled` is looked at and `copied_bytes` counted
    /// up between weights.
    pub fn materialize(
        store: *Store,
        cancelled: *const std.atomic.Value(bool),
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        assert(store.copies.len == 0);
        store.copies = try huge_pages.alloc(store.gpa, store.copiedBytes());
        var offset: usize = 0;
        for (store.weights.items) |weight| {
            if (cancelled.load(.monotonic)) return error.Cancelled;
            if (weight.isInPlace()) {
                weight.address = @intFromPtr(weight.source.ptr);
                continue;
            }
            const target = store.copies[offset..][0..copyBytes(weight)];
            offset += target.len;
            switch (weight.layout) {
                .vector => widen(weight, target),
                .matrix => @memcpy(target[0..weight.source.len], weight.source),
                .convolution => permute(weight, target),
            }
            weight.address = @intFromPtr(target.ptr);
            _ = copied_bytes.fetchAdd(target.len, .monotonic);
        }
        assert(offset == store.copies.len);
    }

    // --- internal ---

    fn addFile(store: *Store, path_borrowed: []const u8) Error!void {
        const arena = store.arena.allocator();
        const path = try arena.dupe(u8, path_borrowed);
        try store.files.ensureUnusedCapacity(arena, 1);
        const mapped: MappedFile = try .open(store.io, path, store.interrupt, store.diagnostics);
        store.files.appendAssumeCapacity(mapped);
        const parsed = safetensors.parse(arena, path, mapped.memory, store.diagnostics);
        // What is wrong with the header may follow from a change meanwhile.
        try mapped.checkUnchanged(store.io, store.diagnostics);
        const list = try parsed;
        for (list) |tensor| {
            const slot = try store.entries.getOrPut(arena, tensor.name);
            if (slot.found_existing) {
                const sentence = "tensor {f} is in two files, {s} and {s}.";
                const both = .{ shown(tensor.name), slot.value_ptr.path, path };
                return store.diagnostics.fail(error.BadWeights, sentence, both);
            }
            slot.value_ptr.* = .{ .tensor = tensor, .path = path };
        }
    }
};

/// A place in the checkpoint's tree of keys, as "down_blocks.0.resnets.1".
pub const View = struct {
    store: *Store,
    prefix: []const u8,

    pub fn at(view: View, name: []const u8) Error!View {
        return .{ .store = view.store, .prefix = try view.key(name) };
    }

    pub fn index(view: View, name: []const u8, i: usize) Error!View {
        const arena = view.store.arena.allocator();
        const numbered = try std.fmt.allocPrint(arena, "{s}.{d}", .{ name, i });
        return view.at(numbered);
    }

    pub fn has(view: View, name: []const u8) Error!bool {
        return view.store.entries.contains(try view.key(name));
    }

    /// (out, in); a pointwise convolution (out, in, 1, 1) is the same thing.
    pub fn matrix(view: View, name: []const u8, out: u32, in: u32) Error!*const Weight {
        return view.take(name, .matrix, .{ out, in, 1, 1 }, &.{ out, in });
    }

    /// (out, in, height, width) in the file.
    pub fn convolution(
        view: View,
        name: []const u8,
        out: u32,
        in: u32,
        height: u32,
        width: u32,
    ) Error!*const Weight {
        return view.take(name, .convolution, .{ out, height, width, in }, &.{
            out, in, height, width,
        });
    }

    pub fn vector(view: View, name: []const u8, count: u32) Error!*const Weight {
        return view.take(name, .vector, .{ count, 1, 1, 1 }, &.{count});
    }

    pub fn scaledVector(view: View, name: []const u8, count: u32, scale: f32) Error!*const Weight {
        const weight = try view.take(name, .vector, .{ count, 1, 1, 1 }, &.{count});
        weight.scale = scale;
        return weight;
    }

    // --- internal ---

    fn key(view: View, name: []const u8) Error![]const u8 {
        if (view.prefix.len == 0) return name;
        return std.fmt.allocPrint(view.store.arena.allocator(), "{s}.{s}", .{ view.prefix, name });
    }

    fn take(
        view: View,
        name: []const u8,
        layout: Layout,
        shape: [4]u32,
        file_shape: []const u32,
    ) Error!*Weight {
        const store = view.store;
        const arena = store.arena.allocator();
        const d = store.diagnostics;
        const full = try view.key(name);
        const entry = store.entries.getPtr(full) orelse {
            const path = if (store.files.items.len > 0) store.files.items[0].path else "(no file)";
            return d.fail(error.BadWeights, "tensor {s} is missing from {s}. Do config.json and " ++
                "the weights belong together?", .{ full, path });
        };
        if (!sameShape(entry.tensor.shape(), file_shape)) {
            return d.fail(error.BadWeights, "{s}: tensor {s} has shape {any}, and config.json " ++
                "asks for {any}.", .{ entry.path, full, entry.tensor.shape(), file_shape });
        }
        const dtype: DType = if (std.mem.eql(u8, entry.tensor.dtype, "F16"))
            .f16
        else if (std.mem.eql(u8, entry.tensor.dtype, "BF16"))
            .bf16
        else if (std.mem.eql(u8, entry.tensor.dtype, "F32"))
            .f32
        else
            return d.fail(error.BadWeights, "{s}: tensor {s} has type {f}; weights are read in " ++
                "F32, F16 or BF16.", .{ entry.path, full, shown(entry.tensor.dtype) });
        entry.used = true;
        const weight = try arena.create(Weight);
        weight.* = .{
            .name = full,
            .layout = layout,
            .dtype = if (layout == .vector) .f32 else dtype,
            .shape = shape,
            .source = entry.tensor.bytes,
            .source_dtype = dtype,
        };
        try store.weights.append(arena, weight);
        return weight;
    }
};

/// Trailing dimensions of 1 do not count: (out, in, 1, 1) = (out, in).
fn sameShape(actual: []const u64, expected: []const u32) bool {
    for (0..@max(actual.len, expected.len)) |i| {
        const a: u64 = if (i < actual.len) actual[i] else 1;
        const b: u64 = if (i < expected.len) expected[i] else 1;
        if (a != b) return false;
    }
    return true;
}

/// Each copy begins on a cache line.
fn copyBytes(weight: *const Weight) usize {
    return std.mem.alignForward(usize, weight.elementCount() * weight.dtype.size(), 64);
}

fn widen(weight: *const Weight, target: []u8) void {
    const out: [*]f32 = @ptrCast(@alignCast(target.ptr));
    const size = weight.source_dtype.size();
    for (0..weight.elementCount()) |i| {
        const bytes = weight.source[i * size ..];
        out[i] = switch (weight.source_dtype) {
            .f32 => @bitCast(std.mem.readInt(u32, bytes[0..4], .little)),
            .f16 => @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little))),
            .bf16 => @bitCast(@as(u32, std.mem.readInt(u16, bytes[0..2], .little)) << 16),
            else => unreachable,
        };
    }
}

/// (out, in, height * width) to (out, height * width, in), whatever the element's bytes mean.
fn permute(weight: *const Weight, target: []u8) void {
    switch (weight.dtype.size()) {
        2 => permuteAs(u16, weight, target),
        4 => permuteAs(u32, weight, target),
        else => unreachable,
    }
}

fn permuteAs(comptime T: type, weight: *const Weight, target: []u8) void {
    const out_count, const height, const width, const in_count = weight.shape;
    const taps: usize = @as(usize, height) * width;
    const source: [*]align(1) const T = @ptrCast(weight.source.ptr);
    const destination: [*]T = @ptrCast(@alignCast(target.ptr));
    for (0..out_count) |o| {
        const from = source[o * in_count * taps ..];
        const to = destination[o * in_count * taps ..];
        for (0..taps) |tap| {
            for (0..in_count) |c| to[tap * in_count + c] = from[c * taps + tap];
        }
    }
}

const testing = std.testing;

const TestFile = struct {
    tmp: testing.TmpDir,
    path: []const u8,

    fn init(header: []const u8, data: []const u8) !TestFile {
        var tmp = testing.tmpDir(.{});
        errdefer tmp.cleanup();
        const bytes = try testing.allocator.alloc(u8, 8 + header.len + data.len);
        defer testing.allocator.free(bytes);
        std.mem.writeInt(u64, bytes[0..8], header.len, .little);
        @memcpy(bytes[8..][0..header.len], header);
        @memcpy(bytes[8 + header.len ..], data);
        try tmp.dir.writeFile(testing.io, .{ .sub_path = "w.safetensors", .data = bytes });
        const path = try tmp.dir.realPathFileAlloc(testing.io, "w.safetensors", testing.allocator);
        return .{ .tmp = tmp, .path = path[0..path.len] };
    }

    fn deinit(file: *TestFile) void {
        testing.allocator.free(@as([:0]const u8, @ptrCast(file.path)));
        file.tmp.cleanup();
    }
};

test "convolutions are permuted, vectors widened, matrices stay in the file" {
    // An odd header length moves the data off its alignment: the matrix is then copied.
    const header_even =
        \\{"c":{"dtype":"F16","shape":[1,2,1,2],"data_offsets":[0,8]},
        \\"m":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},
        \\"v":{"dtype":"BF16","shape":[2],"data_offsets":[16,20]}}
    ;
    const headers = [_][]const u8{ header_even, header_even ++ " " };
    const data = [_]u8{ 1, 0, 2, 0, 3, 0, 4, 0 } ++ // c
        [_]u8{ 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40 } ++ // m
        [_]u8{ 0x80, 0x3f, 0x40, 0x40 }; // v
    for (headers) |header| {
        var file: TestFile = try .init(header, &data);
        defer file.deinit();
        var d: Diagnostics = .{};
        var interrupt: std.atomic.Value(bool) = .init(false);
        var store: Store = undefined;
        try store.open(testing.allocator, testing.io, &.{file.path}, &interrupt, &d);
        defer store.close();
        const c = try store.view().convolution("c", 1, 2, 1, 2);
        const m = try store.view().matrix("m", 1, 2);
        const v = try store.view().vector("v", 2);
        const cancelled: std.atomic.Value(bool) = .init(false);
        var copied_bytes: std.atomic.Value(u64) = .init(0);
        try store.materialize(&cancelled, &copied_bytes);
        try testing.expectEqual(store.copies.len, copied_bytes.raw);
        const taps: [*]const u16 = @ptrFromInt(c.address);
        try testing.expectEqualSlices(u16, &.{ 1, 3, 2, 4 }, taps[0..4]);
        const rows: [*]const f32 = @ptrFromInt(m.address);
        try testing.expectEqualSlices(f32, &.{ 1, 2 }, rows[0..2]);
        const bias: [*]const f32 = @ptrFromInt(v.address);
        try testing.expectEqualSlices(f32, &.{ 1, 3 }, bias[0..2]);
    }
}

fn expectMessage(d: *const Diagnostics, expected: []const u8) !void {
    if (std.mem.indexOf(u8, d.message(), expected) != null) return;
    std.debug.print("got: {s}\n", .{d.message()});
    return error.TestUnexpectedMessage;
}

test "missing, unused, misshapen and unusable tensors are named" {
    var file: TestFile = try .init(
        \\{"a.b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
        \\"text_model.embeddings.position_ids":
        \\{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}
    , &@as([16]u8, @splat(0)));
    defer file.deinit();
    var d: Diagnostics = .{};
    var store: Store = undefined;
    var interrupt: std.atomic.Value(bool) = .init(false);
    try store.open(testing.allocator, testing.io, &.{file.path}, &interrupt, &d);
    defer store.close();
    const a = try store.view().at("a");
    try testing.expectError(error.BadWeights, a.vector("c", 1));
    try expectMessage(&d, "tensor a.c is missing from");
    d.reset();
    try testing.expectError(error.BadWeights, a.vector("b", 2));
    try expectMessage(&d, "tensor a.b has shape { 1 }, and config.json asks for { 2 }");
    d.reset();
    try testing.expectError(error.BadWeights, a.vector("b", 1));
    try expectMessage(&d, "tensor a.b has type I64");
    d.reset();
    const unused = try store.unusedNames(store.arena.allocator());
    try testing.expectEqual(@as(usize, 1), unused.len);
    try testing.expectEqualStrings("a.b", unused[0]);
    var other: Store = undefined;
    const twice = [_][]const u8{ file.path, file.path };
    try testing.expectError(
        error.BadWeights,
        other.open(testing.allocator, testing.io, &twice, &interrupt, &d),
    );
    try expectMessage(&d, "is in two files");
    d.reset();
    const nowhere = [_][]const u8{"no/such/file.safetensors"};
    try testing.expectError(
        error.BadWeights,
        other.open(testing.allocator, testing.io, &nowhere, &interrupt, &d),
    );
    try expectMessage(&d, "no/such/file.safetensors cannot be read (FileNotFound)");
    d.reset();
    const folder = [_][]const u8{std.fs.path.dirname(file.path).?};
    try testing.expectError(
        error.BadWeights,
        other.open(testing.allocator, testing.io, &folder, &interrupt, &d),
    );
    try expectMessage(&d, "is not a file");
}
