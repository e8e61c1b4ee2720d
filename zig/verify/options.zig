//! What `verify` is asked for, and how its flags are read.

const std = @import("std");
const Allocator = std.mem.Allocator;

pub const Options = struct {
    /// The emulator in place of NVIDIA's libraries; "" for these.
    library: [:0]const u8 = "",
    /// Fewer draws, types and modes.
    is_quick: bool = false,
    /// Of the first draw of every operation; the next have the next numbers.
    seed: u64 = 1,
    /// Only checks whose name contains this, or one of several behind commas, in any case.
    only: []const u8 = "",
    is_json: bool = false,
    /// Checks that are left out before the first, because another process has done them.
    skipped_count: u32 = 0,
    /// A line before each check: it is the last one where the check ends or stops the process.
    is_announced: bool = false,

    pub fn includes(options: *const Options, name: []const u8) bool {
        var parts = std.mem.splitScalar(u8, options.only, ',');
        while (parts.next()) |part| {
            if (std.ascii.indexOfIgnoreCase(name, part) != null) return true;
        }
        return false;
    }
};

pub const usage =
    \\Compares what this GPU computes with the CPU, and with recorded numbers: exit code 0 where all
    \\of it agrees, 1 where something does not, 2 for a wrong flag.
    \\
    \\  --quick            fewer draws, types and modes
    \\  --only NAME[,...]  only checks whose name contains this, or one of these
    \\  --seed N           of the first draw of every operation (1)
    \\  --json             one JSON object in place of the lines
    \\  --skip N           without the first N checks: goes on after one that ended a process
    \\  --announce         also a line before each check
    \\  --device DEVICE    cuda, or cuda-emulated for the emulator
    \\  --emulator FILE    the emulator's library (../lib/libbasedxl_emulated.so from this program)
    \\
;

pub const Parsed = union(enum) {
    options: Options,
    help,
    /// What is wrong.
    refused: []const u8,
};

/// Reads the flags behind `verify`. `emulator` is the library's usual place.
pub fn parse(a: Allocator, args: []const [:0]const u8, emulator: [:0]const u8) !Parsed {
    var options: Options = .{};
    var is_emulated = false;
    var library = emulator;
    var i: usize = 0;
    while (i < args.len) : (i += 1) {
        var name: []const u8 = args[i];
        const flag = std.meta.stringToEnum(Switch, name);
        if (flag) |which| {
            switch (which) {
                .@"--quick" => options.is_quick = true,
                .@"--json" => options.is_json = true,
                .@"--announce" => options.is_announced = true,
                .@"--help" => return .help,
            }
            continue;
        }
        var value: ?[:0]const u8 = null;
        if (std.mem.indexOfScalar(u8, name, '=')) |at| {
            value = args[i][at + 1 ..];
            name = name[0..at];
        } else if (i + 1 < args.len) value = args[i + 1];
        const named = std.meta.stringToEnum(Named, name) orelse
            return refuse(a, "There is no flag {s}.", .{name});
        const text = value orelse return refuse(a, "{s} needs a value.", .{name});
        if (name.len == args[i].len) i += 1;
        switch (named) {
            .@"--only" => options.only = text,
            .@"--seed" => options.seed = std.fmt.parseInt(u64, text, 10) catch
                return refuse(a, "--seed must be a whole number, not \"{s}\".", .{text}),
            .@"--skip" => options.skipped_count = std.fmt.parseInt(u32, text, 10) catch
                return refuse(a, "--skip must be a whole number, not \"{s}\".", .{text}),
            .@"--emulator" => library = text,
            .@"--device" => {
                is_emulated = std.mem.eql(u8, text, "cuda-emulated");
                if (!is_emulated and !std.mem.eql(u8, text, "cuda")) return refuse(
                    a,
                    "--device must be cuda or cuda-emulated, not \"{s}\".",
                    .{text},
                );
            },
        }
    }
    if (is_emulated) options.library = library;
    return .{ .options = options };
}

const Switch = enum { @"--quick", @"--json", @"--announce", @"--help" };
const Named = enum { @"--only", @"--seed", @"--skip", @"--device", @"--emulator" };

fn refuse(a: Allocator, comptime format: []const u8, args: anytype) !Parsed {
    return .{ .refused = try std.fmt.allocPrint(a, format, args) };
}

test "flags, their values in both forms, and what is refused" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = arena.allocator();
    const device = "--device=cuda-emulated";
    const args = [_][:0]const u8{ "--quick", "--only=add", "--seed", "7", device };
    const options = (try parse(a, &args, "usual.so")).options;
    try std.testing.expect(options.is_quick and !options.is_json);
    try std.testing.expectEqual(7, options.seed);
    try std.testing.expectEqualStrings("usual.so", options.library);
    try std.testing.expect(options.includes("add") and !options.includes("geglu"));
    const rest = (try parse(a, &.{ "--skip", "3", "--announce" }, "")).options;
    try std.testing.expect(rest.skipped_count == 3 and rest.is_announced);
    const several: Options = .{ .only = "unet,VAE" };
    try std.testing.expect(several.includes("UNet") and several.includes("VAE decoding"));
    try std.testing.expect(!several.includes("text encoders"));
    try std.testing.expectEqualStrings("", (try parse(a, &.{}, "usual.so")).options.library);
    for ([_][:0]const u8{ "--fast", "--seed=x", "--skip=-1", "--device=cpu", "--only" }) |wrong| {
        try std.testing.expect((try parse(a, &.{wrong}, "")) == .refused);
    }
}
