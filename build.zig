//! Builds libbasedxl. Steps:
//!   zig build               the shared library, into zig-out/lib
//!   zig build test          the tests beside the code
//!   zig build emulator      NVIDIA's driver and libraries on the CPU, into zig-out/lib
//!   zig build test-cuda     the CUDA path on that emulator
//!   zig build check-headers the tables of zig/nvidia/ against the vendor's headers (-Dheaders=A,B)
//!   zig build bindings      src/native/abi.ts, to standard output
//!   zig build bench-signals the cost of signals between ranks, shown by `bun run bench signals`
//!   zig build cpu-bench     the timing program of `bun run bench cpu`, into zig-out/bin
//!   zig build gpu-bench     the same for `bun run bench gpu` (with the kernels, as the library)
//!   zig build basedxl-gpu   the kit's program for GPUs without Bun, into zig-out/bin (likewise)
//!   zig build replay        the program that sanitizers look at, into zig-out (tests/sanitize)
//!   zig build cudnn-plans   the program that asks cuDNN for plans without a GPU, into zig-out
//!   zig build fault-tools   what makes system calls and libc fail for tests/faults, into zig-out
//!   zig build fuzz          what libFuzzer runs (needs clang), into zig-out; see tests/fuzz
//! Options: -Doptimize=MODE, -Dtarget=TRIPLE, -Dnvcc=PATH (compile the CUDA kernels in),
//! -Dfind-races (test-cuda, replay and emulator under ThreadSanitizer), -Demulated-gpu=sm_86
//! (test-cuda on that GPU), -Dfind-leaks (the library ends a process that leaks),
//! -Dcuda=false (leave them out whatever -Dnvcc says), -Dcuda-architectures=80,90a (for these).

const std = @import("std");
const builtin = @import("builtin");
const cuda_kernels = @import("cuda/build.zig");
const Build = std.Build;

comptime {
    const wanted: std.SemanticVersion = .{ .major = 0, .minor = 16, .patch = 0 };
    const is_same = builtin.zig_version.major == wanted.major and
        builtin.zig_version.minor == wanted.minor;
    if (!is_same) @compileError("BasedXL is built with Zig 0.16, and this is " ++
        builtin.zig_version_string ++ ".");
}

/// What a build checks while it runs.
const Checks = struct {
    /// Memory that is allocated when the last session has been freed (zig/system/leaks.zig).
    leaks: bool = false,
    /// By ThreadSanitizer.
    races: bool = false,
    /// By valgrind, which is told what is undefined.
    undefined: bool = false,
};

/// The library loads on any x86-64 or aarch64 and chooses its kernels when it runs.
const default_target: std.Target.Query = switch (builtin.os.tag) {
    .linux => .{
        .cpu_model = .baseline,
        .abi = .gnu,
        .glibc_version = .{ .major = 2, .minor = 28, .patch = 0 },
    },
    else => .{ .cpu_model = .baseline },
};

pub fn build(b: *Build) void {
    const target = b.standardTargetOptions(.{ .default_target = default_target });
    const optimize = b.standardOptimizeOption(.{});
    const nvcc = b.option([]const u8, "nvcc", "nvcc to compile the CUDA kernels with");
    const cuda = b.option(bool, "cuda", "compile the CUDA kernels in (needs -Dnvcc)");
    const architectures = b.option(
        []const u8,
        "cuda-architectures",
        "GPUs to compile kernels for (" ++ cuda_kernels.default_architectures ++ ")",
    ) orelse cuda_kernels.default_architectures;
    const cuda_nvcc = if (cuda orelse true) nvcc else null;
    const finds_leaks = b.option(bool, "find-leaks", "the library ends a process that leaks");
    const finds_races = b.option(
        bool,
        "find-races",
        "test-cuda, replay and emulator under ThreadSanitizer: threads of the host, not kernels",
    );
    const races: Checks = .{ .races = finds_races orelse false };

    const library_module = libraryModule(b, "zig/root.zig", target, optimize, .{
        .leaks = finds_leaks orelse false,
    });
    cuda_kernels.addFatbin(b, library_module, cuda_nvcc, architectures);
    const library = b.addLibrary(.{
        .name = "basedxl",
        .linkage = .dynamic,
        .root_module = library_module,
        .use_llvm = true,
    });
    b.installArtifact(library);

    const test_module = libraryModule(b, "zig/root.zig", target, optimize, .{});
    cuda_kernels.addNone(b, test_module, 0);
    addTestOptions(b, test_module);
    const tests = b.addTest(.{
        .root_module = test_module,
        .use_llvm = needsLlvm(target, optimize),
    });
    const run_tests = b.addRunArtifact(tests);
    const test_step = b.step("test", "Run the tests beside the code");
    test_step.dependOn(&run_tests.step);

    addEmulated(b, races);
    addHeaderChecks(b);

    addBench(b, "cpu-bench", "bench_cpu", target, optimize, null, "");
    addBench(b, "gpu-bench", "bench_gpu", target, optimize, cuda_nvcc, architectures);

    addBench(b, "basedxl-gpu", "gpu", target, optimize, cuda_nvcc, architectures);

    addPlans(b, target);
    addFuzz(b);
    addFaultTools(b);
    addReplay(b, races);

    // For the same target as the library: its kernels have been compiled already.
    const bindings = addProgram(b, "bindings", "bindings", target, .Debug, null, "", .{});
    const run_bindings = b.addRunArtifact(bindings);
    b.step("bindings", "Print src/native/abi.ts").dependOn(&run_bindings.step);

    // Compiled with the tests, so that it does not fall behind; run on demand, and then fast.
    const checked = addProgram(b, "signals", "bench_signals", target, .Debug, null, "", .{});
    test_step.dependOn(&checked.step);
    const signals = addProgram(b, "signals", "bench_signals", target, .ReleaseFast, null, "", .{});
    const run_signals = b.addRunArtifact(signals);
    b.step("bench-signals", "Measure signals between ranks").dependOn(&run_signals.step);
}

/// A program that runs or times operations, as a step of its own name.
fn addBench(
    b: *Build,
    name: []const u8,
    program: []const u8,
    target: Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    nvcc: ?[]const u8,
    architectures: []const u8,
) void {
    const bench = addProgram(b, name, program, target, optimize, nvcc, architectures, .{});
    const install = b.addInstallArtifact(bench, .{});
    b.step(name, "Install this program").dependOn(&install.step);
}

/// What makes recorded calls of the C ABI again: under ThreadSanitizer, which its kernels are built
/// for too, or for valgrind, to which it tells what is undefined.
fn addReplay(b: *Build, checks: Checks) void {
    const target = b.resolveTargetQuery(default_target);
    const program = addProgram(b, "replay", "replay", target, .ReleaseSafe, null, "", .{
        .races = checks.races,
        .undefined = !checks.races,
    });
    // For the emulator that it opens.
    program.rdynamic = checks.races;
    b.step("replay", "Install this program").dependOn(&b.addInstallArtifact(program, .{}).step);
}

/// The parsers of weights, instrumented by Zig, with the libFuzzer of clang.
fn addFuzz(b: *Build) void {
    const object = b.addObject(.{
        .name = "fuzz",
        .root_module = b.createModule(.{
            .root_source_file = b.path("zig/fuzz.zig"),
            .target = b.graph.host,
            .optimize = .ReleaseSafe,
            .link_libc = true,
            .fuzz = true,
        }),
        .use_llvm = true,
    });
    const link = b.addSystemCommand(&.{ "clang", "-fsanitize=fuzzer", "-o" });
    const program = link.addOutputFileArg("fuzz-weights");
    link.addFileArg(object.getEmittedBin());
    link.addArg("-lm");
    const install = b.addInstallBinFile(program, "fuzz-weights");
    b.step("fuzz", "Build what libFuzzer runs").dependOn(&install.step);
}

/// What makes calls of a program fail, on Linux.
fn addFaultTools(b: *Build) void {
    const step = b.step("fault-tools", "Build what injects faults");
    const programs = [_][2][]const u8{
        .{ "inject-faults", "zig/faults/syscalls.zig" },
        .{ "faulty-disk", "zig/faults/disk.zig" },
    };
    for (programs) |each| {
        const program = b.addExecutable(.{
            .name = each[0],
            .root_module = faultModule(b, each[1]),
            .use_llvm = needsLlvm(b.graph.host, .Debug),
        });
        step.dependOn(&b.addInstallArtifact(program, .{}).step);
    }
    const library = b.addLibrary(.{
        .name = "basedxl_faults",
        .linkage = .dynamic,
        .root_module = faultModule(b, "zig/faults/preload.zig"),
        .use_llvm = needsLlvm(b.graph.host, .Debug),
    });
    step.dependOn(&b.addInstallArtifact(library, .{}).step);
}

fn faultModule(b: *Build, root: []const u8) *Build.Module {
    return b.createModule(.{
        .root_source_file = b.path(root),
        .target = b.graph.host,
        .optimize = .Debug,
        .link_libc = true,
    });
}

/// What asks cuDNN for plans, and the driver that it finds then.
fn addPlans(b: *Build, target: Build.ResolvedTarget) void {
    const plans = addProgram(b, "cudnn-plans", "cudnn_plans", target, .ReleaseSafe, null, "", .{});
    const driver = b.addLibrary(.{
        .name = "cuda",
        .linkage = .dynamic,
        .version = .{ .major = 1, .minor = 0, .patch = 0 },
        .root_module = b.createModule(.{
            .root_source_file = b.path("zig/bench/stub_driver.zig"),
            .target = target,
            .optimize = .ReleaseSmall,
        }),
        .use_llvm = true,
    });
    const step = b.step("cudnn-plans", "Install what asks cuDNN for plans without a GPU");
    step.dependOn(&b.addInstallArtifact(plans, .{}).step);
    const folder: Build.InstallDir = .{ .custom = "lib/stub-driver" };
    const file = b.addInstallFileWithDir(driver.getEmittedBin(), folder, "libcuda.so.1");
    step.dependOn(&file.step);
}

/// An executable of zig/program.zig.
fn addProgram(
    b: *Build,
    name: []const u8,
    program: []const u8,
    target: Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    nvcc: ?[]const u8,
    architectures: []const u8,
    checks: Checks,
) *Build.Step.Compile {
    const module = libraryModule(b, "zig/program.zig", target, optimize, checks);
    cuda_kernels.addFatbin(b, module, nvcc, architectures);
    const options = b.addOptions();
    options.addOption([]const u8, "program", program);
    module.addOptions("program_options", options);
    return b.addExecutable(.{
        .name = name,
        .root_module = module,
        .use_llvm = needsLlvm(target, optimize),
    });
}

/// Where Zig's own backend will do, a Debug build takes a tenth of the time: tests and bindings.
fn needsLlvm(target: Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) bool {
    const is_known = target.result.cpu.arch == .x86_64 and target.result.os.tag == .linux;
    return optimize != .Debug or !is_known;
}

/// Where the tests that need the emulated driver are; `zig build test` runs all others. Tests are
/// named by their file. zig/test_count.zig checks the names, tests/support/zig.ts the number, so
/// that no test is in neither run.
const emulated_files = [_][]const u8{
    "backend.cuda.tests.",
    "bench.gpu_test.",
    "devices.failures_test.",
    "doctor.gpu_report_test.",
    "emulator.",
    "nvidia.libraries_test.",
    "nvidia.nccl_test.",
    "test_cuda.",
    "transport.gpu_ranks_test.",
};

fn addTestOptions(b: *Build, module: *Build.Module) void {
    const options = b.addOptions();
    options.addOption([]const []const u8, "emulated_files", &emulated_files);
    options.addOption([]const u8, "source_folder", b.pathFromRoot("zig"));
    module.addOptions("test_options", options);
}

/// The emulated driver, and the tests that open it as the product opens NVIDIA's.
fn addEmulated(b: *Build, checks: Checks) void {
    // For `replay`, which exports its ThreadSanitizer; the tests do not.
    const installed = cuda_kernels.addEmulator(b, checks.races);
    const install = b.addInstallArtifact(installed, .{});
    b.step("emulator", "Build the emulated CUDA libraries").dependOn(&install.step);
    const emulator = if (checks.races) cuda_kernels.addEmulator(b, false) else installed;

    const module = libraryModule(b, "zig/test_cuda.zig", b.graph.host, .Debug, checks);
    // The emulated driver is of this version unless a test changes that.
    cuda_kernels.addNone(b, module, 13000);
    const options = b.addOptions();
    options.addOptionPath("library_path", emulator.getEmittedBin());
    module.addOptions("emulator", options);
    addTestOptions(b, module);
    // Not the tests of what it imports: `zig build test` runs those.
    const filters = b.option([]const []const u8, "test-filter", "run only tests named so") orelse
        &emulated_files;
    const tests = b.addTest(.{
        .root_module = module,
        .use_llvm = checks.races or needsLlvm(b.graph.host, .Debug),
        .filters = filters,
    });
    const run_tests = b.addRunArtifact(tests);
    // By an option, since what is cached here does not depend on the shell's variables.
    const gpu = b.option([]const u8, "emulated-gpu", "run test-cuda on this GPU: sm_80 to sm_120");
    if (gpu) |name| run_tests.setEnvironmentVariable("BASEDXL_EMULATOR_GPU", name);
    b.step("test-cuda", "Run the CUDA path on the emulator").dependOn(&run_tests.step);
}

/// Compiles what header_checks.zig writes, a file per library; where it compiles, all holds.
fn addHeaderChecks(b: *Build) void {
    const folders = b.option([]const u8, "headers", "folders of the vendor's headers, by commas");
    const step = b.step("check-headers", "Hold the CUDA tables to the vendor's headers");
    const checks = b.addExecutable(.{
        .name = "header_checks",
        .root_module = b.createModule(.{
            .root_source_file = b.path("zig/nvidia/header_checks.zig"),
            .target = b.graph.host,
            .link_libc = true,
        }),
        .use_llvm = true,
    });
    const counted = b.addRunArtifact(checks);
    counted.addArg("count");
    for ([_][]const u8{ "cuda", "cublaslt", "cudnn", "nccl" }) |name| {
        const run = b.addRunArtifact(checks);
        run.addArg(name);
        const module = b.createModule(.{ .target = b.graph.host, .link_libcpp = true });
        var paths = std.mem.tokenizeScalar(u8, folders orelse "/usr/local/cuda/include", ',');
        while (paths.next()) |path| module.addSystemIncludePath(.{ .cwd_relative = path });
        module.addCSourceFile(.{
            .file = run.captureStdOut(.{ .basename = b.fmt("{s}.cpp", .{name}) }),
            .flags = &.{"-std=c++20"},
            .language = .cpp,
        });
        const object_name = b.fmt("{s}_headers", .{name});
        const object = b.addObject(.{ .name = object_name, .root_module = module });
        counted.step.dependOn(&object.step);
    }
    step.dependOn(&counted.step);
}

fn libraryModule(
    b: *Build,
    root: []const u8,
    target: Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    checks: Checks,
) *Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .pic = true,
        // Debug information names folders: without it, the same sources give the same bytes.
        .strip = optimize != .Debug and !checks.leaks and !checks.races and !checks.undefined,
        // For the list of what leaked.
        .omit_frame_pointer = if (checks.leaks) false else null,
        .sanitize_thread = checks.races,
        .valgrind = if (checks.undefined) true else null,
    });
    const options = b.addOptions();
    options.addOption(bool, "finds_leaks", checks.leaks);
    module.addOptions("memory_options", options);
    addCpuKernels(b, module, target, checks.races);
    // What `verify` compares networks with.
    for ([_][2][]const u8{
        .{ "golden_weights", "tests/fixtures/golden/weights.json" },
        .{ "golden_outputs", "tests/fixtures/golden/golden.safetensors" },
    }) |file| module.addAnonymousImport(file[0], .{ .root_source_file = b.path(file[1]) });
    return module;
}

const InstructionSet = struct {
    symbol: []const u8,
    query: std.Target.Query,
    /// Whether products are made of bf16 pairs.
    bf16: bool = false,
    root: []const u8 = "zig/backend/cpu/kernel_object.zig",
    /// The instruction of int8 products, in objects of these (kernels/int8_dot.zig).
    int8_dot: []const u8 = "",
};

/// The same kernels once per instruction set; always optimized, since they are unusable otherwise.
fn addCpuKernels(
    b: *Build,
    module: *Build.Module,
    target: Build.ResolvedTarget,
    finds_races: bool,
) void {
    for (instructionSets(b, target)) |set| {
        const options = b.addOptions();
        options.addOption([]const u8, "symbol", set.symbol);
        options.addOption(bool, "bf16", set.bf16);
        options.addOption([]const u8, "int8_dot", set.int8_dot);
        const kernels = b.createModule(.{
            .root_source_file = b.path(set.root),
            .target = b.resolveTargetQuery(set.query),
            .optimize = .ReleaseFast,
            .pic = true,
            .strip = !finds_races,
            .sanitize_thread = finds_races,
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
            .{
                .symbol = "bxl_cpu_kernels_x86_64_v4_bf16",
                .query = withFeature(wideVectors(query), std.Target.x86.Feature.avx512bf16),
                .bf16 = true,
            },
        },
        .aarch64 => &.{.{ .symbol = "bxl_cpu_kernels_aarch64", .query = query }},
        else => @panic("BasedXL runs on x86-64 and aarch64."),
    }) catch @panic("out of memory");
    addInt8Sets(b, &sets, target);
    return sets.items;
}

/// The kernels of int8 products, once per instruction that adds up products of bytes.
fn addInt8Sets(b: *Build, sets: *std.ArrayList(InstructionSet), target: Build.ResolvedTarget) void {
    const query = target.query;
    const x86 = std.Target.x86;
    const Int8 = struct { name: []const u8, query: std.Target.Query, dot: []const u8 };
    const all: []const Int8 = switch (target.result.cpu.arch) {
        .x86_64 => &.{
            .{ .name = "sse2", .query = withModel(query, &x86.cpu.x86_64), .dot = "pairs" },
            .{ .name = "avx2", .query = withModel(query, &x86.cpu.x86_64_v3), .dot = "pairs" },
            .{ .name = "avx512", .query = wideVectors(query), .dot = "pairs" },
            .{
                .name = "avx_vnni",
                .query = withFeature(withModel(query, &x86.cpu.x86_64_v3), x86.Feature.avxvnni),
                .dot = "vnni",
            },
            .{
                .name = "avx512_vnni",
                .query = withFeature(wideVectors(query), x86.Feature.avx512vnni),
                .dot = "vnni",
            },
        },
        .aarch64 => &.{
            .{ .name = "neon", .query = query, .dot = "plain" },
            .{
                .name = "dotprod",
                .query = withFeature(query, std.Target.aarch64.Feature.dotprod),
                .dot = "dot",
            },
            .{
                .name = "i8mm",
                .query = withFeature(query, std.Target.aarch64.Feature.i8mm),
                .dot = "mmla",
            },
        },
        else => unreachable,
    };
    for (all) |set| sets.append(b.allocator, .{
        .symbol = b.fmt("bxl_cpu_int8_{s}", .{set.name}),
        .query = set.query,
        .root = "zig/backend/cpu/int8_object.zig",
        .int8_dot = set.dot,
    }) catch @panic("out of memory");
}

fn withModel(query: std.Target.Query, model: *const std.Target.Cpu.Model) std.Target.Query {
    var with_model = query;
    with_model.cpu_arch = .x86_64;
    with_model.cpu_model = .{ .explicit = model };
    return with_model;
}

/// LLVM prefers 256-bit vectors on AVX-512 machines; the kernels are written for 512. All of these
/// machines have prefetchw, though the model does not say so.
fn wideVectors(query: std.Target.Query) std.Target.Query {
    var wide = withModel(query, &std.Target.x86.cpu.x86_64_v4);
    wide.cpu_features_sub = std.Target.x86.featureSet(&.{.prefer_256_bit});
    wide.cpu_features_add = std.Target.x86.featureSet(&.{.prfchw});
    return wide;
}

fn withFeature(query: std.Target.Query, feature: anytype) std.Target.Query {
    var with_feature = query;
    with_feature.cpu_features_add.addFeature(@intFromEnum(feature));
    return with_feature;
}
