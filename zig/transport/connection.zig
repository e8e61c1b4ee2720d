//! How the ranks of a session are connected: chosen once, when the devices are open, and the only
//! place that decides between peer copies and NCCL. A job's ranks get their transport from here.

const std = @import("std");
const Gpu = @import("../backend/cuda/gpu.zig").Gpu;
const Communicator = @import("communicator.zig").Communicator;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const drivers = @import("../nvidia/driver.zig");
const Endpoint = @import("endpoint.zig").Endpoint;
const libraries = @import("../nvidia/libraries.zig");
const local_ranks = @import("local_ranks.zig");
const LocalRanks = local_ranks.LocalRanks;
const Port = local_ranks.Port;
const nccl = @import("../nvidia/nccl.zig");
const peer_check = @import("peer_check.zig");
const ranks = @import("ranks.zig");
const Transport = @import("../transport.zig").Transport;
const Watch = @import("watch.zig").Watch;

pub const Error = error{ GpuFailed, LibraryMissing, OutOfMemory };

/// Copied once for each ordered pair of GPUs before ranks rely on peer copies, and how long it may
/// take: what works takes a millisecond.
const check_bytes = 1 << 20;
const check_limit_ms = 5000;

/// The user's choice for GPUs.
pub const TransportKind = enum(u32) {
    /// Peer copies where every GPU can reach every other and a copy shows it, or NCCL is missing;
    /// else NCCL.
    auto = 0,
    peer = 1,
    nccl = 2,
};

pub const Options = struct {
    choice: TransportKind,
    /// Ranks of all processes.
    rank_count: u32,
    /// The first rank of this process.
    rank_first: u32,
    /// What the processes share; null where all ranks are in this one.
    unique_id: ?nccl.UniqueId,
    /// One per local rank.
    endpoints: []const *Endpoint,
    /// Fewer than ranks where ranks share a GPU.
    gpus: []Gpu,
    libraries: *const libraries.Libraries,
    diagnostics: *Diagnostics,
    arena: std.mem.Allocator,
    /// Set where the choice needs a sentence.
    note: *[]const u8,
    /// Set by `open` for peer copies: kernels of every GPU may read the memory of every other.
    reads_peers: bool = false,
};

/// CPU ranks need no options.
pub const Connection = union(enum) {
    shared_memory,
    peer_copy: Options,
    nccl: Options,

    /// Connects GPU ranks.
    pub fn open(o: Options) Error!Connection {
        if (!try choosesNccl(o)) {
            const broken = findBroken(o) orelse {
                var connected = o;
                connected.reads_peers = try canReachAll(o.gpus);
                return .{ .peer_copy = connected };
            };
            if (!mayChooseNccl(o)) return broken.fail(o);
            o.note.* = try broken.sentence(o.arena, "The ranks use NCCL");
        }
        const is_shared = o.gpus.len < o.endpoints.len;
        const sentence = "--transport nccl needs a GPU for each of the {d} ranks, and there are " ++
            "{d}: --transport peer lets ranks share.";
        const d = o.diagnostics;
        if (is_shared) return d.fail(error.GpuFailed, sentence, .{
            o.endpoints.len, o.gpus.len,
        });
        if (o.libraries.nccl == null) {
            return d.fail(error.LibraryMissing, "{s}", .{o.libraries.nccl_sentence});
        }
        try openCommunicators(o);
        return .{ .nccl = o };
    }

    /// Whether a failed job has disconnected the processes of the session for good.
    pub fn isLost(connection: Connection) bool {
        return switch (connection) {
            .shared_memory, .peer_copy => false,
            .nccl => |o| o.unique_id != null and !isWhole(o),
        };
    }

    /// Before a job: reopens communicators that a failed job has aborted. Must not be lost.
    pub fn restore(connection: Connection) Error!void {
        const o = switch (connection) {
            .shared_memory, .peer_copy => return,
            .nccl => |o| o,
        };
        if (isWhole(o)) return;
        std.debug.assert(o.unique_id == null);
        for (o.endpoints) |endpoint| endpoint.abort();
        try openCommunicators(o);
    }

    /// Ends what the ranks wait for inside NCCL where they cannot; null without NCCL.
    pub fn watch(connection: Connection, local: *LocalRanks) ?Watch {
        return switch (connection) {
            .shared_memory, .peer_copy => null,
            .nccl => |o| .{
                .local = local,
                .endpoints = o.endpoints,
                .cancelled = o.endpoints[0].cuda.cancelled,
            },
        };
    }

    /// The transport of one rank for one job.
    pub fn transportOf(connection: Connection, local: *LocalRanks, rank: u32) Transport {
        const port: Port = .{ .local = local, .rank = rank };
        return switch (connection) {
            .shared_memory => .{ .shared_memory = .{ .port = port } },
            .peer_copy => |o| .{ .peer_copy = .{
                .port = port,
                .endpoints = o.endpoints,
                .reads_peers = o.reads_peers,
            } },
            .nccl => |o| .{ .nccl = .{
                .port = port,
                .own = o.endpoints[rank - o.rank_first],
                .endpoints = o.endpoints,
            } },
        };
    }
};

// --- internal ---

fn isWhole(o: Options) bool {
    for (o.endpoints) |endpoint| if (endpoint.isAborted()) return false;
    return true;
}

fn choosesNccl(o: Options) Error!bool {
    if (o.rank_count == 1) return false;
    // Only NCCL reaches other processes.
    if (o.unique_id != null) return true;
    return switch (o.choice) {
        .peer => false,
        .nccl => true,
        .auto => mayChooseNccl(o) and !try canReachAll(o.gpus),
    };
}

fn mayChooseNccl(o: Options) bool {
    return o.choice == .auto and o.libraries.nccl != null and o.gpus.len == o.endpoints.len;
}

/// A pair of GPUs whose copies do not do what the driver says.
const Broken = struct {
    from: drivers.Device,
    to: drivers.Device,
    outcome: peer_check.Outcome,

    /// `end`: what follows from it, without a full stop.
    fn sentence(
        broken: Broken,
        arena: std.mem.Allocator,
        end: []const u8,
    ) std.mem.Allocator.Error![]const u8 {
        const what = switch (broken.outcome.verdict) {
            .fine => unreachable,
            .failed => "fail",
            .garbled => "bring other bytes",
            .stalled => "do not end",
        };
        const format = "Copies from GPU {d} to GPU {d} {s}. {s}; to mend them, {s}.";
        const args = .{ broken.from, broken.to, what, end, peer_check.advice };
        return std.fmt.allocPrint(arena, format, args);
    }

    fn fail(broken: Broken, o: Options) Error {
        const end = if (o.libraries.nccl == null)
            try std.fmt.allocPrint(o.arena, "NCCL would do without them. {s} Or use one GPU", .{
                o.libraries.nccl_sentence,
            })
        else
            "--transport nccl does without them, with a GPU for each rank";
        const text = try broken.sentence(o.arena, end);
        return o.diagnostics.fail(error.GpuFailed, "{s}", .{text});
    }
};

/// Tries a copy between every ordered pair; null where all bring what was sent.
fn findBroken(o: Options) ?Broken {
    for (o.gpus) |*from| for (o.gpus) |*to| {
        if (from.device == to.device) continue;
        const driver = &o.libraries.driver;
        const outcome = peer_check.run(driver, @intCast(from.device), @intCast(to.device), .{
            .bytes = check_bytes,
            .limit_ms = check_limit_ms,
        });
        if (outcome.verdict == .fine) continue;
        if (outcome.verdict == .stalled) {
            from.has_stuck_work = true;
            to.has_stuck_work = true;
        }
        return .{ .from = from.device, .to = to.device, .outcome = outcome };
    };
    return null;
}

fn canReachAll(gpus: []const Gpu) Error!bool {
    for (gpus) |*gpu| for (gpus) |*other| {
        if (!try gpu.canReach(other)) return false;
    };
    return true;
}

fn openCommunicators(o: Options) Error!void {
    var contexts: [ranks.rank_count_max]drivers.Context = undefined;
    var opened: [ranks.rank_count_max]Communicator = undefined;
    const count = o.endpoints.len;
    for (contexts[0..count], o.endpoints) |*context, endpoint| context.* = endpoint.cuda.context;
    try Communicator.openAll(
        &o.libraries.nccl.?,
        &o.libraries.driver,
        contexts[0..count],
        .{ .rank_count = o.rank_count, .rank_first = o.rank_first, .id = o.unique_id },
        opened[0..count],
        o.diagnostics,
    );
    for (o.endpoints, opened[0..count]) |endpoint, communicator| {
        endpoint.closeCommunicators();
        endpoint.communicator = communicator;
        endpoint.is_stalled.store(false, .release);
        endpoint.cuda.waits.stall_advice = "Another rank may not have sent its data: " ++
            "NCCL_DEBUG=INFO shows how the ranks connect.";
    }
}
