//! A weights file mapped into memory, with detection of changes under the mapping. Reading past the
//! end of a truncated file, or what its disk does not give, raises SIGBUS: the handler maps zero
//! pages in place of the lost ones and marks the file, so that the job fails with an error that
//! names it. Overwriting a file in place raises no signal: its size and modification time are
//! compared.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;

/// Limit of mapped files that the handler guards, for all sessions of the process.
const guard_count_max = 512;

pub const MappedFile = struct {
    memory: []align(std.heap.page_size_min) const u8,
    path: []const u8,
    /// Stays open, so that another file moved to the path does not count as a change.
    file: Io.File,
    size: u64,
    modified: Io.Timestamp,
    guard: ?*Guard,

    /// Maps the file at `path`, which must live as long. `interrupt` is set when a read fails.
    pub fn open(
        io: Io,
        path: []const u8,
        interrupt: *std.atomic.Value(bool),
        d: *Diagnostics,
    ) error{BadWeights}!MappedFile {
        // Looked at before it is opened: opening a pipe would wait for a writer.
        const before = Io.Dir.cwd().statFile(io, path, .{}) catch |err|
            return failToRead(path, err, d);
        if (before.kind != .file) {
            return d.fail(error.BadWeights, "{s} is not a file.", .{path});
        }
        const file = Io.Dir.cwd().openFile(io, path, .{}) catch |err|
            return failToRead(path, err, d);
        errdefer file.close(io);
        const stat = file.stat(io) catch |err| return failToRead(path, err, d);
        if (stat.size == 0) {
            return d.fail(error.BadWeights, "{s} is empty.", .{path});
        }
        // Private, though nothing is written: file systems in user space (FUSE) that go past the
        // page cache refuse shared ones.
        const memory = posix.mmap(
            null,
            @intCast(stat.size),
            .{ .READ = true },
            .{ .TYPE = .PRIVATE },
            file.handle,
            0,
        ) catch |err| return failToRead(path, err, d);
        return .{
            .memory = memory,
            .path = path,
            .file = file,
            .size = stat.size,
            .modified = stat.mtime,
            .guard = guardMemory(memory, interrupt),
        };
    }

    pub fn close(mapped: MappedFile, io: Io) void {
        if (mapped.guard) |guard| guard.release();
        posix.munmap(mapped.memory);
        mapped.file.close(io);
    }

    /// Whether the file at `path` is the one that was opened, unchanged, and all of it is there.
    pub fn isAt(mapped: *const MappedFile, io: Io, path: []const u8) bool {
        if (mapped.isLost() or !std.mem.eql(u8, mapped.path, path)) return false;
        const stat = Io.Dir.cwd().statFile(io, path, .{}) catch return false;
        return stat.size == mapped.size and
            stat.mtime.nanoseconds == mapped.modified.nanoseconds;
    }

    /// Whether pages were lost, which read as zeros from now on.
    fn isLost(mapped: *const MappedFile) bool {
        return if (mapped.guard) |guard| guard.is_lost.load(.acquire) else false;
    }

    /// Fails where the file has changed since it was opened, or its disk has not given all of it.
    pub fn checkUnchanged(
        mapped: *const MappedFile,
        io: Io,
        d: *Diagnostics,
    ) error{BadWeights}!void {
        const is_lost = mapped.isLost();
        const found: ?Io.File.Stat = mapped.file.stat(io) catch null;
        const is_changed = if (found) |stat|
            stat.size != mapped.size or stat.mtime.nanoseconds != mapped.modified.nanoseconds
        else
            false;
        if (found != null and !is_lost and !is_changed) return;
        // An earlier error may be a consequence.
        d.reset();
        if (is_changed) {
            return d.fail(error.BadWeights, "{s} was changed, cut short or lost while it was in " ++
                "use, so no image was written. Check the file and start again.", .{mapped.path});
        }
        return d.fail(error.BadWeights, "{s} could not be read any more while it was in use, so " ++
            "no image was written. Check its disk and start again.", .{mapped.path});
    }
};

// --- internal ---

fn failToRead(path: []const u8, err: anyerror, d: *Diagnostics) error{BadWeights} {
    const reason = switch (err) {
        // Of calls for which std expects no EIO.
        error.InputOutput, error.Unexpected => "its disk or file system fails",
        else => @errorName(err),
    };
    return d.fail(error.BadWeights, "{s} cannot be read ({s}).", .{ path, reason });
}

/// A mapping that the handler guards. The handler may read it while other threads open files.
const Guard = struct {
    is_taken: std.atomic.Value(bool) = .init(false),
    first: std.atomic.Value(usize) = .init(0),
    /// 0 while nothing is guarded.
    end: std.atomic.Value(usize) = .init(0),
    is_lost: std.atomic.Value(bool) = .init(false),
    interrupt: std.atomic.Value(?*std.atomic.Value(bool)) = .init(null),

    fn release(guard: *Guard) void {
        guard.end.store(0, .release);
        guard.interrupt.store(null, .release);
        guard.is_taken.store(false, .release);
    }
};

var guards: [guard_count_max]Guard = @splat(.{});
var handler_state: std.atomic.Value(enum(u8) { absent, installing, installed }) = .init(.absent);
var previous: posix.Sigaction = undefined;
var page_bytes: usize = 0;

fn guardMemory(memory: []const u8, interrupt: *std.atomic.Value(bool)) ?*Guard {
    installHandler();
    for (&guards) |*guard| {
        if (guard.is_taken.swap(true, .acq_rel)) continue;
        guard.is_lost.store(false, .release);
        guard.interrupt.store(interrupt, .release);
        guard.first.store(@intFromPtr(memory.ptr), .release);
        const bytes = std.mem.alignForward(usize, memory.len, page_bytes);
        guard.end.store(@intFromPtr(memory.ptr) + bytes, .release);
        return guard;
    }
    return null;
}

/// Installs the handler once per process; other faults go to the previous handler.
fn installHandler() void {
    if (handler_state.cmpxchgStrong(.absent, .installing, .acq_rel, .acquire)) |state| {
        if (state == .installed) return;
        while (handler_state.load(.acquire) != .installed) std.Thread.yield() catch {};
        return;
    }
    page_bytes = std.heap.pageSize();
    posix.sigaction(.BUS, null, &previous);
    posix.sigaction(.BUS, &.{
        .handler = .{ .sigaction = onBusError },
        .mask = posix.sigemptyset(),
        // Runs on the thread's alternate signal stack where it has one.
        .flags = posix.SA.SIGINFO | posix.SA.ONSTACK | posix.SA.RESTART,
    }, null);
    handler_state.store(.installed, .release);
}

/// Async-signal-safe: uses only atomics and system calls.
fn onBusError(
    signal: posix.SIG,
    info: *const posix.siginfo_t,
    context: ?*anyopaque,
) callconv(.c) void {
    const address = addressOf(info);
    for (&guards) |*guard| {
        const end = guard.end.load(.acquire);
        if (address >= end or address < guard.first.load(.acquire)) continue;
        const page = std.mem.alignBackward(usize, address, page_bytes);
        const zeros = posix.mmap(
            @ptrFromInt(page),
            end - page,
            .{ .READ = true },
            .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .FIXED = true },
            -1,
            0,
        );
        _ = zeros catch break;
        guard.is_lost.store(true, .release);
        if (guard.interrupt.load(.acquire)) |interrupt| interrupt.store(true, .release);
        return;
    }
    passOn(signal, info, context);
}

fn passOn(signal: posix.SIG, info: *const posix.siginfo_t, context: ?*anyopaque) void {
    if (previous.flags & posix.SA.SIGINFO != 0) {
        if (previous.handler.sigaction) |handler| return handler(signal, info, context);
    } else if (previous.handler.handler) |handler| {
        if (handler != posix.SIG.DFL and handler != posix.SIG.IGN) return handler(signal);
    }
    // The instruction faults again, and the system ends the process.
    posix.sigaction(.BUS, &previous, null);
}

fn addressOf(info: *const posix.siginfo_t) usize {
    return switch (builtin.os.tag) {
        .linux => @intFromPtr(info.fields.sigfault.addr),
        else => @intFromPtr(info.addr),
    };
}

const testing = std.testing;

fn writeTestFile(tmp: *testing.TmpDir, bytes: []const u8) ![:0]const u8 {
    try tmp.dir.writeFile(testing.io, .{ .sub_path = "w", .data = bytes });
    return try tmp.dir.realPathFileAlloc(testing.io, "w", testing.allocator);
}

test "a file cut short while mapped reads as zeros, interrupts, and is named" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    const bytes = try testing.allocator.alloc(u8, 1 << 20);
    defer testing.allocator.free(bytes);
    @memset(bytes, 7);
    const path = try writeTestFile(&tmp, bytes);
    defer testing.allocator.free(path);
    var d: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    const mapped: MappedFile = try .open(testing.io, path, &interrupt, &d);
    defer mapped.close(testing.io);
    try mapped.checkUnchanged(testing.io, &d);
    try testing.expectEqual(@as(u8, 7), mapped.memory[bytes.len - 1]);

    const file = try tmp.dir.openFile(testing.io, "w", .{ .mode = .read_write });
    defer file.close(testing.io);
    try file.setLength(testing.io, 10);
    // Several threads meet the lost pages at once.
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try .spawn(.{}, sumOf, .{mapped.memory});
    for (&threads) |thread| thread.join();
    try testing.expect(interrupt.load(.acquire));
    try testing.expectEqual(@as(u8, 0), mapped.memory[bytes.len - 1]);
    try testing.expectError(error.BadWeights, mapped.checkUnchanged(testing.io, &d));
    try testing.expect(std.mem.indexOf(u8, d.message(), "was changed, cut short or lost") != null);
    // It stays so, even where the file has its size again.
    try file.setLength(testing.io, bytes.len);
    try testing.expect(!mapped.isAt(testing.io, path));
    try testing.expectError(error.BadWeights, mapped.checkUnchanged(testing.io, &d));
}

fn sumOf(memory: []const u8) void {
    var sum: usize = 0;
    for (memory) |byte| sum += byte;
    std.mem.doNotOptimizeAway(sum);
}

test "a file overwritten in place is refused, one that was moved away is not" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    const path = try writeTestFile(&tmp, "weights");
    defer testing.allocator.free(path);
    var d: Diagnostics = .{};
    var interrupt: std.atomic.Value(bool) = .init(false);
    const mapped: MappedFile = try .open(testing.io, path, &interrupt, &d);
    defer mapped.close(testing.io);
    try tmp.dir.rename("w", tmp.dir, "old", testing.io);
    try tmp.dir.writeFile(testing.io, .{ .sub_path = "w", .data = "another" });
    try mapped.checkUnchanged(testing.io, &d);
    // As many bytes, at another time.
    const later: Io.Timestamp = .{ .nanoseconds = mapped.modified.nanoseconds + 1_000_000_000 };
    const old = try tmp.dir.openFile(testing.io, "old", .{ .mode = .read_write });
    defer old.close(testing.io);
    try old.setTimestamps(testing.io, .{ .modify_timestamp = .init(later) });
    try testing.expectError(error.BadWeights, mapped.checkUnchanged(testing.io, &d));
    try testing.expect(!interrupt.load(.acquire));
}

var foreign_count: std.atomic.Value(u32) = .init(0);

fn onForeign(_: posix.SIG, _: *const posix.siginfo_t, _: ?*anyopaque) callconv(.c) void {
    _ = foreign_count.fetchAdd(1, .acq_rel);
}

test "a bus error elsewhere goes to the handler that was there before" {
    installHandler();
    const saved = previous;
    defer previous = saved;
    previous.flags = posix.SA.SIGINFO;
    previous.handler = .{ .sigaction = onForeign };
    try posix.raise(.BUS);
    try testing.expectEqual(@as(u32, 1), foreign_count.load(.acquire));
}
