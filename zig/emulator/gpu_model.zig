//! The GPUs that the emulator can be: their limits, by compute capability, as in the CUDA C++
//! Programming Guide (compute capabilities) and the vendor's data sheets.

const std = @import("std");

pub const GpuModel = struct {
    /// "sm_90"
    name: []const u8,
    /// Ten times the compute capability.
    capability: u32,
    multiprocessors: c_int,
    /// Dynamic shared memory of a block, where it is asked for; what a multiprocessor has.
    shared_block_kib: u32,
    shared_kib: u32,
    threads: u32,
    blocks: u32,
    l2_mib: c_int,
};

pub const models = [_]GpuModel{
    // A100
    .{
        .name = "sm_80",
        .capability = 80,
        .multiprocessors = 108,
        .shared_block_kib = 163,
        .shared_kib = 164,
        .threads = 2048,
        .blocks = 32,
        .l2_mib = 40,
    },
    // RTX 3090
    .{
        .name = "sm_86",
        .capability = 86,
        .multiprocessors = 82,
        .shared_block_kib = 99,
        .shared_kib = 100,
        .threads = 1536,
        .blocks = 16,
        .l2_mib = 6,
    },
    // RTX 4090
    .{
        .name = "sm_89",
        .capability = 89,
        .multiprocessors = 128,
        .shared_block_kib = 99,
        .shared_kib = 100,
        .threads = 1536,
        .blocks = 24,
        .l2_mib = 72,
    },
    // H200
    .{
        .name = "sm_90",
        .capability = 90,
        .multiprocessors = 132,
        .shared_block_kib = 227,
        .shared_kib = 228,
        .threads = 2048,
        .blocks = 32,
        .l2_mib = 50,
    },
    // B200
    .{
        .name = "sm_100",
        .capability = 100,
        .multiprocessors = 148,
        .shared_block_kib = 227,
        .shared_kib = 228,
        .threads = 2048,
        .blocks = 32,
        .l2_mib = 126,
    },
    // RTX 5090
    .{
        .name = "sm_120",
        .capability = 120,
        .multiprocessors = 170,
        .shared_block_kib = 99,
        .shared_kib = 100,
        .threads = 1536,
        .blocks = 24,
        .l2_mib = 96,
    },
};

pub const default = models[3];

pub fn byName(name: []const u8) ?GpuModel {
    for (models) |model| if (std.mem.eql(u8, model.name, name)) return model;
    return null;
}

/// The model of this capability, or the newest before it with this number.
pub fn byCapability(capability: u32) GpuModel {
    var found = models[0];
    for (models) |model| {
        if (model.capability <= capability) found = model;
    }
    found.capability = capability;
    return found;
}
