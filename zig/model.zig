//! The four components of SDXL with their weights, shared by all ranks of one device.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const weights = @import("weights.zig");
const configs = @import("model/config.zig");
pub const ModelConfig = configs.ModelConfig;
pub const ClipTextModel = @import("model/clip.zig").ClipTextModel;
pub const UNet = @import("model/unet.zig").UNet;
pub const Vae = @import("model/vae.zig").Vae;

pub const Component = enum { text_encoder, text_encoder_2, unet, vae };
pub const component_count = @typeInfo(Component).@"enum".fields.len;

/// The files of each component: one, or all shards.
pub const Files = std.EnumArray(Component, []const []const u8);

pub const Model = struct {
    arena: std.heap.ArenaAllocator,
    config: ModelConfig,
    stores: std.EnumArray(Component, weights.Store),
    text_encoder: ClipTextModel,
    text_encoder_2: ClipTextModel,
    unet: UNet,
    vae: Vae,

    pub const Error = weights.Error || configs.Error;

    /// Maps the files and checks every key and shape, without touching the data; the graph can be
    /// planned afterwards. `model` must not move.
    pub fn open(
        model: *Model,
        gpa: Allocator,
        io: Io,
        config: *const ModelConfig,
        files: Files,
        diagnostics: *Diagnostics,
    ) Error!void {
        try configs.check(config, diagnostics);
        model.arena = .init(gpa);
        errdefer model.arena.deinit();
        model.config = config.*;
        var opened: usize = 0;
        errdefer for (model.stores.values[0..opened]) |*store| store.close();
        for (&model.stores.values, files.values) |*store, paths| {
            try store.open(gpa, io, paths, diagnostics);
            opened += 1;
        }
        const arena = model.arena.allocator();
        const c = &model.config;
        model.text_encoder = try .load(arena, model.view(.text_encoder), &c.clip);
        model.text_encoder_2 = try .load(arena, model.view(.text_encoder_2), &c.clip_2);
        model.unet = try .load(arena, model.view(.unet), &c.unet);
        model.vae = try .load(arena, model.view(.vae), &c.vae);
        for (&model.stores.values) |*store| try store.refuseUnused();
    }

    pub fn close(model: *Model) void {
        for (&model.stores.values) |*store| store.close();
        model.arena.deinit();
        model.* = undefined;
    }

    /// Bytes that the weights take: mapped files, and copies in anonymous memory.
    pub fn weightBytes(model: *const Model) struct { mapped: usize, copied: usize } {
        var mapped: usize = 0;
        var copied: usize = 0;
        for (&model.stores.values) |*store| {
            mapped += store.mappedBytes();
            copied += store.copiedBytes();
        }
        return .{ .mapped = mapped, .copied = copied };
    }

    fn view(model: *Model, component: Component) weights.View {
        return model.stores.getPtr(component).view();
    }
};
