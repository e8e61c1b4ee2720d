//! What diffusers computes with the tiny model, as tests/reference/thin.py keeps it: of a long
//! tensor `name%N`, every N-th element, and `name#B`, the 2-norms of blocks of B elements. Inputs
//! are formulas.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const safetensors = @import("../weights/safetensors.zig");

const file align(8) = @embedFile("golden_outputs").*;

pub const Error = Allocator.Error || error{NoRecord};

pub const Records = struct {
    tensors: []const safetensors.Tensor,

    pub fn open(arena: Allocator) Error!Records {
        var d: Diagnostics = .{};
        const header = safetensors.parse(arena, "golden", &file, &d) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.BadWeights => return error.NoRecord,
        };
        return .{ .tensors = header.tensors };
    }

    /// The relative L2 error of `ours`, a whole tensor, over the recorded elements, or over the
    /// norms where that is larger.
    pub fn errorOf(records: *const Records, name: []const u8, ours: []const f32) Error!f64 {
        var found: ?f64 = null;
        for (records.tensors) |*tensor| {
            if (!std.mem.startsWith(u8, tensor.name, name)) continue;
            const mark = tensor.name[name.len..];
            const theirs = std.mem.bytesAsSlice(f32, tensor.bytes);
            const off = if (mark.len == 0)
                differenceOf(ours, theirs, 1)
            else switch (mark[0]) {
                '%' => differenceOf(ours, theirs, try numberOf(mark)),
                '#' => normDifferenceOf(ours, theirs, try numberOf(mark)),
                else => continue,
            };
            // Written so that NaN stays.
            if (!(off <= found orelse 0)) found = off;
        }
        return found orelse error.NoRecord;
    }
};

/// Numbers from -amplitude to amplitude, as `formula_input` of thin.py makes them.
pub fn formulaInput(arena: Allocator, name: []const u8, count: usize, amplitude: f32) ![]f32 {
    const values = try arena.alloc(f32, count);
    var seed: u32 = 0x811c9dc5;
    for (name) |byte| seed = (seed ^ byte) *% 0x01000193;
    for (values, 0..) |*value, i| {
        var h: u32 = @as(u32, @intCast(i)) *% 0x9e3779b9 +% seed;
        h = (h ^ (h >> 16)) *% 0x85ebca6b;
        h = (h ^ (h >> 13)) *% 0xc2b2ae35;
        h ^= h >> 16;
        value.* = (@as(f32, @floatFromInt(h >> 8)) * 0x1p-23 - 1) * amplitude;
    }
    return values;
}

/// ||ours - theirs|| / ||theirs||; not a number where `ours` has one.
pub fn relativeL2(ours: []const f32, theirs: []const f32) f64 {
    return differenceOf(ours, theirs, 1);
}

// --- internal ---

fn numberOf(mark: []const u8) Error!usize {
    return std.fmt.parseInt(usize, mark[1..], 10) catch error.NoRecord;
}

fn differenceOf(ours: []const f32, theirs: []align(1) const f32, stride: usize) f64 {
    if ((ours.len + stride - 1) / stride != theirs.len) return std.math.nan(f64);
    var difference: f64 = 0;
    var total: f64 = 0;
    for (theirs, 0..) |expected, i| {
        const off = @as(f64, ours[i * stride]) - expected;
        difference += off * off;
        total += @as(f64, expected) * expected;
    }
    return @sqrt(difference / total);
}

fn normDifferenceOf(ours: []const f32, theirs: []align(1) const f32, block: usize) f64 {
    if ((ours.len + block - 1) / block != theirs.len) return std.math.nan(f64);
    var difference: f64 = 0;
    var total: f64 = 0;
    for (theirs, 0..) |expected, i| {
        var sum: f64 = 0;
        for (ours[i * block .. @min(ours.len, (i + 1) * block)]) |x| sum += @as(f64, x) * x;
        const off = @as(f32, @floatCast(@sqrt(sum))) - expected;
        difference += @as(f64, off) * off;
        total += @as(f64, expected) * expected;
    }
    return @sqrt(difference / total);
}
