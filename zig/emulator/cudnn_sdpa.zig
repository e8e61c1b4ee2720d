//! The unified SDPA of the emulated cuDNN: reads the operation's tensors, refuses what the library
//! has no engine for (asked for sm_80 to sm_120 without a GPU, 9.24), and computes in f32 with
//! weights rounded to 16 bits for the second product.

const std = @import("std");
const cudnn = @import("../nvidia/cudnn.zig");
const descriptors = @import("cudnn_descriptor.zig");
const driver = @import("../nvidia/driver.zig");
const library = @import("library.zig");
const numbers = @import("numbers.zig");
const product = @import("product.zig");
const Descriptor = descriptors.Descriptor;
const Status = cudnn.Status;

/// Heads come in groups of so many channels, and no larger than this.
const head_group = 8;
const head_size_max = 256;
const vector_bytes = 16;

/// By (batch, heads, positions, head size).
const Rows = struct {
    id: i64 = 0,
    dimensions: [4]u64 = undefined,
    strides: [4]u64 = undefined,

    fn at(rows: *const Rows, batch: u64, head: u64, position: u64) u64 {
        const s = rows.strides;
        return batch * s[0] + head * s[1] + position * s[2];
    }

    fn elementCount(rows: *const Rows) u64 {
        var last: u64 = 0;
        for (rows.dimensions, rows.strides) |dimension, stride| last += (dimension - 1) * stride;
        return last + 1;
    }
};

pub const Program = struct {
    dtype: cudnn.DataType,
    q: Rows,
    k: Rows,
    v: Rows,
    out: Rows,
    /// f32; null for none.
    statistics: ?Rows,
    /// By value.
    scale: i64,

    pub fn workspaceBytes(_: *const Program) usize {
        return 256;
    }
};

/// The operation as a program.
pub fn read(operation: *const Descriptor, program: *Program) Status {
    var dtypes: [4]cudnn.DataType = undefined;
    for ([_]cudnn.Attribute{
        .operation_sdpa_fwd_qdesc,
        .operation_sdpa_fwd_kdesc,
        .operation_sdpa_fwd_vdesc,
        .operation_sdpa_fwd_odesc,
    }, [_]*Rows{ &program.q, &program.k, &program.v, &program.out }, &dtypes) |name, rows, *dtype| {
        const tensor = operation.get(name, .tensor) orelse return .bad_param;
        rows.* = readRows(tensor) orelse return .bad_param_shape_mismatch;
        dtype.* = tensor.value(cudnn.DataType, .tensor_data_type).?;
        if (rows.strides[3] != 1) return .not_supported_layout;
        for (rows.strides[0..3]) |stride| {
            if (stride % head_group != 0) return .not_supported_layout;
        }
    }
    program.dtype = dtypes[0];
    if (program.dtype != .f16 and program.dtype != .bf16) return .not_supported_data_type;
    for (dtypes) |dtype| if (dtype != program.dtype) return .not_supported_data_type;
    const q = program.q.dimensions;
    const k = program.k.dimensions;
    if (!std.meta.eql(program.out.dimensions, q)) return .bad_param_shape_mismatch;
    if (!std.meta.eql(program.v.dimensions, k)) return .bad_param_shape_mismatch;
    if (q[0] != k[0] or q[1] != k[1] or q[3] != k[3]) return .bad_param_shape_mismatch;
    if (q[3] % head_group != 0 or q[3] > head_size_max) return .not_supported_shape;
    program.statistics = null;
    if (operation.get(.operation_sdpa_fwd_statsdesc, .tensor)) |tensor| {
        const rows = readRows(tensor) orelse return .bad_param_shape_mismatch;
        const wanted = [4]u64{ q[0], q[1], q[2], 1 };
        if (!std.meta.eql(rows.dimensions, wanted)) return .bad_param_shape_mismatch;
        const dtype = tensor.value(cudnn.DataType, .tensor_data_type).?;
        if (dtype != .f32) return .not_supported_data_type;
        program.statistics = rows;
    }
    const scale = operation.get(.operation_sdpa_fwd_scaledesc, .tensor) orelse return .bad_param;
    if (scale.value(bool, .tensor_is_by_value) != true) return .not_supported;
    if (scale.value(cudnn.DataType, .tensor_data_type) != .f32) return .not_supported_data_type;
    program.scale = scale.value(i64, .tensor_unique_id).?;
    return .success;
}

/// One call of cudnnBackendExecute.
pub const Run = struct {
    program: Program,
    device: u32,
    q: usize,
    k: usize,
    v: usize,
    out: usize,
    /// 0 where there are none.
    statistics: usize,
    scale: f32,

    pub fn enqueue(run: *const Run, stream: driver.Stream) Status {
        for ([_]usize{ run.q, run.k, run.v, run.out, run.statistics }) |address| {
            if (address % vector_bytes != 0) return .bad_param_misaligned_pointer;
        }
        const queued = library.enqueueCopy(label, run.*, stream, work);
        const result = queued orelse return .internal_error;
        return if (result == .success) .success else .execution_failed;
    }
};

// --- internal ---

const label = "cudnnBackendExecute";

fn readRows(tensor: *const Descriptor) ?Rows {
    var rows: Rows = .{ .id = tensor.value(i64, .tensor_unique_id).? };
    const dimensions = tensor.values(i64, .tensor_dimensions).?;
    const strides = tensor.values(i64, .tensor_strides).?;
    if (dimensions.len != 4) return null;
    for (&rows.dimensions, dimensions) |*to, from| to.* = @intCast(from);
    for (&rows.strides, strides) |*to, from| to.* = @intCast(from);
    return rows;
}

fn work(context: *anyopaque, token: u64) driver.Result {
    _ = token;
    const run: *const Run = @ptrCast(@alignCast(context));
    const p = &run.program;
    const addresses = [_]usize{ run.q, run.k, run.v, run.out };
    const operands = [_]*const Rows{ &p.q, &p.k, &p.v, &p.out };
    for ([_][]const u8{ "q", "k", "v", "o" }, addresses, operands) |name, address, rows| {
        const bytes = 2 * rows.elementCount();
        if (!numbers.isReachable(run.device, label, name, address, bytes)) return .illegal_address;
    }
    if (p.statistics) |rows| {
        const bytes = 4 * rows.elementCount();
        if (!numbers.isReachable(run.device, label, "stats", run.statistics, bytes)) {
            return .illegal_address;
        }
    }
    for (0..p.q.dimensions[0]) |batch| for (0..p.q.dimensions[1]) |head| {
        attend(run, batch, head) catch return .out_of_memory;
    };
    return .success;
}

/// One head of one image.
fn attend(run: *const Run, batch: usize, head: usize) error{OutOfMemory}!void {
    const gpa = library.allocator;
    const p = &run.program;
    const dtype: numbers.Type = if (p.dtype == .f16) .f16 else .bf16;
    const query_count = p.q.dimensions[2];
    const key_count = p.k.dimensions[2];
    const size = p.q.dimensions[3];
    var keys = try product.Panels.init(key_count, size);
    defer keys.deinit();
    var values = try product.Panels.init(size, key_count);
    defer values.deinit();
    const lines = try gpa.alloc(f32, size * key_count);
    defer gpa.free(lines);
    const columns = try gpa.alloc(f32, size * key_count);
    defer gpa.free(columns);
    for (0..key_count) |i| {
        const line = lines[i * size ..][0..size];
        (numbers.Array{ .dtype = dtype, .address = run.v }).at(p.v.at(batch, head, i)).read(line);
        for (line, 0..) |value, channel| columns[channel * key_count + i] = value;
    }
    for (0..key_count) |i| {
        const line = lines[i * size ..][0..size];
        (numbers.Array{ .dtype = dtype, .address = run.k }).at(p.k.at(batch, head, i)).read(line);
    }
    setAll(&keys, lines);
    setAll(&values, columns);
    const queries = try gpa.alloc(f32, query_count * size);
    defer gpa.free(queries);
    for (0..query_count) |i| {
        const from = (numbers.Array{ .dtype = dtype, .address = run.q }).at(p.q.at(batch, head, i));
        from.read(queries[i * size ..][0..size]);
    }
    const scores = try gpa.alloc(f32, query_count * key_count);
    defer gpa.free(scores);
    keys.multiply(queries, scores);
    const sums = try gpa.alloc(f32, query_count);
    defer gpa.free(sums);
    for (sums, 0..) |*sum, i| {
        const logarithm = weigh(scores[i * key_count ..][0..key_count], run.scale, dtype, sum);
        const rows = p.statistics orelse continue;
        const target: numbers.Array = .{ .dtype = .f32, .address = run.statistics };
        target.put(rows.at(batch, head, i), logarithm);
    }
    values.multiply(scores, queries);
    for (sums, 0..) |sum, i| {
        const line = queries[i * size ..][0..size];
        for (line) |*value| value.* /= sum;
        const out: numbers.Array = .{ .dtype = dtype, .address = run.out };
        out.at(p.out.at(batch, head, i)).write(line);
    }
}

/// All columns, one after the other.
fn setAll(panels: *product.Panels, columns: []const f32) void {
    const depth = panels.depth;
    var first: usize = 0;
    while (first < panels.columns) : (first += product.panel_width) {
        const count = @min(product.panel_width, panels.columns - first);
        panels.setColumns(first, columns[first * depth ..][0 .. count * depth]);
    }
}

/// Scores to weights, rounded; returns the log-sum-exp of the scaled scores.
fn weigh(scores: []f32, scale: f32, dtype: numbers.Type, sum: *f32) f32 {
    var largest: f32 = -std.math.inf(f32);
    for (scores) |*score| {
        score.* *= scale;
        largest = @max(largest, score.*);
    }
    sum.* = 0;
    for (scores) |*score| {
        const weight = @exp(score.* - largest);
        sum.* += weight;
        var rounded: u32 = 0;
        const place: numbers.Array = .{ .dtype = dtype, .address = @intFromPtr(&rounded) };
        place.put(0, weight);
        score.* = place.get(0);
    }
    return largest + @log(sum.*);
}
