//! State of a rank while it runs a job: its device, its place in the layout, its exchanges with
//! other ranks, the job and the result. Each stage has its own file (see `pipeline.zig`). The same
//! code runs over the dry-run device to plan memory, so its flow must not depend on values.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const OpTrace = @import("../backend/op_trace.zig").OpTrace;
const Tensor = @import("../tensor.zig").Tensor;
const Shape = @import("../tensor.zig").Shape;
const Model = @import("../model.zig").Model;
const Network = @import("../model.zig").Network;
const Conditioning = @import("../model/conditioning.zig").Conditioning;
const Context = @import("../model/layers.zig").Context;
const exchanges = @import("../patch/exchange.zig");
const Exchange = exchanges.Exchange;
const layouts = @import("../patch/layout.zig");
const Branches = layouts.Branches;
const Layout = layouts.Layout;
const RankRange = layouts.RankRange;
const slot_files = @import("../patch/slots.zig");
const Slot = slot_files.Slot;
const Stage = @import("../stage.zig").Stage;
const Transport = @import("../transport.zig").Transport;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const Job = @import("job.zig").Job;
const nchw = @import("nchw.zig");
const Preview = @import("preview.zig").Preview;
const results = @import("result.zig");

pub const Error = exchanges.Error || error{ NotFinite, OutOfMemory, NotDealable };

/// Progress of a job, read by other threads; the first local rank reports it.
pub const Reporter = struct {
    io: Io,
    stage: std.atomic.Value(u32) = .init(0),
    step_index: std.atomic.Value(u32) = .init(0),
    /// Steps of the first local rank, where the library counts them: tiles of an upscaler.
    step_count: std.atomic.Value(u32) = .init(0),
    preview: Preview,

    pub fn begin(reporter: *Reporter, stage: Stage) i96 {
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
    /// The ranks of this process.
    local_ranks: RankRange,
    layouts: std.EnumArray(Branches, *const Layout),
    /// Of the present step, like `branches` and `exchange`.
    layout: *const Layout,
    branches: Branches = .all,
    job: *const Job,
    result: *results.Result,
    model: *const Model,
    b: Backend,
    io: Io,
    /// Networks beside the model, by the job's list.
    networks: []const *const Network,
    /// By network (`patch/slots.zig`).
    exchanges: []const *Exchange,
    /// The UNet's exchange, with the patches of this rank's guidance branches.
    exchange: *Exchange,
    /// The VAE's exchange, with all ranks: the VAE has no guidance branches.
    vae_exchange: *Exchange,
    /// The same of its encoder.
    encoder_exchange: *Exchange,
    /// Conditionings of every rank, one per set of prompts.
    prompts: [][]Conditioning,
    transport: Transport,
    diagnostics: *Diagnostics,
    /// Host memory of this rank (noise, staging buffers); the caller frees it after the job.
    arena: Allocator,
    reporter: ?*Reporter = null,

    /// Marks the start of a stage: reports it, and attributes traced operations to it.
    pub fn begin(rank: *Rank, stage: Stage) i96 {
        if (rank.trace()) |op_trace| op_trace.enter(stage, rank.b.scratch);
        return if (rank.reporter) |reporter| reporter.begin(stage) else 0;
    }

    /// Attributes traced operations to the job's network of this index; null: to the model.
    pub fn enterNetwork(rank: *const Rank, index: ?u32) void {
        if (rank.trace()) |op_trace| op_trace.place.network = if (index) |i| i + 1 else 0;
    }

    /// Likewise to each step, or tile, of the stage.
    pub fn enterSteps(rank: *const Rank) void {
        if (rank.trace()) |op_trace| op_trace.place.in_step = true;
    }

    /// From now on steps compute these branches.
    pub fn choose(rank: *Rank, branches: Branches) void {
        rank.layout = rank.layouts.get(branches);
        rank.exchange = rank.exchanges[slot_files.networkOfUnet(branches)];
        rank.branches = branches;
    }

    /// Units of rows that are dealt.
    pub fn unitCount(rank: *const Rank) u32 {
        return rank.job.latent_rows / rank.model.config.latentMultiple();
    }

    /// From the next run on every rank has all branches of its share of the rows. The VAE's patches
    /// stay.
    pub fn deal(rank: *Rank, shares: layouts.Shares) Error!void {
        const unit = rank.model.config.latentMultiple();
        for (std.enums.values(Branches)) |branches| {
            const before = rank.layouts.get(branches);
            std.debug.assert(before.group_count == 1 and before.patches.count == shares.count);
            const layout = try rank.arena.create(Layout);
            layout.* = before.*;
            layout.patches = try .deal(shares, rank.job.latent_rows, unit, shares.count);
            for (0..1 + rank.job.controls.len) |i| {
                const exchange = rank.exchanges[slot_files.networkOfStep(i, branches)];
                try rank.dealExchange(exchange, &before.patches, &layout.patches);
            }
            rank.layouts.set(branches, layout);
        }
    }

    /// That of the ControlNet of the job's use `i`.
    pub fn controlExchange(rank: *const Rank, i: usize, branches: Branches) *Exchange {
        return rank.exchanges[slot_files.networkOfControl(i, branches)];
    }

    /// Whether this is a dry run: nothing is computed, and large tensors have no host copies.
    pub fn isPlanning(rank: *const Rank) bool {
        return rank.b.device == .plan;
    }

    pub fn now(rank: *const Rank) i96 {
        return Io.Timestamp.now(rank.io, .awake).toNanoseconds();
    }

    pub fn context(rank: *Rank) Context {
        return .{ .b = rank.b, .exchange = rank.exchange };
    }

    pub fn latentShape(rank: *const Rank, batch: u32) Shape {
        return .{
            .batch = batch,
            .rows = rank.job.latent_rows,
            .width = rank.job.latent_width,
            .channels = rank.model.config.vae.latent_channels,
        };
    }

    /// This rank's entry in the result; must not be called in a dry run.
    pub fn stats(rank: *const Rank) *results.RankStats {
        return &rank.result.values(results.RankStats, .rank_stats)[rank.index];
    }

    /// Returns a copy of some rows of `x`, which the caller frees.
    pub fn copyOfRows(rank: *Rank, x: Tensor, row_first: u32, row_count: u32) Error!Tensor {
        var shape = x.shape;
        shape.rows = row_count;
        const out = try rank.b.alloc(shape, x.dtype);
        try rank.b.copyRows(out, 0, x, row_first, row_count);
        return out;
    }

    fn dealExchange(
        rank: *Rank,
        exchange: *Exchange,
        before: *const layouts.Patches,
        after: *const layouts.Patches,
    ) Error!void {
        const old = before.list[exchange.index].row_count;
        const new = after.list[exchange.index].row_count;
        const slots = try rank.arena.dupe(Slot, exchange.slots);
        for (slots) |*slot| {
            if (slot.kind != .keys_values) continue;
            slot.shape.width = @intCast(@as(u64, slot.shape.width) * new / old);
        }
        exchange.slots = slots;
        exchange.patches = after.slice();
    }

    fn trace(rank: *const Rank) ?*OpTrace {
        return if (rank.isPlanning()) rank.b.device.plan.op_trace else null;
    }

    /// Writes a device tensor to an output of the job, in NCHW.
    pub fn saveNchw(rank: *Rank, name: results.Output, x: Tensor) Error!void {
        if (rank.isPlanning()) return;
        const host = try rank.arena.alloc(f32, x.shape.elementCount());
        try rank.b.downloadFloats(x, host);
        const out = try rank.result.alloc(f32, name, host.len);
        nchw.fromNhwc(out, host, x.shape.channels, x.shape.positionCount());
    }

    /// Uploads `values`, in NCHW, to a new tensor of the activation type.
    pub fn uploadNchw(rank: *Rank, shape: Shape, values: []const f32) Error!Tensor {
        if (rank.isPlanning()) return rank.b.uploadFloats(shape, &.{});
        const host = try rank.arena.alloc(f32, values.len);
        nchw.toNhwc(host, values, shape.channels, shape.positionCount());
        return rank.b.uploadFloats(shape, host);
    }

    pub fn notFinite(rank: *Rank, comptime what: []const u8, args: anytype) error{NotFinite} {
        // f16 ends at 65504; activations of SDXL's VAE are known to exceed it.
        const advice = switch (rank.b.activationType()) {
            .f16 => "Values above 65504 overflow in f16: --dtype bf16 has the range of f32.",
            else => "Are the weights damaged or made for another config, or is a weight in the " ++
                "prompt or a LoRA's scale huge?",
        };
        return rank.diagnostics.fail(error.NotFinite, what ++ " numbers that are not finite, so " ++
            "no image was written. {s}", args ++ .{advice});
    }
};
