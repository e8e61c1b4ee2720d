//! The ABI between library and kernels: C structs of plain pointers and sizes, and the function
//! table that every instruction set exports. Both sides compile this file, each for its own target,
//! so nothing in it may depend on the instruction set.

/// Runs task number `task` of the operation that `args` describes. `workspace` is memory of the
/// calling thread, `Kernels.workspace_bytes` long. Kernels allocate nothing.
pub const Kernel = *const fn (
    args: *const anyopaque,
    task: usize,
    workspace: [*]align(64) u8,
) callconv(.c) void;

/// What decides how a product is cut into tasks.
pub const BlockLimits = extern struct {
    /// Rows and columns of the register tile.
    tile_rows: usize,
    tile_columns: usize,
    /// The most columns of a block of weights.
    column_block_max: usize,
    /// Maximum work of one task, so that cancelling is quick: about 10 ms.
    task_flops_max: usize,
};

/// One instruction set: the sizes that the caller needs to split work into tasks, and the kernels.
pub const Kernels = extern struct {
    workspace_bytes: usize,
    limits: BlockLimits,
    /// f32 elements of packed keys, packed values or accumulated queries in a workspace.
    attention_elements_max: usize,
    query_block_max: usize,
    key_block_max: usize,
    head_size_max: usize,
    /// Channels whose sums a workspace holds.
    channel_count_max: usize,

    linear: Kernel,
    linear_few_rows: Kernel,
    convolution: Kernel,
    winograd_input: Kernel,
    winograd_multiply: Kernel,
    winograd_output: Kernel,
    attention: Kernel,
    group_norm_stats: Kernel,
    group_norm_apply: Kernel,
    layer_norm: Kernel,
    activate: Kernel,
    prelu: Kernel,
    geglu: Kernel,
    add: Kernel,
    scale: Kernel,
    copy: Kernel,
    concat: Kernel,
    check_finite: Kernel,
    quantize_change: Kernel,
    apply_change: Kernel,
    embed_tokens: Kernel,
    latent_step: Kernel,
    to_rgb: Kernel,
    gather: Kernel,
    merge: Kernel,
};

/// Kernels of int8 products, compiled once per instruction that adds up products of bytes.
pub const Int8Kernels = extern struct {
    workspace_bytes: usize,
    limits: BlockLimits,
    /// The deepest product: a row of activations is rotated in the workspace.
    depth_max: usize,
    quantize_rows: Kernel,
    multiply: Kernel,
    pack: Kernel,
    unpack: Kernel,
};

/// The element types a weight can have in its file.
pub const WeightType = enum(u32) { f32, f16, bf16, f8_e4m3, f8_e5m2 };

pub const Activation = enum(u32) {
    none,
    silu,
    gelu,
    quick_gelu,
    relu,
    soft_clamp,
    to_signed,
    leaky_relu,
};

/// Epilogue of a GEMM, per output element:
/// activation(sum + bias + channel_bias) + residual.
pub const Epilogue = extern struct {
    bias: ?[*]const f32,
    /// (batch, columns)
    channel_bias: ?[*]const f32,
    /// Rows of the product per batch element, for `channel_bias`.
    rows_per_batch: usize,
    /// Same layout as the output.
    residual: ?[*]const f32,
    activation: Activation,
};

/// A GEMM, possibly batched with GEMMs of other ranks.
pub const together_max = 16;

/// output (rows, columns) = A (rows, depth) * weight (columns, depth)^T, in blocks:
/// task = column block * row_block_count + row block.
pub const Product = extern struct {
    weight: *const anyopaque,
    weight_type: WeightType,
    /// (columns), for 8-bit weights.
    weight_scales: ?[*]const f32,
    rows: usize,
    /// Rows of this GEMM and all `next` ones. The first one holds the blocks of all.
    rows_together: usize,
    /// Another rank's GEMM with the same weights, batched with this one so that each weight is
    /// packed once; the same operation except for its rows.
    next: ?*const Product,
    columns: usize,
    depth: usize,
    output: [*]f32,
    output_stride: usize,
    row_block: usize,
    row_block_count: usize,
    column_block: usize,
    column_block_count: usize,
    /// Threads of the pool: a thread's next task is likely to be this many further.
    thread_count: usize,
    epilogue: Epilogue,
};

pub const Linear = extern struct {
    product: Product,
    /// (rows, depth)
    x: [*]const f32,
};

/// Outputs in a panel of int8 weights; the last one is filled up with zeros.
pub const int8_panel_columns = 32;
/// Depths of int8 products are multiples of this.
pub const int8_depth_unit = 16;

/// A panel: of each output its scale (f32) and the sum of its integers (i32), then for every four
/// steps of the depth the four integers of each output. Every instruction set reads the same bytes.
pub fn int8PanelBytes(depth: usize) usize {
    return int8_panel_columns * (@sizeOf(f32) + @sizeOf(i32) + depth);
}

/// Rows of activations, rotated in groups of `group`, as integers of [-127, 127] times a scale of
/// the row: task = rows_per_task rows.
pub const QuantizeRows = extern struct {
    /// (rows, depth)
    x: [*]const f32,
    /// (rows, depth), as the kernels of the same instruction read it.
    out: [*]u8,
    /// (rows)
    scales: [*]f32,
    rows: usize,
    rows_per_task: usize,
    depth: usize,
    group: usize,
};

/// What `QuantizeRows` made, times panels of weights. `product.weight` is the first panel, and its
/// type is not read.
pub const Int8Linear = extern struct {
    product: Product,
    x: [*]const u8,
    x_scales: [*]const f32,
};

/// Makes panels of a matrix, rotated in groups of `group`, or of integers that are rotated already:
/// task = panel.
pub const PackInt8 = extern struct {
    /// (columns, depth)
    source: [*]const u8,
    source_is_int8: bool,
    /// Of floating-point numbers.
    source_type: WeightType,
    /// (columns): for integers and 8-bit floating-point numbers.
    source_scales: ?[*]const f32,
    columns: usize,
    depth: usize,
    group: usize,
    panels: [*]u8,
};

/// The numbers that panels stand for, turned back: task = panel.
pub const UnpackInt8 = extern struct {
    panels: [*]const u8,
    columns: usize,
    depth: usize,
    group: usize,
    /// (columns, depth)
    out: [*]f32,
};

/// The product's rows are (batch, rows out, width out), its depth is (height, width, channels).
/// Where `doubled`, a 3x3 convolution of the input enlarged twice: task = phase * tasks of the
/// product + its task, a phase being the outputs of one parity of row and column, which read
/// 2x2 taps: rows and depth are those of one phase.
pub const Convolution = extern struct {
    product: Product,
    /// (batch, rows, width, channels)
    x: [*]const f32,
    /// (batch, 1, width, channels) each.
    halo_above: ?[*]const f32,
    halo_below: ?[*]const f32,
    rows: u32,
    width: u32,
    channels: u32,
    rows_out: u32,
    width_out: u32,
    kernel_width: u32,
    stride: u32,
    pad_top: u32,
    pad_left: u32,
    doubled: bool,
};

pub const winograd_points_max = 36;

/// A chunk of the tiles of a 3x3 convolution of stride 1, whose padding is 1 on every side; see
/// `kernels/winograd.zig`.
pub const Winograd = extern struct {
    convolution: Convolution,
    /// Outputs of a tile in one direction: 2 or 4.
    m: usize,
    /// (m + 2)^2
    point_count: usize,
    tiles_wide: usize,
    tiles_high: usize,
    tile_first: usize,
    tile_count: usize,
    tiles_per_task: usize,
    /// By point: transformed inputs (tiles, channels), products (tiles, columns).
    linears: [winograd_points_max]Linear,
};

/// (batch, tokens, 2 * channels), keys before values.
pub const KeysValues = extern struct {
    data: [*]const f32,
    token_count: usize,
};

/// task = (batch * head_count + head) * query_block_count + query block.
pub const Attention = extern struct {
    /// (batch, query_count, channels)
    q: [*]const f32,
    out: [*]f32,
    chunks: [*]const KeysValues,
    chunk_count: usize,
    query_count: usize,
    query_block: usize,
    query_block_count: usize,
    key_block: usize,
    channels: usize,
    head_count: usize,
    causal: bool,
};

/// Sums over a slab of positions of one batch element; task = slab.
pub const GroupNormStats = extern struct {
    /// (positions, channels)
    x: [*]const f32,
    /// (slabs, groups, 2): sum and sum of squares.
    partials: [*]f64,
    positions: usize,
    positions_per_slab: usize,
    channels: usize,
    group_count: usize,
};

/// task = batch * slab_count + slab.
pub const GroupNormApply = extern struct {
    x: [*]const f32,
    out: [*]f32,
    /// (batch, groups, 2): mean and mean of squares.
    stats: [*]const f64,
    weight: [*]const f32,
    bias: [*]const f32,
    positions: usize,
    positions_per_slab: usize,
    slab_count: usize,
    channels: usize,
    group_count: usize,
    epsilon: f32,
    activation: Activation,
};

pub const LayerNorm = extern struct {
    x: [*]const f32,
    out: [*]f32,
    weight: [*]const f32,
    bias: [*]const f32,
    rows: usize,
    rows_per_task: usize,
    channels: usize,
    epsilon: f32,
};

/// Elementwise over `count` elements, `count_per_task` at a time.
pub const Elementwise = extern struct {
    x: [*]const f32,
    /// `add` only, which multiplies it by `factor`.
    y: ?[*]const f32 = null,
    out: [*]f32,
    count: usize,
    count_per_task: usize,
    factor: f32 = 1,
    activation: Activation = .none,
};

/// Rows of `channels`, each channel with a slope for what is below 0.
pub const Prelu = extern struct {
    x: [*]const f32,
    out: [*]f32,
    slopes: [*]const f32,
    rows: usize,
    rows_per_task: usize,
    channels: usize,
};

/// Rows of 2 * channels to rows of channels.
pub const Geglu = extern struct {
    x: [*]const f32,
    out: [*]f32,
    rows: usize,
    rows_per_task: usize,
    channels: usize,
};

pub const Copy = extern struct {
    source: [*]const u8,
    target: [*]u8,
    byte_count: usize,
    bytes_per_task: usize,
};

pub const ConcatPart = extern struct { data: [*]const f32, channels: usize };

pub const Concat = extern struct {
    parts: [*]const ConcatPart,
    part_count: usize,
    out: [*]f32,
    channels: usize,
    rows: usize,
    rows_per_task: usize,
};

/// Rows of `channels` in groups of `group`; see `kernels/change.zig`.
pub const Change = extern struct {
    change: [*]u8,
    view: [*]f32,
    /// Not read where a change is applied.
    value: [*]const f32,
    rows: usize,
    rows_per_task: usize,
    channels: usize,
    group: usize,
    /// 8 or 4.
    bits: usize,
};

pub const CheckFinite = extern struct {
    x: [*]const f32,
    count: usize,
    count_per_task: usize,
    /// Set to 1 by any task that finds an infinity or a NaN.
    found: *u32,
};

/// One task per token; `ids` (batch, tokens) flattened.
pub const EmbedTokens = extern struct {
    ids: [*]const i32,
    tokens_per_batch: usize,
    token_weight: *const anyopaque,
    position_weight: *const anyopaque,
    /// Rows of positions whose id is beyond the vocabulary; null for none.
    injected: ?[*]const f32,
    token_type: WeightType,
    position_type: WeightType,
    /// Of the rows, for 8-bit weights.
    token_scales: ?[*]const f32,
    position_scales: ?[*]const f32,
    vocabulary_count: usize,
    channels: usize,
    out: [*]f32,
};

pub const model_output_count = 4;

pub const LatentUpdate = extern struct {
    sample: f32,
    auxiliary: f32,
    model_outputs: [model_output_count]f32,
    noise: f32,
};

pub const LatentStep = extern struct {
    latent: [*]f32,
    auxiliary: [*]f32,
    model_outputs: [model_output_count][*]f32,
    /// `branch_count * count` values, those of the first branch first.
    model_output: [*]const f32,
    branch_count: usize,
    noise: ?[*]const f32,
    count: usize,
    count_per_task: usize,
    /// Of each image of `image_count` elements, one for every branch but the first.
    guidance_scales: [*]const f32,
    /// Of each image of `image_count` elements; null where all are 1.
    guidance_factors: ?[*]const f32,
    image_count: usize,
    output_from_sample: f32,
    output_from_model: f32,
    latent_update: LatentUpdate,
    auxiliary_update: LatentUpdate,
    updates_auxiliary: bool,
};

pub const ToRgb = extern struct {
    x: [*]const f32,
    out: [*]u8,
    count: usize,
    count_per_task: usize,
};

/// A matrix whose elements lie anywhere in memory, unaligned; see `weights/matrix.zig`.
pub const Matrix = extern struct {
    /// Null for zeros.
    data: ?[*]const u8,
    type: WeightType,
    /// Factors of the rows, for 8-bit types; null for 1.
    row_scales: ?[*]const f32,
    row_step: usize,
    inner: usize,
    outer_step: usize,
    inner_step: usize,
};

/// A matrix to f32 without gaps; task = rows_per_task rows.
pub const Gather = extern struct {
    matrix: Matrix,
    rows: usize,
    columns: usize,
    rows_per_task: usize,
    out: [*]f32,
};

pub const DeltaKind = enum(u32) { product, hadamard, kronecker, difference, replacement };

/// (rows, depth) * (depth, columns), both f32 without gaps.
pub const Factors = extern struct {
    a: [*]const f32,
    b: [*]const f32,
    depth: usize,
};

/// Element (i * rows_2 + i2, (t, j * columns_2 + j2)) is w1[i, j] * w2[i2, (t, j2)].
pub const Kronecker = extern struct {
    w1: [*]const f32,
    /// (rows_2, taps, columns_2)
    w2: [*]const f32,
    columns_1: usize,
    rows_2: usize,
    columns_2: usize,
    taps: usize,
};

/// One change of a matrix. With `rows` and `columns` factors (DoRA):
/// sum += strength * ((sum + scale * delta) * factor - sum); without them:
/// sum += strength * scale * delta. A replacement reads neither.
pub const Delta = extern struct {
    kind: DeltaKind,
    scale: f32,
    strength: f32,
    /// A product, and the left one of `hadamard`.
    first: Factors,
    second: Factors,
    kronecker: Kronecker,
    values: Matrix,
    row_factors: ?[*]const f32,
    column_factors: ?[*]const f32,
};

/// out = scale * (base + deltas, one after the other), in blocks:
/// task = column block * row_block_count + row block.
pub const Merge = extern struct {
    base: Matrix,
    rows: usize,
    columns: usize,
    deltas: [*]const Delta,
    delta_count: usize,
    row_block: usize,
    row_block_count: usize,
    column_block: usize,
    /// Not null: nothing is written, but sums of squares are added up here: (column blocks, rows).
    row_squares: ?[*]f64,
    /// The same: (row blocks, columns), zeros before.
    column_squares: ?[*]f64,
    out: [*]u8,
    out_type: WeightType,
    /// Elements from one row to the next.
    out_step: usize,
    scale: f32,
    /// Set to 1 by any task that finds a number which `out_type` does not have.
    overflow: *u32,
};
