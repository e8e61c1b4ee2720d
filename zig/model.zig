//! A model of the SDXL family with its weights: one or two text encoders, a UNet and a VAE. All
//! ranks of a process share it. In reading order:
//!
//! - `model/config.zig` has the configuration.
//! - `model/clip.zig` is a text encoder.
//! - `model/unet.zig` predicts noise, with the blocks of `model/unet_blocks.zig`.
//! - `model/conditioning.zig` and `model/time_embedding.zig` are what its blocks read of prompts.
//! - `model/additions.zig` is what other networks add to it.
//! - `model/transformer.zig` and `model/resnet.zig` are the parts of those blocks.
//! - `model/layers.zig` has the layers; three of them exchange data with other patches.
//! - `model/vae.zig` encodes and decodes images.
//! - `model/taesd.zig` decodes them roughly, for previews.
//! - `model/upscaler.zig` enlarges images.
//! - `model/network.zig` is a network beside the model, which jobs name: `model/controlnet.zig`,
//!   `model/t2i_adapter.zig`, `model/ip_adapter.zig`, and `model/clip_vision.zig`, which shows
//!   images to that.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Diagnostics = @import("diagnostics.zig").Diagnostics;
const shown = @import("weights/shown.zig").shown;
const weights = @import("weights.zig");
const configs = @import("model/config.zig");
pub const ModelConfig = configs.ModelConfig;
pub const ClipTextModel = @import("model/clip.zig").ClipTextModel;
pub const UNet = @import("model/unet.zig").UNet;
pub const Vae = @import("model/vae.zig").Vae;
pub const networks = @import("model/network.zig");
pub const Network = networks.Network;
pub const image_use_count_max = @import("model/transformer.zig").image_use_count_max;
pub const TinyDecoder = @import("model/taesd.zig").TinyDecoder;
pub const Upscaler = @import("model/upscaler.zig").Upscaler;

pub const Component = weights.Component;

pub const ComponentFiles = weights.Files;
pub const WeightName = weights.Name;

/// The files of each component.
pub const Files = std.EnumArray(Component, ComponentFiles);

/// Tensors that a warning lists by name.
const unused_shown_max = 5;

pub const Model = struct {
    arena: std.heap.ArenaAllocator,
    config: ModelConfig,
    /// Warnings about ignored tensors: sentences, each ended by a 0 byte.
    warnings: []const u8,
    /// Null where the model has no such component.
    residents: std.EnumArray(Component, ?weights.Resident),
    /// The weights of all components, in the order in which the model took them.
    weights: []const *weights.Weight,
    /// Null in models with one encoder, such as refiners.
    text_encoder: ?ClipTextModel,
    text_encoder_2: ?ClipTextModel,
    unet: UNet,
    vae: Vae,
    /// Null where previews are made of the latent.
    taesd: ?TinyDecoder,

    pub const Error = weights.Error || configs.Error;

    /// Maps the files and checks every key and shape without reading the data: enough for a dry
    /// run. `model` must not move.
    pub fn open(
        model: *Model,
        gpa: Allocator,
        io: Io,
        config: *const ModelConfig,
        files: Files,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!void {
        try configs.check(config, diagnostics);
        model.arena = .init(gpa);
        errdefer model.arena.deinit();
        model.config = config.*;
        model.residents = .initFill(null);
        errdefer model.closeResidents();
        for (std.enums.values(Component)) |component| {
            const resident = model.residents.getPtr(component);
            if (!model.has(component)) continue;
            resident.* = try .open(gpa, io, files.get(component), interrupt, diagnostics);
        }
        const arena = model.arena.allocator();
        const c = &model.config;
        const text = &c.text;
        model.text_encoder = try model.loadEncoder(.text_encoder, &text.text_encoder);
        model.text_encoder_2 = try model.loadEncoder(.text_encoder_2, &text.text_encoder_2);
        model.unet = try .load(arena, model.view(.unet), &c.unet);
        model.vae = try .load(arena, model.view(.vae), &c.vae);
        model.taesd = if (model.has(.taesd))
            try .load(arena, model.view(.taesd), &c.taesd, c.vae.latent_channels)
        else
            null;
        model.weights = try model.weightsOf(arena);
        model.warnings = try model.warningsOf(arena);
    }

    pub fn close(model: *Model) void {
        model.closeResidents();
        model.arena.deinit();
        model.* = undefined;
    }

    /// Bytes of the weights: mapped files, and copies in anonymous memory.
    pub fn weightBytes(model: *const Model) struct { mapped: usize, copied: usize } {
        var mapped: usize = 0;
        var copied: usize = 0;
        for (&model.residents.values) |*maybe| {
            const resident = if (maybe.*) |*r| r else continue;
            mapped += resident.checkpoint.mappedBytes();
            copied += resident.copiedBytes();
        }
        // What panels are made of is not read again.
        for (model.weights) |weight| {
            if (weight.dtype != .i8) continue;
            mapped -|= weight.source.len;
            copied += weight.copyBytes();
        }
        return .{ .mapped = mapped, .copied = copied };
    }

    /// Multiplies the UNet's linear layers in int8. Before the weights are loaded.
    pub fn useInt8(model: *Model) void {
        model.residents.getPtr(.unet).*.?.useInt8();
    }

    /// Bytes of the weights that files have in 8 bits.
    pub fn f8Bytes(model: *const Model) usize {
        var bytes: usize = 0;
        for (model.weights) |weight| {
            if (weight.source_dtype.isF8()) bytes += weight.source.len;
        }
        return bytes;
    }

    /// Fails where a file has changed since it was opened.
    pub fn checkUnchanged(model: *const Model) error{BadWeights}!void {
        for (&model.residents.values) |*maybe| {
            if (maybe.*) |*resident| try resident.checkpoint.checkUnchanged();
        }
    }

    // --- internal ---

    fn has(model: *const Model, component: Component) bool {
        return switch (component) {
            .text_encoder => model.config.text.text_encoder.is_present != 0,
            .text_encoder_2 => model.config.text.text_encoder_2.is_present != 0,
            .unet, .vae => true,
            .taesd => model.config.taesd.is_present != 0,
        };
    }

    fn loadEncoder(
        model: *Model,
        component: Component,
        config: *const configs.ClipConfig,
    ) weights.Error!?ClipTextModel {
        if (!model.has(component)) return null;
        return try ClipTextModel.load(model.arena.allocator(), model.view(component), config);
    }

    fn closeResidents(model: *Model) void {
        for (&model.residents.values) |*maybe| {
            if (maybe.*) |*resident| resident.close();
        }
    }

    /// Also allows f16 accumulation in the UNet. The VAE's sums can exceed the range of f16.
    fn weightsOf(model: *Model, arena: Allocator) Allocator.Error![]const *weights.Weight {
        for (model.residents.get(.unet).?.weights.items) |weight| weight.may_cascade = true;
        var all: std.ArrayList(*weights.Weight) = .empty;
        for (&model.residents.values) |*maybe| {
            if (maybe.*) |*resident| try all.appendSlice(arena, resident.weights.items);
        }
        return all.items;
    }

    /// One warning for each component with unused tensors.
    fn warningsOf(model: *const Model, arena: Allocator) Allocator.Error![]const u8 {
        var text: std.Io.Writer.Allocating = .init(arena);
        for (std.enums.values(Component)) |component| {
            const maybe = model.residents.getPtrConst(component);
            const checkpoint = if (maybe.*) |*resident| &resident.checkpoint else continue;
            // Its files may have the encoder too, which nothing reads.
            if (component == .taesd) continue;
            const names = try checkpoint.unusedNames(arena);
            if (names.len == 0) continue;
            writeUnused(&text.writer, checkpoint.firstPath(), names) catch
                return error.OutOfMemory;
        }
        return text.written();
    }

    fn writeUnused(
        w: *std.Io.Writer,
        path: []const u8,
        names: []const []const u8,
    ) std.Io.Writer.Error!void {
        const listed = names[0..@min(names.len, unused_shown_max)];
        try w.print("{s} holds {d} tensor(s) that config.json does not ask for and that are " ++
            "ignored: ", .{ path, names.len });
        for (listed, 0..) |name, i| {
            try w.print("{s}{f}", .{ if (i > 0) ", " else "", shown(name) });
        }
        const rest = names.len - listed.len;
        if (rest > 0) try w.print(" and {d} more", .{rest});
        try w.writeAll(".\x00");
    }

    fn view(model: *Model, component: Component) weights.View {
        return model.residents.getPtr(component).*.?.view();
    }
};
