//! The stacks of a block's threads, between guards.

const fibre = @import("fibre");
const guards = @import("guards.zig");

const stack_bytes = 64 << 10;

pub const Stack = struct {
    top: usize,

    /// Tops differ in their low bits, since lines at the same
    /// place of every stack would share few sets of the cache.
    pub fn init(index: usize) Stack {
        const memory = guards.map(stack_bytes) catch @panic("no memory for the stacks of a block");
        const top = @intFromPtr(memory.ptr) + memory.len - guards.bytes - 64;
        return .{ .top = top - index % 32 * 320 };
    }

    /// Where a switch begins `entry`, which must not return.
    pub fn prepare(stack: Stack, entry: *const fn () callconv(.c) noreturn) usize {
        return fibre.prepare(stack.top, entry);
    }
};
