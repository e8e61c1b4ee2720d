//! The arena of one rank: a first-fit allocator over one address range, with its bookkeeping
//! outside the range, so that the same code counts bytes in a dry run and hands out device memory
//! in a job. Equal sequences of calls give equal offsets: a job needs what the plan measured.

const std = @import("std");
const assert = std.debug.assert;

/// Two lines of a GPU's L2 cache: rows of tensors then begin with a line, so that a warp touches as
/// few as can be; weights and memory of the driver's are aligned so too.
pub const block_alignment = 256;
/// Of the host's memory; addresses there need no more.
const host_alignment = 64;
/// Live tensors. SDXL has about 40 at once in a step, most of them skip connections. What prompts
/// make lives longer: keys and values of its 70 cross-attentions, and of 34 in each ControlNet, for
/// each set of prompts, twice where their lengths differ: room for 32 sets with a ControlNet. Every
/// rank has this list.
pub const block_count_max = 8192;

pub const Scratch = struct {
    base: usize,
    capacity: usize,
    /// Live blocks, by address.
    blocks: [block_count_max]Block = undefined,
    block_count: usize = 0,
    /// The highest end of a block so far.
    peak: usize = 0,

    pub const Block = struct { offset: usize, len: usize };

    /// Counts without limit; addresses are offsets from `block_alignment`, never 0.
    pub fn planning() Scratch {
        return .{ .base = block_alignment, .capacity = std.math.maxInt(usize) / 2 };
    }

    pub fn init(memory: []align(host_alignment) u8) Scratch {
        return .{ .base = @intFromPtr(memory.ptr), .capacity = memory.len };
    }

    pub fn alloc(scratch: *Scratch, bytes: usize) error{OutOfScratch}!usize {
        const len = std.mem.alignForward(usize, @max(bytes, 1), block_alignment);
        var offset: usize = 0;
        var i: usize = 0;
        while (i < scratch.block_count) : (i += 1) {
            const block = scratch.blocks[i];
            if (block.offset - offset >= len) break;
            offset = block.offset + block.len;
        }
        if (scratch.capacity - offset < len) return error.OutOfScratch;
        if (scratch.block_count == block_count_max) return error.OutOfScratch;
        const blocks = scratch.blocks[0 .. scratch.block_count + 1];
        std.mem.copyBackwards(Block, blocks[i + 1 ..], blocks[i .. blocks.len - 1]);
        blocks[i] = .{ .offset = offset, .len = len };
        scratch.block_count += 1;
        scratch.peak = @max(scratch.peak, offset + len);
        return scratch.base + offset;
    }

    /// `address` must be alive.
    pub fn free(scratch: *Scratch, address: usize) void {
        const offset = address - scratch.base;
        const blocks = scratch.blocks[0..scratch.block_count];
        const i = for (blocks, 0..) |block, i| {
            if (block.offset == offset) break i;
        } else unreachable;
        std.mem.copyForwards(Block, blocks[i .. blocks.len - 1], blocks[i + 1 ..]);
        scratch.block_count -= 1;
    }

    /// The live blocks, by address.
    pub fn live(scratch: *const Scratch) []const Block {
        return scratch.blocks[0..scratch.block_count];
    }

    /// Up to the end of the last block that is alive.
    pub fn used(scratch: *const Scratch) usize {
        if (scratch.block_count == 0) return 0;
        const last = scratch.blocks[scratch.block_count - 1];
        return last.offset + last.len;
    }

    /// Forgets every block: a failed job does not free its own.
    pub fn reset(scratch: *Scratch) void {
        scratch.block_count = 0;
    }
};

test "freed room is used again and the peak is remembered" {
    var scratch: Scratch = .planning();
    const unit = block_alignment;
    const a = try scratch.alloc(unit + 1);
    const b = try scratch.alloc(unit);
    const c = try scratch.alloc(1);
    try std.testing.expectEqual(a + 2 * unit, b);
    try std.testing.expectEqual(b + unit, c);
    scratch.free(a);
    try std.testing.expectEqual(a, try scratch.alloc(unit + 1));
    scratch.free(b);
    try std.testing.expectEqual(c + unit, try scratch.alloc(unit + 1));
    try std.testing.expectEqual(@as(usize, (2 + 1 + 1 + 2) * unit), scratch.peak);
}

test "blocks never overlap and what planning measured is enough" {
    var random: std.Random.DefaultPrng = .init(1);
    var plan: Scratch = .planning();
    var live: std.ArrayList(struct { usize, usize }) = .empty;
    defer live.deinit(std.testing.allocator);
    var trace: std.ArrayList(union(enum) { alloc: usize, free: usize }) = .empty;
    defer trace.deinit(std.testing.allocator);
    for (0..2000) |_| {
        if (live.items.len > 0 and random.random().uintLessThan(u32, 100) < 48) {
            const i = random.random().uintLessThan(usize, live.items.len);
            try trace.append(std.testing.allocator, .{ .free = i });
            plan.free(live.swapRemove(i)[0]);
        } else {
            const bytes = random.random().uintLessThan(usize, 5000);
            const address = try plan.alloc(bytes);
            try trace.append(std.testing.allocator, .{ .alloc = bytes });
            for (live.items) |other| {
                try std.testing.expect(
                    address + bytes <= other[0] or other[0] + other[1] <= address,
                );
            }
            try live.append(std.testing.allocator, .{ address, bytes });
        }
    }
    const memory = try std.testing.allocator.alignedAlloc(u8, .fromByteUnits(64), plan.peak);
    defer std.testing.allocator.free(memory);
    var scratch: Scratch = .init(memory);
    live.clearRetainingCapacity();
    for (trace.items) |step| switch (step) {
        .alloc => |bytes| {
            try live.append(std.testing.allocator, .{ try scratch.alloc(bytes), bytes });
        },
        .free => |i| scratch.free(live.swapRemove(i)[0]),
    };
    try std.testing.expectEqual(plan.peak, scratch.peak);
    try std.testing.expectError(error.OutOfScratch, scratch.alloc(plan.peak + 1));
}
