//! The loop that every rank runs: text encoders, then for each step the UNet on its own branches,
//! the gathering of all branches, the latent update; then the VAE. Each rank keeps the whole latent
//! and updates it alike, so nothing but model outputs is ever sent.
//! The same code runs over the `plan` device to count memory; nothing here may depend on values.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const backends = @import("backend.zig");
const Backend = backends.Backend;
const Tensor = @import("tensor.zig").Tensor;
const Shape = @import("tensor.zig").Shape;
const Model = @import("model.zig").Model;
const ClipTextModel = @import("model.zig").ClipTextModel;
const Conditioning = @import("model/unet.zig").Conditioning;
const Context = @import("model/layers.zig").Context;
const Exchange = @import("patch/exchange.zig").Exchange;
const Layout = @import("patch/layout.zig").Layout;
const Transport = @import("transport.zig").Transport;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const CpuGenerator = @import("random.zig").CpuGenerator;
const nchw = @import("nchw.zig");
const jobs = @import("job.zig");
const Job = jobs.Job;

pub const Error = backends.Error || error{ NotFinite, OutOfMemory };

/// Where a rank tells how far it is; only rank 0 has one.
pub const Reporter = struct {
    io: Io,
    stage: std.atomic.Value(u32) = .init(0),
    step_index: std.atomic.Value(u32) = .init(0),

    fn begin(reporter: *Reporter, stage: jobs.Stage) i96 {
        reporter.stage.store(@intFromEnum(stage), .release);
        return reporter.now();
    }

    fn now(reporter: *Reporter) i96 {
        return Io.Timestamp.now(reporter.io, .awake).toNanoseconds();
    }

    fn since(reporter: *Reporter, start: i96) u64 {
        return @intCast(reporter.now() - start);
    }
};

pub const Rank = struct {
    index: u32,
    layout: Layout,
    model: *const Model,
    b: Backend,
    exchange: *Exchange,
    transport: Transport,
    diagnostics: *Diagnostics,
    /// Host memory of this rank for noise and the like, freed by the caller after the job.
    arena: Allocator,
    reporter: ?*Reporter = null,

    pub fn run(rank: *Rank, job: *Job) Error!void {
        switch (job.kind) {
            .picture => try rank.drawPicture(job),
            .prompt_embeds => try rank.embedPrompt(job),
            .noise_prediction => try rank.predictNoise(job),
            .decode => try rank.decodeSample(job),
            .encode => try rank.encodeSample(job),
        }
    }

    // --- internal ---

    /// While planning nothing is computed, and host copies of large tensors are not made.
    fn isPlanning(rank: *const Rank) bool {
        return rank.b.device == .plan;
    }

    fn context(rank: *Rank) Context {
        return .{ .b = rank.b, .exchange = rank.exchange };
    }

    fn latentShape(rank: *const Rank, job: *const Job) Shape {
        return .{
            .batch = 1,
            .rows = job.latent_rows,
            .width = job.latent_width,
            .channels = rank.model.config.vae.latent_channels,
        };
    }

    fn drawPicture(rank: *Rank, job: *Job) Error!void {
        const text_start = if (rank.reporter) |r| r.begin(.text) else 0;
        const slots = try rank.arena.alloc(Tensor, rank.model.unet.context_slot_count);
        const conditioning = try rank.conditionBranches(job, slots);
        if (rank.reporter) |r| job.text_ns = r.since(text_start);

        const denoise_start = if (rank.reporter) |r| r.begin(.denoise) else 0;
        const latent = try rank.denoise(job, conditioning);
        for (slots) |tensor| rank.b.free(tensor);
        rank.b.free(conditioning.addition);
        if (rank.reporter) |r| job.denoise_ns = r.since(denoise_start);
        defer rank.b.free(latent);
        if (rank.index != 0) return;

        if (job.wants_latents) try rank.saveNchw(job, .latents, latent);
        const decode_start = if (rank.reporter) |r| r.begin(.decode) else 0;
        const scaled = try rank.b.scaleRepeat(latent, 1 / rank.model.config.vae.scaling_factor, 1);
        defer rank.b.free(scaled);
        const image = try rank.decodeChecked(scaled);
        defer rank.b.free(image);
        try rank.saveRgb(job, image);
        if (rank.reporter) |r| job.decode_ns = r.since(decode_start);
    }

    /// Text encoders and all that follows from the prompt, for this rank's branches.
    fn conditionBranches(rank: *Rank, job: *const Job, slots: []Tensor) Error!Conditioning {
        const count = rank.layout.branchesPerRank();
        const first = rank.layout.branchFirst(rank.index);
        const c = &rank.model.config;
        const b = rank.b;
        const token_count = c.clip.position_count;
        const embeds = try b.alloc(.tokens(count, token_count, c.unet.cross_attention_dim), .f32);
        defer b.free(embeds);
        const pooled = try b.alloc(.vector(count, c.clip_2.projection_size), .f32);
        defer b.free(pooled);
        for (0..count) |i| {
            const branch: u32 = first + @as(u32, @intCast(i));
            // With guidance the negative branch comes first.
            const is_negative = job.branch_count == 2 and branch == 0;
            const tokens = if (is_negative) job.negative else job.prompt;
            const slot: u32 = @intCast(i);
            const embeds_out = embeds.batchSlice(slot, 1);
            try rank.encodeText(tokens, embeds_out, pooled.batchSlice(slot, 1));
        }
        const ids = try rank.arena.alloc(f32, count * 6);
        for (0..count) |i| @memcpy(ids[i * 6 ..][0..6], &job.time_ids);
        const time_ids = try b.upload(.vector(count * 6, 1), .f32, std.mem.sliceAsBytes(ids));
        defer b.free(time_ids);
        return rank.model.unet.condition(rank.context(), embeds, pooled, time_ids, slots);
    }

    /// One prompt through both encoders; null gives zeros.
    fn encodeText(rank: *Rank, maybe: ?jobs.Tokens, embeds: Tensor, pooled: Tensor) Error!void {
        const b = rank.b;
        const tokens = maybe orelse {
            const zeros = try rank.arena.alloc(u8, @max(embeds.byteCount(), pooled.byteCount()));
            @memset(zeros, 0);
            b.write(embeds, zeros[0..embeds.byteCount()]);
            b.write(pooled, zeros[0..pooled.byteCount()]);
            return;
        };
        const ctx = rank.context();
        const model = rank.model;
        const hidden = try rank.penultimate(&model.text_encoder, tokens.ids);
        defer b.free(hidden);
        const hidden_2 = try rank.penultimate(&model.text_encoder_2, tokens.ids_2);
        defer b.free(hidden_2);
        const joined = try b.concatChannels(&.{ hidden, hidden_2 });
        defer b.free(joined);
        try b.copy(embeds, joined);
        const projected = try model.text_encoder_2.pooled(ctx, hidden_2, &.{tokens.end_index_2});
        defer b.free(projected);
        try b.copy(pooled, projected);
        if (!try b.isFinite(embeds) or !try b.isFinite(pooled)) {
            return rank.notFinite("the text encoders gave", .{});
        }
    }

    fn penultimate(rank: *Rank, encoder: *const ClipTextModel, ids: []const i32) Error!Tensor {
        const shape: Shape = .tokens(1, @intCast(ids.len), 1);
        const tensor = try rank.b.upload(shape, .i32, std.mem.sliceAsBytes(ids));
        defer rank.b.free(tensor);
        return encoder.penultimate(rank.context(), tensor);
    }

    /// All steps; the latent that comes back is the caller's.
    fn denoise(rank: *Rank, job: *Job, conditioning: Conditioning) Error!Tensor {
        const b = rank.b;
        var state: LatentState = try .init(rank, job);
        const step_ns = if (rank.reporter != null)
            try job.output(u64, .step_ns, job.rows.len)
        else
            null;
        const timestep = try b.alloc(.vector(rank.layout.branchesPerRank(), 1), .f32);
        defer b.free(timestep);
        for (job.rows, 0..) |row, i| {
            const start = if (rank.reporter) |r| r.now() else 0;
            const output = try rank.predictBranches(row, state.latent, timestep, conditioning);
            defer b.free(output);
            try state.advance(rank, job, row, output);
            if (!try b.isFinite(state.latent)) {
                return rank.notFinite("step {d} of {d} gave", .{ i + 1, job.rows.len });
            }
            if (rank.reporter) |r| {
                r.step_index.store(@intCast(i + 1), .release);
                step_ns.?[i] = r.since(start);
            }
        }
        return state.finish(rank);
    }

    /// The UNet on this rank's branches, then every rank's: (branches, rows, width, channels).
    fn predictBranches(
        rank: *Rank,
        row: backends.StepRow,
        latent: Tensor,
        timestep: Tensor,
        conditioning: Conditioning,
    ) Error!Tensor {
        const b = rank.b;
        const branch_count = rank.layout.branchesPerRank();
        const times: [2]f32 = @splat(row.timestep);
        b.write(timestep, std.mem.sliceAsBytes(times[0..branch_count]));
        const input = try b.scaleRepeat(latent, row.input_scale, branch_count);
        const own = try rank.model.unet.forward(rank.context(), input, timestep, conditioning);
        b.free(input);
        if (!rank.layout.splitsBranches()) return own;
        defer b.free(own);
        return rank.transport.allGather(b, rank.layout.rank_count, own);
    }

    fn decodeChecked(rank: *Rank, latent: Tensor) Error!Tensor {
        const image = try rank.model.vae.decode(rank.context(), latent);
        if (!try rank.b.isFinite(image)) return rank.notFinite("the VAE's decoder gave", .{});
        return image;
    }

    fn saveRgb(rank: *Rank, job: *Job, image: Tensor) Error!void {
        const rgb = try rank.b.toRgb(image);
        defer rank.b.free(rgb);
        if (rank.isPlanning()) return;
        rank.b.download(rgb, try job.output(u8, .rgb, rgb.shape.elementCount()));
    }

    /// A device tensor to a result of the job, channels first.
    fn saveNchw(rank: *Rank, job: *Job, name: jobs.Output, x: Tensor) Error!void {
        if (rank.isPlanning()) return;
        const host = try rank.arena.alloc(f32, x.shape.elementCount());
        rank.b.download(x, std.mem.sliceAsBytes(host));
        const out = try job.output(f32, name, host.len);
        nchw.fromNhwc(out, host, x.shape.channels, x.shape.positionCount());
    }

    fn uploadNchw(rank: *Rank, shape: Shape, values: []const f32) Error!Tensor {
        if (rank.isPlanning()) return rank.b.alloc(shape, .f32);
        const host = try rank.arena.alloc(f32, values.len);
        nchw.toNhwc(host, values, shape.channels, shape.positionCount());
        return rank.b.upload(shape, .f32, std.mem.sliceAsBytes(host));
    }

    fn notFinite(rank: *Rank, comptime what: []const u8, args: anytype) error{NotFinite} {
        return rank.diagnostics.fail(error.NotFinite, what ++ " numbers that are not finite, so " ++
            "no picture was written. Are the weights damaged, or made for another config?", args);
    }

    // The parts alone. Rank 0 runs them; results are the job's outputs of the same name.

    /// `prompt` to `prompt_embeds` (1, tokens, channels) and `pooled` (1, projection).
    fn embedPrompt(rank: *Rank, job: *Job) Error!void {
        const c = &rank.model.config;
        const b = rank.b;
        const shape: Shape = .tokens(1, c.clip.position_count, c.unet.cross_attention_dim);
        const embeds = try b.alloc(shape, .f32);
        defer b.free(embeds);
        const pooled = try b.alloc(.vector(1, c.clip_2.projection_size), .f32);
        defer b.free(pooled);
        try rank.encodeText(job.prompt, embeds, pooled);
        const embeds_out = try job.output(f32, .prompt_embeds, shape.elementCount());
        b.download(embeds, std.mem.sliceAsBytes(embeds_out));
        const pooled_out = try job.output(f32, .pooled, c.clip_2.projection_size);
        b.download(pooled, std.mem.sliceAsBytes(pooled_out));
    }

    /// `sample` (batch, channels, rows, width), `timestep`, `prompt_embeds`, `pooled` and
    /// `time_ids_list` (batch, 6) to `noise_prediction`, as diffusers' UNet is called.
    fn predictNoise(rank: *Rank, job: *Job) Error!void {
        const c = &rank.model.config;
        const b = rank.b;
        const batch = job.batch;
        var shape = rank.latentShape(job);
        shape.batch = batch;
        const token_count: u32 = @intCast(
            job.prompt_embeds.len / (batch * c.unet.cross_attention_dim),
        );
        const sample = try rank.uploadNchw(shape, job.sample);
        defer b.free(sample);
        const embeds_shape: Shape = .tokens(batch, token_count, c.unet.cross_attention_dim);
        const embeds = try b.upload(embeds_shape, .f32, std.mem.sliceAsBytes(job.prompt_embeds));
        defer b.free(embeds);
        const pooled_shape: Shape = .vector(batch, c.clip_2.projection_size);
        const pooled = try b.upload(pooled_shape, .f32, std.mem.sliceAsBytes(job.pooled));
        defer b.free(pooled);
        const ids_bytes = std.mem.sliceAsBytes(job.time_ids_list);
        const time_ids = try b.upload(.vector(batch * 6, 1), .f32, ids_bytes);
        defer b.free(time_ids);
        const times = try rank.arena.alloc(f32, batch);
        @memset(times, job.timestep);
        const timestep = try b.upload(.vector(batch, 1), .f32, std.mem.sliceAsBytes(times));
        defer b.free(timestep);
        const slots = try rank.arena.alloc(Tensor, rank.model.unet.context_slot_count);
        const ctx = rank.context();
        const unet = &rank.model.unet;
        const conditioning = try unet.condition(ctx, embeds, pooled, time_ids, slots);
        defer b.free(conditioning.addition);
        defer for (slots) |tensor| b.free(tensor);
        const start = if (rank.reporter) |r| r.begin(.denoise) else 0;
        const out = try unet.forward(ctx, sample, timestep, conditioning);
        if (rank.reporter) |r| job.denoise_ns = r.since(start);
        defer b.free(out);
        try rank.saveNchw(job, .noise_prediction, out);
    }

    /// `sample` (1, latent channels, rows, width), divided by the scaling factor, to `image`
    /// (1, 3, factor * rows, factor * width) as the decoder gives it, and `rgb`.
    fn decodeSample(rank: *Rank, job: *Job) Error!void {
        const start = if (rank.reporter) |r| r.begin(.decode) else 0;
        const latent = try rank.uploadNchw(rank.latentShape(job), job.sample);
        defer rank.b.free(latent);
        const image = try rank.decodeChecked(latent);
        defer rank.b.free(image);
        if (rank.reporter) |r| job.decode_ns = r.since(start);
        try rank.saveNchw(job, .image, image);
        try rank.saveRgb(job, image);
    }

    /// `sample` (1, 3, factor * rows, factor * width) of -1 to 1 to `latents`: the mean of the
    /// latent's distribution times the scaling factor.
    fn encodeSample(rank: *Rank, job: *Job) Error!void {
        if (rank.reporter) |r| _ = r.begin(.encode);
        const vae = &rank.model.config.vae;
        const factor = vae.factor();
        const shape: Shape = .{
            .batch = 1,
            .rows = job.latent_rows * factor,
            .width = job.latent_width * factor,
            .channels = vae.in_channels,
        };
        const picture = try rank.uploadNchw(shape, job.sample);
        defer rank.b.free(picture);
        const moments = try rank.model.vae.encode(rank.context(), picture);
        defer rank.b.free(moments);
        if (!try rank.b.isFinite(moments)) return rank.notFinite("the VAE's encoder gave", .{});
        if (rank.isPlanning()) return;
        try rank.saveNchw(job, .latents, moments);
        // Channels first, the means are the first half.
        const both = job.outputs.get(.latents);
        const means = try job.output(f32, .latents, both.len / @sizeOf(f32) / 2);
        const values: []align(1) const f32 = std.mem.bytesAsSlice(f32, both);
        for (means, values[0..means.len]) |*out, value| out.* = value * vae.scaling_factor;
    }
};

/// The registers that a sampler's rows speak of: latent, saved, history, noise.
const LatentState = struct {
    latent: Tensor,
    saved: Tensor,
    history: [backends.history_count]Tensor,
    noise: Tensor,
    generator: CpuGenerator,
    /// One latent on the host, in torch's order and in ours.
    drawn: []f32,
    turned: []f32,

    fn init(rank: *Rank, job: *const Job) Error!LatentState {
        const b = rank.b;
        const shape = rank.latentShape(job);
        const host_count = if (rank.isPlanning()) 0 else shape.elementCount();
        var state: LatentState = .{
            .latent = try b.alloc(shape, .f32),
            .saved = try b.alloc(shape, .f32),
            .history = undefined,
            .noise = try b.alloc(shape, .f32),
            .generator = .init(job.seed),
            .drawn = try rank.arena.alloc(f32, host_count),
            .turned = try rank.arena.alloc(f32, host_count),
        };
        for (&state.history) |*tensor| tensor.* = try b.alloc(shape, .f32);
        state.draw(shape);
        for (state.turned) |*value| value.* *= job.initial_scale;
        b.write(state.latent, std.mem.sliceAsBytes(state.turned));
        // A row that has no history yet multiplies it by 0: it must be a number.
        @memset(state.turned, 0);
        b.write(state.saved, std.mem.sliceAsBytes(state.turned));
        for (state.history) |tensor| b.write(tensor, std.mem.sliceAsBytes(state.turned));
        return state;
    }

    fn advance(
        state: *LatentState,
        rank: *Rank,
        job: *const Job,
        row: backends.StepRow,
        model_output: Tensor,
    ) Error!void {
        const draws_noise = row.draws_noise != 0;
        if (draws_noise) {
            state.draw(state.latent.shape);
            rank.b.write(state.noise, std.mem.sliceAsBytes(state.turned));
        }
        // The oldest output's memory takes the newest.
        std.mem.rotate(Tensor, &state.history, state.history.len - 1);
        try rank.b.latentStep(.{
            .row = row,
            .guidance_scale = job.guidance_scale,
            .latent = state.latent,
            .saved = state.saved,
            .history = state.history,
            .model_output = model_output,
            .noise = if (draws_noise) state.noise else null,
        });
    }

    /// Frees all but the latent.
    fn finish(state: *LatentState, rank: *Rank) Tensor {
        for (state.history) |tensor| rank.b.free(tensor);
        rank.b.free(state.noise);
        rank.b.free(state.saved);
        return state.latent;
    }

    fn draw(state: *LatentState, shape: Shape) void {
        if (state.drawn.len == 0) return;
        state.generator.fillNormal(state.drawn);
        nchw.toNhwc(state.turned, state.drawn, shape.channels, shape.positionCount());
    }
};
