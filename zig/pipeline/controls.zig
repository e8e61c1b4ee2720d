//! The networks beside the UNet that a job's hint images steer it with. What follows from a hint
//! alone is computed before the steps, on every rank of the whole image, so that it needs no
//! exchange. In each step of its range a ControlNet runs on this rank's rows with an exchange of
//! its own, and leaves its residuals where the UNet reads them. A step that takes deep features
//! from an earlier one takes those residuals, too.

const std = @import("std");
const backend = @import("../backend.zig");
const GraphKey = backend.GraphKey;
const additions_file = @import("../model/additions.zig");
const Additions = additions_file.Additions;
const Residuals = additions_file.Residuals;
const conditionings = @import("../model/conditioning.zig");
const Conditioning = conditionings.Conditioning;
const ControlNet = @import("../model/controlnet.zig").ControlNet;
const ControlTypes = @import("../model/controlnet_union.zig").ControlTypes;
const ControlHint = @import("job.zig").ControlHint;
const ControlUse = @import("job.zig").ControlUse;
const Context = @import("../model/layers.zig").Context;
const Exchange = @import("../patch/exchange.zig").Exchange;
const Patch = @import("../patch/layout.zig").Patch;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;
const Reuse = @import("../model/reuse.zig").Reuse;
const ScaledTensor = @import("../model/unet_blocks.zig").ScaledTensor;
const Shape = @import("../tensor.zig").Shape;
const T2iAdapter = @import("../model/t2i_adapter.zig").T2iAdapter;
const Tensor = @import("../tensor.zig").Tensor;

/// What the ControlNets read of the prompts, each at its use in `out`.
pub fn condition(
    rank: *Rank,
    inputs: conditionings.PromptInputs,
    out: []?Conditioning,
) Error!void {
    defer rank.enterNetwork(null);
    for (out, rank.job.controls) |*own, *use| {
        rank.enterNetwork(use.network_index);
        switch (rank.networks[use.network_index].graph) {
            .controlnet => |*net| {
                const room = own.*.?.keys_values;
                own.* = try net.condition(rank.context(), inputs, typesOf(use), room);
            },
            .clip_vision, .ip_adapter, .upscaler => unreachable, // the ABI refuses them
            .t2i_adapter => {},
        }
    }
}

pub const Controls = struct {
    uses: []Use,
    /// Room for the additions of a step: residuals, and features by the UNet's down blocks and
    /// its mid block.
    scaled: []Additions.Scaled,
    features: [][]ScaledTensor,

    /// Computes what follows from the hints.
    pub fn init(rank: *Rank) Error!Controls {
        const all = rank.job.controls;
        const block_count = rank.model.unet.down_blocks.len + 1;
        const controls: Controls = .{
            .uses = try rank.arena.alloc(Use, all.len),
            .scaled = try rank.arena.alloc(Additions.Scaled, all.len),
            .features = try rank.arena.alloc([]ScaledTensor, block_count),
        };
        for (controls.features) |*list| list.* = try rank.arena.alloc(ScaledTensor, all.len);
        defer rank.enterNetwork(null);
        for (controls.uses, all) |*own, *use| {
            rank.enterNetwork(use.network_index);
            own.* = try .init(rank, use);
        }
        return controls;
    }

    pub fn deinit(controls: *Controls, rank: *Rank) void {
        for (controls.uses) |*own| for (own.whole) |tensor| rank.b.free(tensor);
    }

    /// Before the first step of a run, on a rank that is not idle. `sample` is the UNet's input.
    /// All have their memory in every run, whatever steps they take part in, as the plan counts.
    pub fn openRun(controls: *Controls, rank: *Rank, sample: Shape, step_first: u32) Error!void {
        for (controls.uses, 0..) |*own, i| {
            own.has_residuals = false;
            for (own.rows, own.whole) |*rows, whole| rows.* = try rowsOf(rank, whole, sample);
            own.is_open = true;
            const net = own.net orelse continue;
            own.residuals = try net.allocResiduals(rank.arena, rank.b, sample);
            const exchange = rank.controlExchange(i, rank.branches);
            try exchange.open(rank.arena, @max(step_first, own.use.steps.first));
        }
    }

    pub fn closeRun(controls: *Controls, rank: *Rank) void {
        for (controls.uses, 0..) |*own, i| {
            rank.controlExchange(i, rank.branches).close();
            if (own.residuals) |residuals| residuals.free(rank.b);
            own.residuals = null;
            if (own.is_open) for (own.rows) |rows| rank.b.free(rows);
            own.is_open = false;
        }
    }

    /// Computes the residuals of a step, on the inputs of the UNet without what that reads beside
    /// the latent.
    pub fn run(
        controls: *Controls,
        rank: *Rank,
        step_index: u32,
        inputs: Inputs,
    ) Error!void {
        defer rank.enterNetwork(null);
        for (controls.uses, 0..) |*own, i| {
            if (own.net == null or !own.use.steps.has(step_index)) continue;
            rank.enterNetwork(own.use.network_index);
            if (own.has_residuals and inputs.reuse.deep == .reuse) continue;
            own.has_residuals = true;
            const exchange = rank.controlExchange(i, rank.branches);
            exchange.enterStep(step_index, .all);
            const conditioning = inputs.conditioning.controls[i].?;
            var key: GraphKey = .of(.controlnet, inputs.sample, exchange.stepVariant());
            key.context_tokens, key.context_tokens_second = conditioning.tokenCounts();
            key.conditioning = inputs.set;
            key.branch_first = inputs.branch_first;
            key.control_networks[i] = own.network_id;
            key.step.outer_skips = rank.job.outer_skips;
            const ctx: Context = .{ .b = rank.b, .exchange = exchange };
            const is_deep = rank.job.outer_skips > 0;
            const args = .{ own, ctx, is_deep, inputs, conditioning };
            try rank.b.runGraphed(key, forwardControl, args);
        }
    }

    /// What the UNet adds in a step, noted in `key`. Valid until the next call.
    pub fn additionsAt(controls: *Controls, step_index: u32, key: *GraphKey) Additions {
        var count: usize = 0;
        var feature_count: usize = 0;
        for (controls.uses, 0..) |*own, i| {
            const factor = own.use.scale;
            if (!own.use.steps.has(step_index) or factor == 0) continue;
            key.control_networks[i] = own.network_id;
            key.control_factors[i] = @bitCast(factor);
            if (own.residuals) |residuals| {
                controls.scaled[count] = .{ .of = residuals, .factor = factor };
                count += 1;
                continue;
            }
            for (controls.features, own.rows) |list, rows| {
                list[feature_count] = .{ .tensor = rows, .factor = factor };
            }
            feature_count += 1;
        }
        return .{
            .residuals = controls.scaled[0..count],
            .features = controls.features,
            .feature_count = feature_count,
        };
    }
};

/// Of a step, as the UNet has them.
pub const Inputs = struct {
    /// This rank's rows of the latent, for its branches.
    sample: Tensor,
    halo: Exchange.HaloRows,
    timestep: Tensor,
    conditioning: Conditioning,
    /// Which of the job's conditionings that is, and the first branch that is read of it.
    set: u32,
    branch_first: u32,
    reuse: *const Reuse,
};

/// One use of a network in a job.
const Use = struct {
    use: *const ControlUse,
    /// Null for a T2I-Adapter.
    net: ?*const ControlNet,
    network_id: u32,
    /// What follows from the hint, of the whole image: a ControlNet's one tensor, or an adapter's
    /// features.
    whole: []Tensor,
    /// This rank's rows of these, for each element of the batch; they last as long as a run.
    rows: []Tensor,
    is_open: bool = false,
    /// Likewise, where the UNet reads them.
    residuals: ?Residuals = null,
    has_residuals: bool = false,

    fn init(rank: *Rank, use: *const ControlUse) Error!Use {
        const network = rank.networks[use.network_index];
        var net: ?*const ControlNet = null;
        var whole: []Tensor = undefined;
        switch (network.graph) {
            .controlnet => |*one| {
                net = one;
                whole = try rank.arena.alloc(Tensor, 1);
                whole[0] = try embedHints(rank, use.hints, one);
            },
            .t2i_adapter => |*adapter| {
                whole = try rank.arena.alloc(Tensor, adapter.body.len);
                try adapterFeatures(rank, use, adapter, whole);
            },
            .clip_vision, .ip_adapter, .upscaler => unreachable, // the ABI refuses them
        }
        return .{
            .use = use,
            .net = net,
            .network_id = network.id,
            .whole = whole,
            .rows = try rank.arena.alloc(Tensor, whole.len),
        };
    }
};

fn forwardControl(
    own: *const Use,
    ctx: Context,
    is_deep: bool,
    inputs: Inputs,
    conditioning: Conditioning,
) Error!void {
    try ctx.exchange.beginStep();
    // Its residuals are kept as deep features are.
    if (is_deep) try ctx.exchange.enterDeep();
    try own.net.?.forward(
        ctx,
        inputs.sample,
        inputs.halo,
        inputs.timestep,
        conditioning,
        own.rows[0],
        own.residuals.?,
    );
    if (is_deep) try ctx.exchange.leaveDeep();
    try ctx.exchange.endStep();
}

fn typesOf(use: *const ControlUse) ControlTypes {
    var control_types: ControlTypes = .initEmpty();
    for (use.hints) |hint| control_types.set(hint.control_type);
    return control_types;
}

/// (1, rows, width, channels), of the whole image. A union model shifts the features of each hint
/// and adds them up.
fn embedHints(rank: *Rank, hints: []const ControlHint, net: *const ControlNet) Error!Tensor {
    const b = rank.b;
    const patches: [1]Patch = .{.{ .row_first = 0, .row_count = rank.job.latent_rows }};
    var exchange: Exchange = .ofSinglePatch(b, &patches);
    const ctx: Context = .{ .b = b, .exchange = &exchange };
    if (net.type_embedding == null) return embedHint(rank, ctx, &hints[0], net);
    var sum: []f32 = &.{};
    var shape: Shape = undefined;
    for (hints) |*hint| {
        const features = try embedHint(rank, ctx, hint, net);
        defer b.free(features);
        shape = features.shape;
        if (sum.len == 0) {
            sum = try rank.arena.alloc(f32, if (rank.isPlanning()) 0 else shape.elementCount());
            @memset(sum, 0);
        }
        try addShifted(rank, ctx, hint, net, features, sum);
    }
    return b.uploadFloats(shape, sum);
}

/// (1, rows, width, channels), of the whole image.
fn embedHint(
    rank: *Rank,
    ctx: Context,
    hint: *const ControlHint,
    net: *const ControlNet,
) Error!Tensor {
    const factor = rank.model.config.vae.factor();
    const shape: Shape = .{
        .batch = 1,
        .rows = rank.job.latent_rows * factor,
        .width = rank.job.latent_width * factor,
        .channels = net.config.conditioning_channels,
    };
    const image = try ctx.b.uploadFloats(shape, try pixelsOf(rank, hint.image));
    defer ctx.b.free(image);
    return net.embedHint(ctx, image);
}

/// Adds the features of a hint, as a union model reads them among others.
fn addShifted(
    rank: *Rank,
    ctx: Context,
    hint: *const ControlHint,
    net: *const ControlNet,
    features: Tensor,
    sum: []f32,
) Error!void {
    const values = try rank.arena.alloc(f32, sum.len);
    try ctx.b.downloadFloats(features, values);
    const mean = try meanOf(rank, values, features.shape.channels);
    const scale = hint.scale;
    const types = &net.type_embedding.?;
    const shift = try types.shiftOf(rank.arena, ctx, hint.control_type, scale, mean);
    for (sum, values, 0..) |*total, value, i| total.* += scale * (value + shift[i % shift.len]);
}

/// Of the whole image, at the size of each block of the UNet.
fn adapterFeatures(
    rank: *Rank,
    use: *const ControlUse,
    adapter: *const T2iAdapter,
    out: []Tensor,
) Error!void {
    const b = rank.b;
    const config = &adapter.config;
    const factor = config.downscale_factor / rank.model.config.vae.factor();
    const shape: Shape = .{
        .batch = 1,
        .rows = rank.job.latent_rows / factor,
        .width = rank.job.latent_width / factor,
        .channels = config.in_channels * config.downscale_factor * config.downscale_factor,
    };
    const values: []const f32 = if (rank.isPlanning())
        &.{}
    else
        try adapter.unshuffled(rank.arena, use.hints[0].image, shape);
    const image = try b.uploadFloats(shape, values);
    defer b.free(image);
    const patches: [1]Patch = .{.{ .row_first = 0, .row_count = rank.job.latent_rows }};
    var exchange: Exchange = .ofSinglePatch(b, &patches);
    try adapter.forward(.{ .b = b, .exchange = &exchange }, image, out);
}

/// 0 to 1, as diffusers has hints.
fn pixelsOf(rank: *Rank, image: []const u8) Error![]const f32 {
    if (rank.isPlanning()) return &.{};
    const values = try rank.arena.alloc(f32, image.len);
    for (values, image) |*value, byte| value.* = @as(f32, @floatFromInt(byte)) / 255;
    return values;
}

/// Over all positions.
fn meanOf(rank: *Rank, values: []const f32, channels: usize) Error![]f32 {
    const sums = try rank.arena.alloc(f64, channels);
    @memset(sums, 0);
    for (values, 0..) |value, i| sums[i % channels] += value;
    const mean = try rank.arena.alloc(f32, channels);
    const count: f64 = @floatFromInt(@max(1, values.len / channels));
    for (mean, sums) |*value, sum| value.* = @floatCast(sum / count);
    return mean;
}

/// This rank's rows of `whole` (1, rows, width, channels), once for each element of the batch; it
/// may have fewer rows than the latent.
fn rowsOf(rank: *Rank, whole: Tensor, sample: Shape) Error!Tensor {
    const patch = rank.exchange.patches[rank.exchange.index];
    const factor = rank.job.latent_rows / whole.shape.rows;
    const rows = try rank.copyOfRows(whole, patch.row_first / factor, patch.row_count / factor);
    if (sample.batch == 1) return rows;
    var shape = rows.shape;
    shape.batch = sample.batch;
    const out = try rank.b.alloc(shape, rows.dtype);
    for (0..sample.batch) |i| try rank.b.copy(out.batchSlice(@intCast(i), 1), rows);
    rank.b.free(rows);
    return out;
}
