//! How kernels are built: by nvcc into one fatbin that the library embeds, and once more as C++ for
//! the CPU, into the emulator library for tests.

const std = @import("std");
const Build = std.Build;
const Module = Build.Module;

/// What the default build makes code for; PTX for compute_80 serves whatever comes later.
pub const default_architectures = "80,86,89,90a,100,120";

/// Makes `cuda_kernels.fatbin`, the names of its architectures and nvcc's version known to the
/// library's code: "" and 0 without nvcc.
pub fn addFatbin(b: *Build, module: *Module, nvcc: ?[]const u8, architectures: []const u8) void {
    const path = nvcc orelse return addNone(b, module, 0);
    const files = b.addWriteFiles();
    _ = files.addCopyFile(compile(b, path, architectures), "kernels.fatbin");
    // nvcc aligns its own images to 8 bytes; drivers promise nothing for others.
    const text = "const data align(64) = @embedFile(\"kernels.fatbin\").*;\n" ++
        "pub const fatbin: []align(64) const u8 = &data;\n";
    const names = architectureNames(b, architectures);
    addTable(b, module, files, text, names, toolkitVersion(b, path));
}

/// No kernels, as if a toolkit of this version had made them.
pub fn addNone(b: *Build, module: *Module, toolkit: u32) void {
    const text = "pub const fatbin: []align(64) const u8 = &.{};\n";
    addTable(b, module, b.addWriteFiles(), text, "", toolkit);
}

fn addTable(
    b: *Build,
    module: *Module,
    files: *Build.Step.WriteFile,
    text: []const u8,
    architectures: []const u8,
    toolkit: u32,
) void {
    const options = b.addOptions();
    options.addOption([]const u8, "cuda_architectures", architectures);
    options.addOption(u32, "cuda_toolkit", toolkit);
    module.addOptions("build_options", options);
    module.addAnonymousImport("cuda_kernels", .{
        .root_source_file = files.add("cuda_kernels.zig", text),
    });
}

/// libbasedxl_emulated for the CPU at hand: it is made where it runs, and conversions of f16 are
/// slow on the oldest. One that `finds_races` does so by the ThreadSanitizer of the program that
/// opens it: that program exports its runtime, which takes the place of the library's own.
pub fn addEmulator(b: *Build, finds_races: bool) *Build.Step.Compile {
    const module = b.createModule(.{
        .root_source_file = b.path("zig/emulator.zig"),
        .target = b.resolveTargetQuery(.{}),
        .optimize = .ReleaseSafe,
        .link_libc = true,
        .pic = true,
        .sanitize_c = .off,
        .sanitize_thread = finds_races,
    });
    addNone(b, module, 0);
    module.addAnonymousImport("kernel_resources", .{
        .root_source_file = b.path("src/bench/kernels.md"),
    });
    module.addAnonymousImport("fibre", .{ .root_source_file = b.path("zig/system/fibre.zig") });
    const flags: []const []const u8 = if (finds_races) &raced_flags else &host_flags;
    for (filesOf(b, ".cu")) |name| addHostFile(b, module, name, flags);
    addHostFile(b, module, "host/check.cu", flags);
    addHostFile(b, module, "host/faults.cpp", flags);
    return b.addLibrary(.{
        .name = "basedxl_emulated",
        .linkage = .dynamic,
        .root_module = module,
        .use_llvm = true,
    });
}

// --- internal ---

/// A misaligned access ends in a signal, as on a GPU; uninitialized locals are NaN.
const host_flags = [_][]const u8{
    "-std=c++17",
    "-O2",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fsanitize=alignment",
    "-fsanitize-trap=alignment",
    "-ftrivial-auto-var-init=pattern",
    "-Wall",
    "-Wno-unknown-pragmas",
};

/// Kernels are not instrumented: their threads are fibers of one thread of the host, whose calls
/// begin and end by turns.
const raced_flags = host_flags ++ [_][]const u8{"-fno-sanitize=thread"};

fn addHostFile(
    b: *Build,
    module: *Module,
    name: []const u8,
    flags: []const []const u8,
) void {
    module.addCSourceFile(.{
        .file = b.path(b.fmt("cuda/{s}", .{name})),
        .flags = flags,
        .language = .cpp,
    });
}

/// All files as one, since each compiler's start and headers cost more than most kernels.
fn compile(b: *Build, nvcc: []const u8, architectures: []const u8) Build.LazyPath {
    const run = b.addSystemCommand(&.{ nvcc, "-fatbin", "-O3", "-std=c++17", "--threads", "0" });
    var names = std.mem.tokenizeScalar(u8, architectures, ',');
    while (names.next()) |name| {
        run.addArg(b.fmt("-gencode=arch=compute_{s},code=sm_{s}", .{ name, name }));
    }
    run.addArg("-gencode=arch=compute_80,code=compute_80");
    // A seventh of the size; a GPU's own code is unpacked in milliseconds.
    run.addArg("-Xfatbin=-compress-all");
    run.addPrefixedDirectoryArg("-I", b.path("cuda"));
    run.addArg("-o");
    const fatbin = run.addOutputFileArg("kernels.fatbin");
    var text: std.ArrayList(u8) = .empty;
    for (filesOf(b, ".cu")) |name| {
        run.addFileInput(b.path(b.fmt("cuda/{s}", .{name})));
        text.appendSlice(b.allocator, b.fmt("#include \"{s}\"\n", .{name})) catch
            @panic("out of memory");
    }
    for (filesOf(b, ".cuh")) |name| run.addFileInput(b.path(b.fmt("cuda/{s}", .{name})));
    run.addFileArg(b.addWriteFiles().add("kernels.cu", text.items));
    return fatbin;
}

/// 13000 of "Cuda compilation tools, release 13.0, V13.0.88".
fn toolkitVersion(b: *Build, nvcc: []const u8) u32 {
    const text = b.run(&.{ nvcc, "--version" });
    const start = "release ";
    const at = std.mem.indexOf(u8, text, start) orelse @panic("nvcc --version names no release");
    var numbers = std.mem.tokenizeAny(u8, text[at + start.len ..], "., ");
    var version: u32 = 0;
    for ([_]u32{ 1000, 10 }) |unit| {
        const number = std.fmt.parseInt(u32, numbers.next() orelse "", 10) catch
            @panic("nvcc --version names no release");
        version += unit * number;
    }
    return version;
}

/// The files of cuda/ whose names end so, in order.
fn filesOf(b: *Build, ending: []const u8) []const []const u8 {
    var names: std.ArrayList([]const u8) = .empty;
    const io = b.graph.io;
    var folder = b.build_root.handle.openDir(io, "cuda", .{ .iterate = true }) catch return &.{};
    defer folder.close(io);
    var entries = folder.iterate();
    while (entries.next(io) catch @panic("cuda/ cannot be listed")) |entry| {
        if (!std.mem.endsWith(u8, entry.name, ending)) continue;
        names.append(b.allocator, b.dupe(entry.name)) catch @panic("out of memory");
    }
    std.mem.sort([]const u8, names.items, {}, struct {
        fn lessThan(_: void, x: []const u8, y: []const u8) bool {
            return std.mem.lessThan(u8, x, y);
        }
    }.lessThan);
    return names.items;
}

fn architectureNames(b: *Build, architectures: []const u8) []const u8 {
    var text: std.ArrayList(u8) = .empty;
    var names = std.mem.tokenizeScalar(u8, architectures, ',');
    while (names.next()) |name| {
        const space = if (text.items.len > 0) " " else "";
        text.appendSlice(b.allocator, b.fmt("{s}sm_{s}", .{ space, name })) catch
            @panic("out of memory");
    }
    return text.items;
}
