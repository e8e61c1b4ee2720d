//! The report for `doctor` on the emulated driver: two GPUs, with and without direct copies.

const std = @import("std");
const gpu_report = @import("gpu_report.zig");
const library_fixture = @import("../emulator/library_fixture.zig");
const fixtures = @import("../emulator/fixture.zig");

const peer_limit_ms = 60_000;

test "GPUs, libraries and copies between every pair are told" {
    const chosen = std.c.getenv("BASEDXL_EMULATOR_GPU");
    const emulated = if (chosen) |name| std.mem.span(name) else "sm_90";
    var fixture: fixtures.Fixture = try .init(1);
    defer fixture.deinit();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = arena.allocator();
    defer fixture.emulator.bxl_emulator_set_peers(true);
    for ([_]bool{ true, false }) |has_peers| {
        fixture.emulator.bxl_emulator_set_peers(has_peers);
        const text = try gpu_report.write(a, std.testing.io, .{
            .emulated = library_fixture.library_path,
        }, .{}, peer_limit_ms);
        const report = try std.json.parseFromSliceLeaky(gpu_report.Report, a, text, .{});
        for (report.libraries) |library| {
            try std.testing.expectEqualStrings("", library.what);
            try std.testing.expect(library.version.?.len > 0);
            try std.testing.expect(std.mem.endsWith(u8, library.path.?, ".so"));
        }
        try std.testing.expectEqual(@as(usize, 2), report.gpus.len);
        for (report.gpus) |gpu| {
            try std.testing.expectEqualStrings(emulated, gpu.architecture.?);
            try std.testing.expect(gpu.free_bytes.? <= gpu.memory_bytes.?);
        }
        try std.testing.expectEqual(@as(usize, 2), report.peers.len);
        for (report.peers) |peer| {
            try std.testing.expectEqualStrings("", peer.what);
            try std.testing.expectEqual(has_peers, peer.direct);
            try std.testing.expect(peer.bytes_per_second.? > 0);
            try std.testing.expectEqual(peer.from, 1 - peer.to);
        }
    }
    // Nothing stays behind.
    var free: usize = 0;
    var total: usize = 0;
    try fixture.use();
    try fixtures.ok(fixture.driver.cuMemGetInfo_v2(&free, &total));
    try std.testing.expectEqual(total, free);
}

test "a GPU without room for the copy is told of" {
    var fixture: fixtures.Fixture = try .init(2);
    defer fixture.deinit();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    fixture.emulator.bxl_emulator_set_memory(1 << 20);
    defer fixture.emulator.bxl_emulator_set_memory(24 << 30);
    const report = try gpu_report.collect(arena.allocator(), std.testing.io, .{
        .emulated = library_fixture.library_path,
    }, .{}, peer_limit_ms);
    for (report.peers) |peer| {
        const error_name = "CUDA_ERROR_OUT_OF_MEMORY";
        try std.testing.expect(std.mem.indexOf(u8, peer.what, error_name) != null);
    }
}
