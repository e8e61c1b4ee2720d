//! The panels of a model's int8 weights (`weights/int8.zig`) on the CPU: rounded when the model is
//! loaded for the first time, and mapped from the cache folder by later starts.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const cache = @import("int8_cache.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const huge_pages = @import("../system/huge_pages.zig");
const Int8Maker = @import("../backend.zig").cpus.Int8Maker;
const MappedFile = @import("../weights/mapped_file.zig").MappedFile;
const Model = @import("../model.zig").Model;
const options_file = @import("options.zig");
const Weight = @import("../weights.zig").Weight;

pub const Error = options_file.Error;

/// Fewer are made sooner than they are found.
const cached_bytes_min = 64 << 20;

pub const Int8Weights = struct {
    made: ?Made = null,
    mapped: ?MappedFile = null,

    const Made = struct { gpa: Allocator, memory: []align(64) u8 };

    pub const Options = struct {
        model: *const Model,
        thread_count: usize,
        /// Null for none.
        cache_folder: ?[]const u8,
        /// Also set when a mapped page is lost.
        cancelled: *std.atomic.Value(bool),
        /// Increased by the bytes that are at hand.
        copied_bytes: *std.atomic.Value(u64),
    };

    /// Gives every int8 weight its address.
    pub fn load(gpa: Allocator, io: Io, o: Options) Error!Int8Weights {
        var bytes: usize = 0;
        for (o.model.weights) |weight| {
            if (weight.dtype == .i8) bytes += weight.copyBytes();
        }
        if (bytes == 0) return .{};
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        const folder = if (bytes >= cached_bytes_min) o.cache_folder else null;
        const key = cache.keyOf(o.model);
        const path = if (folder) |name| try cache.pathOf(arena.allocator(), name, &key) else "";
        if (path.len > 0) if (cache.open(io, path, &key, bytes, o.cancelled)) |file| {
            place(o.model.weights, @intFromPtr(cache.panelsOf(&file).ptr));
            _ = o.copied_bytes.fetchAdd(bytes, .monotonic);
            return .{ .mapped = file };
        };
        const memory = try huge_pages.alloc(gpa, bytes);
        errdefer huge_pages.free(gpa, memory);
        try make(gpa, io, o, memory);
        // What was read of files that have changed meanwhile is nobody's.
        if (path.len > 0 and !o.cancelled.load(.monotonic)) cache.save(io, path, &key, memory);
        return .{ .made = .{ .gpa = gpa, .memory = memory } };
    }

    pub fn deinit(int8: *Int8Weights, io: Io) void {
        if (int8.made) |made| huge_pages.free(made.gpa, made.memory);
        if (int8.mapped) |file| file.close(io);
        int8.* = .{};
    }

    /// Fails where the mapped panels have changed.
    pub fn checkUnchanged(
        int8: *const Int8Weights,
        io: Io,
        d: *Diagnostics,
    ) error{BadWeights}!void {
        if (int8.mapped) |*file| try file.checkUnchanged(io, d);
    }
};

/// Addresses of panels one behind the other.
fn place(weights: []const *Weight, first: usize) void {
    var address = first;
    for (weights) |weight| {
        if (weight.dtype != .i8) continue;
        weight.address = address;
        address += weight.copyBytes();
    }
}

fn make(gpa: Allocator, io: Io, o: Int8Weights.Options, memory: []align(64) u8) Error!void {
    var maker: Int8Maker = undefined;
    try maker.init(gpa, io, o.thread_count, o.cancelled);
    defer maker.deinit();
    place(o.model.weights, @intFromPtr(memory.ptr));
    for (o.model.weights) |weight| {
        if (weight.dtype != .i8) continue;
        const offset = weight.address - @intFromPtr(memory.ptr);
        maker.make(weight, memory[offset..][0..weight.copyBytes()]) catch |err| switch (err) {
            error.Overflow => unreachable, // f32 has all numbers of files
            else => |other| return other,
        };
        _ = o.copied_bytes.fetchAdd(weight.copyBytes(), .monotonic);
    }
}
