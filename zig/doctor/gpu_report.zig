//! `doctor`'s report of GPUs, as JSON: the vendor's libraries with their paths, every GPU with its
//! memory, and a copy between every pair. Nothing here fails: unavailable facts are null, with a
//! sentence. A driver that hangs blocks this function: the caller runs it in a child process; only
//! copies have a time limit.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const libraries = @import("../nvidia/libraries.zig");
const drivers = @import("../nvidia/driver.zig");
const peer_check = @import("../transport.zig").peer_check;
const Driver = drivers.Driver;

/// Large enough that the launch latency is negligible.
const copy_bytes = 64 << 20;

pub const Library = struct {
    name: []const u8,
    needed_for: []const u8,
    version: ?[]const u8 = null,
    path: ?[]const u8 = null,
    /// Problem and advice, without a full stop; both "" where there is no problem.
    what: []const u8 = "",
    advice: []const u8 = "",
    is_absent: bool = false,
};

pub const Gpu = struct {
    index: u32,
    name: ?[]const u8 = null,
    /// "sm_90"
    architecture: ?[]const u8 = null,
    memory_bytes: ?u64 = null,
    free_bytes: ?u64 = null,
};

pub const Peer = struct {
    from: u32,
    to: u32,
    direct: bool,
    bytes_per_second: ?f64,
    /// Problem and advice, as for libraries.
    what: []const u8 = "",
    advice: []const u8 = "",
};

pub const Report = struct {
    libraries: []const Library,
    gpus: []const Gpu,
    /// Every ordered pair, up to one that stalled.
    peers: []const Peer,
};

/// The report as JSON, in `arena`.
pub fn write(
    arena: Allocator,
    io: Io,
    source: libraries.Source,
    environment: libraries.Environment,
    peer_limit_ms: u32,
) Allocator.Error![]const u8 {
    const report = try collect(arena, io, source, environment, peer_limit_ms);
    return std.json.Stringify.valueAlloc(arena, report, .{});
}

pub fn collect(
    arena: Allocator,
    io: Io,
    source: libraries.Source,
    environment: libraries.Environment,
    peer_limit_ms: u32,
) Allocator.Error!Report {
    const found = try libraries.search(arena, io, source, environment);
    const list = try arena.dupe(Library, &.{
        try describe(arena, found.driver, "the driver", "everything"),
        try describe(arena, found.cublaslt, "cuBLASLt", "matrix products"),
        try describe(arena, found.cudnn, "cuDNN", "convolutions"),
        try describe(arena, found.nccl, "NCCL", "several machines, GPUs without direct copies"),
    });
    const driver = found.driver.table orelse
        return .{ .libraries = list, .gpus = &.{}, .peers = &.{} };
    const gpus = try listGpus(arena, &driver);
    return .{
        .libraries = list,
        .gpus = gpus,
        .peers = try listPeers(arena, &driver, @intCast(gpus.len), peer_limit_ms),
    };
}

// --- internal ---

fn describe(
    arena: Allocator,
    outcome: anytype,
    name: []const u8,
    needed_for: []const u8,
) Allocator.Error!Library {
    var library: Library = .{
        .name = name,
        .needed_for = needed_for,
        .what = outcome.what,
        .advice = outcome.advice,
        .is_absent = outcome.is_absent,
    };
    if (outcome.table) |table| {
        var buffer: [32]u8 = undefined;
        const version = libraries.versionText(&buffer, @TypeOf(table), outcome.version);
        library.version = try arena.dupe(u8, version);
        library.path = outcome.path;
    }
    return library;
}

fn listGpus(arena: Allocator, driver: *const Driver) Allocator.Error![]const Gpu {
    const names = drivers.listGpus(driver);
    const gpus = try arena.alloc(Gpu, names.count);
    for (gpus, 0..) |*gpu, i| {
        gpu.* = .{ .index = @intCast(i), .name = try arena.dupe(u8, names.name(i)) };
        const device: drivers.Device = @intCast(i);
        var major: c_int = 0;
        var minor: c_int = 0;
        const ask = driver.cuDeviceGetAttribute;
        if (ask(&major, .compute_capability_major, device) == .success and
            ask(&minor, .compute_capability_minor, device) == .success)
        {
            gpu.architecture = try std.fmt.allocPrint(arena, "sm_{d}{d}", .{ major, minor });
        }
        var total: usize = 0;
        if (driver.cuDeviceTotalMem_v2(&total, device) == .success) gpu.memory_bytes = total;
        var context: ?drivers.Context = null;
        if (driver.cuDevicePrimaryCtxRetain(&context, device) != .success) continue;
        defer _ = driver.cuDevicePrimaryCtxRelease_v2(device);
        var free: usize = 0;
        if (driver.cuCtxSetCurrent(context) != .success) continue;
        defer _ = driver.cuCtxSetCurrent(null);
        if (driver.cuMemGetInfo_v2(&free, &total) == .success) gpu.free_bytes = free;
    }
    return gpus;
}

fn listPeers(
    arena: Allocator,
    driver: *const Driver,
    count: u32,
    limit_ms: u32,
) Allocator.Error![]const Peer {
    var peers: std.ArrayList(Peer) = .empty;
    // Retain the contexts, so that not every pair initialises its GPUs again.
    for (0..count) |i| {
        var context: ?drivers.Context = null;
        _ = driver.cuDevicePrimaryCtxRetain(&context, @intCast(i));
    }
    defer for (0..count) |i| {
        _ = driver.cuDevicePrimaryCtxRelease_v2(@intCast(i));
    };
    for (0..count) |from| for (0..count) |to| {
        if (from == to) continue;
        const outcome = peer_check.run(driver, @intCast(from), @intCast(to), .{
            .bytes = copy_bytes,
            .limit_ms = limit_ms,
        });
        var peer: Peer = .{
            .from = @intCast(from),
            .to = @intCast(to),
            .direct = outcome.is_direct,
            .bytes_per_second = null,
        };
        switch (outcome.verdict) {
            .fine => peer.bytes_per_second = outcome.bytes_per_second,
            .garbled => {
                peer.what = "The copy came to its end, but other bytes arrived";
                peer.advice = peer_check.advice;
            },
            .stalled => {
                const sentence = "The copy did not end within {d} s";
                const seconds = (limit_ms + 999) / 1000;
                peer.what = try std.fmt.allocPrint(arena, sentence, .{seconds});
                peer.advice = peer_check.advice;
            },
            .failed => {
                const name = driver.nameOf(outcome.result);
                peer.what = try std.fmt.allocPrint(arena, "The copy failed ({s})", .{name});
                peer.advice = "see in `nvidia-smi` whether other programs fill these GPUs";
            },
        }
        try peers.append(arena, peer);
        // Further calls would wait behind the copy that hangs.
        if (outcome.verdict == .stalled) return peers.items;
    };
    return peers.items;
}

test "a machine without a driver gets a report that says what to install" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const source: libraries.Source = .{ .emulated = "no/such/emulator.so" };
    const a = arena.allocator();
    const text = try write(a, std.testing.io, source, .{}, 1000);
    const parsed = try std.json.parseFromSliceLeaky(Report, a, text, .{});
    try std.testing.expectEqual(@as(usize, 4), parsed.libraries.len);
    for (parsed.libraries) |library| try std.testing.expect(library.what.len > 0);
    try std.testing.expectEqual(@as(usize, 0), parsed.gpus.len);
}
