//! `zig build replay`: makes the calls of the C ABI again that tests/sanitize/record.ts recorded,
//! without Bun, so that valgrind and ThreadSanitizer see the library alone.
//!
//!     replay CALLS.json
//!     replay undefined     decides by what is undefined, for valgrind to find
//!     replay race          two threads write to one word, for ThreadSanitizer to find
//!
//! Every job must end as it should, and all its results are read; the exit code is else 1. A call
//! is waited for before the next of its session: sessions whose calls alternate run side by side.
//! Each struct and array is an allocation of its own, freed as soon as the call has returned:
//! memcheck sees what reads beyond it or later.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const abi = @import("abi.zig");
const Output = @import("pipeline.zig").Output;
const sessions = @import("session.zig");
const Session = sessions.Session;
const types = @import("abi/types.zig");

/// libc's, which valgrind and ThreadSanitizer watch.
const gpa = std.heap.c_allocator;
const list_bytes_max = 256 << 20;
const poll_us = 500;
const session_count_max = 64;

const List = struct {
    abi_version: u32,
    calls: []const Call,
};

const Call = struct {
    kind: enum { open, submit, cancel, close },
    session: u32,
    /// What the run is about, for people.
    name: []const u8,
    /// In base64: the struct, then whatever it leads to.
    buffers: []const []const u8,
    pointers: []const Pointer,
};

/// Buffer `from` has the address of buffer `to` at byte `at`.
const Pointer = struct { from: u32, at: u32, to: u32 };

pub fn main(init: std.process.Init) !u8 {
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    if (args.len != 2) {
        std.debug.print("usage: replay CALLS.json, replay undefined, replay race\n", .{});
        return 2;
    }
    if (std.mem.eql(u8, args[1], "undefined")) return decideByUndefined();
    if (std.mem.eql(u8, args[1], "race")) return race();
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const a = arena.allocator();
    const text = try Io.Dir.cwd().readFileAlloc(init.io, args[1], a, .limited(list_bytes_max));
    const list = try std.json.parseFromSliceLeaky(List, a, text, .{});
    if (list.abi_version != types.abi_version) return error.AnotherVersion;
    var replay: Replay = .{ .io = init.io };
    for (list.calls) |*call| try replay.make(call);
    try replay.finishAll();
    std.debug.print("{d} calls, {d} jobs failed\n", .{ list.calls.len, replay.failure_count });
    return @intFromBool(replay.failure_count > 0);
}

// --- internal ---

const Replay = struct {
    io: Io,
    sessions: [session_count_max]?*Session = @splat(null),
    /// By session: the call that has not been waited for.
    unfinished: [session_count_max]?*const Call = @splat(null),
    is_cancelled: [session_count_max]bool = @splat(false),
    failure_count: u32 = 0,

    fn make(replay: *Replay, call: *const Call) !void {
        const session = &replay.sessions[call.session];
        if (call.kind == .cancel) return replay.cancel(call);
        try replay.finish(call.session);
        if (call.kind == .close) return replay.close(session.*.?);
        const buffers = try decoded(call);
        const status = switch (call.kind) {
            .open => abi.bxl_session_open(@ptrCast(buffers[0].ptr), session),
            .submit => abi.bxl_session_submit(session.*.?, @ptrCast(buffers[0].ptr)),
            .cancel, .close => unreachable,
        };
        for (buffers) |buffer| gpa.free(buffer);
        gpa.free(buffers);
        if (status != .ok) return replay.fail(call, session.*);
        replay.unfinished[call.session] = call;
        replay.is_cancelled[call.session] = false;
    }

    /// Between two steps, where the job has several.
    fn cancel(replay: *Replay, call: *const Call) void {
        const session = replay.sessions[call.session].?;
        var progress = polled(session);
        while (progress.state == .running and progress.step_index == 0) {
            replay.pause();
            progress = polled(session);
        }
        abi.bxl_session_cancel(session);
        replay.is_cancelled[call.session] = true;
    }

    fn finishAll(replay: *Replay) !void {
        for (0..session_count_max) |index| try replay.finish(@intCast(index));
    }

    fn finish(replay: *Replay, index: u32) !void {
        const call = replay.unfinished[index] orelse return;
        replay.unfinished[index] = null;
        const session = replay.sessions[index].?;
        const progress = replay.settled(session);
        const is_cancelled = replay.is_cancelled[index] and progress.status == .cancelled;
        const has_failed = progress.state == .failed or progress.state == .lost;
        if (has_failed and !is_cancelled) return replay.fail(call, session);
        if (call.kind == .submit) try read(session);
        const word: []const u8 = if (is_cancelled) "cancelled" else @tagName(progress.state);
        std.debug.print("{s}: {s} {s}\n", .{ call.name, @tagName(call.kind), word });
    }

    fn fail(replay: *Replay, call: *const Call, session: ?*const Session) void {
        var buffer: [1024]u8 = undefined;
        const len = abi.bxl_last_error(session, &buffer, buffer.len);
        const sentence = buffer[0..@intCast(len)];
        std.debug.print("{s}: {s} failed: {s}\n", .{ call.name, @tagName(call.kind), sentence });
        replay.failure_count += 1;
    }

    /// The session's progress once it neither loads nor runs; previews are read as they come.
    fn settled(replay: *Replay, session: *Session) types.Progress {
        var preview_step: u32 = 0;
        while (true) {
            const progress = polled(session);
            if (progress.state != .loading and progress.state != .running) return progress;
            if (progress.preview_step != preview_step) {
                preview_step = progress.preview_step;
                readOutput(session, .preview) catch {};
            }
            replay.pause();
        }
    }

    fn polled(session: *const Session) types.Progress {
        var progress = std.mem.zeroes(types.Progress);
        progress.size = @sizeOf(types.Progress);
        _ = abi.bxl_session_poll(session, &progress);
        return progress;
    }

    fn close(replay: *Replay, session: *Session) void {
        abi.bxl_session_close(session);
        while (replay.settled(session).state != .closed) replay.pause();
        abi.bxl_session_free(session);
    }

    fn pause(replay: *Replay) void {
        replay.io.sleep(.fromMicroseconds(poll_us), .awake) catch {};
    }
};

/// The call's memory, with pointers in it; the struct is first.
fn decoded(call: *const Call) ![][]align(8) u8 {
    const decoder = std.base64.standard.Decoder;
    const buffers = try gpa.alloc([]align(8) u8, call.buffers.len);
    for (buffers, call.buffers) |*buffer, text| {
        const len = try decoder.calcSizeForSlice(text);
        buffer.* = try gpa.alignedAlloc(u8, .@"8", len);
        try decoder.decode(buffer.*, text);
    }
    for (call.pointers) |pointer| {
        const address = @intFromPtr(buffers[pointer.to].ptr);
        std.mem.writeInt(u64, buffers[pointer.from][pointer.at..][0..8], address, .little);
    }
    return buffers;
}

/// Every result to its last byte: memcheck reports what the library left undefined.
fn read(session: *Session) !void {
    for (std.enums.values(Output)) |output| try readOutput(session, output);
}

fn readOutput(session: *Session, output: Output) !void {
    const len = abi.bxl_session_read(session, output, null, 0);
    const bytes = try gpa.alloc(u8, @intCast(len));
    defer gpa.free(bytes);
    _ = abi.bxl_session_read(session, output, bytes.ptr, len);
    std.mem.doNotOptimizeAway(std.hash.Crc32.hash(bytes));
}

fn decideByUndefined() !u8 {
    const bytes = try gpa.alloc(u8, 16);
    defer gpa.free(bytes);
    return if (bytes[7] > 100) 1 else 0;
}

fn race() !u8 {
    const Both = struct {
        var word: u32 = 0;

        fn write() void {
            const shared: *volatile u32 = &word;
            for (0..1000) |i| shared.* += @intCast(i);
        }
    };
    const thread = try std.Thread.spawn(.{}, Both.write, .{});
    Both.write();
    thread.join();
    return 0;
}
