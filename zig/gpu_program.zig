//! `basedxl-gpu`: one executable, with one copy of the kernels, for machines that have a GPU and
//! neither Bun nor a clone (docs/gpu-kit.md).
//!
//!     basedxl-gpu verify [flags]    does this GPU compute right? (verify.zig)
//!     basedxl-gpu model ...         times images, and compares them with recorded ones (bench/)
//!     basedxl-gpu bench ...         times operations (bench/)

const std = @import("std");
const Io = std.Io;
const verify = @import("verify.zig");

const Command = enum { verify, model, bench };

const usage =
    \\basedxl-gpu verify [flags]    compares this GPU with the CPU; --help lists the flags
    \\basedxl-gpu model LIST.json PART [EMULATOR]    times images of a list
    \\basedxl-gpu bench LIST.jsonl SECONDS [EMULATOR] [SKIP]    times operations of a list
    \\
;

pub fn main(init: std.process.Init) !u8 {
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    const name = if (args.len > 1) args[1] else "--help";
    const command = std.meta.stringToEnum(Command, name) orelse {
        const is_help = std.mem.eql(u8, name, "--help") or std.mem.eql(u8, name, "help");
        const file: Io.File = if (is_help) .stdout() else .stderr();
        try file.writeStreamingAll(init.io, usage);
        return if (is_help) 0 else 2;
    };
    return switch (command) {
        .verify => verify.program.main(init, args[2..]),
        .model => @import("bench/gpu_model.zig").main(init, args[2..]),
        .bench => @import("bench/gpu_list.zig").main(init, args[2..]),
    };
}
