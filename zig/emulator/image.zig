//! What the driver looks at in a device image before it takes it: where it lies, which GPUs its
//! code is for, and whether its toolkit is newer than the driver. The code itself is not read:
//! kernels are in this library.
//! Source of the layout: fatbinary_section.h, and images that nvcc 12.x and 13.0 write.

const std = @import("std");
const driver = @import("../nvidia/driver.zig");
const kernels = @import("../nvidia/kernels.zig");
const state = @import("state.zig");
const Result = driver.Result;

/// nvcc's own images are aligned so; the driver promises nothing for others.
const alignment = 8;

pub fn check(image: *const anyopaque) Result {
    const address = @intFromPtr(image);
    const bytes: [*]const u8 = @ptrCast(image);
    if (address % alignment != 0) {
        state.report("the image at 0x{x} is not aligned to {d} bytes", .{ address, alignment });
        return .invalid_image;
    }
    if (kernels.isPlaceholder(bytes)) return .success;
    const header = read(Header, bytes);
    if (header.magic != kernels.fatbin_magic or header.version != 1) return .invalid_image;
    return checkEntries(bytes[header.header_bytes..][0..header.bytes]);
}

// --- internal ---

const Header = extern struct { magic: u32, version: u16, header_bytes: u16, bytes: u64 };

const Entry = extern struct {
    kind: Kind,
    version: u16,
    header_bytes: u32,
    bytes: u64,
    compressed_bytes: u32,
    options: u32,
    /// Of PTX its version; of machine code the ABI's.
    minor: u16,
    major: u16,
    /// Ten times the compute capability.
    architecture: u32,
    name_offset: u32,
    name_bytes: u32,
    flags: u64,

    const Kind = enum(u16) { ptx = 1, elf = 2, _ };
    /// sm_90a: for this capability alone.
    const only_here = 0x10_0000;

    fn fits(entry: *const Entry) bool {
        if (entry.kind == .ptx) return entry.architecture <= state.gpu.capability;
        if (entry.flags & only_here != 0) return entry.architecture == state.gpu.capability;
        const is_same = entry.architecture / 10 == state.gpu.capability / 10;
        return is_same and entry.architecture <= state.gpu.capability;
    }

    fn isTooNew(entry: *const Entry) bool {
        const cuda_major = state.driver_version / 1000;
        const cuda_minor = state.driver_version % 1000 / 10;
        if (entry.kind == .elf) {
            const abi_max: u16 = if (cuda_major >= 13) 8 else 7;
            return entry.minor > abi_max;
        }
        // PTX 8.0 came with CUDA 12.0, 9.0 with 13.0.
        const ptx_major = cuda_major - 4;
        return entry.major > ptx_major or (entry.major == ptx_major and entry.minor > cuda_minor);
    }
};

/// Machine code for this GPU, else PTX.
fn checkEntries(all: []const u8) Result {
    var refused: Result = .no_binary_for_gpu;
    for ([_]Entry.Kind{ .elf, .ptx }) |kind| {
        var rest = all;
        while (rest.len >= @sizeOf(Entry)) {
            const entry = read(Entry, rest.ptr);
            const whole = entry.header_bytes + entry.bytes;
            if (entry.header_bytes < @sizeOf(Entry) or whole > rest.len) return .invalid_image;
            rest = rest[@intCast(whole)..];
            if (entry.kind != kind or !entry.fits()) continue;
            if (!entry.isTooNew()) return .success;
            refused = if (kind == .elf) .invalid_image else .unsupported_ptx_version;
        }
        // Code that the driver knows to be for this GPU is not looked past.
        if (refused == .invalid_image) return refused;
    }
    return refused;
}

fn read(comptime T: type, bytes: [*]const u8) T {
    return std.mem.bytesToValue(T, bytes[0..@sizeOf(T)]);
}
