//! A network beside the model: what a job names, and with its files open what a session keeps.
//! To add a kind: its config in `config.zig`, its graph in a file beside this one, a member in
//! `NetworkKind`, `Config` and `Graph`; the compiler names the places that need its case.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const configs = @import("config.zig");
const ClipVisionModel = @import("clip_vision.zig").ClipVisionModel;
const ControlNet = @import("controlnet.zig").ControlNet;
const Upscaler = @import("upscaler.zig").Upscaler;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const IpAdapter = @import("ip_adapter.zig").IpAdapter;
const T2iAdapter = @import("t2i_adapter.zig").T2iAdapter;
const weights = @import("../weights.zig");

pub const Error = weights.Error || configs.Error;

pub const NetworkKind = enum(u32) {
    controlnet = 0,
    clip_vision = 1,
    ip_adapter = 2,
    upscaler = 3,
    t2i_adapter = 4,
};

pub const Config = union(NetworkKind) {
    controlnet: configs.ControlNetConfig,
    clip_vision: configs.ClipVisionConfig,
    ip_adapter: configs.IpAdapterConfig,
    upscaler: configs.UpscalerConfig,
    t2i_adapter: configs.T2iAdapterConfig,
};

/// One that a job names; the memory is the job's.
pub const Description = struct { config: Config, files: weights.Files };

pub const Network = struct {
    /// Never that of another network, so that nothing made for this one is taken for another's.
    id: u32,
    arena: std.heap.ArenaAllocator,
    resident: weights.Resident,
    config: Config,
    graph: Graph,
    weights: []const *weights.Weight,
    /// Of GPUs' memory; see `Weight.block`.
    block: u32,
    /// Whether the devices have its weights.
    is_loaded: bool = false,

    pub const Graph = union(NetworkKind) {
        controlnet: ControlNet,
        clip_vision: ClipVisionModel,
        ip_adapter: IpAdapter,
        upscaler: Upscaler,
        t2i_adapter: T2iAdapter,
    };

    /// Maps the files and checks every key and shape without reading the data. Must not move.
    pub fn open(
        network: *Network,
        gpa: Allocator,
        io: Io,
        description: *const Description,
        model: *const configs.ModelConfig,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!void {
        switch (description.config) {
            inline else => |*config| try config.check(model, diagnostics),
        }
        network.arena = .init(gpa);
        errdefer network.arena.deinit();
        const arena = network.arena.allocator();
        network.config = description.config;
        const paths = try arena.alloc([]const u8, description.files.paths.len);
        for (paths, description.files.paths) |*copy, path| copy.* = try arena.dupe(u8, path);
        const files: weights.Files = .{ .paths = paths, .names = description.files.names };
        network.resident = try .open(gpa, io, files, interrupt, diagnostics);
        errdefer network.resident.close();
        const view = network.resident.view();
        network.graph = switch (network.config) {
            .controlnet => |*config| .{ .controlnet = try .load(arena, view, config) },
            .clip_vision => |*config| .{ .clip_vision = try .load(arena, view, config) },
            .ip_adapter => |*config| .{
                .ip_adapter = try .load(arena, view, config, &model.unet),
            },
            .upscaler => |*config| .{ .upscaler = try .load(arena, view, config) },
            .t2i_adapter => |*config| .{ .t2i_adapter = try .load(arena, view, config) },
        };
        for (network.resident.weights.items) |weight| weight.block = network.block;
        network.weights = network.resident.weights.items;
        network.is_loaded = false;
    }

    pub fn close(network: *Network) void {
        network.resident.close();
        network.arena.deinit();
        network.* = undefined;
    }

    /// Whether it is what the job names, from the files as they are now.
    pub fn isOf(network: *const Network, io: Io, description: *const Description) bool {
        if (!std.meta.eql(network.config, description.config)) return false;
        const paths = description.files.paths;
        return network.resident.checkpoint.isOf(io, paths);
    }

    /// Its cross-attentions with the prompt.
    pub fn contextSlotCount(network: *const Network) u32 {
        return switch (network.graph) {
            .controlnet => |*net| net.context_slot_count,
            .clip_vision, .ip_adapter, .upscaler, .t2i_adapter => 0,
        };
    }
};
