//! Sessions with the tiny model, on the CPU and on GPUs, and their results.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const devices = @import("../devices.zig");
pub const DType = @import("../tensor.zig").DType;
const goldens = @import("golden.zig");
const Golden = goldens.Golden;
const pipeline = @import("../pipeline.zig");
const sessions = @import("../session.zig");
const Session = sessions.Session;

/// The VAE's residual stream is kept at this scale in f16, as sessions of the product do.
const f16_residual_scale: f32 = 1.0 / 64.0;
const poll_us = 500;

pub const Error = Allocator.Error || error{ JobFailed, ThreadsUnavailable };

/// Where the ranks are; the CPU by default.
pub const Place = struct {
    /// f32 for the CPU.
    activation: DType = .f32,
    rank_count: u32 = 1,
    share_gpu: bool = true,
    use_graphs: bool = true,
    transport: devices.TransportKind = .auto,
    /// The emulator in place of NVIDIA's libraries; "" for these.
    library: [:0]const u8 = "",
    /// Of the image that memory is planned for.
    latent_rows: u32 = 8,
    latent_width: u32 = 8,

    fn isCpu(place: *const Place) bool {
        return place.activation == .f32;
    }
};

pub const Opened = struct {
    session: *Session,
    io: Io,
    /// Why the last call failed.
    message_buffer: [1024]u8 = undefined,
    message: []const u8 = "",

    /// The session may have failed to load: then every `run` says why.
    pub fn open(gpa: Allocator, io: Io, golden: *Golden, place: Place) !Opened {
        var config = goldens.config;
        if (place.activation == .f16) config.vae.residual_scale = f16_residual_scale;
        const session = try Session.open(gpa, io, .{
            .rank_count = place.rank_count,
            .devices = .{
                .kind = if (place.isCpu()) .cpu else .cuda,
                .activation_dtype = place.activation,
                .share_gpu = place.share_gpu,
                .use_graphs = place.use_graphs,
                .transport = place.transport,
                .local_ranks = .{ .first = 0, .end = place.rank_count },
                .cuda_library = place.library,
                .keeps_algorithms = false,
            },
            .config = config,
            .files = golden.modelFiles(),
            .files_arena = .init(gpa),
            .first = .{ .image = .{
                .latent_rows = place.latent_rows,
                .latent_width = place.latent_width,
                .branch_count = 2,
                .split_batch = false,
                .image_count = 1,
                .vae_tile_latent = 0,
                .preview_steps = 0,
                .token_count = goldens.token_count,
            } },
        });
        return .{ .session = session, .io = io };
    }

    pub fn close(opened: *Opened) void {
        opened.session.close();
        while (opened.session.currentState() != .closed) opened.pause();
        _ = opened.session.free();
    }

    /// The results live until the next call. Takes `job`.
    pub fn run(opened: *Opened, job: pipeline.Job) Error!*const pipeline.Result {
        const session = opened.session;
        var own = job;
        while (session.currentState() == .loading) opened.pause();
        if (!session.submit(own)) {
            own.deinit();
            return opened.fail("the session takes no more jobs");
        }
        while (session.currentState() == .running) opened.pause();
        if (session.currentState() == .done) return &session.result;
        return opened.fail("the job failed");
    }

    /// How the ranks are connected, where that is worth a sentence.
    pub fn connectionNote(opened: *const Opened) []const u8 {
        return opened.session.devices.connectionNote();
    }

    // --- internal ---

    fn fail(opened: *Opened, otherwise: []const u8) error{JobFailed} {
        const sentence = opened.session.diagnostics.message();
        const chosen = if (sentence.len > 0) sentence else otherwise;
        @memcpy(opened.message_buffer[0..chosen.len], chosen);
        opened.message = std.mem.trimEnd(u8, opened.message_buffer[0..chosen.len], ".");
        return error.JobFailed;
    }

    fn pause(opened: *Opened) void {
        _ = opened;
        const slice: std.c.timespec = .{ .sec = 0, .nsec = poll_us * std.time.ns_per_us };
        _ = std.c.nanosleep(&slice, null);
    }
};
