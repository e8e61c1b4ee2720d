//! Stack switching within one thread: the callee-saved registers of the C calling convention are
//! saved on the old stack. A dozen instructions instead of ucontext, which makes a system call per
//! switch.

const std = @import("std");
const builtin = @import("builtin");

/// Switches to `target`, saved by another switch or made by `prepare`; returns when a later switch
/// targets `saved`.
pub const switchTo: *const fn (saved: *usize, target: usize) callconv(.c) void =
    @ptrCast(&bareSwitch);
/// Switches to `target` without saving the current stack.
pub const jumpTo: *const fn (target: usize) callconv(.c) noreturn = @ptrCast(&bareJump);

/// A switch target that starts `entry`, which must not return, on the stack that ends at `top`.
pub fn prepare(top: usize, entry: *const fn () callconv(.c) noreturn) usize {
    const frame: [*]usize = @ptrFromInt(std.mem.alignBackward(usize, top, 16) - 256);
    switch (builtin.cpu.arch) {
        // Six registers, then the address that `ret` takes: at entry the stack is 8 off 16.
        .x86_64 => {
            @memset(frame[0..8], 0);
            frame[6] = @intFromPtr(entry);
        },
        .aarch64 => {
            @memset(frame[0..20], 0);
            frame[11] = @intFromPtr(entry);
        },
        else => @compileError("no fibres for this CPU"),
    }
    return @intFromPtr(frame);
}

/// What ThreadSanitizer knows a stack by; nothing in other builds. `enter` comes right before the
/// switch to that stack.
pub const Watched = if (builtin.sanitize_thread) struct {
    fiber: *anyopaque,

    /// The stack that runs.
    pub fn current() Watched {
        return .{ .fiber = __tsan_get_current_fiber() };
    }

    pub fn init() Watched {
        return .{ .fiber = __tsan_create_fiber(0) };
    }

    /// Never of the stack that runs.
    pub fn deinit(watched: Watched) void {
        __tsan_destroy_fiber(watched.fiber);
    }

    pub inline fn enter(watched: Watched) void {
        __tsan_switch_to_fiber(watched.fiber, 0);
    }
} else struct {
    pub fn current() Watched {
        return .{};
    }

    pub fn init() Watched {
        return .{};
    }

    pub fn deinit(_: Watched) void {}

    pub inline fn enter(_: Watched) void {}
};

extern fn __tsan_get_current_fiber() *anyopaque;
extern fn __tsan_create_fiber(flags: c_uint) *anyopaque;
extern fn __tsan_destroy_fiber(fiber: *anyopaque) void;
extern fn __tsan_switch_to_fiber(fiber: *anyopaque, flags: c_uint) void;

/// Tells valgrind of a stack, and that it is gone; in other builds nothing.
pub fn announce(stack: []u8) usize {
    return if (builtin.valgrind_support) std.valgrind.stackRegister(stack) else 0;
}

pub fn forget(id: usize) void {
    if (builtin.valgrind_support) std.valgrind.stackDeregister(id);
}

// Functions and not assembly beside them, which Zig's own backend leaves out.

fn bareSwitch() callconv(.naked) void {
    asm volatile (save ++ "\n" ++ restore);
}

fn bareJump() callconv(.naked) noreturn {
    asm volatile (restore);
}

comptime {
    // By a name for the emulator's signal handler, which is C++.
    @export(&bareJump, .{ .name = "bxl_fibre_jump", .visibility = .hidden });
}

const save = switch (builtin.cpu.arch) {
    .x86_64 =>
    \\  pushq %%rbp
    \\  pushq %%rbx
    \\  pushq %%r12
    \\  pushq %%r13
    \\  pushq %%r14
    \\  pushq %%r15
    \\  movq %%rsp, (%%rdi)
    \\  movq %%rsi, %%rdi
    ,
    .aarch64 =>
    \\  sub sp, sp, #160
    \\  stp x19, x20, [sp, #0]
    \\  stp x21, x22, [sp, #16]
    \\  stp x23, x24, [sp, #32]
    \\  stp x25, x26, [sp, #48]
    \\  stp x27, x28, [sp, #64]
    \\  stp x29, x30, [sp, #80]
    \\  stp d8, d9, [sp, #96]
    \\  stp d10, d11, [sp, #112]
    \\  stp d12, d13, [sp, #128]
    \\  stp d14, d15, [sp, #144]
    \\  mov x9, sp
    \\  str x9, [x0]
    \\  mov x0, x1
    ,
    else => "",
};

const restore = switch (builtin.cpu.arch) {
    .x86_64 =>
    \\  movq %%rdi, %%rsp
    \\  popq %%r15
    \\  popq %%r14
    \\  popq %%r13
    \\  popq %%r12
    \\  popq %%rbx
    \\  popq %%rbp
    \\  retq
    ,
    .aarch64 =>
    \\  mov sp, x0
    \\  ldp x19, x20, [sp, #0]
    \\  ldp x21, x22, [sp, #16]
    \\  ldp x23, x24, [sp, #32]
    \\  ldp x25, x26, [sp, #48]
    \\  ldp x27, x28, [sp, #64]
    \\  ldp x29, x30, [sp, #80]
    \\  ldp d8, d9, [sp, #96]
    \\  ldp d10, d11, [sp, #112]
    \\  ldp d12, d13, [sp, #128]
    \\  ldp d14, d15, [sp, #144]
    \\  add sp, sp, #160
    \\  ret
    ,
    else => "",
};
