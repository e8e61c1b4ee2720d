//! Makes int8 weights on the host's cores: of what files have, and with the deltas of adapters; and
//! the numbers that a file's integers stand for. A weight with deltas is rounded anew: the step of
//! its scale is what errors are measured in, whatever the numbers were before.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const merging = @import("merge.zig");
const pack_int8 = @import("pack_int8.zig");
const weights = @import("../../weights.zig");
const Delta = weights.deltas.Delta;
const Matrix = weights.Matrix;
const Weight = weights.Weight;

pub const Error = merging.Error;

pub const Int8Maker = struct {
    gpa: Allocator,
    merger: merging.Merger,
    packer: pack_int8.Packer,
    /// Of `matrixOf`, and what `merge` rounds.
    numbers: []f32 = &.{},
    merged: []f32 = &.{},
    /// Of `matrixOf` and `rows`.
    panels: []align(64) u8 = &.{},

    /// Must not move.
    pub fn init(
        maker: *Int8Maker,
        gpa: Allocator,
        io: Io,
        thread_count: usize,
        cancelled: *const std.atomic.Value(bool),
    ) error{ OutOfMemory, ThreadsUnavailable }!void {
        maker.* = .{ .gpa = gpa, .merger = undefined, .packer = undefined };
        maker.packer.init(gpa, io, thread_count, null, cancelled) catch |err| return failure(err);
        errdefer maker.packer.deinit();
        maker.merger.init(gpa, io, thread_count, null, cancelled) catch |err| return failure(err);
    }

    pub fn deinit(maker: *Int8Maker) void {
        maker.merger.deinit();
        maker.packer.deinit();
        maker.gpa.free(maker.numbers);
        maker.gpa.free(maker.merged);
        maker.gpa.free(maker.panels);
    }

    /// The panels of a weight as its file has it: integers unchanged, numbers rounded.
    pub fn make(maker: *Int8Maker, weight: *const Weight, panels: []u8) Error!void {
        const source = weight.matrix();
        if (pack_int8.isPlain(source)) {
            return maker.packer.pack(source, weight.int8_group, panels);
        }
        // Transposed in its file, or between the places of its elements.
        return maker.merge(weight, &.{}, panels);
    }

    /// The panels of a weight with deltas.
    pub fn merge(
        maker: *Int8Maker,
        weight: *const Weight,
        deltas: []const Delta,
        panels: []u8,
    ) Error!void {
        const base = try maker.matrixOf(weight);
        const merged = try resized(f32, maker.gpa, &maker.merged, weight.elementCount());
        const bytes = std.mem.sliceAsBytes(merged);
        const out: merging.Output = .{ .bytes = bytes, .dtype = .f32, .scale = 1 };
        try maker.merger.merge(base, weight.inputs().channels, deltas, out);
        const plain: Matrix = .dense(bytes, .f32, base.rows, base.columns);
        return maker.packer.pack(plain, weight.int8_group, panels);
    }

    /// The weight's numbers: those of the file, or in f32 what its integers stand for, valid until
    /// the next call.
    pub fn matrixOf(maker: *Int8Maker, weight: *const Weight) Error!Matrix {
        const source = weight.matrix();
        if (source.dtype != .i8) return source;
        const gpa = maker.gpa;
        const numbers = try resized(f32, gpa, &maker.numbers, weight.elementCount());
        const panels = try maker.panelsFor(weight);
        const group = weight.int8_group;
        try maker.packer.pack(source, group, panels);
        try maker.packer.unpack(panels, source.columns, group, numbers);
        return .dense(std.mem.sliceAsBytes(numbers), .f32, source.rows, source.columns);
    }

    /// What GPUs read of a weight with deltas (`weights.int8.rowBytes`).
    pub fn rows(
        maker: *Int8Maker,
        weight: *const Weight,
        deltas: []const Delta,
        out: []u8,
    ) Error!void {
        const panels = try maker.panelsFor(weight);
        if (deltas.len == 0) try maker.make(weight, panels) else {
            try maker.merge(weight, deltas, panels);
        }
        weights.int8.toRows(panels, weight.shape[0], weight.shape[1], out);
    }

    // --- internal ---

    fn panelsFor(maker: *Int8Maker, weight: *const Weight) Error![]align(64) u8 {
        const bytes = weights.int8.weightBytes(weight.shape[0], weight.shape[1]);
        if (maker.panels.len < bytes) {
            maker.gpa.free(maker.panels);
            maker.panels = &.{};
            maker.panels = try maker.gpa.alignedAlloc(u8, .@"64", bytes);
        }
        return maker.panels[0..bytes];
    }
};

/// The first `count` of `memory`, which is made larger where it is too small.
fn resized(comptime T: type, gpa: Allocator, memory: *[]T, count: usize) Allocator.Error![]T {
    if (memory.len < count) {
        gpa.free(memory.*);
        memory.* = &.{};
        memory.* = try gpa.alloc(T, count);
    }
    return memory.*[0..count];
}

fn failure(err: anyerror) error{ OutOfMemory, ThreadsUnavailable } {
    return if (err == error.OutOfMemory) error.OutOfMemory else error.ThreadsUnavailable;
}
