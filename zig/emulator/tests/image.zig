//! Images that a driver refuses: where they lie, whose code they hold, and from which toolkit.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const fixtures = @import("../fixture.zig");
const Fixture = fixtures.Fixture;
const ok = fixtures.ok;
const expectEqual = std.testing.expectEqual;

const entry_bytes = 64;
const body_bytes = 32;

const Code = struct {
    kind: enum(u16) { ptx = 1, elf = 2 } = .elf,
    architecture: u32 = 90,
    major: u16 = 1,
    minor: u16 = 8,
    only_here: bool = false,
};

/// A fatbin with entries as nvcc writes them, their code left out.
fn write(buffer: []u8, codes: []const Code) void {
    @memset(buffer, 0);
    const whole = entry_bytes + body_bytes;
    std.mem.writeInt(u32, buffer[0..4], 0xba55ed50, .little);
    std.mem.writeInt(u16, buffer[4..6], 1, .little);
    std.mem.writeInt(u16, buffer[6..8], 16, .little);
    std.mem.writeInt(u64, buffer[8..16], whole * codes.len, .little);
    for (codes, 0..) |code, i| {
        const entry = buffer[16 + whole * i ..][0..entry_bytes];
        std.mem.writeInt(u16, entry[0..2], @intFromEnum(code.kind), .little);
        std.mem.writeInt(u16, entry[2..4], 0x101, .little);
        std.mem.writeInt(u32, entry[4..8], entry_bytes, .little);
        std.mem.writeInt(u64, entry[8..16], body_bytes, .little);
        std.mem.writeInt(u16, entry[24..26], code.minor, .little);
        std.mem.writeInt(u16, entry[26..28], code.major, .little);
        std.mem.writeInt(u32, entry[28..32], code.architecture, .little);
        const flags: u64 = if (code.only_here) 0x10_0011 else 0x11;
        std.mem.writeInt(u64, entry[40..48], flags, .little);
    }
}

test "an image must hold code for the GPU, of a toolkit that the driver knows" {
    var fixture: Fixture = try .initQuiet(1);
    defer fixture.deinit();
    defer fixture.emulator.bxl_emulator_set_driver(13000);
    defer fixture.emulator.bxl_emulator_set_capability(0);
    const newest: Code = .{};
    const older: Code = .{ .minor = 7 };
    const ptx: Code = .{ .kind = .ptx, .architecture = 80, .major = 9, .minor = 0 };
    const old_ptx: Code = .{ .kind = .ptx, .architecture = 80, .major = 8, .minor = 4 };
    const here: Code = .{ .only_here = true };
    const cases = [_]struct { u32, u32, []const Code, drivers.Result }{
        .{ 13000, 90, &.{newest}, .success },
        .{ 12090, 90, &.{newest}, .invalid_image },
        .{ 12000, 90, &.{older}, .success },
        // Newer minor numbers run older code, 8.6 and 8.9 that of 8.0; others do not.
        .{ 13000, 103, &.{.{ .architecture = 100 }}, .success },
        .{ 13000, 89, &.{.{ .architecture = 80 }}, .success },
        .{ 13000, 80, &.{.{ .architecture = 86 }}, .no_binary_for_gpu },
        .{ 13000, 100, &.{newest}, .no_binary_for_gpu },
        .{ 13000, 90, &.{here}, .success },
        .{ 13000, 120, &.{ newest, ptx }, .success },
        .{ 12090, 120, &.{ newest, ptx }, .unsupported_ptx_version },
        .{ 12040, 120, &.{ newest, old_ptx }, .success },
        .{ 12030, 120, &.{ newest, old_ptx }, .unsupported_ptx_version },
    };
    for (cases) |case| {
        var buffer: [16 + 2 * (entry_bytes + body_bytes)]u8 align(64) = undefined;
        write(&buffer, case[2]);
        fixture.emulator.bxl_emulator_set_driver(case[0]);
        fixture.emulator.bxl_emulator_set_capability(case[1]);
        var module: ?drivers.Module = null;
        try expectEqual(case[3], fixture.driver.cuModuleLoadData(&module, &buffer));
        if (module) |loaded| try ok(fixture.driver.cuModuleUnload(loaded));
    }
}

test "an image that is no fatbin, or not aligned, is refused" {
    var fixture: Fixture = try .initQuiet(2);
    defer fixture.deinit();
    // Whose code the image holds.
    defer fixture.emulator.bxl_emulator_set_capability(0);
    fixture.emulator.bxl_emulator_set_capability(90);
    var buffer: [16 + entry_bytes + body_bytes + 5]u8 align(64) = undefined;
    write(buffer[5..], &.{.{}});
    var module: ?drivers.Module = null;
    const load = fixture.driver.cuModuleLoadData;
    try expectEqual(.invalid_image, load(&module, buffer[5..]));
    const text: [64]u8 align(64) = @splat('x');
    try expectEqual(.invalid_image, load(&module, &text));
    write(&buffer, &.{.{}});
    try ok(load(&module, &buffer));
    // An entry that is longer than the image.
    std.mem.writeInt(u64, buffer[16 + 8 ..][0..8], 1 << 40, .little);
    try expectEqual(.invalid_image, load(&module, &buffer));
}

test "limits are those of the GPU that is emulated" {
    const kib = 1 << 10;
    for ([_][2]u32{ .{ 80, 163 }, .{ 86, 99 }, .{ 90, 227 }, .{ 100, 227 }, .{ 120, 99 } }) |case| {
        var fixture: Fixture = try .initQuiet(3);
        defer fixture.deinit();
        defer fixture.emulator.bxl_emulator_set_capability(0);
        fixture.emulator.bxl_emulator_set_capability(case[0]);
        const d = &fixture.driver;
        var most: c_int = 0;
        try ok(d.cuDeviceGetAttribute(&most, .max_shared_memory_per_block_optin, 0));
        try expectEqual(@as(c_int, @intCast(case[1] * kib)), most);
        var function: ?drivers.Function = null;
        try ok(d.cuModuleGetFunction(&function, fixture.module, "check_step"));
        const set = d.cuFuncSetAttribute;
        try ok(set(function.?, .max_dynamic_shared_size_bytes, most));
        const refused = set(function.?, .max_dynamic_shared_size_bytes, most + 1);
        try expectEqual(.invalid_value, refused);
    }
}

test "a block whose threads need more registers than there are is refused" {
    var fixture: Fixture = try .initQuiet(4);
    defer fixture.deinit();
    const d = &fixture.driver;
    var function: ?drivers.Function = null;
    try ok(d.cuModuleGetFunction(&function, fixture.module, "attention_64_128_f16"));
    var registers: c_int = 0;
    try ok(d.cuFuncGetAttribute(&registers, .num_regs, function.?));
    try std.testing.expect(registers > 200 and registers < 256);
    // 255 of 512 threads are twice what a multiprocessor has.
    const shape: Fixture.Shape = .{ .block = 512 };
    const result = try fixture.launchOn(fixture.stream, "attention_64_128_f16", shape, .{});
    try expectEqual(.launch_out_of_resources, result);
    const report = fixture.lastReport();
    try std.testing.expect(std.mem.indexOf(u8, report, "registers for each of 512") != null);
}
