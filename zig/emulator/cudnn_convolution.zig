//! The arithmetic of the emulated cuDNN: a convolution in f32, one output row after the other, with
//! the sums and products after it, rounded once.

const std = @import("std");
const cudnn = @import("../nvidia/cudnn.zig");
const driver = @import("../nvidia/driver.zig");
const graphs = @import("cudnn_graph.zig");
const guards = @import("guards.zig");
const library = @import("library.zig");
const numbers = @import("numbers.zig");
const product = @import("product.zig");

/// One call of cudnnBackendExecute.
pub const Run = struct {
    program: graphs.Program,
    device: u32,
    x: usize,
    w: usize,
    out: usize,
    operands: [3]usize = @splat(0),
    scalars: [3]f32 = @splat(0),
    workspace: usize,
    workspace_bytes: usize,

    pub fn enqueue(run: *const Run, stream: driver.Stream) cudnn.Status {
        const queued = library.enqueueCopy(label, run.*, stream, work);
        const result = queued orelse return .internal_error;
        return if (result == .success) .success else .execution_failed;
    }
};

// --- internal ---

const label = "cudnnBackendExecute";

fn work(context: *anyopaque, token: u64) driver.Result {
    _ = token;
    const run: *const Run = @ptrCast(@alignCast(context));
    const p = &run.program;
    const x_count = volume(p.x_dimensions);
    const w_count = p.out_dimensions[1] * p.kernel_rows * p.kernel_width * p.x_dimensions[1];
    if (!isReachable(run, "x", run.x, 2 * x_count)) return .illegal_address;
    if (!isReachable(run, "w", run.w, 2 * w_count)) return .illegal_address;
    if (!isReachable(run, "y", run.out, 2 * p.outputCount())) return .illegal_address;
    for (p.steps[0..p.step_count], run.operands[0..p.step_count]) |step, address| {
        if (step.extent == .scalar) continue;
        const elements = if (step.extent == .all) p.outputCount() else p.out_dimensions[1];
        const bytes = elements * typeOf(step.dtype).bytes();
        if (!isReachable(run, "an operand", address, bytes)) return .illegal_address;
    }
    if (run.workspace_bytes > 0) {
        const bytes = run.workspace_bytes;
        if (!isReachable(run, "the workspace", run.workspace, bytes)) return .illegal_address;
        // What else keeps something there loses it.
        guards.poison(@as([*]u8, @ptrFromInt(run.workspace))[0..bytes]);
    }
    convolve(run) catch return .out_of_memory;
    return .success;
}

fn isReachable(run: *const Run, name: []const u8, address: usize, bytes: usize) bool {
    return numbers.isReachable(run.device, label, name, address, bytes);
}

fn volume(dimensions: [4]u64) u64 {
    return dimensions[0] * dimensions[1] * dimensions[2] * dimensions[3];
}

fn typeOf(dtype: cudnn.DataType) numbers.Type {
    return switch (dtype) {
        .f16 => .f16,
        .bf16 => .bf16,
        else => .f32,
    };
}

fn convolve(run: *const Run) error{OutOfMemory}!void {
    const p = &run.program;
    const dtype = typeOf(p.dtype);
    const channels = p.x_dimensions[1];
    const out_channels = p.out_dimensions[1];
    const depth = p.kernel_rows * p.kernel_width * channels;
    var panels = try product.Panels.init(out_channels, depth);
    defer panels.deinit();
    const weights = try product.scratch(f32, product.panel_width * depth);
    defer product.free(weights);
    const w: numbers.Array = .{ .dtype = dtype, .address = run.w };
    var column: usize = 0;
    while (column < out_channels) : (column += product.panel_width) {
        const count = @min(product.panel_width, out_channels - column);
        const lines = weights[0 .. count * depth];
        w.at(column * depth).read(lines);
        panels.setColumns(column, lines);
    }
    // Copied first: `out` may be the residual, but never x.
    const x = try product.scratch(f32, volume(p.x_dimensions));
    defer product.free(x);
    (numbers.Array{ .dtype = dtype, .address = run.x }).read(x);
    const width = p.out_dimensions[3];
    const patches = try product.scratch(f32, width * depth);
    defer product.free(patches);
    const sums = try product.scratch(f32, width * out_channels);
    defer product.free(sums);
    for (0..p.out_dimensions[0]) |batch_index| for (0..p.out_dimensions[2]) |row| {
        gather(p, x, batch_index, row, patches);
        panels.multiply(patches, sums);
        const first = (batch_index * p.out_dimensions[2] + row) * width * out_channels;
        finish(run, first, sums);
        (numbers.Array{ .dtype = dtype, .address = run.out }).at(first).write(sums);
    };
}

/// What each position of an output row sees of x: (width out, kernel rows, kernel width, channels),
/// with zeros outside.
fn gather(
    p: *const graphs.Program,
    x: []const f32,
    batch_index: u64,
    row: u64,
    patches: []f32,
) void {
    const channels = p.x_dimensions[1];
    const rows = p.x_dimensions[2];
    const width = p.x_dimensions[3];
    var at: usize = 0;
    for (0..p.out_dimensions[3]) |column| for (0..p.kernel_rows) |tap_row| {
        for (0..p.kernel_width) |tap_column| {
            const target = patches[at..][0..channels];
            at += channels;
            // One behind where padding lies, so that nothing goes below zero.
            const y = row * p.stride[0] + tap_row;
            const z = column * p.stride[1] + tap_column;
            const is_inside = y >= p.padding[0] and y - p.padding[0] < rows and
                z >= p.padding[1] and z - p.padding[1] < width;
            if (is_inside) {
                const line = (batch_index * rows + y - p.padding[0]) * width;
                const first = (line + z - p.padding[1]) * channels;
                @memcpy(target, x[first..][0..channels]);
            } else @memset(target, 0);
        }
    };
}

/// The steps after the convolution, over one output row that begins at element `first`.
fn finish(run: *const Run, first: usize, sums: []f32) void {
    const p = &run.program;
    const out_channels = p.out_dimensions[1];
    if (p.alpha != 1) for (sums) |*sum| {
        sum.* *= p.alpha;
    };
    for (p.steps[0..p.step_count], 0..) |step, i| {
        const operand: numbers.Array = .{
            .dtype = typeOf(step.dtype),
            .address = run.operands[i],
        };
        for (sums, 0..) |*sum, j| {
            const other = switch (step.extent) {
                .scalar => run.scalars[i],
                .channels => operand.get(j % out_channels),
                .all => operand.get(first + j),
            };
            const scaled = step.alpha * sum.*;
            sum.* = if (step.mode == .add) scaled + other else scaled * other;
        }
    }
}
