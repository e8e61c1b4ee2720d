//! The weights that the ranks compute with: the model's own, or those of a set of adapters, merged
//! on the host's cores. A set is made once and kept for its next use while memory lasts. The CPU
//! switches addresses between jobs; GPUs get the weights copied in place (beside those that stay in
//! 8 bits, see `backend/cuda/ops_widen.zig`), so that captured CUDA graphs stay valid, and the
//! model's own back from its files. Used by the coordinator alone.
//!
//! Merged weights are f32 where the file has f32. Where it has 16 bits or fewer they are f16, as
//! products widen each weight by its own type: a bf16 sum would lose three bits of the delta, and
//! f16 reaches far beyond any weight (what does not fit is refused). Weights of int8 products are
//! rounded anew with their deltas (`Int8Maker`). The model's own weights stay
//! in the mapped file, so that restoring them is exact and costs nothing.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const adapters = @import("../weights.zig").adapters;
const Adapter = adapters.Adapter;
const AdapterFile = @import("../weights.zig").AdapterFile;
const Delta = @import("../weights.zig").deltas.Delta;
const device_weights = @import("../backend/cuda/weights.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;
const GpuRanks = @import("gpu_ranks.zig").GpuRanks;
const int8 = @import("../weights.zig").int8;
const memory = @import("../system/memory.zig");
const Int8Maker = @import("../backend.zig").cpus.Int8Maker;
const merge = @import("../backend.zig").cpus.merge;
const merged_sets = @import("merged_set.zig");
const Merged = merged_sets.Merged;
const MergedSet = merged_sets.MergedSet;
const Matrix = @import("../weights.zig").Matrix;
const Model = @import("../model.zig").Model;
const options_file = @import("options.zig");
const Weight = @import("../weights.zig").Weight;

pub const Error = options_file.Error;

/// Longer keys are no model's.
const key_bytes_max = 256;

/// Sets that are kept, the one in use included.
const kept_count_max = 4;

/// Read by other threads.
pub const Progress = struct {
    /// Bytes that are being merged, and those merged so far.
    adapt_bytes: std.atomic.Value(u64) = .init(0),
    adapted_bytes: std.atomic.Value(u64) = .init(0),
    /// Host memory of all sets.
    merged_bytes: std.atomic.Value(u64) = .init(0),
    /// Weights merged since the session was opened.
    weight_count: std.atomic.Value(u64) = .init(0),

    /// Before a job.
    pub fn reset(progress: *Progress) void {
        progress.adapt_bytes.store(0, .release);
        progress.adapted_bytes.store(0, .release);
    }
};

pub const AdaptedWeights = struct {
    gpa: Allocator,
    io: Io,
    model: *Model,
    diagnostics: *Diagnostics,
    /// Set by the handler of lost pages too; see `MappedFile`.
    cancelled: *std.atomic.Value(bool),
    /// Null on the CPU.
    gpu: ?*GpuRanks,
    /// Type of the weights on GPUs.
    activation: DType,
    thread_count: usize,
    progress: *Progress,
    /// Least recently used first, the current one included.
    kept: std.ArrayList(*MergedSet) = .empty,
    /// Null for the model's own weights, and on GPUs after a failure.
    current: ?*MergedSet = null,
    /// Weights that may not be the model's own on GPUs.
    changed: WeightSet = .empty,

    /// The weights must not be read afterwards.
    pub fn deinit(adapted: *AdaptedWeights) void {
        for (adapted.kept.items) |set| set.destroy();
        adapted.kept.deinit(adapted.gpa);
        adapted.changed.deinit(adapted.gpa);
    }

    /// Bytes that `use` would allocate and cannot do without, where the ranks compute: in host
    /// memory, or on each GPU beside the weights that it keeps in 8 bits.
    pub fn missingBytes(adapted: *const AdaptedWeights, wanted: []const Adapter) Error!u64 {
        const gpu = adapted.gpu orelse {
            if (adapted.find(wanted) != null) return 0;
            return mergedBytes(adapted.gpa, adapted.model, wanted, null);
        };
        var weights = try weightsOf(adapted.gpa, adapted.model, wanted);
        defer weights.deinit(adapted.gpa);
        var bytes: u64 = 0;
        for (weights.keys()) |weight| {
            if (!gpu.hasWideCopies(weight)) bytes += mergedBytesOf(weight, adapted.activation);
        }
        return bytes;
    }

    /// Frees memory where the ranks compute, of what `wanted` does not need: on the CPU that of one
    /// set, the one in use last; on GPUs all that is beside the weights. False where there is none.
    pub fn release(adapted: *AdaptedWeights, wanted: []const Adapter) Error!bool {
        if (adapted.gpu == null) return adapted.releaseSet(wanted);
        var keep = try weightsOf(adapted.gpa, adapted.model, wanted);
        defer keep.deinit(adapted.gpa);
        const is_done = for (adapted.changed.keys()) |weight| {
            if (weight.kept_f8 != null and !keep.contains(weight)) break false;
        } else true;
        if (is_done) return false;
        try adapted.model.checkUnchanged();
        adapted.forgetCurrent();
        const restored = adapted.restoreOthers(&keep, .in_8_bits);
        try adapted.model.checkUnchanged();
        try restored;
        return true;
    }

    /// Makes the weights those of `wanted`, none for the model's own. Where it fails the CPU keeps
    /// what it had, and GPUs are brought into a known state by the next call.
    pub fn use(adapted: *AdaptedWeights, wanted: []const Adapter) Error!void {
        if (!changesAny(wanted)) return adapted.activate(null);
        if (adapted.find(wanted)) |set| return adapted.activate(set);
        const set = try MergedSet.create(adapted.gpa, adapted.io, wanted);
        {
            errdefer set.destroy();
            try adapted.kept.ensureUnusedCapacity(adapted.gpa, 1);
            try adapted.make(set);
        }
        adapted.kept.appendAssumeCapacity(set);
        if (adapted.gpu == null) adapted.switchAddresses(set) else try adapted.finishGpus(set);
        adapted.trim();
    }

    // --- internal ---

    /// Frees the host memory of a set that `wanted` is not, the one in use last; false where there
    /// is none.
    fn releaseSet(adapted: *AdaptedWeights, wanted: []const Adapter) bool {
        const target = adapted.find(wanted);
        for ([_]bool{ false, true }) |may_be_current| {
            for (adapted.kept.items) |set| {
                if (set == target or set.memory.len == 0) continue;
                if (set == adapted.current) {
                    if (!may_be_current) continue;
                    // What GPUs compute with is not in host memory.
                    if (adapted.gpu == null) adapted.switchAddresses(null);
                }
                adapted.drop(set);
                return true;
            }
        }
        return false;
    }

    /// The kept set, or the one in use.
    fn find(adapted: *const AdaptedWeights, wanted: []const Adapter) ?*MergedSet {
        for (adapted.kept.items) |set| {
            if (set.memory.len == 0 and set != adapted.current) continue;
            if (set.isOf(adapted.io, wanted)) return set;
        }
        return null;
    }

    /// Switches to a kept set, or to the model's own weights. Infallible on the CPU.
    fn activate(adapted: *AdaptedWeights, wanted: ?*MergedSet) Error!void {
        const is_base = wanted == null and adapted.changed.count() == 0;
        if (adapted.gpu == null) {
            adapted.switchAddresses(wanted);
        } else if (!is_base and (wanted == null or adapted.current != wanted)) {
            try adapted.switchGpus(wanted);
        }
        const set = wanted orelse return;
        const index = std.mem.indexOfScalar(*MergedSet, adapted.kept.items, set).?;
        _ = adapted.kept.orderedRemove(index);
        adapted.kept.appendAssumeCapacity(set);
    }

    fn switchAddresses(adapted: *AdaptedWeights, wanted: ?*MergedSet) void {
        if (adapted.current) |set| {
            for (set.weights) |*merged| {
                merged.weight.address = merged.own_address;
                merged.weight.dtype = merged.own_dtype;
            }
        }
        adapted.current = wanted;
        const set = wanted orelse return;
        for (set.weights) |*merged| {
            merged.own_address = merged.weight.address;
            merged.own_dtype = merged.weight.dtype;
            merged.weight.address = @intFromPtr(set.bytesOf(merged).ptr);
            merged.weight.dtype = merged.dtype;
        }
    }

    /// What was uploaded before must be what comes from the files now.
    fn switchGpus(adapted: *AdaptedWeights, wanted: ?*MergedSet) Error!void {
        try adapted.model.checkUnchanged();
        adapted.forgetCurrent();
        if (wanted) |set| for (set.weights) |*merged| {
            try adapted.upload(merged.weight, set.bytesOf(merged));
        };
        return adapted.finishGpus(wanted);
    }

    /// Restores what `wanted`, which has been uploaded, does not change.
    fn finishGpus(adapted: *AdaptedWeights, wanted: ?*MergedSet) Error!void {
        const those: []const Adapter = if (wanted) |set| set.adapters else &.{};
        var keep = try weightsOf(adapted.gpa, adapted.model, those);
        defer keep.deinit(adapted.gpa);
        const restored = adapted.restoreOthers(&keep, .all);
        // A file that lost pages has cancelled the work, too.
        try adapted.model.checkUnchanged();
        try restored;
        adapted.current = wanted;
    }

    fn restoreOthers(
        adapted: *AdaptedWeights,
        keep: *const WeightSet,
        which: enum { all, in_8_bits },
    ) Error!void {
        var i = adapted.changed.count();
        if (i == 0) return;
        const gpu = adapted.gpu.?;
        var converter: device_weights.Converter = undefined;
        try gpu.initConverter(&converter, adapted.changed.keys());
        defer converter.deinit();
        while (i > 0) {
            i -= 1;
            const weight = adapted.changed.keys()[i];
            if (keep.contains(weight)) continue;
            if (which == .in_8_bits and weight.kept_f8 == null) continue;
            try gpu.restoreWeight(weight, &converter);
            adapted.changed.swapRemoveAt(i);
        }
    }

    fn upload(adapted: *AdaptedWeights, weight: *Weight, bytes: []const u8) Error!void {
        if (adapted.cancelled.load(.monotonic)) return error.Cancelled;
        try adapted.changed.put(adapted.gpa, weight, {});
        try adapted.gpu.?.writeWeight(weight, bytes);
    }

    /// Merges the weights of a new set.
    fn make(adapted: *AdaptedWeights, set: *MergedSet) Error!void {
        const gpa = adapted.gpa;
        const files = try gpa.alloc(AdapterFile, set.adapters.len);
        defer gpa.free(files);
        var open_count: usize = 0;
        defer for (files[0..open_count]) |*file| file.close();
        for (files, set.adapters) |*file, *adapter| {
            const d = adapted.diagnostics;
            file.* = try .open(gpa, adapted.io, adapter.path, adapted.cancelled, d);
            open_count += 1;
        }
        if (adapted.gpu != null) try adapted.model.checkUnchanged();
        const made = adapted.mergeAll(set, files);
        // A file that lost pages has cancelled the work: its sentence says more.
        for (files) |*file| try file.checkpoint.checkUnchanged();
        try adapted.model.checkUnchanged();
        return made;
    }

    fn mergeAll(adapted: *AdaptedWeights, set: *MergedSet, files: []AdapterFile) Error!void {
        const gpa = adapted.gpa;
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        var changes: Changes = .empty;
        try adapted.collect(arena.allocator(), set, files, &changes);
        set.weights = try set.arena.allocator().alloc(Merged, changes.count());
        var bytes: usize = 0;
        var largest: usize = 0;
        var total: usize = 0;
        for (set.weights, changes.keys()) |*merged, weight| {
            const dtype = adapted.typeOf(weight);
            const len = adapted.storedBytes(weight, dtype);
            merged.* = .{ .weight = weight, .dtype = dtype, .offset = bytes, .len = len };
            bytes += std.mem.alignForward(usize, len, 64);
            largest = @max(largest, len);
            total += len;
        }
        adapted.progress.adapt_bytes.store(total, .release);
        if (adapted.gpu == null or adapted.mayKeep(bytes)) try set.allocate(bytes);
        const staging = try gpa.alloc(u8, if (set.memory.len == 0) largest else 0);
        defer gpa.free(staging);
        var maker: Int8Maker = undefined;
        try maker.init(gpa, adapted.io, adapted.thread_count, adapted.cancelled);
        defer maker.deinit();
        // From the first upload on, GPUs have neither the old set nor the new one.
        if (adapted.gpu != null) adapted.forgetCurrent();
        for (set.weights, changes.values()) |*merged, deltas| {
            const target = if (staging.len > 0) staging[0..merged.len] else set.bytesOf(merged);
            try adapted.mergeOne(&maker, merged, deltas.items, target);
        }
    }

    fn mergeOne(
        adapted: *AdaptedWeights,
        maker: *Int8Maker,
        merged: *const Merged,
        deltas: []const Delta,
        target: []u8,
    ) Error!void {
        const weight = merged.weight;
        const out: merge.Output = .{
            .bytes = target,
            .dtype = merged.dtype,
            .scale = if (adapted.gpu == null) 1 else weight.scale,
        };
        const made = if (merged.dtype == .i8 and adapted.gpu != null)
            maker.rows(weight, deltas, target)
        else if (merged.dtype == .i8)
            maker.merge(weight, deltas, target)
        else
            maker.merger.merge(
                try baseOf(maker, weight),
                weight.inputs().channels,
                deltas,
                out,
            );
        made catch |err| {
            if (err != error.Overflow) return @errorCast(err);
            return adapted.diagnostics.fail(error.BadWeights, "With the LoRAs applied, the " ++
                "weight {s} has numbers that {s} does not hold. Lower their scales, or leave " ++
                "out the one that is damaged.", .{ weight.name, @tagName(merged.dtype) });
        };
        if (adapted.gpu != null) try adapted.upload(weight, target);
        _ = adapted.progress.adapted_bytes.fetchAdd(merged.len, .monotonic);
        _ = adapted.progress.weight_count.fetchAdd(1, .monotonic);
    }

    /// The deltas of every weight that the set changes, in their order.
    fn collect(
        adapted: *AdaptedWeights,
        arena: Allocator,
        set: *const MergedSet,
        files: []const AdapterFile,
        changes: *Changes,
    ) Error!void {
        for (set.adapters, files) |*adapter, *file| {
            for (adapter.targets) |*target| {
                const strength = adapter.strength(target.component);
                if (strength == 0) continue;
                const weight = weightOf(adapted.model, target) orelse {
                    return adapted.diagnostics.fail(error.BadWeights, "{s} changes the weight " ++
                        "{s}, which the model does not have.", .{ adapter.path, target.key });
                };
                const slot = try changes.getOrPut(arena, weight);
                if (!slot.found_existing) slot.value_ptr.* = .empty;
                const delta = try file.delta(target, weight, strength);
                try slot.value_ptr.append(arena, delta);
            }
        }
    }

    fn typeOf(adapted: *const AdaptedWeights, weight: *const Weight) DType {
        if (adapted.gpu == null or weight.dtype == .i8) return hostType(weight);
        return adapted.activation;
    }

    /// Bytes of a merged weight, as the ranks read it.
    fn storedBytes(adapted: *const AdaptedWeights, weight: *const Weight, dtype: DType) usize {
        if (adapted.gpu == null or dtype != .i8) return hostBytes(weight, dtype);
        return int8.rowBytes(weight.shape[0], weight.shape[1]);
    }

    /// Where only GPUs read the merged weights, host memory saves merging them again.
    fn mayKeep(adapted: *AdaptedWeights, bytes: usize) bool {
        while (true) {
            const free = memory.available(adapted.io) orelse return false;
            if (2 * bytes <= free) return true;
            if (!adapted.releaseSet(&.{})) return false;
        }
    }

    fn forgetCurrent(adapted: *AdaptedWeights) void {
        const set = adapted.current orelse return;
        adapted.current = null;
        if (set.memory.len == 0) adapted.drop(set);
    }

    /// Frees sets that were not used for long: kept sets leave as much memory free as they take.
    fn trim(adapted: *AdaptedWeights) void {
        while (adapted.kept.items.len > 1) {
            var others: u64 = 0;
            for (adapted.kept.items) |set| {
                if (set != adapted.current) others += set.memory.len;
            }
            const free = memory.available(adapted.io) orelse std.math.maxInt(u64);
            if (adapted.kept.items.len <= kept_count_max and others <= free) break;
            const oldest = adapted.kept.items[0];
            if (oldest == adapted.current) break;
            adapted.drop(oldest);
        }
        adapted.countBytes();
    }

    /// Frees the set, or only its memory where GPUs compute with it.
    fn drop(adapted: *AdaptedWeights, set: *MergedSet) void {
        if (set == adapted.current) {
            set.freeMemory();
        } else {
            const index = std.mem.indexOfScalar(*MergedSet, adapted.kept.items, set).?;
            _ = adapted.kept.orderedRemove(index);
            set.destroy();
        }
        adapted.countBytes();
    }

    fn countBytes(adapted: *AdaptedWeights) void {
        var bytes: u64 = 0;
        for (adapted.kept.items) |set| bytes += set.memory.len;
        adapted.progress.merged_bytes.store(bytes, .release);
    }
};

/// Bytes of host memory that `wanted` takes while the CPU computes with it; with the `activation`
/// of GPUs, what it takes there beside the weights that are kept in 8 bits. Weights that the model
/// does not have count nothing: `use` names them.
pub fn mergedBytes(
    gpa: Allocator,
    model: *const Model,
    wanted: []const Adapter,
    activation: ?DType,
) Allocator.Error!u64 {
    var weights = try weightsOf(gpa, model, wanted);
    defer weights.deinit(gpa);
    var bytes: u64 = 0;
    for (weights.keys()) |weight| bytes += mergedBytesOf(weight, activation);
    return bytes;
}

// --- internal ---

const Changes = std.AutoArrayHashMapUnmanaged(*Weight, std.ArrayList(Delta));
const WeightSet = std.AutoArrayHashMapUnmanaged(*Weight, void);

/// Those that `wanted` changes.
fn weightsOf(
    gpa: Allocator,
    model: *const Model,
    wanted: []const Adapter,
) Allocator.Error!WeightSet {
    var weights: WeightSet = .empty;
    errdefer weights.deinit(gpa);
    for (wanted) |*adapter| {
        for (adapter.targets) |*target| {
            if (adapter.strength(target.component) == 0) continue;
            if (weightOf(model, target)) |weight| try weights.put(gpa, weight, {});
        }
    }
    return weights;
}

/// What a merged weight takes; see `mergedBytes`.
fn mergedBytesOf(weight: *const Weight, activation: ?DType) u64 {
    if (activation) |dtype| {
        return if (weight.kept_f8 != null) device_weights.wideCopyBytes(weight, dtype) else 0;
    }
    return std.mem.alignForward(u64, hostBytes(weight, hostType(weight)), 64);
}

fn changesAny(wanted: []const Adapter) bool {
    for (wanted) |*adapter| {
        for (adapter.targets) |*target| {
            if (adapter.strength(target.component) != 0) return true;
        }
    }
    return false;
}

fn weightOf(model: *const Model, target: *const adapters.Target) ?*Weight {
    const resident = if (model.residents.getPtrConst(target.component).*) |*r| r else return null;
    if (resident.find(target.key)) |weight| return weight;
    // Files of text encoders have the prefix or not, depending on who wrote them.
    const prefix = "text_model.";
    if (std.mem.startsWith(u8, target.key, prefix)) return resident.find(target.key[prefix.len..]);
    var buffer: [key_bytes_max]u8 = undefined;
    const prefixed = std.fmt.bufPrint(&buffer, prefix ++ "{s}", .{target.key}) catch return null;
    return resident.find(prefixed);
}

/// What deltas are added to.
fn baseOf(maker: *Int8Maker, weight: *const Weight) Error!Matrix {
    return maker.matrixOf(weight) catch |err| switch (err) {
        error.Overflow => unreachable, // nothing is rounded
        else => |other| other,
    };
}

fn hostBytes(weight: *const Weight, dtype: DType) usize {
    if (dtype == .i8) return weight.copyBytes();
    return weight.elementCount() * dtype.size();
}

fn hostType(weight: *const Weight) DType {
    if (weight.dtype == .i8) return .i8;
    return if (weight.layout == .vector or weight.source_dtype == .f32) .f32 else .f16;
}
