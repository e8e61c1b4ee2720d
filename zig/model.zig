//! The four components of SDXL with their weights, shared by all ranks of one device.

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

pub const Component = enum { text_encoder, text_encoder_2, unet, vae };

/// The files of each component: one, or all shards.
pub const Files = std.EnumArray(Component, []const []const u8);

/// Tensors that a warning lists by name.
const unused_shown_max = 5;

pub const Model = struct {
    arena: std.heap.ArenaAllocator,
    config: ModelConfig,
    /// What was ignored in the files: sentences, each ended by a 0 byte.
    warnings: []const u8,
    /// Null where the model has no such component.
    residents: std.EnumArray(Component, ?weights.Resident),
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
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!void {
        try configs.check(config, diagnostics);
        model.arena = .init(gpa);
        errdefer model.arena.deinit();
        model.config = config.*;
        model.residents = .initFill(null);
        errdefer model.closeResidents();
        for (&model.residents.values, files.values) |*resident, paths| {
            if (paths.len == 0) continue;
            resident.* = try .open(gpa, io, paths, interrupt, diagnostics);
        }
        const arena = model.arena.allocator();
        const c = &model.config;
        model.text_encoder = try .load(arena, model.view(.text_encoder), &c.clip);
        model.text_encoder_2 = try .load(arena, model.view(.text_encoder_2), &c.clip_2);
        model.unet = try .load(arena, model.view(.unet), &c.unet);
        model.vae = try .load(arena, model.view(.vae), &c.vae);
        model.warnings = try model.warningsOf(arena);
    }

    pub fn close(model: *Model) void {
        model.closeResidents();
        model.arena.deinit();
        model.* = undefined;
    }

    /// Bytes that the weights take: mapped files, and copies in anonymous memory.
    pub fn weightBytes(model: *const Model) struct { mapped: usize, copied: usize } {
        var mapped: usize = 0;
        var copied: usize = 0;
        for (&model.residents.values) |*maybe| {
            const resident = if (maybe.*) |*r| r else continue;
            mapped += resident.checkpoint.mappedBytes();
            copied += resident.copiedBytes();
        }
        return .{ .mapped = mapped, .copied = copied };
    }

    /// Refuses what was read from files that have changed since they were opened.
    pub fn checkUnchanged(model: *const Model) error{BadWeights}!void {
        for (&model.residents.values) |*maybe| {
            if (maybe.*) |*resident| try resident.checkpoint.checkUnchanged();
        }
    }

    // --- internal ---

    fn closeResidents(model: *Model) void {
        for (&model.residents.values) |*maybe| {
            if (maybe.*) |*resident| resident.close();
        }
    }

    /// One sentence for each component with tensors that nothing reads.
    fn warningsOf(model: *const Model, arena: Allocator) Allocator.Error![]const u8 {
        var text: std.Io.Writer.Allocating = .init(arena);
        for (&model.residents.values) |*maybe| {
            const checkpoint = if (maybe.*) |*resident| &resident.checkpoint else continue;
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
