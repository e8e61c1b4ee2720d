//! What a session will be asked for first, as far as its shape is known before weights load: an
//! image, its second pass, and what enlarges it between the two. What of it cannot fit into memory
//! is refused then, and it is what a plan reports.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Adapter = @import("../weights.zig").adapters.Adapter;
const Description = @import("networks.zig").Description;
const pipeline = @import("../pipeline.zig");
const Job = pipeline.Job;

/// Each is a job of its own, and keeps no network of another.
pub const Pass = enum { image, upscale, second };

pub const First = struct {
    image: FirstImage,
    second: ?FirstImage = null,
    upscale: ?FirstUpscale = null,
    /// Of both images.
    adapters: []const Adapter = &.{},

    /// To be freed by `deinit`; null where there is no such pass.
    pub fn job(first: *const First, pass: Pass, gpa: Allocator) Allocator.Error!?Job {
        return switch (pass) {
            .image => try first.image.job(gpa),
            .second => if (first.second) |*image| try image.job(gpa) else null,
            .upscale => if (first.upscale) |*upscale| upscale.job(gpa) else null,
        };
    }
};

/// The shape of an image; its inputs have no values yet.
pub const FirstImage = struct {
    latent_rows: u32,
    latent_width: u32,
    branch_count: u32,
    split_batch: bool,
    image_count: u32,
    vae_tile_latent: u32,
    /// Steps between previews; 0 for none.
    preview_steps: u32,
    /// Of a prompt: one chunk.
    token_count: u32,
    has_image: bool = false,
    has_mask: bool = false,
    skips_decode: bool = false,
    /// Its networks, and its uses of them without hints; the caller's memory.
    networks: []const Description = &.{},
    controls: []const pipeline.ControlUse = &.{},
    ip_adapters: []const pipeline.IpAdapterUse = &.{},

    /// To be freed by `deinit`.
    fn job(first: *const FirstImage, gpa: Allocator) Allocator.Error!Job {
        var result: Job = .{
            .arena = .init(gpa),
            .kind = .image,
            .latent_rows = first.latent_rows,
            .latent_width = first.latent_width,
            .branch_count = first.branch_count,
            .split_batch = first.split_batch,
            .vae_tile_latent = first.vae_tile_latent,
            .preview_steps = first.preview_steps,
            .skips_decode = first.skips_decode,
        };
        errdefer result.deinit();
        const arena = result.arena.allocator();
        result.seeds = try arena.alloc(u64, first.image_count);
        const ids = try arena.alloc(i32, first.token_count);
        @memset(ids, 0);
        const prompt_count = first.image_count * result.promptCount();
        const prompts = try arena.alloc(pipeline.Tokens, prompt_count);
        @memset(prompts, .{ .ids = ids, .ids_2 = ids });
        result.prompts = prompts;
        // A dry run reads no values.
        if (first.has_image) result.image = try arena.alloc(u8, 1);
        if (first.has_mask) result.mask = try arena.alloc(u8, 1);
        result.image_scale = 1;
        result.networks = first.networks;
        result.controls = first.controls;
        result.ip_adapters = first.ip_adapters;
        return result;
    }
};

pub const FirstUpscale = struct {
    /// Of the one network; the caller's memory.
    networks: []const Description,
    size: pipeline.Upscale,

    fn job(first: *const FirstUpscale, gpa: Allocator) Job {
        return .{
            .arena = .init(gpa),
            .kind = .upscale,
            .latent_rows = 1,
            .latent_width = 1,
            .networks = first.networks,
            .upscale = first.size,
        };
    }
};
