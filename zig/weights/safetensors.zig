//! Reads the safetensors format from bytes that nobody has checked: 8 bytes of header length,
//! a JSON header, then the tensors. Every offset is checked against the file before it is used, so
//! a `Tensor` handed out here can be read without further care. Memory belongs to the caller.
//! Source: https://huggingface.co/docs/safetensors (format section).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

pub const Error = error{ BadWeights, OutOfMemory };

/// As the reference implementation: a longer header is refused before it is read.
pub const header_bytes_max = 100_000_000;
pub const rank_max = 8;

pub const Tensor = struct {
    name: []const u8,
    /// The file's own name of the type ("F16"): kept as text, as only needed keys must be known.
    dtype: []const u8,
    dimensions: [rank_max]u64,
    rank: u8,
    bytes: []const u8,

    pub fn shape(tensor: *const Tensor) []const u64 {
        return tensor.dimensions[0..tensor.rank];
    }
};

/// All tensors of one file. `path` is for messages; names are copied into `arena`, bytes are not.
pub fn parse(
    arena: Allocator,
    path: []const u8,
    file: []const u8,
    diagnostics: *Diagnostics,
) Error![]Tensor {
    const d = diagnostics;
    if (file.len < 8) {
        return d.fail(error.BadWeights, "{s} is not a safetensors file: it has {d} bytes, and " ++
            "the header length alone takes 8.", .{ path, file.len });
    }
    const header_bytes = std.mem.readInt(u64, file[0..8], .little);
    if (header_bytes > header_bytes_max or header_bytes > file.len - 8) {
        return d.fail(error.BadWeights, "{s} is not a whole safetensors file: its header should " ++
            "take {d} bytes, and the file has {d}. Copy or download it again.", .{
            path, header_bytes, file.len,
        });
    }
    const header_end: usize = 8 + @as(usize, @intCast(header_bytes));
    const root = std.json.parseFromSliceLeaky(
        std.json.Value,
        arena,
        file[8..header_end],
        .{ .duplicate_field_behavior = .@"error" },
    ) catch |err| switch (err) {
        error.OutOfMemory => return error.OutOfMemory,
        else => return d.fail(error.BadWeights, "{s}: the safetensors header is not valid JSON " ++
            "({s}). Copy or download the file again.", .{ path, @errorName(err) }),
    };
    if (root != .object) {
        const sentence = "{s}: the safetensors header is not a JSON object.";
        return d.fail(error.BadWeights, sentence, .{path});
    }
    var list: std.ArrayList(Tensor) = try .initCapacity(arena, root.object.count());
    var fields = root.object.iterator();
    while (fields.next()) |field| {
        if (std.mem.eql(u8, field.key_ptr.*, "__metadata__")) continue;
        const context: Context = .{ .path = path, .name = field.key_ptr.*, .diagnostics = d };
        list.appendAssumeCapacity(try parseTensor(context, field.value_ptr.*, file[header_end..]));
    }
    try refuseOverlap(arena, path, list.items, d);
    return list.items;
}

// --- internal ---

const Context = struct {
    path: []const u8,
    name: []const u8,
    diagnostics: *Diagnostics,

    fn fail(context: Context, comptime format: []const u8, args: anytype) error{BadWeights} {
        return context.diagnostics.fail(
            error.BadWeights,
            "{s}: tensor {s} " ++ format,
            .{ context.path, context.name } ++ args,
        );
    }
};

fn parseTensor(context: Context, value: std.json.Value, data: []const u8) error{BadWeights}!Tensor {
    if (value != .object) return context.fail("is not described by a JSON object.", .{});
    const dtype = value.object.get("dtype") orelse return context.fail("has no dtype.", .{});
    if (dtype != .string) return context.fail("has a dtype that is not a string.", .{});
    const dimensions = value.object.get("shape") orelse return context.fail("has no shape.", .{});
    if (dimensions != .array) return context.fail("has a shape that is not a list.", .{});
    if (dimensions.array.items.len > rank_max) {
        return context.fail("has {d} dimensions; at most {d} are read.", .{
            dimensions.array.items.len, rank_max,
        });
    }
    var tensor: Tensor = .{
        .name = context.name,
        .dtype = dtype.string,
        .dimensions = @splat(1),
        .rank = @intCast(dimensions.array.items.len),
        .bytes = &.{},
    };
    var element_count: u64 = 1;
    for (dimensions.array.items, tensor.dimensions[0..tensor.rank]) |item, *dimension| {
        dimension.* = try parseCount(context, item, "shape");
        element_count = std.math.mul(u64, element_count, dimension.*) catch
            return context.fail("has a shape with more elements than can be counted.", .{});
    }
    tensor.bytes = try parseBytes(context, value, data);
    if (elementBits(tensor.dtype)) |bits| {
        const bit_count = std.math.mul(u64, element_count, bits) catch
            return context.fail("has a shape with more bytes than can be counted.", .{});
        if (bit_count != @as(u64, tensor.bytes.len) * 8) {
            return context.fail("takes {d} bytes in the file, but its shape {any} in {s} needs " ++
                "{d}.", .{ tensor.bytes.len, tensor.shape(), tensor.dtype, bit_count / 8 });
        }
    }
    return tensor;
}

fn parseBytes(
    context: Context,
    value: std.json.Value,
    data: []const u8,
) error{BadWeights}![]const u8 {
    const offsets = value.object.get("data_offsets") orelse
        return context.fail("has no data_offsets.", .{});
    if (offsets != .array or offsets.array.items.len != 2) {
        return context.fail("has data_offsets that are not a pair.", .{});
    }
    const first = try parseCount(context, offsets.array.items[0], "data_offsets");
    const end = try parseCount(context, offsets.array.items[1], "data_offsets");
    if (first > end) return context.fail("ends before it begins ({d} > {d}).", .{ first, end });
    if (end > data.len) {
        return context.fail("ends at byte {d} of the data, and the file has {d}: it was cut " ++
            "short. Copy or download it again.", .{ end, data.len });
    }
    return data[@intCast(first)..@intCast(end)];
}

fn parseCount(
    context: Context,
    value: std.json.Value,
    comptime key: []const u8,
) error{BadWeights}!u64 {
    if (value != .integer or value.integer < 0) {
        return context.fail("has a " ++ key ++ " entry that is not a whole number from 0.", .{});
    }
    return @intCast(value.integer);
}

/// Bits per element of the types that the format names; null for one that it may add later.
fn elementBits(dtype: []const u8) ?u64 {
    const bits = std.StaticStringMap(u64).initComptime(.{
        .{ "F64", 64 },    .{ "F32", 32 },    .{ "F16", 16 },    .{ "BF16", 16 },
        .{ "I64", 64 },    .{ "I32", 32 },    .{ "I16", 16 },    .{ "I8", 8 },
        .{ "U64", 64 },    .{ "U32", 32 },    .{ "U16", 16 },    .{ "U8", 8 },
        .{ "BOOL", 8 },    .{ "F8_E4M3", 8 }, .{ "F8_E5M2", 8 }, .{ "C64", 64 },
        .{ "F8_E8M0", 8 },
    });
    return bits.get(dtype);
}

fn refuseOverlap(
    arena: Allocator,
    path: []const u8,
    list: []const Tensor,
    d: *Diagnostics,
) Error!void {
    const order = try arena.dupe(Tensor, list);
    std.mem.sort(Tensor, order, {}, struct {
        fn lessThan(_: void, a: Tensor, b: Tensor) bool {
            return @intFromPtr(a.bytes.ptr) < @intFromPtr(b.bytes.ptr);
        }
    }.lessThan);
    var end: usize = 0;
    var owner: []const u8 = "";
    for (order) |tensor| {
        if (tensor.bytes.len == 0) continue;
        if (@intFromPtr(tensor.bytes.ptr) < end) {
            return d.fail(error.BadWeights, "{s}: tensors {s} and {s} overlap in the file.", .{
                path, owner, tensor.name,
            });
        }
        end = @intFromPtr(tensor.bytes.ptr) + tensor.bytes.len;
        owner = tensor.name;
    }
}

const testing = std.testing;

fn testFile(buffer: []u8, header: []const u8, data_bytes: usize) []u8 {
    std.mem.writeInt(u64, buffer[0..8], header.len, .little);
    @memcpy(buffer[8..][0..header.len], header);
    @memset(buffer[8 + header.len ..][0..data_bytes], 0x3c);
    return buffer[0 .. 8 + header.len + data_bytes];
}

fn expectRefused(header: []const u8, data_bytes: usize, expected: []const u8) !void {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var buffer: [1024]u8 = undefined;
    var d: Diagnostics = .{};
    const file = testFile(&buffer, header, data_bytes);
    try testing.expectError(error.BadWeights, parse(arena.allocator(), "f", file, &d));
    if (std.mem.indexOf(u8, d.message(), expected) == null) {
        std.debug.print("got: {s}\n", .{d.message()});
        return error.TestUnexpectedMessage;
    }
}

test "a whole file is read" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var buffer: [1024]u8 = undefined;
    var d: Diagnostics = .{};
    const file = testFile(&buffer,
        \\{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},
        \\"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}
    , 16);
    const list = try parse(arena.allocator(), "f", file, &d);
    try testing.expectEqual(@as(usize, 2), list.len);
    try testing.expectEqualSlices(u64, &.{ 2, 3 }, list[0].shape());
    try testing.expectEqual(@as(usize, 12), list[0].bytes.len);
    try testing.expectEqual(@as(usize, 0), list[1].shape().len);
}

test "each broken header gets its own sentence" {
    try expectRefused("{", 0, "not valid JSON");
    try expectRefused("[]", 0, "not a JSON object");
    try expectRefused("{\"a\":1}", 0, "not described by a JSON object");
    try expectRefused("{\"a\":{}}", 0, "has no dtype");
    try expectRefused("{\"a\":{\"dtype\":1}}", 0, "dtype that is not a string");
    try expectRefused("{\"a\":{\"dtype\":\"F16\"}}", 0, "has no shape");
    try expectRefused("{\"a\":{\"dtype\":\"F16\",\"shape\":2}}", 0, "shape that is not a list");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}}
    , 2, "not a whole number from 0");
    try expectRefused("{\"a\":{\"dtype\":\"F16\",\"shape\":[1]}}", 2, "has no data_offsets");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[1],"data_offsets":[0]}}
    , 2, "not a pair");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[1],"data_offsets":[2,0]}}
    , 2, "ends before it begins");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}
    , 6, "it was cut short");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,8]}}
    , 8, "takes 8 bytes in the file, but its shape { 3 } in F16 needs 6");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[9223372036854775807,9223372036854775807],
        \\"data_offsets":[0,8]}}
    , 8, "more elements than can be counted");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
        \\"b":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}}
    , 8, "tensors a and b overlap");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
        \\"a":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}}
    , 8, "DuplicateField");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,2]}}
    , 2, "has 9 dimensions");
}

test "short and absurd lengths are refused" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const one_byte_short = [_]u8{ 9, 0, 0, 0, 0, 0, 0, 0, '{' };
    for ([_][]const u8{ "", "1234567", &(.{255} ** 8), &one_byte_short }) |file| {
        var d: Diagnostics = .{};
        try testing.expectError(error.BadWeights, parse(arena.allocator(), "f", file, &d));
    }
}

test "random damage never reads outside the file" {
    const header =
        \\{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},
        \\"b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]}}
    ;
    var random: std.Random.DefaultPrng = .init(7);
    for (0..20_000) |_| {
        var arena: std.heap.ArenaAllocator = .init(testing.allocator);
        defer arena.deinit();
        var buffer: [256]u8 = undefined;
        const file = testFile(&buffer, header, 16);
        for (0..random.random().intRangeAtMost(usize, 1, 6)) |_| {
            file[random.random().uintLessThan(usize, file.len)] = random.random().int(u8);
        }
        const cut = file[0..random.random().intRangeAtMost(usize, 0, file.len)];
        var d: Diagnostics = .{};
        const list = parse(arena.allocator(), "f", cut, &d) catch continue;
        for (list) |tensor| {
            if (tensor.bytes.len == 0) continue;
            try testing.expect(@intFromPtr(tensor.bytes.ptr) >= @intFromPtr(cut.ptr));
            try testing.expect(
                @intFromPtr(tensor.bytes.ptr) + tensor.bytes.len <= @intFromPtr(cut.ptr) + cut.len,
            );
        }
    }
}
