//! NVIDIA's driver, opened by name at run time so that the library loads where there is none.
//! Source: CUDA Driver API (cuda.h), the few calls that tell which GPUs are there.

const std = @import("std");

pub const name_bytes_max = 96;
pub const gpu_count_max = 16;

pub const Gpus = struct {
    count: u32 = 0,
    names: [gpu_count_max][name_bytes_max:0]u8 = undefined,

    pub fn name(gpus: *const Gpus, i: usize) []const u8 {
        return std.mem.sliceTo(&gpus.names[i], 0);
    }
};

/// The GPUs that the driver shows; none where there is no driver or it refuses to start.
pub fn findGpus() Gpus {
    var gpus: Gpus = .{};
    var library = openDriver() orelse return gpus;
    defer library.close();
    const driver = Driver.load(&library) orelse return gpus;
    if (driver.cuInit(0) != 0) return gpus;
    var count: c_int = 0;
    if (driver.cuDeviceGetCount(&count) != 0 or count <= 0) return gpus;
    for (0..@min(@as(usize, @intCast(count)), gpu_count_max)) |i| {
        var device: c_int = 0;
        if (driver.cuDeviceGet(&device, @intCast(i)) != 0) break;
        const name = &gpus.names[gpus.count];
        @memset(name, 0);
        if (driver.cuDeviceGetName(name, name_bytes_max, device) != 0) break;
        gpus.count += 1;
    }
    return gpus;
}

// --- internal ---

const Driver = struct {
    cuInit: *const fn (flags: c_uint) callconv(.c) c_int,
    cuDeviceGetCount: *const fn (count: *c_int) callconv(.c) c_int,
    cuDeviceGet: *const fn (device: *c_int, ordinal: c_int) callconv(.c) c_int,
    cuDeviceGetName: *const fn (name: [*]u8, len: c_int, device: c_int) callconv(.c) c_int,

    /// Null where the driver is too old to have one of them.
    fn load(library: *std.DynLib) ?Driver {
        var driver: Driver = undefined;
        inline for (@typeInfo(Driver).@"struct".fields) |field| {
            @field(driver, field.name) = library.lookup(field.type, field.name) orelse return null;
        }
        return driver;
    }
};

fn openDriver() ?std.DynLib {
    for ([_][:0]const u8{ "libcuda.so.1", "libcuda.so" }) |name| {
        return std.DynLib.openZ(name) catch continue;
    }
    return null;
}

test "asking for GPUs never fails, whatever the machine" {
    const gpus = findGpus();
    for (0..gpus.count) |i| try std.testing.expect(gpus.name(i).len > 0);
}
