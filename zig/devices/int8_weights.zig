//! The panels of a model's int8 weights (`weights/int8.zig`) on the CPU: rounded once, when the
//! model is loaded.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backend = @import("../backend.zig");
const huge_pages = @import("../system/huge_pages.zig");
const merge = backend.cpus.merge;
const options_file = @import("options.zig");
const pack = backend.cpus.pack_int8;
const Weight = @import("../weights.zig").Weight;

pub const Error = options_file.Error;

pub const Int8Weights = struct {
    gpa: ?Allocator = null,
    memory: []align(64) u8 = &.{},

    pub const Options = struct {
        /// All of the model's; those that stay wide are passed over.
        weights: []const *Weight,
        thread_count: usize,
        cancelled: *const std.atomic.Value(bool),
        /// Increased by the bytes that are made.
        copied_bytes: *std.atomic.Value(u64),
    };

    /// Gives every int8 weight its address.
    pub fn load(gpa: Allocator, io: Io, o: Options) Error!Int8Weights {
        var bytes: usize = 0;
        for (o.weights) |weight| {
            if (weight.dtype == .i8) bytes += weight.copyBytes();
        }
        if (bytes == 0) return .{};
        var int8: Int8Weights = .{ .gpa = gpa, .memory = try huge_pages.alloc(gpa, bytes) };
        errdefer int8.deinit();
        var maker: Maker = undefined;
        try maker.init(gpa, io, o.thread_count, o.cancelled);
        defer maker.deinit();
        var offset: usize = 0;
        for (o.weights) |weight| {
            if (weight.dtype != .i8) continue;
            const panels = int8.memory[offset..][0..weight.copyBytes()];
            offset += panels.len;
            try maker.make(weight, panels);
            weight.address = @intFromPtr(panels.ptr);
            _ = o.copied_bytes.fetchAdd(panels.len, .monotonic);
        }
        return int8;
    }

    pub fn deinit(int8: *Int8Weights) void {
        if (int8.gpa) |gpa| huge_pages.free(gpa, int8.memory);
        int8.* = .{};
    }
};

/// Rounds weights on the host's cores.
const Maker = struct {
    gpa: Allocator,
    packer: pack.Packer,
    merger: merge.Merger,

    /// Must not move.
    fn init(
        maker: *Maker,
        gpa: Allocator,
        io: Io,
        thread_count: usize,
        cancelled: *const std.atomic.Value(bool),
    ) Error!void {
        maker.gpa = gpa;
        maker.packer.init(gpa, io, thread_count, null, cancelled) catch |err| return failure(err);
        errdefer maker.packer.deinit();
        maker.merger.init(gpa, io, thread_count, null, cancelled) catch |err| return failure(err);
    }

    fn deinit(maker: *Maker) void {
        maker.merger.deinit();
        maker.packer.deinit();
    }

    fn make(maker: *Maker, weight: *const Weight, panels: []u8) Error!void {
        const source = weight.matrix();
        const group = weight.int8_group;
        if (pack.isPlain(source)) return maker.packer.pack(source, group, panels);
        // Transposed in its file, or between the places of its elements.
        const numbers = try maker.gpa.alloc(f32, weight.elementCount());
        defer maker.gpa.free(numbers);
        const bytes = std.mem.sliceAsBytes(numbers);
        const out: merge.Output = .{ .bytes = bytes, .dtype = .f32, .scale = 1 };
        maker.merger.merge(source, weight.shape[1], &.{}, out) catch |err| switch (err) {
            error.Overflow => unreachable, // f32 has all numbers of files
            error.Cancelled => return error.Cancelled,
            error.OutOfMemory => return error.OutOfMemory,
        };
        const plain: @TypeOf(source) = .dense(bytes, .f32, source.rows, source.columns);
        return maker.packer.pack(plain, group, panels);
    }
};

fn failure(err: anyerror) Error {
    return if (err == error.OutOfMemory) error.OutOfMemory else error.ThreadsUnavailable;
}
