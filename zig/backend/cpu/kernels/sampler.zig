//! The sampler's update of the latent and the conversion of the decoded image to bytes. Latents
//! are small and every later step builds on them, so sums are taken in f64 and rounded once.

const arguments = @import("../arguments.zig");
const LatentStep = arguments.LatentStep;
const LatentUpdate = arguments.LatentUpdate;

pub fn latentStep(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const LatentStep = @ptrCast(@alignCast(args));
    const first = task * a.count_per_task;
    for (first..@min(first + a.count_per_task, a.count)) |i| {
        const x: f64 = a.latent[i];
        const s: f64 = a.auxiliary[i];
        const newest: f32 = @floatCast(
            a.output_from_sample * x + a.output_from_model * @as(f64, guided(a, i)),
        );
        a.model_outputs[0][i] = newest;
        a.latent[i] = combine(&a.latent_update, a, x, s, i);
        if (a.updates_auxiliary) a.auxiliary[i] = combine(&a.auxiliary_update, a, x, s, i);
    }
}

/// Classifier-free guidance in f32, step by step as diffusers' pipeline.
inline fn guided(a: *const LatentStep, i: usize) f32 {
    const negative = a.model_output[i];
    if (a.branch_count == 1) return negative;
    const scales = a.guidance_scales + i / a.image_count * (a.branch_count - 1);
    var output = negative;
    for (1..a.branch_count) |k| {
        output += scales[k - 1] * (a.model_output[k * a.count + i] - negative);
    }
    const factors = a.guidance_factors orelse return output;
    return output * factors[i / a.image_count];
}

/// Registers with factor 0 are not read: they may hold anything.
inline fn combine(update: *const LatentUpdate, a: *const LatentStep, x: f64, s: f64, i: usize) f32 {
    var sum = update.sample * x;
    if (update.auxiliary != 0) sum += update.auxiliary * s;
    inline for (0..arguments.model_output_count) |k| {
        const weight: f64 = update.model_outputs[k];
        if (weight != 0) sum += weight * a.model_outputs[k][i];
    }
    if (update.noise != 0) sum += @as(f64, update.noise) * a.noise.?[i];
    return @floatCast(sum);
}

/// round(255 * clamp(x / 2 + 0.5, 0, 1)) in f32, ties to even: adding 2^23 leaves no fraction.
pub fn toRgb(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.ToRgb = @ptrCast(@alignCast(args));
    const first = task * a.count_per_task;
    const magic: f32 = 0x1p23;
    for (first..@min(first + a.count_per_task, a.count)) |i| {
        const level = a.x[i] / 2 + 0.5;
        // Written so that NaN becomes 0.
        const limited: f32 = if (level > 0) (if (level < 1) level else 1) else 0;
        const rounded = (limited * 255 + magic) - magic;
        a.out[i] = @intFromFloat(rounded);
    }
}
