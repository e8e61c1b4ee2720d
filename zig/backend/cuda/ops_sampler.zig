//! Launchers of the sampler: guidance and the latent's update, noise, the image's bytes.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const grids = @import("grids.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const Tensor = @import("../../tensor.zig").Tensor;
const Draw = @import("../../random/philox.zig").Draw;

/// Layout of `Cuda.reduction_workspace`: a step's coefficients, the guidance scales and a factor of
/// each image, then the sums that the factors are computed from.
const step_bytes = 256;
const factor_bytes = 4096;
const guidance_slab_count = 32;
const guidance_block_size = 256;
/// Images of one batch.
pub const image_count_max = factor_bytes / @sizeOf(f32);
/// Of as many images with 16 prompts each.
const scale_bytes = 4096;
const sums_first = step_bytes + scale_bytes + factor_bytes;

comptime {
    assert(@sizeOf(backend.StepCoefficients) <= step_bytes);
}

/// Must match latent_step::Problem in cuda/latent_step.cu.
const LatentStepProblem = extern struct {
    step: usize,
    guidance_scales: usize,
    factors: usize,
    latent: usize,
    auxiliary: usize,
    outputs: [backend.model_output_count]usize,
    model_output: usize,
    noise: usize,
    image_count: u64,
    count: u64,
    branch_count: u64,
};

pub fn latentStep(cuda: *Cuda, step: backend.LatentStep) Error!void {
    const image_count = step.latent.shape.batch;
    const count: u64 = step.latent.shape.elementCount();
    const branch_count = step.branchCount();
    cuda.dependent_launches.follows_kernel = false;
    const result = cuda.driver.cuMemcpyHtoDAsync_v2(
        cuda.reduction_workspace,
        &step.coefficients,
        @sizeOf(backend.StepCoefficients),
        cuda.stream,
    );
    try cuda.check(.cuMemcpyHtoDAsync_v2, result, "uploading a step's coefficients");
    const scales = if (branch_count > 1) try guidanceScales(cuda, step) else 0;
    assert(step.latent.dtype == .f32);
    const is_f32 = step.model_output.dtype == .f32;
    assert(is_f32 or step.model_output.dtype == cuda.activation);
    const rescales = branch_count > 1 and step.rescale != 0;
    assert(!rescales or !is_f32);
    const problem: LatentStepProblem = .{
        .step = cuda.reduction_workspace,
        .guidance_scales = scales,
        .factors = if (rescales) try guidanceFactors(cuda, step, scales) else 0,
        .latent = step.latent.address,
        .auxiliary = step.auxiliary.address,
        .outputs = .{
            step.model_outputs[0].address,
            step.model_outputs[1].address,
            step.model_outputs[2].address,
            step.model_outputs[3].address,
        },
        .model_output = step.model_output.address,
        .noise = grids.addressOrNull(step.noise),
        .image_count = count / image_count,
        .count = count,
        .branch_count = branch_count,
    };
    const grid = grids.blocks(count);
    if (is_f32) return cuda.launch("latent_step_f32", .untyped, grid, grids.block, 0, .{problem});
    return cuda.launch("latent_step", .typed, grid, grids.block, 0, .{problem});
}

pub fn maskBlend(cuda: *Cuda, blend: backend.MaskBlend) Error!void {
    const count: u64 = blend.latent.shape.elementCount();
    return cuda.launch("mask_blend", .untyped, grids.blocks(count), grids.block, 0, .{
        blend.latent.address,
        blend.known.address,
        blend.noise.address,
        blend.mask.address,
        blend.signal,
        blend.noise_scale,
        @as(u64, blend.latent.shape.channels),
        @as(u64, blend.latent.shape.positionCount()),
        count,
    });
}

pub fn toRgb(cuda: *Cuda, out: Tensor, x: Tensor) Error!void {
    assert(out.dtype == .u8);
    const count: u64 = x.shape.elementCount();
    const grid = grids.blocks(grids.packs(count));
    const args = .{ out.address, x.address, count };
    if (x.dtype == .f32) return cuda.launch("to_rgb_f32", .untyped, grid, grids.block, 0, args);
    assert(x.dtype == cuda.activation);
    return cuda.launch("to_rgb", .typed, grid, grids.block, 0, args);
}

/// One image's next numbers of torch.randn on a CUDA device: out (1, rows, width, channels) f32,
/// drawn in torch's order (channels, rows, width).
pub fn philoxNormal(cuda: *Cuda, out: Tensor, draw: Draw, scale: f32) Error!void {
    assert(out.dtype == .f32 and out.shape.batch == 1);
    const grid = grids.blocks(draw.thread_count);
    return cuda.launch("philox_normal", .untyped, grid, grids.block, 0, .{
        out.address,
        draw.seed,
        draw.turn_first,
        out.shape.channels,
        @as(u64, out.shape.positionCount()),
        draw.thread_count,
        draw.element_first,
        scale,
    });
}

// --- internal ---

/// The device address of the guidance scales of each image.
fn guidanceScales(cuda: *Cuda, step: backend.LatentStep) Error!usize {
    const bytes = std.mem.sliceAsBytes(step.guidance_scales);
    assert(bytes.len <= scale_bytes);
    const address = cuda.reduction_workspace + step_bytes;
    cuda.dependent_launches.follows_kernel = false;
    const result = cuda.driver.cuMemcpyHtoDAsync_v2(address, bytes.ptr, bytes.len, cuda.stream);
    try cuda.check(.cuMemcpyHtoDAsync_v2, result, "uploading guidance scales");
    return address;
}

/// The device address of a factor for each image.
fn guidanceFactors(cuda: *Cuda, step: backend.LatentStep, scales: usize) Error!usize {
    const images = step.latent.shape.batch;
    const factors = cuda.reduction_workspace + step_bytes + scale_bytes;
    const sums = cuda.reduction_workspace + sums_first;
    const sum_bytes = images * guidance_slab_count * 4 * @sizeOf(f64);
    assert(images <= image_count_max);
    assert(sums_first + sum_bytes <= cudas.reduction_workspace_bytes);
    const per_image: u64 = step.latent.shape.elementCount() / images;
    const grid: cudas.Dim3 = .{ .x = guidance_slab_count, .y = images };
    try cuda.launch("guidance_sums", .typed, grid, .{ .x = guidance_block_size }, 0, .{
        sums, step.model_output.address, scales, per_image, step.branchCount(),
    });
    try cuda.launch("guidance_factors", .untyped, .{ .x = images }, .{ .x = 32 }, 0, .{
        factors,
        sums,
        step.rescale,
        @as(u32, guidance_slab_count),
        per_image,
    });
    return factors;
}
