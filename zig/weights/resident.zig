//! The weights that a device computes with, from one component's checkpoint. Loading the model
//! looks them up by key, which checks names and shapes without reading the data.
//!
//! On the CPU matrices stay in the mapped file; convolutions and vectors are copied.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const checkpoints = @import("checkpoint.zig");
const Checkpoint = checkpoints.Checkpoint;
const DType = @import("../tensor.zig").DType;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const huge_pages = @import("../system/huge_pages.zig");
const shown = @import("shown.zig").shown;
const weight_file = @import("weight.zig");
const Layout = weight_file.Layout;
const Weight = weight_file.Weight;

pub const Error = error{ BadWeights, OutOfMemory, Cancelled };

pub const Resident = struct {
    gpa: Allocator,
    checkpoint: Checkpoint,
    /// All weights, in the order in which the model loaded them.
    weights: std.ArrayList(*Weight) = .empty,
    by_name: std.StringHashMapUnmanaged(*Weight) = .empty,
    copies: []align(64) u8 = &.{},

    pub fn open(
        gpa: Allocator,
        io: Io,
        files: checkpoints.Files,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!Resident {
        return .{ .gpa = gpa, .checkpoint = try .open(gpa, io, files, interrupt, diagnostics) };
    }

    pub fn close(resident: *Resident) void {
        huge_pages.free(resident.gpa, resident.copies);
        resident.checkpoint.close();
        resident.* = undefined;
    }

    /// View of the root of the keys. `resident` must not move afterwards.
    pub fn view(resident: *Resident) View {
        return .{ .resident = resident, .prefix = "" };
    }

    /// The weight with this key in the checkpoint; null where the model has no such weight.
    pub fn find(resident: *const Resident, name: []const u8) ?*Weight {
        return resident.by_name.get(name);
    }

    /// Bytes that `loadToHost` will copy.
    pub fn copiedBytes(resident: *const Resident) usize {
        var bytes: usize = 0;
        for (resident.weights.items) |weight| {
            if (!weight.isInPlace()) bytes += weight.copyBytes();
        }
        return bytes;
    }

    /// Gives every weight its address: in the mapped file where possible, else as a copy in the
    /// layout and type that the CPU's kernels read. Between weights it checks `cancelled` and
    /// increases `copied_bytes`.
    pub fn loadToHost(
        resident: *Resident,
        cancelled: *const std.atomic.Value(bool),
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        assert(resident.copies.len == 0);
        resident.copies = try huge_pages.alloc(resident.gpa, resident.copiedBytes());
        var offset: usize = 0;
        for (resident.weights.items) |weight| {
            if (cancelled.load(.monotonic)) return error.Cancelled;
            if (weight.isInPlace()) {
                weight.address = @intFromPtr(weight.source.ptr);
                continue;
            }
            const target = resident.copies[offset..][0..weight.copyBytes()];
            offset += target.len;
            weight.copyTo(target);
            weight.address = @intFromPtr(target.ptr);
            _ = copied_bytes.fetchAdd(target.len, .monotonic);
        }
        assert(offset == resident.copies.len);
    }
};

/// A prefix of the checkpoint's keys, such as "down_blocks.0.resnets.1".
pub const View = struct {
    resident: *Resident,
    prefix: []const u8,

    pub fn at(view: View, name: []const u8) Error!View {
        return .{ .resident = view.resident, .prefix = try view.key(name) };
    }

    pub fn index(view: View, name: []const u8, i: usize) Error!View {
        const arena = view.resident.checkpoint.arena.allocator();
        const numbered = try std.fmt.allocPrint(arena, "{s}.{d}", .{ name, i });
        return view.at(numbered);
    }

    pub fn has(view: View, name: []const u8) Error!bool {
        return view.resident.checkpoint.entries.contains(try view.key(name));
    }

    /// A matrix (out, in), or a pointwise convolution (out, in, 1, 1).
    pub fn matrix(view: View, name: []const u8, out: u32, in: u32) Error!*const Weight {
        return view.take(name, .matrix, .{ out, in, 1, 1 }, &.{ out, in });
    }

    /// A convolution, (out, in, height, width) in the file.
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

    pub fn scaledVector(
        view: View,
        name: []const u8,
        count: u32,
        scale: f32,
    ) Error!*const Weight {
        const weight = try view.take(name, .vector, .{ count, 1, 1, 1 }, &.{count});
        weight.scale = scale;
        return weight;
    }

    // --- internal ---

    fn key(view: View, name: []const u8) Error![]const u8 {
        if (view.prefix.len == 0) return name;
        const arena = view.resident.checkpoint.arena.allocator();
        return std.fmt.allocPrint(arena, "{s}.{s}", .{ view.prefix, name });
    }

    fn take(
        view: View,
        name: []const u8,
        layout: Layout,
        shape: [4]u32,
        file_shape: []const u32,
    ) Error!*Weight {
        const resident = view.resident;
        const checkpoint = &resident.checkpoint;
        const arena = checkpoint.arena.allocator();
        const d = checkpoint.diagnostics;
        const full = try view.key(name);
        const entry = checkpoint.entries.getPtr(full) orelse {
            return d.fail(error.BadWeights, "tensor {s} is missing from {s}. Do config.json and " ++
                "the weights belong together?", .{
                checkpoint.nameInFiles(full), checkpoint.firstPath(),
            });
        };
        const own_name = entry.tensor.name;
        const reversed: [2]u32 = .{ shape[1], shape[0] };
        const expected = if (entry.is_transposed) &reversed else file_shape;
        if (!sameShape(entry.tensor.shape(), expected)) {
            return d.fail(error.BadWeights, "{s}: tensor {s} has shape {any}, and config.json " ++
                "asks for {any}.", .{ entry.path, own_name, entry.tensor.shape(), expected });
        }
        const dtype: DType = if (std.mem.eql(u8, entry.tensor.dtype, "F16"))
            .f16
        else if (std.mem.eql(u8, entry.tensor.dtype, "BF16"))
            .bf16
        else if (std.mem.eql(u8, entry.tensor.dtype, "F32"))
            .f32
        else
            return d.fail(error.BadWeights, "{s}: tensor {s} has type {f}; weights are read in " ++
                "F32, F16 or BF16.", .{ entry.path, own_name, shown(entry.tensor.dtype) });
        entry.is_used = true;
        const weight = try arena.create(Weight);
        weight.* = .{
            .name = full,
            .layout = layout,
            .dtype = if (layout == .vector) .f32 else dtype,
            .shape = shape,
            .is_transposed = entry.is_transposed,
            .source = entry.tensor.bytes,
            .source_dtype = dtype,
        };
        try resident.weights.append(arena, weight);
        try resident.by_name.put(arena, full, weight);
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
        var resident: Resident = try .open(
            testing.allocator,
            testing.io,
            .{ .paths = &.{file.path} },
            &interrupt,
            &d,
        );
        defer resident.close();
        const c = try resident.view().convolution("c", 1, 2, 1, 2);
        const m = try resident.view().matrix("m", 1, 2);
        const v = try resident.view().vector("v", 2);
        const cancelled: std.atomic.Value(bool) = .init(false);
        var copied_bytes: std.atomic.Value(u64) = .init(0);
        try resident.loadToHost(&cancelled, &copied_bytes);
        try testing.expectEqual(resident.copies.len, copied_bytes.raw);
        const taps: [*]const u16 = @ptrFromInt(c.address);
        try testing.expectEqualSlices(u16, &.{ 1, 3, 2, 4 }, taps[0..4]);
        const rows: [*]const f32 = @ptrFromInt(m.address);
        try testing.expectEqualSlices(f32, &.{ 1, 2 }, rows[0..2]);
        const bias: [*]const f32 = @ptrFromInt(v.address);
        try testing.expectEqualSlices(f32, &.{ 1, 3 }, bias[0..2]);
    }
}

test "weights are found under other names, as parts and transposed" {
    var bytes: [12 + 4 * 2 + 2]u8 = undefined;
    const halves: [*]align(1) u16 = @ptrCast(&bytes);
    for (0..bytes.len / 2) |i| halves[i] = @bitCast(@as(f16, @floatFromInt(i)));
    var file: TestFile = try .init(
        \\{"x.in_proj":{"dtype":"F16","shape":[6,1],"data_offsets":[0,12]},
        \\"x.p":{"dtype":"F16","shape":[2,2],"data_offsets":[12,20]},
        \\"other":{"dtype":"F16","shape":[1],"data_offsets":[20,22]}} 
    , &bytes);
    defer file.deinit();
    var d: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    const names = [_]checkpoints.Name{
        .{ .key = "q", .name = "x.in_proj", .part_count = 3 },
        .{ .key = "v", .name = "x.in_proj", .part_index = 2, .part_count = 3 },
        .{ .key = "p", .name = "x.p", .is_transposed = true },
        .{ .key = "gone", .name = "x.gone" },
    };
    var resident: Resident = try .open(
        testing.allocator,
        testing.io,
        .{ .paths = &.{file.path}, .names = &names },
        &interrupt,
        &d,
    );
    defer resident.close();
    try testing.expectError(error.BadWeights, resident.view().matrix("gone", 1, 1));
    try expectMessage(&d, "tensor x.gone is missing from");
    d.reset();
    try testing.expectError(error.BadWeights, resident.view().matrix("v", 3, 1));
    try expectMessage(&d, "tensor x.in_proj has shape { 2, 1 }, and config.json asks for { 3, 1 }");
    d.reset();
    try testing.expectError(error.BadWeights, resident.view().matrix("other", 1, 1));
    try expectMessage(&d, "tensor other is missing from");
    d.reset();
    const v = try resident.view().matrix("v", 2, 1);
    const p = try resident.view().matrix("p", 2, 2);
    // Two of the three thirds, and the transposed matrix.
    try testing.expectEqual(4 + 4 + 8, resident.checkpoint.mappedBytes());
    try testing.expectEqual(64, resident.copiedBytes());
    const unused = try resident.checkpoint.unusedNames(resident.checkpoint.arena.allocator());
    try testing.expectEqual(1, unused.len);
    try testing.expectEqualStrings("x.in_proj", unused[0]);
    var copied_bytes: std.atomic.Value(u64) = .init(0);
    try resident.loadToHost(&interrupt, &copied_bytes);
    const third: [*]align(1) const f16 = @ptrFromInt(v.address);
    try testing.expectEqualSlices(f16, &.{ 4, 5 }, &.{ third[0], third[1] });
    const turned: [*]const f16 = @ptrFromInt(p.address);
    try testing.expectEqualSlices(f16, &.{ 6, 8, 7, 9 }, turned[0..4]);
}

test "a part of a tensor that cannot be divided is refused" {
    var file: TestFile = try .init(
        \\{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}
    , &@as([8]u8, @splat(0)));
    defer file.deinit();
    var d: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    const names = [_]checkpoints.Name{.{ .key = "q", .name = "a", .part_count = 3 }};
    const files: checkpoints.Files = .{ .paths = &.{file.path}, .names = &names };
    const opened = Resident.open(testing.allocator, testing.io, files, &interrupt, &d);
    try testing.expectError(error.BadWeights, opened);
    try expectMessage(&d, "tensor a has shape { 4 }, which is not 3 equal parts");
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
    var interrupt: std.atomic.Value(bool) = .init(false);
    const open = Resident.open;
    const one: checkpoints.Files = .{ .paths = &.{file.path} };
    var resident = try open(testing.allocator, testing.io, one, &interrupt, &d);
    defer resident.close();
    const a = try resident.view().at("a");
    try testing.expectError(error.BadWeights, a.vector("c", 1));
    try expectMessage(&d, "tensor a.c is missing from");
    d.reset();
    try testing.expectError(error.BadWeights, a.vector("b", 2));
    try expectMessage(&d, "tensor a.b has shape { 1 }, and config.json asks for { 2 }");
    d.reset();
    try testing.expectError(error.BadWeights, a.vector("b", 1));
    try expectMessage(&d, "tensor a.b has type I64");
    d.reset();
    const unused = try resident.checkpoint.unusedNames(resident.checkpoint.arena.allocator());
    try testing.expectEqual(@as(usize, 1), unused.len);
    try testing.expectEqualStrings("a.b", unused[0]);
    const twice = [_][]const u8{ file.path, file.path };
    try testing.expectError(
        error.BadWeights,
        open(testing.allocator, testing.io, .{ .paths = &twice }, &interrupt, &d),
    );
    try expectMessage(&d, "is in two files");
    d.reset();
    const nowhere = [_][]const u8{"no/such/file.safetensors"};
    try testing.expectError(
        error.BadWeights,
        open(testing.allocator, testing.io, .{ .paths = &nowhere }, &interrupt, &d),
    );
    try expectMessage(&d, "no/such/file.safetensors cannot be read (FileNotFound)");
    d.reset();
    const folder = [_][]const u8{std.fs.path.dirname(file.path).?};
    try testing.expectError(
        error.BadWeights,
        open(testing.allocator, testing.io, .{ .paths = &folder }, &interrupt, &d),
    );
    try expectMessage(&d, "is not a file");
}
