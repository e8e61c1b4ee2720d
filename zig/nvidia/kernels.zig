//! The CUDA kernels that the build compiled in, as one fatbin of all files of cuda/; none in a
//! build without nvcc. A driver older than their toolkit does not load them.

const std = @import("std");
const build_options = @import("build_options");
const table = @import("cuda_kernels");

/// First word of a fatbin (fatbinary_section.h).
pub const fatbin_magic = 0xba55ed50;

const placeholder: []align(64) const u8 = &placeholder_bytes;
const placeholder_bytes align(64) = "basedxl: no kernels".* ++ [1]u8{0} ** 45;

/// What cuModuleLoadData takes; in a build without nvcc a text that only the emulator takes.
pub const image: []align(64) const u8 = if (table.fatbin.len > 0) table.fatbin else placeholder;

/// The CUDA version of the nvcc that compiled them: 13000 for 13.0; 0 without kernels.
pub const toolkit: u32 = build_options.cuda_toolkit;

/// For the emulator.
pub fn isPlaceholder(bytes: [*]const u8) bool {
    return std.mem.eql(u8, bytes[0..placeholder.len], placeholder);
}

/// The architectures of the kernels, "" where there are none or what was embedded is no fatbin.
pub fn architectures() []const u8 {
    if (std.mem.readInt(u32, image[0..4], .little) != fatbin_magic) return "";
    return build_options.cuda_architectures;
}

/// The same with the driver that they need: "sm_80 sm_90a (CUDA 13.0, driver 580 or newer)".
pub fn describe(buffer: []u8) []const u8 {
    if (architectures().len == 0) return "";
    var need: [64]u8 = undefined;
    return std.fmt.bufPrint(buffer, "{s} (CUDA {d}.{d}, {s})", .{
        architectures(),
        toolkit / 1000,
        toolkit % 1000 / 10,
        driverText(&need, toolkit),
    }) catch architectures();
}

/// Whether a driver of this CUDA version loads kernels of a toolkit: machine code runs on every
/// driver of its CUDA's first number, and not on those before. 0 is unknown, and tried.
pub fn isLoadedBy(driver_version: u32, toolkit_version: u32) bool {
    if (driver_version == 0 or toolkit_version == 0) return true;
    return driver_version / 1000 >= toolkit_version / 1000;
}

/// The first driver of a toolkit's CUDA, as users know it: "driver 580 or newer".
pub fn driverText(buffer: []u8, toolkit_version: u32) []const u8 {
    const branch: ?u32 = switch (toolkit_version / 1000) {
        11 => 450,
        12 => 525,
        13 => 580,
        else => null,
    };
    const text = if (branch) |number|
        std.fmt.bufPrint(buffer, "driver {d} or newer", .{number})
    else
        std.fmt.bufPrint(buffer, "a driver of CUDA {d}", .{toolkit_version / 1000});
    return text catch "a newer driver";
}

test "a build without nvcc has no kernels, and says so" {
    try std.testing.expectEqualStrings("", architectures());
    var buffer: [128]u8 = undefined;
    try std.testing.expectEqualStrings("", describe(&buffer));
    try std.testing.expect(isPlaceholder(image.ptr));
}

test "machine code runs on drivers of its CUDA's first number, and newer ones" {
    for ([_][2]u32{ .{ 13000, 13000 }, .{ 13010, 13000 }, .{ 13000, 13020 }, .{ 12000, 12090 } }) |
        pair,
    | try std.testing.expect(isLoadedBy(pair[0], pair[1]));
    try std.testing.expect(!isLoadedBy(12090, 13000));
    try std.testing.expect(isLoadedBy(0, 13000));
    try std.testing.expect(isLoadedBy(12000, 0));
    var buffer: [64]u8 = undefined;
    const expect = std.testing.expectEqualStrings;
    try expect("driver 580 or newer", driverText(&buffer, 13000));
    try expect("driver 525 or newer", driverText(&buffer, 12090));
    try expect("a driver of CUDA 14", driverText(&buffer, 14000));
}
