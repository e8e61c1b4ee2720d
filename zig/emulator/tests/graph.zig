//! The emulated driver's graphs: what is recorded, what a launch does, and what a capture forbids.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const rigs = @import("../fixture.zig");
const Rig = rigs.Rig;
const ok = rigs.ok;
const expectEqual = std.testing.expectEqual;

fn begin(rig: *const Rig) !void {
    try ok(rig.driver.cuStreamBeginCapture_v2(rig.stream, .thread_local));
}

fn end(rig: *const Rig) !drivers.GraphExec {
    const d = &rig.driver;
    var graph: ?drivers.Graph = null;
    try ok(d.cuStreamEndCapture(rig.stream, &graph));
    var exec: ?drivers.GraphExec = null;
    try ok(d.cuGraphInstantiateWithFlags(&exec, graph.?, 0));
    try ok(d.cuGraphDestroy(graph.?));
    return exec.?;
}

fn valueOf(rig: *const Rig, address: usize) !f32 {
    var value: [1]f32 = undefined;
    try ok(rig.synchronize());
    try rig.download(f32, address, &value);
    return value[0];
}

fn step(rig: *const Rig, stream: drivers.Stream, x: usize, add: f32) !void {
    try ok(try rig.launchOn(stream, "check_step", .{}, .{ x, add, @as(u32, 1) }));
}

test "a graph runs at its launches alone, with the arguments of the capture" {
    var rig: Rig = try .init(1);
    defer rig.deinit();
    const d = &rig.driver;
    const x = try rig.upload(f32, &.{1});
    try begin(&rig);
    // The rig's argument array is gone after each call: what is replayed was copied.
    try step(&rig, rig.stream, x, 1);
    try step(&rig, rig.stream, x, 5);
    const exec = try end(&rig);
    try expectEqual(1, try valueOf(&rig, x));
    for (0..3) |_| try ok(d.cuGraphLaunch(exec, rig.stream));
    // x -> 4 x + 7, three times: 1, 11, 51, 211.
    try expectEqual(211, try valueOf(&rig, x));
    try ok(d.cuGraphExecDestroy(exec));
    try expectEqual(.invalid_value, d.cuGraphLaunch(exec, rig.stream));
}

test "forks and joins inside a capture keep their order, and a missing join is refused" {
    for (0..20) |seed| {
        var rig: Rig = try .init(seed);
        defer rig.deinit();
        const d = &rig.driver;
        const side = try rig.makeStream();
        const fork = try rig.makeEvent();
        const join = try rig.makeEvent();
        const x = try rig.upload(f32, &.{1});
        const y = try rig.upload(f32, &.{1});
        for ([_]bool{ true, false }) |joins| {
            try begin(&rig);
            try step(&rig, rig.stream, x, 1);
            try ok(d.cuEventRecord(fork, rig.stream));
            try ok(d.cuStreamWaitEvent(side, fork, 0));
            try step(&rig, side, x, 2);
            try ok(d.cuEventRecord(join, side));
            try step(&rig, rig.stream, y, 3);
            if (!joins) {
                var graph: ?drivers.Graph = null;
                const result = d.cuStreamEndCapture(rig.stream, &graph);
                try expectEqual(.stream_capture_unjoined, result);
                try expectEqual(null, graph);
                continue;
            }
            try ok(d.cuStreamWaitEvent(rig.stream, join, 0));
            try step(&rig, rig.stream, x, 4);
            const exec = try end(&rig);
            try ok(d.cuGraphLaunch(exec, rig.stream));
            try expectEqual(((1 * 2 + 1) * 2 + 2) * 2 + 4, try valueOf(&rig, x));
            try expectEqual(1 * 2 + 3, try valueOf(&rig, y));
        }
    }
}

test "an external wait waits for the record before each launch, an external record marks it" {
    var early_count: usize = 0;
    for (0..40) |seed| {
        var rig: Rig = try .init(seed);
        defer rig.deinit();
        const d = &rig.driver;
        const side = try rig.makeStream();
        const before = try rig.makeEvent();
        const after = try rig.makeEvent();
        const x = try rig.upload(f32, &.{1});
        const has_node = seed % 2 == 0;
        try begin(&rig);
        if (has_node) {
            try ok(d.cuStreamWaitEvent(rig.stream, before, drivers.event_wait_external));
        }
        try step(&rig, rig.stream, x, 1);
        try ok(d.cuEventRecordWithFlags(after, rig.stream, drivers.event_record_external));
        const exec = try end(&rig);
        var expected: f32 = 1;
        for (0..4) |_| {
            try step(&rig, side, x, 10);
            try ok(d.cuEventRecord(before, side));
            try ok(d.cuGraphLaunch(exec, rig.stream));
            try ok(d.cuStreamWaitEvent(side, after, 0));
            expected = (expected * 2 + 10) * 2 + 1;
        }
        try ok(d.cuStreamSynchronize(side));
        const value = try valueOf(&rig, x);
        if (has_node) try expectEqual(expected, value);
        if (!has_node) early_count += @intFromBool(value != expected);
    }
    try std.testing.expect(early_count >= 10);
}

test "waiting, asking and allocating end a capture with the driver's own error" {
    const Forbidden = enum { synchronize, query, allocate, free, copy, event };
    for (std.enums.values(Forbidden)) |forbidden| {
        var rig: Rig = try .init(3);
        defer rig.deinit();
        const d = &rig.driver;
        const x = try rig.upload(f32, &.{1});
        const event = try rig.makeEvent();
        try begin(&rig);
        try step(&rig, rig.stream, x, 1);
        try ok(d.cuEventRecord(event, rig.stream));
        var address: usize = 0;
        var value: f32 = 0;
        const result = switch (forbidden) {
            .synchronize => d.cuStreamSynchronize(rig.stream),
            .query => d.cuStreamQuery(rig.stream),
            .allocate => d.cuMemAlloc_v2(&address, 4),
            .free => d.cuMemFree_v2(x),
            .copy => d.cuMemcpyDtoH_v2(&value, x, 4),
            .event => d.cuEventQuery(event),
        };
        const expected: drivers.Result = switch (forbidden) {
            .event => .captured_event,
            else => .stream_capture_unsupported,
        };
        try expectEqual(expected, result);
        var status: drivers.CaptureStatus = .none;
        try ok(d.cuStreamIsCapturing(rig.stream, &status));
        try expectEqual(.invalidated, status);
        var graph: ?drivers.Graph = null;
        try expectEqual(.stream_capture_invalidated, d.cuStreamEndCapture(rig.stream, &graph));
        // The stream is as good as new.
        try step(&rig, rig.stream, x, 1);
        try expectEqual(3, try valueOf(&rig, x));
    }
}

test "a capture that depends on work outside of it is refused" {
    var rig: Rig = try .init(4);
    defer rig.deinit();
    const d = &rig.driver;
    const side = try rig.makeStream();
    const event = try rig.makeEvent();
    try ok(d.cuEventRecord(event, side));
    try begin(&rig);
    try expectEqual(.stream_capture_isolation, d.cuStreamWaitEvent(rig.stream, event, 0));
    var graph: ?drivers.Graph = null;
    try expectEqual(.stream_capture_invalidated, d.cuStreamEndCapture(rig.stream, &graph));
}

test "another thread may allocate while this one captures for itself alone" {
    var rig: Rig = try .init(5);
    defer rig.deinit();
    for ([_]drivers.CaptureMode{ .thread_local, .global }) |mode| {
        try ok(rig.driver.cuStreamBeginCapture_v2(rig.stream, mode));
        var result: drivers.Result = .unknown;
        const thread = try std.Thread.spawn(.{}, allocateElsewhere, .{ &rig, &result });
        thread.join();
        const is_free = mode == .thread_local;
        try expectEqual(
            @as(drivers.Result, if (is_free) .success else .stream_capture_unsupported),
            result,
        );
        var graph: ?drivers.Graph = null;
        _ = rig.driver.cuStreamEndCapture(rig.stream, &graph);
    }
}

fn allocateElsewhere(rig: *const Rig, result: *drivers.Result) void {
    rig.use() catch return;
    var address: usize = 0;
    result.* = rig.driver.cuMemAlloc_v2(&address, 4);
}
