//! Bytes as a file of weights that is mapped: a model's, whose layers may be quantized, and an
//! adapter's. The first bytes of an input choose the weight and what is asked of the file.

const std = @import("std");
const adapters = @import("../weights/adapters.zig");
const adapter_file = @import("../weights/adapter_file.zig");
const checkpoints = @import("../weights/checkpoint.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const header = @import("header.zig");
const Weight = @import("../weights/weight.zig").Weight;

pub fn runCheckpoint(gpa: std.mem.Allocator, bytes: []const u8) !void {
    if (bytes.len < 1) return;
    const path = try replaceFile(bytes[1..]);
    const is_named = bytes[0] & 1 != 0;
    const names: []const checkpoints.Name = if (is_named) &file_names else &.{};
    var diagnostics: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    const asked: checkpoints.Files = .{ .paths = &.{path}, .names = names };
    const io = std.Io.Threaded.global_single_threaded.io();
    var checkpoint = checkpoints.Checkpoint.open(gpa, io, asked, &interrupt, &diagnostics) catch |e|
        return header.checkRefusal(e, &diagnostics);
    defer checkpoint.close();
    _ = checkpoint.mappedBytes();
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    _ = try checkpoint.unusedNames(arena.allocator());
    for ([_][]const u8{ "a.weight", "b.weight" }) |key| {
        _ = checkpoint.formatOf(key) catch |err| {
            try header.checkRefusal(err, &diagnostics);
            return;
        };
        const scales = checkpoint.rowScales(key, 4) catch |err| {
            try header.checkRefusal(err, &diagnostics);
            return;
        };
        for (scales orelse continue) |scale| {
            try std.testing.expect(std.math.isFinite(scale));
        }
    }
}

pub fn runAdapter(gpa: std.mem.Allocator, bytes: []const u8) !void {
    if (bytes.len < 4) return;
    const side: u32 = if (bytes[0] & 1 != 0) 2 else 1;
    const weight: Weight = .{
        .name = "k",
        .layout = if (side > 1) .convolution else .matrix,
        .dtype = .f16,
        .shape = if (side > 1) .{ 4, side, side, 6 } else .{ 4, 6, 1, 1 },
        .source = &.{},
        .source_dtype = .f16,
    };
    const algorithms = std.enums.values(adapters.Algorithm);
    var target: adapters.Target = .{
        .component = .unet,
        .algorithm = algorithms[bytes[1] % algorithms.len],
        .scale = 1,
        .dora_norm = if (bytes[0] & 2 != 0) .merged else .original,
        .key = "k",
        .names = .initFill(""),
    };
    const wanted = std.mem.readInt(u16, bytes[2..4], .little);
    for (std.enums.values(adapters.Role), 0..) |role, i| {
        if (wanted >> @intCast(i) & 1 != 0) target.names.set(role, @tagName(role));
    }
    var diagnostics: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    const path = try replaceFile(bytes[4..]);
    const io = std.Io.Threaded.global_single_threaded.io();
    var file = adapter_file.AdapterFile.open(gpa, io, path, &interrupt, &diagnostics) catch |err|
        return header.checkRefusal(err, &diagnostics);
    defer file.close();
    const delta = file.delta(&target, &weight, 1) catch |err|
        return header.checkRefusal(err, &diagnostics);
    try adapter_file.expectInBounds(&delta, &weight);
}

// --- internal ---

const file_names = [_]checkpoints.Name{
    .{ .key = "a.weight", .name = "x.weight", .part_count = 2, .part_index = 1 },
    .{ .key = "b.weight", .name = "y.weight", .is_transposed = true },
};

var file_descriptor: ?std.posix.fd_t = null;
var path_buffer: [64]u8 = undefined;

/// A file in memory that has these bytes, by its path.
fn replaceFile(bytes: []const u8) ![]const u8 {
    const descriptor = file_descriptor orelse try std.posix.memfd_createZ("fuzz", 0);
    file_descriptor = descriptor;
    if (std.c.ftruncate(descriptor, 0) != 0) return error.CannotTruncate;
    var written: usize = 0;
    while (written < bytes.len) {
        const rest = bytes[written..];
        const count = std.c.pwrite(descriptor, rest.ptr, rest.len, @intCast(written));
        if (count <= 0) return error.CannotWrite;
        written += @intCast(count);
    }
    return std.fmt.bufPrint(&path_buffer, "/proc/self/fd/{d}", .{descriptor});
}
