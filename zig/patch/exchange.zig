//! What the patches of one image exchange inside a layer. A layer hands over its own shard and gets
//! what it must read: this patch's values are always fresh, the neighbours' are fresh in
//! synchronous steps and one step old afterwards (see `sync_mode.zig`).
//!
//! Each call is a slot, the same in every step; steps that reuse deep features leave out the slots
//! between `enterDeep` and `leaveDeep`, whose values then stay those of the last full step. What
//! travels of these slots has until the next full step to arrive. On the
//! CPU a rank writes its shards into its own buffers and the others read them there. Where stale
//! values are read while new ones are written there are two buffers, used in turn, and a third for
//! halo rows that are extrapolated from two steps; the barrier of all ranks at the end of a step
//! keeps readers and writers apart. On GPUs each rank has receive buffers for the others' shards
//! (`device_buffers.zig`), and shards travel while the step goes on (`slot_swaps.zig`); fresh
//! statistics are read in place where GPUs can. With a single patch every call returns its
//! argument, and nothing is copied. Where a shard lies and how old it is: `shards.zig`.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const changes = @import("changes.zig");
const halo_extrapolation = @import("halo_extrapolation.zig");
const shards = @import("shards.zig");
const Shape = @import("../tensor.zig").Shape;
const Tensor = @import("../tensor.zig").Tensor;
const Patch = @import("layout.zig").Patch;
const DeviceBuffers = @import("device_buffers.zig").DeviceBuffers;
const slot_files = @import("slots.zig");
const SlotSwaps = @import("slot_swaps.zig").SlotSwaps;
const modes = @import("sync_mode.zig");
pub const Kind = modes.Kind;
const transports = @import("../transport.zig");
const Transport = transports.Transport;
const rank_count_max = transports.rank_count_max;

pub const Slot = slot_files.Slot;
const StepHistory = @import("step_history.zig").StepHistory;
const buffer_count_max = 3;

/// Lower bound for corrected variances, as a fraction of the mean variance within patches. A mean
/// that moves fast can cancel almost all of the corrected variance, and dividing by its square root
/// blows up. The variance of the whole image is never below the mean within patches, which changes
/// little from step to step.
const variance_floor = 0.75;

pub const Error = backend.Error || transports.Error;

/// Steps before the present one.
pub const Age = enum(u32) { now = 0, old = 1, older = 2 };

pub const Counters = struct {
    /// Bytes received from other patches, or read in their memory.
    received: [modes.kind_count]u64 = @splat(0),
    buffer_bytes: u64 = 0,
};

pub const Exchange = struct {
    b: Backend,
    transport: Transport,
    /// Signals and events of the network.
    channel: transports.Channel,
    patches: []const Patch,
    index: u32,
    /// The first rank of this patch's group: patch i is rank `rank_first + i`.
    rank_first: u32,
    /// The exchanges of all ranks, this one's among them, by rank. Empty while planning.
    peers: []Exchange = &.{},
    /// On GPUs: where the shards are; null where ranks read each other's buffers.
    device_buffers: ?*DeviceBuffers = null,
    mode: modes.SyncMode,
    warmup_steps: u32,
    /// Whether deep slots are fresh in every step that has them: the steps that reuse it would
    /// repeat what their age brings.
    fresh_deep: bool = false,
    /// The step at which the buffers were opened: there are no older values.
    step_first: u32 = 0,
    /// Extrapolate stale halo rows from their last two steps; the factor is fitted on this patch's
    /// own edge row (see `Backend.extrapolateRows`).
    extrapolates_halos: bool = false,
    /// How keys and values travel after the first step.
    compression: modes.Compression = .none,
    /// DistriFusion's n / (n - 1) of the variance, without the lower bound.
    bessel_variance: bool = false,
    /// The slots of this network on this rank, from the plan; empty while they are recorded.
    slots: []const Slot = &.{},
    /// Records the slots while a shape is planned; layers then exchange nothing.
    recorder: ?*slot_files.Recorder = null,

    /// On the CPU: this rank's buffers of each slot.
    buffers: [buffer_count_max][]Tensor = @splat(&.{}),
    /// On the CPU, where keys and values are compressed: those of the other patches in each slot.
    views: [rank_count_max][]Tensor = @splat(&.{}),
    is_open: bool = false,
    step_index: u32 = 0,
    slot_next: u32 = 0,
    /// The steps that computed the slots outside and inside the deep part.
    outer: StepHistory = .{},
    deep: StepHistory = .{},
    /// The slots that cached steps leave out, known from the first step on.
    deep_slots: struct { first: u32 = 0, end: u32 = 0 } = .{},
    is_deep: bool = false,
    swaps: SlotSwaps = .{},
    counters: Counters = .{},

    pub const Parts = [rank_count_max]Tensor;
    /// The caller returns them with `releaseHaloRows`.
    pub const HaloRows = struct { above: ?Tensor, below: ?Tensor, is_copy: bool = false };

    /// The exchange of a patch that is the whole image.
    pub fn ofSinglePatch(b: Backend, patches: *const [1]Patch) Exchange {
        return .{
            .b = b,
            .transport = .none,
            .channel = .unet,
            .patches = patches,
            .index = 0,
            .rank_first = 0,
            .mode = .full_sync,
            .warmup_steps = 0,
        };
    }

    pub fn isSinglePatch(exchange: *const Exchange) bool {
        return exchange.patches.len == 1;
    }

    // Lifecycle: open the buffers of the plan's slots, then begin and end each step.

    /// Allocates the buffers of all slots, before `step_first`; their list is in `arena`.
    pub fn open(exchange: *Exchange, arena: Allocator, step_first: u32) backend.Error!void {
        exchange.step_first = step_first;
        exchange.outer = .{};
        exchange.deep = .{};
        exchange.deep_slots = .{};
        if (exchange.isSinglePatch() or exchange.recorder != null) return;
        exchange.is_open = true;
        exchange.counters.buffer_bytes = 0;
        if (exchange.device_buffers) |device_buffers| return device_buffers.open(exchange);
        try shards.open(exchange, arena);
        if (exchange.compression != .none) try changes.open(exchange, arena);
    }

    pub fn close(exchange: *Exchange) void {
        if (!exchange.is_open) return;
        exchange.is_open = false;
        // A failed rank closes too: then there is nothing to wait for.
        const depths: []const transports.Depth =
            if (exchange.deep_slots.end > 0) &.{ .outer, .deep } else &.{.outer};
        for (depths) |depth| {
            exchange.transport.finish(exchange.channel, depth, exchange.rankRange()) catch {};
        }
        if (exchange.device_buffers) |device_buffers| return device_buffers.close(exchange);
        if (exchange.compression != .none) changes.close(exchange);
        shards.close(exchange);
    }

    /// The next step, before its `stepVariant` and `beginStep`: a full one, or one that leaves out
    /// the deep slots. Not part of a graph.
    pub fn enterStep(exchange: *Exchange, step_index: u32, covers: enum { all, outer }) void {
        exchange.step_index = step_index;
        const synchronous = exchange.isSynchronousAt(step_index);
        exchange.outer.add(step_index, synchronous);
        if (covers == .all) exchange.deep.add(step_index, synchronous or exchange.fresh_deep);
    }

    pub fn beginStep(exchange: *Exchange) Error!void {
        exchange.slot_next = 0;
        exchange.is_deep = false;
        exchange.swaps = .{};
        if (exchange.isSinglePatch()) return;
        try exchange.beginPart(.outer);
    }

    /// The layers up to `leaveDeep` are those that cached steps leave out.
    pub fn enterDeep(exchange: *Exchange) Error!void {
        if (!exchange.isSinglePatch()) {
            try exchange.swaps.swapRest(exchange, exchange.slot_next);
            try exchange.beginPart(.deep);
        }
        exchange.is_deep = true;
        exchange.deep_slots.first = exchange.slot_next;
    }

    pub fn leaveDeep(exchange: *Exchange) Error!void {
        if (!exchange.isSinglePatch()) {
            try exchange.swaps.swapRest(exchange, exchange.slot_next);
            try exchange.transport.endPart(exchange.channel, .deep);
        }
        exchange.is_deep = false;
        exchange.deep_slots.end = exchange.slot_next;
    }

    /// In a cached step, in place of the deep layers.
    pub fn skipDeep(exchange: *Exchange) Error!void {
        if (exchange.isSinglePatch()) return;
        assert(exchange.slot_next == exchange.deep_slots.first);
        try exchange.swaps.skip(exchange, exchange.deep_slots.first, exchange.deep_slots.end);
        exchange.slot_next = exchange.deep_slots.end;
    }

    /// Every layer of the step has been queued.
    pub fn endStep(exchange: *Exchange) Error!void {
        if (exchange.isSinglePatch()) return;
        try exchange.swaps.swapRest(exchange, @intCast(exchange.slots.len));
        try exchange.transport.endPart(exchange.channel, .outer);
    }

    /// The part of a CUDA graph's key that depends on the exchange (`GraphKey`), in this step.
    pub fn stepVariant(exchange: *const Exchange) backend.StepVariant {
        if (exchange.isSinglePatch()) return .{};
        var patch_rows: [rank_count_max]u32 = @splat(0);
        for (patch_rows[0..exchange.patches.len], exchange.patches) |*rows, patch| {
            rows.* = patch.row_count;
        }
        return .{
            .peer_addresses = exchange.peerStatistics(),
            .sync_mode = @intFromEnum(exchange.mode),
            .is_synchronous = exchange.isSynchronous(),
            .has_fresh_deep = exchange.fresh_deep,
            .extrapolates_halos = halo_extrapolation.applies(exchange, &exchange.outer),
            .extrapolates_deep = halo_extrapolation.applies(exchange, &exchange.deep),
            .keys_values_outer = changes.variant(exchange, &exchange.outer),
            .keys_values_deep = changes.variant(exchange, &exchange.deep),
            .bessel_variance = exchange.bessel_variance,
            .is_only_rank = exchange.transport == .none,
            .patch_index = exchange.index,
            .patch_count = @intCast(exchange.patches.len),
            .patch_rows = patch_rows,
        };
    }

    // What layers call.

    /// The rows next to this patch, for a 3x3 convolution over `mine`; null at the image's edge.
    pub fn haloRows(exchange: *Exchange, mine: Tensor) Error!HaloRows {
        if (exchange.isSinglePatch()) return .{ .above = null, .below = null };
        const batch = mine.shape.batch;
        var shape = mine.shape;
        shape.batch = 2 * batch;
        shape.rows = 1;
        try exchange.swapCompleteGroups();
        const own = try shards.place(exchange, .halo_rows, shape, mine.dtype);
        if (exchange.recorder == null) {
            // The first row, then the last.
            try exchange.b.copyRows(own.batchSlice(0, batch), 0, mine, 0, 1);
            const last = mine.shape.rows - 1;
            try exchange.b.copyRows(own.batchSlice(batch, batch), 0, mine, last, 1);
        }
        const slot = try shards.signal(exchange);
        var halo: HaloRows = .{ .above = null, .below = null };
        if (exchange.index > 0) {
            const other = exchange.index - 1;
            halo.above = (try shards.read(exchange, slot, other)).batchSlice(batch, batch);
        }
        if (exchange.index + 1 < exchange.patches.len) {
            const other = exchange.index + 1;
            halo.below = (try shards.read(exchange, slot, other)).batchSlice(0, batch);
        }
        if (!exchange.extrapolates_halos) return halo;
        return halo_extrapolation.extrapolated(exchange, slot, halo);
    }

    pub fn releaseHaloRows(exchange: *Exchange, halo: HaloRows) void {
        if (!halo.is_copy) return;
        if (halo.above) |tensor| exchange.b.free(tensor);
        if (halo.below) |tensor| exchange.b.free(tensor);
    }

    /// Memory for this patch's group norm statistics, to be written and then passed to
    /// `statistics`.
    pub fn placeStatistics(exchange: *Exchange, shape: Shape) Error!Tensor {
        if (exchange.isSinglePatch()) return exchange.b.alloc(shape, .f64);
        try exchange.swapCompleteGroups();
        return shards.place(exchange, .statistics, shape, .f64);
    }

    /// Group norm statistics of the whole image from `own`, those of this patch; the result is the
    /// caller's. `element_count` is how many elements they were taken over.
    pub fn statistics(exchange: *Exchange, own: Tensor, element_count: u64) Error!Tensor {
        if (exchange.isSinglePatch()) return own;
        const slot = try shards.signal(exchange);
        var parts: Parts = undefined;
        var weights: [rank_count_max]f64 = undefined;
        const fresh = exchange.freshnessOf(.statistics);
        const count: usize = if (fresh == .own) 1 else exchange.patches.len;
        if (fresh == .own) {
            parts[0] = own;
            weights[0] = 1;
        } else {
            for (0..count) |i| {
                const is_mine = i == exchange.index;
                const keeps_own = is_mine and !exchange.correctsStatistics();
                parts[i] = if (keeps_own) own else try shards.read(exchange, slot, @intCast(i));
                weights[i] = exchange.shareOf(i);
            }
        }
        return exchange.b.combineStatistics(.{
            .local = own,
            .parts = parts[0..count],
            .weights = weights[0..count],
            .corrected_from = if (exchange.correctsStatistics()) parts[exchange.index] else null,
            .variance_floor = if (exchange.bessel_variance) 0 else variance_floor,
            // DistriFusion's own statistics are torch.nn.GroupNorm's where it does not exchange.
            .bessel_count = if (exchange.bessel_variance and fresh != .own) element_count else 0,
        });
    }

    /// Memory for this patch's keys and values, to be written and then passed to `keysValues`.
    pub fn placeKeysValues(exchange: *Exchange, shape: Shape) Error!Tensor {
        if (exchange.isSinglePatch()) return exchange.b.alloc(shape, exchange.b.activationType());
        try exchange.swapCompleteGroups();
        const dtype = exchange.b.activationType();
        const own = try shards.place(exchange, .keys_values, shape, dtype);
        return if (exchange.compression == .none) own else exchange.b.alloc(shape, dtype);
    }

    /// The keys and values of all patches in row order: chunks of the whole sequence.
    pub fn keysValues(exchange: *Exchange, mine: Tensor, parts: *Parts) Error![]const Tensor {
        if (exchange.isSinglePatch()) {
            parts[0] = mine;
            return parts[0..1];
        }
        const is_compressed = exchange.compression != .none;
        if (is_compressed) try changes.send(exchange, exchange.slot_next, mine);
        const slot = try shards.signal(exchange);
        for (parts[0..exchange.patches.len], 0..) |*part, i| {
            if (i == exchange.index) part.* = mine else {
                const other: u32 = @intCast(i);
                part.* = if (is_compressed)
                    try changes.receive(exchange, slot, other)
                else
                    try shards.read(exchange, slot, other);
            }
        }
        return parts[0..exchange.patches.len];
    }

    /// Returns what `placeKeysValues` gave.
    pub fn releaseKeysValues(exchange: *Exchange, mine: Tensor) void {
        const is_own = exchange.isSinglePatch() or exchange.compression != .none;
        if (is_own) exchange.b.free(mine);
    }

    // --- internal ---

    fn beginPart(exchange: *Exchange, depth: transports.Depth) Error!void {
        const is_first = exchange.step_index == exchange.step_first;
        const group = exchange.rankRange();
        try exchange.transport.beginPart(exchange.channel, depth, group, is_first);
    }

    /// Where a step reads the other ranks' statistics; zeros where it reads copies.
    fn peerStatistics(exchange: *const Exchange) [rank_count_max]usize {
        var addresses: [rank_count_max]usize = @splat(0);
        const reads_fresh = exchange.fresh_deep or exchange.freshnessOf(.statistics) == .fresh;
        if (!reads_fresh) return addresses;
        if (!exchange.readsFreshThere(.statistics)) return addresses;
        for (addresses[0..exchange.patches.len], 0..) |*address, i| {
            if (i == exchange.index) continue;
            address.* = DeviceBuffers.remoteBase(exchange, .statistics, i).*;
        }
        return addresses;
    }

    pub fn isSynchronous(exchange: *const Exchange) bool {
        if (exchange.is_deep and exchange.fresh_deep) return true;
        return exchange.isSynchronousAt(exchange.step_index);
    }

    fn isSynchronousAt(exchange: *const Exchange, step_index: u32) bool {
        return step_index <= exchange.lastSynchronous();
    }

    fn lastSynchronous(exchange: *const Exchange) u32 {
        return modes.lastSynchronous(exchange.step_first, exchange.warmup_steps);
    }

    pub fn freshnessOf(exchange: *const Exchange, kind: Kind) modes.Freshness {
        return modes.freshness(exchange.mode, kind, exchange.isSynchronous());
    }

    fn correctsStatistics(exchange: *const Exchange) bool {
        return exchange.mode == .corrected_async_gn and !exchange.isSynchronous();
    }

    /// The steps that computed the slots of the part in which the layers are.
    pub fn history(exchange: *const Exchange) *const StepHistory {
        return if (exchange.is_deep) &exchange.deep else &exchange.outer;
    }

    fn swapCompleteGroups(exchange: *Exchange) Error!void {
        try exchange.swaps.swapCompleteGroups(exchange, exchange.slot_next);
    }

    /// The ranks of this exchange.
    fn rankRange(exchange: *const Exchange) transports.RankRange {
        const count: u32 = @intCast(exchange.patches.len);
        return .{ .first = exchange.rank_first, .end = exchange.rank_first + count };
    }

    // For `device_buffers.zig` and `slot_swaps.zig`.

    pub fn positionOf(
        exchange: *const Exchange,
        step_index: u32,
        slot: u32,
        what: transports.Position.What,
    ) transports.Position {
        const slot_count: u32 = @intCast(exchange.slots.len);
        return .{
            .step = step_index,
            .slot = slot,
            .slot_count = slot_count,
            .what = what,
            .depth = if (exchange.is_deep) .deep else .outer,
        };
    }

    /// Whether this patch ever reads patch `i`'s shards of this kind.
    pub fn reads(exchange: *const Exchange, kind: Kind, i: usize) bool {
        if (i == exchange.index) return false;
        if (kind != .halo_rows) return true;
        return i + 1 == exchange.index or i == exchange.index + 1;
    }

    /// The kinds whose shards of this step travel in groups, for the next step: it may read them
    /// one step old, and no swap of a single slot has brought them.
    pub fn groupedKinds(exchange: *const Exchange) std.EnumSet(Kind) {
        var set: std.EnumSet(Kind) = .initEmpty();
        for (std.enums.values(Kind)) |kind| {
            if (kind == .changes) continue;
            if (modes.freshness(exchange.mode, kind, false) != .one_step_old) continue;
            const is_brought = exchange.isSynchronous() and !exchange.readsFreshThere(kind);
            if (!is_brought) set.insert(changes.sentKind(exchange, kind));
        }
        return set;
    }

    /// Whether fresh shards are read in the memory of the rank that wrote them, without a copy.
    pub fn readsFreshThere(exchange: *const Exchange, kind: Kind) bool {
        return kind == .statistics and exchange.device_buffers != null and
            exchange.transport.readsPeers();
    }

    /// The size in patch `i` of what has size `count` in this patch: keys and values grow with the
    /// rows, all else is equal.
    pub fn scaledTo(exchange: *const Exchange, i: usize, kind: Kind, count: u64) u64 {
        if (kind != .keys_values and kind != .changes) return count;
        const mine = exchange.patches[exchange.index].row_count;
        return count * exchange.patches[i].row_count / mine;
    }

    pub fn countReceived(exchange: *Exchange, kind: Kind, bytes: u64) void {
        // While a graph is captured nothing arrives.
        if (exchange.b.isCapturing()) return;
        // A shard holds two halo rows; a neighbour that reads in place reads one of them.
        const is_half = kind == .halo_rows and exchange.device_buffers == null;
        const read_bytes = if (is_half) bytes / 2 else bytes;
        exchange.counters.received[@intFromEnum(kind)] += read_bytes;
    }

    /// The shape of patch `i`'s shard of a slot where this patch's is `own`.
    pub fn shapeOf(exchange: *const Exchange, own: Shape, kind: Kind, i: u32) Shape {
        if (kind != .keys_values) return own;
        var shape = own;
        shape.width = @intCast(exchange.scaledTo(i, kind, own.width));
        return shape;
    }

    fn shareOf(exchange: *const Exchange, i: usize) f64 {
        var total: u32 = 0;
        for (exchange.patches) |patch| total += patch.row_count;
        const share: f64 = @floatFromInt(exchange.patches[i].row_count);
        return share / @as(f64, @floatFromInt(total));
    }
};
