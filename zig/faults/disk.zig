//! Runs a command for which a folder lies on a disk that fails or is slow where a test says so:
//! `faulty-disk FOLDER CHOICES SUFFIX COMMAND ...`. CHOICES is a file (choices.zig) of what the
//! kinds in passed_folder.zig have; it concerns files whose names end with SUFFIX. Exits as the
//! command; 125 where the system lets nobody mount such a folder.
//!
//! The folder is mounted over itself, in a mount namespace that only the command is in: others see
//! the files as they are, and nothing is left where the command or the tool is killed.

const std = @import("std");
const linux = std.os.linux;
const choices = @import("choices.zig");
const command = @import("command.zig");
const passed_folder = @import("passed_folder.zig");

var folder: passed_folder.Folder = undefined;

pub fn main(init: std.process.Init) !u8 {
    const arena = init.arena.allocator();
    const args = try init.minimal.args.toSlice(arena);
    if (args.len < 5) return error.FolderChoicesSuffixAndCommand;
    const path = args[1];
    const argv = try command.vectorOf(arena, args[4..]);
    const seen = linux.open(path, .{ .PATH = true, .DIRECTORY = true, .CLOEXEC = true }, 0);
    if (linux.errno(seen) != .SUCCESS) return error.NoFolder;
    // Before the folder is mounted, as the file may lie in it.
    const entries = choices.open(passed_folder.Kind, args[2]) orelse return error.NoChoices;
    folder = .{
        .gpa = arena,
        .root = @intCast(seen),
        .device = mountOver(path) orelse return command.unavailable,
        .entries = entries,
        .suffix = args[3],
    };
    const child: linux.pid_t = @intCast(linux.fork());
    if (child == 0) {
        command.dieWithParent();
        command.become(argv);
    }
    command.passSignals(child);
    const watcher = try std.Thread.spawn(.{}, watch, .{child});
    folder.serve();
    watcher.join();
    return 0;
}

// --- internal ---

/// The device by which the kernel asks about the folder's files; null where it does not.
fn mountOver(path: [:0]const u8) ?linux.fd_t {
    if (linux.errno(linux.unshare(linux.CLONE.NEWNS)) != .SUCCESS) return null;
    const private = linux.MS.REC | linux.MS.PRIVATE;
    if (linux.errno(linux.mount(null, "/", null, private, 0)) != .SUCCESS) return null;
    const device = linux.open("/dev/fuse", .{ .ACCMODE = .RDWR, .CLOEXEC = true }, 0);
    if (linux.errno(device) != .SUCCESS) return null;
    var buffer: [128]u8 = undefined;
    const how = "fd={d},rootmode=40000,user_id=0,group_id=0,allow_other";
    const options = std.fmt.bufPrintZ(&buffer, how, .{device}) catch unreachable;
    const flags = linux.MS.NOSUID | linux.MS.NODEV;
    const mounted = linux.mount("faulty-disk", path, "fuse", flags, @intFromPtr(options.ptr));
    return if (linux.errno(mounted) == .SUCCESS) @intCast(device) else null;
}

/// Until the command has ended, and this process with it.
fn watch(child: linux.pid_t) void {
    var status: u32 = 0;
    while (linux.waitpid(child, &status, linux.W.NOHANG) != child) {
        folder.forgetWhereAsked();
        _ = linux.nanosleep(&.{ .sec = 0, .nsec = 5 * std.time.ns_per_ms }, null);
    }
    linux.exit_group(command.exitCodeOf(status));
}
