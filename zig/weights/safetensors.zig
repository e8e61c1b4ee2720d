//! Parses the safetensors format from untrusted bytes: 8 bytes of header length,
//! a JSON header, then the tensors. Every offset is checked against the file before it is used, so
//! a `Tensor` returned here can be read without further checks; the last one ends with the file, as
//! the reference implementation demands. The header is read token by token: depth, tensor count and
//! dimensions are limited before memory is spent on them.
//! Source: https://huggingface.co/docs/safetensors (format section).

const std = @import("std");
const Allocator = std.mem.Allocator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const metadata_key = @import("quantization.zig").metadata_key;
const shown = @import("shown.zig").shown;

pub const Error = error{ BadWeights, OutOfMemory };

/// Limit of the reference implementation: a longer header is refused before it is read.
pub const header_bytes_max = 100_000_000;
/// Limit of serde_json, the parser of the reference implementation.
pub const depth_max = 128;
/// SDXL's largest component has 1,680.
pub const tensor_count_max = 100_000;
pub const rank_max = 8;

pub const Tensor = struct {
    name: []const u8,
    /// The file's name of the type ("F16"), as text: types of unused tensors may be unknown.
    dtype: []const u8,
    dimensions: [rank_max]u64 = @splat(1),
    rank: u8 = 0,
    bytes: []const u8 = &.{},

    pub fn shape(tensor: *const Tensor) []const u64 {
        return tensor.dimensions[0..tensor.rank];
    }
};

pub const Header = struct {
    tensors: []Tensor,
    /// The value of `metadata_key` in the header's metadata; "" where it has none.
    quantization: []const u8,
};

/// The header of one file. `path` is for messages; names and types are copied into `arena`, the
/// tensors' bytes are not.
pub fn parse(
    arena: Allocator,
    path: []const u8,
    file: []const u8,
    diagnostics: *Diagnostics,
) Error!Header {
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
    var reader: Reader = .{
        .arena = arena,
        .path = path,
        .diagnostics = d,
        .scanner = .initCompleteInput(arena, file[8..header_end]),
    };
    const list = try reader.header(file[header_end..]);
    const order = try arena.dupe(Tensor, list);
    try refuseDuplicates(path, order, d);
    try refuseOverlap(path, order, d);
    const rest = file.len - header_end - reader.data_end;
    if (rest > 0) {
        const sentence = "{s} is too long: its last tensor ends {d} bytes before the file. " ++
            "Copy or download it again.";
        return d.fail(error.BadWeights, sentence, .{ path, rest });
    }
    return .{ .tensors = list, .quantization = reader.quantization };
}

// --- internal ---

const Reader = struct {
    arena: Allocator,
    path: []const u8,
    diagnostics: *Diagnostics,
    scanner: std.json.Scanner,
    /// Fields of the tensor that is being parsed.
    name: []const u8 = "",
    quantization: []const u8 = "",
    /// Where the tensors end so far, in the data.
    data_end: usize = 0,

    fn header(reader: *Reader, data: []const u8) Error![]Tensor {
        const d = reader.diagnostics;
        var list: std.ArrayList(Tensor) = .empty;
        if (try reader.next() != .object_begin) {
            const sentence = "{s}: the safetensors header is not a JSON object.";
            return d.fail(error.BadWeights, sentence, .{reader.path});
        }
        while (try reader.key()) |name| {
            if (std.mem.eql(u8, name, "__metadata__")) {
                try reader.metadata();
                continue;
            }
            if (list.items.len == tensor_count_max) {
                const sentence = "{s}: the safetensors header names more than {d} tensors.";
                return d.fail(error.BadWeights, sentence, .{ reader.path, tensor_count_max });
            }
            reader.name = name;
            try list.append(reader.arena, try reader.oneTensor(data));
        }
        if (try reader.next() != .end_of_document) return reader.failJson("SyntaxError");
        return list.items;
    }

    /// Of the metadata, one value is kept; anything but strings is skipped, as unknown fields are.
    fn metadata(reader: *Reader) Error!void {
        const peeked = reader.scanner.peekNextTokenType() catch |err| return reader.failToken(err);
        if (peeked != .object_begin) return reader.skip();
        _ = try reader.next();
        while (try reader.key()) |name| {
            const kind = reader.scanner.peekNextTokenType() catch |err|
                return reader.failToken(err);
            const is_kept = std.mem.eql(u8, name, metadata_key) and kind == .string;
            if (is_kept) reader.quantization = (try reader.string()).? else try reader.skip();
        }
    }

    fn oneTensor(reader: *Reader, data: []const u8) Error!Tensor {
        if (try reader.next() != .object_begin) {
            return reader.fail("is not described by a JSON object.", .{});
        }
        var result: Tensor = .{ .name = reader.name, .dtype = "" };
        var offsets: [2]u64 = undefined;
        var found: std.EnumSet(enum { dtype, shape, data_offsets }) = .empty;
        while (try reader.key()) |name| {
            const field = std.meta.stringToEnum(@TypeOf(found).Key, name) orelse {
                try reader.skip();
                continue;
            };
            if (found.contains(field)) return reader.fail("has two entries {s}.", .{name});
            found.insert(field);
            switch (field) {
                .dtype => result.dtype = try reader.string() orelse
                    return reader.fail("has a dtype that is not a string.", .{}),
                .shape => result.rank = @intCast(try reader.counts("shape", &result.dimensions)),
                .data_offsets => if (try reader.counts("data_offsets", &offsets) != offsets.len) {
                    return reader.fail("has data_offsets that are not a pair.", .{});
                },
            }
        }
        if (!found.contains(.dtype)) return reader.fail("has no dtype.", .{});
        if (!found.contains(.shape)) return reader.fail("has no shape.", .{});
        if (!found.contains(.data_offsets)) return reader.fail("has no data_offsets.", .{});
        result.bytes = try reader.bytesOf(offsets, data);
        try reader.checkSize(&result);
        return result;
    }

    fn bytesOf(reader: *Reader, offsets: [2]u64, data: []const u8) Error![]const u8 {
        const first, const end = offsets;
        if (first > end) return reader.fail("ends before it begins ({d} > {d}).", .{ first, end });
        if (end > data.len) {
            return reader.fail("ends at byte {d} of the data, and the file has {d}: it was cut " ++
                "short. Copy or download it again.", .{ end, data.len });
        }
        reader.data_end = @max(reader.data_end, @as(usize, @intCast(end)));
        return data[@intCast(first)..@intCast(end)];
    }

    fn checkSize(reader: *Reader, t: *const Tensor) Error!void {
        var element_count: u64 = 1;
        for (t.shape()) |dimension| {
            element_count = std.math.mul(u64, element_count, dimension) catch
                return reader.fail("has a shape with more elements than can be counted.", .{});
        }
        const bits = elementBits(t.dtype) orelse return;
        const bit_count = std.math.mul(u64, element_count, bits) catch
            return reader.fail("has a shape with more bytes than can be counted.", .{});
        if (bit_count == @as(u64, t.bytes.len) * 8) return;
        return reader.fail("takes {d} bytes in the file, but its shape {any} in {s} needs {d}.", .{
            t.bytes.len, t.shape(), t.dtype, bit_count / 8,
        });
    }

    /// The next key of the object that is being parsed; null at its end.
    fn key(reader: *Reader) Error!?[]const u8 {
        return switch (try reader.next()) {
            .object_end => null,
            .allocated_string => |text| text,
            else => unreachable,
        };
    }

    fn string(reader: *Reader) Error!?[]const u8 {
        return switch (try reader.next()) {
            .allocated_string => |text| text,
            else => null,
        };
    }

    /// Parses an array of whole numbers into `target`; returns their number.
    fn counts(reader: *Reader, comptime field: []const u8, target: []u64) Error!usize {
        if (try reader.next() != .array_begin) {
            return reader.fail("has a " ++ field ++ " that is not a list.", .{});
        }
        var count: usize = 0;
        while (true) {
            const text = switch (try reader.next()) {
                .array_end => return count,
                .allocated_number => |text| text,
                else => "",
            };
            if (count == target.len) {
                return reader.fail("has a " ++ field ++ " of more than {d} entries.", .{count});
            }
            const is_whole = text.len > 0 and text[0] != '-' and
                std.json.isNumberFormattedLikeAnInteger(text);
            const sentence = "has a " ++ field ++ " entry that is not a whole number from 0.";
            if (!is_whole) return reader.fail(sentence, .{});
            target[count] = std.fmt.parseInt(u64, text, 10) catch
                return reader.fail(sentence, .{});
            count += 1;
        }
    }

    /// Skips one value of any kind.
    fn skip(reader: *Reader) Error!void {
        const depth = reader.scanner.stackHeight();
        while (true) {
            const token = reader.scanner.next() catch |err| return reader.failToken(err);
            try reader.checkDepth();
            switch (token) {
                .partial_number, .partial_string => {},
                .partial_string_escaped_1, .partial_string_escaped_2 => {},
                .partial_string_escaped_3, .partial_string_escaped_4 => {},
                else => if (reader.scanner.stackHeight() == depth) return,
            }
        }
    }

    fn next(reader: *Reader) Error!std.json.Token {
        const token = reader.scanner.nextAlloc(reader.arena, .alloc_always) catch |err|
            return reader.failToken(err);
        try reader.checkDepth();
        return token;
    }

    fn checkDepth(reader: *Reader) error{BadWeights}!void {
        if (reader.scanner.stackHeight() < depth_max) return;
        const sentence = "{s}: the safetensors header is nested deeper than {d} levels.";
        return reader.diagnostics.fail(error.BadWeights, sentence, .{ reader.path, depth_max - 1 });
    }

    fn failToken(reader: *Reader, err: anyerror) Error {
        if (err == error.OutOfMemory) return error.OutOfMemory;
        return reader.failJson(@errorName(err));
    }

    fn failJson(reader: *Reader, reason: []const u8) error{BadWeights} {
        return reader.diagnostics.fail(error.BadWeights, "{s}: the safetensors header is not " ++
            "valid JSON ({s}). Copy or download the file again.", .{ reader.path, reason });
    }

    fn fail(reader: *Reader, comptime format: []const u8, args: anytype) error{BadWeights} {
        return reader.diagnostics.fail(
            error.BadWeights,
            "{s}: tensor {f} " ++ format,
            .{ reader.path, shown(reader.name) } ++ args,
        );
    }
};

/// Bits per element of the format's types; null for an unknown type.
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

/// Sorts `order` by name.
fn refuseDuplicates(path: []const u8, order: []Tensor, d: *Diagnostics) error{BadWeights}!void {
    std.mem.sortUnstable(Tensor, order, {}, struct {
        fn lessThan(_: void, a: Tensor, b: Tensor) bool {
            return std.mem.lessThan(u8, a.name, b.name);
        }
    }.lessThan);
    for (order, 0..) |tensor, i| {
        if (i == 0 or !std.mem.eql(u8, order[i - 1].name, tensor.name)) continue;
        const sentence = "{s}: tensor {f} is in the header twice.";
        return d.fail(error.BadWeights, sentence, .{ path, shown(tensor.name) });
    }
}

/// Sorts `order` by place in the file.
fn refuseOverlap(path: []const u8, order: []Tensor, d: *Diagnostics) error{BadWeights}!void {
    std.mem.sortUnstable(Tensor, order, {}, struct {
        fn lessThan(_: void, a: Tensor, b: Tensor) bool {
            return @intFromPtr(a.bytes.ptr) < @intFromPtr(b.bytes.ptr);
        }
    }.lessThan);
    var end: usize = 0;
    var owner: []const u8 = "";
    for (order) |tensor| {
        if (tensor.bytes.len == 0) continue;
        if (@intFromPtr(tensor.bytes.ptr) < end) {
            return d.fail(error.BadWeights, "{s}: tensors {f} and {f} overlap in the file.", .{
                path, shown(owner), shown(tensor.name),
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
    const header = try parse(arena.allocator(), "f", file, &d);
    const list = header.tensors;
    try testing.expectEqualStrings("", header.quantization);
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
        \\{"a":{"dtype":"F16","dtype":"F32","shape":[1],"data_offsets":[0,2]}}
    , 2, "has two entries dtype");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[1.0],"data_offsets":[0,2]}}
    , 2, "not a whole number from 0");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,18446744073709551616]}}
    , 2, "not a whole number from 0");
    try expectRefused("{} 1", 0, "not valid JSON");
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
    , 8, "tensor a is in the header twice");
    try expectRefused(
        \\{"a":{"dtype":"F16","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,2]}}
    , 2, "has a shape of more than 8 entries");
}

test "the last tensor ends with the file, whatever its place in the header" {
    const header =
        \\{"b":{"dtype":"F16","shape":[2],"data_offsets":[2,6]},
        \\"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}
    ;
    try expectRefused(header, 7, "too long: its last tensor ends 1 bytes before the file");
    try expectRefused("{}", 3, "too long: its last tensor ends 3 bytes before the file");
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var buffer: [256]u8 = undefined;
    var d: Diagnostics = .{};
    _ = try parse(arena.allocator(), "f", testFile(&buffer, header, 6), &d);
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

test "what is not read is skipped, names of any length are cut in messages" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var buffer: [1024]u8 = undefined;
    var d: Diagnostics = .{};
    const file = testFile(&buffer,
        \\{"__metadata__":{"a":"\"[{","b":[[{"c":[null,true,-1e9]}],"\u00e4\ud83d\ude00"],
        \\"_quantization_metadata":"{\"layers\":{}}"},
        \\"a\n":{"other":{"dtype":[]},"dtype":"F16","shape":[1],"data_offsets":[0,2]}}
    , 2);
    const header = try parse(arena.allocator(), "f", file, &d);
    try testing.expectEqual(@as(usize, 1), header.tensors.len);
    try testing.expectEqualStrings("a\n", header.tensors[0].name);
    try testing.expectEqualStrings("{\"layers\":{}}", header.quantization);
    try expectRefused("{\"" ++ "x" ** 500 ++ "\":1}", 0, "tensor " ++ "x" ** 117 ++ "... is not");
}

/// Memory that a refusal may take, whatever the header says.
fn expectRefusedWithin(memory: []u8, header: []const u8, expected: []const u8) !void {
    var fixed: std.heap.FixedBufferAllocator = .init(memory);
    const file = try testing.allocator.alloc(u8, 8 + header.len);
    defer testing.allocator.free(file);
    _ = testFile(file, header, 0);
    var d: Diagnostics = .{};
    try testing.expectError(error.BadWeights, parse(fixed.allocator(), "f", file, &d));
    try testing.expect(std.mem.indexOf(u8, d.message(), expected) != null);
}

test "nesting is limited before it takes memory, wherever it is" {
    var memory: [64 * 1024]u8 = undefined;
    const deep = "[" ** 100_000;
    const objects = "{\"a\":" ** 100_000;
    const sentence = "nested deeper than 127 levels";
    for ([_][]const u8{
        "{\"__metadata__\":" ++ deep,
        "{\"__metadata__\":" ++ objects,
        "{\"a\":{\"other\":" ++ deep,
    }) |header| try expectRefusedWithin(&memory, header, sentence);
    try expectRefusedWithin(&memory, deep, "is not a JSON object");
    try expectRefusedWithin(&memory, "{\"a\":" ++ deep, "not described by a JSON object");
    try expectRefusedWithin(&memory, "{\"a\":{\"shape\":" ++ deep, "entry that is not a whole");
    // As deep as the reference implementation reads.
    const depth = depth_max - 2;
    const edge = "{\"__metadata__\":" ++ "[" ** depth ++ "]" ** depth ++ "}";
    var buffer: [1024]u8 = undefined;
    var fixed: std.heap.FixedBufferAllocator = .init(&memory);
    var d: Diagnostics = .{};
    const parsed = try parse(fixed.allocator(), "f", testFile(&buffer, edge, 0), &d);
    try testing.expectEqual(@as(usize, 0), parsed.tensors.len);
}

test "lists and headers without end are left at their limits" {
    var memory: [256 * 1024]u8 = undefined;
    const shape = "{\"a\":{\"shape\":[1" ++ ",1" ** 100_000;
    try expectRefusedWithin(&memory, shape, "more than 8 entries");
    const huge = try testing.allocator.alloc(u8, 64 << 20);
    defer testing.allocator.free(huge);
    var text: std.ArrayList(u8) = .empty;
    defer text.deinit(testing.allocator);
    try text.append(testing.allocator, '{');
    for (0..tensor_count_max + 1) |i| {
        try text.print(testing.allocator, "\"{d}\":", .{i});
        try text.appendSlice(testing.allocator, "{\"dtype\":\"U8\",\"shape\":[0]," ++
            "\"data_offsets\":[0,0]},");
    }
    try expectRefusedWithin(huge, text.items, "names more than 100000 tensors");
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
        const parsed = parse(arena.allocator(), "f", cut, &d) catch continue;
        for (parsed.tensors) |tensor| {
            if (tensor.bytes.len == 0) continue;
            try testing.expect(@intFromPtr(tensor.bytes.ptr) >= @intFromPtr(cut.ptr));
            try testing.expect(
                @intFromPtr(tensor.bytes.ptr) + tensor.bytes.len <= @intFromPtr(cut.ptr) + cut.len,
            );
        }
    }
}
