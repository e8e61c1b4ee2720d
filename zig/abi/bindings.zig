//! Writes `src/native/abi.ts` from `abi.zig`: every struct and function that crosses the boundary,
//! with sizes, offsets, and readers or writers. Run by `zig build bindings`; a test compares the
//! committed file.

const std = @import("std");
const abi = @import("../abi.zig");
const types = @import("types.zig");

const header =
    \\/**
    \\ * Generated from zig/abi.zig by `zig build bindings`; do not edit. Writers and readers place
    \\ * the fields of each struct at their offsets in little-endian order, as the library lays them
    \\ * out.
    \\ */
    \\
    \\/** Text that ends at its first 0 byte. */
    \\function readText(v: DataView, at: number, length: number): string {
    \\  const bytes = new Uint8Array(v.buffer, v.byteOffset + at, length);
    \\  const end = bytes.indexOf(0);
    \\  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? length : end));
    \\}
    \\
    \\/** The name of an enum's value. */
    \\function nameOf<E extends Record<string, number>>(names: E, value: number): keyof E {
    \\  for (const name in names) if (names[name] === value) return name;
    \\  throw new RangeError(`The library gave ${value}, which names none of its values.`);
    \\}
    \\
;

pub fn main(init: std.process.Init) !void {
    var buffer: [4096]u8 = undefined;
    var stdout = std.Io.File.stdout().writerStreaming(init.io, &buffer);
    const w = &stdout.interface;
    try w.writeAll(header);
    try w.print("\nexport const abiVersion = {d};\n", .{types.abi_version});
    inline for (types.constants) |constant| {
        try w.print("export const {s} = {d};\n", .{ comptime camel(constant[0]), constant[1] });
    }
    inline for (types.enums) |E| try writeEnum(w, E);
    inline for (types.structs_in) |S| {
        try writeInterface(w, S, true);
        try writeWriter(w, S);
    }
    try writeZero(w, types.Request);
    inline for (types.structs_out) |S| {
        try writeInterface(w, S, false);
        try writeReader(w, S);
    }
    try writeFunctions(w);
    try w.flush();
}

// --- internal ---

/// Members keep the names they have in Zig: some are those that users type.
fn writeEnum(w: *std.Io.Writer, comptime E: type) !void {
    try w.print("\nexport const {s} = {{\n", .{comptime typeName(E)});
    inline for (@typeInfo(E).@"enum".fields) |field| {
        try w.print("  {s}: {d},\n", .{ field.name, field.value });
    }
    try w.writeAll("} as const;\n");
}

fn writeInterface(w: *std.Io.Writer, comptime S: type, comptime is_in: bool) !void {
    const name = comptime typeName(S);
    try w.print("\nexport interface {s} {{\n", .{name});
    inline for (@typeInfo(S).@"struct".fields) |field| {
        if (comptime isSize(field)) continue;
        try w.print("  {s}: {s};\n", .{
            comptime camel(field.name), comptime tsType(field.type, is_in),
        });
    }
    try w.print("}}\n\nexport const sizeOf{s} = {d};\n", .{ name, @sizeOf(S) });
}

fn writeWriter(w: *std.Io.Writer, comptime S: type) !void {
    const name = comptime typeName(S);
    try w.print("\nexport function write{s}(v: DataView, at: number, s: {s}): void {{\n", .{
        name, name,
    });
    inline for (@typeInfo(S).@"struct".fields) |field| {
        const offset = @offsetOf(S, field.name);
        if (comptime isSize(field)) {
            try w.print("  v.setUint32(at + {d}, {d}, true);\n", .{ offset, @sizeOf(S) });
        } else {
            try writeSetter(w, field.type, offset, "s." ++ comptime camel(field.name));
        }
    }
    try w.writeAll("}\n");
}

/// A struct of zeros, to which callers add what their kind of request needs.
fn writeZero(w: *std.Io.Writer, comptime S: type) !void {
    const name = comptime typeName(S);
    try w.print("\nexport const zero{s}: {s} = {{\n", .{ name, name });
    inline for (@typeInfo(S).@"struct".fields) |field| {
        if (comptime isSize(field)) continue;
        try w.print("  {s}: {s},\n", .{ comptime camel(field.name), comptime zeroOf(field.type) });
    }
    try w.writeAll("};\n");
}

fn zeroOf(comptime T: type) []const u8 {
    switch (@typeInfo(T)) {
        .array => return "[]",
        .@"enum" => |e| return "\"" ++ e.fields[0].name ++ "\"",
        .@"struct" => |s| {
            comptime var fields: []const u8 = "";
            inline for (s.fields) |field| {
                fields = fields ++ " " ++ camel(field.name) ++ ": " ++ zeroOf(field.type) ++ ",";
            }
            return "{" ++ fields ++ " }";
        },
        else => return if (T == u64 or T == usize) "0n" else "0",
    }
}

fn writeReader(w: *std.Io.Writer, comptime S: type) !void {
    const name = comptime typeName(S);
    try w.print("\nexport function read{s}(v: DataView, at: number): {s} {{\n  return {{\n", .{
        name, name,
    });
    inline for (@typeInfo(S).@"struct".fields) |field| {
        if (comptime isSize(field)) continue;
        try w.print("    {s}: ", .{comptime camel(field.name)});
        try writeGetter(w, field.type, @offsetOf(S, field.name));
        try w.writeAll(",\n");
    }
    try w.writeAll("  };\n}\n");
}

/// What `dlopen` of bun:ffi takes.
fn writeFunctions(w: *std.Io.Writer) !void {
    try w.writeAll("\nexport const functions = {\n");
    inline for (@typeInfo(abi).@"struct".decls) |decl| {
        if (comptime !std.mem.startsWith(u8, decl.name, "bxl_")) continue;
        const function = @typeInfo(@TypeOf(@field(abi, decl.name))).@"fn";
        try w.print("  {s}: {{ args: [", .{decl.name});
        inline for (function.params, 0..) |param, i| {
            if (i > 0) try w.writeAll(", ");
            try w.print("\"{s}\"", .{comptime ffiType(param.type.?)});
        }
        try w.print("], returns: \"{s}\" }},\n", .{comptime ffiType(function.return_type.?)});
    }
    try w.writeAll("} as const;\n");
}

fn ffiType(comptime T: type) []const u8 {
    return switch (@typeInfo(T)) {
        .void => "void",
        .pointer, .optional => "ptr",
        .@"enum" => "u32",
        else => @typeName(T),
    };
}

fn writeSetter(
    w: *std.Io.Writer,
    comptime T: type,
    offset: usize,
    comptime value: []const u8,
) !void {
    switch (@typeInfo(T)) {
        .array => |array| if (comptime @typeInfo(array.child) == .array) {
            try writeMatrixSetter(w, T, offset, value);
        } else {
            try w.print("  for (let i = 0; i < {d}; i++) {{\n", .{array.len});
            try w.print("    v.set{s}(at + {d} + i * {d}, {s}[i] ?? 0{s});\n  }}\n", .{
                comptime accessor(array.child),
                offset,
                @sizeOf(array.child),
                value,
                comptime endian(array.child),
            });
        },
        .@"struct" => try w.print("  write{s}(v, at + {d}, {s});\n", .{
            comptime typeName(T), offset, value,
        }),
        .@"enum" => try w.print("  v.setUint32(at + {d}, {s}[{s}], true);\n", .{
            offset, comptime typeName(T), value,
        }),
        else => try w.print("  v.set{s}(at + {d}, {s}{s});\n", .{
            comptime accessor(T),
            offset,
            if (T == u32) "Number(" ++ value ++ ")" else value,
            comptime endian(T),
        }),
    }
}

/// Of an array of arrays; rows and values that are left out are 0.
fn writeMatrixSetter(
    w: *std.Io.Writer,
    comptime T: type,
    offset: usize,
    comptime value: []const u8,
) !void {
    const Row = @typeInfo(T).array.child;
    const row = @typeInfo(Row).array;
    try w.print("  for (let i = 0; i < {d}; i++) {{\n", .{@typeInfo(T).array.len});
    try w.print("    for (let j = 0; j < {d}; j++) {{\n", .{row.len});
    try w.print("      v.set{s}(at + {d} + i * {d} + j * {d}, {s}[i]?.[j] ?? 0{s});\n", .{
        comptime accessor(row.child),
        offset,
        @sizeOf(Row),
        @sizeOf(row.child),
        value,
        comptime endian(row.child),
    });
    try w.writeAll("    }\n  }\n");
}

fn writeGetter(w: *std.Io.Writer, comptime T: type, offset: usize) !void {
    switch (@typeInfo(T)) {
        .array => |array| {
            comptime std.debug.assert(array.child == u8);
            try w.print("readText(v, at + {d}, {d})", .{ offset, array.len });
        },
        .@"enum" => try w.print("nameOf({s}, v.getUint32(at + {d}, true))", .{
            comptime typeName(T), offset,
        }),
        else => try w.print("v.get{s}(at + {d}{s})", .{
            comptime accessor(T), offset, comptime endian(T),
        }),
    }
}

fn isSize(comptime field: std.builtin.Type.StructField) bool {
    return std.mem.eql(u8, field.name, "size");
}

fn accessor(comptime T: type) []const u8 {
    return switch (T) {
        u8 => "Uint8",
        u32 => "Uint32",
        f32 => "Float32",
        u64, usize => "BigUint64",
        else => @compileError("no accessor"),
    };
}

fn endian(comptime T: type) []const u8 {
    return if (T == u8) "" else ", true";
}

/// Writers take booleans for numbers too: a flag of the boundary is a u32.
fn tsType(comptime T: type, comptime is_in: bool) []const u8 {
    if (T == u32 and is_in) return "number | boolean";
    return switch (@typeInfo(T)) {
        .array => |array| if (array.child == u8) "string" else tsType(array.child, false) ++ "[]",
        .@"struct" => typeName(T),
        .@"enum" => "keyof typeof " ++ typeName(T),
        else => if (T == u64 or T == usize) "bigint" else "number",
    };
}

fn typeName(comptime T: type) []const u8 {
    const full = @typeName(T);
    const dot = std.mem.lastIndexOfScalar(u8, full, '.') orelse return full;
    return full[dot + 1 ..];
}

/// snake_case to camelCase.
fn camel(comptime name: []const u8) []const u8 {
    @setEvalBranchQuota(100_000);
    comptime var out: []const u8 = "";
    comptime var upper = false;
    inline for (name) |character| {
        if (character == '_') {
            upper = true;
        } else {
            out = out ++ [_]u8{if (upper) std.ascii.toUpper(character) else character};
            upper = false;
        }
    }
    return out;
}
