//! The C ABI: the only functions and structs that TypeScript sees. Data behind a pointer is copied
//! before the call returns; handles are opaque; structs begin with their size, so that a caller
//! built for another version is refused. `src/native/abi.ts` is generated from this file (`zig
//! build bindings`).
//!
//! Read in this order:
//!   abi/types.zig     structs and enums
//!   abi/checks.zig    which arguments are refused
//!   abi/bindings.zig  the program that writes src/native/abi.ts

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;
const backend = @import("backend.zig");
const checks = @import("abi/checks.zig");
const refuse = checks.refuse;
const cuda_driver = @import("nvidia/driver.zig");
const cuda_kernels = @import("nvidia/kernels.zig");
const gpu_report = @import("doctor/gpu_report.zig");
const nccl_ids = @import("transport/nccl_unique_id.zig");
const models = @import("model.zig");
const pipeline = @import("pipeline.zig");
const plan_report = @import("session/plan_report.zig");
const random = @import("random.zig");
const sessions = @import("session.zig");
const Session = sessions.Session;
const cores = @import("system/cores.zig");
const leaks = @import("system/leaks.zig");
const memory = @import("system/memory.zig");
const adapters = @import("weights.zig").adapters;
const faults = @import("transport/faults.zig");
const types = @import("abi/types.zig");
const verifications = @import("verify.zig").background;
const Verification = verifications.Verification;
const VerifyState = verifications.VerifyState;
const abi_version = types.abi_version;
const Status = types.Status;
const text_bytes_max = types.text_bytes_max;
const CpuRates = types.CpuRates;
const DeviceInfo = types.DeviceInfo;
const Bytes = types.Bytes;
const SessionOptions = types.SessionOptions;
const Tokens = types.Tokens;
const TestHooks = types.TestHooks;
const Request = types.Request;
const Progress = types.Progress;

const gpa = leaks.allocator;
/// For files and futexes only: it starts no threads and handles no signals of the host process.
const io = std.Io.Threaded.global_single_threaded.io();

pub export fn bxl_abi_version() callconv(.c) u32 {
    return abi_version;
}

pub export fn bxl_device_info(info: *DeviceInfo) callconv(.c) Status {
    if (info.size != @sizeOf(DeviceInfo)) return refuse("device info of another version", .{});
    info.core_count = cores.count(io);
    info.memory_available = memory.available(io) orelse 0;
    const cpu = backend.cpus.detect();
    putText(&info.cpu_name, cpu.name());
    putText(&info.instruction_set, @tagName(cpu.best));
    info.has_bf16 = @intFromBool(cpu.has_bf16);
    const gpus = cuda_driver.findGpus();
    info.gpu_count = gpus.count;
    putText(&info.gpu_name, if (gpus.count > 0) gpus.name(0) else "");
    var kernels: [types.text_bytes_max]u8 = undefined;
    putText(&info.cuda_kernels, cuda_kernels.describe(&kernels));
    return .ok;
}

/// Measures the rates of `thread_count` threads, 0 for one per core; takes some 30 ms.
pub export fn bxl_cpu_rates(
    compute: backend.Compute,
    thread_count: u32,
    out: *CpuRates,
) callconv(.c) Status {
    if (out.size != @sizeOf(CpuRates)) return refuse("CPU rates of another version", .{});
    if (thread_count > 4096) return refuse("a thread count outside 0 to 4096", .{});
    const count = if (thread_count == 0) cores.count(io) else thread_count;
    const rates = backend.cpus.rates.measure(gpa, io, compute, count) catch |err| switch (err) {
        error.UnsupportedInstructionSet => return refuse("rates of {t}", .{compute}),
        error.OutOfMemory => return .no_memory,
        else => return .no_threads,
    };
    out.flops_per_second = rates.flops_per_second;
    out.bytes_per_second = rates.bytes_per_second;
    return .ok;
}

/// Opens a session and starts to load it; `bxl_session_poll` reports when it is ready.
pub export fn bxl_session_open(
    options: *const SessionOptions,
    out: *?*Session,
) callconv(.c) Status {
    out.* = null;
    checks.last_error.reset();
    if (checks.options(options)) |status| return status;
    out.* = openSession(options) catch |err| return statusOf(err);
    leaks.began();
    return .ok;
}

/// Cancels what runs and starts to free everything; `bxl_session_poll` reports when the session is
/// closed. Until then only that may be called, and afterwards `bxl_session_free`.
pub export fn bxl_session_close(session: *Session) callconv(.c) void {
    session.close();
}

/// Ends the life of a closed session. It never blocks.
pub export fn bxl_session_free(session: *Session) callconv(.c) void {
    leaks.ended(!session.free());
}

/// Starts a job; one at a time.
pub export fn bxl_session_submit(session: *Session, request: *const Request) callconv(.c) Status {
    checks.last_error.reset();
    if (request.size != @sizeOf(Request)) return refuse("request of another version", .{});
    if (checks.request(&session.options.config, request)) |status| return status;
    const is_component = request.kind != .image and request.kind != .upscale;
    if (is_component and session.options.devices.nccl_unique_id != null) {
        return refuse("one component alone in several processes", .{});
    }
    if (request.adapters.len > 0 and session.options.devices.random_weights) {
        return refuse("adapters of random weights", .{});
    }
    if (request.networks.len > 0 and session.options.devices.random_weights) {
        return refuse("networks beside random weights", .{});
    }
    const hooks: TestHooks = .of(request.hooks);
    if (checks.onlyRank(&session.options, hooks.only_rank)) |status| return status;
    if (checks.balance(&session.options, request)) |status| return status;
    var job = copyJob(request) catch return .no_memory;
    if (session.submit(job)) return .ok;
    job.deinit();
    return if (session.currentState() == .lost) .session_lost else .not_ready;
}

pub export fn bxl_session_poll(session: *const Session, progress: *Progress) callconv(.c) Status {
    if (progress.size != @sizeOf(Progress)) return refuse("progress of another version", .{});
    const state = session.currentState();
    progress.state = state;
    progress.status = switch (state) {
        .failed, .lost => statusOf(session.failure.?),
        .loading, .ready, .running, .done, .closed => .ok,
    };
    if (state == .closed) return .ok;
    progress.stage = @enumFromInt(session.reporter.stage.load(.acquire));
    progress.step_index = session.reporter.step_index.load(.acquire);
    progress.step_count = session.reporter.step_count.load(.acquire);
    progress.preview_step = session.reporter.preview.step.load(.acquire);
    progress.plan_count = session.plans.plan_count.load(.monotonic);
    progress.unet_dry_run_count = session.unetDryRunCount();
    progress.scratch_bytes = session.scratch_bytes.load(.acquire);
    progress.needed_bytes = session.needed_bytes.load(.acquire);
    progress.copy_bytes = session.copy_bytes.load(.acquire);
    progress.copied_bytes = session.copied_bytes.load(.acquire);
    progress.device_bytes = session.device_bytes.load(.acquire);
    const adapting = &session.adapt_progress;
    progress.adapt_bytes = adapting.adapt_bytes.load(.acquire);
    progress.adapted_bytes = adapting.adapted_bytes.load(.acquire);
    progress.merged_bytes = adapting.merged_bytes.load(.acquire);
    progress.merged_weight_count = adapting.weight_count.load(.acquire);
    if (state == .done) {
        progress.adapt_ns = session.result.adapt_ns;
        progress.text_ns = session.result.text_ns;
        progress.encode_ns = session.result.encode_ns;
        progress.denoise_ns = session.result.denoise_ns;
        progress.decode_ns = session.result.decode_ns;
    }
    return .ok;
}

/// Copies a result of the finished job, or the running job's preview; returns its bytes, and copies
/// nothing when `len` is less.
pub export fn bxl_session_read(
    session: *Session,
    output: pipeline.Output,
    buffer: ?[*]u8,
    len: u64,
) callconv(.c) u64 {
    if (output == .preview) return session.reporter.preview.read(buffer, len);
    if (session.currentState() != .done) return 0;
    const bytes = session.result.bytes(output);
    if (buffer) |target| {
        if (len >= bytes.len) @memcpy(target[0..bytes.len], bytes);
    }
    return bytes.len;
}

/// Cancels the running job; ranks check between pieces of work.
pub export fn bxl_session_cancel(session: *Session) callconv(.c) void {
    session.cancel();
}

/// Copies the message of the last error, of the session or (null) of a call on this thread, in
/// UTF-8; returns its length in bytes.
pub export fn bxl_last_error(session: ?*const Session, buffer: [*]u8, len: u64) callconv(.c) u64 {
    const text = if (session) |s| s.diagnostics.message() else checks.last_error.message();
    const count: usize = @min(text.len, @as(usize, @intCast(len)));
    @memcpy(buffer[0..count], text[0..count]);
    return count;
}

/// Copies what was ignored in the model's files: sentences in UTF-8, each ended by a 0 byte; none
/// until it is loaded. Returns their bytes, and copies nothing when `len` is less.
pub export fn bxl_session_warnings(
    session: *const Session,
    buffer: ?[*]u8,
    len: u64,
) callconv(.c) u64 {
    return copyText(session.warnings(), buffer, len);
}

/// As `bxl_session_warnings`, how weights are kept that the files have in 8 bits.
pub export fn bxl_session_weight_notes(
    session: *const Session,
    buffer: ?[*]u8,
    len: u64,
) callconv(.c) u64 {
    return copyText(session.weightNotes(), buffer, len);
}

/// A report of the GPUs as JSON in UTF-8 (doctor/gpu_report.zig); returns its bytes, or 0 where it
/// does not fit or memory ran out. It calls drivers that may hang: use a process of its own.
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

/// Starts comparing the GPU with the CPU (verify.zig), on a thread of its own.
pub export fn bxl_verify_open(
    options: *const types.VerifyOptions,
    out: *?*Verification,
) callconv(.c) Status {
    out.* = null;
    checks.last_error.reset();
    if (options.size != @sizeOf(types.VerifyOptions)) {
        return refuse("options of another version", .{});
    }
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const library = arena.allocator().dupeZ(u8, options.emulator.slice()) catch return .no_memory;
    out.* = Verification.open(gpa, io, .{
        .library = library,
        .is_quick = options.is_quick != 0,
        .is_json = options.is_json != 0,
        .seed = options.seed,
        .only = options.only.slice(),
    }) catch |err| return statusOf(err);
    leaks.began();
    return .ok;
}

pub export fn bxl_verify_state(verification: *const Verification) callconv(.c) VerifyState {
    return verification.state.load(.acquire);
}

/// Moves text that has come since, in UTF-8, as much as `buffer` takes; its bytes. All of it is
/// there once the state is not `running`.
pub export fn bxl_verify_read(
    verification: *Verification,
    buffer: [*]u8,
    len: u64,
) callconv(.c) u64 {
    return verification.read(buffer[0..@intCast(len)]);
}

/// Frees a run that has ended.
pub export fn bxl_verify_free(verification: *Verification) callconv(.c) void {
    verification.close();
    leaks.ended(false);
}

/// The ncclUniqueId of the ranks of several processes (`SessionOptions.nccl_unique_id`), made by
/// one of them, which must live until all have opened their sessions. `cuda_library` is as in
/// `SessionOptions`.
pub export fn bxl_nccl_unique_id(
    cuda_library: *const Bytes,
    out: *[types.nccl_unique_id_bytes]u8,
) callconv(.c) Status {
    checks.last_error.reset();
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const d = &checks.last_error;
    const id = nccl_ids.makeId(arena.allocator(), io, cuda_library.slice(), d) catch |err|
        return statusOf(err);
    out.* = id.internal;
    return .ok;
}

/// The memory plan and the operations of a session as JSON in UTF-8 (session/plan_report.zig);
/// returns its bytes, 0 where it fails (see `bxl_last_error` of null), or more than `len` where it
/// does not fit.
pub export fn bxl_plan(options: *const SessionOptions, buffer: [*]u8, len: u64) callconv(.c) u64 {
    checks.last_error.reset();
    if (checks.options(options) != null) return 0;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const session = sessionOptionsOf(options, &arena) catch return 0;
    const d = &checks.last_error;
    const text = plan_report.write(arena.allocator(), io, session, d) catch return 0;
    if (text.len <= len) @memcpy(buffer[0..text.len], text);
    return text.len;
}

/// `draw_count` calls of `torch.randn` for `len` values each, on the CPU generator of `seed`.
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

/// Returns the text's bytes, and copies nothing when `len` is less.
fn copyText(text: []const u8, buffer: ?[*]u8, len: u64) u64 {
    if (buffer) |target| {
        if (len >= text.len) @memcpy(target[0..text.len], text);
    }
    return text.len;
}

/// The switch is exhaustive: a new error does not compile until it has a status.
fn statusOf(err: sessions.Error) Status {
    return switch (err) {
        error.BadConfig => .bad_config,
        error.BadWeights => .bad_weights,
        error.OutOfMemory, error.NotEnoughMemory => .no_memory,
        error.NotFinite => .not_finite,
        error.Cancelled => .cancelled,
        error.ThreadsUnavailable => .no_threads,
        // The plan ran the same graph: a job that needs more scratch is a bug.
        error.OutOfScratch => .internal,
        error.NotDealable => .bad_argument,
        error.RankStalled, error.RankFailed => .rank_failed,
        error.GpuFailed => .gpu_failed,
        error.LibraryMissing => .library_missing,
    };
}

fn putText(target: *[text_bytes_max]u8, text: []const u8) void {
    @memset(target, 0);
    const count = @min(text.len, target.len - 1);
    @memcpy(target[0..count], text[0..count]);
}

fn openSession(options: *const SessionOptions) sessions.Error!*Session {
    var arena: std.heap.ArenaAllocator = .init(gpa);
    errdefer arena.deinit();
    return Session.open(gpa, io, try sessionOptionsOf(options, &arena));
}

/// The options take over `arena`, which holds copies of all paths.
fn sessionOptionsOf(
    options: *const SessionOptions,
    arena: *std.heap.ArenaAllocator,
) Allocator.Error!sessions.Options {
    const allocator = arena.allocator();
    const files: models.Files = .init(.{
        .text_encoder = .{
            .paths = try copyPaths(allocator, options.text_encoder_files),
            .names = try copyNames(allocator, options.text_encoder_names),
        },
        .text_encoder_2 = .{
            .paths = try copyPaths(allocator, options.text_encoder_2_files),
            .names = try copyNames(allocator, options.text_encoder_2_names),
        },
        .unet = .{
            .paths = try copyPaths(allocator, options.unet_files),
            .names = try copyNames(allocator, options.unet_names),
        },
        .vae = .{
            .paths = try copyPaths(allocator, options.vae_files),
            .names = try copyNames(allocator, options.vae_names),
        },
        .taesd = .{
            .paths = try copyPaths(allocator, options.taesd_files),
            .names = try copyNames(allocator, options.taesd_names),
        },
    });
    const library = try copyPath(allocator, options.cuda_library);
    const first = try firstOf(options, allocator);
    return .{
        .rank_count = options.rank_count,
        .devices = .{
            .kind = options.device,
            .thread_count = options.thread_count,
            .compute_dtype = options.compute_dtype,
            .activation_dtype = options.activation_dtype,
            .share_gpu = options.share_gpu != 0,
            .use_graphs = options.cuda_graphs != 0,
            .fp16_accumulate = options.fp16_accumulate != 0,
            .attention = options.attention,
            .transport = options.transport,
            .local_ranks = .{
                .first = options.local_rank_first,
                .end = options.local_rank_first + options.local_rank_count,
            },
            .gpu_first = options.gpu_first,
            .nccl_unique_id = nccl_ids.idOf(options.nccl_unique_id.slice()),
            .random_weights = options.random_weights != 0,
            .cuda_library = library,
        },
        .config = options.config,
        .files = files,
        // Last, after every allocation above.
        .files_arena = arena.*,
        .first = first,
        .tile_latent = options.model_tile_latent,
        .checks_only = options.checks_only != 0,
        .beside_bytes = options.beside_bytes,
    };
}

fn firstOf(options: *const SessionOptions, arena: Allocator) Allocator.Error!sessions.First {
    var image = imageOf(options);
    image.networks = try copyNetworks(arena, options.networks);
    image.controls = try copyControls(arena, options.controls);
    image.ip_adapters = try copyIpAdapters(arena, options.ip_adapters);
    return .{
        .image = image,
        .second = secondOf(options, image),
        .upscale = if (options.upscaler.len == 0) null else .{
            .networks = try copyNetworks(arena, options.upscaler),
            .size = .{
                .rows = options.upscale_rows,
                .width = options.upscale_width,
                .tile = options.upscale_tile,
            },
        },
        .adapters = try copyAdapters(arena, options.adapters),
    };
}

fn imageOf(options: *const SessionOptions) sessions.FirstImage {
    return .{
        .latent_rows = options.latent_rows,
        .latent_width = options.latent_width,
        .branch_count = options.branch_count,
        .split_batch = options.split_batch != 0,
        .image_count = options.image_count,
        .vae_tile_latent = options.vae_tile_latent,
        .has_image = options.has_image != 0,
        .has_mask = options.has_mask != 0,
        .skips_decode = options.skips_decode != 0,
        // TAESD is given for previews alone.
        .preview_steps = @intFromBool(options.config.taesd.is_present != 0),
        .token_count = options.config.text.tokenCount(),
    };
}

/// Its second pass, of one image at a time.
fn secondOf(options: *const SessionOptions, image: sessions.FirstImage) ?sessions.FirstImage {
    if (options.second_latent_rows == 0) return null;
    var second = image;
    second.latent_rows = options.second_latent_rows;
    second.latent_width = options.second_latent_width;
    second.image_count = 1;
    second.skips_decode = false;
    second.has_image = options.second_has_image != 0;
    return second;
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

fn copyNames(arena: Allocator, bytes: Bytes) Allocator.Error![]const models.WeightName {
    const given = try copyValues(types.WeightName, arena, bytes);
    const names = try arena.alloc(models.WeightName, given.len);
    for (names, given) |*name, each| {
        name.* = .{
            .key = try arena.dupe(u8, each.key.slice()),
            .name = try arena.dupe(u8, each.name.slice()),
            .part_index = each.part_index,
            .part_count = each.part_count,
            .is_transposed = each.is_transposed != 0,
        };
    }
    return names;
}

fn copyJob(r: *const Request) Allocator.Error!pipeline.Job {
    const hooks: TestHooks = .of(r.hooks);
    var job: pipeline.Job = .{
        .arena = .init(gpa),
        .kind = r.kind,
        .latent_rows = r.latent_rows,
        .latent_width = r.latent_width,
        .bessel_variance = hooks.bessel_variance != 0,
        .hooks = hooksOf(hooks),
    };
    copySettings(&job, r);
    errdefer job.deinit();
    const arena = job.arena.allocator();
    job.seeds = try copyValues(u64, arena, r.seeds);
    job.variation_seeds = try copyValues(u64, arena, r.variation_seeds);
    job.noise_places = try copyValues(u32, arena, r.noise_places);
    job.steps = try copyValues(backend.StepCoefficients, arena, r.steps);
    job.clean_mixes = try copyValues(f32, arena, r.clean_mixes);
    job.guidance_scales = try copyValues(f32, arena, r.guidance_scales);
    job.prompts = try copyPrompts(pipeline.Tokens, arena, r.prompts);
    job.negatives = try copyPrompts(?pipeline.Tokens, arena, r.negatives);
    job.rank_shares = try copyValues(u32, arena, r.rank_shares);
    job.step_sets = try copyValues(u32, arena, r.step_sets);
    job.step_reuse = try copyValues(pipeline.StepReuse, arena, r.step_reuse);
    job.empty = try copyPrompts(pipeline.Tokens, arena, r.empty);
    job.adapters = try copyAdapters(arena, r.adapters);
    job.networks = try copyNetworks(arena, r.networks);
    job.upscale = .{ .rows = r.upscale_rows, .width = r.upscale_width, .tile = r.upscale_tile };
    job.controls = try copyControls(arena, r.controls);
    job.ip_adapters = try copyIpAdapters(arena, r.ip_adapters);
    job.image = try arena.dupe(u8, r.image.slice());
    job.mask = try arena.dupe(u8, r.mask.slice());
    job.latents = try copyValues(f32, arena, r.latents);
    job.latent_mask = try copyValues(f32, arena, r.latent_mask);
    job.condition_mask = try copyValues(f32, arena, r.condition_mask);
    job.mask_steps = try copyValues(pipeline.MaskStep, arena, r.mask_steps);
    job.injected = try copyValues(f32, arena, r.injected);
    job.injected_2 = try copyValues(f32, arena, r.injected_2);
    job.sample = try copyValues(f32, arena, r.sample);
    job.prompt_embeds = try copyValues(f32, arena, r.prompt_embeds);
    job.pooled = try copyValues(f32, arena, r.pooled);
    job.time_ids_list = try copyValues(f32, arena, r.time_ids_list);
    return job;
}

/// Copies the plain values of a request to the fields of the same name, so that a new setting needs
/// no line here.
fn copySettings(job: *pipeline.Job, r: *const Request) void {
    inline for (@typeInfo(pipeline.Job).@"struct".fields) |field| {
        if (!@hasField(Request, field.name)) continue;
        const value = @field(r, field.name);
        if (@TypeOf(value) == field.type) {
            @field(job, field.name) = value;
        } else if (field.type == bool) {
            @field(job, field.name) = value != 0;
        } else switch (@TypeOf(value)) {
            // Values in the caller's memory: `copyJob` copies each of them.
            Bytes, Tokens, TestHooks => {},
            else => @compileError("no copy of " ++ field.name),
        }
    }
}

fn hooksOf(hooks: TestHooks) faults.Hooks {
    var result: faults.Hooks = .{
        .delay_seed = hooks.delay_seed,
        .fault = hooks.fault,
        .fault_rank = hooks.fault_rank,
        .fault_step = hooks.fault_step,
        .only_rank = hooks.only_rank,
        .slow_rank = hooks.slow_rank,
        .slow_percent = hooks.slow_percent,
    };
    const limit_ns = @as(i96, hooks.stall_limit_ms) * std.time.ns_per_ms;
    if (limit_ns > 0) result.stall_limit_ns = limit_ns;
    return result;
}

fn copyPrompts(comptime T: type, arena: Allocator, bytes: Bytes) Allocator.Error![]const T {
    const all: []align(1) const Tokens = std.mem.bytesAsSlice(Tokens, bytes.slice());
    const prompts = try arena.alloc(T, all.len);
    for (prompts, all) |*prompt, tokens| {
        if (T == ?pipeline.Tokens and tokens.present == 0) {
            prompt.* = null;
        } else prompt.* = try copyTokens(arena, tokens);
    }
    return prompts;
}

fn copyTokens(arena: Allocator, tokens: Tokens) Allocator.Error!pipeline.Tokens {
    return .{
        .ids = try copyValues(i32, arena, tokens.ids),
        .ids_2 = try copyValues(i32, arena, tokens.ids_2),
        .weights = try copyValues(f32, arena, tokens.weights),
        .weights_2 = try copyValues(f32, arena, tokens.weights_2),
        .end_index = tokens.end_index,
        .clip_skip = tokens.clip_skip,
        .repeat_count = tokens.repeat_count,
    };
}

fn copyAdapters(arena: Allocator, bytes: Bytes) Allocator.Error![]const adapters.Adapter {
    const all: []align(1) const types.Adapter = std.mem.bytesAsSlice(types.Adapter, bytes.slice());
    const copies = try arena.alloc(adapters.Adapter, all.len);
    for (copies, all) |*copy, adapter| {
        const given: []align(1) const types.AdapterTarget =
            std.mem.bytesAsSlice(types.AdapterTarget, adapter.targets.slice());
        const targets = try arena.alloc(adapters.Target, given.len);
        for (targets, given) |*target, one| target.* = try copyTarget(arena, one);
        copy.* = .{
            .path = try arena.dupe(u8, adapter.path.slice()),
            .unet_scale = adapter.unet_scale,
            .text_scale = adapter.text_scale,
            .targets = targets,
        };
    }
    return copies;
}

fn copyNetworks(
    arena: Allocator,
    bytes: Bytes,
) Allocator.Error![]const models.networks.Description {
    const all: []align(1) const types.Network = std.mem.bytesAsSlice(types.Network, bytes.slice());
    const copies = try arena.alloc(models.networks.Description, all.len);
    for (copies, all) |*copy, network| copy.* = .{
        .config = configOf(network),
        .files = .{
            .paths = try copyPaths(arena, network.files),
            .names = try copyNames(arena, network.names),
        },
    };
    return copies;
}

/// `checks.networksOf` has seen that its bytes are as many as those of its kind.
fn configOf(network: types.Network) models.networks.Config {
    switch (network.kind) {
        inline else => |kind| {
            const Config = @FieldType(models.networks.Config, @tagName(kind));
            const config = std.mem.bytesToValue(Config, network.config.slice());
            return @unionInit(models.networks.Config, @tagName(kind), config);
        },
    }
}

fn copyControls(arena: Allocator, bytes: Bytes) Allocator.Error![]const pipeline.ControlUse {
    const all: []align(1) const types.ControlUse =
        std.mem.bytesAsSlice(types.ControlUse, bytes.slice());
    const copies = try arena.alloc(pipeline.ControlUse, all.len);
    for (copies, all) |*copy, use| copy.* = .{
        .network_index = use.network_index,
        .hints = try copyHints(arena, use.hints),
        .scale = use.scale,
        .steps = .{ .first = use.step_first, .end = use.step_end },
    };
    return copies;
}

fn copyHints(arena: Allocator, bytes: Bytes) Allocator.Error![]const pipeline.ControlHint {
    const all: []align(1) const types.ControlHint =
        std.mem.bytesAsSlice(types.ControlHint, bytes.slice());
    const copies = try arena.alloc(pipeline.ControlHint, all.len);
    for (copies, all) |*copy, hint| copy.* = .{
        .control_type = hint.control_type,
        .image = try arena.dupe(u8, hint.image.slice()),
        .scale = hint.scale,
    };
    return copies;
}

fn copyIpAdapters(
    arena: Allocator,
    bytes: Bytes,
) Allocator.Error![]const pipeline.IpAdapterUse {
    const all: []align(1) const types.IpAdapterUse =
        std.mem.bytesAsSlice(types.IpAdapterUse, bytes.slice());
    const copies = try arena.alloc(pipeline.IpAdapterUse, all.len);
    for (copies, all) |*copy, use| copy.* = .{
        .adapter_index = use.adapter_index,
        .encoder_index = use.encoder_index,
        .scales = try copyValues(f32, arena, use.scales),
        .patches = try copyValues(f32, arena, use.patches),
        .steps = .{ .first = use.step_first, .end = use.step_end },
    };
    return copies;
}

fn copyTarget(arena: Allocator, target: types.AdapterTarget) Allocator.Error!adapters.Target {
    var names: adapters.Names = .initFill("");
    inline for (comptime std.enums.values(adapters.Role)) |role| {
        const name = @field(target, @tagName(role));
        names.set(role, try arena.dupe(u8, name.slice()));
    }
    return .{
        .component = target.component,
        .algorithm = target.algorithm,
        .scale = target.scale,
        .dora_norm = target.dora_norm,
        .key = try arena.dupe(u8, target.key.slice()),
        .names = names,
    };
}

fn copyValues(comptime T: type, arena: Allocator, bytes: Bytes) Allocator.Error![]const T {
    const values = try arena.alloc(T, bytes.slice().len / @sizeOf(T));
    @memcpy(std.mem.sliceAsBytes(values), bytes.slice()[0 .. values.len * @sizeOf(T)]);
    return values;
}
