//! A call of a vendor library that failed, in the form that the vendor's documentation and search
//! engines know: "cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY (2), out of memory".

const std = @import("std");

/// Printed by "{f}".
pub const CallError = struct {
    /// Name of the exported function.
    call: []const u8 = "the library",
    /// Name of the error code; "" where the library has none for it.
    name: []const u8 = "",
    code: c_int = 0,
    /// The library's description; "" where there is none.
    text: []const u8 = "",

    pub fn format(e: CallError, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.print("{s} failed: ", .{e.call});
        if (e.name.len > 0) {
            try writer.print("{s} ({d})", .{ e.name, e.code });
        } else {
            try writer.print("error {d}", .{e.code});
        }
        if (e.text.len > 0) try writer.print(", {s}", .{e.text});
    }
};

/// The name of a code as the vendor's header spells it, from the tag of our enum: `prefix` and the
/// tag in upper case. "" for codes that the enum does not list.
pub fn upperName(comptime prefix: []const u8, code: anytype) []const u8 {
    inline for (@typeInfo(@TypeOf(code)).@"enum".fields) |field| {
        if (@intFromEnum(code) == field.value) return comptime prefix ++ upper(field.name);
    }
    return "";
}

/// As `upperName`, in camel case: "ncclSystemError".
pub fn camelName(comptime prefix: []const u8, code: anytype) []const u8 {
    inline for (@typeInfo(@TypeOf(code)).@"enum".fields) |field| {
        if (@intFromEnum(code) == field.value) return comptime prefix ++ camel(field.name);
    }
    return "";
}

// --- internal ---

fn upper(comptime name: []const u8) []const u8 {
    var out: [name.len]u8 = undefined;
    _ = std.ascii.upperString(&out, name);
    const fixed = out;
    return &fixed;
}

fn camel(comptime name: []const u8) []const u8 {
    var out: []const u8 = "";
    var words = std.mem.tokenizeScalar(u8, name, '_');
    while (words.next()) |word| {
        out = out ++ &[_]u8{std.ascii.toUpper(word[0])} ++ word[1..];
    }
    return out;
}

test "codes get the names of the vendor's headers" {
    const Code = enum(c_int) { success = 0, alloc_failed = 3, _ };
    const failed: Code = .alloc_failed;
    const expectEqualStrings = std.testing.expectEqualStrings;
    try expectEqualStrings("CUBLAS_STATUS_ALLOC_FAILED", upperName("CUBLAS_STATUS_", failed));
    try expectEqualStrings("ncclAllocFailed", camelName("nccl", failed));
    try expectEqualStrings("", upperName("CUBLAS_STATUS_", @as(Code, @enumFromInt(77))));
}

test "call, name, number, text" {
    const e: CallError = .{ .call = "cuInit", .name = "CUDA_ERROR_X", .code = 7, .text = "why" };
    try std.testing.expectFmt("cuInit failed: CUDA_ERROR_X (7), why", "{f}", .{e});
    const bare: CallError = .{ .call = "cudnnCreate", .code = 5 };
    try std.testing.expectFmt("cudnnCreate failed: error 5", "{f}", .{bare});
}
