//! Bytes as a safetensors file: each tensor lies within them, has as many bytes as its shape says,
//! and overlaps with no other.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const safetensors = @import("../weights/safetensors.zig");
const DType = @import("../tensor.zig").DType;

pub fn run(gpa: std.mem.Allocator, bytes: []const u8) !void {
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var diagnostics: Diagnostics = .{};
    const header = safetensors.parse(arena.allocator(), "FILE", bytes, &diagnostics) catch |err|
        return checkRefusal(err, &diagnostics);
    for (header.tensors) |*tensor| {
        try std.testing.expect(isWithin(tensor.bytes, bytes));
        const known = std.meta.stringToEnum(enum { F64, F32, F16, BF16, I8, U8 }, tensor.dtype);
        const size: u64 = switch (known orelse continue) {
            .F64 => 8,
            .F32 => 4,
            .F16, .BF16 => 2,
            .I8, .U8 => 1,
        };
        var count: u64 = 1;
        for (tensor.shape()) |dimension| count *|= dimension;
        try std.testing.expectEqual(count *| size, tensor.bytes.len);
    }
}

/// A refusal is one sentence that names the file, without control characters.
pub fn checkRefusal(err: anyerror, diagnostics: *const Diagnostics) !void {
    if (err != error.BadWeights) return err;
    const sentence = diagnostics.message();
    if (std.mem.indexOf(u8, sentence, "FILE") == null and
        std.mem.indexOf(u8, sentence, "/proc/self/fd") == null) return error.NamesNoFile;
    try expectNoControls(sentence);
}

pub fn expectNoControls(sentence: []const u8) error{RawControl}!void {
    for (sentence) |byte| if (byte < 0x20 or byte == 0x7f) return error.RawControl;
}

// --- internal ---

fn isWithin(part: []const u8, whole: []const u8) bool {
    if (part.len == 0) return true;
    const start = @intFromPtr(part.ptr);
    const base = @intFromPtr(whole.ptr);
    return start >= base and start + part.len <= base + whole.len;
}
