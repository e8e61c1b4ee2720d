//! Sentences about weights in 8 bits: whether they stay so in memory, and which are in int8.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Component = @import("../weights/component.zig").Component;
const DType = @import("../tensor.zig").DType;
const int8 = @import("../weights.zig").int8;
const Model = @import("../model.zig").Model;
const Weight = @import("../weights.zig").Weight;

/// One sentence, ended by a 0 byte, for each component with such weights. On GPUs, after the
/// weights have been placed; `activation` is the type to which others are widened there, null on
/// the CPU.
pub fn write(
    arena: Allocator,
    model: *const Model,
    activation: ?DType,
) Allocator.Error![]const u8 {
    var text: std.Io.Writer.Allocating = .init(arena);
    for (std.enums.values(Component)) |component| {
        const resident = if (model.residents.get(component)) |*r| r else continue;
        writeOne(&text.writer, component, resident.weights.items, activation) catch
            return error.OutOfMemory;
    }
    return text.written();
}

// --- internal ---

fn writeOne(
    w: *std.Io.Writer,
    component: Component,
    weights: []const *Weight,
    activation: ?DType,
) std.Io.Writer.Error!void {
    var kept_bytes: u64 = 0;
    var widened_count: u64 = 0;
    var int8_bytes: u64 = 0;
    for (weights) |weight| {
        if (weight.dtype == .i8) {
            int8_bytes += if (activation == null)
                weight.copyBytes()
            else
                int8.rowBytes(weight.shape[0], weight.shape[1]);
            continue;
        }
        if (!weight.source_dtype.isF8() or weight.layout == .vector) continue;
        const is_kept = activation == null or weight.kept_f8 != null;
        const count = weight.elementCount();
        if (is_kept) kept_bytes += count else widened_count += count;
    }
    if (int8_bytes > 0) {
        const sentence = "{s}: linear layers in int8 ({f}).\x00";
        try w.print(sentence, .{ nameOf(component), size(int8_bytes) });
    }
    if (kept_bytes > 0) {
        try w.print("{s}: weights in 8 bits ({f}).\x00", .{ nameOf(component), size(kept_bytes) });
    } else if (widened_count > 0) {
        const dtype = activation.?;
        const sentence = "{s}: 8-bit weights widened to {t} ({f}); GPUs of compute capability " ++
            "8.9 or newer keep them.\x00";
        const bytes = size(widened_count * dtype.size());
        try w.print(sentence, .{ nameOf(component), dtype, bytes });
    }
}

fn nameOf(component: Component) []const u8 {
    return switch (component) {
        .text_encoder => "Text encoder",
        .text_encoder_2 => "Second text encoder",
        .unet => "UNet",
        .vae => "VAE",
        .taesd => "TAESD",
    };
}

fn size(bytes: u64) Size {
    return .{ .bytes = bytes };
}

/// In GiB, or in MiB where those would be less than a tenth.
const Size = struct {
    bytes: u64,

    pub fn format(self: Size, w: *std.Io.Writer) std.Io.Writer.Error!void {
        const mebibytes = @as(f64, @floatFromInt(self.bytes)) / (1 << 20);
        if (mebibytes >= 102.4) return w.print("{d:.1} GiB", .{mebibytes / 1024});
        try w.print("{d:.1} MiB", .{mebibytes});
    }
};

fn expectNote(expected: []const u8, weights: []const *Weight, activation: ?DType) !void {
    var buffer: [256]u8 = undefined;
    var w: std.Io.Writer = .fixed(&buffer);
    try writeOne(&w, .unet, weights, activation);
    try std.testing.expectEqualStrings(expected, w.buffered());
}

test "weights in 8 bits are counted as they are kept" {
    var weight: Weight = .{
        .name = "w",
        .layout = .matrix,
        .dtype = .f8_e4m3,
        .shape = .{ 1 << 20, 1 << 11, 1, 1 },
        .source = &.{},
        .source_dtype = .f8_e4m3,
    };
    const widened = "; GPUs of compute capability 8.9 or newer keep them.\x00";
    try expectNote("UNet: weights in 8 bits (2.0 GiB).\x00", &.{&weight}, null);
    try expectNote("UNet: 8-bit weights widened to f16 (4.0 GiB)" ++ widened, &.{&weight}, .f16);
    weight.kept_f8 = .{ .index = 0 };
    weight.shape[1] = 2;
    try expectNote("UNet: weights in 8 bits (2.0 MiB).\x00", &.{&weight}, .bf16);
    weight.layout = .vector;
    try expectNote("", &.{&weight}, .f16);
    weight.layout = .matrix;
    weight.source_dtype = .f16;
    try expectNote("", &.{&weight}, .f16);
}
