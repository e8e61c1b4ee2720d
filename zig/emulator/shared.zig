//! Shared memory: one mapping per variable between forbidden pages, full of 0xff when a block first
//! reaches it. One block runs at a time, so that one set serves all.

const std = @import("std");
const block = @import("block.zig");
const guards = @import("guards.zig");

/// Without asking for more, and the most that any GPU gives.
pub const static_bytes_max = 48 << 10;
const dynamic_bytes_max = 227 << 10;

/// For the launches that follow.
pub fn prepare(bytes: usize) void {
    if (dynamic.mapping.len == 0) dynamic.map();
    dynamic.bytes = bytes;
}

pub fn begin() void {
    variable_count = 0;
    static_bytes = 0;
    if (dynamic.bytes > 0) guards.poison(dynamic.data());
}

/// What was written beside a variable, in the bytes that alignment left over.
pub fn check() ?block.Failure {
    for (variables[0..variable_count]) |*variable| if (!variable.isIntact()) return outside;
    return if (dynamic.bytes > 0 and !dynamic.isIntact()) outside else null;
}

// --- internal ---

const outside: block.Failure = .{
    .result = .illegal_address,
    .text = "shared memory was written past the end of a variable",
};

const Variable = struct {
    key: usize = 0,
    bytes: usize = 0,
    alignment: usize = 16,
    mapping: []align(std.heap.page_size_min) u8 = &.{},

    /// With the bytes that alignment leaves over: it ends where the forbidden page begins.
    fn data(variable: *const Variable) []u8 {
        const end = variable.mapping.len - guards.bytes;
        return variable.mapping[end - whole(variable) .. end];
    }

    fn whole(variable: *const Variable) usize {
        return std.mem.alignForward(usize, variable.bytes, variable.alignment);
    }

    fn isIntact(variable: *const Variable) bool {
        return std.mem.allEqual(u8, variable.data()[variable.bytes..], 0xff);
    }

    fn map(variable: *Variable) void {
        variable.mapping = guards.map(dynamic_bytes_max) catch
            @panic("no memory for the shared memory of a block");
    }
};

var variables: [32]Variable = @splat(.{});
var variable_count: usize = 0;
var static_bytes: usize = 0;
var dynamic: Variable = .{ .alignment = 128 };

export fn bxl_host_shared(key: *const anyopaque, bytes: usize) [*]u8 {
    for (variables[0..variable_count]) |*variable| {
        if (variable.key == @intFromPtr(key)) return variable.data().ptr;
    }
    static_bytes += bytes;
    if (variable_count == variables.len or static_bytes > static_bytes_max) {
        block.fail(.launch_failed, "more than {d} KiB or {d} variables of static shared memory", .{
            static_bytes_max >> 10, variables.len,
        });
    }
    const variable = &variables[variable_count];
    variable_count += 1;
    if (variable.mapping.len == 0) variable.map();
    variable.key = @intFromPtr(key);
    variable.bytes = bytes;
    guards.poison(variable.data());
    return variable.data().ptr;
}

export fn bxl_host_dynamic_shared() [*]u8 {
    return dynamic.data().ptr;
}
