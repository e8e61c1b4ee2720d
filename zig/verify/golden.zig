//! A tiny model of SDXL's architecture, made here: the numbers that PyTorch initialises it with for
//! two seeds, in files that exist in memory alone. What diffusers computes with it was recorded.
//! tests/fixtures/golden/weights.json maps each tensor to numbers of the two streams and has the
//! SHA-256 of each file; src/bench/support/golden-model.ts makes the same files.

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const configs = @import("../model/config.zig");
const models = @import("../model.zig");
const json = std.json;
const Mt19937 = @import("../random.zig").Mt19937;

const list_text = @embedFile("golden_weights");

pub const Error = Allocator.Error || error{ NoModel, Cancelled };

pub const latent_channels = 4;
pub const token_count = 77;
pub const pooled_size = clip_2.projection_size;
pub const context_size = clip.hidden_size + clip_2.hidden_size;
pub const scaling_factor: f32 = 0.13025;

/// Files of the model, open while it lives.
pub const Golden = struct {
    /// Descriptors of files without a name, and paths that lead to them.
    files: [4]std.posix.fd_t = @splat(-1),
    paths: [4][32]u8 = undefined,
    path_lists: [4][1][]const u8 = undefined,

    /// Must not move.
    pub fn open(golden: *Golden, gpa: Allocator, io: Io) Error!void {
        if (builtin.os.tag != .linux) return error.NoModel;
        golden.* = .{};
        errdefer golden.close();
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        const a = arena.allocator();
        const list = json.parseFromSliceLeaky(List, a, list_text, .{}) catch return error.NoModel;
        std.debug.assert(list.files.len == golden.files.len);
        var streams: [2][]u32 = undefined;
        for (&streams, list.draws, 0..) |*stream, count, seed| {
            stream.* = try a.alloc(u32, count);
            fillWords(stream.*, @intCast(seed));
        }
        for (list.files, 0..) |*file, i| {
            const bytes = try bytesOf(gpa, file, &streams);
            defer gpa.free(bytes);
            var digest: [32]u8 = undefined;
            std.crypto.hash.sha2.Sha256.hash(bytes, &digest, .{});
            const hex = std.fmt.bytesToHex(digest, .lower);
            if (!std.mem.eql(u8, &hex, file.sha256)) return error.NoModel;
            try golden.keep(io, i, bytes);
        }
    }

    pub fn close(golden: *Golden) void {
        for (&golden.files) |*file| {
            if (file.* >= 0) _ = std.c.close(file.*);
            file.* = -1;
        }
    }

    /// As a session takes them; valid while `golden` is.
    pub fn modelFiles(golden: *Golden) models.Files {
        var files: models.Files = .initFill(.{ .paths = &.{} });
        const components = [_]models.Component{ .text_encoder, .text_encoder_2, .unet, .vae };
        for (components, 0..) |component, i| {
            files.set(component, .{ .paths = &golden.path_lists[i] });
        }
        return files;
    }

    fn keep(golden: *Golden, io: Io, i: usize, bytes: []const u8) Error!void {
        const descriptor = std.posix.memfd_createZ("basedxl", 0) catch return error.NoModel;
        golden.files[i] = descriptor;
        const file: Io.File = .{ .handle = descriptor, .flags = .{ .nonblocking = false } };
        file.writeStreamingAll(io, bytes) catch return error.NoModel;
        golden.path_lists[i] = .{std.fmt.bufPrint(&golden.paths[i], "/proc/self/fd/{d}", .{
            descriptor,
        }) catch unreachable};
    }
};

const clip: configs.ClipConfig = .{
    .is_present = 1,
    .vocab_size = 822,
    .hidden_size = 64,
    .intermediate_size = 256,
    .layer_count = 3,
    .head_count = 2,
    .position_count = token_count,
    .hidden_act = .quick_gelu,
    .projection_size = 0,
    .layer_norm_epsilon = 1e-5,
    .hidden_state = .penultimate,
    .final_norm = 0,
};

const clip_2: configs.ClipConfig = .{
    .is_present = 1,
    .vocab_size = 822,
    .hidden_size = 128,
    .intermediate_size = 512,
    .layer_count = 3,
    .head_count = 4,
    .position_count = token_count,
    .hidden_act = .gelu,
    .projection_size = 128,
    .layer_norm_epsilon = 1e-5,
    .hidden_state = .penultimate,
    .final_norm = 0,
};

/// The folder's config.json, in the terms of the model.
pub const config: configs.ModelConfig = .{
    .text = .{ .text_encoder = clip, .text_encoder_2 = clip_2, .pooled_from = .text_encoder_2 },
    .unet = .{
        .in_channels = latent_channels,
        .out_channels = latent_channels,
        .level_count = 3,
        .block_out_channels = levels(.{ 32, 64, 128 }),
        .layers_per_block = levels(.{ 2, 2, 2 }),
        .down_transformer_layers = layers(.{ .{ 0, 0 }, .{ 1, 1 }, .{ 2, 2 } }),
        .up_transformer_layers = layers(.{ .{ 2, 2, 2 }, .{ 1, 1, 1 }, .{ 0, 0, 0 } }),
        .mid_block = .cross_attention,
        .mid_transformer_layers = 2,
        .head_counts = levels(.{ 1, 1, 2 }),
        .cross_attention_dim = context_size,
        .norm_groups = 16,
        .addition_time_embed_dim = 32,
        .time_id_count = 6,
        .addition_input_dim = 320,
        .flip_sin_to_cos = 1,
        .frequency_shift = 0,
        .norm_epsilon = 1e-5,
    },
    .vae = .{
        .in_channels = 3,
        .out_channels = 3,
        .latent_channels = latent_channels,
        .level_count = 4,
        .block_out_channels = levels(.{ 32, 32, 64, 64 }),
        .layers_per_block = 1,
        .norm_groups = 16,
        .mid_attention = 1,
        .use_quant_conv = 1,
        .use_post_quant_conv = 1,
        .scaling_factor = scaling_factor,
        .residual_scale = 1,
    },
    .taesd = std.mem.zeroes(configs.TaesdConfig),
};

// --- internal ---

fn levels(comptime values: anytype) [configs.level_count_max]u32 {
    var all: [configs.level_count_max]u32 = @splat(0);
    for (values, 0..) |value, i| all[i] = value;
    return all;
}

fn layers(comptime rows: anytype) configs.TransformerLayers {
    var all: configs.TransformerLayers = @splat(@splat(0));
    inline for (rows, 0..) |row, i| {
        for (row, 0..) |value, j| all[i][j] = value;
    }
    return all;
}

const List = struct {
    /// Numbers that are used of the streams of seed 0 and seed 1.
    draws: [2]usize,
    files: []const File,
};

const File = struct {
    path: []const u8,
    sha256: []const u8,
    tensors: json.ArrayHashMap(Entry),
};

const Entry = struct {
    /// Shape, kind, offset in stream 0, factor; of vectors the noise's offset in stream 1.
    from: json.Value,
    /// Index and f16 bits where PyTorch's vector logarithm or cosine is a unit off.
    off: []const [2]u32 = &.{},

    fn recipe(entry: *const Entry) Recipe {
        const items = entry.from.array.items;
        var result: Recipe = .{
            .dimensions = items[0].array.items,
            .kind = std.meta.stringToEnum(Kind, items[1].string).?,
            .offset = @intCast(items[2].integer),
            .factor = switch (items[3]) {
                .float => |factor| factor,
                .integer => |factor| @floatFromInt(factor),
                else => unreachable,
            },
        };
        if (items.len > 4) result.noise = @intCast(items[4].integer);
        return result;
    }
};

const Kind = enum { uniform, normal, constant };

const Recipe = struct {
    dimensions: []const json.Value,
    kind: Kind,
    offset: usize,
    factor: f64,
    noise: ?usize = null,

    fn count(recipe: *const Recipe) usize {
        var product: usize = 1;
        for (recipe.dimensions) |dimension| product *= @intCast(dimension.integer);
        return product;
    }
};

/// Scale of the noise of vectors, in f32.
const noise_factor: f64 = @as(f32, 0.1);

/// The safetensors file; the caller frees it.
fn bytesOf(gpa: Allocator, file: *const File, streams: *const [2][]u32) Error![]u8 {
    var out: Io.Writer.Allocating = .init(gpa);
    errdefer out.deinit();
    writeHead(&out.writer, file) catch return error.OutOfMemory;
    for (file.tensors.map.values()) |*entry| {
        const recipe = entry.recipe();
        const values = try gpa.alloc(f32, 2 * recipe.count());
        defer gpa.free(values);
        const own = values[0..recipe.count()];
        fillTensor(own, values[recipe.count()..], &recipe, streams);
        const bits = out.writer.writableSlice(2 * own.len) catch return error.OutOfMemory;
        for (own, 0..) |value, i| {
            const half: f16 = @floatCast(value);
            std.mem.writeInt(u16, bits[2 * i ..][0..2], @bitCast(half), .little);
        }
        for (entry.off) |change| {
            std.mem.writeInt(u16, bits[2 * change[0] ..][0..2], @intCast(change[1]), .little);
        }
    }
    return out.toOwnedSlice();
}

/// The length word and the header, filled up with blanks to 8 bytes.
fn writeHead(w: *Io.Writer, file: *const File) Io.Writer.Error!void {
    try w.writeAll(&@as([8]u8, @splat(0)));
    try w.writeAll("{\"__metadata__\":{\"format\":\"pt\"}");
    var offset: usize = 0;
    var entries = file.tensors.map.iterator();
    while (entries.next()) |entry| {
        const recipe = entry.value_ptr.recipe();
        const end = offset + 2 * recipe.count();
        try w.print(",\"{s}\":{{\"dtype\":\"F16\",\"shape\":[", .{entry.key_ptr.*});
        for (recipe.dimensions, 0..) |dimension, i| {
            if (i > 0) try w.writeByte(',');
            try w.print("{d}", .{dimension.integer});
        }
        try w.print("],\"data_offsets\":[{d},{d}]}}", .{ offset, end });
        offset = end;
    }
    try w.writeByte('}');
    try w.splatByteAll(' ', std.mem.alignForward(usize, w.end, 8) - w.end);
    std.mem.writeInt(u64, w.buffered()[0..8], w.end - 8, .little);
}

fn fillTensor(
    values: []f32,
    noise: []f32,
    recipe: *const Recipe,
    streams: *const [2][]u32,
) void {
    const words = streams[0];
    switch (recipe.kind) {
        .constant => @memset(values, @floatCast(recipe.factor)),
        .normal => fillNormal(values, words[recipe.offset..], recipe.factor),
        .uniform => for (values, words[recipe.offset..][0..values.len]) |*value, word| {
            value.* = @floatCast(unitOf(word) * 2 * recipe.factor - recipe.factor);
        },
    }
    const offset = recipe.noise orelse return;
    if (values.len < 16) fillFewNormal(noise, streams[1][offset..]) else {
        fillNormal(noise, streams[1][offset..], 1);
    }
    for (values, noise) |*value, added| {
        const part: f32 = @floatCast(noise_factor * added);
        value.* = @floatCast(@as(f64, value.*) + part);
    }
}

/// torch.Tensor.normal_(0, factor) of 16 numbers or more: Box-Muller, sixteen at a time, eight
/// radii and then eight angles. Where 16 does not divide the count, the last sixteen are sampled
/// again.
fn fillNormal(values: []f32, words: []const u32, factor: f64) void {
    var start: usize = 0;
    while (start + 16 <= values.len) : (start += 16) {
        fillSixteen(values[start..][0..16], words[start..][0..16], factor);
    }
    if (values.len % 16 == 0) return;
    fillSixteen(values[values.len - 16 ..][0..16], words[values.len..][0..16], factor);
}

fn fillSixteen(values: *[16]f32, words: *const [16]u32, factor: f64) void {
    for (0..8) |i| {
        const radius = @sqrt(-2 * @log(1 - unitOf(words[i])));
        const angle = 2 * std.math.pi * unitOf(words[8 + i]);
        values[i] = @floatCast(radius * @cos(angle) * factor);
        values[8 + i] = @floatCast(radius * @sin(angle) * factor);
    }
}

/// torch.randn of fewer than 16 numbers: pairs, each from two f64 numbers of 53 bits.
fn fillFewNormal(values: []f32, words: []const u32) void {
    var i: usize = 0;
    while (i < values.len) : (i += 2) {
        const four = words[2 * i ..][0..4];
        const angle = 2 * std.math.pi * unitOf53(four[0], four[1]);
        const radius = @sqrt(-2 * std.math.log1p(-unitOf53(four[2], four[3])));
        values[i] = @floatCast(radius * @cos(angle));
        if (i + 1 < values.len) values[i + 1] = @floatCast(radius * @sin(angle));
    }
}

/// 0 to 1, from a word's low 24 bits.
fn unitOf(word: u32) f64 {
    return @as(f64, @floatFromInt(word & 0xffffff)) * 0x1p-24;
}

/// The same from the low 53 bits of two words, the higher first.
fn unitOf53(high: u32, low: u32) f64 {
    const bits = @as(u64, high & 0x1fffff) << 32 | low;
    return @as(f64, @floatFromInt(bits)) * 0x1p-53;
}

/// The first words of MT19937, seeded as PyTorch's CPU generator is.
fn fillWords(words: []u32, seed: u32) void {
    var engine: Mt19937 = .init(seed);
    for (words) |*word| word.* = engine.next();
}
