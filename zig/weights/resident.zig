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
const int8 = @import("int8.zig");
const huge_pages = @import("../system/huge_pages.zig");
const quantization = @import("quantization.zig");
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
            if (!weight.isInPlace() and weight.dtype != .i8) bytes += weight.copyBytes();
        }
        return bytes;
    }

    /// Multiplies in int8 what may be: before the weights are loaded.
    pub fn useInt8(resident: *Resident) void {
        for (resident.weights.items) |weight| {
            if (!weight.may_be_int8 or weight.dtype == .i8) continue;
            if (weight.shape[0] % int8.column_unit != 0) continue;
            weight.int8_group = int8.groupOf(weight.shape[1]) orelse continue;
            weight.dtype = .i8;
        }
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
            // Their panels are made by the devices.
            if (weight.dtype == .i8) continue;
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
    /// Whether products with the matrices of this view may be in int8.
    may_be_int8: bool = false,

    pub fn at(view: View, name: []const u8) Error!View {
        var below = view;
        below.prefix = try view.key(name);
        return below;
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

    /// A matrix (count, channels) whose rows are looked up.
    pub fn table(view: View, name: []const u8, count: u32, channels: u32) Error!*const Weight {
        return view.tableOf(name, count, channels, &.{ count, channels });
    }

    /// The same of a tensor with another shape in the file: a parameter that no layer multiplies.
    pub fn tableOf(
        view: View,
        name: []const u8,
        count: u32,
        channels: u32,
        file_shape: []const u32,
    ) Error!*const Weight {
        const weight = try view.take(name, .matrix, .{ count, channels, 1, 1 }, file_shape);
        if (weight.dtype == .i8) {
            const d = view.resident.checkpoint.diagnostics;
            const sentence = "Tensor {s} has type I8, which is read of linear layers alone.";
            return d.fail(error.BadWeights, sentence, .{weight.name});
        }
        weight.is_table = true;
        return weight;
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

    /// A convolution of `size` x `size` whose stride is that, as the matrix by which patches are
    /// multiplied: of each its channels one after the other, as the file has the weights.
    pub fn patchMatrix(
        view: View,
        name: []const u8,
        out: u32,
        in: u32,
        size: u32,
    ) Error!*const Weight {
        return view.take(name, .matrix, .{ out, in * size * size, 1, 1 }, &.{
            out, in, size, size,
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
        const format = try checkpoint.formatOf(full);
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
            const sentence = "{s}: tensor {s} has shape {any}, and the model's configuration " ++
                "asks for {any}.";
            const values = .{ entry.path, own_name, entry.tensor.shape(), expected };
            return d.fail(error.BadWeights, sentence, values);
        }
        const dtype = dtypes.get(entry.tensor.dtype) orelse {
            const sentence = "{s}: tensor {s} has type {f}; weights are read in F32, F16, BF16, " ++
                "F8_E4M3, F8_E5M2 or, as int8_tensorwise, I8.";
            const shown_type = shown(entry.tensor.dtype);
            return d.fail(error.BadWeights, sentence, .{ entry.path, own_name, shown_type });
        };
        if (dtype == .i8) {
            try view.checkInt8(entry, &format, layout, shape);
        } else if (std.mem.eql(u8, format.format, quantization.int8_format)) {
            const sentence = "{s}: tensor {s} has type {s}, and its format int8_tensorwise has I8.";
            const values = .{ entry.path, own_name, entry.tensor.dtype };
            return d.fail(error.BadWeights, sentence, values);
        }
        entry.is_used = true;
        const weight = try arena.create(Weight);
        weight.* = .{
            .name = full,
            .layout = layout,
            .dtype = if (layout == .vector) .f32 else dtype,
            .shape = shape,
            .is_transposed = entry.is_transposed,
            .may_be_int8 = view.may_be_int8 and layout == .matrix,
            .int8_group = if (dtype == .i8) format.group() else 0,
            .row_scales = try view.rowScales(full, entry, dtype, shape[0]),
            .source = entry.tensor.bytes,
            .source_dtype = dtype,
        };
        try resident.weights.append(arena, weight);
        try resident.by_name.put(arena, full, weight);
        return weight;
    }

    /// Refuses integers that are no operand of an int8 product.
    fn checkInt8(
        view: View,
        entry: *const Checkpoint.Entry,
        format: *const quantization.Layer,
        layout: Layout,
        shape: [4]u32,
    ) Error!void {
        const d = view.resident.checkpoint.diagnostics;
        const of = .{ entry.path, entry.tensor.name };
        if (!std.mem.eql(u8, format.format, quantization.int8_format)) {
            const sentence = "{s}: tensor {s} has type I8 and not the format " ++
                quantization.int8_format ++ ", so that it is not known what its numbers mean.";
            return d.fail(error.BadWeights, sentence, of);
        }
        if (layout != .matrix or entry.is_transposed) {
            const sentence = "{s}: tensor {s} has type I8, which is read of linear layers alone.";
            return d.fail(error.BadWeights, sentence, of);
        }
        const depth = shape[1];
        if (int8.isRead(depth, format.group())) {
            if (shape[0] % int8.column_unit == 0) return;
            const sentence = "{s}: tensor {s} has {d} outputs; integers are read with " ++
                "multiples of {d}.";
            return d.fail(error.BadWeights, sentence, of ++ .{ shape[0], int8.column_unit });
        }
        const sentence = "{s}: tensor {s} has {d} inputs in groups of {d}; integers are read " ++
            "with inputs that are a multiple of 16 and at most {d}, rotated in groups of 16, " ++
            "64 or 256 that divide them, or not rotated (1).";
        const values = of ++ .{ depth, format.group(), int8.depth_max };
        return d.fail(error.BadWeights, sentence, values);
    }

    /// Of 8-bit weights; empty for others, whose scales must be 1.
    fn rowScales(
        view: View,
        full: []const u8,
        entry: *const Checkpoint.Entry,
        dtype: DType,
        row_count: u32,
    ) Error![]const f32 {
        const checkpoint = &view.resident.checkpoint;
        const found = try checkpoint.rowScales(full, row_count);
        if (dtype.isF8()) {
            return found orelse quantization.unscaled(checkpoint.arena.allocator(), row_count);
        }
        if (dtype == .i8) return found orelse {
            const sentence = "{s}: tensor {s} has type I8 and no weight_scale.";
            const values = .{ entry.path, entry.tensor.name };
            return checkpoint.diagnostics.fail(error.BadWeights, sentence, values);
        };
        for (found orelse &.{}) |scale| {
            if (scale == 1) continue;
            const sentence = "{s}: tensor {s} has a scale, which only 8-bit weights have.";
            const values = .{ entry.path, entry.tensor.name };
            return checkpoint.diagnostics.fail(error.BadWeights, sentence, values);
        }
        return &.{};
    }
};

/// Types of weights by their names in files.
pub const dtypes = std.StaticStringMap(DType).initComptime(.{
    .{ "F32", .f32 },         .{ "F16", .f16 },         .{ "BF16", .bf16 },
    .{ "F8_E4M3", .f8_e4m3 }, .{ "F8_E5M2", .f8_e5m2 }, .{ "I8", .i8 },
});

/// Trailing dimensions of 1 do not count: (out, in, 1, 1) = (out, in).
pub fn sameShape(actual: []const u64, expected: anytype) bool {
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
    try expectMessage(&d, "tensor x.in_proj has shape { 2, 1 }, and the " ++
        "model's configuration asks for { 3, 1 }");
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

/// Opens a file with these tensors of `data`.
fn openTest(file: *const TestFile, d: *Diagnostics) !Resident {
    var interrupt: std.atomic.Value(bool) = .init(false);
    return .open(testing.allocator, testing.io, .{ .paths = &.{file.path} }, &interrupt, d);
}

test "8-bit weights stay 8 bits, with the scales of both notations" {
    const codes = [_]u8{ 0x38, 0x40, 0xb8, 0x01 };
    const half = [_]u8{ 0, 0, 0, 0x3f };
    const data = codes ++ half ++ [_]u8{ 0, 0, 0x40, 0x3f } ++ // 0.5 and 0.75
        half ++ codes ++ half ++ half ++ codes ++
        "{\"format\":\"float8_e4m3fn\",\"full_precision_matrix_mult\":true}";
    var file: TestFile = try .init(
        \\{"__metadata__":{
        \\"_quantization_metadata":"{\"layers\":{\"b\":{\"format\":\"float8_e5m2\"}}}"},
        \\"a.weight":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]},
        \\"a.weight_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},
        \\"a.input_scale":{"dtype":"F32","shape":[],"data_offsets":[12,16]},
        \\"a.comfy_quant":{"dtype":"U8","shape":[60],"data_offsets":[32,92]},
        \\"b.weight":{"dtype":"F8_E5M2","shape":[1,2,1,2],"data_offsets":[16,20]},
        \\"b.scale_weight":{"dtype":"F32","shape":[1],"data_offsets":[20,24]},
        \\"b.scale_input":{"dtype":"F32","shape":[],"data_offsets":[24,28]},
        \\"b.bias":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[28,32]},
        \\"scaled_fp8":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[92,92]}}
    , data);
    defer file.deinit();
    var d: Diagnostics = .{};
    var resident = try openTest(&file, &d);
    defer resident.close();
    const a = try resident.view().matrix("a.weight", 2, 2);
    const b = try resident.view().convolution("b.weight", 1, 2, 1, 2);
    const bias = try resident.view().vector("b.bias", 4);
    const unused = try resident.checkpoint.unusedNames(resident.checkpoint.arena.allocator());
    try testing.expectEqual(0, unused.len);
    const cancelled: std.atomic.Value(bool) = .init(false);
    var copied_bytes: std.atomic.Value(u64) = .init(0);
    try resident.loadToHost(&cancelled, &copied_bytes);
    try testing.expectEqual(@intFromPtr(a.source.ptr), a.address);
    try testing.expectEqual(DType.f8_e4m3, a.dtype);
    try testing.expectEqualSlices(f32, &.{ 0.5, 0.75 }, a.row_scales);
    for ([_]f32{ 0.5, 1, -0.75, 0x1.8p-10 }, 0..) |value, i| {
        try testing.expectEqual(value, a.sourceValue(i));
    }
    const permuted: [*]const u8 = @ptrFromInt(b.address);
    try testing.expectEqualSlices(u8, &.{ 0x38, 0xb8, 0x40, 0x01 }, permuted[0..4]);
    try testing.expectEqual(0.25, b.sourceValue(0));
    const numbers: [*]const f32 = @ptrFromInt(bias.address);
    try testing.expectEqualSlices(f32, &.{ 1, 2, -1, 0x1p-9 }, numbers[0..4]);

    const names = [_]checkpoints.Name{.{ .key = "x.weight", .name = "a.weight" }};
    const files: checkpoints.Files = .{ .paths = &.{file.path}, .names = &names };
    var interrupt: std.atomic.Value(bool) = .init(false);
    var renamed: Resident = try .open(testing.allocator, testing.io, files, &interrupt, &d);
    defer renamed.close();
    const x = try renamed.view().matrix("x.weight", 2, 2);
    try testing.expectEqualSlices(f32, &.{ 0.5, 0.75 }, x.row_scales);
    try testing.expectEqual(0, (try renamed.checkpoint.unusedNames(testing.allocator)).len);
}

test "weights that are quantized otherwise are refused by the name of their format" {
    const Case = struct {
        header: []const u8,
        data: []const u8 = &@as([12]u8, @splat(0)),
        said: []const u8,
    };
    const nvfp4 = "{\"format\":\"nvfp4\"}";
    for ([_]Case{
        .{
            .header =
            \\{"a.weight":{"dtype":"U8","shape":[2,2],"data_offsets":[18,22]},
            \\"a.comfy_quant":{"dtype":"U8","shape":[18],"data_offsets":[0,18]}}
            ,
            .data = nvfp4 ++ "1234",
            .said = "layer a is quantized as nvfp4, which is not read; float8_e4m3fn, float8_e5m2",
        },
        .{
            .header = "{\"a.weight\":{\"dtype\":\"I8\",\"shape\":[2,4],\"data_offsets\":[0,8]}}",
            .data = &@as([8]u8, @splat(0)),
            .said = "tensor a.weight has type I8 and not the format int8_tensorwise",
        },
        .{
            .header =
            \\{"a.weight":{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]},"__metadata__":{
            \\"_quantization_metadata":"{\"layers\":{\"a\":{\"format\":\"int8_tensorwise\"}}}"}}
            ,
            .data = &@as([8]u8, @splat(0)),
            .said = "tensor a.weight has type F8_E4M3, and its format int8_tensorwise has I8.",
        },
        .{
            .header =
            \\{"a.weight_packed":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"__metadata__":{
            \\"_quantization_metadata":"{\"layers\":{\"model.a\":{\"format\":\"awq_w4a16\"}}}"}}
            ,
            .data = "1234",
            .said = "layer a is quantized as awq_w4a16",
        },
        .{
            .header =
            \\{"a.weight":{"dtype":"U8","shape":[2,4],"data_offsets":[0,8]},
            \\"a.comfy_quant":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}
            ,
            .data = "12345678nope",
            .said = "tensor a.comfy_quant is not JSON",
        },
        .{
            .header =
            \\{"a.weight":{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]},
            \\"a.weight_scale":{"dtype":"F8_E8M0","shape":[2,2],"data_offsets":[8,12]}}
            ,
            .said = "tensor a.weight_scale has shape { 2, 2 } in F8_E8M0; a scale is one finite",
        },
        .{
            .header =
            \\{"a.weight":{"dtype":"F16","shape":[1,4],"data_offsets":[0,8]},
            \\"a.weight_scale":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}
            ,
            .said = "tensor a.weight has a scale, which only 8-bit weights have",
        },
        .{
            .header =
            \\{"a.weight":{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]},
            \\"a.weight_scale_2":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}
            ,
            .said = "tensor a.weight_scale_2 scales the layer's weight in a way that is not",
        },
        .{
            .header =
            \\{"a.weight":{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]},
            \\"a.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[8,12]},
            \\"a.weight_scale":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}
            ,
            .data = &@as([16]u8, @splat(0)),
            .said = "tensor a.weight_scale scales the layer's weight in a way that is not read",
        },
        .{
            .header = "{\"__metadata__\":{\"_quantization_metadata\":\"x\"}}",
            .data = "",
            .said = "_quantization_metadata in the header is not JSON",
        },
    }) |case| {
        var file: TestFile = try .init(case.header, case.data);
        defer file.deinit();
        var d: Diagnostics = .{};
        var resident = openTest(&file, &d) catch {
            try expectMessage(&d, case.said);
            continue;
        };
        defer resident.close();
        const rows: u32 = if (std.mem.indexOf(u8, case.header, "F16") != null) 1 else 2;
        try testing.expectError(error.BadWeights, resident.view().matrix("a.weight", rows, 4));
        try expectMessage(&d, case.said);
    }
}

test "integers that are no operand of an int8 product are refused, one sentence each" {
    const inputs = "integers are read with inputs that are a multiple of 16 and at most 8192, " ++
        "rotated in groups of 16, 64 or 256 that divide them, or not rotated (1).";
    const plain = "{\"format\":\"int8_tensorwise\"}";
    const rotated = "{\"format\":\"int8_tensorwise\",\"convrot\":true}";
    const in_32 = "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":32}";
    const in_64 = "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":64}";
    for ([_]struct {
        rows: u32 = 8,
        depth: u32 = 16,
        layout: enum { matrix, vector, convolution } = .matrix,
        format: []const u8 = plain,
        said: []const u8,
    }{
        .{ .said = "a.weight has type I8 and no weight_scale." },
        .{ .rows = 12, .said = "a.weight has 12 outputs; integers are read with multiples of 8." },
        .{ .depth = 24, .said = "a.weight has 24 inputs in groups of 1; " ++ inputs },
        .{ .depth = 8208, .said = "a.weight has 8208 inputs in groups of 1; " ++ inputs },
        .{
            .depth = 32,
            .format = in_64,
            .said = "a.weight has 32 inputs in groups of 64; " ++ inputs,
        },
        .{
            .depth = 64,
            .format = in_32,
            .said = "a.weight has 64 inputs in groups of 32; " ++ inputs,
        },
        .{ .format = rotated, .said = "a.weight has 16 inputs in groups of 0; " ++ inputs },
        .{ .depth = 1, .layout = .vector, .said = "which is read of linear layers alone." },
        .{ .layout = .convolution, .said = "which is read of linear layers alone." },
    }) |case| {
        var header: [256]u8 = undefined;
        const bytes = case.rows * case.depth;
        const text = try std.fmt.bufPrint(&header,
            \\{{"a.weight":{{"dtype":"I8","shape":[{d},{d}],"data_offsets":[0,{d}]}},
            \\"a.comfy_quant":{{"dtype":"U8","shape":[{d}],"data_offsets":[{d},{d}]}}}}
        , .{ case.rows, case.depth, bytes, case.format.len, bytes, bytes + case.format.len });
        const data = try testing.allocator.alloc(u8, bytes + case.format.len);
        defer testing.allocator.free(data);
        @memset(data[0..bytes], 1);
        @memcpy(data[bytes..], case.format);
        var file: TestFile = try .init(text, data);
        defer file.deinit();
        var d: Diagnostics = .{};
        var resident = try openTest(&file, &d);
        defer resident.close();
        const view = resident.view();
        try testing.expectError(error.BadWeights, switch (case.layout) {
            .matrix => view.matrix("a.weight", case.rows, case.depth),
            .vector => view.vector("a.weight", case.rows),
            .convolution => view.convolution("a.weight", case.rows, case.depth, 1, 1),
        });
        try expectMessage(&d, case.said);
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
    try expectMessage(&d, "tensor a.b has shape { 1 }, and the " ++
        "model's configuration asks for { 2 }");
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
