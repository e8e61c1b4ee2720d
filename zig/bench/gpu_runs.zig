//! What `basedxl-gpu model` runs, as read from a file that src/setup/kit.ts writes: models, with
//! configs and samplers' steps as bytes of the C ABI, and images of them.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const AttentionKind = @import("../backend.zig").AttentionKind;
const StepCoefficients = @import("../backend.zig").StepCoefficients;
const ModelConfig = @import("../model.zig").ModelConfig;
const types = @import("../abi/types.zig");

const list_bytes_max = 64 << 20;

pub const Error = error{BadDescription} || Allocator.Error;

pub const List = struct {
    abi_version: u32,
    models: []const Model,
    runs: []const Run,
};

pub const Model = struct {
    name: []const u8,
    /// A `ModelConfig` in hexadecimal.
    config: []const u8,
    files: Files,

    pub fn modelConfig(model: *const Model) Error!ModelConfig {
        var config: ModelConfig = undefined;
        try fromHex(std.mem.asBytes(&config), model.config);
        return config;
    }
};

/// One file each; paths from the list's folder.
pub const Files = struct {
    text_encoder: File,
    text_encoder_2: File,
    unet: File,
    vae: File,
};

pub const File = struct {
    path: []const u8,
    /// Length of the whole file, of which a header may be all that there is.
    bytes: u64,
};

pub const Tokens = struct {
    ids: []const i32,
    ids_2: []const i32,
    end_index: u32,
};

/// Every `stride`-th number of a result, and where the record says so the 2-norms of its blocks.
pub const Expected = struct {
    values: []const f32,
    stride: u32,
    norms: []const f32,
    block_length: u32,
    /// Limit of the relative L2 error.
    limit: f64,
};

pub const Run = struct {
    name: []const u8,
    /// Runs are chosen by it.
    part: []const u8,
    model: []const u8,
    latent_rows: u32,
    latent_width: u32,
    use_graphs: bool,
    dependent_launches: bool,
    attention: AttentionKind,
    random_weights: bool,
    /// The UNet's linear layers in int8.
    int8: bool,
    /// Short images before the timed one.
    warmup_count: u32,
    seed: u64,
    guidance_scale: f32,
    init_noise_sigma: f32,
    /// `StepCoefficients` in hexadecimal.
    steps: []const u8,
    prompt: Tokens,
    negative: Tokens,
    /// Latents; null where only times are asked for.
    expected: ?Expected = null,

    pub fn stepCoefficients(run: *const Run, arena: Allocator) Error![]StepCoefficients {
        const digits = 2 * @sizeOf(StepCoefficients);
        const steps = try arena.alloc(StepCoefficients, run.steps.len / digits);
        try fromHex(std.mem.sliceAsBytes(steps), run.steps);
        return steps;
    }
};

/// Allocated in `arena`.
pub fn read(arena: Allocator, io: Io, path: []const u8) !List {
    const text = try Io.Dir.cwd().readFileAlloc(io, path, arena, .limited(list_bytes_max));
    const list = try std.json.parseFromSliceLeaky(List, arena, text, .{});
    if (list.abi_version != types.abi_version) return error.BadDescription;
    return list;
}

/// Files that have only headers become as long as these say; nothing is written.
pub fn stretch(io: Io, path: []const u8, bytes: u64) !void {
    const file = try Io.Dir.cwd().openFile(io, path, .{ .mode = .read_write });
    defer file.close(io);
    if ((try file.stat(io)).size < bytes) try file.setLength(io, bytes);
}

// --- internal ---

fn fromHex(target: []u8, digits: []const u8) Error!void {
    if (digits.len != 2 * target.len) return error.BadDescription;
    _ = std.fmt.hexToBytes(target, digits) catch return error.BadDescription;
}

test "hexadecimal of another length is refused" {
    var bytes: [2]u8 = undefined;
    try fromHex(&bytes, "01ff");
    try std.testing.expectEqualSlices(u8, &.{ 1, 255 }, &bytes);
    try std.testing.expectError(error.BadDescription, fromHex(&bytes, "01"));
    try std.testing.expectError(error.BadDescription, fromHex(&bytes, "01fg"));
}
