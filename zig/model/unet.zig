//! UNet2DConditionModel as SDXL configures it ("text_time" conditioning). Reads like diffusers'
//! forward; what depends on the prompt alone is computed once by `condition`.
//! Source: diffusers models/unets/unet_2d_condition.py, unet_2d_blocks.py.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const Exchange = @import("../patch/exchange.zig").Exchange;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const UnetConfig = @import("config.zig").UnetConfig;
const resnets = @import("resnet.zig");
const ResnetBlock2D = resnets.ResnetBlock2D;
const transformers = @import("transformer.zig");
const Transformer2D = transformers.Transformer2D;

/// Skip connections that can be alive at once: (layers + 1) per level.
const skip_count_max = 128;

/// What the prompt and the sizes say to every step.
pub const Conditioning = struct {
    /// (batch, 1, 1, time_embed_dim): pooled prompt and the six sizes, embedded.
    addition: Tensor,
    /// Keys and values of every cross-attention.
    keys_values: []Tensor,
};

pub const UNet = struct {
    config: UnetConfig,
    conv_in: layers.Conv3x3,
    time_embedding: TimestepEmbedding,
    add_embedding: TimestepEmbedding,
    down_blocks: []DownBlock,
    mid_block: MidBlock,
    up_blocks: []UpBlock,
    conv_norm_out: layers.GroupNorm,
    conv_out: layers.Conv3x3,
    context_slot_count: u32,
    /// How often `forward` ran over the dry-run device.
    dry_run_count: *std.atomic.Value(u32),

    pub fn load(arena: Allocator, view: View, config: *const UnetConfig) weights.Error!UNet {
        var slots: transformers.ContextSlots = .{};
        const dry_run_count = try arena.create(std.atomic.Value(u32));
        dry_run_count.* = .init(0);
        const loader: Loader = .{ .arena = arena, .config = config, .slots = &slots };
        const levels = config.level_count;
        const first = config.block_out_channels[0];
        const embed = config.timeEmbedDim();
        const down_blocks = try arena.alloc(DownBlock, levels);
        for (down_blocks, 0..) |*block, i| {
            block.* = try loader.downBlock(try view.index("down_blocks", i), i);
        }
        const mid_block = try loader.midBlock(try view.at("mid_block"));
        const up_blocks = try arena.alloc(UpBlock, levels);
        for (up_blocks, 0..) |*block, i| {
            block.* = try loader.upBlock(try view.index("up_blocks", i), i);
        }
        return .{
            .config = config.*,
            .conv_in = try .load(try view.at("conv_in"), first, config.in_channels),
            .time_embedding = try .load(try view.at("time_embedding"), embed, first),
            .add_embedding = try .load(
                try view.at("add_embedding"),
                embed,
                config.addition_input_dim,
            ),
            .down_blocks = down_blocks,
            .mid_block = mid_block,
            .up_blocks = up_blocks,
            .conv_norm_out = try .load(
                try view.at("conv_norm_out"),
                first,
                config.norm_groups,
                config.norm_epsilon,
            ),
            .conv_out = try .load(try view.at("conv_out"), config.out_channels, first),
            .context_slot_count = slots.count,
            .dry_run_count = dry_run_count,
        };
    }

    /// Once per prompt. `prompt_embeds` (batch, 1, tokens, cross_attention_dim), `pooled`
    /// (batch, 1, 1, projection), `time_ids` (batch * 6, 1, 1, 1): original height and width,
    /// crop top and left, target height and width, in pixels. `keys_values` must hold
    /// `context_slot_count` tensors.
    pub fn condition(
        model: *const UNet,
        ctx: Context,
        prompt_embeds: Tensor,
        pooled: Tensor,
        time_ids: Tensor,
        keys_values: []Tensor,
    ) Error!Conditioning {
        assert(keys_values.len == model.context_slot_count);
        const batch = pooled.shape.batch;
        const c = &model.config;
        const dim = c.addition_time_embed_dim;
        const sines = try ctx.b.sinusoidalEmbedding(
            time_ids,
            dim,
            c.flip_sin_to_cos != 0,
            c.frequency_shift,
        );
        defer ctx.b.free(sines);
        // Six embeddings of one image lie side by side: the same bytes, as one row.
        const sizes: Tensor = .{
            .address = sines.address,
            .shape = .vector(batch, 6 * dim),
            .dtype = sines.dtype,
        };
        const joined = try ctx.b.concatChannels(&.{ pooled, sizes });
        const addition = try model.add_embedding.forward(ctx, joined);
        ctx.b.free(joined);
        for (model.down_blocks) |block| {
            for (block.attentions) |attention| {
                try promptKeysValues(ctx, attention, prompt_embeds, keys_values);
            }
        }
        try promptKeysValues(ctx, model.mid_block.attention, prompt_embeds, keys_values);
        for (model.up_blocks) |block| {
            for (block.attentions) |attention| {
                try promptKeysValues(ctx, attention, prompt_embeds, keys_values);
            }
        }
        return .{ .addition = addition, .keys_values = keys_values };
    }

    /// sample (batch, rows, width, in_channels), timestep (batch, 1, 1, 1) to the model's output of
    /// the same rows and width. `halo` are the sample's rows above and below, which every rank
    /// has, since it keeps the whole latent.
    pub fn forward(
        model: *const UNet,
        ctx: Context,
        sample: Tensor,
        halo: Exchange.HaloRows,
        timestep: Tensor,
        conditioning: Conditioning,
    ) Error!Tensor {
        if (ctx.b.device == .plan) _ = model.dry_run_count.fetchAdd(1, .monotonic);
        const time = try model.embedTime(ctx, timestep, conditioning.addition);
        defer ctx.b.free(time);
        const prompt = conditioning.keys_values;
        var skips: Skips = .{};
        var hidden = try model.conv_in.forwardBetween(ctx, sample, halo, .{});
        skips.push(hidden);
        for (model.down_blocks) |block| {
            hidden = try block.forward(ctx, hidden, time, prompt, &skips);
        }
        // The last skip and the hidden state are one tensor: the mid block only reads it.
        hidden = try model.mid_block.forward(ctx, hidden, time, prompt);
        for (model.up_blocks) |block| {
            hidden = try block.forward(ctx, hidden, time, prompt, &skips);
        }
        assert(skips.count == 0);
        const normed = try model.conv_norm_out.forward(ctx, hidden, .silu);
        ctx.b.free(hidden);
        defer ctx.b.free(normed);
        return model.conv_out.forward(ctx, normed, .{});
    }

    // --- internal ---

    /// SiLU is applied here once instead of in every resnet.
    fn embedTime(
        model: *const UNet,
        ctx: Context,
        timestep: Tensor,
        addition: Tensor,
    ) Error!Tensor {
        const c = &model.config;
        const sines = try ctx.b.sinusoidalEmbedding(
            timestep,
            c.block_out_channels[0],
            c.flip_sin_to_cos != 0,
            c.frequency_shift,
        );
        const time = try model.time_embedding.forward(ctx, sines);
        ctx.b.free(sines);
        const sum = try ctx.b.add(time, addition);
        ctx.b.free(time);
        defer ctx.b.free(sum);
        return ctx.b.activate(sum, .silu);
    }
};

/// linear, SiLU, linear.
const TimestepEmbedding = struct {
    linear_1: layers.Linear,
    linear_2: layers.Linear,

    fn load(view: View, out: u32, in: u32) weights.Error!TimestepEmbedding {
        return .{
            .linear_1 = try .load(try view.at("linear_1"), out, in, .bias),
            .linear_2 = try .load(try view.at("linear_2"), out, out, .bias),
        };
    }

    fn forward(embedding: TimestepEmbedding, ctx: Context, x: Tensor) Error!Tensor {
        const hidden = try embedding.linear_1.forward(ctx, x, .{ .activation = .silu });
        defer ctx.b.free(hidden);
        return embedding.linear_2.forward(ctx, hidden, .{});
    }
};

/// DownBlock2D, or CrossAttnDownBlock2D where there are attentions.
const DownBlock = struct {
    resnets: []ResnetBlock2D,
    attentions: []Transformer2D,
    downsampler: ?resnets.Downsample2D,

    /// `x` is the newest skip and stays alive; so does every state made here, as a skip.
    fn forward(
        block: DownBlock,
        ctx: Context,
        x: Tensor,
        time: Tensor,
        prompt: []const Tensor,
        skips: *Skips,
    ) Error!Tensor {
        var hidden = x;
        for (block.resnets, 0..) |resnet, i| {
            hidden = try resnet.forward(ctx, hidden, time);
            if (block.attentions.len > 0) {
                const attended = try block.attentions[i].forward(ctx, hidden, prompt);
                ctx.b.free(hidden);
                hidden = attended;
            }
            skips.push(hidden);
        }
        if (block.downsampler) |downsampler| {
            hidden = try downsampler.forward(ctx, hidden);
            skips.push(hidden);
        }
        return hidden;
    }
};

/// UNetMidBlock2DCrossAttn.
const MidBlock = struct {
    resnet_0: ResnetBlock2D,
    attention: Transformer2D,
    resnet_1: ResnetBlock2D,

    fn forward(
        block: MidBlock,
        ctx: Context,
        x: Tensor,
        time: Tensor,
        prompt: []const Tensor,
    ) Error!Tensor {
        const first = try block.resnet_0.forward(ctx, x, time);
        const attended = try block.attention.forward(ctx, first, prompt);
        ctx.b.free(first);
        defer ctx.b.free(attended);
        return block.resnet_1.forward(ctx, attended, time);
    }
};

/// UpBlock2D, or CrossAttnUpBlock2D where there are attentions.
const UpBlock = struct {
    resnets: []ResnetBlock2D,
    attentions: []Transformer2D,
    upsampler: ?resnets.Upsample2D,

    /// Takes `x` and one skip per resnet; all are freed.
    fn forward(
        block: UpBlock,
        ctx: Context,
        x: Tensor,
        time: Tensor,
        prompt: []const Tensor,
        skips: *Skips,
    ) Error!Tensor {
        var hidden = x;
        for (block.resnets, 0..) |resnet, i| {
            const skip = skips.pop();
            const joined = try ctx.b.concatChannels(&.{ hidden, skip });
            ctx.b.free(hidden);
            ctx.b.free(skip);
            hidden = try resnet.forward(ctx, joined, time);
            ctx.b.free(joined);
            if (block.attentions.len > 0) {
                const attended = try block.attentions[i].forward(ctx, hidden, prompt);
                ctx.b.free(hidden);
                hidden = attended;
            }
        }
        if (block.upsampler) |upsampler| {
            const larger = try upsampler.forward(ctx, hidden);
            ctx.b.free(hidden);
            hidden = larger;
        }
        return hidden;
    }
};

const Skips = struct {
    list: [skip_count_max]Tensor = undefined,
    count: u32 = 0,

    fn push(skips: *Skips, x: Tensor) void {
        skips.list[skips.count] = x;
        skips.count += 1;
    }

    fn pop(skips: *Skips) Tensor {
        skips.count -= 1;
        return skips.list[skips.count];
    }
};

fn promptKeysValues(
    ctx: Context,
    transformer: Transformer2D,
    prompt_embeds: Tensor,
    keys_values: []Tensor,
) Error!void {
    for (transformer.transformer_blocks) |block| {
        keys_values[block.context_slot] = try block.attn2.keysValues(ctx, prompt_embeds);
    }
}

/// Which channels meet where: the one place that knows how levels, skips and blocks line up.
const Loader = struct {
    arena: Allocator,
    config: *const UnetConfig,
    slots: *transformers.ContextSlots,

    fn downBlock(loader: Loader, view: View, i: usize) weights.Error!DownBlock {
        const c = loader.config;
        const out = c.block_out_channels[i];
        const list = try loader.arena.alloc(ResnetBlock2D, c.layers_per_block[i]);
        for (list, 0..) |*resnet, j| {
            const in = if (j > 0) out else c.block_out_channels[i -| 1];
            resnet.* = try loader.loadResnet(try view.index("resnets", j), in, out);
        }
        const is_last = i + 1 == c.level_count;
        const padding = resnets.Downsample2D.padding_unet;
        const block_count = c.down_transformer_layers[i];
        return .{
            .resnets = list,
            .attentions = try loader.loadAttentions(view, i, block_count, list.len),
            .downsampler = if (is_last)
                null
            else
                try .load(try view.index("downsamplers", 0), out, padding, 1),
        };
    }

    fn midBlock(loader: Loader, view: View) weights.Error!MidBlock {
        const c = loader.config;
        const level = c.level_count - 1;
        const channels = c.block_out_channels[level];
        return .{
            .resnet_0 = try loader.loadResnet(try view.index("resnets", 0), channels, channels),
            .attention = try loader.loadAttention(
                try view.index("attentions", 0),
                level,
                c.mid_transformer_layers,
            ),
            .resnet_1 = try loader.loadResnet(try view.index("resnets", 1), channels, channels),
        };
    }

    fn upBlock(loader: Loader, view: View, i: usize) weights.Error!UpBlock {
        const c = loader.config;
        const level = c.level_count - 1 - i;
        const out = c.block_out_channels[level];
        // From the block before: the level below, or for the first the mid block.
        const previous = c.block_out_channels[@min(level + 1, c.level_count - 1)];
        const list = try loader.arena.alloc(ResnetBlock2D, c.layers_per_block[level] + 1);
        for (list, 0..) |*resnet, j| {
            const in = if (j == 0) previous else out;
            // Skips of this level, but the last, which came from above (or from conv_in).
            const skip = if (j + 1 == list.len) c.block_out_channels[level -| 1] else out;
            resnet.* = try loader.loadResnet(try view.index("resnets", j), in + skip, out);
        }
        const is_last = level == 0;
        const block_count = c.up_transformer_layers[i];
        return .{
            .resnets = list,
            .attentions = try loader.loadAttentions(view, level, block_count, list.len),
            .upsampler = if (is_last) null else try .load(try view.index("upsamplers", 0), out, 1),
        };
    }

    fn loadResnet(loader: Loader, view: View, in: u32, out: u32) weights.Error!ResnetBlock2D {
        return .load(view, .{
            .in_channels = in,
            .out_channels = out,
            .time_embed_dim = loader.config.timeEmbedDim(),
            .norm_groups = loader.config.norm_groups,
            .epsilon = loader.config.norm_epsilon,
        });
    }

    fn loadAttentions(
        loader: Loader,
        view: View,
        level: usize,
        block_count: u32,
        count: usize,
    ) weights.Error![]Transformer2D {
        if (block_count == 0) return &.{};
        const list = try loader.arena.alloc(Transformer2D, count);
        for (list, 0..) |*attention, j| {
            attention.* = try loader.loadAttention(
                try view.index("attentions", j),
                level,
                block_count,
            );
        }
        return list;
    }

    fn loadAttention(
        loader: Loader,
        view: View,
        level: usize,
        block_count: u32,
    ) weights.Error!Transformer2D {
        const c = loader.config;
        return .load(loader.arena, view, .{
            .channels = c.block_out_channels[level],
            .head_count = c.head_counts[level],
            .block_count = block_count,
            .cross_attention_dim = c.cross_attention_dim,
            .norm_groups = c.norm_groups,
            .slots = loader.slots,
        });
    }
};
