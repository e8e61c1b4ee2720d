//! A rank that dies at a place drawn by chance, on two emulated GPUs: the other rank ends too,
//! within the stall limit, there is one sentence, and the next job brings what it should. The job
//! has all that a step of an image has, in small: the first contact of two ranks, products whose
//! algorithms are measured behind transfers that wait for the other rank, captures, segments, and
//! gathers.

const std = @import("std");
const backend = @import("../backend.zig");
const Backend = backend.Backend;
const devices = @import("../devices.zig");
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const dynamic = @import("../nvidia/dynamic.zig");
const library_path = @import("../emulator/library_fixture.zig").library_path;
const RankDevice = @import("rank_device.zig").RankDevice;
const Scratch = @import("../scratch.zig").Scratch;
const Tensor = @import("../tensor.zig").Tensor;
const transports = @import("../transport.zig");
const Transport = transports.Transport;

const rank_count = 2;
/// Of each kind of step one eager, one captured, some replayed.
const step_count = 6;
const slot_count = 3;
const value_count = 64;
const slot_bytes = value_count * @sizeOf(f32);
const arena_bytes = 1 << 16;
const long_ns = 20 * std.time.ns_per_s;
const short_ns = 100 * std.time.ns_per_ms;

const Call = @import("../emulator/faults.zig").Call;
const calls = [_]Call{
    .launch_kernel, .event_record,   .stream_wait_event, .begin_capture,
    .end_capture,   .copy_to_device, .graph_launch,      .copy_from_device,
    .nccl_group,    .copy_peer,
};

const Emulator = struct {
    bxl_emulator_configure: *const fn (seed: u64, gpu_count: u32) callconv(.c) c_int,
    bxl_emulator_fail_call: *const fn (call: u32, gpu: u32, index: u32) callconv(.c) c_int,
    bxl_emulator_call_count: *const fn (call: u32, gpu: u32) callconv(.c) u32,

    fn fail(emulator: *const Emulator, call: Call, gpu: u32, index: u32) !void {
        const result = emulator.bxl_emulator_fail_call(@intFromEnum(call), gpu, index);
        try std.testing.expectEqual(0, result);
    }
};

/// Two GPUs for many jobs.
const Machine = struct {
    diagnostics: Diagnostics = .{},
    cancelled: std.atomic.Value(bool) = .init(false),
    devices: devices.Devices,
    emulator: Emulator,
    local: transports.LocalRanks = undefined,
    bases: [rank_count]usize = undefined,
    failures: [rank_count]?anyerror = undefined,
    /// Products of other sizes are measured anew.
    job: u32 = 0,
    stall_limit_ns: i96 = long_ns,
    /// A rank that does nothing, as one whose process is gone.
    absent: ?u32 = null,
    /// What it does instead.
    cancels: bool = false,

    fn open(m: *Machine, transport: devices.TransportKind) !void {
        const gpa = std.testing.allocator;
        const path: [:0]const u8 = library_path ++ "";
        m.* = .{ .emulator = undefined, .devices = .{
            .gpa = gpa,
            .io = std.testing.io,
            .options = .{
                .kind = .cuda,
                .activation_dtype = .f16,
                .local_ranks = .{ .first = 0, .end = rank_count },
                .transport = transport,
                .cuda_library = path,
            },
            .diagnostics = &m.diagnostics,
            .cancelled = &m.cancelled,
            .arena = .init(gpa),
        } };
        var missing: []const u8 = "";
        m.emulator = try dynamic.load(Emulator, dynamic.open(path).?, &missing);
        try m.devices.open(rank_count);
        for (m.devices.ranks) |*rank| try rank.reserve(gpa, arena_bytes);
    }

    /// Runs a job; `failures` has how each rank ended.
    fn run(m: *Machine) !void {
        m.job += 1;
        m.diagnostics.reset();
        m.failures = @splat(null);
        try m.devices.prepare();
        m.local = .init(std.testing.io, rank_count, &m.diagnostics, .{
            .stall_limit_ns = m.stall_limit_ns,
        });
        var watch = m.devices.connection().watch(&m.local);
        if (watch) |*w| try w.start();
        defer if (watch) |*w| w.stop();
        const thread: std.Thread = try .spawn(.{}, runRank, .{ m, 1 });
        m.runRank(0);
        thread.join();
    }

    fn runRank(m: *Machine, index: u32) void {
        const device = &m.devices.ranks[index];
        const transport = m.devices.connection().transportOf(&m.local, index);
        const cuda = device.device.cuda;
        cuda.waits.stall_limit_ns = m.stall_limit_ns;
        cuda.waits.job_failed = transport.failed();
        defer cuda.waits.job_failed = null;
        m.work(device, transport, index) catch |err| {
            m.failures[index] = err;
            transport.abort();
            device.recover();
        };
    }

    fn work(m: *Machine, device: *RankDevice, transport: Transport, index: u32) !void {
        try device.enter();
        var scratch = device.scratch();
        const b: Backend = .{ .scratch = &scratch, .device = device.device };
        var rank: Rank = .{ .m = m, .b = b, .transport = transport, .index = index };
        rank.own = try b.alloc(.vector(slot_count, value_count), .f32);
        rank.theirs = try b.alloc(.vector(slot_count, value_count), .f32);
        rank.halves = try b.alloc(.vector(1, 64 * 64), .f16);
        try b.zero(rank.halves.address, rank.halves.byteCount());
        m.bases[index] = rank.own.address;
        try transport.barrier();
        if (m.absent == index) return if (m.cancels) m.cancelled.store(true, .release);
        for (0..step_count) |i| try rank.step(@intCast(i));
        try transport.barrier();
    }

    fn expectWhole(m: *Machine) !void {
        try m.emulator.fail(.none, 0, 0);
        try m.run();
        for (m.failures) |failure| if (failure) |err| {
            std.debug.print("{s}\n", .{m.diagnostics.message()});
            return err;
        };
    }

    /// The rank on `gpu` dies at the call.
    fn expectDeath(m: *Machine, call: Call, gpu: u32, index: u32) !void {
        errdefer std.debug.print("{s} {d} of GPU {d}: {s}\n", .{
            @tagName(call), index, gpu, m.diagnostics.message(),
        });
        try m.emulator.fail(call, gpu, index);
        try m.run();
        const other = 1 - gpu;
        // The rank that died has the sentence.
        try std.testing.expectEqual(@as(?anyerror, error.GpuFailed), m.failures[gpu]);
        try std.testing.expect(m.diagnostics.message().len > 0);
        // The other ends because of it, or was done.
        const ended = m.failures[other] orelse error.Cancelled;
        try std.testing.expectEqual(@as(anyerror, error.Cancelled), ended);
        try std.testing.expect(!m.devices.isLost());
        try m.expectWhole();
    }
};

const Rank = struct {
    m: *Machine,
    b: Backend,
    transport: Transport,
    index: u32,
    own: Tensor = undefined,
    theirs: Tensor = undefined,
    halves: Tensor = undefined,

    fn value(rank: u32, at: u32, slot: u32) f32 {
        return @floatFromInt(1 + rank + 2 * (slot + slot_count * at));
    }

    fn step(r: *Rank, at: u32) !void {
        const key: backend.GraphKey = .of(.unet, r.own, .{
            .patch_index = r.index,
            .patch_count = rank_count,
            .patch_rows = @splat(r.m.job),
        });
        try r.b.write(r.halves.batchSlice(0, 1), std.mem.asBytes(&@as([64 * 64]u16, @splat(0))));
        try r.b.runGraphed(key, layers, .{ r, at });
        const gathered = try r.b.alloc(.vector(slot_count, value_count), .f32);
        defer r.b.free(gathered);
        var shards: [rank_count]Tensor = @splat(gathered);
        try r.transport.gather(r.own, &shards);
        var got: [slot_count * value_count]f32 = undefined;
        try r.b.download(gathered, std.mem.sliceAsBytes(&got));
        try r.transport.endGather();
        var received: [slot_count * value_count]f32 = undefined;
        try r.b.download(r.theirs, std.mem.sliceAsBytes(&received));
        for (got, received, 0..) |x, y, i| {
            const expected = value(1 - r.index, 0, @intCast(i / value_count));
            try std.testing.expectEqual(expected, x);
            try std.testing.expectEqual(expected, y);
        }
    }

    fn layers(r: *Rank, at: u32) !void {
        const cuda = r.b.device.cuda;
        try r.transport.beginPart(.unet, .outer, .{ .first = 0, .end = rank_count }, at == 0);
        for (0..slot_count) |i| {
            const slot: u32 = @intCast(i);
            // Constants of the launches, as a graph's must be.
            const bits: c_uint = @bitCast(value(r.index, 0, slot));
            const address = r.own.address + slot * slot_bytes;
            if (!cuda.isReplaying()) {
                const d = cuda.driver;
                const result = d.cuMemsetD32Async(address, bits, value_count, cuda.stream);
                try cuda.check(.cuMemsetD32Async, result, "filling a slot");
            }
            try r.swap(at, slot);
            // The first eager one is measured behind the receive.
            if (!cuda.isReplaying()) try cuda.libraries.?.matmul.run(cuda.stream, .{
                .m = 8,
                .n = 8,
                .k = 8 + 8 * (slot % 3),
                .input = .f16,
                .output = .f16,
                .out = r.halves.address,
                .x = r.halves.address + 4096,
                .w = r.halves.address + 6144,
                .out_stride = 8 + 8 * (r.m.job % 32),
            });
            const kept = try r.b.scaleRepeat(r.own.batchSlice(slot, 1), 1, 1);
            r.b.free(kept);
        }
        try r.transport.endPart(.unet, .outer);
    }

    fn swap(r: *Rank, at: u32, slot: u32) !void {
        var s: transports.Swap = .{ .channel = .unet, .position = .{
            .step = at,
            .slot = slot,
            .slot_count = slot_count,
        } };
        s.addTransfer(.{
            .rank = 1 - r.index,
            .send_address = r.own.address + slot * slot_bytes,
            .send_bytes = slot_bytes,
            .receive_address = r.theirs.address + slot * slot_bytes,
            .receive_bytes = slot_bytes,
            .remote_base = &r.m.bases[1 - r.index],
            .remote_offset = slot * slot_bytes,
        });
        try r.transport.swap(&s);
    }
};

fn dieOften(transport: devices.TransportKind, seeds: std.Random, count: usize) !void {
    var m: Machine = undefined;
    try m.open(transport);
    defer m.devices.close();
    try m.expectWhole();
    var totals: [calls.len][rank_count]u32 = undefined;
    for (calls, &totals) |call, *total| for (total, 0..) |*one, gpu| {
        one.* = m.emulator.bxl_emulator_call_count(@intFromEnum(call), @intCast(gpu));
    };
    var done: usize = 0;
    while (done < count) {
        // Kinds in turn, the place by chance.
        const kind = (done + seeds.uintLessThan(usize, 2)) % calls.len;
        const gpu = seeds.uintLessThan(u32, rank_count);
        const total = totals[kind][gpu];
        if (total == 0) {
            done += @intFromBool(transport == .peer);
            continue;
        }
        try m.expectDeath(calls[kind], gpu, seeds.uintLessThan(u32, total));
        done += 1;
    }
}

test "a rank that dies at any of many places ends the other, and the next job works: NCCL" {
    var prng: std.Random.DefaultPrng = .init(1);
    try dieOften(.nccl, prng.random(), 28);
}

test "a rank that dies at any of many places ends the other, and the next job works: copies" {
    var prng: std.Random.DefaultPrng = .init(2);
    try dieOften(.peer, prng.random(), 12);
}

test "a rank that dies before its first contact does not leave the other in it" {
    var m: Machine = undefined;
    try m.open(.nccl);
    defer m.devices.close();
    for (0..rank_count) |gpu| try m.expectDeath(.nccl_group, @intCast(gpu), 0);
}

test "a rank whose other never comes to their first contact ends at the limit, or with the job" {
    var m: Machine = undefined;
    try m.open(.nccl);
    defer m.devices.close();
    m.absent = 1;
    m.stall_limit_ns = short_ns;
    try m.run();
    try std.testing.expectEqual(@as(?anyerror, error.RankStalled), m.failures[0]);
    try std.testing.expectEqualStrings("Rank 0 stalled at step 0: other ranks did not come to " ++
        "its transfer within 0.1 s. No image was written. NCCL_DEBUG=INFO shows how they " ++
        "connect.", m.diagnostics.message());
    m.cancels = true;
    m.stall_limit_ns = long_ns;
    try m.run();
    try std.testing.expectEqual(@as(?anyerror, error.Cancelled), m.failures[0]);
    m.cancelled.store(false, .release);
    m.absent = null;
    try m.expectWhole();
}

test "a kernel that crashes, or a GPU that is lost, breaks the devices, and others work" {
    for ([_]Call{ .kernel, .device }) |call| for (0..rank_count) |gpu| {
        var m: Machine = undefined;
        try m.open(if (gpu == 0) .nccl else .peer);
        {
            defer m.devices.close();
            try m.expectWhole();
            const count = m.emulator.bxl_emulator_call_count(@intFromEnum(call), @intCast(gpu));
            try m.emulator.fail(call, @intCast(gpu), count / 2);
            try m.run();
            try std.testing.expectEqual(@as(?anyerror, error.GpuFailed), m.failures[gpu]);
            try std.testing.expect(m.devices.isLost());
        }
        if (call == .device) {
            var other: Machine = undefined;
            try std.testing.expectError(error.GpuFailed, other.open(.auto));
            const said = other.diagnostics.message();
            try std.testing.expect(std.mem.startsWith(u8, said, "cuDevicePrimaryCtxRetain failed"));
        }
        try m.emulator.fail(.none, 0, 0);
        try m.open(.auto);
        defer m.devices.close();
        try m.expectWhole();
    };
}
