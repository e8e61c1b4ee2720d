//! What crosses the ABI: numbers of configurations that come from a model's files, and requests
//! whose lists and lengths do not fit them. The input says which fields of a valid request are
//! changed; pointers stay valid, for no check can tell them.

const std = @import("std");
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const checks = @import("../abi/checks.zig");
const configs = @import("../model/config.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const header = @import("header.zig");
const types = @import("../abi/types.zig");
const Bytes = types.Bytes;
const networks = @import("../model.zig").networks;
const NetworkConfig = networks.Config;
const NetworkKind = networks.NetworkKind;

/// The configuration of a model and of the networks beside it.
pub fn runConfig(gpa: Allocator, bytes: []const u8) !void {
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var changes: Changes = .{ .rest = bytes, .arena = arena.allocator() };
    var config = modelConfig();
    try changes.apply(&config);
    var d: Diagnostics = .{};
    configs.check(&config, &d) catch |err| {
        if (bytes.len == 0) return error.ValidIsRefused;
        return expectSentence(err, &d);
    };
    inline for (.{
        configs.ControlNetConfig, configs.T2iAdapterConfig, configs.ClipVisionConfig,
        configs.IpAdapterConfig,  configs.UpscalerConfig,
    }) |Config| {
        var network = std.mem.zeroes(Config);
        if (@hasField(Config, "unet")) network.unet = config.unet;
        try changes.apply(&network);
        d.reset();
        if (network.check(&config, &d)) |_| {} else |err| try expectSentence(err, &d);
    }
}

/// A request to a session of a valid model, and the options of the session.
pub fn runRequest(gpa: Allocator, bytes: []const u8) !void {
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var changes: Changes = .{ .rest = bytes, .arena = arena.allocator() };
    var request = try validRequest(arena.allocator());
    try changes.apply(&request);
    const config = modelConfig();
    checks.last_error.reset();
    try expectAnswer(checks.request(&config, &request), bytes);
    var options = validOptions();
    try changes.apply(&options);
    checks.last_error.reset();
    try expectAnswer(checks.options(&options), bytes);
}

// --- internal ---

/// A refusal is a sentence; what is not changed is not refused.
fn expectAnswer(status: ?types.Status, changes: []const u8) !void {
    if (status == null) return;
    if (changes.len == 0) return error.ValidIsRefused;
    try expectSentence(error.BadArgument, &checks.last_error);
}

fn expectSentence(err: anyerror, d: *const Diagnostics) !void {
    if (err != error.BadConfig and err != error.BadArgument) return err;
    const sentence = d.message();
    if (sentence.len < 10 or sentence[sentence.len - 1] != '.') return error.NoSentence;
    try header.expectNoControls(sentence);
}

/// Which fields the input changes, and to what: a number of fields that stay, then a value, again
/// and again.
const Changes = struct {
    rest: []const u8,
    arena: Allocator,
    kept: ?u8 = null,

    fn apply(changes: *Changes, value: anytype) Allocator.Error!void {
        const T = @typeInfo(@TypeOf(value)).pointer.child;
        if (T == Bytes) return changes.applyLength(value);
        switch (@typeInfo(T)) {
            .@"struct" => |info| inline for (info.fields) |field| {
                if (comptime elementOf(T, field.name)) |Element| {
                    try changes.applyList(Element, &@field(value, field.name));
                } else try changes.apply(&@field(value, field.name));
            },
            .array => for (value) |*each| try changes.apply(each),
            .int => if (changes.isNext()) {
                value.* = @truncate(changes.number());
            },
            .float => if (changes.isNext()) {
                value.* = changes.float();
            },
            .@"enum" => if (changes.isNext()) {
                const values = std.enums.values(T);
                value.* = values[@intCast(changes.number() % values.len)];
            },
            else => @compileError("no field of the ABI: " ++ @typeName(T)),
        }
    }

    /// Bytes without a structure of their own: another length, and what is there.
    fn applyLength(changes: *Changes, value: *Bytes) Allocator.Error!void {
        if (!changes.isNext()) return;
        const len = changes.number() % 4096;
        const contents = try changes.arena.alloc(u8, @intCast(len));
        for (contents, 0..) |*each, i| {
            each.* = if (i < changes.rest.len) changes.rest[i] else 0;
        }
        value.* = bytesOf(contents);
    }

    fn applyList(changes: *Changes, Element: type, value: *Bytes) Allocator.Error!void {
        const given = std.mem.bytesAsSlice(Element, value.slice());
        const count = if (changes.isNext()) changes.number() % 4 else given.len;
        const list = try changes.arena.alloc(Element, @intCast(count));
        for (list, 0..) |*each, i| {
            each.* = if (given.len > 0) given[i % given.len] else std.mem.zeroes(Element);
            if (Element == types.Network) each.files = bytesOf("a\x00");
            try changes.apply(each);
            if (Element == types.Network) try changes.applyConfig(each);
        }
        value.* = bytesOf(std.mem.sliceAsBytes(list));
    }

    /// The struct of its kind, unless it is of another length.
    fn applyConfig(changes: *Changes, network: *types.Network) Allocator.Error!void {
        if (network.config.len > 0) return;
        switch (network.kind) {
            inline else => |kind| {
                const Config = @FieldType(NetworkConfig, @tagName(kind));
                const config = try changes.arena.create(Config);
                config.* = std.mem.zeroes(Config);
                try changes.apply(config);
                network.config = bytesOf(std.mem.asBytes(config));
            },
        }
    }

    fn isNext(changes: *Changes) bool {
        const kept = changes.kept orelse changes.byte() orelse return false;
        changes.kept = if (kept == 0) null else kept - 1;
        return kept == 0;
    }

    /// Small, a multiple of what lengths are multiples of, or at the edge of a type.
    fn number(changes: *Changes) u64 {
        const how = changes.byte() orelse return 0;
        const small: u64 = changes.byte() orelse 0;
        return switch (how & 7) {
            0 => small * 4,
            1 => small * 64,
            2 => std.math.maxInt(u32) - small,
            3 => @as(u64, 1) << @intCast(small % 64),
            4 => small << 8 | (changes.byte() orelse 0),
            5 => std.math.maxInt(u64) - small,
            else => small,
        };
    }

    fn float(changes: *Changes) f32 {
        const odd = [_]f32{ std.math.nan(f32), std.math.inf(f32), -1, 0, 0.5, 1, 1e30, -0.0 };
        return odd[@intCast(changes.number() % odd.len)];
    }

    fn byte(changes: *Changes) ?u8 {
        if (changes.rest.len == 0) return null;
        defer changes.rest = changes.rest[1..];
        return changes.rest[0];
    }
};

/// Of the lists, which hold pointers or are read as structs.
fn elementOf(Owner: type, comptime name: []const u8) ?type {
    const eql = std.mem.eql;
    if (Owner == types.Network and eql(u8, name, "names")) return types.WeightName;
    if (Owner == types.Adapter and eql(u8, name, "targets")) return types.AdapterTarget;
    if (@FieldType(Owner, name) != Bytes) return null;
    const lists = .{
        .{ "adapters", types.Adapter },                .{ "networks", types.Network },
        .{ "controls", types.ControlUse },             .{ "ip_adapters", types.IpAdapterUse },
        .{ "prompts", types.Tokens },                  .{ "negatives", types.Tokens },
        .{ "empty", types.Tokens },                    .{ "steps", backend.StepCoefficients },
        .{ "unet_names", types.WeightName },           .{ "vae_names", types.WeightName },
        .{ "taesd_names", types.WeightName },          .{ "text_encoder_names", types.WeightName },
        .{ "text_encoder_2_names", types.WeightName }, .{ "upscaler", types.Network },
    };
    inline for (lists) |list| if (eql(u8, name, list[0])) return list[1];
    return null;
}

fn bytesOf(memory: []const u8) Bytes {
    return .{ .address = @intFromPtr(memory.ptr), .len = memory.len };
}

const positions = 4;
const vocabulary = 16;

/// As small as a model can be.
fn modelConfig() configs.ModelConfig {
    var config = std.mem.zeroes(configs.ModelConfig);
    for ([_]*configs.ClipConfig{ &config.text.text_encoder, &config.text.text_encoder_2 }) |clip| {
        clip.is_present = 1;
        clip.vocab_size = vocabulary;
        clip.hidden_size = 8;
        clip.intermediate_size = 8;
        clip.layer_count = 2;
        clip.head_count = 2;
        clip.position_count = positions;
        clip.projection_size = 8;
    }
    config.text.pooled_from = .text_encoder_2;
    const unet = &config.unet;
    unet.in_channels = 4;
    unet.out_channels = 4;
    unet.level_count = 2;
    unet.block_out_channels[0..2].* = .{ 8, 16 };
    unet.layers_per_block[0..2].* = .{ 1, 1 };
    unet.down_transformer_layers[1][0] = 1;
    unet.up_transformer_layers[0][0..2].* = .{ 1, 1 };
    unet.mid_transformer_layers = 1;
    unet.head_counts[0..2].* = .{ 2, 2 };
    unet.cross_attention_dim = 16;
    unet.norm_groups = 4;
    unet.addition_time_embed_dim = 2;
    unet.time_id_count = 6;
    unet.addition_input_dim = 20;
    const vae = &config.vae;
    vae.in_channels = 3;
    vae.out_channels = 3;
    vae.latent_channels = 4;
    vae.level_count = 2;
    vae.block_out_channels[0..2].* = .{ 8, 8 };
    vae.layers_per_block = 1;
    vae.norm_groups = 4;
    vae.scaling_factor = 1;
    vae.residual_scale = 1;
    return config;
}

/// A session of one rank.
fn validOptions() types.SessionOptions {
    var options = std.mem.zeroes(types.SessionOptions);
    options.size = @sizeOf(types.SessionOptions);
    options.rank_count = 1;
    options.local_rank_count = 1;
    options.branch_count = 2;
    options.latent_rows = 8;
    options.latent_width = 8;
    options.image_count = 1;
    options.config = modelConfig();
    return options;
}

/// An image of two steps, with guidance.
fn validRequest(arena: Allocator) Allocator.Error!types.Request {
    const ids = try arena.alloc(i32, positions);
    @memset(ids, 1);
    const tokens = try arena.alloc(types.Tokens, 2);
    for (tokens) |*each| {
        each.* = std.mem.zeroes(types.Tokens);
        each.ids = bytesOf(std.mem.sliceAsBytes(ids));
        each.ids_2 = each.ids;
        each.present = 1;
        each.repeat_count = 1;
    }
    const steps = try arena.alloc(backend.StepCoefficients, 2);
    @memset(steps, std.mem.zeroes(backend.StepCoefficients));
    const numbers = try arena.alloc(u8, 8);
    @memset(numbers, 0);
    var request = std.mem.zeroes(types.Request);
    request.size = @sizeOf(types.Request);
    request.latent_rows = 8;
    request.latent_width = 8;
    request.branch_count = 2;
    request.batch = 1;
    request.seeds = bytesOf(numbers);
    request.guidance_scales = bytesOf(numbers[0..4]);
    request.steps = bytesOf(std.mem.sliceAsBytes(steps));
    request.prompts = bytesOf(std.mem.sliceAsBytes(tokens[0..1]));
    request.negatives = bytesOf(std.mem.sliceAsBytes(tokens[1..2]));
    return request;
}

const testing = std.testing;

test "what is changed is valid" {
    try runConfig(testing.allocator, "");
    try runRequest(testing.allocator, "");
}

test "networks of no kind are refused" {
    var network: [@sizeOf(types.Network)]u8 = @splat(0);
    for ([_]u32{ std.enums.values(NetworkKind).len, std.math.maxInt(u32) }) |kind| {
        std.mem.writeInt(u32, network[@offsetOf(types.Network, "kind")..][0..4], kind, .native);
        inline for (.{ "networks", "upscaler" }) |name| {
            var options = validOptions();
            @field(options, name) = bytesOf(&network);
            try testing.expectEqual(.bad_argument, checks.options(&options));
            try testing.expect(std.mem.indexOf(u8, checks.last_error.message(), "of kind") != null);
        }
    }
}

test "lengths that are no multiple of a number's size are refused" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const config = modelConfig();
    const odd: Bytes = bytesOf("abcdefghi");
    inline for (.{ "noise_places", "step_reuse", "seeds", "steps", "clean_mixes" }) |name| {
        var request = try validRequest(arena.allocator());
        @field(request, name) = odd;
        try testing.expectEqual(.bad_argument, checks.request(&config, &request));
    }
    var tokens = std.mem.zeroes(types.Tokens);
    tokens.ids = odd;
    tokens.ids_2 = odd;
    tokens.weights = odd;
    var request = try validRequest(arena.allocator());
    request.prompts = bytesOf(std.mem.asBytes(&tokens));
    try testing.expectEqual(.bad_argument, checks.request(&config, &request));
}
