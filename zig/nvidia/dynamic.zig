//! Shared libraries opened at run time, and tables of their functions: a struct whose fields are
//! function pointers named as the library's symbols. Nothing is ever closed: the vendor's
//! libraries keep threads and at-exit handlers, and unloading them crashes.

const std = @import("std");
const builtin = @import("builtin");

/// As dlopen hands it out.
pub const Handle = *anyopaque;

/// Null where there is no such library, or it cannot be loaded; `lastError` has the reason.
pub fn open(path: [*:0]const u8) ?Handle {
    const search_path = std.c.getenv("LD_LIBRARY_PATH") orelse "";
    if (!isPlanted(std.mem.span(search_path), std.mem.span(path)))
        return std.c.dlopen(path, .{ .NOW = true });
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    for (system_folders) |folder| {
        const place = std.fmt.bufPrintZ(&buffer, "{s}/{s}", .{ folder, path }) catch continue;
        if (std.c.dlopen(place, .{ .NOW = true })) |library| return library;
    }
    return null;
}

/// The system's message for the last failure on this thread, "" for none.
pub fn lastError() []const u8 {
    return std.mem.span(std.c.dlerror() orelse return "");
}

/// Fills a table. A symbol that is not there leaves its name in `missing`: the library is too old.
pub fn load(
    comptime Table: type,
    library: Handle,
    missing: *[]const u8,
) error{SymbolMissing}!Table {
    var table: Table = undefined;
    inline for (@typeInfo(Table).@"struct".fields) |field| {
        const symbol = std.c.dlsym(library, field.name) orelse {
            missing.* = field.name;
            return error.SymbolMissing;
        };
        @field(table, field.name) = @ptrCast(@alignCast(symbol));
    }
    return table;
}

/// The file that a function of an opened library came from; "" where the system does not report it.
pub fn pathOf(function: *const anyopaque, buffer: []u8) []const u8 {
    var info: SymbolInfo = undefined;
    if (dladdr(function, &info) == 0) return "";
    const path = std.mem.span(info.file_name orelse return "");
    const count = @min(path.len, buffer.len);
    @memcpy(buffer[0..count], path[0..count]);
    return buffer[0..count];
}

// --- internal ---

/// Where the system's loader looks by itself.
const system_folders = [_][]const u8{
    "/usr/lib/" ++ multiarch, "/lib/" ++ multiarch, "/usr/lib64",       "/lib64",
    "/usr/lib",               "/lib",               "/usr/lib/wsl/lib",
};
const multiarch = @tagName(builtin.cpu.arch) ++ "-linux-gnu";

/// Whether the loader would find `name` in the current folder, or by way of it: relative entries of
/// LD_LIBRARY_PATH name places there, an empty one (as in "/opt/lib:") the folder itself.
fn isPlanted(search_path: []const u8, name: []const u8) bool {
    if (search_path.len == 0 or std.mem.indexOfScalar(u8, name, '/') != null) return false;
    var entries = std.mem.splitAny(u8, search_path, ":;");
    while (entries.next()) |entry| {
        if (std.fs.path.isAbsolute(entry)) continue;
        const folder = if (entry.len == 0) "." else entry;
        var buffer: [std.fs.max_path_bytes]u8 = undefined;
        const path = std.fmt.bufPrintZ(&buffer, "{s}/{s}", .{ folder, name }) catch return true;
        if (std.c.access(path, std.posix.F_OK) == 0) return true;
    }
    return false;
}

/// Dl_info of dlfcn.h, the same on Linux and macOS.
const SymbolInfo = extern struct {
    file_name: ?[*:0]const u8,
    file_base: ?*anyopaque,
    symbol_name: ?[*:0]const u8,
    symbol_address: ?*anyopaque,
};

extern "c" fn dladdr(address: *const anyopaque, info: *SymbolInfo) c_int;

test "a library that is not there is no library, and says why" {
    try std.testing.expectEqual(@as(?Handle, null), open("libbasedxl_no_such_library.so.1"));
    try std.testing.expect(lastError().len > 0);
}

test "a library of the current folder is not found by its name" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    try tmp.dir.writeFile(std.testing.io, .{ .sub_path = "libx.so", .data = "" });
    var buffer: [100]u8 = undefined;
    const here = try std.fmt.bufPrint(&buffer, ".zig-cache/tmp/{s}", .{tmp.sub_path});
    try std.testing.expect(isPlanted(here, "libx.so"));
    try std.testing.expect(!isPlanted(here, "liby.so"));
    try std.testing.expect(!isPlanted("/usr/lib", "libx.so"));
    for ([_][]const u8{ ":", "/usr/lib:", ":/usr/lib", "/usr/lib::/lib", "." }) |path| {
        try std.testing.expect(isPlanted(path, "build.zig"));
        try std.testing.expect(!isPlanted(path, "/build.zig"));
        try std.testing.expect(!isPlanted(path, "libx.so"));
    }
    try std.testing.expect(!isPlanted("", "build.zig"));
}

test "a table is filled from the program itself, and a missing symbol is named" {
    const library = std.c.dlopen(null, .{ .NOW = true }) orelse return error.SkipZigTest;
    var missing: []const u8 = "";
    const Present = struct { strlen: *const fn ([*:0]const u8) callconv(.c) usize };
    const present = try load(Present, library, &missing);
    try std.testing.expectEqual(@as(usize, 3), present.strlen("abc"));
    const Absent = struct { basedxl_no_such_function: *const fn () callconv(.c) void };
    try std.testing.expectError(error.SymbolMissing, load(Absent, library, &missing));
    try std.testing.expectEqualStrings("basedxl_no_such_function", missing);
    var buffer: [512]u8 = undefined;
    try std.testing.expect(pathOf(present.strlen, &buffer).len > 0);
}
