//! `basedxl-gpu model`: images by the product's sessions on a GPU, through the C ABI: milliseconds
//! of a UNet step, text encoders and decoding, the time to the first step, memory in use beside the
//! plan's, and latents beside recorded ones.
//!
//!     basedxl-gpu model LIST.json PART [EMULATOR]
//!
//! A line `figure NAME VALUE UNIT`, by tabs, follows what it sums up. A run that fails is reported
//! and the others follow; the exit code is then 1. The first run of a list is the smallest: memory
//! in use beyond its plan is the driver's and the libraries', and is subtracted from the others'.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const abi = @import("../abi.zig");
const dependent_launches = @import("../backend/cuda/dependent_launches.zig");
const runs = @import("gpu_runs.zig");
const Run = runs.Run;
const types = @import("../abi/types.zig");
const Bytes = types.Bytes;
const Session = @import("../session.zig").Session;
const StepCoefficients = @import("../backend.zig").StepCoefficients;

/// Steps that launch eagerly, are captured, and replay for the first time.
const untimed_step_count = 3;
/// Steps of an image that only warms up.
const warmup_step_count = 4;
const poll_us = 500;
const plan_bytes_max = 16 << 20;

pub fn main(init: std.process.Init, args: []const [:0]const u8) !u8 {
    const arena = init.arena.allocator();
    var buffer: [4096]u8 = undefined;
    var out = Io.File.stdout().writerStreaming(init.io, &buffer);
    if (args.len < 2) {
        try out.interface.writeAll("usage: basedxl-gpu model LIST.json PART [EMULATOR]\n");
        try out.interface.flush();
        return 2;
    }
    const list = try runs.read(arena, init.io, args[0]);
    var bench: Bench = .{
        .arena = arena,
        .io = init.io,
        .out = &out.interface,
        .list = &list,
        .folder = std.fs.path.dirname(args[0]) orelse ".",
        .emulator = if (args.len > 2) args[2] else "",
    };
    var failure_count: u32 = 0;
    for (list.runs, 0..) |*run, i| {
        if (i > 0 and !std.mem.eql(u8, run.part, args[1])) continue;
        bench.measure(run, i == 0) catch |err| {
            failure_count += 1;
            const sentence = bench.message();
            try bench.out.print("FAILED {s}: {s}\n", .{
                run.name, if (sentence.len > 0) sentence else @errorName(err),
            });
        };
        try bench.out.flush();
    }
    return @intFromBool(failure_count > 0);
}

// --- internal ---

const Bench = struct {
    arena: Allocator,
    io: Io,
    out: *Io.Writer,
    list: *const runs.List,
    folder: []const u8,
    emulator: []const u8,
    /// Memory in use beyond the plan, as the first run found it.
    extra_bytes: ?u64 = null,
    text: [512]u8 = undefined,
    text_len: usize = 0,

    fn measure(bench: *Bench, run: *const Run, is_first: bool) !void {
        bench.text_len = 0;
        // What a part that is cut off was about, and how far it came.
        try bench.out.print("{s}: begins\n", .{run.name});
        try bench.out.flush();
        const model = for (bench.list.models) |*each| {
            if (std.mem.eql(u8, each.name, run.model)) break each;
        } else return error.BadDescription;
        const steps = try run.stepCoefficients(bench.arena);
        const options = try bench.optionsOf(run, model);
        const planned = try bench.plannedBytes(&options);
        dependent_launches.want(run.dependent_launches);
        const start = Io.Timestamp.now(bench.io, .awake);
        var session: ?*Session = null;
        if (abi.bxl_session_open(&options, &session) != .ok) return bench.failed(null);
        const opened = session.?;
        defer bench.close(opened);
        _ = try bench.settled(opened, .loading);
        const load_ms = milliseconds(start.durationTo(.now(bench.io, .awake)).nanoseconds);
        const first = try bench.image(opened, run, model, steps[0..@min(1, steps.len)]);
        const first_ms = load_ms + first.text_ms + first.step_ms[0];
        try bench.out.print("{s}: loaded in {d:.2} s, first step {d:.1} ms, VAE {d:.1} ms\n", .{
            run.name, load_ms / 1e3, first.step_ms[0], first.decode_ms,
        });
        try bench.figure(run, "loading and first step", first_ms / 1e3, "s");
        for (0..run.warmup_count) |_| {
            const count = @min(steps.len, warmup_step_count);
            const early = try bench.image(opened, run, model, steps[0..count]);
            try bench.out.print("{s}: warm-up, step {d:.2} ms, VAE {d:.2} ms\n", .{
                run.name, early.step_ms[count - 1], early.decode_ms,
            });
            try bench.out.flush();
        }
        const last = try bench.image(opened, run, model, steps);
        if (is_first) bench.extra_bytes = last.device_bytes -| planned;
        try bench.report(run, last, load_ms);
        try bench.reportMemory(run, last.device_bytes, planned);
        if (run.expected) |*expected| try bench.compare(opened, run, expected);
    }

    const Image = struct {
        text_ms: f64,
        decode_ms: f64,
        image_ms: f64,
        step_ms: []f64,
        device_bytes: u64,
    };

    fn image(
        bench: *Bench,
        session: *Session,
        run: *const Run,
        model: *const runs.Model,
        steps: []const StepCoefficients,
    ) !Image {
        const factor = (try model.modelConfig()).vae.factor();
        const height: f32 = @floatFromInt(run.latent_rows * factor);
        const width: f32 = @floatFromInt(run.latent_width * factor);
        const scales = [_]f32{run.guidance_scale};
        const prompts = [_]types.Tokens{tokens(&run.prompt)};
        const negatives = [_]types.Tokens{tokens(&run.negative)};
        var request = std.mem.zeroes(types.Request);
        request.size = @sizeOf(types.Request);
        request.kind = .image;
        request.batch = 1;
        request.latent_rows = run.latent_rows;
        request.latent_width = run.latent_width;
        request.branch_count = 2;
        request.init_noise_sigma = run.init_noise_sigma;
        request.wants_latents = @intFromBool(run.expected != null);
        request.seeds = bytesOf(&[_]u64{run.seed});
        request.steps = bytesOf(steps);
        request.guidance_scales = bytesOf(&scales);
        request.prompts = bytesOf(&prompts);
        request.negatives = bytesOf(&negatives);
        for ([_]f32{ height, width, 0, 0, height, width }, 0..) |value, i| {
            request.time_ids[i] = value;
        }
        request.negative_time_ids = request.time_ids;
        if (abi.bxl_session_submit(session, &request) != .ok) return bench.failed(null);
        const done = try bench.settled(session, .running);
        const step_ms = try bench.readAs(u64, session, .step_ns);
        const result: Image = .{
            .text_ms = milliseconds(done.text_ns),
            .decode_ms = milliseconds(done.decode_ns),
            .image_ms = milliseconds(done.text_ns + done.denoise_ns + done.decode_ns),
            .step_ms = try bench.arena.alloc(f64, step_ms.len),
            .device_bytes = done.device_bytes,
        };
        for (result.step_ms, step_ms) |*ms, ns| ms.* = milliseconds(ns);
        return result;
    }

    fn report(
        bench: *Bench,
        run: *const Run,
        result: Image,
        load_ms: f64,
    ) !void {
        const count = result.step_ms.len;
        const timed = result.step_ms[@min(untimed_step_count, count - 1)..];
        std.mem.sort(f64, timed, {}, std.sort.asc(f64));
        const median = timed[timed.len / 2];
        try bench.out.print(
            "{s}: step {d:.2} ms ({d:.2} to {d:.2}, {d} steps), text {d:.2} ms, VAE {d:.2} ms, " ++
                "{d} steps with text and VAE {d:.3} s; loaded in {d:.2} s\n",
            .{
                run.name,             median,    timed[0],
                timed[timed.len - 1], timed.len, result.text_ms,
                result.decode_ms,     count,     result.image_ms / 1e3,
                load_ms / 1e3,
            },
        );
        try bench.figure(run, "step", median, "ms");
        try bench.figure(run, "fastest step", timed[0], "ms");
        try bench.figure(run, "VAE decode", result.decode_ms, "ms");
        try bench.figure(run, "text", result.text_ms, "ms");
        const all = try std.fmt.allocPrint(bench.arena, "{d} steps with VAE", .{count});
        try bench.figure(run, all, result.image_ms / 1e3, "s");
    }

    fn reportMemory(bench: *Bench, run: *const Run, used: u64, planned: u64) !void {
        if (used == 0) return;
        const extra = bench.extra_bytes orelse return;
        const own = gigabytes(used -| extra);
        const wanted = gigabytes(planned);
        try bench.out.print(
            "{s}: memory {d:.2} GB in use, {d:.2} of it the driver's and the libraries', " ++
                "{d:.2} planned\n",
            .{ run.name, gigabytes(used), gigabytes(extra), wanted },
        );
        try bench.figure(run, "memory against the plan", 100 * (own / wanted - 1), "%");
    }

    fn compare(
        bench: *Bench,
        session: *Session,
        run: *const Run,
        expected: *const runs.Expected,
    ) !void {
        const latents = try bench.readAs(f32, session, .latents);
        const off = differenceOf(latents, expected);
        const is_within = off <= expected.limit;
        try bench.out.print("{s}: latents {e:.2} from the recorded ones, {e:.2} allowed: {s}\n", .{
            run.name, off, expected.limit, if (is_within) "passed" else "FAILED",
        });
        try bench.figure(run, "latents' relative L2 error", off, "");
        if (!is_within) return bench.fail("latents of {s} are off", .{run.name});
    }

    fn figure(
        bench: *Bench,
        run: *const Run,
        what: []const u8,
        value: f64,
        unit: []const u8,
    ) !void {
        try bench.out.print("figure\t{s}: {s}\t{d:.5}\t{s}\n", .{ run.name, what, value, unit });
        try bench.out.flush();
    }

    fn optionsOf(bench: *Bench, run: *const Run, model: *const runs.Model) !types.SessionOptions {
        var options = std.mem.zeroes(types.SessionOptions);
        options.size = @sizeOf(types.SessionOptions);
        options.rank_count = 1;
        options.local_rank_count = 1;
        options.device = .cuda;
        options.activation_dtype = .f16;
        options.cuda_graphs = @intFromBool(run.use_graphs);
        options.attention = run.attention;
        options.random_weights = @intFromBool(run.random_weights);
        if (run.int8) options.compute_dtype = .int8;
        options.branch_count = 2;
        options.latent_rows = run.latent_rows;
        options.latent_width = run.latent_width;
        options.image_count = 1;
        options.cuda_library = try bench.path(&.{bench.emulator});
        options.config = try model.modelConfig();
        inline for (@typeInfo(runs.Files).@"struct".fields) |field| {
            const file: runs.File = @field(model.files, field.name);
            const there = try bench.path(&.{ bench.folder, file.path });
            try runs.stretch(bench.io, std.mem.sliceTo(there.slice(), 0), file.bytes);
            @field(options, field.name ++ "_files") = there;
        }
        return options;
    }

    /// A path with a 0 byte behind it; "" for no path.
    fn path(bench: *Bench, names: []const []const u8) !Bytes {
        const whole = try std.fs.path.joinZ(bench.arena, names);
        if (whole.len == 0) return .{ .address = 0, .len = 0 };
        return .{ .address = @intFromPtr(whole.ptr), .len = whole.len + 1 };
    }

    /// Of weights, the arena and the workspaces.
    fn plannedBytes(bench: *Bench, options: *const types.SessionOptions) !u64 {
        const Plan = struct {
            weight_bytes: u64,
            passes: []const struct {
                ranks: []const struct {
                    scratch_bytes: u64,
                    workspace_bytes: u64,
                    partial_bytes: u64,
                },
            },
        };
        const buffer = try std.heap.page_allocator.alloc(u8, plan_bytes_max);
        defer std.heap.page_allocator.free(buffer);
        const len = abi.bxl_plan(options, buffer.ptr, buffer.len);
        if (len == 0) return bench.failed(null);
        const plan = try std.json.parseFromSliceLeaky(
            Plan,
            bench.arena,
            buffer[0..@min(len, buffer.len)],
            .{ .ignore_unknown_fields = true },
        );
        const rank = plan.passes[0].ranks[0];
        return plan.weight_bytes + rank.scratch_bytes + rank.workspace_bytes + rank.partial_bytes;
    }

    /// Waits until the session is no longer `busy`.
    fn settled(
        bench: *Bench,
        session: *Session,
        busy: @import("../session.zig").State,
    ) !types.Progress {
        var progress = std.mem.zeroes(types.Progress);
        progress.size = @sizeOf(types.Progress);
        while (true) {
            _ = abi.bxl_session_poll(session, &progress);
            if (progress.state != busy) break;
            try bench.io.sleep(.fromMicroseconds(poll_us), .awake);
        }
        if (progress.status != .ok) return bench.failed(session);
        return progress;
    }

    fn close(bench: *Bench, session: *Session) void {
        abi.bxl_session_close(session);
        while (session.currentState() != .closed) {
            bench.io.sleep(.fromMicroseconds(poll_us), .awake) catch {};
        }
        abi.bxl_session_free(session);
    }

    fn readAs(
        bench: *Bench,
        comptime T: type,
        session: *Session,
        output: @import("../pipeline.zig").Output,
    ) ![]T {
        const len = abi.bxl_session_read(session, output, null, 0);
        const values = try bench.arena.alloc(T, len / @sizeOf(T));
        const bytes = std.mem.sliceAsBytes(values);
        _ = abi.bxl_session_read(session, output, bytes.ptr, bytes.len);
        return values;
    }

    /// Keeps the library's sentence, of a session or of the last call.
    fn failed(bench: *Bench, session: ?*const Session) error{Failed} {
        bench.text_len = @intCast(abi.bxl_last_error(session, &bench.text, bench.text.len));
        return error.Failed;
    }

    fn fail(bench: *Bench, comptime sentence: []const u8, args: anytype) error{Failed} {
        const text = std.fmt.bufPrint(&bench.text, sentence, args) catch &bench.text;
        bench.text_len = text.len;
        return error.Failed;
    }

    fn message(bench: *const Bench) []const u8 {
        return bench.text[0..bench.text_len];
    }
};

fn tokens(given: *const runs.Tokens) types.Tokens {
    var result = std.mem.zeroes(types.Tokens);
    result.ids = bytesOf(given.ids);
    result.ids_2 = bytesOf(given.ids_2);
    result.end_index = given.end_index;
    result.repeat_count = 1;
    result.present = 1;
    return result;
}

/// Of values that outlive the call.
fn bytesOf(values: anytype) Bytes {
    const bytes = std.mem.sliceAsBytes(values);
    return .{ .address = @intFromPtr(bytes.ptr), .len = bytes.len };
}

fn milliseconds(ns: anytype) f64 {
    return @as(f64, @floatFromInt(ns)) / 1e6;
}

fn gigabytes(bytes: u64) f64 {
    return @as(f64, @floatFromInt(bytes)) / 1e9;
}

/// The larger relative L2 error of the recorded numbers and of the recorded norms.
fn differenceOf(values: []const f32, expected: *const runs.Expected) f64 {
    if (values.len == 0) return std.math.inf(f64);
    var square: f64 = 0;
    var whole: f64 = 0;
    for (expected.values, 0..) |wanted, i| {
        const place = i * expected.stride;
        const value: f64 = if (place < values.len) values[place] else std.math.inf(f64);
        square += (value - wanted) * (value - wanted);
        whole += @as(f64, wanted) * wanted;
    }
    var most = @sqrt(square / whole);
    if (expected.norms.len == 0) return most;
    square = 0;
    whole = 0;
    for (expected.norms, 0..) |wanted, i| {
        var sum: f64 = 0;
        const first = @min(values.len, i * expected.block_length);
        const end = @min(values.len, first + expected.block_length);
        for (values[first..end]) |value| sum += @as(f64, value) * value;
        square += (@sqrt(sum) - wanted) * (@sqrt(sum) - wanted);
        whole += @as(f64, wanted) * wanted;
    }
    most = @max(most, @sqrt(square / whole));
    return most;
}

test "differences of numbers and of norms" {
    const values = [_]f32{ 3, 4, 0, 1 };
    var expected: runs.Expected = .{
        .values = &.{ 3, 0 },
        .stride = 2,
        .norms = &.{ 5, 1 },
        .block_length = 2,
        .limit = 0,
    };
    try std.testing.expectEqual(0, differenceOf(&values, &expected));
    expected.norms = &.{ 5, 0.5 };
    try std.testing.expectApproxEqAbs(0.5 / @sqrt(25.25), differenceOf(&values, &expected), 1e-9);
    expected.values = &.{ 2, 0 };
    try std.testing.expectApproxEqAbs(0.5, differenceOf(&values, &expected), 1e-9);
    try std.testing.expect(!std.math.isFinite(differenceOf(values[0..1], &.{
        .values = &.{ 3, 4 },
        .stride = 1,
        .norms = &.{},
        .block_length = 0,
        .limit = 0,
    })));
}
