//! The command that a tool of faults runs: signals to the tool are the command's, and so is the
//! tool's exit code.

const std = @import("std");
const linux = std.os.linux;

/// Of the shell's convention for a command that cannot be run.
pub const unavailable = 125;

/// In a child: ends with its parent, and becomes the command.
pub fn dieWithParent() void {
    _ = linux.prctl(@intFromEnum(linux.PR.SET_PDEATHSIG), @intFromEnum(linux.SIG.KILL), 0, 0, 0);
}

/// Null-terminated, as execve takes it.
pub fn vectorOf(arena: std.mem.Allocator, words: []const [:0]const u8) ![:null]?[*:0]const u8 {
    const vector = try arena.allocSentinel(?[*:0]const u8, words.len, null);
    for (vector, words) |*place, word| place.* = word.ptr;
    return vector;
}

pub fn become(argv: [:null]const ?[*:0]const u8) noreturn {
    _ = std.c.execve(argv[0].?, argv.ptr, std.c.environ);
    linux.exit_group(unavailable);
}

var signalled: linux.pid_t = 0;

/// Signals to this process are the command's.
pub fn passSignals(child: linux.pid_t) void {
    signalled = child;
    const action: std.posix.Sigaction = .{
        .handler = .{ .handler = passOn },
        .mask = std.posix.sigemptyset(),
        .flags = std.posix.SA.RESTART,
    };
    for ([_]linux.SIG{ .TERM, .INT, .HUP }) |signal| std.posix.sigaction(signal, &action, null);
}

fn passOn(signal: linux.SIG) callconv(.c) void {
    _ = linux.kill(signalled, signal);
}

/// 128 + signal where it was killed.
pub fn exitCodeOf(status: u32) u8 {
    if (linux.W.IFEXITED(status)) return linux.W.EXITSTATUS(status);
    return 128 +% @as(u8, @truncate(@intFromEnum(linux.W.TERMSIG(status))));
}
