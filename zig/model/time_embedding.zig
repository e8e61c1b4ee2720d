//! The time embedding of a step, and what every resnet's own layer makes of it: one product for all
//! of them where the device can.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Backend = @import("../backend.zig").Backend;
const Tensor = @import("../tensor.zig").Tensor;
const weights = @import("../weights.zig");
const View = weights.View;
const layers = @import("layers.zig");
const Context = layers.Context;
const Error = layers.Error;
const UnetConfig = @import("config.zig").UnetConfig;
const unet_blocks = @import("unet_blocks.zig");
const resnets = @import("resnet.zig");

/// Of one `linearRows`; a network of more projects in each resnet.
const projection_count_max = 32;

/// Two linear layers with SiLU between them.
pub const TimestepEmbedding = struct {
    linear_1: layers.Linear,
    linear_2: layers.Linear,

    pub fn load(view: View, out: u32, in: u32) weights.Error!TimestepEmbedding {
        return .{
            .linear_1 = try .load(try view.at("linear_1"), out, in, .bias),
            .linear_2 = try .load(try view.at("linear_2"), out, out, .bias),
        };
    }

    pub fn forward(embedding: TimestepEmbedding, ctx: Context, x: Tensor) Error!Tensor {
        const hidden = try embedding.linear_1.forward(ctx, x, .{ .activation = .silu });
        defer ctx.b.free(hidden);
        return embedding.linear_2.forward(ctx, hidden, .{});
    }
};

/// The layers of the resnets for the time embedding, by their `embedding_index`.
pub const Projections = struct {
    weights: []const *const weights.Weight,
    biases: []const *const weights.Weight,

    /// Numbers the resnets.
    pub fn list(
        arena: Allocator,
        down_blocks: []unet_blocks.DownBlock,
        mid_block: ?*unet_blocks.MidBlock,
        up_blocks: []unet_blocks.UpBlock,
    ) Allocator.Error!Projections {
        var all: std.ArrayList(*resnets.ResnetBlock2D) = .empty;
        for (down_blocks) |block| for (block.resnets) |*resnet| try all.append(arena, resnet);
        if (mid_block) |block| {
            try all.append(arena, &block.resnet_0);
            if (block.attended) |*rest| try all.append(arena, &rest.resnet_1);
        }
        for (up_blocks) |block| for (block.resnets) |*resnet| try all.append(arena, resnet);
        const matrices = try arena.alloc(*const weights.Weight, all.items.len);
        const biases = try arena.alloc(*const weights.Weight, all.items.len);
        for (all.items, matrices, biases, 0..) |resnet, *matrix, *bias, i| {
            resnet.embedding_index = @intCast(i);
            matrix.* = resnet.time_emb_proj.?.weight;
            bias.* = resnet.time_emb_proj.?.bias.?;
        }
        return .{ .weights = matrices, .biases = biases };
    }
};

/// Of one step. Must not move once it is computed.
pub const StepTime = struct {
    /// Time embedding after SiLU, (batch, 1, 1, time_embed_dim): applied once here instead of in
    /// every resnet.
    vector: Tensor,
    projected: [projection_count_max]Tensor = undefined,
    projected_count: usize = 0,
    memory: ?Tensor = null,

    pub fn compute(
        time: *StepTime,
        ctx: Context,
        config: *const UnetConfig,
        time_embedding: TimestepEmbedding,
        projections: Projections,
        timestep: Tensor,
        addition: Tensor,
    ) Error!void {
        const sines = try ctx.b.sinusoidalEmbedding(
            timestep,
            config.block_out_channels[0],
            config.flip_sin_to_cos != 0,
            config.frequency_shift,
        );
        const embedded = try time_embedding.forward(ctx, sines);
        ctx.b.free(sines);
        const sum = try ctx.b.add(embedded, addition);
        ctx.b.free(embedded);
        time.* = .{ .vector = try ctx.b.activate(sum, .silu) };
        ctx.b.free(sum);
        const count = projections.weights.len;
        if (count > projection_count_max) return;
        if (!ctx.b.areRowsOneKernel(projections.weights)) return;
        time.projected_count = count;
        time.memory = try ctx.b.linearRows(
            time.projected[0..count],
            time.vector,
            projections.weights,
            projections.biases,
        );
    }

    pub fn embedding(time: *const StepTime) resnets.TimeEmbedding {
        return .{ .vector = time.vector, .projected = time.projected[0..time.projected_count] };
    }

    pub fn free(time: *const StepTime, b: Backend) void {
        if (time.memory) |tensor| b.free(tensor);
        b.free(time.vector);
    }
};
