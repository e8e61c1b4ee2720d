//! The only boundary: what TypeScript may call and see. Every pointer that comes in is copied
//! before the call returns; handles are opaque; structs say their size first, so that a caller
//! built for another version is refused. `src/native/abi.ts` is generated from this file (`zig
//! build bindings`).

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;
const backends = @import("backend.zig");
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const cuda_driver = @import("cuda/driver.zig");
const cuda_kernels = @import("cuda/kernels.zig");
const gpu_report = @import("cuda/gpu_report.zig");
const jobs = @import("job.zig");
const meetings = @import("cuda/meeting.zig");
const memory = @import("memory.zig");
const models = @import("model.zig");
const configs = @import("model/config.zig");
const random = @import("random.zig");
const sessions = @import("session.zig");
const Session = sessions.Session;
const layouts = @import("patch/layout.zig");
const rank_count_max = layouts.rank_count_max;
const modes = @import("patch/mode.zig");
const faults = @import("transport/faults.zig");
const types = @import("abi/types.zig");
const abi_version = types.abi_version;
const step_count_max = types.step_count_max;
const picture_count_max = types.picture_count_max;
const Status = types.Status;
const text_bytes_max = types.text_bytes_max;
const DeviceInfo = types.DeviceInfo;
const Bytes = types.Bytes;
const SessionOptions = types.SessionOptions;
const Tokens = types.Tokens;
const TestHooks = types.TestHooks;
const Request = types.Request;
const Progress = types.Progress;

const gpa = std.heap.c_allocator;
/// Files and futexes only: it starts no threads and takes no signals from the host process.
const io = std.Io.Threaded.global_single_threaded.io();
/// The sentence for calls that have no session to keep it.
threadlocal var last_error: Diagnostics = .{};

pub export fn bxl_abi_version() callconv(.c) u32 {
    return abi_version;
}

pub export fn bxl_device_info(info: *DeviceInfo) callconv(.c) Status {
    if (info.size != @sizeOf(DeviceInfo)) return refuse("device info of another version", .{});
    info.core_count = @intCast(std.Thread.getCpuCount() catch 1);
    info.memory_available = memory.available(io) orelse 0;
    const cpu = backends.cpus.detect();
    putText(&info.cpu_name, cpu.name());
    putText(&info.instruction_set, @tagName(cpu.best));
    info.has_bf16 = @intFromBool(cpu.has_bf16);
    const gpus = cuda_driver.findGpus();
    info.gpu_count = gpus.count;
    putText(&info.gpu_name, if (gpus.count > 0) gpus.name(0) else "");
    putText(&info.cuda_kernels, cuda_kernels.architectures());
    return .ok;
}

/// Opens a session and begins to load it; `bxl_session_poll` tells when it is ready.
pub export fn bxl_session_open(
    options: *const SessionOptions,
    out: *?*Session,
) callconv(.c) Status {
    out.* = null;
    last_error.reset();
    if (options.size != @sizeOf(SessionOptions)) return refuse("options of another version", .{});
    if (options.rank_count < 1 or options.rank_count > rank_count_max) {
        return refuse("{d} ranks; 1 to {d} can be had", .{ options.rank_count, rank_count_max });
    }
    if (checkMachines(options)) |status| return status;
    if (checkBranches(options.branch_count)) |status| return status;
    const is_cpu = options.device == .cpu;
    switch (options.activation) {
        .f32 => if (!is_cpu) return refuse("activations of f32 on a GPU; f16 or bf16", .{}),
        .f16, .bf16 => if (is_cpu) return refuse("activations of 16 bits on the CPU", .{}),
        else => return refuse("activations that are no floats", .{}),
    }
    if (options.fp16_accumulate != 0 and options.activation != .f16) {
        return refuse("sums in f16 without activations in f16", .{});
    }
    if (is_cpu and options.config.vae.stream_scale != 1) return refuse("a stream scale", .{});
    if (options.thread_count > 4096) return refuse("threads: 0 to 4096", .{});
    if (options.compute == .bf16 and !backends.cpus.detect().has_bf16) {
        return refuse("bf16, which this processor has no instructions for (AVX512_BF16)", .{});
    }
    configs.check(&options.config, &last_error) catch return .bad_config;
    const refused = checkSize(&options.config, options.latent_rows, options.latent_width);
    if (refused) |status| return status;
    if (options.picture_count < 1 or options.picture_count > picture_count_max) {
        return refuse("{d} pictures at once; 1 to {d}", .{
            options.picture_count, picture_count_max,
        });
    }
    out.* = openSession(options) catch |err| return statusOf(err);
    return .ok;
}

pub export fn bxl_session_close(session: *Session) callconv(.c) void {
    session.close();
}

/// Begins a job; one at a time.
pub export fn bxl_session_submit(session: *Session, request: *const Request) callconv(.c) Status {
    last_error.reset();
    if (request.size != @sizeOf(Request)) return refuse("request of another version", .{});
    if (checkRequest(&session.options.config, request)) |status| return status;
    if (request.kind != .picture and session.options.machine.meeting != null) {
        return refuse("a part of a picture on several machines", .{});
    }
    var job = copyJob(request) catch return .no_memory;
    if (session.submit(job)) return .ok;
    job.deinit();
    return .not_ready;
}

pub export fn bxl_session_poll(session: *const Session, progress: *Progress) callconv(.c) Status {
    if (progress.size != @sizeOf(Progress)) return refuse("progress of another version", .{});
    const state = session.currentState();
    progress.state = state;
    progress.status = if (state == .failed) statusOf(session.failure.?) else .ok;
    progress.stage = @enumFromInt(session.reporter.stage.load(.acquire));
    progress.step_index = session.reporter.step_index.load(.acquire);
    progress.working_ranks = session.working_ranks.load(.acquire);
    progress.scratch_bytes = session.scratch_bytes.load(.acquire);
    progress.weight_bytes = session.weight_bytes.load(.acquire);
    progress.copy_bytes = session.copy_bytes.load(.acquire);
    progress.copied_bytes = session.copied_bytes.load(.acquire);
    if (state == .done and session.job != null) {
        const job = &session.job.?;
        progress.text_ns = job.text_ns;
        progress.denoise_ns = job.denoise_ns;
        progress.decode_ns = job.decode_ns;
    }
    return .ok;
}

/// Copies a result of the finished job; returns its bytes, and copies nothing when `len` is less.
pub export fn bxl_session_read(
    session: *const Session,
    output: jobs.Output,
    buffer: ?[*]u8,
    len: u64,
) callconv(.c) u64 {
    if (session.currentState() != .done or session.job == null) return 0;
    const bytes = session.job.?.outputs.get(output);
    if (buffer) |target| {
        if (len >= bytes.len) @memcpy(target[0..bytes.len], bytes);
    }
    return bytes.len;
}

/// Asks the running job to stop; the ranks look between pieces of work.
pub export fn bxl_session_cancel(session: *Session) callconv(.c) void {
    session.cancel();
}

/// The sentence for what failed last, in the session or (null) in a call on this thread. UTF-8;
/// returns its bytes.
pub export fn bxl_last_error(session: ?*const Session, buffer: [*]u8, len: u64) callconv(.c) u64 {
    const text = if (session) |s| s.diagnostics.message() else last_error.message();
    const count: usize = @min(text.len, @as(usize, @intCast(len)));
    @memcpy(buffer[0..count], text[0..count]);
    return count;
}

/// What there is of GPUs, as JSON in UTF-8 (cuda/gpu_report.zig); returns its bytes, or 0 where it
/// does not fit or memory ran out. It asks drivers that may hang: call it in a process of its own.
pub export fn bxl_gpu_report(
    options: *const types.GpuReportOptions,
    buffer: [*]u8,
    len: u64,
) callconv(.c) u64 {
    if (options.size != @sizeOf(types.GpuReportOptions)) return 0;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const path = arena.allocator().dupeZ(u8, options.emulator.slice()) catch return 0;
    const limit_ms = options.peer_limit_ms;
    const text = gpu_report.write(
        arena.allocator(),
        io,
        if (path.len > 0) .{ .emulated = path } else .system,
        .ofProcess(),
        limit_ms,
    ) catch return 0;
    if (text.len > len) return 0;
    @memcpy(buffer[0..text.len], text);
    return text.len;
}

/// What the ranks of several processes meet by (`SessionOptions.meeting_id`): made by one of them,
/// which must live until all have opened their sessions. `cuda_library` is as in `SessionOptions`.
pub export fn bxl_meeting_id(
    cuda_library: *const Bytes,
    out: *[types.meeting_id_bytes]u8,
) callconv(.c) Status {
    last_error.reset();
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const id = meetings.makeId(arena.allocator(), io, cuda_library.slice(), &last_error) catch |err|
        return statusOf(err);
    out.* = id.internal;
    return .ok;
}

/// `draw_count` times `torch.randn` of `len` values each, on the CPU generator of `seed`.
pub export fn bxl_random_normal(
    seed: u64,
    draw_count: u32,
    out: [*]f32,
    len: u64,
) callconv(.c) void {
    var generator: random.CpuGenerator = .init(seed);
    const per_draw: usize = @intCast(len);
    for (0..draw_count) |i| generator.fillNormal(out[i * per_draw ..][0..per_draw]);
}

// --- internal ---

/// Every Zig error has its status: a new one does not compile until it is named here.
fn statusOf(err: sessions.Error) Status {
    return switch (err) {
        error.BadConfig => .bad_config,
        error.BadWeights => .bad_weights,
        error.OutOfMemory, error.NotEnoughMemory => .no_memory,
        error.NotFinite => .not_finite,
        error.Cancelled => .cancelled,
        error.ThreadsUnavailable => .no_threads,
        // The plan was run on the same graph: a job that needs more is our own bug.
        error.OutOfScratch => .internal,
        error.NotDealable => .bad_argument,
        error.RankStalled, error.RankFailed => .rank_failed,
        error.GpuFailed => .gpu_failed,
        error.LibraryMissing => .library_missing,
    };
}

fn refuse(comptime sentence: []const u8, args: anytype) Status {
    last_error.reset();
    const whole = "The library was asked for " ++ sentence ++ ".";
    last_error.fail(error.BadArgument, whole, args) catch {};
    return .bad_argument;
}

fn putText(target: *[text_bytes_max]u8, text: []const u8) void {
    @memset(target, 0);
    const count = @min(text.len, target.len - 1);
    @memcpy(target[0..count], text[0..count]);
}

fn checkBranches(count: u32) ?Status {
    return if (count == 1 or count == 2) null else refuse("{d} branches; 1 or 2", .{count});
}

/// Ranks of a process are part of all, and one process has all or meets the others by NCCL.
fn checkMachines(o: *const SessionOptions) ?Status {
    const all = o.rank_count;
    if (o.rank_here_count < 1 or o.rank_here_count > all or
        o.rank_here_first > all - o.rank_here_count)
    {
        return refuse("ranks {d} to {d} of {d}", .{
            o.rank_here_first, o.rank_here_first +| o.rank_here_count, all,
        });
    }
    const is_apart = o.rank_here_count < all;
    if (o.meeting_id.len != if (is_apart) @as(u64, types.meeting_id_bytes) else 0) {
        return refuse("ranks on several machines without a meeting", .{});
    }
    if (!is_apart) return if (o.gpu_first > 0) refuse("a first GPU", .{}) else null;
    if (o.gpu_first > 1024) return refuse("GPU {d}", .{o.gpu_first});
    if (o.device == .cpu or o.transport == .peer or o.share_gpu != 0 or o.vae_tile_latent > 0) {
        return refuse("several machines without NCCL and GPUs of their own, or with tiles", .{});
    }
    return null;
}

fn checkSize(config: *const models.ModelConfig, rows: u32, width: u32) ?Status {
    const multiple = config.latentMultiple();
    if (rows == 0 or width == 0 or rows % multiple != 0 or width % multiple != 0) {
        return refuse("a latent of {d} x {d}; this model takes multiples of {d}", .{
            width, rows, multiple,
        });
    }
    if (rows > 1 << 14 or width > 1 << 14) return refuse("a latent over 16384 x 16384", .{});
    return null;
}

/// Lengths are checked here, once, so that the graph may rely on them.
fn checkRequest(config: *const models.ModelConfig, r: *const Request) ?Status {
    if (checkSize(config, r.latent_rows, r.latent_width)) |status| return status;
    if (checkBranches(r.branch_count)) |status| return status;
    if (!(r.guidance_rescale >= 0 and r.guidance_rescale <= 1)) {
        return refuse("a guidance rescale outside 0 to 1", .{});
    }
    if (r.batch < 1 or r.batch > 64) return refuse("a batch outside 1 to 64", .{});
    const positions = @as(usize, r.latent_rows) * r.latent_width;
    const sample_bytes = @as(usize, r.batch) * positions * config.vae.latent_channels * 4;
    const factor: usize = config.vae.factor();
    switch (r.kind) {
        .picture => {
            const row_bytes = @sizeOf(backends.StepRow);
            if (r.rows.len == 0 or r.rows.len % row_bytes != 0 or
                r.rows.len / row_bytes > step_count_max)
            {
                return refuse("steps outside 1 to {d}", .{step_count_max});
            }
            if (r.seeds.len == 0 or r.seeds.len % 8 != 0 or r.seeds.len / 8 > picture_count_max) {
                return refuse("pictures outside 1 to {d}", .{picture_count_max});
            }
            if (checkTokens(config, r.prompt)) |status| return status;
            if (r.negative.present != 0) return checkTokens(config, r.negative);
        },
        .prompt_embeds => return checkTokens(config, r.prompt),
        .noise_prediction => {
            const embed_bytes = r.batch * config.unet.cross_attention_dim * 4;
            if (r.sample.len != sample_bytes or
                r.prompt_embeds.len == 0 or r.prompt_embeds.len % embed_bytes != 0 or
                r.pooled.len != r.batch * config.clip_2.projection_size * 4 or
                r.time_ids_list.len != r.batch * 6 * 4)
            {
                return refuse("a noise prediction with inputs of the wrong length", .{});
            }
        },
        .decode => if (r.sample.len != sample_bytes or r.batch != 1) {
            return refuse("a decoding of a latent of the wrong length", .{});
        },
        .encode => if (r.sample.len != positions * factor * factor * 3 * 4 or r.batch != 1) {
            return refuse("an encoding of a picture of the wrong length", .{});
        },
    }
    return null;
}

fn checkTokens(config: *const models.ModelConfig, tokens: Tokens) ?Status {
    const bytes = @as(u64, config.clip.position_count) * 4;
    if (tokens.ids.len != bytes or tokens.ids_2.len != bytes) {
        return refuse("a prompt that is not {d} tokens long", .{config.clip.position_count});
    }
    if (tokens.end_index_2 >= config.clip.position_count) {
        return refuse("a prompt without end", .{});
    }
    for ([_]Bytes{ tokens.ids, tokens.ids_2 }, [_]u32{
        config.clip.vocab_size, config.clip_2.vocab_size,
    }) |ids, vocab_size| {
        const values: []align(1) const i32 = std.mem.bytesAsSlice(i32, ids.slice());
        for (values) |id| {
            if (id < 0 or id >= vocab_size) return refuse("token {d}, which is not in the " ++
                "vocabulary of {d}", .{ id, vocab_size });
        }
    }
    return null;
}

fn openSession(options: *const SessionOptions) sessions.Error!*Session {
    var arena: std.heap.ArenaAllocator = .init(gpa);
    errdefer arena.deinit();
    var files: models.Files = .initFill(&.{});
    files.set(.text_encoder, try copyPaths(arena.allocator(), options.text_encoder_files));
    files.set(.text_encoder_2, try copyPaths(arena.allocator(), options.text_encoder_2_files));
    files.set(.unet, try copyPaths(arena.allocator(), options.unet_files));
    files.set(.vae, try copyPaths(arena.allocator(), options.vae_files));
    return Session.open(gpa, io, .{
        .rank_count = options.rank_count,
        .machine = .{
            .kind = options.device,
            .thread_count = options.thread_count,
            .compute = options.compute,
            .activation = options.activation,
            .share_gpu = options.share_gpu != 0,
            .use_graphs = options.cuda_graphs != 0,
            .fp16_accumulate = options.fp16_accumulate != 0,
            .transport = options.transport,
            .here = .{
                .first = options.rank_here_first,
                .end = options.rank_here_first + options.rank_here_count,
            },
            .gpu_first = options.gpu_first,
            .meeting = meetings.idOf(options.meeting_id.slice()),
            .cuda_library = try copyPath(arena.allocator(), options.cuda_library),
        },
        .config = options.config,
        .files = files,
        .files_arena = arena,
        .latent_rows = options.latent_rows,
        .latent_width = options.latent_width,
        .branch_count = options.branch_count,
        .split_batch = options.split_batch != 0,
        .picture_count = options.picture_count,
        .vae_tile_latent = options.vae_tile_latent,
    });
}

fn copyPath(arena: Allocator, bytes: Bytes) Allocator.Error![:0]const u8 {
    return arena.dupeZ(u8, std.mem.sliceTo(bytes.slice(), 0));
}

fn copyPaths(arena: Allocator, bytes: Bytes) Allocator.Error![]const []const u8 {
    var list: std.ArrayList([]const u8) = .empty;
    var paths = std.mem.splitScalar(u8, bytes.slice(), 0);
    while (paths.next()) |path| {
        if (path.len > 0) try list.append(arena, try arena.dupe(u8, path));
    }
    return list.items;
}

fn copyJob(r: *const Request) Allocator.Error!jobs.Job {
    var job: jobs.Job = .{
        .arena = .init(gpa),
        .kind = r.kind,
        .latent_rows = r.latent_rows,
        .latent_width = r.latent_width,
        .branch_count = r.branch_count,
        .guidance_scale = r.guidance_scale,
        .guidance_rescale = r.guidance_rescale,
        .initial_scale = r.initial_scale,
        .mode = r.mode,
        .warmup_steps = r.warmup_steps,
        .split_batch = r.split_batch != 0,
        .predicts_borders = r.predicts_borders != 0,
        .wants_image = r.wants_image != 0,
        .rng = r.rng,
        .bessel_variance = r.hooks.bessel_variance != 0,
        .hooks = hooksOf(r.hooks),
        .time_ids = r.time_ids,
        .wants_latents = r.wants_latents != 0,
        .vae_tile_latent = r.vae_tile_latent,
        .batch = r.batch,
        .timestep = r.timestep,
    };
    errdefer job.deinit();
    const arena = job.arena.allocator();
    job.seeds = try copyValues(u64, arena, r.seeds);
    job.rows = try copyValues(backends.StepRow, arena, r.rows);
    job.prompt = try copyTokens(arena, r.prompt);
    if (r.negative.present != 0) job.negative = try copyTokens(arena, r.negative);
    job.sample = try copyValues(f32, arena, r.sample);
    job.prompt_embeds = try copyValues(f32, arena, r.prompt_embeds);
    job.pooled = try copyValues(f32, arena, r.pooled);
    job.time_ids_list = try copyValues(f32, arena, r.time_ids_list);
    return job;
}

fn hooksOf(hooks: TestHooks) faults.Hooks {
    var result: faults.Hooks = .{
        .delay_seed = hooks.delay_seed,
        .fault = hooks.fault,
        .fault_rank = hooks.fault_rank,
        .fault_step = hooks.fault_step,
    };
    const limit_ns = @as(i96, hooks.stall_limit_ms) * std.time.ns_per_ms;
    if (limit_ns > 0) result.stall_limit_ns = limit_ns;
    return result;
}

fn copyTokens(arena: Allocator, tokens: Tokens) Allocator.Error!jobs.Tokens {
    return .{
        .ids = try copyValues(i32, arena, tokens.ids),
        .ids_2 = try copyValues(i32, arena, tokens.ids_2),
        .end_index_2 = tokens.end_index_2,
    };
}

fn copyValues(comptime T: type, arena: Allocator, bytes: Bytes) Allocator.Error![]const T {
    const values = try arena.alloc(T, bytes.slice().len / @sizeOf(T));
    @memcpy(std.mem.sliceAsBytes(values), bytes.slice()[0 .. values.len * @sizeOf(T)]);
    return values;
}
