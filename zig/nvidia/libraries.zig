//! Opens the vendor's libraries, or the emulator in their place, and reports each missing one with
//! the package to install. Generation on a GPU needs the driver, cuBLASLt and cuDNN;
//! NCCL only for several GPUs without peer copies, or several machines.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const dynamic = @import("dynamic.zig");
const library_folders = @import("library_folders.zig");
const cublaslt = @import("cublaslt.zig");
const cudnn = @import("cudnn.zig");
const driver = @import("driver.zig");
const kernels = @import("kernels.zig");
const nccl = @import("nccl.zig");

pub const Environment = library_folders.Environment;

pub const Source = union(enum) {
    /// The vendor's own, wherever they lie.
    system,
    /// The emulator: one library that implements all of them, for tests.
    emulated: [:0]const u8,
};

pub const Libraries = struct {
    driver: driver.Driver,
    cublaslt: cublaslt.CublasLt,
    cudnn: cudnn.Cudnn,
    /// Null where it is missing; then `nccl_sentence` names the package to install.
    nccl: ?nccl.Nccl,
    nccl_sentence: []const u8,
    /// As reported by the libraries: part of the names of cache files.
    cublaslt_version: u32,
    cudnn_version: u32,
};

/// One library as the search left it: opened, or a sentence on what to do.
pub fn Outcome(comptime Table: type) type {
    return struct {
        table: ?Table = null,
        /// The file it came from.
        path: []const u8 = "",
        /// As reported by the library: 130101.
        version: u32 = 0,
        /// What is wrong and what to do about it, both without a full stop; "" where it was opened.
        what: []const u8 = "",
        advice: []const u8 = "",
        /// Nothing of it was found, as opposed to one that will not do.
        is_absent: bool = false,

        /// Both in one sentence; "" where it was opened.
        pub fn sentence(outcome: @This(), arena: Allocator) Allocator.Error![]const u8 {
            if (outcome.what.len == 0) return "";
            return std.fmt.allocPrint(arena, "{s}: {s}.", .{ outcome.what, outcome.advice });
        }
    };
}

pub const Search = struct {
    driver: Outcome(driver.Driver) = .{},
    cublaslt: Outcome(cublaslt.CublasLt) = .{},
    cudnn: Outcome(cudnn.Cudnn) = .{},
    nccl: Outcome(nccl.Nccl) = .{},
    /// cuDNN compiles fused kernels with it; without, convolutions take two passes.
    nvrtc_path: []const u8 = "",
};

/// Opens all available libraries. Texts live in `arena`; libraries stay open until process exit.
pub fn search(
    arena: Allocator,
    io: Io,
    source: Source,
    environment: Environment,
) Allocator.Error!Search {
    var result: Search = .{};
    const context: Context = .{
        .arena = arena,
        .io = io,
        .source = source,
        .environment = environment,
    };
    result.driver = try context.find(driver.Driver, &driver_kind, &driver.system_names);
    const cuda = result.driver.version;
    try context.refuseOldDriver(&result.driver);
    const is_new = cuda == 0 or cuda >= 13000;
    // The driver of CUDA 12 cannot run what was built for CUDA 13; the reverse works.
    const lt_names: []const []const u8 = if (is_new)
        &.{ "libcublasLt.so.13", "libcublasLt.so.12" }
    else
        &.{"libcublasLt.so.12"};
    const suffix: []const u8 = if (is_new) "13" else "12";
    result.cublaslt = try context.find(cublaslt.CublasLt, &.{
        .title = "cuBLASLt",
        .package = if (is_new) "nvidia-cublas" else "nvidia-cublas-cu12",
        .version_min = cublaslt.version_min,
    }, lt_names);
    // Opened before cuDNN, which looks by name alone for that of the CUDA that it was built for: a
    // toolkit's of CUDA 13 is none for the cuDNN of a Python environment of CUDA 12.
    var nvrtc_paths: [nvrtc_names.len][]const u8 = @splat("");
    if (source == .system) for (nvrtc_names, &nvrtc_paths) |name, *path| {
        path.* = try context.openAny(&.{name});
    };
    result.cudnn = try context.find(cudnn.Cudnn, &.{
        .title = "cuDNN",
        .package = try std.fmt.allocPrint(arena, "nvidia-cudnn-cu{s}", .{suffix}),
        .version_min = cudnn.version_min,
        .cuda_max = if (is_new) 0 else 13000,
    }, &.{"libcudnn.so.9"});
    if (result.cudnn.table) |table| {
        const name_index: usize = if (table.cudnnGetCudartVersion() < 13000) 1 else 0;
        result.nvrtc_path = nvrtc_paths[name_index];
    }
    result.nccl = try context.find(nccl.Nccl, &.{
        .title = "NCCL",
        .package = try std.fmt.allocPrint(arena, "nvidia-nccl-cu{s}", .{suffix}),
        .version_min = nccl.version_min,
    }, &.{"libnccl.so.2"});
    return result;
}

/// All libraries that generation on a GPU needs; otherwise the sentence for the first missing one.
pub fn open(
    arena: Allocator,
    io: Io,
    source: Source,
    environment: Environment,
    diagnostics: *Diagnostics,
) error{ LibraryMissing, OutOfMemory }!Libraries {
    const found = try search(arena, io, source, environment);
    const d = diagnostics;
    return .{
        .driver = found.driver.table orelse
            return d.fail(error.LibraryMissing, "{s}", .{try found.driver.sentence(arena)}),
        .cublaslt = found.cublaslt.table orelse
            return d.fail(error.LibraryMissing, "{s}", .{try found.cublaslt.sentence(arena)}),
        .cudnn = found.cudnn.table orelse
            return d.fail(error.LibraryMissing, "{s}", .{try found.cudnn.sentence(arena)}),
        .nccl = found.nccl.table,
        .nccl_sentence = try found.nccl.sentence(arena),
        .cublaslt_version = found.cublaslt.version,
        .cudnn_version = found.cudnn.version,
    };
}

/// "13.1.1" of 130101, "13.0" of the driver's 13000.
pub fn versionText(buffer: []u8, comptime Table: type, version: u32) []const u8 {
    if (Table == driver.Driver) {
        const args = .{ version / 1000, version % 1000 / 10 };
        return std.fmt.bufPrint(buffer, "{d}.{d}", args) catch "";
    }
    // Before cuDNN 9 and NCCL 2.9 a thousand stood for the first part.
    const major_unit: u32 = if (version < 10_000) 1000 else 10_000;
    return std.fmt.bufPrint(buffer, "{d}.{d}.{d}", .{
        version / major_unit, version % major_unit / 100, version % 100,
    }) catch "";
}

// --- internal ---

/// Of CUDA 13 and of CUDA 12.
const nvrtc_names = [_][]const u8{ "libnvrtc.so.13", "libnvrtc.so.12" };

const Kind = struct {
    title: []const u8,
    /// The Python package that brings it; "" for the driver, which no package brings.
    package: []const u8,
    version_min: u32,
    /// Not 0: built for a CUDA before this one.
    cuda_max: usize = 0,
};

const driver_kind: Kind = .{
    .title = "NVIDIA's driver",
    .package = "",
    .version_min = driver.version_min,
};

const Context = struct {
    arena: Allocator,
    io: Io,
    source: Source,
    environment: Environment,

    /// The first candidate that opens, has every function, and is new enough.
    fn find(
        context: Context,
        comptime Table: type,
        kind: *const Kind,
        sonames: []const []const u8,
    ) Allocator.Error!Outcome(Table) {
        var refusal: []const u8 = "";
        for (try context.candidates(sonames)) |path| {
            const handle = dynamic.open(path) orelse {
                // Report existing files that do not load, but not names that were not found.
                if (refusal.len == 0 and std.mem.indexOfScalar(u8, path, '/') != null) {
                    refusal = try context.text("{s} cannot be loaded ({s})", .{
                        path, dynamic.lastError(),
                    });
                }
                continue;
            };
            var missing: []const u8 = "";
            const table = dynamic.load(Table, handle, &missing) catch {
                if (refusal.len == 0) refusal = try context.text(
                    "{s} is too old: it has no {s}",
                    .{ path, missing },
                );
                continue;
            };
            const version = versionOf(Table, &table);
            const cuda = if (Table == cudnn.Cudnn) table.cudnnGetCudartVersion() else 0;
            // A library that reports no version is tried.
            const is_new = version == 0 or version >= kind.version_min;
            if (is_new and (kind.cuda_max == 0 or cuda < kind.cuda_max)) {
                return .{
                    .table = table,
                    .path = try context.pathOf(table, path),
                    .version = version,
                };
            }
            if (refusal.len == 0) refusal = try context.tooOld(Table, kind, path, version);
        }
        return context.failed(Table, kind, sonames[0], refusal);
    }

    /// Kernels of a newer CUDA would fail to load with words that name neither.
    fn refuseOldDriver(
        context: Context,
        outcome: *Outcome(driver.Driver),
    ) Allocator.Error!void {
        const version = outcome.version;
        const toolkit = kernels.toolkit;
        if (outcome.table == null or kernels.isLoadedBy(version, toolkit)) return;
        var have: [32]u8 = undefined;
        var built: [32]u8 = undefined;
        var need: [64]u8 = undefined;
        outcome.* = .{
            .what = try context.text("The kernels were built by CUDA {s} and need {s}; this " ++
                "machine's driver is of CUDA {s}", .{
                versionText(&built, driver.Driver, toolkit),
                kernels.driverText(&need, toolkit),
                versionText(&have, driver.Driver, version),
            }),
            .advice = "update NVIDIA's driver (nvidia.com/drivers or the distribution), or " ++
                "build with the nvcc of an older CUDA toolkit (BASEDXL_NVCC)",
        };
    }

    fn candidates(
        context: Context,
        sonames: []const []const u8,
    ) Allocator.Error![]const [:0]const u8 {
        return switch (context.source) {
            .emulated => |path| try context.arena.dupe([:0]const u8, &.{path}),
            .system => library_folders.candidates(
                context.arena,
                context.io,
                context.environment,
                sonames,
            ),
        };
    }

    /// Opens a library that is not called from here; its path, or "" where there is none.
    fn openAny(context: Context, sonames: []const []const u8) Allocator.Error![]const u8 {
        for (try context.candidates(sonames)) |path| {
            if (dynamic.open(path) != null) return path;
        }
        return "";
    }

    fn tooOld(
        context: Context,
        comptime Table: type,
        kind: *const Kind,
        path: []const u8,
        version: u32,
    ) Allocator.Error![]const u8 {
        var have: [32]u8 = undefined;
        var need: [32]u8 = undefined;
        if (version >= kind.version_min) return context.text(
            "{s} is built for a newer CUDA than this machine's driver knows",
            .{path},
        );
        return context.text("{s} is {s} {s}, and {s} or newer is needed", .{
            path,
            kind.title,
            versionText(&have, Table, version),
            versionText(&need, Table, kind.version_min),
        });
    }

    fn failed(
        context: Context,
        comptime Table: type,
        kind: *const Kind,
        soname: []const u8,
        refusal: []const u8,
    ) Allocator.Error!Outcome(Table) {
        const absent = try context.text("{s} ({s}) was not found", .{ kind.title, soname });
        var outcome: Outcome(Table) = .{
            .what = if (refusal.len > 0) refusal else absent,
            .is_absent = refusal.len == 0,
        };
        if (context.source == .emulated) {
            const path = context.source.emulated;
            const args = .{ path, kind.title, refusal };
            outcome.what = try context.text("the emulator {s} has no {s} ({s})", args);
            outcome.advice = "`zig build emulator` builds it";
        } else if (kind.package.len == 0) {
            var need: [64]u8 = undefined;
            const version = if (kernels.toolkit > 0) kernels.toolkit else kind.version_min;
            outcome.advice = try context.text("install NVIDIA's driver for this machine's GPU " ++
                "({s}, from nvidia.com/drivers or the distribution), until `nvidia-smi` works", .{
                kernels.driverText(&need, version),
            });
        } else if (refusal.len > 0) {
            outcome.advice = try context.text(
                "`pip install --upgrade {s}` in an active Python environment brings one",
                .{kind.package},
            );
        } else outcome.advice = try context.text(
            "`pip install {s}` in an active Python environment brings it, or set CUDA_HOME to a " ++
                "CUDA toolkit that has it",
            .{kind.package},
        );
        return outcome;
    }

    fn pathOf(context: Context, table: anytype, fallback: []const u8) Allocator.Error![]const u8 {
        var buffer: [std.fs.max_path_bytes]u8 = undefined;
        const first = @typeInfo(@TypeOf(table)).@"struct".fields[0].name;
        const path = dynamic.pathOf(@field(table, first), &buffer);
        return if (path.len > 0) context.arena.dupe(u8, path) else fallback;
    }

    fn text(
        context: Context,
        comptime format: []const u8,
        args: anytype,
    ) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(context.arena, format, args);
    }
};

fn versionOf(comptime Table: type, table: *const Table) u32 {
    switch (Table) {
        driver.Driver => return table.version(),
        cublaslt.CublasLt => return @truncate(table.cublasLtGetVersion()),
        cudnn.Cudnn => return @truncate(table.cudnnGetVersion()),
        nccl.Nccl => {
            var version: c_int = 0;
            if (table.ncclGetVersion(&version) != .success or version < 0) return 0;
            return @intCast(version);
        },
        else => @compileError("no version of " ++ @typeName(Table)),
    }
}

test "versions read as the vendor writes them" {
    var buffer: [32]u8 = undefined;
    const expect = std.testing.expectEqualStrings;
    try expect("12.4", versionText(&buffer, driver.Driver, 12040));
    try expect("13.1.1", versionText(&buffer, cublaslt.CublasLt, 130101));
    try expect("8.9.7", versionText(&buffer, cudnn.Cudnn, 8907));
    try expect("2.30.7", versionText(&buffer, nccl.Nccl, 23007));
}

test "what is missing is a sentence with what to install, on any machine" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const found = try search(arena.allocator(), std.testing.io, .system, .ofProcess());
    inline for (.{ "driver", "cublaslt", "cudnn", "nccl" }) |name| {
        const outcome = @field(found, name);
        const sentence = try outcome.sentence(arena.allocator());
        try std.testing.expectEqual(outcome.table == null, sentence.len > 0);
        try std.testing.expectEqual(outcome.table != null, outcome.path.len > 0);
        if (outcome.table == null) {
            const hint = if (comptime std.mem.eql(u8, name, "driver")) "install" else "pip install";
            try std.testing.expect(std.mem.indexOf(u8, sentence, hint) != null);
        }
    }
}

test "an emulator that is not there is named" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var diagnostics: Diagnostics = .{};
    const source: Source = .{ .emulated = "no/such/emulator.so" };
    const result = open(arena.allocator(), std.testing.io, source, .{}, &diagnostics);
    try std.testing.expectError(error.LibraryMissing, result);
    const message = diagnostics.message();
    try std.testing.expect(std.mem.indexOf(u8, message, "no/such/emulator.so") != null);
    try std.testing.expect(std.mem.indexOf(u8, message, "zig build emulator") != null);
}
