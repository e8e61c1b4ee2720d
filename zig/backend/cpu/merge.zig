//! Merges deltas of adapters into weights on the host's cores, in f32, and rounds once. The factors
//! of one weight's deltas are widened first; then the blocks of the sum are tasks of a thread pool
//! (`kernels/merge.zig`). A result does not depend on the number of threads.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Io = std.Io;
const arguments = @import("arguments.zig");
const blocks = @import("blocks.zig");
const dispatch = @import("dispatch.zig");
const DType = @import("../../tensor.zig").DType;
const ops_product = @import("ops_product.zig");
const ThreadPool = @import("thread_pool.zig").ThreadPool;
const weights = @import("../../weights.zig");
const deltas_file = weights.deltas;
const Delta = deltas_file.Delta;
const Matrix = weights.Matrix;

pub const Error = error{ Cancelled, OutOfMemory, Overflow };

/// As ComfyUI and LyCORIS: the smallest step from 1 in f32.
const norm_epsilon = std.math.floatEps(f32);
/// Most rows of a task; with them tasks stay short enough for cancelling.
const row_block_max = 1024;
/// Tasks of a thread, to balance the load.
const tasks_per_thread = 4;
/// Elements of one task of `gather`.
const gather_elements = 1 << 16;

/// Where a merged weight goes.
pub const Output = struct {
    bytes: []u8,
    dtype: DType,
    /// Factor at which the device stores it.
    scale: f32,
};

pub const Merger = struct {
    kernels: *const arguments.Kernels,
    pool: ThreadPool,
    /// The factors of one weight's deltas.
    arena: std.heap.ArenaAllocator,

    /// Must not move. `instruction_set` null is the best of this machine.
    pub fn init(
        merger: *Merger,
        gpa: Allocator,
        io: Io,
        thread_count: usize,
        instruction_set: ?dispatch.InstructionSet,
        cancelled: *const std.atomic.Value(bool),
    ) !void {
        // Never those with bf16 products: a merged weight serves every precision.
        const set = instruction_set orelse dispatch.best();
        assert(set != .x86_64_v4_bf16);
        merger.kernels = dispatch.kernels(set).?;
        merger.arena = .init(gpa);
        try merger.pool.init(gpa, io, .{
            .thread_count = thread_count,
            .workspace_bytes = merger.kernels.workspace_bytes,
            .cancelled = cancelled,
        });
    }

    pub fn deinit(merger: *Merger) void {
        merger.pool.deinit();
        merger.arena.deinit();
    }

    /// Writes the weight with its deltas, applied in their order, in the device's order.
    pub fn merge(
        merger: *Merger,
        base: Matrix,
        channels: usize,
        deltas: []const Delta,
        out: Output,
    ) Error!void {
        _ = merger.arena.reset(.retain_capacity);
        assert(out.bytes.len >= base.rows * base.columns * out.dtype.size());
        const prepared = try merger.arena.allocator().alloc(arguments.Delta, deltas.len);
        for (deltas, prepared, 0..) |*delta, *target, i| {
            target.* = try merger.prepare(delta);
            const dora = if (delta.dora) |*dora| dora else continue;
            try merger.decompose(base, channels, prepared[0 .. i + 1], dora);
        }
        var overflow: u32 = 0;
        var args = argumentsOf(base, prepared, out, &overflow);
        try merger.run(&args);
        if (overflow != 0) return error.Overflow;
    }

    // --- internal ---

    fn prepare(merger: *Merger, delta: *const Delta) Error!arguments.Delta {
        var prepared = std.mem.zeroes(arguments.Delta);
        prepared.scale = delta.scale;
        prepared.strength = delta.strength;
        switch (delta.change) {
            .product => |*product| {
                prepared.kind = .product;
                prepared.first = try merger.factors(product);
            },
            .hadamard => |*products| {
                prepared.kind = .hadamard;
                prepared.first = try merger.factors(&products[0]);
                prepared.second = try merger.factors(&products[1]);
            },
            .kronecker => |*kronecker| {
                prepared.kind = .kronecker;
                prepared.kronecker = .{
                    .w1 = try merger.factor(&kronecker.w1),
                    .w2 = try merger.factor(&kronecker.w2),
                    .columns_1 = kronecker.columns_1,
                    .rows_2 = kronecker.rows_2,
                    .columns_2 = kronecker.columns_2,
                    .taps = kronecker.taps,
                };
            },
            .difference => |matrix| {
                prepared.kind = .difference;
                prepared.values = argumentOf(matrix);
            },
            .replacement => |matrix| {
                prepared.kind = .replacement;
                prepared.values = argumentOf(matrix);
            },
        }
        return prepared;
    }

    fn factors(merger: *Merger, product: *const deltas_file.Product) Error!arguments.Factors {
        return .{
            .a = try merger.gather(product.a),
            .b = switch (product.b) {
                .matrix => |matrix| try merger.gather(matrix),
                .tucker => |*tucker| try merger.contract(tucker),
            },
            .depth = product.b.depth(),
        };
    }

    /// A factor of a Kronecker product: at most as large as the weight, and mostly far smaller.
    fn factor(merger: *Merger, given: *const deltas_file.Factor) Error![*]const f32 {
        const product = switch (given.*) {
            .whole => |matrix| return merger.gather(matrix),
            .product => |*product| product,
        };
        const columns = switch (product.b) {
            .matrix => |matrix| matrix.columns,
            .tucker => |tucker| tucker.taps * tucker.inner.columns,
        };
        const rows = product.a.rows;
        const out = try merger.arena.allocator().alloc(f32, rows * columns);
        try merger.multiply(try merger.factors(product), rows, columns, out.ptr, columns);
        return out.ptr;
    }

    /// (depth, taps, channels): one product for each tap.
    fn contract(merger: *Merger, tucker: *const deltas_file.Tucker) Error![*]const f32 {
        const channels = tucker.inner.columns;
        const columns = tucker.taps * channels;
        const out = try merger.arena.allocator().alloc(f32, tucker.depth * columns);
        const inner = try merger.gather(tucker.inner);
        const n = tucker.inner.rows;
        for (0..tucker.taps) |tap| {
            const core: Matrix =
                .tap(tucker.core, tucker.core_dtype, tucker.depth, n, tucker.taps, tap);
            const product: arguments.Factors = .{
                .a = try merger.gather(core),
                .b = inner,
                .depth = n,
            };
            const target = out.ptr + tap * channels;
            try merger.multiply(product, tucker.depth, channels, target, columns);
        }
        return out.ptr;
    }

    fn multiply(
        merger: *Merger,
        product: arguments.Factors,
        rows: usize,
        columns: usize,
        out: [*]f32,
        out_step: usize,
    ) Error!void {
        var delta = std.mem.zeroes(arguments.Delta);
        delta.kind = .product;
        delta.scale = 1;
        delta.strength = 1;
        delta.first = product;
        var zeros = std.mem.zeroes(arguments.Matrix);
        zeros.inner = 1;
        var overflow: u32 = 0;
        var args: arguments.Merge = .{
            .base = zeros,
            .rows = rows,
            .columns = columns,
            .deltas = @as(*const [1]arguments.Delta, &delta),
            .delta_count = 1,
            .row_block = 0,
            .row_block_count = 0,
            .column_block = 0,
            .row_squares = null,
            .column_squares = null,
            .out = @ptrCast(out),
            .out_type = .f32,
            .out_step = out_step,
            .scale = 1,
            .overflow = &overflow,
        };
        try merger.run(&args);
    }

    /// Gives the last of `prepared` its factors, from norms of what the weight is with those
    /// before.
    fn decompose(
        merger: *Merger,
        base: Matrix,
        channels: usize,
        prepared: []arguments.Delta,
        dora: *const deltas_file.Dora,
    ) Error!void {
        const arena = merger.arena.allocator();
        const last = &prepared[prepared.len - 1];
        const strength = last.strength;
        // Without factors, a delta is added.
        last.strength = 1;
        defer last.strength = strength;
        const count = prepared.len - @intFromBool(dora.norm == .original);
        const nowhere: Output = .{ .bytes = &.{}, .dtype = .f32, .scale = 1 };
        var overflow: u32 = 0;
        var args = argumentsOf(base, prepared[0..count], nowhere, &overflow);
        const task_count = merger.cut(&args);
        const block_count = task_count / args.row_block_count;
        const magnitude = try merger.gather(dora.magnitude);
        const length = if (dora.axis == .rows) base.rows else base.columns;
        const parts = if (dora.axis == .rows) block_count else args.row_block_count;
        const squares = try arena.alloc(f64, parts * length);
        @memset(squares, 0);
        switch (dora.axis) {
            .rows => args.row_squares = squares.ptr,
            .channels => args.column_squares = squares.ptr,
        }
        try merger.pool.run(merger.kernels.merge, &args, task_count);
        const ratios = try arena.alloc(f32, length);
        // Rows are one by one, columns (taps, channels) share a norm per channel.
        const period = if (dora.axis == .rows) base.rows else channels;
        for (0..period) |i| {
            var sum: f64 = 0;
            var at = i;
            while (at < squares.len) : (at += period) sum += squares[at];
            ratios[i] = @floatCast(magnitude[i] / (@sqrt(sum) + norm_epsilon));
        }
        for (period..length) |i| ratios[i] = ratios[i - period];
        switch (dora.axis) {
            .rows => last.row_factors = ratios.ptr,
            .channels => last.column_factors = ratios.ptr,
        }
    }

    fn gather(merger: *Merger, matrix: Matrix) Error![*]const f32 {
        const out = try merger.arena.allocator().alloc(f32, matrix.rows * matrix.columns);
        const rows_per_task = @max(1, gather_elements / @max(1, matrix.columns));
        const args: arguments.Gather = .{
            .matrix = argumentOf(matrix),
            .rows = matrix.rows,
            .columns = matrix.columns,
            .rows_per_task = rows_per_task,
            .out = out.ptr,
        };
        const task_count = blocks.count(matrix.rows, rows_per_task);
        try merger.pool.run(merger.kernels.gather, &args, task_count);
        return out.ptr;
    }

    fn run(merger: *Merger, args: *arguments.Merge) error{Cancelled}!void {
        const task_count = merger.cut(args);
        try merger.pool.run(merger.kernels.merge, args, task_count);
    }

    /// Chooses the blocks; returns the number of tasks.
    fn cut(merger: *const Merger, args: *arguments.Merge) usize {
        const limits = &merger.kernels.limits;
        args.column_block = blocks.evenPart(
            args.columns,
            limits.column_block_max,
            limits.tile_columns,
        );
        const column_count = blocks.count(args.columns, args.column_block);
        const wanted = blocks.count(tasks_per_thread * merger.pool.thread_count, column_count);
        const row_block = @min(row_block_max, blocks.count(args.rows, wanted));
        args.row_block = blocks.count(row_block, limits.tile_rows) * limits.tile_rows;
        args.row_block_count = blocks.count(args.rows, args.row_block);
        return column_count * args.row_block_count;
    }
};

fn argumentsOf(
    base: Matrix,
    deltas: []const arguments.Delta,
    out: Output,
    overflow: *u32,
) arguments.Merge {
    return .{
        .base = argumentOf(base),
        .rows = base.rows,
        .columns = base.columns,
        .deltas = deltas.ptr,
        .delta_count = deltas.len,
        .row_block = 0,
        .row_block_count = 0,
        .column_block = 0,
        .row_squares = null,
        .column_squares = null,
        .out = out.bytes.ptr,
        .out_type = ops_product.weightTypeOf(out.dtype),
        .out_step = base.columns,
        .scale = out.scale,
        .overflow = overflow,
    };
}

fn argumentOf(matrix: Matrix) arguments.Matrix {
    return .{
        .data = matrix.bytes.ptr,
        .type = ops_product.weightTypeOf(matrix.dtype),
        .row_scales = if (matrix.row_scales.len > 0) matrix.row_scales.ptr else null,
        .row_step = matrix.row_step,
        .inner = matrix.inner,
        .outer_step = matrix.outer_step,
        .inner_step = matrix.inner_step,
    };
}
