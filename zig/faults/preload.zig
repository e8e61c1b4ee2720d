//! A library for LD_PRELOAD that fails calls of libbasedxl into libc where a test says so: memory,
//! mappings, threads; and moves the clock of the whole process. The file that BASEDXL_FAULTS names
//! says which (choices.zig).

const std = @import("std");
const linux = std.os.linux;
const choices = @import("choices.zig");

const Kind = enum(u32) { memory, mapping, thread, clock };

const Entries = choices.Entries(Kind);

export fn malloc(size: usize) ?*anyopaque {
    return if (fails(.memory, @returnAddress())) null else __libc_malloc(size);
}

export fn calloc(count: usize, size: usize) ?*anyopaque {
    return if (fails(.memory, @returnAddress())) null else __libc_calloc(count, size);
}

export fn realloc(memory: ?*anyopaque, size: usize) ?*anyopaque {
    return if (fails(.memory, @returnAddress())) null else __libc_realloc(memory, size);
}

export fn posix_memalign(result: *?*anyopaque, alignment: usize, size: usize) c_int {
    if (fails(.memory, @returnAddress())) return @intFromEnum(linux.E.NOMEM);
    result.* = __libc_memalign(alignment, size) orelse return @intFromEnum(linux.E.NOMEM);
    return 0;
}

export fn mmap64(
    address: ?*anyopaque,
    length: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) ?*anyopaque {
    if (fails(.mapping, @returnAddress())) {
        std.c._errno().* = @intFromEnum(linux.E.NOMEM);
        return @ptrFromInt(std.math.maxInt(usize));
    }
    const Mmap = fn (?*anyopaque, usize, c_int, c_int, c_int, i64) callconv(.c) ?*anyopaque;
    return next(Mmap, "mmap64")(address, length, protection, flags, file, offset);
}

export fn pthread_create(
    thread: *anyopaque,
    attributes: ?*const anyopaque,
    run: *const anyopaque,
    argument: ?*anyopaque,
) c_int {
    if (fails(.thread, @returnAddress())) return @intFromEnum(linux.E.AGAIN);
    return next(Create, "pthread_create")(thread, attributes, run, argument);
}

export fn clock_gettime(clock: c_int, time: *linux.timespec) c_int {
    const result = linux.clock_gettime(@enumFromInt(clock), time);
    if (clock == @intFromEnum(linux.CLOCK.REALTIME)) {
        if (entryOf(.clock)) |entry| {
            if (entry.choose()) time.sec += @divTrunc(entry.value, std.time.ms_per_s);
        }
    }
    return if (linux.errno(result) == .SUCCESS) 0 else -1;
}

// --- internal ---

extern fn __libc_malloc(size: usize) ?*anyopaque;
extern fn __libc_calloc(count: usize, size: usize) ?*anyopaque;
extern fn __libc_realloc(memory: ?*anyopaque, size: usize) ?*anyopaque;
extern fn __libc_memalign(alignment: usize, size: usize) ?*anyopaque;
extern fn dladdr(address: *const anyopaque, info: *Info) c_int;
extern fn dlsym(handle: ?*anyopaque, name: [*:0]const u8) ?*anyopaque;

const Create = fn (
    thread: *anyopaque,
    attributes: ?*const anyopaque,
    run: *const anyopaque,
    argument: ?*anyopaque,
) callconv(.c) c_int;

const Info = extern struct {
    file: ?[*:0]const u8,
    base: ?*anyopaque,
    symbol: ?[*:0]const u8,
    address: ?*anyopaque,
};

fn next(comptime F: type, name: [*:0]const u8) *const F {
    const rtld_next: ?*anyopaque = @ptrFromInt(std.math.maxInt(usize));
    return @ptrCast(@alignCast(dlsym(rtld_next, name).?));
}

/// Whether this call, from `caller`, is one of those that fail.
fn fails(kind: Kind, caller: usize) bool {
    const entry = entryOf(kind) orelse return false;
    if (@atomicLoad(u64, &entry.first, .acquire) == 0 or !isLibrary(caller)) return false;
    return entry.choose();
}

/// Whether an address is of libbasedxl, and not of the emulated driver, sharp or libc.
fn isLibrary(address: usize) bool {
    var info: Info = undefined;
    if (dladdr(@ptrFromInt(address), &info) == 0) return false;
    return std.mem.endsWith(u8, std.mem.span(info.file orelse return false), "/libbasedxl.so");
}

var entries: ?*Entries = null;

fn entryOf(kind: Kind) ?*choices.Entry {
    const all = @atomicLoad(?*Entries, &entries, .acquire) orelse return null;
    return &all[@intFromEnum(kind)];
}

/// Maps the file before the program begins; without one every call is as usual.
fn open() callconv(.c) void {
    const path = std.c.getenv("BASEDXL_FAULTS") orelse return;
    @atomicStore(?*Entries, &entries, choices.open(Kind, path), .release);
}

export const initializer: *const fn () callconv(.c) void linksection(".init_array") = &open;
