//! A compile-time check that every device has the operations of the others, by name.

const std = @import("std");

/// Every operation of `Device` exists on the others.
pub fn expectOperations(comptime Device: type, comptime others: []const type) void {
    @setEvalBranchQuota(10_000);
    for (@typeInfo(Device).@"struct".decls) |decl| {
        const is_function = @typeInfo(@TypeOf(@field(Device, decl.name))) == .@"fn";
        if (!is_function or !isOperation(decl.name)) continue;
        for (others) |Other| if (!@hasDecl(Other, decl.name)) {
            @compileError(@typeName(Other) ++ " lacks the operation " ++ decl.name);
        };
    }
}

/// Leaves out the device's life, and what writes or reads values, of which the dry run has none.
fn isOperation(comptime name: []const u8) bool {
    for ([_][]const u8{
        "init", "deinit", "upload", "download", "philoxNormal", "endFiniteCheck",
    }) |other| {
        if (std.mem.eql(u8, name, other)) return false;
    }
    return true;
}
