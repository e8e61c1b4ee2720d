//! One rank: its device, its place in the layout, its ways to the others, and what every kind of
//! job needs of them. `denoise.zig` draws images with it, `parts.zig` runs single parts. The same
//! code runs over the `plan` device to count memory; nothing here may depend on values.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backends = @import("../backend.zig");
const Backend = backends.Backend;
const GraphKey = backends.GraphKey;
const Tensor = @import("../tensor.zig").Tensor;
const Shape = @import("../tensor.zig").Shape;
const Model = @import("../model.zig").Model;
const ClipTextModel = @import("../model.zig").ClipTextModel;
const Conditioning = @import("../model/unet.zig").Conditioning;
const Context = @import("../model/layers.zig").Context;
const exchanges = @import("../patch/exchange.zig");
const Exchange = exchanges.Exchange;
const Layout = @import("../patch/layout.zig").Layout;
const RankRange = @import("../patch/layout.zig").RankRange;
const Transport = @import("../transport.zig").Transport;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const nchw = @import("nchw.zig");
const jobs = @import("../session/job.zig");
const Job = jobs.Job;

pub const Error = exchanges.Error || error{ NotFinite, OutOfMemory, NotDealable };

/// Where a rank tells how far it is; only the first of a process has one.
pub const Reporter = struct {
    io: Io,
    stage: std.atomic.Value(u32) = .init(0),
    step_index: std.atomic.Value(u32) = .init(0),

    pub fn begin(reporter: *Reporter, stage: jobs.Stage) i96 {
        reporter.stage.store(@intFromEnum(stage), .release);
        return reporter.now();
    }

    pub fn now(reporter: *Reporter) i96 {
        return Io.Timestamp.now(reporter.io, .awake).toNanoseconds();
    }

    pub fn since(reporter: *Reporter, start: i96) u64 {
        return @intCast(reporter.now() - start);
    }
};

pub const Rank = struct {
    index: u32,
    /// The ranks of its process.
    here: RankRange,
    layout: *const Layout,
    model: *const Model,
    b: Backend,
    io: Io,
    /// Inside the UNet, with the patches of this rank's branches.
    exchange: *Exchange,
    /// Inside the VAE, with all ranks: there are no branches any more.
    vae_exchange: *Exchange,
    /// Of every rank; this one's is among them.
    prompts: []Conditioning,
    transport: Transport,
    diagnostics: *Diagnostics,
    /// Host memory of this rank for noise and the like, freed by the caller after the job.
    arena: Allocator,
    reporter: ?*Reporter = null,

    /// A stage of the job begins: it is told, and operations that are counted count as its own.
    pub fn begin(rank: *Rank, stage: jobs.Stage) i96 {
        if (rank.b.device == .plan) {
            if (rank.b.device.plan.op_trace) |op_trace| op_trace.enter(stage, rank.b.scratch);
        }
        return if (rank.reporter) |reporter| reporter.begin(stage) else 0;
    }

    /// While planning nothing is computed, and host copies of large tensors are not made.
    pub fn isPlanning(rank: *const Rank) bool {
        return rank.b.device == .plan;
    }

    pub fn now(rank: *const Rank) i96 {
        return Io.Timestamp.now(rank.io, .awake).toNanoseconds();
    }

    pub fn context(rank: *Rank) Context {
        return .{ .b = rank.b, .exchange = rank.exchange };
    }

    pub fn latentShape(rank: *const Rank, job: *const Job, batch: u32) Shape {
        return .{
            .batch = batch,
            .rows = job.latent_rows,
            .width = job.latent_width,
            .channels = rank.model.config.vae.latent_channels,
        };
    }

    /// One prompt through both encoders; null gives zeros.
    pub fn encodeText(rank: *Rank, maybe: ?jobs.Tokens, embeds: Tensor, pooled: Tensor) Error!void {
        const b = rank.b;
        const tokens = maybe orelse {
            const zeros = try rank.arena.alloc(u8, @max(embeds.byteCount(), pooled.byteCount()));
            @memset(zeros, 0);
            try b.write(embeds, zeros[0..embeds.byteCount()]);
            try b.write(pooled, zeros[0..pooled.byteCount()]);
            return;
        };
        const model = rank.model;
        const hidden = try rank.penultimate(&model.text_encoder, tokens.ids);
        defer b.free(hidden);
        const hidden_2 = try rank.penultimate(&model.text_encoder_2, tokens.ids_2);
        defer b.free(hidden_2);
        const joined = try b.concatChannels(&.{ hidden, hidden_2 });
        defer b.free(joined);
        try b.copy(embeds, joined);
        const projected = try rank.poolHidden(hidden_2, tokens.end_index_2);
        defer b.free(projected);
        try b.copy(pooled, projected);
        if (!try b.isFinite(embeds) or !try b.isFinite(pooled)) {
            return rank.notFinite("The text encoders gave", .{});
        }
    }

    fn penultimate(rank: *Rank, encoder: *const ClipTextModel, ids: []const i32) Error!Tensor {
        const shape: Shape = .tokens(1, @intCast(ids.len), 1);
        const tensor = try rank.b.upload(shape, .i32, std.mem.sliceAsBytes(ids));
        defer rank.b.free(tensor);
        const is_second = encoder == &rank.model.text_encoder_2;
        const key: GraphKey = .of(if (is_second) .text_encoder_2 else .text_encoder, tensor, .{});
        return rank.b.runGraphed(key, runEncoder, .{ rank, encoder, tensor });
    }

    /// The second encoder's pooled state. Where it pools differs from prompt to prompt, so that it
    /// is no part of the captured work but lies before it.
    fn poolHidden(rank: *Rank, hidden: Tensor, end_index: u32) Error!Tensor {
        const bytes = std.mem.asBytes(&end_index);
        const ends = try rank.b.upload(.vector(1, 1), .i32, bytes);
        defer rank.b.free(ends);
        const key: GraphKey = .of(.text_projection, hidden, .{});
        return rank.b.runGraphed(key, runPooled, .{ rank, hidden, ends });
    }

    fn runPooled(rank: *Rank, hidden: Tensor, ends: Tensor) Error!Tensor {
        return rank.model.text_encoder_2.pooled(rank.context(), hidden, ends);
    }

    fn runEncoder(rank: *Rank, encoder: *const ClipTextModel, ids: Tensor) Error!Tensor {
        return encoder.penultimate(rank.context(), ids);
    }

    /// A scaled latent, or this rank's rows of it, to the image's; checked. Images of a job are
    /// counted up.
    pub fn decode(rank: *Rank, image_index: u32, latent: Tensor) Error!Tensor {
        const step = rank.vae_exchange.stepVariant(image_index);
        const key: GraphKey = .of(.vae_decoder, latent, step);
        const decoded = try rank.b.runGraphed(key, runDecoder, .{ rank, image_index, latent });
        if (!try rank.b.isFinite(decoded)) return rank.notFinite("The VAE's decoder gave", .{});
        return decoded;
    }

    fn runDecoder(rank: *Rank, image_index: u32, latent: Tensor) Error!Tensor {
        try rank.vae_exchange.beginStep(image_index);
        const ctx: Context = .{ .b = rank.b, .exchange = rank.vae_exchange };
        const decoded = try rank.model.vae.decode(ctx, latent);
        try rank.vae_exchange.endStep();
        return decoded;
    }

    /// A device tensor to a result of the job, channels first.
    pub fn saveNchw(rank: *Rank, job: *Job, name: jobs.Output, x: Tensor) Error!void {
        if (rank.isPlanning()) return;
        const host = try rank.arena.alloc(f32, x.shape.elementCount());
        try rank.b.downloadFloats(x, host);
        const out = try job.output(f32, name, host.len);
        nchw.fromNhwc(out, host, x.shape.channels, x.shape.positionCount());
    }

    /// Numbers, channels first, to a new tensor of the activations' type.
    pub fn uploadNchw(rank: *Rank, shape: Shape, values: []const f32) Error!Tensor {
        if (rank.isPlanning()) return rank.b.uploadFloats(shape, &.{});
        const host = try rank.arena.alloc(f32, values.len);
        nchw.toNhwc(host, values, shape.channels, shape.positionCount());
        return rank.b.uploadFloats(shape, host);
    }

    pub fn notFinite(rank: *Rank, comptime what: []const u8, args: anytype) error{NotFinite} {
        return rank.diagnostics.fail(error.NotFinite, what ++ " numbers that are not finite, so " ++
            "no image was written. Are the weights damaged, or made for another config?", args);
    }
};
