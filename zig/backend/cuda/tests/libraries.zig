//! Gives a pair's queue the emulated cuBLASLt and cuDNN, for operations that need their products.

const std = @import("std");
const libraries = @import("../../../nvidia/libraries.zig");
const AlgorithmCaches = @import("../library_handles.zig").AlgorithmCaches;
const Pair = @import("support.zig").Pair;

pub const library_path = std.fmt.comptimePrint("{s}", .{@import("emulator").library_path});

pub const Opened = struct {
    arena: std.heap.ArenaAllocator,
    measured: AlgorithmCaches,

    /// `deinit` comes after the pair's queue, which closes the products.
    pub fn init(pair: *Pair) !Opened {
        var memory: std.heap.ArenaAllocator = .init(std.testing.allocator);
        errdefer memory.deinit();
        const arena = memory.allocator();
        const found = try arena.create(libraries.Libraries);
        const source: libraries.Source = .{ .emulated = library_path };
        found.* = try libraries.open(arena, std.testing.io, source, .{}, pair.cuda.diagnostics);
        const gpa = std.testing.allocator;
        const io = std.testing.io;
        const measured = try AlgorithmCaches.open(gpa, io, null, found, "emulated");
        errdefer measured.close();
        pair.cuda.libraries = try .open(gpa, .{
            .driver = pair.cuda.driver,
            .libraries = found,
            .measured = measured,
            .diagnostics = pair.cuda.diagnostics,
        });
        return .{ .arena = memory, .measured = measured };
    }

    /// The queue must make no more products.
    pub fn deinit(opened: Opened) void {
        opened.measured.close();
        opened.arena.deinit();
    }
};
