//! Makes panels of int8 weights on the host's cores, and numbers of panels: when a model is loaded,
//! and when adapters change it.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const arguments = @import("arguments.zig");
const blocks = @import("blocks.zig");
const int8_dispatch = @import("int8_dispatch.zig");
const ops_product = @import("ops_product.zig");
const ThreadPool = @import("thread_pool.zig").ThreadPool;
const weights = @import("../../weights.zig");
const Matrix = weights.Matrix;

pub const Packer = struct {
    kernels: *const arguments.Int8Kernels,
    pool: ThreadPool,

    /// Must not move.
    pub fn init(
        packer: *Packer,
        gpa: Allocator,
        io: Io,
        thread_count: usize,
        set: ?int8_dispatch.Int8Set,
        cancelled: *const std.atomic.Value(bool),
    ) !void {
        packer.kernels = int8_dispatch.kernels(set orelse int8_dispatch.best()).?;
        try packer.pool.init(gpa, io, .{
            .thread_count = thread_count,
            .workspace_bytes = packer.kernels.workspace_bytes,
            .cancelled = cancelled,
        });
    }

    pub fn deinit(packer: *Packer) void {
        packer.pool.deinit();
    }

    /// Rounds a matrix whose rows lie one after the other, aligned to their elements.
    pub fn pack(
        packer: *Packer,
        matrix: Matrix,
        group: u32,
        panels: []u8,
    ) error{Cancelled}!void {
        assert(isPlain(matrix));
        return packer.run(.{
            .source = matrix.bytes.ptr,
            .source_is_int8 = matrix.dtype == .i8,
            .source_type = if (matrix.dtype == .i8)
                .f32
            else
                ops_product.weightTypeOf(matrix.dtype),
            .source_scales = if (matrix.row_scales.len > 0) matrix.row_scales.ptr else null,
            .columns = matrix.rows,
            .depth = matrix.columns,
            .group = group,
            .panels = panels.ptr,
        }, panels);
    }

    /// The numbers of panels, a row for each output.
    pub fn unpack(
        packer: *Packer,
        panels: []const u8,
        depth: usize,
        group: u32,
        out: []f32,
    ) error{Cancelled}!void {
        const columns = out.len / depth;
        assert(panels.len >= weights.int8.weightBytes(columns, depth));
        const args: arguments.UnpackInt8 = .{
            .panels = panels.ptr,
            .columns = columns,
            .depth = depth,
            .group = group,
            .out = out.ptr,
        };
        const tasks = blocks.count(columns, arguments.int8_panel_columns);
        return packer.pool.run(packer.kernels.unpack, &args, tasks);
    }

    // --- internal ---

    fn run(packer: *Packer, args: arguments.PackInt8, panels: []u8) error{Cancelled}!void {
        assert(args.depth <= packer.kernels.depth_max);
        assert(panels.len >= weights.int8.weightBytes(args.columns, args.depth));
        const tasks = blocks.count(args.columns, arguments.int8_panel_columns);
        return packer.pool.run(packer.kernels.pack, &args, tasks);
    }
};

/// Whether `pack` reads the matrix where it is.
pub fn isPlain(matrix: Matrix) bool {
    return matrix.row_step == matrix.columns and matrix.inner == matrix.columns and
        matrix.inner_step == 1 and
        std.mem.isAligned(@intFromPtr(matrix.bytes.ptr), matrix.dtype.size());
}
