//! Copies, sums, embeddings and the sampler's update. Small operations of a few hundred numbers
//! (sinusoids, gathered rows) run here on the calling thread; the rest runs in kernels.

const std = @import("std");
const assert = std.debug.assert;
const arguments = @import("arguments.zig");
const backend = @import("../../backend.zig");
const blocks = @import("blocks.zig");
const ops_product = @import("ops_product.zig");
const random_philox = @import("../../random/philox.zig");
const Cpu = @import("../cpu.zig").Cpu;
const Draw = random_philox.Draw;
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;
const count = blocks.count;
const floats = ops_product.floats;

const task_elements = 64 * 1024;
const part_count_max = 16;

pub fn upload(_: *Cpu, out: Tensor, bytes: []const u8) error{}!void {
    @memcpy(bytesOf(out), bytes);
}

pub fn download(_: *Cpu, x: Tensor, bytes: []u8) error{}!void {
    @memcpy(bytes, bytesOf(x));
}

pub fn copy(cpu: *Cpu, out: Tensor, x: Tensor) error{Cancelled}!void {
    const args: arguments.Copy = .{
        .source = @ptrFromInt(x.address),
        .target = @ptrFromInt(out.address),
        .byte_count = x.byteCount(),
        .bytes_per_task = task_elements * @sizeOf(f32),
    };
    return cpu.pool.run(cpu.kernels.copy, &args, count(args.byte_count, args.bytes_per_task));
}

pub fn isFinite(cpu: *Cpu, x: Tensor) error{Cancelled}!bool {
    assert(x.dtype == .f32);
    var found: u32 = 0;
    const args: arguments.CheckFinite = .{
        .x = floats(x),
        .count = x.shape.elementCount(),
        .count_per_task = task_elements,
        .found = &found,
    };
    try cpu.pool.run(cpu.kernels.check_finite, &args, count(args.count, task_elements));
    return found == 0;
}

pub fn beginFiniteCheck(
    cpu: *Cpu,
    x: Tensor,
    number: backend.FiniteCheck,
) error{Cancelled}!void {
    cpu.are_finite.set(number, try isFinite(cpu, x));
}

pub fn endFiniteCheck(cpu: *Cpu, number: backend.FiniteCheck) error{Cancelled}!bool {
    return cpu.are_finite.get(number);
}

pub fn activate(
    cpu: *Cpu,
    out: Tensor,
    x: Tensor,
    activation: backend.Activation,
) error{Cancelled}!void {
    return elementwise(cpu, cpu.kernels.activate, .{
        .x = floats(x),
        .out = floats(out),
        .count = x.shape.elementCount(),
        .count_per_task = task_elements / 4,
        .activation = ops_product.activationOf(activation),
    });
}

pub fn prelu(cpu: *Cpu, out: Tensor, x: Tensor, slopes: *const Weight) error{Cancelled}!void {
    const args: arguments.Prelu = .{
        .x = floats(x),
        .out = floats(out),
        .slopes = ops_product.vectorOf(slopes),
        .rows = x.shape.rowCount(),
        .rows_per_task = @max(1, task_elements / x.shape.channels),
        .channels = x.shape.channels,
    };
    return cpu.pool.run(cpu.kernels.prelu, &args, count(args.rows, args.rows_per_task));
}

pub fn add(cpu: *Cpu, out: Tensor, x: Tensor, y: Tensor, factor: f32) error{Cancelled}!void {
    return elementwise(cpu, cpu.kernels.add, .{
        .x = floats(x),
        .y = floats(y),
        .out = floats(out),
        .count = x.shape.elementCount(),
        .count_per_task = task_elements,
        .factor = factor,
    });
}

pub fn average(cpu: *Cpu, out: Tensor, x: Tensor, y: Tensor) error{Cancelled}!void {
    try add(cpu, out, x, y, 1);
    return scaleRepeat(cpu, out, out, 0.5);
}

pub fn scaleRepeat(cpu: *Cpu, out: Tensor, x: Tensor, factor: f32) error{Cancelled}!void {
    const element_count = x.shape.elementCount();
    for (0..out.shape.batch / x.shape.batch) |repeat| {
        try elementwise(cpu, cpu.kernels.scale, .{
            .x = floats(x),
            .out = floats(out) + repeat * element_count,
            .count = element_count,
            .count_per_task = task_elements,
            .factor = factor,
        });
    }
}

pub fn geglu(cpu: *Cpu, out: Tensor, x: Tensor) error{Cancelled}!void {
    const rows = out.shape.rowCount();
    const args: arguments.Geglu = .{
        .x = floats(x),
        .out = floats(out),
        .rows = rows,
        .rows_per_task = @max(1, task_elements / 4 / out.shape.channels),
        .channels = out.shape.channels,
    };
    return cpu.pool.run(cpu.kernels.geglu, &args, count(rows, args.rows_per_task));
}

/// Runs on the calling thread: a few rows are not worth waking the pool.
pub fn copyRows(
    _: *Cpu,
    out: Tensor,
    out_row_first: u32,
    x: Tensor,
    x_row_first: u32,
    row_count: u32,
) error{}!void {
    const row = @as(usize, x.shape.width) * x.shape.channels * x.dtype.size();
    const source: [*]const u8 = @ptrFromInt(x.address);
    const target: [*]u8 = @ptrFromInt(out.address);
    for (0..x.shape.batch) |batch| {
        const from = source + (batch * x.shape.rows + x_row_first) * row;
        const to = target + (batch * out.shape.rows + out_row_first) * row;
        @memcpy(to[0 .. row_count * row], from[0 .. row_count * row]);
    }
}

pub fn quantizeChange(cpu: *Cpu, o: backend.Change, value: Tensor) error{Cancelled}!void {
    const args = changeArguments(o, value);
    const tasks = count(args.rows, args.rows_per_task);
    return cpu.pool.run(cpu.kernels.quantize_change, &args, tasks);
}

pub fn applyChange(cpu: *Cpu, o: backend.Change) error{Cancelled}!void {
    const args = changeArguments(o, o.view);
    return cpu.pool.run(cpu.kernels.apply_change, &args, count(args.rows, args.rows_per_task));
}

fn changeArguments(o: backend.Change, value: Tensor) arguments.Change {
    const channels = o.view.shape.channels;
    return .{
        .change = @ptrFromInt(o.change.address),
        .view = floats(o.view),
        .value = floats(value),
        .rows = o.view.shape.rowCount(),
        .rows_per_task = @max(1, task_elements / 2 / channels),
        .channels = channels,
        .group = o.format.group,
        .bits = o.format.bits,
    };
}

/// Runs on the calling thread: one row of an image, read five times.
pub fn extrapolateRows(cpu: *Cpu, out: Tensor, o: backend.ExtrapolateRows) error{}!void {
    const channels: usize = out.shape.channels;
    const width: usize = out.shape.width;
    const sums = cpu.reduction_workspace[0 .. 2 * channels];
    for (0..out.shape.batch) |batch| {
        const first = batch * width * channels;
        const own_now = floats(o.own_now) + first;
        const own_old = floats(o.own_old) + first;
        const own_older = floats(o.own_older) + first;
        @memset(sums, 0);
        for (0..width) |x| {
            for (0..channels) |c| {
                const i = x * channels + c;
                const change: f64 = own_now[i] - own_old[i];
                const change_before: f64 = own_old[i] - own_older[i];
                sums[c] += change * change_before;
                sums[channels + c] += change_before * change_before;
            }
        }
        for (sums[0..channels], sums[channels..]) |*ratio, square| {
            ratio.* = if (square > 0) std.math.clamp(ratio.* / square, 0, 1) else 0;
        }
        const old = floats(o.old) + first;
        const older = floats(o.older) + first;
        const target = floats(out) + first;
        for (0..width) |x| {
            for (0..channels) |c| {
                const i = x * channels + c;
                const a: f32 = @floatCast(sums[c]);
                target[i] = old[i] + a * (old[i] - older[i]);
            }
        }
    }
}

pub fn concatChannels(cpu: *Cpu, out: Tensor, parts: []const Tensor) error{Cancelled}!void {
    assert(parts.len <= part_count_max);
    var list: [part_count_max]arguments.ConcatPart = undefined;
    for (parts, list[0..parts.len]) |part, *item| {
        item.* = .{ .data = floats(part), .channels = part.shape.channels };
    }
    const rows = out.shape.rowCount();
    const args: arguments.Concat = .{
        .parts = &list,
        .part_count = parts.len,
        .out = floats(out),
        .channels = out.shape.channels,
        .rows = rows,
        .rows_per_task = @max(1, task_elements / out.shape.channels),
    };
    return cpu.pool.run(cpu.kernels.concat, &args, count(rows, args.rows_per_task));
}

pub fn embedTokens(
    cpu: *Cpu,
    out: Tensor,
    ids: Tensor,
    token_weight: *const Weight,
    position_weight: *const Weight,
    injected: ?Tensor,
) error{Cancelled}!void {
    const args: arguments.EmbedTokens = .{
        .ids = @ptrFromInt(ids.address),
        .tokens_per_batch = ids.shape.positionCount(),
        .token_weight = @ptrFromInt(token_weight.address),
        .position_weight = @ptrFromInt(position_weight.address),
        .injected = if (injected) |rows| @ptrFromInt(rows.address) else null,
        .token_type = ops_product.weightTypeOf(token_weight.dtype),
        .position_type = ops_product.weightTypeOf(position_weight.dtype),
        .token_scales = ops_product.scalesOf(token_weight),
        .position_scales = ops_product.scalesOf(position_weight),
        .vocabulary_count = token_weight.shape[0],
        .channels = out.shape.channels,
        .out = floats(out),
    };
    return cpu.pool.run(cpu.kernels.embed_tokens, &args, ids.shape.elementCount());
}

pub fn gatherTokens(
    _: *Cpu,
    out: Tensor,
    x: Tensor,
    indices: Tensor,
) error{Cancelled}!void {
    const channels: usize = x.shape.channels;
    const tokens = x.shape.positionCount();
    for (indices.host(u32), 0..) |index, batch| {
        const token = @min(index, tokens - 1);
        const row = x.host(f32)[(batch * tokens + token) * channels ..][0..channels];
        @memcpy(out.host(f32)[batch * channels ..][0..channels], row);
    }
}

/// Rounds to f32 where diffusers' `get_timestep_embedding` does, since the sine of a large argument
/// magnifies every earlier rounding; exp, sin and cos themselves are taken in f64.
pub fn sinusoidalEmbedding(
    _: *Cpu,
    out: Tensor,
    values: Tensor,
    flip_sin_to_cos: bool,
    frequency_shift: f32,
) error{Cancelled}!void {
    const half: usize = out.shape.channels / 2;
    const divisor: f32 = @floatCast(@as(f64, @floatFromInt(half)) - frequency_shift);
    const rate: f32 = @floatCast(-@log(@as(f64, 10_000)));
    for (values.host(f32), 0..) |value, row| {
        const target = out.host(f32)[row * 2 * half ..][0 .. 2 * half];
        const sines = if (flip_sin_to_cos) target[half..] else target[0..half];
        const cosines = if (flip_sin_to_cos) target[0..half] else target[half..];
        for (sines, cosines, 0..) |*sine, *cosine, i| {
            const exponent = rate * @as(f32, @floatFromInt(i)) / divisor;
            const frequency: f32 = @floatCast(@exp(@as(f64, exponent)));
            const angle: f64 = value * frequency;
            sine.* = @floatCast(@sin(angle));
            cosine.* = @floatCast(@cos(angle));
        }
    }
}

pub fn latentStep(cpu: *Cpu, step: backend.LatentStep) error{Cancelled}!void {
    const element_count = step.latent.shape.elementCount();
    const rescales = step.branchCount() > 1 and step.rescale != 0;
    var model_outputs: [arguments.model_output_count][*]f32 = undefined;
    for (step.model_outputs, &model_outputs) |tensor, *address| address.* = floats(tensor);
    const args: arguments.LatentStep = .{
        .latent = floats(step.latent),
        .auxiliary = floats(step.auxiliary),
        .model_outputs = model_outputs,
        .model_output = floats(step.model_output),
        .branch_count = step.branchCount(),
        .noise = if (step.noise) |noise| floats(noise) else null,
        .count = element_count,
        .count_per_task = task_elements / 4,
        .guidance_scales = step.guidance_scales.ptr,
        .guidance_factors = if (rescales) guidanceFactors(cpu, step) else null,
        .image_count = element_count / step.latent.shape.batch,
        .output_from_sample = step.coefficients.output_from_sample,
        .output_from_model = step.coefficients.output_from_model,
        .latent_update = updateOf(step.coefficients.latent),
        .auxiliary_update = updateOf(step.coefficients.auxiliary),
        .updates_auxiliary = step.coefficients.updates_auxiliary != 0,
    };
    return cpu.pool.run(cpu.kernels.latent_step, &args, count(element_count, args.count_per_task));
}

/// Runs on the calling thread: a tenth of a millisecond at 1024x1024.
pub fn maskBlend(_: *Cpu, blend: backend.MaskBlend) error{}!void {
    const channels: usize = blend.latent.shape.channels;
    const mask = blend.mask.host(f32);
    const known = blend.known.host(f32);
    for (blend.latent.host(f32), known, blend.noise.host(f32), 0..) |*x, own, z, i| {
        const m = mask[i / channels % mask.len];
        x.* = (1 - m) * (blend.signal * own + blend.noise_scale * z) + m * x.*;
    }
}

pub fn philoxNormal(_: *Cpu, out: Tensor, draw: Draw, scale: f32) error{}!void {
    random_philox.fill(draw, out.host(f32), out.shape.channels, scale);
}

pub fn toRgb(cpu: *Cpu, out: Tensor, x: Tensor) error{Cancelled}!void {
    assert(out.dtype == .u8 and x.dtype == .f32);
    const args: arguments.ToRgb = .{
        .x = floats(x),
        .out = @ptrFromInt(out.address),
        .count = x.shape.elementCount(),
        .count_per_task = task_elements,
    };
    return cpu.pool.run(cpu.kernels.to_rgb, &args, count(args.count, task_elements));
}

// --- internal ---

fn elementwise(
    cpu: *Cpu,
    kernel: arguments.Kernel,
    args: arguments.Elementwise,
) error{Cancelled}!void {
    return cpu.pool.run(kernel, &args, count(args.count, args.count_per_task));
}

/// diffusers' rescale_noise_cfg: one factor per image, from the standard deviations of the
/// positive output and of the guided one. Runs on the calling thread: the tensors are small.
fn guidanceFactors(cpu: *Cpu, step: backend.LatentStep) [*]const f32 {
    const image_count = step.latent.shape.batch;
    const factors: [*]f32 = @ptrCast(cpu.reduction_workspace.ptr);
    assert(image_count <= cpu.reduction_workspace.len);
    const element_count = step.latent.shape.elementCount();
    const per_image = element_count / image_count;
    const others = step.branchCount() - 1;
    for (0..image_count) |image| {
        const output = floats(step.model_output) + image * per_image;
        const scales = step.guidance_scales[image * others ..][0..others];
        var scale_sum: f32 = 0;
        for (scales) |scale| scale_sum += scale;
        var sums: [4]f64 = @splat(0);
        for (0..per_image) |i| {
            const negative = output[i];
            var guided_f32 = negative;
            var mean: f32 = 0;
            for (scales, 1..) |scale, k| {
                const positive = output[k * element_count + i];
                guided_f32 += scale * (positive - negative);
                mean += scale / scale_sum * positive;
            }
            const p = if (others == 1) output[element_count + i] else mean;
            const guided: f64 = guided_f32;
            sums[0] += p;
            sums[1] += @as(f64, p) * p;
            sums[2] += guided;
            sums[3] += guided * guided;
        }
        for (&sums) |*sum| sum.* /= @floatFromInt(per_image);
        const ratio = @sqrt((sums[1] - sums[0] * sums[0]) / (sums[3] - sums[2] * sums[2]));
        factors[image] = @floatCast(step.rescale * ratio + 1 - step.rescale);
    }
    return factors;
}

fn updateOf(update: backend.Update) arguments.LatentUpdate {
    comptime assert(backend.model_output_count == arguments.model_output_count);
    return .{
        .sample = update.sample,
        .auxiliary = update.auxiliary,
        .model_outputs = update.model_outputs,
        .noise = update.noise,
    };
}

fn bytesOf(tensor: Tensor) []u8 {
    const first: [*]u8 = @ptrFromInt(tensor.address);
    return first[0..tensor.byteCount()];
}
