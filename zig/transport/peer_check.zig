//! A copy from one GPU's memory to another's, timed and verified: broken peer copies hang or return
//! wrong data whatever the driver says of them, the most common problem of machines with several
//! GPUs. Sessions try each pair before they rely on it, `doctor` reports bandwidths. The copy runs
//! in a separate thread, which is abandoned if it does not return.

const std = @import("std");
const drivers = @import("../nvidia/driver.zig");
const Driver = drivers.Driver;

pub const Verdict = enum {
    fine,
    /// A driver call failed with `result`.
    failed,
    /// The copy ended, but the bytes differ.
    garbled,
    /// The copy exceeded the time limit.
    stalled,
};

pub const Outcome = struct {
    verdict: Verdict,
    result: drivers.Result = .success,
    /// Whether the driver supports peer-to-peer access, without staging through the host.
    is_direct: bool = false,
    bytes_per_second: f64 = 0,
};

pub const Options = struct {
    /// A multiple of 4.
    bytes: usize,
    limit_ms: u32,
};

/// What broken copies come from, and what shows it; without a full stop.
pub const advice = "switch IOMMU and ACS off in the firmware or hypervisor, or ask the kernel " ++
    "for iommu=pt; `nvidia-smi topo -p2p r` shows what the driver thinks";

/// Copies from GPU `from` to GPU `to` and waits at most so long. After a stalled copy neither GPU's
/// memory can be freed any more: that waits for the copy.
pub fn run(driver: *const Driver, from: u32, to: u32, options: Options) Outcome {
    var outcome: Outcome = .{ .verdict = .stalled };
    var can_access: c_int = 0;
    const is_known = driver.cuDeviceCanAccessPeer(&can_access, @intCast(to), @intCast(from));
    if (is_known == .success) outcome.is_direct = can_access != 0;
    const job: Copy = .{
        .driver = driver.*,
        .from = @intCast(from),
        .to = @intCast(to),
        .is_direct = outcome.is_direct,
        .bytes = options.bytes,
        .seed = 0x9e37_79b9 *% (from * 64 + to + 1),
    };
    const measured = runLimited(Copy, job, options.limit_ms) orelse return outcome;
    outcome.verdict = measured.verdict;
    outcome.result = measured.result;
    outcome.bytes_per_second = measured.bytes_per_second;
    return outcome;
}

/// Runs `job.run()` in another thread; null where it takes longer, or where no thread can be
/// started. The thread and its memory are then leaked.
fn runLimited(comptime Job: type, job: Job, limit_ms: u32) ?Outcome {
    const Shared = struct {
        job: Job,
        outcome: Outcome = undefined,
        is_done: std.atomic.Value(bool) = .init(false),

        fn main(shared: *@This()) void {
            shared.outcome = shared.job.run();
            shared.is_done.store(true, .release);
        }
    };
    const shared = std.heap.c_allocator.create(Shared) catch return null;
    shared.* = .{ .job = job };
    const thread = std.Thread.spawn(.{}, Shared.main, .{shared}) catch {
        std.heap.c_allocator.destroy(shared);
        return null;
    };
    const slice_ms = 2;
    var waited_ms: u32 = 0;
    while (!shared.is_done.load(.acquire)) : (waited_ms += slice_ms) {
        if (waited_ms >= limit_ms) {
            thread.detach();
            return null;
        }
        const slice: std.c.timespec = .{ .sec = 0, .nsec = slice_ms * std.time.ns_per_ms };
        _ = std.c.nanosleep(&slice, null);
    }
    thread.join();
    defer std.heap.c_allocator.destroy(shared);
    return shared.outcome;
}

// --- internal ---

const Copy = struct {
    driver: Driver,
    from: drivers.Device,
    to: drivers.Device,
    is_direct: bool,
    bytes: usize,
    /// Fill value of the source: a different number for every pair.
    seed: u32,

    fn run(copy: Copy) Outcome {
        var result: drivers.Result = .success;
        return copy.attempt(&result) catch .{ .verdict = .failed, .result = result };
    }

    fn attempt(copy: Copy, failure: *drivers.Result) error{Failed}!Outcome {
        const d = &copy.driver;
        const check: Check = .{ .failure = failure };
        var from_context: ?drivers.Context = null;
        var to_context: ?drivers.Context = null;
        try check.that(d.cuDevicePrimaryCtxRetain(&from_context, copy.from));
        defer _ = d.cuDevicePrimaryCtxRelease_v2(copy.from);
        try check.that(d.cuDevicePrimaryCtxRetain(&to_context, copy.to));
        defer _ = d.cuDevicePrimaryCtxRelease_v2(copy.to);
        var source: drivers.Address = 0;
        try check.that(d.cuCtxSetCurrent(from_context));
        try check.that(d.cuMemAlloc_v2(&source, copy.bytes));
        defer {
            _ = d.cuCtxSetCurrent(from_context);
            _ = d.cuMemFree_v2(source);
        }
        try check.that(copy.fill(from_context.?, source, copy.seed));
        var target: drivers.Address = 0;
        try check.that(d.cuCtxSetCurrent(to_context));
        try check.that(d.cuMemAlloc_v2(&target, copy.bytes));
        defer {
            _ = d.cuCtxSetCurrent(to_context);
            _ = d.cuMemFree_v2(target);
        }
        if (copy.is_direct) {
            const enabled = d.cuCtxEnablePeerAccess(from_context.?, 0);
            if (enabled != .peer_access_already_enabled) try check.that(enabled);
        }
        try check.that(copy.fill(to_context.?, target, ~copy.seed));
        var outcome: Outcome = .{ .verdict = .fine };
        const seconds = try copy.time(check, .{ source, target }, .{
            from_context.?, to_context.?,
        });
        outcome.bytes_per_second =
            @as(f64, @floatFromInt(copy.bytes)) / @max(seconds, 1e-9);
        if (!try copy.isWhole(check, target)) outcome.verdict = .garbled;
        return outcome;
    }

    fn fill(
        copy: Copy,
        context: drivers.Context,
        address: drivers.Address,
        value: u32,
    ) drivers.Result {
        const d = &copy.driver;
        var stream: ?drivers.Stream = null;
        for ([_]drivers.Result{
            d.cuCtxSetCurrent(context),
            d.cuStreamCreate(&stream, drivers.stream_non_blocking),
        }) |result| if (result != .success) return result;
        defer _ = d.cuStreamDestroy_v2(stream.?);
        const result = d.cuMemsetD32Async(address, value, copy.bytes / 4, stream.?);
        return if (result == .success) d.cuStreamSynchronize(stream.?) else result;
    }

    /// Seconds of the second copy; the first sets up what it needs.
    fn time(
        copy: Copy,
        check: Check,
        addresses: [2]drivers.Address,
        contexts: [2]drivers.Context,
    ) error{Failed}!f64 {
        const d = &copy.driver;
        var stream: ?drivers.Stream = null;
        try check.that(d.cuStreamCreate(&stream, drivers.stream_non_blocking));
        defer _ = d.cuStreamDestroy_v2(stream.?);
        var events: [2]?drivers.Event = @splat(null);
        for (&events) |*event| try check.that(d.cuEventCreate(event, 0));
        defer for (events) |event| {
            _ = d.cuEventDestroy_v2(event.?);
        };
        for (0..2) |_| {
            try check.that(d.cuEventRecord(events[0].?, stream.?));
            try check.that(d.cuMemcpyPeerAsync(
                addresses[1],
                contexts[1],
                addresses[0],
                contexts[0],
                copy.bytes,
                stream.?,
            ));
            try check.that(d.cuEventRecord(events[1].?, stream.?));
            try check.that(d.cuStreamSynchronize(stream.?));
        }
        var milliseconds: f32 = 0;
        try check.that(d.cuEventElapsedTime(&milliseconds, events[0].?, events[1].?));
        return milliseconds / 1000;
    }

    fn isWhole(copy: Copy, check: Check, target: drivers.Address) error{Failed}!bool {
        const words = std.heap.c_allocator.alloc(u32, copy.bytes / 4) catch return true;
        defer std.heap.c_allocator.free(words);
        try check.that(copy.driver.cuMemcpyDtoH_v2(words.ptr, target, copy.bytes));
        return std.mem.allEqual(u32, words, copy.seed);
    }
};

const Check = struct {
    failure: *drivers.Result,

    fn that(check: Check, result: drivers.Result) error{Failed}!void {
        if (result == .success) return;
        check.failure.* = result;
        return error.Failed;
    }
};

test "what takes too long is left behind, and what does not is waited for" {
    const Job = struct {
        gate: ?*std.atomic.Value(bool),

        fn run(job: @This()) Outcome {
            const gate = job.gate orelse return .{ .verdict = .fine };
            while (!gate.load(.acquire)) std.Thread.yield() catch {};
            gate.store(false, .release);
            return .{ .verdict = .fine };
        }
    };
    const quick = runLimited(Job, .{ .gate = null }, 60_000);
    try std.testing.expectEqual(Verdict.fine, quick.?.verdict);
    var gate: std.atomic.Value(bool) = .init(false);
    try std.testing.expectEqual(@as(?Outcome, null), runLimited(Job, .{ .gate = &gate }, 4));
    // The thread still runs: it resets the gate when it ends.
    gate.store(true, .release);
    while (gate.load(.acquire)) std.Thread.yield() catch {};
}
