//! Adapters (LoRA and kin) on the CPU's resident weights: `apply` sets a weight to the checkpoint's
//! elements plus a delta, `restore` returns to the loaded bits. GPUs do the same in place, so that
//! captured CUDA graphs stay valid; see `backend/cuda/weights.zig`. Both are called between jobs.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const DType = @import("../tensor.zig").DType;
const huge_pages = @import("../system/huge_pages.zig");
const Weight = @import("weight.zig").Weight;

pub const Adapters = struct {
    changed: std.AutoHashMapUnmanaged(*Weight, Changed) = .empty,

    /// A changed weight: its own memory, and the address and type that `restore` returns to.
    const Changed = struct { sum: []align(64) u8, address: usize, dtype: DType };

    /// Frees the memory of all changed weights, which must not be read afterwards.
    pub fn deinit(adapters: *Adapters, gpa: Allocator) void {
        var changes = adapters.changed.valueIterator();
        while (changes.next()) |change| huge_pages.free(gpa, change.sum);
        adapters.changed.deinit(gpa);
        adapters.* = undefined;
    }

    /// Sets the weight to the checkpoint's elements plus `delta`, which has the checkpoint's shape
    /// and order; an earlier delta is replaced. The sum is f32: the file's f16 would round it.
    /// The weight must have been loaded.
    pub fn apply(
        adapters: *Adapters,
        gpa: Allocator,
        weight: *Weight,
        delta: []const f32,
    ) Allocator.Error!void {
        assert(weight.address != 0);
        assert(delta.len == weight.elementCount());
        const slot = try adapters.changed.getOrPut(gpa, weight);
        if (!slot.found_existing) {
            errdefer _ = adapters.changed.remove(weight);
            slot.value_ptr.* = .{
                .sum = try huge_pages.alloc(gpa, delta.len * @sizeOf(f32)),
                .address = weight.address,
                .dtype = weight.dtype,
            };
        }
        const sum: []f32 = @ptrCast(slot.value_ptr.sum);
        for (sum, 0..) |*value, i| {
            const at = weight.sourceIndex(i);
            value.* = weight.sourceValue(at) + delta[at];
        }
        weight.address = @intFromPtr(sum.ptr);
        weight.dtype = .f32;
    }

    /// Returns to the loaded bits; does nothing where no delta was applied.
    pub fn restore(adapters: *Adapters, gpa: Allocator, weight: *Weight) void {
        const change = adapters.changed.fetchRemove(weight) orelse return;
        weight.address = change.value.address;
        weight.dtype = change.value.dtype;
        huge_pages.free(gpa, change.value.sum);
    }
};
