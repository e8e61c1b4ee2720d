//! Images of one rank and of two: CUDA graphs change no bit, sizes may be turned and turned back,
//! and ranks exchange by peer copies and by NCCL in every sync mode; all against the CPU.

const std = @import("std");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const drivers = @import("../nvidia/driver.zig");
const Golden = @import("golden.zig").Golden;
const images = @import("images.zig");
const libraries = @import("../nvidia/libraries.zig");
const pipeline = @import("../pipeline.zig");
const records = @import("records.zig");
const runs = @import("run.zig");
const Run = runs.Run;
const sessions = @import("sessions.zig");
const Opened = sessions.Opened;
const SyncMode = @import("../patch/sync_mode.zig").SyncMode;

const graphs_name = "graphs on and off";
const sizes_name = "sizes turned round";

/// How two ranks reach each other.
const Link = enum {
    shared_gpu,
    peer_copies,
    nccl,

    fn title(link: Link) []const u8 {
        return switch (link) {
            .shared_gpu => "2 ranks on one GPU",
            .peer_copies => "2 ranks on two GPUs, peer copies",
            .nccl => "2 ranks on two GPUs, NCCL",
        };
    }
};

pub fn run(r: *Run) runs.Error!void {
    const i: Images = .{ .r = r };
    try i.checkGraphs(.f16, images.allowed_f16);
    if (!r.options.is_quick) try i.checkGraphs(.bf16, images.allowed_bf16);
    try i.checkSizes();
    for (std.enums.values(Link)) |link| try i.checkModes(link);
}

// --- internal ---

/// After two synchronous steps the first asynchronous one, then three of a kind: launched, captured
/// and replayed.
const mode_steps = 6;

const Images = struct {
    r: *Run,

    /// One rank; the second image replays what the first one captured.
    fn checkGraphs(i: Images, activation: sessions.DType, allowed: f64) runs.Error!void {
        const r = i.r;
        const type_name = @tagName(activation);
        if (!try r.begins(graphs_name, type_name)) return;
        const work: images.Work = .{ .step_count = if (r.options.is_quick) 4 else 12 };
        const golden = try r.model(graphs_name) orelse return;
        const place: sessions.Place = .{ .activation = activation, .library = r.options.library };
        var three: Three = undefined;
        three.open(r, golden, place) catch |err|
            return r.fail(graphs_name, type_name, "{t}", .{err});
        defer three.close();
        try three.compare(graphs_name, type_name, work, allowed);
    }

    /// In one session: the same bits as before, and close to the CPU.
    fn checkSizes(i: Images) runs.Error!void {
        const r = i.r;
        if (!try r.begins(sizes_name, "f16")) return;
        const golden = try r.model(sizes_name) orelse return;
        const place: sessions.Place = .{ .activation = .f16, .library = r.options.library };
        var on_gpu = Opened.open(r.gpa, r.io, golden, place) catch |err|
            return r.fail(sizes_name, "f16", "{t}", .{err});
        defer on_gpu.close();
        var on_cpu = Opened.open(r.gpa, r.io, golden, .{}) catch |err|
            return r.fail(sizes_name, "f16", "{t}", .{err});
        defer on_cpu.close();
        var first: [2]?[]f32 = @splat(null);
        defer for (first) |latents| if (latents) |values| r.gpa.free(values);
        var worst: f64 = 0;
        const sizes = [_]images.Size{ images.smallest, images.smallest.turned() };
        for (0..4) |turn| {
            const work: images.Work = .{ .size = sizes[turn % 2], .step_count = 3 };
            const ours = on_gpu.run(try images.jobOf(r.gpa, work)) catch
                return r.fail(sizes_name, "f16", "{s}", .{on_gpu.message});
            const latents = ours.values(f32, .latents);
            if (first[turn % 2]) |before| {
                if (!std.mem.eql(f32, before, latents)) return r.fail(
                    sizes_name,
                    "f16",
                    "{d} x {d} latents after {d} others have other bits than before",
                    .{ work.size.rows, work.size.width, turn },
                );
                continue;
            }
            first[turn % 2] = try r.gpa.dupe(f32, latents);
            const theirs = on_cpu.run(try images.jobOf(r.gpa, work)) catch
                return r.fail(sizes_name, "f16", "on the CPU {s}", .{on_cpu.message});
            const off = records.relativeL2(latents, theirs.values(f32, .latents));
            if (!(off <= worst)) worst = off;
        }
        const what = "32x64, 64x32 and both again";
        try r.compare(sizes_name, "f16", what, worst, images.allowed_f16);
    }

    fn checkModes(i: Images, link: Link) runs.Error!void {
        const r = i.r;
        var names: [mode_count][64]u8 = undefined;
        var wanted: [mode_count]?SyncMode = @splat(null);
        var wanted_count: usize = 0;
        for (std.enums.values(SyncMode), 0..) |mode, k| {
            if (r.options.is_quick and mode != .corrected_async_gn) continue;
            if (!try r.begins(nameOf(&names[k], link, mode), "f16")) continue;
            wanted[k] = mode;
            wanted_count += 1;
        }
        if (wanted_count == 0) return;
        const golden = try r.model(link.title()) orelse return;
        const reason = i.missing(link);
        var three: Three = undefined;
        if (reason.len == 0) three.open(r, golden, .{
            .activation = .f16,
            .rank_count = 2,
            .share_gpu = link == .shared_gpu,
            .transport = if (link == .nccl) .nccl else .peer,
            .library = r.options.library,
        }) catch |err| return r.fail(link.title(), "f16", "{t}", .{err});
        defer if (reason.len == 0) three.close();
        for (wanted, 0..) |maybe, k| {
            const mode = maybe orelse continue;
            const name = nameOf(&names[k], link, mode);
            if (reason.len > 0) {
                try r.report.add(.{
                    .name = name,
                    .type = "f16",
                    .verdict = .skipped,
                    .detail = reason,
                });
                continue;
            }
            const work: images.Work = .{
                .step_count = mode_steps,
                .sync_mode = mode,
                .warmup_steps = 1,
            };
            try three.compare(name, "f16", work, images.allowed_f16);
        }
    }

    /// Why ranks cannot be linked so; "" where they can.
    fn missing(i: Images, link: Link) []const u8 {
        if (link == .shared_gpu) return "";
        var arena: std.heap.ArenaAllocator = .init(i.r.gpa);
        defer arena.deinit();
        var d: Diagnostics = .{};
        const library = i.r.options.library;
        const source: libraries.Source = if (library.len > 0)
            .{ .emulated = library }
        else
            .system;
        const a = arena.allocator();
        const opened = libraries.open(a, i.r.io, source, .ofProcess(), &d) catch return "";
        const count = drivers.listGpus(&opened.driver).count;
        if (count < 2) return if (link == .nccl)
            "NCCL takes no two ranks on one GPU, and there is one"
        else
            "there is one GPU";
        return if (link == .nccl and opened.nccl == null) "NCCL is not installed" else "";
    }
};

const mode_count = std.enums.values(SyncMode).len;

fn nameOf(buffer: []u8, link: Link, mode: SyncMode) []const u8 {
    return std.fmt.bufPrint(buffer, "{s}, {t}", .{ link.title(), mode }) catch unreachable;
}

/// The same image thrice: on GPUs by CUDA graphs, launch by launch, and on the CPU.
const Three = struct {
    r: *Run,
    graphed: Opened,
    eager: Opened,
    on_cpu: Opened,

    fn open(three: *Three, r: *Run, golden: *Golden, place: sessions.Place) !void {
        three.r = r;
        three.graphed = try .open(r.gpa, r.io, golden, place);
        errdefer three.graphed.close();
        var without = place;
        without.use_graphs = false;
        three.eager = try .open(r.gpa, r.io, golden, without);
        errdefer three.eager.close();
        three.on_cpu = try .open(r.gpa, r.io, golden, .{ .rank_count = place.rank_count });
    }

    fn close(three: *Three) void {
        for ([_]*Opened{ &three.graphed, &three.eager, &three.on_cpu }) |opened| opened.close();
    }

    fn compare(
        three: *Three,
        name: []const u8,
        type_name: []const u8,
        work: images.Work,
        allowed: f64,
    ) runs.Error!void {
        const r = three.r;
        const all = [_]*Opened{ &three.graphed, &three.eager, &three.on_cpu };
        var results: [3]*const pipeline.Result = undefined;
        for (all, &results) |opened, *result| {
            result.* = opened.run(try images.jobOf(r.gpa, work)) catch
                return r.fail(name, type_name, "{s}", .{opened.message});
        }
        const ours = results[0].values(f32, .latents);
        const plain = results[1].values(f32, .latents);
        if (!std.mem.eql(f32, ours, plain)) {
            const off = records.relativeL2(ours, plain);
            const sentence = "CUDA graphs change bits, relative error {e:.1}";
            return r.fail(name, type_name, sentence, .{off});
        }
        // The same bits prove nothing where nothing was replayed.
        const stats = results[0].values(pipeline.RankStats, .rank_stats);
        if (stats[0].graphs_replayed == 0) {
            return r.fail(name, type_name, "no CUDA graph was replayed", .{});
        }
        const off = records.relativeL2(ours, results[2].values(f32, .latents));
        try r.compare(name, type_name, "graphs change no bit", off, allowed);
    }
};
