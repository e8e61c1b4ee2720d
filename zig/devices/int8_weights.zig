//! The panels of a model's int8 weights (`weights/int8.zig`) on the CPU: rounded once, when the
//! model is loaded.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const huge_pages = @import("../system/huge_pages.zig");
const Int8Maker = @import("../backend.zig").cpus.Int8Maker;
const options_file = @import("options.zig");
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
        var maker: Int8Maker = undefined;
        try maker.init(gpa, io, o.thread_count, o.cancelled);
        defer maker.deinit();
        var offset: usize = 0;
        for (o.weights) |weight| {
            if (weight.dtype != .i8) continue;
            const panels = int8.memory[offset..][0..weight.copyBytes()];
            offset += panels.len;
            maker.make(weight, panels) catch |err| switch (err) {
                error.Overflow => unreachable, // f32 has all numbers of files
                else => |other| return other,
            };
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
