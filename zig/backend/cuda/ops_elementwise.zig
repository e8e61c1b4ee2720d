//! Launchers of copies, sums, activations and joins. Each takes the device addresses of tensors
//! that `backend.zig` has checked; none allocates or waits, but `download`.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const grids = @import("grids.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

const part_count_max = 16;

/// Must match ConcatParts in cuda/concat_channels.cu.
const ConcatParts = extern struct {
    data: [part_count_max]usize = @splat(0),
    channels: [part_count_max]u32 = @splat(0),
};

/// The bytes are taken before it returns.
pub fn upload(cuda: *Cuda, out: Tensor, bytes: []const u8) Error!void {
    cuda.dependent_launches.follows_kernel = false;
    const d = cuda.driver;
    const result = d.cuMemcpyHtoDAsync_v2(out.address, bytes.ptr, bytes.len, cuda.stream);
    try cuda.check(.cuMemcpyHtoDAsync_v2, result, "copying to the GPU");
}

/// Waits until the bytes are there; before the copy, since that would wait in the driver, where no
/// stall is noticed.
pub fn download(cuda: *Cuda, x: Tensor, bytes: []u8) Error!void {
    cuda.dependent_launches.follows_kernel = false;
    try cuda.synchronize();
    const d = cuda.driver;
    const result = d.cuMemcpyDtoHAsync_v2(bytes.ptr, x.address, bytes.len, cuda.stream);
    try cuda.check(.cuMemcpyDtoHAsync_v2, result, "copying from the GPU");
    try cuda.synchronize();
}

pub fn copy(cuda: *Cuda, out: Tensor, x: Tensor) Error!void {
    cuda.dependent_launches.follows_kernel = false;
    const d = cuda.driver;
    const result = d.cuMemcpyDtoDAsync_v2(out.address, x.address, x.byteCount(), cuda.stream);
    try cuda.check(.cuMemcpyDtoDAsync_v2, result, "copying on the GPU");
}

pub fn zero(cuda: *Cuda, address: usize, bytes: usize) Error!void {
    cuda.dependent_launches.follows_kernel = false;
    const result = cuda.driver.cuMemsetD8Async(address, 0, bytes, cuda.stream);
    try cuda.check(.cuMemsetD8Async, result, "clearing memory");
}

pub fn activate(
    cuda: *Cuda,
    out: Tensor,
    x: Tensor,
    activation: backend.Activation,
) Error!void {
    const count: u64 = x.shape.elementCount();
    const args = .{ out.address, x.address, @intFromEnum(activation), count };
    const grid = grids.blocks(grids.packs(count));
    return cuda.launch("activate", .typed, grid, grids.block, 0, args);
}

pub fn prelu(cuda: *Cuda, out: Tensor, x: Tensor, slopes: *const Weight) Error!void {
    const count = grids.positionPacks(x, x.shape.channels);
    return cuda.launch("prelu", .typed, grids.blocks(count), grids.block, 0, .{
        out.address,      x.address, cuda.addressOrNull(slopes),
        x.shape.channels, count,
    });
}

pub fn add(cuda: *Cuda, out: Tensor, x: Tensor, y: Tensor, factor: f32) Error!void {
    const count: u64 = x.shape.elementCount();
    const args = .{ out.address, x.address, y.address, factor, count };
    const grid = grids.blocks(grids.packs(count));
    return cuda.launch("add", .typed, grid, grids.block, 0, args);
}

pub fn average(cuda: *Cuda, out: Tensor, x: Tensor, y: Tensor) Error!void {
    try add(cuda, out, x, y, 1);
    return biasActivationResidual(cuda, out, .{ .scale = 0.5 });
}

/// f32 to the activation type.
pub fn scaleRepeat(cuda: *Cuda, out: Tensor, x: Tensor, factor: f32) Error!void {
    assert(x.dtype == .f32 and out.dtype == cuda.activation);
    const count: u64 = x.shape.elementCount();
    const grid = grids.blockRows(grids.packs(count), out.shape.batch / x.shape.batch);
    const args = .{ out.address, x.address, factor, count };
    return cuda.launch("scale_repeat", .typed, grid, grids.block, 0, args);
}

pub fn geglu(cuda: *Cuda, out: Tensor, x: Tensor) Error!void {
    const count = grids.positionPacks(out, out.shape.channels);
    const args = .{ out.address, x.address, out.shape.channels, count };
    return cuda.launch("geglu", .typed, grids.blocks(count), grids.block, 0, args);
}

/// What is left of a product: bias (channels), channel_bias (batch, 1, 1, channels), residual as
/// the product.
pub const Epilogue = struct {
    scale: f32 = 1,
    bias: ?*const Weight = null,
    channel_bias: ?Tensor = null,
    activation: backend.Activation = .none,
    residual: ?Tensor = null,
};

/// x = activation(scale * x + bias + channel_bias) + residual, in place.
pub fn biasActivationResidual(cuda: *Cuda, x: Tensor, epilogue: Epilogue) Error!void {
    const count = grids.positionPacks(x, x.shape.channels);
    return cuda.launch("bias_activation_residual", .typed, grids.blocks(count), grids.block, 0, .{
        x.address,
        cuda.addressOrNull(epilogue.bias),
        grids.addressOrNull(epilogue.channel_bias),
        grids.addressOrNull(epilogue.residual),
        epilogue.scale,
        @intFromEnum(epilogue.activation),
        x.shape.channels,
        @as(u32, @intCast(x.shape.positionCount())),
        count,
    });
}

pub fn copyRows(
    cuda: *Cuda,
    out: Tensor,
    out_row_first: u32,
    x: Tensor,
    x_row_first: u32,
    row_count: u32,
) Error!void {
    const row_bytes: u64 = @as(u64, x.shape.width) * x.shape.channels * x.dtype.size();
    const run_bytes = row_count * row_bytes;
    if (run_bytes == 0) return;
    const access_count = std.math.divCeil(u64, run_bytes, 16) catch unreachable;
    const grid = grids.blockRows(access_count, x.shape.batch);
    return cuda.launch("copy_rows", .untyped, grid, grids.block, 0, .{
        out.address + out_row_first * row_bytes,
        x.address + x_row_first * row_bytes,
        run_bytes,
        out.shape.rows * row_bytes,
        x.shape.rows * row_bytes,
    });
}

pub fn extrapolateRows(cuda: *Cuda, out: Tensor, o: backend.ExtrapolateRows) Error!void {
    const channels_per_block = 32;
    const grid: cudas.Dim3 = .{
        .x = std.math.divCeil(u32, out.shape.channels, channels_per_block) catch unreachable,
        .y = out.shape.batch,
    };
    return cuda.launch("extrapolate_rows", .typed, grid, grids.block, 0, .{
        out.address,       o.old.address,       o.older.address, o.own_now.address,
        o.own_old.address, o.own_older.address, out.shape.width, out.shape.channels,
    });
}

pub fn quantizeChange(cuda: *Cuda, o: backend.Change, value: Tensor) Error!void {
    const groups = changeGroups(o);
    return cuda.launch("quantize_change", .typed, groups.grid, grids.block, 0, .{
        o.change.address, o.view.address, value.address, groups.per_row,
        o.format.group,   o.format.bits,  groups.count,
    });
}

pub fn applyChange(cuda: *Cuda, o: backend.Change) Error!void {
    const groups = changeGroups(o);
    return cuda.launch("apply_change", .typed, groups.grid, grids.block, 0, .{
        o.view.address, o.change.address, groups.per_row,
        o.format.group, o.format.bits,    groups.count,
    });
}

/// A warp for each group of channels.
fn changeGroups(o: backend.Change) struct { per_row: u32, count: u64, grid: cudas.Dim3 } {
    const per_row = o.view.shape.channels / o.format.group;
    const count = @as(u64, o.view.shape.rowCount()) * per_row;
    return .{ .per_row = per_row, .count = count, .grid = grids.blocks(count * 32) };
}

pub fn concatChannels(cuda: *Cuda, out: Tensor, parts: []const Tensor) Error!void {
    assert(parts.len <= part_count_max);
    assert(out.dtype.size() == 2);
    var list: ConcatParts = .{};
    var widest: u32 = 0;
    for (parts, 0..) |part, i| {
        assert(part.dtype == out.dtype);
        list.data[i] = part.address;
        list.channels[i] = part.shape.channels;
        widest = @max(widest, part.shape.channels);
    }
    const rows: u32 = @intCast(out.shape.rowCount());
    const grid = grids.blockRows(grids.positionPacks(out, widest), parts.len);
    const args = .{ out.address, list, out.shape.channels, rows };
    return cuda.launch("concat_channels", .untyped, grid, grids.block, 0, args);
}
