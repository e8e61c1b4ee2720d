//! The emulated driver's graphs: what is recorded, what a launch does, and what a capture forbids.

const std = @import("std");
const drivers = @import("../../nvidia/driver.zig");
const fixtures = @import("../fixture.zig");
const Fixture = fixtures.Fixture;
const ok = fixtures.ok;
const expectEqual = std.testing.expectEqual;

fn begin(fixture: *const Fixture) !void {
    try ok(fixture.driver.cuStreamBeginCapture_v2(fixture.stream, .thread_local));
}

fn end(fixture: *const Fixture) !drivers.GraphExec {
    const d = &fixture.driver;
    var graph: ?drivers.Graph = null;
    try ok(d.cuStreamEndCapture(fixture.stream, &graph));
    var exec: ?drivers.GraphExec = null;
    try ok(d.cuGraphInstantiateWithFlags(&exec, graph.?, 0));
    try ok(d.cuGraphDestroy(graph.?));
    return exec.?;
}

fn valueOf(fixture: *const Fixture, address: usize) !f32 {
    var value: [1]f32 = undefined;
    try ok(fixture.synchronize());
    try fixture.download(f32, address, &value);
    return value[0];
}

fn step(fixture: *const Fixture, stream: drivers.Stream, x: usize, add: f32) !void {
    try ok(try fixture.launchOn(stream, "check_step", .{}, .{ x, add, @as(u32, 1) }));
}

test "a graph runs at its launches alone, with the arguments of the capture" {
    var fixture: Fixture = try .init(1);
    defer fixture.deinit();
    const d = &fixture.driver;
    const x = try fixture.upload(f32, &.{1});
    try begin(&fixture);
    // The fixture's argument array is gone after each call: what is replayed was copied.
    try step(&fixture, fixture.stream, x, 1);
    try step(&fixture, fixture.stream, x, 5);
    const exec = try end(&fixture);
    try expectEqual(1, try valueOf(&fixture, x));
    for (0..3) |_| try ok(d.cuGraphLaunch(exec, fixture.stream));
    // x -> 4 x + 7, three times: 1, 11, 51, 211.
    try expectEqual(211, try valueOf(&fixture, x));
    try ok(d.cuGraphExecDestroy(exec));
    try expectEqual(.invalid_value, d.cuGraphLaunch(exec, fixture.stream));
}

test "forks and joins inside a capture keep their order, and a missing join is refused" {
    for (0..20) |seed| {
        var fixture: Fixture = try .init(seed);
        defer fixture.deinit();
        const d = &fixture.driver;
        const side = try fixture.makeStream();
        const fork = try fixture.makeEvent();
        const join = try fixture.makeEvent();
        const x = try fixture.upload(f32, &.{1});
        const y = try fixture.upload(f32, &.{1});
        for ([_]bool{ true, false }) |joins| {
            try begin(&fixture);
            try step(&fixture, fixture.stream, x, 1);
            try ok(d.cuEventRecord(fork, fixture.stream));
            try ok(d.cuStreamWaitEvent(side, fork, 0));
            try step(&fixture, side, x, 2);
            try ok(d.cuEventRecord(join, side));
            try step(&fixture, fixture.stream, y, 3);
            if (!joins) {
                var graph: ?drivers.Graph = null;
                const result = d.cuStreamEndCapture(fixture.stream, &graph);
                try expectEqual(.stream_capture_unjoined, result);
                try expectEqual(null, graph);
                continue;
            }
            try ok(d.cuStreamWaitEvent(fixture.stream, join, 0));
            try step(&fixture, fixture.stream, x, 4);
            const exec = try end(&fixture);
            try ok(d.cuGraphLaunch(exec, fixture.stream));
            try expectEqual(((1 * 2 + 1) * 2 + 2) * 2 + 4, try valueOf(&fixture, x));
            try expectEqual(1 * 2 + 3, try valueOf(&fixture, y));
        }
    }
}

test "an external wait waits for the record before each launch, an external record marks it" {
    var early_count: usize = 0;
    for (0..40) |seed| {
        var fixture: Fixture = try .init(seed);
        defer fixture.deinit();
        const d = &fixture.driver;
        const side = try fixture.makeStream();
        const before = try fixture.makeEvent();
        const after = try fixture.makeEvent();
        const x = try fixture.upload(f32, &.{1});
        const has_node = seed % 2 == 0;
        try begin(&fixture);
        if (has_node) {
            try ok(d.cuStreamWaitEvent(fixture.stream, before, drivers.event_wait_external));
        }
        try step(&fixture, fixture.stream, x, 1);
        try ok(d.cuEventRecordWithFlags(after, fixture.stream, drivers.event_record_external));
        const exec = try end(&fixture);
        var expected: f32 = 1;
        for (0..4) |_| {
            try step(&fixture, side, x, 10);
            try ok(d.cuEventRecord(before, side));
            try ok(d.cuGraphLaunch(exec, fixture.stream));
            try ok(d.cuStreamWaitEvent(side, after, 0));
            expected = (expected * 2 + 10) * 2 + 1;
        }
        try ok(d.cuStreamSynchronize(side));
        const value = try valueOf(&fixture, x);
        if (has_node) try expectEqual(expected, value);
        if (!has_node) early_count += @intFromBool(value != expected);
    }
    try std.testing.expect(early_count >= 10);
}

test "waiting, asking and allocating end a capture with the driver's own error" {
    const Forbidden = enum { synchronize, query, allocate, free, copy, event };
    for (std.enums.values(Forbidden)) |forbidden| {
        var fixture: Fixture = try .init(3);
        defer fixture.deinit();
        const d = &fixture.driver;
        const x = try fixture.upload(f32, &.{1});
        const event = try fixture.makeEvent();
        try begin(&fixture);
        try step(&fixture, fixture.stream, x, 1);
        try ok(d.cuEventRecord(event, fixture.stream));
        var address: usize = 0;
        var value: f32 = 0;
        const result = switch (forbidden) {
            .synchronize => d.cuStreamSynchronize(fixture.stream),
            .query => d.cuStreamQuery(fixture.stream),
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
        try ok(d.cuStreamIsCapturing(fixture.stream, &status));
        try expectEqual(.invalidated, status);
        var graph: ?drivers.Graph = null;
        try expectEqual(.stream_capture_invalidated, d.cuStreamEndCapture(fixture.stream, &graph));
        // The stream is as good as new.
        try step(&fixture, fixture.stream, x, 1);
        try expectEqual(3, try valueOf(&fixture, x));
    }
}

test "a capture that depends on work outside of it is refused" {
    var fixture: Fixture = try .init(4);
    defer fixture.deinit();
    const d = &fixture.driver;
    const side = try fixture.makeStream();
    const event = try fixture.makeEvent();
    try ok(d.cuEventRecord(event, side));
    try begin(&fixture);
    try expectEqual(.stream_capture_isolation, d.cuStreamWaitEvent(fixture.stream, event, 0));
    var graph: ?drivers.Graph = null;
    try expectEqual(.stream_capture_invalidated, d.cuStreamEndCapture(fixture.stream, &graph));
}

test "another thread may allocate while this one captures for itself alone" {
    var fixture: Fixture = try .init(5);
    defer fixture.deinit();
    for ([_]drivers.CaptureMode{ .thread_local, .global }) |mode| {
        try ok(fixture.driver.cuStreamBeginCapture_v2(fixture.stream, mode));
        var result: drivers.Result = .unknown;
        const thread = try std.Thread.spawn(.{}, allocateElsewhere, .{ &fixture, &result });
        thread.join();
        const is_free = mode == .thread_local;
        try expectEqual(
            @as(drivers.Result, if (is_free) .success else .stream_capture_unsupported),
            result,
        );
        var graph: ?drivers.Graph = null;
        _ = fixture.driver.cuStreamEndCapture(fixture.stream, &graph);
    }
}

fn allocateElsewhere(fixture: *const Fixture, result: *drivers.Result) void {
    fixture.use() catch return;
    var address: usize = 0;
    result.* = fixture.driver.cuMemAlloc_v2(&address, 4);
}
