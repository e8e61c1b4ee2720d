//! Of Linux's protocol for file systems in user space (linux/fuse.h, version 7.31): what a folder
//! that is passed on needs.

const std = @import("std");
const linux = std.os.linux;

pub const major = 7;
pub const minor = 31;
/// Of the folder that is mounted.
pub const root_id = 1;

pub const Opcode = enum(u32) {
    lookup = 1,
    forget = 2,
    getattr = 3,
    setattr = 4,
    mkdir = 9,
    unlink = 10,
    rmdir = 11,
    rename = 12,
    open = 14,
    read = 15,
    write = 16,
    statfs = 17,
    release = 18,
    fsync = 20,
    init = 26,
    opendir = 27,
    readdir = 28,
    releasedir = 29,
    create = 35,
    interrupt = 36,
    destroy = 38,
    batch_forget = 42,
    rename2 = 45,
    _,
};

pub const RequestHeader = extern struct {
    len: u32,
    opcode: Opcode,
    unique: u64,
    node: u64,
    uid: u32,
    gid: u32,
    pid: u32,
    padding: u32,
};

/// `unique` 0 is a notification, whose `error` is its code.
pub const ReplyHeader = extern struct { len: u32, @"error": i32, unique: u64 };

pub const InitIn = extern struct { major: u32, minor: u32, max_readahead: u32, flags: u32 };

pub const InitOut = extern struct {
    major: u32 = major,
    minor: u32 = minor,
    max_readahead: u32,
    flags: u32,
    max_background: u16 = 0,
    congestion_threshold: u16 = 0,
    max_write: u32,
    time_gran: u32 = 1,
    unused: [9]u32 = @splat(0),
};

/// Several reads of a file at once; a file whose time has changed is read anew; writes of more
/// than a page.
pub const init_flags = (1 << 0) | (1 << 12) | (1 << 5);

pub const Attributes = extern struct {
    ino: u64,
    size: u64,
    blocks: u64,
    atime: u64,
    mtime: u64,
    ctime: u64,
    atime_ns: u32,
    mtime_ns: u32,
    ctime_ns: u32,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u32 = 0,
    blksize: u32,
    flags: u32 = 0,

    pub fn of(stat: *const linux.Statx, node: u64) Attributes {
        return .{
            .ino = node,
            .size = stat.size,
            .blocks = stat.blocks,
            .atime = @bitCast(stat.atime.sec),
            .mtime = @bitCast(stat.mtime.sec),
            .ctime = @bitCast(stat.ctime.sec),
            .atime_ns = stat.atime.nsec,
            .mtime_ns = stat.mtime.nsec,
            .ctime_ns = stat.ctime.nsec,
            .mode = stat.mode,
            .nlink = stat.nlink,
            .uid = stat.uid,
            .gid = stat.gid,
            .blksize = stat.blksize,
        };
    }
};

/// Nothing of it is kept by the kernel: it asks each time.
pub const EntryOut = extern struct {
    node: u64,
    generation: u64 = 0,
    valid: [3]u64 = @splat(0),
    attributes: Attributes,
};

pub const AttributesOut = extern struct { valid: [2]u64 = @splat(0), attributes: Attributes };

pub const SetAttributesIn = extern struct {
    valid: u32,
    padding: u32,
    handle: u64,
    size: u64,
    lock_owner: u64,
    atime: u64,
    mtime: u64,
    ctime: u64,
    atime_ns: u32,
    mtime_ns: u32,
    ctime_ns: u32,
    mode: u32,
    unused: [4]u32,

    pub const mode_bit = 1 << 0;
    pub const size_bit = 1 << 3;
};

pub const OpenIn = extern struct { flags: u32, unused: u32 };
pub const CreateIn = extern struct { flags: u32, mode: u32, umask: u32, unused: u32 };
pub const MakeFolderIn = extern struct { mode: u32, umask: u32 };
pub const RenameIn = extern struct { folder: u64 };
pub const Rename2In = extern struct { folder: u64, flags: u32, padding: u32 };

pub const OpenOut = extern struct {
    handle: u64,
    /// Keeps what is cached of the file, as other file systems do.
    flags: u32 = 1 << 1,
    padding: u32 = 0,
};

pub const ReleaseIn = extern struct { handle: u64, unused: [2]u64 };

/// Of reads, writes and listings.
pub const TransferIn = extern struct {
    handle: u64,
    offset: u64,
    size: u32,
    unused: u32,
    lock_owner: u64,
    flags: [2]u32,
};

pub const WriteOut = extern struct { size: u32, padding: u32 = 0 };

pub const StatfsOut = extern struct {
    blocks: u64 = 1 << 20,
    free: u64 = 1 << 20,
    available: u64 = 1 << 20,
    files: u64 = 1 << 20,
    free_files: u64 = 1 << 20,
    block_bytes: u32 = 4096,
    name_max: u32 = 255,
    fragment_bytes: u32 = 4096,
    unused: [7]u32 = @splat(0),
};

/// The name follows, filled up to 8 bytes.
pub const FolderEntry = extern struct { ino: u64, off: u64, name_bytes: u32, type: u32 };

/// The kernel forgets what it has read of a file.
pub const forget_contents: i32 = 2;
pub const ForgetContents = extern struct { node: u64, offset: i64 = 0, length: i64 = 0 };

comptime {
    const assert = std.debug.assert;
    assert(@sizeOf(RequestHeader) == 40);
    assert(@sizeOf(InitOut) == 64);
    assert(@sizeOf(Attributes) == 88);
    assert(@sizeOf(EntryOut) == 128);
    assert(@sizeOf(AttributesOut) == 104);
    assert(@sizeOf(SetAttributesIn) == 88);
    assert(@sizeOf(TransferIn) == 40);
    assert(@sizeOf(StatfsOut) == 80);
}
