//! What a checkpoint's file says about the quantization of its weights, in ComfyUI's two notations.
//!
//! - The first: a tensor `scaled_fp8` marks the file, and `LAYER.scale_weight` is a weight's scale.
//! - The second: `LAYER.weight_scale` is the scale, and the layer's format is in a JSON object, as
//!   bytes in the tensor `LAYER.comfy_quant` or for all layers in the header's `metadata_key`.
//!
//! A weight is the number in the file times its scale, of which there is one, or one per row; rows
//! of integers may be rotated.
//! Source: ComfyUI, comfy/utils.py (convert_old_quants) and comfy/ops.py (mixed_precision_ops).

const std = @import("std");
const Allocator = std.mem.Allocator;
const safetensors = @import("safetensors.zig");

pub const metadata_key = "_quantization_metadata";
pub const marker = "scaled_fp8";
pub const format_suffix = ".comfy_quant";
pub const scale_suffixes = [_][]const u8{ ".scale_weight", ".weight_scale" };
/// Scales of activations, which stay wide here.
pub const input_suffixes = [_][]const u8{ ".scale_input", ".input_scale" };
/// Further factors of a weight, which formats that are not read have.
pub const unread_suffixes = [_][]const u8{ ".weight_scale_2", ".pre_quant_scale" };

/// Of all tensors beside a weight.
pub const suffixes = [_][]const u8{format_suffix} ++ scale_suffixes ++ input_suffixes ++
    unread_suffixes;

/// Formats that are read; the weight's own type says which of the first two it is.
const read_formats = [_][]const u8{ "float8_e4m3fn", "float8_e5m2", int8_format };
/// Integers with a scale for each row, rotated or not (`int8.zig`).
pub const int8_format = "int8_tensorwise";

/// A layer's format, as both notations have it. With `convrot` the rows are rotated in groups of
/// `convrot_groupsize`.
pub const Layer = struct {
    format: []const u8 = "",
    convrot: bool = false,
    convrot_groupsize: u32 = 0,

    /// 1 for rows that are not rotated.
    pub fn group(layer: *const Layer) u32 {
        return if (layer.convrot) layer.convrot_groupsize else 1;
    }
};

/// What the keys of a layer's weight and of the tensors beside it have in common.
pub fn layerOf(key: []const u8) ?[]const u8 {
    const suffix = ".weight";
    return if (std.mem.endsWith(u8, key, suffix)) key[0 .. key.len - suffix.len] else null;
}

pub fn isRead(format: []const u8) bool {
    for (read_formats) |name| if (std.mem.eql(u8, format, name)) return true;
    return false;
}

/// Formats by layer, from the headers of a component's files.
pub const LayerFormats = struct {
    by_layer: std.StringHashMapUnmanaged(Layer) = .empty,

    /// Adds those of one header. The text must outlive them.
    pub fn add(formats: *LayerFormats, arena: Allocator, text: []const u8) ParseError!void {
        const Metadata = struct { layers: std.json.ArrayHashMap(Layer) = .{} };
        const metadata = try parse(Metadata, arena, text);
        var layers = metadata.layers.map.iterator();
        while (layers.next()) |layer| {
            const name = withoutPrefix(layer.key_ptr.*);
            try formats.by_layer.put(arena, name, layer.value_ptr.*);
        }
    }

    /// Null where the headers say nothing about the layer.
    pub fn find(formats: *const LayerFormats, layer: []const u8) ?Layer {
        return formats.by_layer.get(withoutPrefix(layer));
    }
};

pub const ParseError = error{ BadJson, OutOfMemory };

/// The format in the bytes of a tensor LAYER.comfy_quant.
pub fn formatOf(arena: Allocator, bytes: []const u8) ParseError!Layer {
    return parse(Layer, arena, bytes);
}

/// `row_count` scales from a tensor of one number or of one per row; null for any other shape or
/// type, and where one of them is not finite.
pub fn rowScales(
    arena: Allocator,
    tensor: *const safetensors.Tensor,
    row_count: usize,
) Allocator.Error!?[]const f32 {
    var element_count: u64 = 1;
    // Whole, since the file's parser has compared it with the size in bytes.
    for (tensor.shape()) |dimension| element_count *= dimension;
    const is_per_row = element_count == row_count and tensor.dimensions[0] == row_count;
    if (element_count != 1 and !is_per_row) return null;
    const width = widthOf(tensor.dtype) orelse return null;
    const scales = try arena.alloc(f32, row_count);
    for (scales, 0..) |*scale, row| {
        const at = if (element_count == 1) 0 else row * width;
        const bytes = tensor.bytes[at..];
        scale.* = switch (tensor.dtype[0]) {
            'F' => if (width == 4)
                @bitCast(std.mem.readInt(u32, bytes[0..4], .little))
            else
                @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little))),
            else => @bitCast(@as(u32, std.mem.readInt(u16, bytes[0..2], .little)) << 16),
        };
        if (!std.math.isFinite(scale.*)) return null;
    }
    return scales;
}

/// `row_count` scales of 1.
pub fn unscaled(arena: Allocator, row_count: usize) Allocator.Error![]const f32 {
    const scales = try arena.alloc(f32, row_count);
    @memset(scales, 1);
    return scales;
}

// --- internal ---

/// Bytes of a scale; null for types that scales do not have.
fn widthOf(dtype: []const u8) ?usize {
    if (std.mem.eql(u8, dtype, "F32")) return 4;
    if (std.mem.eql(u8, dtype, "F16") or std.mem.eql(u8, dtype, "BF16")) return 2;
    return null;
}

/// Layers are named with or without what the UNet's keys begin with in single-file checkpoints.
fn withoutPrefix(layer: []const u8) []const u8 {
    var name = layer;
    for ([_][]const u8{ "model.", "diffusion_model." }) |prefix| {
        if (std.mem.startsWith(u8, name, prefix)) name = name[prefix.len..];
    }
    return name;
}

fn parse(comptime T: type, arena: Allocator, text: []const u8) ParseError!T {
    return std.json.parseFromSliceLeaky(T, arena, text, .{
        .ignore_unknown_fields = true,
        .duplicate_field_behavior = .use_last,
    }) catch |err| if (err == error.OutOfMemory) error.OutOfMemory else error.BadJson;
}

const testing = std.testing;

test "formats are found with and without the model's prefix" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var formats: LayerFormats = .{};
    try formats.add(arena.allocator(),
        \\{"format_version":"1.0","layers":{"model.diffusion_model.a.b":{"format":"nvfp4","x":[1]},
        \\"c":{"format":"float8_e5m2"},"d":{},
        \\"e":{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":64}}}
    );
    try testing.expectEqualStrings("nvfp4", formats.find("a.b").?.format);
    try testing.expectEqualStrings("nvfp4", formats.find("model.diffusion_model.a.b").?.format);
    try testing.expectEqualStrings("float8_e5m2", formats.find("diffusion_model.c").?.format);
    try testing.expectEqualStrings("", formats.find("d").?.format);
    try testing.expectEqual(1, formats.find("d").?.group());
    try testing.expectEqual(64, formats.find("e").?.group());
    try testing.expectEqual(null, formats.find("b"));
    for ([_][]const u8{ "", "[]", "{", "{\"layers\":[]}", "{\"layers\":{\"a\":1}}" }) |text| {
        try testing.expectError(error.BadJson, formats.add(arena.allocator(), text));
    }
    try testing.expectError(error.BadJson, formatOf(arena.allocator(), "{\"format\":1}"));
    try testing.expectEqualStrings("", (try formatOf(arena.allocator(), "{}")).format);
    const deep = "{\"a\":" ++ "[" ** 100_000;
    try testing.expectError(error.BadJson, formatOf(arena.allocator(), deep));
}

test "scales are one number or one per row, and finite" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const a = arena.allocator();
    const ones = [_]u8{ 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40 };
    var scale: safetensors.Tensor = .{ .name = "s", .dtype = "F32", .bytes = ones[0..4] };
    try testing.expectEqualSlices(f32, &.{ 1, 1, 1 }, (try rowScales(a, &scale, 3)).?);
    scale.rank = 1;
    try testing.expectEqualSlices(f32, &.{ 1, 1, 1 }, (try rowScales(a, &scale, 3)).?);
    scale.dimensions[0] = 2;
    scale.bytes = &ones;
    try testing.expectEqualSlices(f32, &.{ 1, 2 }, (try rowScales(a, &scale, 2)).?);
    try testing.expectEqual(null, try rowScales(a, &scale, 3));
    scale.rank = 2;
    try testing.expectEqualSlices(f32, &.{ 1, 2 }, (try rowScales(a, &scale, 2)).?);
    scale.dimensions[0..2].* = .{ 1, 2 };
    try testing.expectEqual(null, try rowScales(a, &scale, 2));
    scale = .{ .name = "s", .dtype = "BF16", .bytes = ones[6..8] };
    try testing.expectEqualSlices(f32, &.{2}, (try rowScales(a, &scale, 1)).?);
    scale.dtype = "F16";
    try testing.expectEqualSlices(f32, &.{2}, (try rowScales(a, &scale, 1)).?);
    scale.dtype = "F8_E8M0";
    try testing.expectEqual(null, try rowScales(a, &scale, 1));
    scale = .{ .name = "s", .dtype = "F16", .bytes = &.{ 0, 0x7c } };
    try testing.expectEqual(null, try rowScales(a, &scale, 1));
}
