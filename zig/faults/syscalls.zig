//! Runs a command whose system calls fail where a test says so: `inject-faults REPORT FAULT...
//! -- COMMAND ...`. A fault is CALL:ACTION:FIRST:COUNT:FILES: of the calls of a kind that concern
//! files whose path begins with FILES (or PREFIX*SUFFIX), those from number FIRST on, COUNT of
//! them. ACTION is an errno (ENOSPC), "kill" (SIGKILL before the call) or "slow" (50 ms). Calls and
//! hits of each fault are written to REPORT.
//!
//! The kernel asks this process about each call (seccomp's user notifications), so that programs
//! that go past libc (Bun does) are reached too. Exits as the command; 128 + signal where it was
//! killed; 125 where the system has no such notifications.

const std = @import("std");
const linux = std.os.linux;
const seccomp = linux.SECCOMP;
const command = @import("command.zig");

const Call = enum { open, write, sync, rename, mkdir, read };
const fault_count_max = 8;
const slow_ns = 50 * std.time.ns_per_ms;

const Fault = struct {
    call: Call,
    /// Null kills or slows down.
    errno: ?linux.E,
    is_kill: bool,
    first: u64,
    count: u64,
    prefix: []const u8,
    suffix: []const u8,
    calls: u64 = 0,
    hits: u64 = 0,
};

/// Which system calls are of a kind, and where the file is named.
const Traced = struct {
    number: linux.SYS,
    call: Call,
    file: enum { descriptor, path, path_at },
};

const traced = blk: {
    const all = [_]struct { []const u8, Call, @FieldType(Traced, "file") }{
        .{ "open", .open, .path },             .{ "openat", .open, .path_at },
        .{ "creat", .open, .path },            .{ "write", .write, .descriptor },
        .{ "pwrite64", .write, .descriptor },  .{ "writev", .write, .descriptor },
        .{ "pwritev", .write, .descriptor },   .{ "ftruncate", .write, .descriptor },
        .{ "fallocate", .write, .descriptor }, .{ "fsync", .sync, .descriptor },
        .{ "fdatasync", .sync, .descriptor },  .{ "rename", .rename, .path },
        .{ "renameat", .rename, .path_at },    .{ "renameat2", .rename, .path_at },
        .{ "mkdir", .mkdir, .path },           .{ "mkdirat", .mkdir, .path_at },
        .{ "read", .read, .descriptor },       .{ "pread64", .read, .descriptor },
        .{ "preadv", .read, .descriptor },
    };
    var kept: []const Traced = &.{};
    for (all) |each| if (@hasField(linux.SYS, each[0])) {
        const number = @field(linux.SYS, each[0]);
        kept = kept ++ [1]Traced{.{ .number = number, .call = each[1], .file = each[2] }};
    };
    break :blk kept;
};

pub fn main(init: std.process.Init) !u8 {
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    if (args.len < 4) return error.ReportFaultsAndCommand;
    var faults: [fault_count_max]Fault = undefined;
    var count: usize = 0;
    while (!std.mem.eql(u8, args[2 + count], "--")) : (count += 1) {
        faults[count] = try parse(args[2 + count]);
    }
    const argv = try command.vectorOf(init.arena.allocator(), args[2 + count + 1 ..]);
    const shared = try std.posix.mmap(
        null,
        @sizeOf(Handshake),
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .SHARED, .ANONYMOUS = true },
        -1,
        0,
    );
    const handshake: *Handshake = @ptrCast(shared.ptr);
    handshake.* = .{};
    const child: linux.pid_t = @intCast(linux.fork());
    if (child == 0) become(argv, faults[0..count], handshake);
    command.passSignals(child);
    const listener = try takeListener(child, handshake);
    const status = supervise(child, listener, faults[0..count]);
    try report(args[1], faults[0..count]);
    return command.exitCodeOf(status);
}

// --- internal ---

fn parse(text: []const u8) !Fault {
    var words = std.mem.splitScalar(u8, text, ':');
    const call = std.meta.stringToEnum(Call, words.next() orelse "") orelse return error.NoSuchCall;
    const action = words.next() orelse return error.NoAction;
    const first = try std.fmt.parseInt(u64, words.next() orelse "", 10);
    const count = try std.fmt.parseInt(u64, words.next() orelse "", 10);
    var files = std.mem.splitScalar(u8, words.rest(), '*');
    const is_kill = std.mem.eql(u8, action, "kill");
    const is_slow = std.mem.eql(u8, action, "slow");
    // The errnos of linux.E have no E in front.
    const errno = if (is_kill or is_slow)
        null
    else
        std.meta.stringToEnum(linux.E, action[1..]) orelse return error.NoSuchErrno;
    return .{
        .call = call,
        .errno = errno,
        .is_kill = is_kill,
        .first = first,
        .count = count,
        .prefix = files.first(),
        .suffix = files.rest(),
    };
}

/// How the listener's number comes to the parent: no call can carry it, since they are all asked
/// about.
const Handshake = struct {
    /// -1 while there is none, -2 where the system has none.
    listener: std.atomic.Value(i32) = .init(-1),
    is_taken: std.atomic.Value(bool) = .init(false),
};

/// In the child: puts itself under the filter and becomes the command.
fn become(
    argv: [:null]const ?[*:0]const u8,
    faults: []const Fault,
    handshake: *Handshake,
) noreturn {
    command.dieWithParent();
    _ = linux.prctl(@intFromEnum(linux.PR.SET_NO_NEW_PRIVS), 1, 0, 0, 0);
    var filter: [traced.len + 3]Instruction = undefined;
    const program: Program = .{ .len = makeFilter(&filter, faults), .filter = &filter };
    const flags = seccomp.FILTER_FLAG.NEW_LISTENER;
    const made = linux.seccomp(seccomp.SET_MODE_FILTER, flags, &program);
    const failed = linux.errno(made) != .SUCCESS;
    handshake.listener.store(if (failed) -2 else @intCast(made), .release);
    while (!handshake.is_taken.load(.acquire)) std.atomic.spinLoopHint();
    command.become(argv);
}

const Instruction = extern struct { code: u16, jt: u8, jf: u8, k: u32 };
const Program = extern struct { len: u16, filter: [*]const Instruction };

/// Calls of the faults' kinds are asked about, all others are allowed.
fn makeFilter(filter: []Instruction, faults: []const Fault) u16 {
    const load_word = 0x20;
    const jump_equal = 0x15;
    const give = 0x06;
    filter[0] = .{ .code = load_word, .jt = 0, .jf = 0, .k = @offsetOf(seccomp.data, "nr") };
    var asked: u8 = 0;
    for (traced) |each| {
        for (faults) |fault| {
            if (fault.call == each.call) break;
        } else continue;
        asked += 1;
        const number: u32 = @intCast(@intFromEnum(each.number));
        filter[asked] = .{ .code = jump_equal, .jt = 0, .jf = 0, .k = number };
    }
    for (filter[1 .. asked + 1], 0..) |*jump, i| jump.jt = asked - @as(u8, @intCast(i));
    filter[asked + 1] = .{ .code = give, .jt = 0, .jf = 0, .k = seccomp.RET.ALLOW };
    filter[asked + 2] = .{ .code = give, .jt = 0, .jf = 0, .k = seccomp.RET.USER_NOTIF };
    return asked + 3;
}

fn takeListener(child: linux.pid_t, handshake: *Handshake) !linux.fd_t {
    while (handshake.listener.load(.acquire) == -1) std.atomic.spinLoopHint();
    defer handshake.is_taken.store(true, .release);
    const theirs = handshake.listener.load(.acquire);
    if (theirs == -2) linux.exit_group(command.unavailable);
    const process: linux.fd_t = @intCast(linux.pidfd_open(child, 0));
    const mine = linux.pidfd_getfd(process, theirs, 0);
    if (linux.errno(mine) != .SUCCESS) linux.exit_group(command.unavailable);
    return @intCast(mine);
}

/// Answers the kernel until the command has ended.
fn supervise(child: linux.pid_t, listener: linux.fd_t, faults: []Fault) u32 {
    var status: u32 = 0;
    while (true) {
        var wanted = [1]linux.pollfd{.{ .fd = listener, .events = linux.POLL.IN, .revents = 0 }};
        _ = linux.poll(&wanted, 1, 20);
        if (wanted[0].revents & linux.POLL.IN != 0) {
            answer(child, listener, faults);
        } else if (linux.waitpid(child, &status, linux.W.NOHANG) == child) return status;
    }
}

fn answer(child: linux.pid_t, listener: linux.fd_t, faults: []Fault) void {
    var question: seccomp.notif = std.mem.zeroes(seccomp.notif);
    const received = linux.ioctl(listener, seccomp.IOCTL_NOTIF.RECV, @intFromPtr(&question));
    if (linux.errno(received) != .SUCCESS) return;
    const goes_on = 1;
    var reply: seccomp.notif_resp = .{
        .id = question.id,
        .val = 0,
        .@"error" = 0,
        .flags = goes_on,
    };
    if (hit(&question, faults)) |fault| {
        if (fault.errno) |errno| {
            reply.@"error" = -@as(i32, @intCast(@intFromEnum(errno)));
            reply.flags = 0;
        } else if (fault.is_kill) {
            // Without an answer: the call must not happen.
            _ = linux.kill(child, .KILL);
            return;
        } else {
            _ = linux.nanosleep(&.{ .sec = 0, .nsec = slow_ns }, null);
        }
    }
    _ = linux.ioctl(listener, seccomp.IOCTL_NOTIF.SEND, @intFromPtr(&reply));
}

/// The fault that this call is to have, if any; counts it for every fault that it is of.
fn hit(question: *const seccomp.notif, faults: []Fault) ?*Fault {
    const each = for (traced) |each| {
        if (@intFromEnum(each.number) == question.data.nr) break each;
    } else return null;
    var buffer: [linux.PATH_MAX * 2]u8 = undefined;
    const path = pathOf(question, each, &buffer) orelse return null;
    var found: ?*Fault = null;
    for (faults) |*fault| {
        if (fault.call != each.call or !isNamed(path, fault)) continue;
        if (each.call == .open and !isForWriting(question, each)) continue;
        fault.calls += 1;
        if (fault.calls < fault.first or fault.calls - fault.first >= fault.count) continue;
        fault.hits += 1;
        found = fault;
    }
    return found;
}

fn isNamed(path: []const u8, fault: *const Fault) bool {
    return std.mem.startsWith(u8, path, fault.prefix) and std.mem.endsWith(u8, path, fault.suffix);
}

/// Opening a file to read it changes no disk.
fn isForWriting(question: *const seccomp.notif, each: Traced) bool {
    if (@hasField(linux.SYS, "creat") and each.number == @field(linux.SYS, "creat")) return true;
    const bits = if (each.file == .path_at) question.data.arg2 else question.data.arg1;
    const flags: linux.O = @bitCast(@as(u32, @truncate(bits)));
    return flags.ACCMODE != .RDONLY or flags.CREAT;
}

/// The file that a call is about, as far as its name is absolute or found by its folder.
fn pathOf(question: *const seccomp.notif, each: Traced, buffer: []u8) ?[]const u8 {
    const pid = question.pid;
    const arg0: i32 = @bitCast(@as(u32, @truncate(question.data.arg0)));
    if (each.file == .descriptor) return openedAt(pid, arg0, buffer);
    const at = if (each.file == .path_at) question.data.arg1 else question.data.arg0;
    var given: [linux.PATH_MAX]u8 = undefined;
    const path = readString(pid, at, &given) orelse return null;
    if (std.mem.startsWith(u8, path, "/"))
        return std.fmt.bufPrint(buffer, "{s}", .{path}) catch null;
    const is_current = each.file == .path or arg0 == linux.AT.FDCWD;
    const folder = openedAt(pid, if (is_current) null else arg0, buffer) orelse return null;
    const rest = std.fmt.bufPrint(buffer[folder.len..], "/{s}", .{path}) catch return null;
    return buffer[0 .. folder.len + rest.len];
}

/// What a descriptor of the process is, or (null) its current folder.
fn openedAt(pid: u32, descriptor: ?i32, buffer: []u8) ?[]const u8 {
    var name: [64]u8 = undefined;
    const link = if (descriptor) |fd|
        std.fmt.bufPrintZ(&name, "/proc/{d}/fd/{d}", .{ pid, fd })
    else
        std.fmt.bufPrintZ(&name, "/proc/{d}/cwd", .{pid});
    return linkTarget(link catch return null, buffer);
}

fn linkTarget(link: [*:0]const u8, buffer: []u8) ?[]const u8 {
    const length = linux.readlink(link, buffer.ptr, buffer.len / 2);
    return if (linux.errno(length) == .SUCCESS) buffer[0..length] else null;
}

fn readString(pid: u32, address: u64, buffer: []u8) ?[]const u8 {
    // Not over the end of a page: the next one may not be there.
    var length: usize = 0;
    while (length < buffer.len) {
        const from = address + length;
        const step = @min(buffer.len - length, 4096 - from % 4096);
        const local = [1]std.posix.iovec{.{ .base = buffer[length..].ptr, .len = step }};
        const remote = [1]std.posix.iovec_const{.{ .base = @ptrFromInt(from), .len = step }};
        const count = linux.process_vm_readv(@intCast(pid), &local, &remote, 0);
        if (linux.errno(count) != .SUCCESS) return null;
        if (std.mem.indexOfScalar(u8, buffer[length .. length + count], 0)) |end|
            return buffer[0 .. length + end];
        length += count;
    }
    return null;
}

/// A line per fault: calls and hits.
fn report(path: [*:0]const u8, faults: []const Fault) !void {
    var buffer: [64 * fault_count_max]u8 = undefined;
    var length: usize = 0;
    for (faults) |fault| {
        const counts = .{ fault.calls, fault.hits };
        const line = try std.fmt.bufPrint(buffer[length..], "{d} {d}\n", counts);
        length += line.len;
    }
    const file = linux.open(path, .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true }, 0o644);
    if (linux.errno(file) != .SUCCESS) return error.NoReport;
    _ = linux.write(@intCast(file), &buffer, length);
}
