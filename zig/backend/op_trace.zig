//! What a graph computes and moves, operation by operation, added up while it is planned.
//! Operations of equal sizes are one entry, and an entry says enough to do it again alone: benches
//! time what the graph really asks for, and no list of shapes is written by hand.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Activation = @import("options.zig").Activation;
const Scratch = @import("../scratch.zig").Scratch;
const Stage = @import("../stage.zig").Stage;

pub const Op = enum {
    linear,
    /// A product of twice `out` channels, of which the second half gates the first.
    linear_geglu,
    /// As the library is asked for it: zeros around it, the same on all sides.
    conv2d,
    /// A convolution of few channels, in one kernel that knows halos and enlargement.
    conv_direct,
    /// Makes the input of a convolution with halo rows, enlargement or uneven zeros.
    pad_input,
    /// What a library's product lacks, in place.
    epilogue,
    attention,
    /// An attention whose queries are a product of its input.
    cross_attention,
    group_norm_stats,
    group_norm_apply,
    combine_statistics,
    layer_norm,
    geglu,
    activate,
    prelu,
    add,
    concat,
    scale_repeat,
    embed_tokens,
    gather_tokens,
    sinusoids,
    copy,
    copy_rows,
    extrapolate_rows,
    /// Rows of activations for int8 products.
    quantize_rows,
    quantize_change,
    apply_change,
    is_finite,
    latent_step,
    mask_blend,
    to_rgb,
};

/// Sizes are those of its own input; what an operation has no use for keeps its default.
pub const Operation = struct {
    op: Op,
    batch: u32 = 1,
    rows: u32 = 1,
    width: u32 = 1,
    /// Channels.
    in: u32 = 1,
    out: u32 = 1,
    /// Rows and columns of a convolution's weights.
    kernel: u32 = 1,
    stride: u32 = 1,
    padding: u32 = 0,
    /// Times that rows and width are enlarged.
    scale: u32 = 1,
    /// Rows that come from other patches.
    halos: u32 = 0,
    /// Tokens of all chunks together.
    keys: u32 = 0,
    chunks: u32 = 1,
    heads: u32 = 1,
    /// Of a norm; channels of a group of `quantize_rows`.
    groups: u32 = 1,
    causal: bool = false,
    bias: bool = false,
    residual: bool = false,
    /// A product of integers, on GPUs.
    int8: bool = false,
    activation: Activation = .none,
};

/// Of one operation.
pub const Cost = struct {
    /// Of products; what else is computed hides behind what is moved.
    flops: u64 = 0,
    /// Read and written by device memory, each operand once.
    bytes: u64,
    launches: u32 = 1,
};

/// What an operation belongs to.
pub const Place = struct {
    stage: Stage = .load,
    /// The job's network beside the model, counted from 1; 0 for the model's own.
    network: u32 = 0,
    /// Whether it is done anew in each step, or tile.
    in_step: bool = false,
};

pub const Entry = struct {
    place: Place,
    operation: Operation,
    cost: Cost,
    count: u64,
};

pub const OpTrace = struct {
    gpa: Allocator,
    place: Place = .{},
    entries: std.ArrayList(Entry) = .empty,
    /// Bytes of the arena that each stage needs.
    peaks: std.EnumArray(Stage, usize) = .initFill(0),
    /// Memory ran out: what there is is not all.
    is_incomplete: bool = false,

    pub fn deinit(op_trace: *OpTrace) void {
        op_trace.entries.deinit(op_trace.gpa);
    }

    pub fn add(op_trace: *OpTrace, operation: Operation, cost: Cost) void {
        for (op_trace.entries.items) |*entry| {
            if (!std.meta.eql(entry.place, op_trace.place)) continue;
            if (!std.meta.eql(entry.operation, operation)) continue;
            // Copies know no type.
            if (!std.meta.eql(entry.cost, cost)) continue;
            entry.count += 1;
            return;
        }
        op_trace.entries.append(op_trace.gpa, .{
            .place = op_trace.place,
            .operation = operation,
            .cost = cost,
            .count = 1,
        }) catch {
            op_trace.is_incomplete = true;
        };
    }

    /// What follows is this stage's.
    pub fn enter(op_trace: *OpTrace, stage: Stage, scratch: *Scratch) void {
        op_trace.leave(scratch);
        op_trace.place = .{ .stage = stage };
        scratch.peak = scratch.used();
    }

    /// The end of the last stage.
    pub fn leave(op_trace: *OpTrace, scratch: *const Scratch) void {
        const peak = op_trace.peaks.getPtr(op_trace.place.stage);
        peak.* = @max(peak.*, scratch.peak);
    }
};

test "equal operations of a place are one entry" {
    var scratch: Scratch = .planning();
    var op_trace: OpTrace = .{ .gpa = std.testing.allocator };
    defer op_trace.deinit();
    op_trace.enter(.text, &scratch);
    const operation: Operation = .{ .op = .add, .width = 7 };
    op_trace.add(operation, .{ .bytes = 42 });
    op_trace.add(operation, .{ .bytes = 42 });
    const address = try scratch.alloc(1000);
    op_trace.enter(.denoise, &scratch);
    op_trace.add(operation, .{ .bytes = 42 });
    scratch.free(address);
    op_trace.place.network = 1;
    op_trace.add(operation, .{ .bytes = 42 });
    op_trace.leave(&scratch);
    try std.testing.expectEqual(3, op_trace.entries.items.len);
    try std.testing.expectEqual(2, op_trace.entries.items[0].count);
    try std.testing.expectEqual(1024, op_trace.peaks.get(.text));
    try std.testing.expectEqual(1024, op_trace.peaks.get(.denoise));
}
