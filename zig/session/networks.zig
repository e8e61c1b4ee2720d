//! The networks beside the model that jobs name: opened, checked and loaded when a job asks for
//! them, and kept for the next one until their room is needed. Used by the coordinator alone.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const block_count_max = @import("../weights.zig").block_count_max;
const devices = @import("../devices.zig");
const Devices = devices.Devices;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const ModelConfig = @import("../model/config.zig").ModelConfig;
const networks = @import("../model/network.zig");
pub const Description = networks.Description;
pub const Network = networks.Network;

pub const Error = networks.Error || devices.Error;

pub const Networks = struct {
    gpa: Allocator,
    io: Io,
    diagnostics: *Diagnostics,
    /// Set by the handler of lost pages too; see `MappedFile`.
    cancelled: *std.atomic.Value(bool),
    /// Least recently used first.
    kept: std.ArrayList(*Network) = .empty,
    id_next: u32 = 1,

    pub fn deinit(all: *Networks) void {
        for (all.kept.items) |network| {
            network.close();
            all.gpa.destroy(network);
        }
        all.kept.deinit(all.gpa);
    }

    /// The networks of a job, in its order; their list is in `arena`. They stay where they are as
    /// long as the job runs. `device` is null where nothing is loaded (a plan without a session).
    pub fn open(
        all: *Networks,
        arena: Allocator,
        wanted: []const Description,
        model: *const ModelConfig,
        device: ?*Devices,
    ) Error![]const *Network {
        const list = try arena.alloc(*Network, wanted.len);
        for (list, wanted, 0..) |*network, *description, i| {
            network.* = all.take(description) orelse
                try all.add(description, model, device, list[0..i]);
        }
        return list;
    }

    /// Bytes that loading them takes, on every device.
    pub fn missingBytes(list: []const *Network, device: *const Devices) u64 {
        var bytes: u64 = 0;
        for (list) |network| {
            if (!network.is_loaded) bytes += device.networkBytes(network);
        }
        return bytes;
    }

    /// Frees the one on the devices that was not used for longest, of those that the job does not
    /// name; false where there is none.
    pub fn release(all: *Networks, keep: []const *Network, device: *Devices) bool {
        for (all.kept.items) |network| {
            if (!network.is_loaded) continue;
            if (std.mem.indexOfScalar(*Network, keep, network) != null) continue;
            all.drop(network, device);
            return true;
        }
        return false;
    }

    /// Loads those that the devices do not have.
    pub fn load(
        all: *Networks,
        list: []const *Network,
        device: *Devices,
        copied_bytes: *std.atomic.Value(u64),
    ) Error!void {
        for (list) |network| {
            if (network.is_loaded) continue;
            const loaded = device.loadNetwork(network, copied_bytes);
            // A file that lost pages has cancelled the work, too.
            try network.resident.checkpoint.checkUnchanged();
            try loaded;
            if (all.cancelled.load(.monotonic)) return error.Cancelled;
            network.is_loaded = true;
        }
    }

    pub fn checkUnchanged(list: []const *Network) error{BadWeights}!void {
        for (list) |network| try network.resident.checkpoint.checkUnchanged();
    }

    // --- internal ---

    /// A kept one, which becomes the most recently used; one whose files have changed since is
    /// never taken.
    fn take(all: *Networks, description: *const Description) ?*Network {
        for (all.kept.items, 0..) |network, i| {
            if (!network.isOf(all.io, description)) continue;
            _ = all.kept.orderedRemove(i);
            all.kept.appendAssumeCapacity(network);
            return network;
        }
        return null;
    }

    fn add(
        all: *Networks,
        description: *const Description,
        model: *const ModelConfig,
        device: ?*Devices,
        keep: []const *Network,
    ) Error!*Network {
        try all.kept.ensureUnusedCapacity(all.gpa, 1);
        const block = all.freeBlock() orelse block: {
            const oldest = for (all.kept.items) |network| {
                if (std.mem.indexOfScalar(*Network, keep, network) == null) break network;
            } else unreachable; // a job names fewer than there are blocks
            const block = oldest.block;
            all.drop(oldest, device);
            break :block block;
        };
        const network = try all.gpa.create(Network);
        errdefer all.gpa.destroy(network);
        network.id = all.id_next;
        network.block = block;
        const d = all.diagnostics;
        try network.open(all.gpa, all.io, description, model, all.cancelled, d);
        all.id_next += 1;
        all.kept.appendAssumeCapacity(network);
        return network;
    }

    /// Block 0 is the model's.
    fn freeBlock(all: *const Networks) ?u32 {
        for (1..block_count_max) |block| {
            for (all.kept.items) |network| {
                if (network.block == block) break;
            } else return @intCast(block);
        }
        return null;
    }

    fn drop(all: *Networks, network: *Network, device: ?*Devices) void {
        if (network.is_loaded) device.?.freeNetwork(network);
        const index = std.mem.indexOfScalar(*Network, all.kept.items, network).?;
        _ = all.kept.orderedRemove(index);
        network.close();
        all.gpa.destroy(network);
    }
};
