//! One product of the emulated cuBLASLt: what is refused, and the arithmetic
//! D = epilogue(alpha * op(A) * op(B) + beta * C), with sums in f32 and one rounding, or of int8 in
//! int32 (`cublaslt_int8.zig`).

const std = @import("std");
const lt = @import("../nvidia/cublaslt.zig");
const driver = @import("../nvidia/driver.zig");
const cublaslt = @import("cublaslt.zig");
const guards = @import("guards.zig");
const integers = @import("cublaslt_int8.zig");
const library = @import("library.zig");
const numbers = @import("numbers.zig");
const product = @import("product.zig");
const Status = lt.Status;

/// Of a matrix: numbers, or integers.
pub const Element = enum {
    f32,
    f16,
    bf16,
    i8,
    i32,

    pub fn bytes(element: Element) usize {
        return switch (element) {
            .i8 => 1,
            .f16, .bf16 => 2,
            .f32, .i32 => 4,
        };
    }

    fn number(element: Element) numbers.Type {
        return switch (element) {
            .f32 => .f32,
            .f16 => .f16,
            .bf16 => .bf16,
            .i8, .i32 => unreachable, // `refuseTypes` keeps them apart.
        };
    }
};

/// Where element (row, column) of one matrix of a batch lies.
pub const Matrix = struct {
    dtype: Element,
    row_step: u64,
    column_step: u64,
    batch_step: u64,
    /// Elements from the first to behind the last of the whole batch.
    extent: u64,

    pub fn at(matrix: Matrix, row: u64, column: u64) u64 {
        return row * matrix.row_step + column * matrix.column_step;
    }
};

pub const Shape = struct {
    m: u64,
    n: u64,
    k: u64,
    batch_count: u64,
    /// Sums in int32.
    is_integer: bool,
    epilogue: lt.Epilogue,
    /// op(A) (m, k), op(B) (k, n), C (m, n), D (m, n)
    matrices: [4]Matrix,

    pub fn init(shape: *Shape, desc: cublaslt.Desc, layouts: [4]cublaslt.Layout) Status {
        // Int8 results, which int32 sums scaled by f32 have, nobody asks for.
        shape.is_integer = switch (desc.compute) {
            .f32 => if (desc.scale == .f32) false else return .not_supported,
            .i32 => if (desc.scale == .i32) true else return .not_supported,
            else => return .not_supported,
        };
        const batch_count = layouts[3].batch_count;
        for (layouts) |layout| if (layout.batch_count != batch_count) return .invalid_value;
        if (batch_count < 1) return .invalid_value;
        for (&shape.matrices, layouts, 0..) |*matrix, layout, i| {
            const status = matrixOf(matrix, layout);
            if (status != .success) return status;
            const operation = switch (i) {
                0 => desc.transa,
                1 => desc.transb,
                else => .none,
            };
            if (operation == .transpose) {
                std.mem.swap(u64, &matrix.row_step, &matrix.column_step);
            } else if (operation != .none) return .not_supported;
        }
        const d = layouts[3];
        const m_a, const k_a = sides(layouts[0], desc.transa);
        const k_b, const n_b = sides(layouts[1], desc.transb);
        if (m_a != d.rows or n_b != d.columns or k_a != k_b) return .invalid_value;
        if (layouts[2].rows != d.rows or layouts[2].columns != d.columns) return .invalid_value;
        shape.m = d.rows;
        shape.n = d.columns;
        shape.k = k_a;
        shape.batch_count = @intCast(batch_count);
        shape.epilogue = desc.epilogue;
        if (shape.is_integer) return shape.refuseIntegers(desc, layouts);
        return shape.refuseTypes();
    }

    /// What the library says of its kernels for int8 in regular order.
    fn refuseIntegers(
        shape: *const Shape,
        desc: cublaslt.Desc,
        layouts: [4]cublaslt.Layout,
    ) Status {
        for (shape.matrices, 0..) |matrix, i| {
            const expected: Element = if (i < 2) .i8 else .i32;
            if (matrix.dtype != expected) return .not_supported;
        }
        if (shape.epilogue != .default) return .not_supported;
        if (desc.transa != .transpose or desc.transb != .none) return .not_supported;
        if (shape.m % 4 != 0 or shape.k % 4 != 0) return .not_supported;
        for (layouts) |layout| {
            if (layout.order != .column or @mod(layout.ld, 4) != 0) return .not_supported;
        }
        return .success;
    }

    fn refuseTypes(shape: *const Shape) Status {
        const m = shape.matrices;
        for (m) |matrix| if (matrix.dtype == .i8 or matrix.dtype == .i32) return .not_supported;
        if (m[0].dtype != m[1].dtype or m[2].dtype != m[3].dtype) return .not_supported;
        if (m[3].dtype != m[0].dtype and m[3].dtype != .f32) return .not_supported;
        return switch (shape.epilogue) {
            .default, .bias, .gelu, .gelu_bias => .success,
            else => .not_supported,
        };
    }

    fn hasBias(shape: *const Shape) bool {
        return shape.epilogue == .bias or shape.epilogue == .gelu_bias;
    }
};

/// One call of cublasLtMatmul.
pub const Call = struct {
    shape: Shape,
    alpha: f32,
    beta: f32,
    addresses: [4]usize,
    bias: usize,
    workspace: usize,
    /// What the algorithm uses.
    workspace_bytes: usize,
    device: u32 = 0,

    /// What the library sees before it queues anything.
    pub fn refuse(call: *const Call, alignment: usize, given_bytes: usize) Status {
        for (call.addresses, call.shape.matrices, 0..) |address, matrix, i| {
            if (i == 2 and call.beta == 0) continue;
            if (address == 0) return .invalid_value;
            const unit = if (call.shape.is_integer) 4 else matrix.dtype.bytes();
            if (address % @max(alignment, unit) != 0) return .not_supported;
        }
        if (call.shape.hasBias()) {
            if (call.bias == 0) return .invalid_value;
            if (call.bias % call.shape.matrices[3].dtype.bytes() != 0) return .not_supported;
        }
        if (call.workspace_bytes > given_bytes) return .invalid_value;
        if (call.workspace_bytes > 0) {
            if (call.workspace == 0 or call.workspace % 16 != 0) return .invalid_value;
        }
        // In place means in place: the same layout.
        const c = call.shape.matrices[2];
        const d = call.shape.matrices[3];
        if (call.beta != 0 and call.addresses[2] == call.addresses[3]) {
            if (!std.meta.eql(c, d)) return .invalid_value;
        }
        return .success;
    }

    pub fn enqueue(call: *Call, stream: driver.Stream, device: u32) Status {
        var placed = call.*;
        placed.device = device;
        const queued = library.enqueueCopy("cublasLtMatmul", placed, stream, run);
        const result = queued orelse return .alloc_failed;
        return if (result == .success) .success else .execution_failed;
    }
};

// --- internal ---

fn sides(layout: cublaslt.Layout, operation: lt.Operation) struct { u64, u64 } {
    if (operation == .none) return .{ layout.rows, layout.columns };
    return .{ layout.columns, layout.rows };
}

fn matrixOf(matrix: *Matrix, layout: cublaslt.Layout) Status {
    if (layout.rows == 0 or layout.columns == 0 or layout.ld <= 0) return .invalid_value;
    const ld: u64 = @intCast(layout.ld);
    const inner, const outer = switch (layout.order) {
        .column => .{ layout.rows, layout.columns },
        .row => .{ layout.columns, layout.rows },
        else => return .not_supported,
    };
    if (ld < inner or layout.batch_step < 0) return .invalid_value;
    const batch_step: u64 = @intCast(layout.batch_step);
    const batches: u64 = @intCast(@max(layout.batch_count, 1));
    matrix.* = .{
        .dtype = switch (layout.dtype) {
            .f32 => .f32,
            .f16 => .f16,
            .bf16 => .bf16,
            .i8 => .i8,
            .i32 => .i32,
            else => return .not_supported,
        },
        .row_step = if (layout.order == .column) 1 else ld,
        .column_step = if (layout.order == .column) ld else 1,
        .batch_step = batch_step,
        .extent = (batches - 1) * batch_step + (outer - 1) * ld + inner,
    };
    return .success;
}

fn run(context: *anyopaque, token: u64) driver.Result {
    _ = token;
    const call: *const Call = @ptrCast(@alignCast(context));
    const shape = &call.shape;
    const names = [4][]const u8{ "A", "B", "C", "D" };
    for (call.addresses, shape.matrices, names, 0..) |address, matrix, name, i| {
        if (i == 2 and call.beta == 0) continue;
        const bytes = matrix.extent * matrix.dtype.bytes();
        if (!isReachable(call, name, address, bytes)) return .illegal_address;
    }
    if (shape.hasBias()) {
        const bytes = shape.m * shape.matrices[3].dtype.bytes();
        if (!isReachable(call, "the bias", call.bias, bytes)) return .illegal_address;
    }
    if (call.workspace_bytes > 0) {
        const bytes = call.workspace_bytes;
        if (!isReachable(call, "the workspace", call.workspace, bytes)) return .illegal_address;
        // What else keeps something there loses it.
        guards.poison(@as([*]u8, @ptrFromInt(call.workspace))[0..bytes]);
    }
    for (0..shape.batch_count) |i| {
        if (shape.is_integer) integers.multiply(call, i) else {
            multiply(call, i) catch return .out_of_memory;
        }
    }
    return .success;
}

fn isReachable(call: *const Call, name: []const u8, address: usize, bytes: usize) bool {
    return numbers.isReachable(call.device, "cublasLtMatmul", name, address, bytes);
}

const columns_at_once = 64;

/// One product of the batch: op(A) in panels, then a column of D after the other.
fn multiply(call: *const Call, batch_index: u64) error{OutOfMemory}!void {
    const s = &call.shape;
    var arrays: [4]numbers.Array = undefined;
    for (&arrays, call.addresses, s.matrices) |*array, address, matrix| {
        const base: numbers.Array = .{ .dtype = matrix.dtype.number(), .address = address };
        array.* = base.at(batch_index * matrix.batch_step);
    }
    const b = s.matrices[1];
    var panels = try panelsOf(s, arrays[0]);
    defer panels.deinit();
    const x = try product.scratch(f32, columns_at_once * s.k);
    defer product.free(x);
    const sums = try product.scratch(f32, columns_at_once * s.m);
    defer product.free(sums);
    const bias = try product.scratch(f32, s.m);
    defer product.free(bias);
    if (s.hasBias()) {
        const dtype = s.matrices[3].dtype.number();
        (numbers.Array{ .dtype = dtype, .address = call.bias }).read(bias);
    }
    const added = try product.scratch(f32, s.m);
    defer product.free(added);
    var first: u64 = 0;
    while (first < s.n) : (first += columns_at_once) {
        const count = @min(columns_at_once, s.n - first);
        for (0..count) |i| {
            readLine(arrays[1], b.at(0, first + i), b.row_step, x[i * s.k ..][0..s.k]);
        }
        panels.multiply(x[0 .. count * s.k], sums[0 .. count * s.m]);
        for (0..count) |i| {
            finish(call, arrays[2..4].*, first + i, sums[i * s.m ..][0..s.m], bias, added);
        }
    }
}

fn panelsOf(s: *const Shape, array: numbers.Array) error{OutOfMemory}!product.Panels {
    const a = s.matrices[0];
    var panels = try product.Panels.init(s.m, s.k);
    errdefer panels.deinit();
    const lines = try product.scratch(f32, product.panel_width * s.k);
    defer product.free(lines);
    var first: u64 = 0;
    while (first < s.m) : (first += product.panel_width) {
        const count = @min(product.panel_width, s.m - first);
        for (0..count) |i| {
            readLine(array, a.at(first + i, 0), a.column_step, lines[i * s.k ..][0..s.k]);
        }
        panels.setColumns(first, lines[0 .. count * s.k]);
    }
    return panels;
}

/// Makes of the sums of one column what D gets; `added` is working memory.
fn finish(
    call: *const Call,
    c_and_d: [2]numbers.Array,
    column: u64,
    sums: []f32,
    bias: []const f32,
    added: []f32,
) void {
    const s = &call.shape;
    const c, const d = s.matrices[2..4].*;
    for (sums) |*value| value.* *= call.alpha;
    if (call.beta != 0) {
        readLine(c_and_d[0], c.at(0, column), c.row_step, added);
        for (sums, added) |*value, other| value.* += call.beta * other;
    }
    if (s.hasBias()) for (sums, bias) |*value, other| {
        value.* += other;
    };
    if (s.epilogue == .gelu or s.epilogue == .gelu_bias) for (sums) |*value| {
        value.* = geluTanh(value.*);
    };
    if (d.row_step == 1) return c_and_d[1].at(d.at(0, column)).write(sums);
    for (sums, 0..) |value, row| c_and_d[1].put(d.at(row, column), value);
}

fn readLine(array: numbers.Array, first: u64, step: u64, out: []f32) void {
    if (step == 1) return array.at(first).read(out);
    for (out, 0..) |*value, i| value.* = array.get(first + i * step);
}

/// The library's GELU: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
fn geluTanh(x: f32) f32 {
    const inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    return 0.5 * x * (1 + std.math.tanh(inner));
}
