//! What tests of cuBLASLt, cuDNN and NCCL need beside the driver's fixture: numbers of every type
//! in device memory, the libraries as the product opens them, and how far results are off.

const std = @import("std");
const AlgorithmCache = @import("../backend/cuda/autotune.zig").AlgorithmCache;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;
const libraries = @import("../nvidia/libraries.zig");
pub const library_path = std.fmt.comptimePrint("{s}", .{@import("emulator").library_path});
const fixtures = @import("fixture.zig");
const ok = fixtures.ok;

pub const workspace_bytes = 1 << 20;

pub const LibraryFixture = struct {
    arena: std.heap.ArenaAllocator,
    fixture: fixtures.Fixture,
    libraries: libraries.Libraries,
    algorithms: *AlgorithmCache,
    diagnostics: Diagnostics = .{},
    workspace: usize,

    /// `folder` keeps choices; null for none.
    pub fn init(seed: u64, folder: ?[]const u8) !LibraryFixture {
        return initOn(0, seed, folder);
    }

    pub fn initOn(device: c_int, seed: u64, folder: ?[]const u8) !LibraryFixture {
        var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
        errdefer arena.deinit();
        var fixture: fixtures.Fixture = try .initOn(device, seed);
        errdefer fixture.deinit();
        var diagnostics: Diagnostics = .{};
        const a = arena.allocator();
        const source: libraries.Source = .{ .emulated = library_path };
        const opened = try libraries.open(a, std.testing.io, source, .{}, &diagnostics);
        const choices = try AlgorithmCache.open(std.testing.allocator, std.testing.io, folder, .{
            .library = "test",
            .version = 1,
            .gpu_name = "emulated",
        });
        return .{
            .arena = arena,
            .fixture = fixture,
            .libraries = opened,
            .algorithms = choices,
            .workspace = try fixture.alloc(u8, workspace_bytes),
        };
    }

    pub fn deinit(l: *LibraryFixture) void {
        l.algorithms.close();
        l.fixture.deinit();
        l.arena.deinit();
    }

    /// Random numbers of a type on the device, and as f32 what the device has of them.
    pub fn random(
        l: *LibraryFixture,
        prng: std.Random,
        dtype: DType,
        count: usize,
    ) !struct { usize, []f32 } {
        const values = try l.arena.allocator().alloc(f32, count);
        for (values) |*value| value.* = prng.floatNorm(f32);
        return .{ try l.upload(dtype, values), values };
    }

    /// Rounds `values` to the type, in place as well.
    pub fn upload(l: *LibraryFixture, dtype: DType, values: []f32) !usize {
        const bytes = try l.arena.allocator().alloc(u8, values.len * dtype.size());
        for (values, 0..) |*value, i| switch (dtype) {
            .f32 => std.mem.writeInt(u32, bytes[i * 4 ..][0..4], @bitCast(value.*), .little),
            .f16 => {
                const rounded: f16 = @floatCast(value.*);
                value.* = rounded;
                std.mem.writeInt(u16, bytes[i * 2 ..][0..2], @bitCast(rounded), .little);
            },
            .bf16 => {
                // Cut, not rounded: a test's input may be any number.
                const bits: u32 = @as(u32, @bitCast(value.*)) & 0xffff_0000;
                value.* = @bitCast(bits);
                std.mem.writeInt(u16, bytes[i * 2 ..][0..2], @intCast(bits >> 16), .little);
            },
            else => unreachable,
        };
        return l.fixture.upload(u8, bytes);
    }

    /// After all that the stream holds.
    pub fn download(l: *LibraryFixture, dtype: DType, address: usize, count: usize) ![]f32 {
        try ok(l.fixture.synchronize());
        const bytes = try l.arena.allocator().alloc(u8, count * dtype.size());
        try l.fixture.download(u8, address, bytes);
        const values = try l.arena.allocator().alloc(f32, count);
        for (values, 0..) |*value, i| value.* = switch (dtype) {
            .f32 => @bitCast(std.mem.readInt(u32, bytes[i * 4 ..][0..4], .little)),
            .f16 => @as(f16, @bitCast(std.mem.readInt(u16, bytes[i * 2 ..][0..2], .little))),
            .bf16 => @bitCast(@as(u32, std.mem.readInt(u16, bytes[i * 2 ..][0..2], .little)) << 16),
            else => unreachable,
        };
        return values;
    }
};

/// One rounding to the type: half a unit of the last place, relative to the whole.
pub fn tolerance(dtype: DType) f64 {
    return switch (dtype) {
        .f16 => 1.0 / 2048.0,
        .bf16 => 1.0 / 256.0,
        // Sums of up to a thousand terms in f32.
        else => 1e-5,
    };
}

/// ||a - b|| / ||b||; not a number where `a` has one.
pub fn relativeError(a: []const f32, b: []const f64) f64 {
    var difference: f64 = 0;
    var norm: f64 = 0;
    for (a, b) |x, y| {
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    return @sqrt(difference / @max(norm, 1e-30));
}

pub fn expectClose(dtype: DType, ours: []const f32, expected: []const f64) !void {
    const off = relativeError(ours, expected);
    if (off <= tolerance(dtype)) return;
    std.debug.print("relative L2 {e} in {s}\n", .{ off, @tagName(dtype) });
    return error.TestUnexpectedResult;
}
