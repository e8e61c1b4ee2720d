//! Builds libbasedxl. Steps:
//!   zig build               the shared library, into zig-out/lib
//!   zig build test          the tests beside the code
//!   zig build bindings      src/native/abi.ts, to standard output
//! Options: -Doptimize=MODE, -Dtarget=TRIPLE, -Dnvcc=PATH (compile the CUDA kernels in),
//! -Dcuda=false (leave them out whatever -Dnvcc says).

const std = @import("std");
const builtin = @import("builtin");
const Build = std.Build;

comptime {
    const wanted: std.SemanticVersion = .{ .major = 0, .minor = 16, .patch = 0 };
    const is_same = builtin.zig_version.major == wanted.major and
        builtin.zig_version.minor == wanted.minor;
    if (!is_same) @compileError("BasedXL is built with Zig 0.16, and this is " ++
        builtin.zig_version_string ++ ".");
}

/// The library loads on any x86-64 or aarch64 and chooses its kernels when it runs.
const default_target: std.Target.Query = switch (builtin.os.tag) {
    .linux => .{
        .cpu_model = .baseline,
        .abi = .gnu,
        .glibc_version = .{ .major = 2, .minor = 28, .patch = 0 },
    },
    else => .{ .cpu_model = .baseline },
};

/// One fatbin per kernel file, for these architectures and, as PTX, whatever comes later.
const cuda_architectures = [_][]const u8{ "80", "86", "89", "90a", "100", "120" };

pub fn build(b: *Build) void {
    const target = b.standardTargetOptions(.{ .default_target = default_target });
    const optimize = b.standardOptimizeOption(.{});
    const nvcc = b.option([]const u8, "nvcc", "nvcc to compile the CUDA kernels with");
    const cuda = b.option(bool, "cuda", "compile the CUDA kernels in (needs -Dnvcc)");
    const cuda_nvcc = if (cuda orelse true) nvcc else null;

    const library = b.addLibrary(.{
        .name = "basedxl",
        .linkage = .dynamic,
        .root_module = libraryModule(b, "zig/root.zig", target, optimize, cuda_nvcc),
        .use_llvm = true,
    });
    b.installArtifact(library);

    const test_module = libraryModule(b, "zig/root.zig", target, optimize, null);
    addHostKernels(b, test_module);
    const tests = b.addTest(.{ .root_module = test_module, .use_llvm = true });
    const run_tests = b.addRunArtifact(tests);
    b.step("test", "Run the tests beside the code").dependOn(&run_tests.step);

    const bindings = b.addExecutable(.{
        .name = "bindings",
        .root_module = libraryModule(b, "zig/bindings.zig", b.graph.host, .Debug, null),
        .use_llvm = true,
    });
    const run_bindings = b.addRunArtifact(bindings);
    b.step("bindings", "Print src/native/abi.ts").dependOn(&run_bindings.step);
}

fn libraryModule(
    b: *Build,
    root: []const u8,
    target: Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    nvcc: ?[]const u8,
) *Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .pic = true,
        // Debug information names folders: without it, the same sources give the same bytes.
        .strip = optimize != .Debug,
    });
    addCpuKernels(b, module, target);
    addCudaKernels(b, module, nvcc);
    return module;
}

const InstructionSet = struct { symbol: []const u8, query: std.Target.Query };

/// The same kernels once per instruction set; always optimized, since they are unusable otherwise.
fn addCpuKernels(b: *Build, module: *Build.Module, target: Build.ResolvedTarget) void {
    for (instructionSets(b, target)) |set| {
        const options = b.addOptions();
        options.addOption([]const u8, "symbol", set.symbol);
        const kernels = b.createModule(.{
            .root_source_file = b.path("zig/backend/cpu/kernel_object.zig"),
            .target = b.resolveTargetQuery(set.query),
            .optimize = .ReleaseFast,
            .pic = true,
            .strip = true,
        });
        kernels.addOptions("options", options);
        const object = b.addObject(.{
            .name = set.symbol,
            .root_module = kernels,
            .use_llvm = true,
        });
        module.addObject(object);
    }
}

fn instructionSets(b: *Build, target: Build.ResolvedTarget) []const InstructionSet {
    const query = target.query;
    const x86 = std.Target.x86.cpu;
    var sets: std.ArrayList(InstructionSet) = .empty;
    sets.appendSlice(b.allocator, switch (target.result.cpu.arch) {
        .x86_64 => &.{
            .{ .symbol = "bxl_cpu_kernels_x86_64", .query = withModel(query, &x86.x86_64) },
            .{ .symbol = "bxl_cpu_kernels_x86_64_v3", .query = withModel(query, &x86.x86_64_v3) },
            .{ .symbol = "bxl_cpu_kernels_x86_64_v4", .query = wideVectors(query) },
        },
        .aarch64 => &.{.{ .symbol = "bxl_cpu_kernels_aarch64", .query = query }},
        else => @panic("BasedXL runs on x86-64 and aarch64."),
    }) catch @panic("out of memory");
    return sets.items;
}

fn withModel(query: std.Target.Query, model: *const std.Target.Cpu.Model) std.Target.Query {
    var with_model = query;
    with_model.cpu_arch = .x86_64;
    with_model.cpu_model = .{ .explicit = model };
    return with_model;
}

/// LLVM prefers 256-bit vectors on AVX-512 machines; the kernels are written for 512.
fn wideVectors(query: std.Target.Query) std.Target.Query {
    var wide = withModel(query, &std.Target.x86.cpu.x86_64_v4);
    wide.cpu_features_sub = std.Target.x86.featureSet(&.{.prefer_256_bit});
    return wide;
}

/// Compiles every file of cuda/ and embeds what comes out; without nvcc there is nothing to embed.
fn addCudaKernels(b: *Build, module: *Build.Module, nvcc: ?[]const u8) void {
    const options = b.addOptions();
    const names = if (nvcc != null) architectureNames(b) else "";
    options.addOption([]const u8, "cuda_architectures", names);
    module.addOptions("build_options", options);
    const files = b.addWriteFiles();
    var table: std.ArrayList(u8) = .empty;
    table.appendSlice(
        b.allocator,
        \\pub const Kernel = struct { name: []const u8, fatbin: []const u8 };
        \\pub const all = [_]Kernel{
        \\
        ,
    ) catch @panic("out of memory");
    if (nvcc) |path| {
        for (cudaFiles(b)) |name| {
            const stem = std.fs.path.stem(name);
            const fatbin = compileCuda(b, path, b.fmt("cuda/{s}", .{name}), stem);
            _ = files.addCopyFile(fatbin, b.fmt("{s}.fatbin", .{stem}));
            table.appendSlice(b.allocator, b.fmt(
                "    .{{ .name = \"{s}\", .fatbin = @embedFile(\"{s}.fatbin\") }},\n",
                .{ stem, stem },
            )) catch @panic("out of memory");
        }
    }
    table.appendSlice(b.allocator, "};\n") catch @panic("out of memory");
    module.addAnonymousImport("cuda_kernels", .{
        .root_source_file = files.add("cuda_kernels.zig", table.items),
    });
}

fn compileCuda(b: *Build, nvcc: []const u8, source: []const u8, stem: []const u8) Build.LazyPath {
    const run = b.addSystemCommand(&.{ nvcc, "-fatbin", "-O3", "-std=c++17", "--threads", "2" });
    for (cuda_architectures) |architecture| {
        run.addArg(b.fmt("-gencode=arch=compute_{s},code=sm_{s}", .{ architecture, architecture }));
    }
    run.addArg("-gencode=arch=compute_80,code=compute_80");
    run.addArg("-o");
    const fatbin = run.addOutputFileArg(b.fmt("{s}.fatbin", .{stem}));
    run.addFileArg(b.path(source));
    return fatbin;
}

/// The kernel files once more, as C++ for the CPU: tests run them without a GPU.
fn addHostKernels(b: *Build, module: *Build.Module) void {
    for (cudaFiles(b)) |name| {
        module.addCSourceFile(.{
            .file = b.path(b.fmt("cuda/{s}", .{name})),
            .flags = &.{
                "-std=c++17", "-fno-exceptions", "-fno-rtti", "-include", "cuda/host/shim.h",
            },
            .language = .cpp,
        });
    }
}

fn cudaFiles(b: *Build) []const []const u8 {
    var names: std.ArrayList([]const u8) = .empty;
    const io = b.graph.io;
    var folder = b.build_root.handle.openDir(io, "cuda", .{ .iterate = true }) catch return &.{};
    defer folder.close(io);
    var entries = folder.iterate();
    while (entries.next(io) catch @panic("cuda/ cannot be listed")) |entry| {
        if (!std.mem.endsWith(u8, entry.name, ".cu")) continue;
        names.append(b.allocator, b.dupe(entry.name)) catch @panic("out of memory");
    }
    std.mem.sort([]const u8, names.items, {}, struct {
        fn lessThan(_: void, x: []const u8, y: []const u8) bool {
            return std.mem.lessThan(u8, x, y);
        }
    }.lessThan);
    return names.items;
}

fn architectureNames(b: *Build) []const u8 {
    var text: std.ArrayList(u8) = .empty;
    for (cuda_architectures) |name| {
        if (text.items.len > 0) text.append(b.allocator, ' ') catch @panic("out of memory");
        text.appendSlice(b.allocator, b.fmt("sm_{s}", .{name})) catch @panic("out of memory");
    }
    return text.items;
}
