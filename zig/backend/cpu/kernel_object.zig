//! One object file: all kernels for the instruction set it is compiled for, behind one symbol. The
//! build compiles it once per instruction set and names the symbol; `dispatch.zig` chooses.

const arguments = @import("arguments.zig");
const attention = @import("kernels/attention.zig");
const change = @import("kernels/change.zig");
const convolution = @import("kernels/convolution.zig");
const elementwise = @import("kernels/elementwise.zig");
const linear = @import("kernels/linear.zig");
const merge = @import("kernels/merge.zig");
const norm = @import("kernels/norm.zig");
const product = @import("kernels/product.zig");
const sampler = @import("kernels/sampler.zig");
const tile = @import("kernels/tile.zig");
const v = @import("kernels/vector.zig");
const winograd = @import("kernels/winograd.zig");

/// Maximum work of one task: about 10 ms on an ordinary core with this instruction set.
const task_flops_max: usize = switch (v.lanes) {
    16 => 2000 << 20,
    8 => 1000 << 20,
    else => 200 << 20,
};

const kernels: arguments.Kernels = .{
    .workspace_bytes = @max(
        product.workspace_bytes,
        attention.workspace_bytes,
        norm.workspace_bytes,
        merge.workspace_bytes,
    ),
    .limits = .{
        .tile_rows = tile.rows_max,
        .tile_columns = tile.columns_max,
        .column_block_max = product.column_block_max,
        .task_flops_max = task_flops_max,
    },
    .attention_elements_max = attention.elements_max,
    .query_block_max = attention.query_block_max,
    .key_block_max = attention.key_block_max,
    .head_size_max = attention.head_size_max,
    .channel_count_max = norm.channel_count_max,
    .linear = &linear.linear,
    .linear_few_rows = &linear.linearFewRows,
    .convolution = &convolution.convolution,
    .winograd_input = &winograd.transformInput,
    .winograd_multiply = &winograd.multiply,
    .winograd_output = &winograd.transformOutput,
    .attention = &attention.attention,
    .group_norm_stats = &norm.groupNormStats,
    .group_norm_apply = &norm.groupNormApply,
    .layer_norm = &norm.layerNorm,
    .activate = &elementwise.activate,
    .prelu = &elementwise.prelu,
    .geglu = &elementwise.geglu,
    .add = &elementwise.add,
    .scale = &elementwise.scale,
    .copy = &elementwise.copy,
    .concat = &elementwise.concat,
    .check_finite = &elementwise.checkFinite,
    .quantize_change = &change.quantizeChange,
    .apply_change = &change.applyChange,
    .embed_tokens = &elementwise.embedTokens,
    .latent_step = &sampler.latentStep,
    .to_rgb = &sampler.toRgb,
    .gather = &merge.gather,
    .merge = &merge.merge,
};

comptime {
    @export(&kernels, .{ .name = @import("options").symbol });
}
