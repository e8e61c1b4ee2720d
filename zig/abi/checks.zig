//! Checks of the arguments of the C ABI: sizes, counts and lengths are checked once here, and the
//! code behind it asserts them. Only the TypeScript of this repository calls, so the messages are
//! for its developers.

const std = @import("std");
const backend = @import("../backend.zig");
const configs = @import("../model/config.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const models = @import("../model.zig");
const pipeline = @import("../pipeline.zig");
const random = @import("../random.zig");
const unet_reuse = @import("../model/reuse.zig");
const layouts = @import("../patch/layout.zig");
const rank_count_max = layouts.rank_count_max;
const sessions = @import("../session.zig");
const types = @import("types.zig");
const step_count_max = types.step_count_max;
const image_count_max = types.image_count_max;
const Bytes = types.Bytes;
const Request = types.Request;
const SessionOptions = types.SessionOptions;
const Status = types.Status;
const Tokens = types.Tokens;

/// Message of calls without a session.
pub threadlocal var last_error: Diagnostics = .{};

pub fn refuse(comptime sentence: []const u8, args: anytype) Status {
    last_error.reset();
    const whole = "The library was asked for " ++ sentence ++ ".";
    last_error.fail(error.BadArgument, whole, args) catch {};
    return .bad_argument;
}

pub fn options(o: *const SessionOptions) ?Status {
    if (o.size != @sizeOf(SessionOptions)) return refuse("options of another version", .{});
    if (o.rank_count < 1 or o.rank_count > rank_count_max) {
        return refuse("{d} ranks; 1 to {d} are supported", .{ o.rank_count, rank_count_max });
    }
    if (processes(o)) |status| return status;
    if (branches(o.branch_count)) |status| return status;
    const is_cpu = o.device == .cpu;
    switch (o.activation_dtype) {
        .f32 => if (!is_cpu) return refuse("activations of f32 on a GPU; f16 or bf16", .{}),
        .f16, .bf16 => if (is_cpu) return refuse("activations of 16 bits on the CPU", .{}),
        else => return refuse("activations of an integer type", .{}),
    }
    if (o.fp16_accumulate != 0 and o.activation_dtype != .f16) {
        return refuse("accumulation in f16 without activations in f16", .{});
    }
    if (is_cpu and o.config.vae.residual_scale != 1) return refuse("a residual scale", .{});
    if (is_cpu and o.random_weights != 0) return refuse("random weights on the CPU", .{});
    if (o.thread_count > 4096) return refuse("a thread count outside 0 to 4096", .{});
    if (o.compute_dtype == .bf16 and !backend.cpus.detect().has_bf16) {
        return refuse("bf16, which this processor has no instructions for (AVX512_BF16)", .{});
    }
    for ([_]Bytes{
        o.text_encoder_names, o.text_encoder_2_names, o.unet_names, o.vae_names, o.taesd_names,
    }) |each| if (names(each)) |status| return status;
    configs.check(&o.config, &last_error) catch return .bad_config;
    const refused = size(&o.config, o.latent_rows, o.latent_width);
    if (refused) |status| return status;
    if (adaptersOf(o.adapters)) |status| return status;
    if (networksOf(o.networks)) |status| return status;
    if (controlsOf(o.networks, o.controls, null)) |status| return status;
    if (ipAdaptersOf(o.networks, o.ip_adapters, false)) |status| return status;
    if (o.upscaler.len > 0) {
        if (networksOf(o.upscaler)) |status| return status;
        if (upscaling(o.upscaler, o)) |status| return status;
    }
    if (o.image_count < 1 or o.image_count > image_count_max) {
        return refuse("{d} images at once; 1 to {d}", .{
            o.image_count, image_count_max,
        });
    }
    return null;
}

fn names(bytes: Bytes) ?Status {
    const size_of_name = @sizeOf(types.WeightName);
    if (bytes.len % size_of_name != 0) return refuse("{d} bytes of names", .{bytes.len});
    const list: [*]align(1) const types.WeightName = @ptrCast(bytes.slice().ptr);
    for (list[0..@intCast(bytes.len / size_of_name)]) |name| {
        if (name.part_index < name.part_count) continue;
        return refuse("part {d} of {d} of a weight", .{ name.part_index, name.part_count });
    }
    return null;
}

fn branches(count: u32) ?Status {
    const most = 1 + types.prompt_count_max;
    return if (count >= 1 and count <= most) null else refuse("{d} branches", .{count});
}

/// Local ranks are a part of all; several processes are connected by NCCL.
fn processes(o: *const SessionOptions) ?Status {
    const all = o.rank_count;
    if (o.local_rank_count < 1 or o.local_rank_count > all or
        o.local_rank_first > all - o.local_rank_count)
    {
        return refuse("ranks {d} to {d} of {d}", .{
            o.local_rank_first, o.local_rank_first +| o.local_rank_count, all,
        });
    }
    const is_apart = o.local_rank_count < all;
    if (o.nccl_unique_id.len != if (is_apart) @as(u64, types.nccl_unique_id_bytes) else 0) {
        return refuse("ranks of several processes without an ncclUniqueId", .{});
    }
    if (o.gpu_first > 1024 or (o.gpu_first > 0 and o.device == .cpu)) {
        return refuse("GPU {d} as the first", .{o.gpu_first});
    }
    if (!is_apart) return null;
    if (o.device == .cpu or o.transport == .peer or o.share_gpu != 0 or o.vae_tile_latent > 0) {
        return refuse("several processes without NCCL and a GPU per rank, or with tiles", .{});
    }
    return null;
}

fn size(config: *const models.ModelConfig, rows: u32, width: u32) ?Status {
    const multiple = config.latentMultiple();
    if (rows == 0 or width == 0 or rows % multiple != 0 or width % multiple != 0) {
        return refuse("a latent of {d} x {d}; this model takes multiples of {d}", .{
            width, rows, multiple,
        });
    }
    if (rows > 1 << 14 or width > 1 << 14) return refuse("a latent over 16384 x 16384", .{});
    return null;
}

/// A bench may run one rank of several, on a GPU of this process.
pub fn onlyRank(o: *const sessions.Options, rank: u32) ?Status {
    if (rank == 0) return null;
    const is_local = o.devices.kind == .cuda and o.devices.nccl_unique_id == null;
    if (is_local and rank <= o.rank_count) return null;
    return refuse("rank {d} alone, which has no GPU in this process", .{rank});
}

/// Shares of the rows: one for each rank, which all have every branch.
pub fn balance(o: *const sessions.Options, r: *const Request) ?Status {
    if (r.rank_shares.len == 0 and r.measures_balance == 0) return null;
    if (r.split_batch != 0 or r.kind != .image) {
        return refuse("shares of rows of ranks with different branches", .{});
    }
    if (r.rank_shares.len == 0) return null;
    if (r.rank_shares.len != @as(u64, o.rank_count) * 4 or r.measures_balance != 0) {
        return refuse("{d} bytes of shares for {d} ranks", .{ r.rank_shares.len, o.rank_count });
    }
    for (std.mem.bytesAsSlice(u32, r.rank_shares.slice())) |share| {
        if (share == 0 or share > layouts.share_max) return refuse("a share of {d}", .{share});
    }
    return null;
}

/// Lengths are checked once here; the graph relies on them.
pub fn request(config: *const models.ModelConfig, r: *const Request) ?Status {
    if (size(config, r.latent_rows, r.latent_width)) |status| return status;
    if (branches(r.branch_count)) |status| return status;
    inline for (@typeInfo(@TypeOf(types.request_ranges)).@"struct".fields) |field| {
        const min, const max = @field(types.request_ranges, field.name);
        const value = @field(r, field.name);
        // NaN is outside, too.
        if (!(value >= min and value <= max)) {
            return refuse("{s} outside {d} to {d}", .{ field.name, min, max });
        }
    }
    const positions = @as(usize, r.latent_rows) * r.latent_width;
    const sample_bytes = @as(usize, r.batch) * positions * config.vae.latent_channels * 4;
    const factor: usize = config.vae.factor();
    if (r.hooks.len != 0 and r.hooks.len != @sizeOf(types.TestHooks)) {
        return refuse("test hooks of another version", .{});
    }
    if (types.TestHooks.of(r.hooks).only_rank > 0 and r.kind != .image) {
        return refuse("one rank of a component", .{});
    }
    if (adaptersOf(r.adapters)) |status| return status;
    const pixels = positions * factor * factor;
    if (networksOf(r.networks)) |status| return status;
    if (controlsOf(r.networks, r.controls, pixels)) |status| return status;
    if (ipAdaptersOf(r.networks, r.ip_adapters, true)) |status| return status;
    switch (r.kind) {
        .image => return image(config, r),
        .prompt_embeds => {
            const prompt_count = r.prompts.len / @sizeOf(Tokens);
            if (prompt_count < 1 or prompt_count > types.prompt_set_count_max) {
                return refuse("{d} prompts", .{prompt_count});
            }
            if (prompts(config, r, r.prompts, prompt_count, true)) |status| return status;
            return emptyPrompt(config, r);
        },
        .noise_prediction => {
            const embed_bytes = r.batch * config.unet.cross_attention_dim * 4;
            const unet_bytes = @as(usize, r.batch) * positions * config.unet.in_channels * 4;
            if (r.sample.len != unet_bytes or
                r.prompt_embeds.len == 0 or r.prompt_embeds.len % embed_bytes != 0 or
                r.pooled.len != r.batch * config.text.pooledSize() * 4 or
                r.time_ids_list.len != r.batch * config.unet.time_id_count * 4)
            {
                return refuse("a noise prediction with inputs of the wrong length", .{});
            }
        },
        .decode, .decode_preview => {
            if (r.sample.len != sample_bytes or r.batch != 1) {
                return refuse("the decode of a latent of the wrong length", .{});
            }
            if (r.kind == .decode_preview and config.taesd.is_present == 0) {
                return refuse("a preview without a TAESD", .{});
            }
        },
        .encode => if (r.sample.len != positions * factor * factor * 3 * 4 or r.batch != 1) {
            return refuse("the encode of an image of the wrong length", .{});
        },
        .upscale => return upscale(r),
    }
    return null;
}

/// What names and files hold is checked when they are applied.
fn adaptersOf(bytes: Bytes) ?Status {
    const adapter_bytes = @sizeOf(types.Adapter);
    if (bytes.len % adapter_bytes != 0 or bytes.len / adapter_bytes > types.adapter_count_max) {
        return refuse("adapters outside 0 to {d}", .{types.adapter_count_max});
    }
    const all: []align(1) const types.Adapter = std.mem.bytesAsSlice(types.Adapter, bytes.slice());
    for (all) |adapter| {
        const target_bytes = @sizeOf(types.AdapterTarget);
        const target_count = adapter.targets.len / target_bytes;
        if (adapter.targets.len % target_bytes != 0 or
            target_count > types.adapter_target_count_max)
        {
            return refuse("adapted weights outside 0 to {d}", .{types.adapter_target_count_max});
        }
        if (adapter.path.len == 0) return refuse("an adapter without a file", .{});
        for ([_]f32{ adapter.unet_scale, adapter.text_scale }) |scale| {
            if (!std.math.isFinite(scale)) return refuse("an adapter's scale of {d}", .{scale});
        }
        const targets: []align(1) const types.AdapterTarget =
            std.mem.bytesAsSlice(types.AdapterTarget, adapter.targets.slice());
        for (targets) |target| {
            if (!std.math.isFinite(target.scale)) {
                return refuse("a delta's scale of {d}", .{target.scale});
            }
        }
    }
    return null;
}

fn networksOf(networks: Bytes) ?Status {
    const network_bytes = @sizeOf(types.Network);
    const network_count = networks.len / network_bytes;
    if (networks.len % network_bytes != 0 or network_count > types.network_count_max) {
        return refuse("networks outside 0 to {d}", .{types.network_count_max});
    }
    const all: []align(1) const types.Network =
        std.mem.bytesAsSlice(types.Network, networks.slice());
    for (all) |*network| {
        const Kind = @TypeOf(network.kind);
        const number: *align(1) const @typeInfo(Kind).@"enum".tag_type = @ptrCast(&network.kind);
        const known = std.enums.fromInt(Kind, number.*) orelse {
            return refuse("a network of kind {d}", .{number.*});
        };
        const config_bytes: u64 = switch (known) {
            inline else => |kind| @sizeOf(@FieldType(models.networks.Config, @tagName(kind))),
        };
        if (network.config.len != config_bytes) return refuse("a network's config", .{});
        if (network.files.len == 0) return refuse("a network without files", .{});
        if (names(network.names)) |status| return status;
    }
    return null;
}

/// Hints of `pixels`, or none where it is null; `networksOf` has seen the networks.
fn controlsOf(networks: Bytes, controls: Bytes, pixels: ?usize) ?Status {
    const all: []align(1) const types.Network =
        std.mem.bytesAsSlice(types.Network, networks.slice());
    const use_bytes = @sizeOf(types.ControlUse);
    if (controls.len % use_bytes != 0 or controls.len / use_bytes > types.control_count_max) {
        return refuse("hints outside 0 to {d}", .{types.control_count_max});
    }
    const uses: []align(1) const types.ControlUse =
        std.mem.bytesAsSlice(types.ControlUse, controls.slice());
    for (uses) |use| {
        if (use.network_index >= all.len) return refuse("a hint without a network", .{});
        if (!std.math.isFinite(use.scale)) return refuse("a network's scale", .{});
        const network = all[use.network_index];
        const type_count = switch (network.kind) {
            .controlnet => std.mem.bytesToValue(
                configs.ControlNetConfig,
                network.config.slice(),
            ).control_type_count,
            .t2i_adapter => 0,
            .clip_vision, .ip_adapter, .upscaler => {
                return refuse("a hint for another network", .{});
            },
        };
        if (hintsOf(use.hints, type_count, pixels)) |status| return status;
    }
    return null;
}

/// Of one network, of which one with types of hints reads several.
fn hintsOf(bytes: Bytes, type_count: u32, pixels: ?usize) ?Status {
    const hint_bytes = @sizeOf(types.ControlHint);
    const count_max: usize = if (type_count > 0) types.control_count_max else 1;
    const count = bytes.len / hint_bytes;
    if (bytes.len % hint_bytes != 0 or count < 1 or count > count_max) {
        return refuse("{d} hints of a network", .{count});
    }
    const hints: []align(1) const types.ControlHint =
        std.mem.bytesAsSlice(types.ControlHint, bytes.slice());
    for (hints) |hint| {
        if (hint.control_type >= @max(1, type_count)) {
            return refuse("a hint of type {d}", .{hint.control_type});
        }
        if (!std.math.isFinite(hint.scale)) return refuse("a hint's scale of {d}", .{hint.scale});
        if (hint.image.len != 3 * (pixels orelse 0)) {
            return refuse("a hint of {d} bytes", .{hint.image.len});
        }
    }
    return null;
}

/// IP-Adapters, with the pixels of their images or without; `networksOf` has seen the networks.
fn ipAdaptersOf(networks: Bytes, uses: Bytes, has_pixels: bool) ?Status {
    const all: []align(1) const types.Network =
        std.mem.bytesAsSlice(types.Network, networks.slice());
    const use_bytes = @sizeOf(types.IpAdapterUse);
    if (uses.len % use_bytes != 0 or uses.len / use_bytes > types.ip_adapter_count_max) {
        return refuse("IP-Adapters outside 0 to {d}", .{types.ip_adapter_count_max});
    }
    const list: []align(1) const types.IpAdapterUse =
        std.mem.bytesAsSlice(types.IpAdapterUse, uses.slice());
    for (list) |use| {
        if (@max(use.adapter_index, use.encoder_index) >= all.len) {
            return refuse("an IP-Adapter without a network", .{});
        }
        const adapter, const encoder = .{ all[use.adapter_index], all[use.encoder_index] };
        if (adapter.kind != .ip_adapter or encoder.kind != .clip_vision) {
            return refuse("an IP-Adapter of another network", .{});
        }
        const config = std.mem.bytesToValue(configs.IpAdapterConfig, adapter.config.slice());
        const seen = std.mem.bytesToValue(configs.ClipVisionConfig, encoder.config.slice());
        if (!config.reads(&seen)) return refuse("an IP-Adapter with another image encoder", .{});
        const image_count = use.scales.len / @sizeOf(f32);
        if (use.scales.len % @sizeOf(f32) != 0 or
            image_count < 1 or image_count > types.ip_image_count_max)
        {
            return refuse("{d} images of an IP-Adapter", .{image_count});
        }
        const scales: []align(1) const f32 = std.mem.bytesAsSlice(f32, use.scales.slice());
        for (scales) |scale| {
            if (!std.math.isFinite(scale)) return refuse("an IP-Adapter's scale", .{});
        }
        const per_image = @as(u64, seen.patchCount()) * seen.patchValues() * @sizeOf(f32);
        if (use.patches.len != if (has_pixels) per_image * image_count else 0) {
            return refuse("{d} bytes of an IP-Adapter's images", .{use.patches.len});
        }
    }
    return null;
}

fn upscale(r: *const Request) ?Status {
    const pixel_count = @as(usize, r.upscale_rows) * r.upscale_width;
    if (upscaling(r.networks, r)) |status| return status;
    if (r.image.len != 3 * pixel_count) return refuse("an image of {d} bytes", .{r.image.len});
    return null;
}

/// The network that enlarges an image, and the sizes of a request or of the options.
fn upscaling(networks: Bytes, r: anytype) ?Status {
    const all: []align(1) const types.Network =
        std.mem.bytesAsSlice(types.Network, networks.slice());
    if (all.len != 1 or all[0].kind != .upscaler) return refuse("an image without upscaler", .{});
    const side_max = types.upscale_side_max;
    for ([_]u32{ r.upscale_rows, r.upscale_width }) |side| {
        if (side < 1 or side > side_max) return refuse("an image with a side of {d}", .{side});
    }
    const tile_min, const tile_max = types.upscale_tile_range;
    if (r.upscale_tile < tile_min or r.upscale_tile > tile_max) {
        return refuse("tiles of {d}; {d} to {d}", .{ r.upscale_tile, tile_min, tile_max });
    }
    return null;
}

fn image(config: *const models.ModelConfig, r: *const Request) ?Status {
    if (source(config, r)) |status| return status;
    const step_bytes = @sizeOf(backend.StepCoefficients);
    if (r.steps.len == 0 or r.steps.len % step_bytes != 0 or
        r.steps.len / step_bytes > step_count_max)
    {
        return refuse("steps outside 1 to {d}", .{step_count_max});
    }
    if (r.seeds.len == 0 or r.seeds.len % 8 != 0 or r.seeds.len / 8 > image_count_max) {
        return refuse("images outside 1 to {d}", .{image_count_max});
    }
    const step_count = r.steps.len / step_bytes;
    if (r.step_reuse.len != 0 and r.step_reuse.len != step_count * @sizeOf(pipeline.StepReuse)) {
        return refuse("reuse that is not one per step", .{});
    }
    const mix_bytes: u64 = step_count * 8;
    const decides = isAdaptive(r) or r.warmup_threshold > 0;
    const needs_mixes = r.preview_steps != 0 or decides;
    if (r.clean_mixes.len != if (needs_mixes) mix_bytes else 0) {
        return refuse("predicted images without two factors a step", .{});
    }
    const image_count = r.seeds.len / 8;
    const combined_count = image_count * (@max(2, r.branch_count) - 1);
    if (r.branch_count > 1 and r.guidance_scales.len != combined_count * 4) {
        return refuse("guidance scales that are not one per prompt", .{});
    }
    const prompt_count = r.prompts.len / @sizeOf(Tokens);
    const set_count = prompt_count / combined_count;
    if (set_count < 1 or set_count > types.prompt_set_count_max or
        prompt_count % combined_count != 0)
    {
        return refuse("prompts that are not one per image", .{});
    }
    if (stepSets(r, set_count)) |status| return status;
    if (reuse(config, r)) |status| return status;
    if (noise(config, r)) |status| return status;
    const negative_count = if (r.branch_count > 1) image_count * set_count else 0;
    const alike_count = if (r.branch_count > 2) set_count else prompt_count;
    if (promptSets(config, r, prompt_count, alike_count)) |status| return status;
    if (prompts(config, r, r.negatives, negative_count, false)) |status| return status;
    return emptyPrompt(config, r);
}

/// The image to start from and its mask.
fn source(config: *const models.ModelConfig, r: *const Request) ?Status {
    const factor: usize = config.vae.factor();
    const positions = @as(usize, r.latent_rows) * r.latent_width;
    const pixels = positions * factor * factor;
    if (config.readsMask() and r.mask.len == 0) {
        return refuse("an inpainting model without a mask", .{});
    }
    const latent_bytes = r.seeds.len / 8 * positions * config.vae.latent_channels * 4;
    if (r.latents.len != 0 and r.latents.len != latent_bytes) {
        return refuse("latents of {d} bytes, not {d}", .{ r.latents.len, latent_bytes });
    }
    if (r.latents.len == 0 and r.noise_skip != 0) return refuse("noise of no run", .{});
    if (r.latents.len != 0 and r.image.len != 0 and r.mask.len == 0) {
        return refuse("latents and an image without a mask", .{});
    }
    if (r.image.len == 0) {
        if (r.mask.len > 0) return refuse("a mask without an image", .{});
        if (r.latents.len == 0 and r.image_scale != 0) return refuse("no image to start from", .{});
    } else if (r.image.len != pixels * 3) {
        return refuse("an image of {d} bytes for {d} pixels", .{ r.image.len, pixels });
    }
    if (r.mask.len != 0 and r.mask.len != pixels) {
        return refuse("a mask of {d} bytes for {d} pixels", .{ r.mask.len, pixels });
    }
    return masks(config, r, positions);
}

/// The mask of the latent, and where it is mixed in.
fn masks(config: *const models.ModelConfig, r: *const Request, positions: usize) ?Status {
    const has_mask = r.mask.len > 0;
    if (r.latent_mask.len != if (has_mask) positions * 4 else 0) {
        return refuse("a mask of the latent of {d} bytes", .{r.latent_mask.len});
    }
    const is_read = has_mask and config.readsMask();
    if (r.condition_mask.len != if (is_read) positions * 4 else 0) {
        return refuse("a mask to read of {d} bytes", .{r.condition_mask.len});
    }
    const step_count = r.steps.len / @sizeOf(backend.StepCoefficients);
    if (r.mask_steps.len == 0 and (is_read or !has_mask)) return null;
    if (is_read and r.image_scale == 0) return refuse("what a mask keeps of no image", .{});
    if (r.mask_steps.len == step_count * @sizeOf(pipeline.MaskStep) and has_mask) return null;
    return refuse("a mask without what each step does with it", .{});
}

fn noise(config: *const models.ModelConfig, r: *const Request) ?Status {
    const image_count = r.seeds.len / 8;
    if (r.noise_places.len != 0 and r.noise_places.len != image_count * @sizeOf(u32)) {
        return refuse("places that are not one per image", .{});
    }
    const places: []align(1) const u32 = std.mem.bytesAsSlice(u32, r.noise_places.slice());
    if (r.noise_batch > image_count_max) return refuse("noise of {d} images", .{r.noise_batch});
    for (places) |place| if (place >= @max(1, r.noise_batch)) {
        return refuse("the noise of image {d} of {d}", .{ place, r.noise_batch });
    };
    if (r.variation_seeds.len != if (r.variation_strength == 0) @as(u64, 0) else r.seeds.len) {
        return refuse("variation seeds that are not one per image", .{});
    }
    if (r.variation_strength > 0 and r.noise_batch > 1) return refuse("a batch's variation", .{});
    const is_brownian = r.noise_source == .brownian;
    const positions = @as(u64, r.latent_rows) * r.latent_width;
    // torch fills tensors 16 numbers at a time.
    if ((is_brownian or r.noise_batch > 1) and positions * config.vae.latent_channels % 16 != 0) {
        return refuse("parts of noise that are no multiple of 16 numbers", .{});
    }
    if (!is_brownian) return null;
    const level_max = random.brownian.level_max;
    if (!(0 <= r.brownian_min and r.brownian_min < r.brownian_max and
        r.brownian_max <= level_max))
    {
        return refuse("a Brownian path from {d} to {d}", .{ r.brownian_min, r.brownian_max });
    }
    const steps: []align(1) const backend.StepCoefficients =
        std.mem.bytesAsSlice(backend.StepCoefficients, r.steps.slice());
    for (steps) |step| for ([_]f32{ step.noise_from, step.noise_to }) |level| {
        if (!(0 <= level and level <= level_max)) return refuse("noise of level {d}", .{level});
    };
    return null;
}

/// The prompts of images, of which so many side by side have the same number of chunks.
fn promptSets(
    config: *const models.ModelConfig,
    r: *const Request,
    prompt_count: usize,
    alike_count: usize,
) ?Status {
    const bytes = alike_count * @sizeOf(Tokens);
    for (0..prompt_count / alike_count) |i| {
        const some: Bytes = .{ .address = r.prompts.address + i * bytes, .len = bytes };
        if (prompts(config, r, some, alike_count, true)) |status| return status;
    }
    if (r.prompts.len == prompt_count * @sizeOf(Tokens)) return null;
    return refuse("prompts that are not one per image", .{});
}

/// One set per step.
fn stepSets(r: *const Request, set_count: usize) ?Status {
    const step_count = r.steps.len / @sizeOf(backend.StepCoefficients);
    if (r.step_sets.len == 0) {
        return if (set_count == 1) null else refuse("sets of prompts that no step names", .{});
    }
    if (r.step_sets.len != step_count * 4) return refuse("sets that are not one per step", .{});
    const sets: []align(1) const u32 = std.mem.bytesAsSlice(u32, r.step_sets.slice());
    for (sets) |set| if (set >= set_count) return refuse("set {d} of {d}", .{ set, set_count });
    return null;
}

fn isAdaptive(r: *const Request) bool {
    const list: []align(1) const pipeline.StepReuse =
        std.mem.bytesAsSlice(pipeline.StepReuse, r.step_reuse.slice());
    for (list) |each| if (each.deep == .adaptive) return true;
    return false;
}

/// What steps reuse is kept by a step before them. Kept outputs of cross-attention are those of the
/// prompts alone.
fn reuse(config: *const models.ModelConfig, r: *const Request) ?Status {
    const skip_count = unet_reuse.skipCount(&config.unet);
    if (r.outer_skips > skip_count) return refuse("outer blocks of {d} skips", .{r.outer_skips});
    if (!(r.reuse_threshold >= 0)) return refuse("a change of {d}", .{r.reuse_threshold});
    if (r.step_reuse.len == 0) return null;
    const steps: []align(1) const backend.StepCoefficients =
        std.mem.bytesAsSlice(backend.StepCoefficients, r.steps.slice());
    const list: []align(1) const pipeline.StepReuse =
        std.mem.bytesAsSlice(pipeline.StepReuse, r.step_reuse.slice());
    var is_kept = false;
    for (steps, list, 0..) |step, each, i| {
        if (each.deep != .full and r.outer_skips == 0) {
            return refuse("step {d} without outer blocks", .{i});
        }
        const is_guided = r.branch_count > 1 and step.guidance_factor != 0;
        if (each.cross == .reuse and (!is_kept or is_guided)) {
            return refuse("step {d} reuses cross-attention that no step kept", .{i});
        }
        const deals_anew = r.measures_balance != 0 or r.balance_step > 0;
        if (each.cross == .keep and deals_anew) {
            return refuse("step {d} keeps cross-attention of rows that are dealt anew", .{i});
        }
        is_kept = is_kept or each.cross == .keep;
    }
    return null;
}

/// It has one chunk, and is there where weights interpolate from it.
fn emptyPrompt(config: *const models.ModelConfig, r: *const Request) ?Status {
    const is_read = r.emphasis == .interpolate;
    if (!is_read) return if (r.empty.len == 0) null else refuse("an empty prompt", .{});
    return prompts(config, r, r.empty, 1, true);
}

/// `Tokens`, so many, all with the same number of chunks; negative prompts may be absent.
fn prompts(
    config: *const models.ModelConfig,
    r: *const Request,
    bytes: Bytes,
    prompt_count: usize,
    are_required: bool,
) ?Status {
    if (bytes.len != prompt_count * @sizeOf(Tokens)) {
        return refuse("prompts that are not one per image", .{});
    }
    const all: []align(1) const Tokens = std.mem.bytesAsSlice(Tokens, bytes.slice());
    var id_bytes: ?u64 = null;
    for (all) |one| {
        if (!are_required and one.present == 0) continue;
        if (tokens(config, r, one)) |status| return status;
        const len = @max(one.ids.len, one.ids_2.len);
        if (len != id_bytes orelse len) return refuse("prompts of different lengths", .{});
        id_bytes = len;
    }
    return null;
}

fn tokens(config: *const models.ModelConfig, r: *const Request, t: Tokens) ?Status {
    const count = config.text.tokenCount();
    if (t.end_index >= count) return refuse("a prompt without an end token", .{});
    const chunk_bytes = @as(u64, count) * 4;
    const text = &config.text;
    const encoders = [_]*const configs.ClipConfig{ &text.text_encoder, &text.text_encoder_2 };
    const injections = [_]Bytes{ r.injected, r.injected_2 };
    const weights = [_]Bytes{ t.weights, t.weights_2 };
    const id_bytes = @max(t.ids.len, t.ids_2.len);
    for ([_]Bytes{ t.ids, t.ids_2 }, weights, injections, encoders) |
        ids,
        weighed,
        injected,
        encoder,
    | {
        if (encoder.is_present == 0) continue;
        if (t.clip_skip > encoder.layer_count - 1) {
            return refuse("{d} layers fewer of {d}", .{ t.clip_skip, encoder.layer_count });
        }
        if (t.clip_skip > 0 and encoder.final_norm != 0) {
            return refuse("layers fewer before a final norm", .{});
        }
        const row_bytes = @as(u64, encoder.hidden_size) * 4;
        if (injected.len % row_bytes != 0) return refuse("embeddings of another width", .{});
        const id_count = encoder.vocab_size + injected.len / row_bytes;
        if (ids.len != id_bytes or ids.len == 0 or ids.len % chunk_bytes != 0 or
            ids.len / chunk_bytes > types.chunk_count_max)
        {
            return refuse("a prompt that is not 1 to {d} times {d} tokens long", .{
                types.chunk_count_max, count,
            });
        }
        if (weighed.len != 0 and weighed.len != ids.len) {
            return refuse("weights that are not one per token", .{});
        }
        const factors: []align(1) const f32 = std.mem.bytesAsSlice(f32, weighed.slice());
        for (factors) |factor| {
            if (!std.math.isFinite(factor)) return refuse("a weight of {d}", .{factor});
        }
        const values: []align(1) const i32 = std.mem.bytesAsSlice(i32, ids.slice());
        for (values) |id| {
            if (id < 0 or id >= id_count) return refuse("token {d}, which is not in " ++
                "the vocabulary of {d}", .{ id, id_count });
        }
    }
    return null;
}
