//! One object file: the kernels of int8 products for one instruction that adds up products of
//! bytes, behind one symbol, as `kernel_object.zig`; `int8_dispatch.zig` chooses.

const arguments = @import("arguments.zig");
const linear = @import("kernels/int8_linear.zig");
const pack = @import("kernels/int8_pack.zig");
const v = @import("kernels/vector.zig");

const kernels: arguments.Int8Kernels = .{
    .workspace_bytes = linear.workspace_bytes,
    .limits = .{
        .tile_rows = linear.rows_max,
        .tile_columns = linear.panel_columns,
        .column_block_max = 512,
        .task_flops_max = switch (v.lanes) {
            16 => 4000 << 20,
            8 => 1000 << 20,
            else => 200 << 20,
        },
    },
    .depth_max = linear.depth_max,
    .quantize_rows = &linear.quantizeRows,
    .multiply = &linear.multiply,
    .pack = &pack.pack,
    .unpack = &pack.unpack,
};

comptime {
    @export(&kernels, .{ .name = @import("options").symbol });
}
