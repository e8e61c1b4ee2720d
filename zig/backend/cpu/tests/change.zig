//! Changes of keys and values in few bits: what the sender adds to its view is what receivers add,
//! and what a change loses is made good by the next.

const std = @import("std");
const backend = @import("../../../backend.zig");
const dispatch = @import("../dispatch.zig");
const support = @import("support.zig");
const Cpu = @import("../../cpu.zig").Cpu;
const Tensor = @import("../../../tensor.zig").Tensor;

/// The sender's view and a receiver's, and the change between them.
const Ends = struct {
    sender: backend.Change,
    receiver: backend.Change,

    fn init(a: *support.Arena, value: Tensor, bits: u32) !Ends {
        const channels = value.shape.channels;
        const format: backend.ChangeFormat = .of(bits, channels);
        const change = try a.tensor(value.shape.withChannels(format.rowBytes(channels)), .u8);
        const views = [_]Tensor{
            try a.tensor(value.shape, .f32),
            try a.tensor(value.shape, .f32),
        };
        for (views) |view| @memcpy(view.host(f32), value.host(f32));
        return .{
            .sender = .{ .change = change, .view = views[0], .format = format },
            .receiver = .{ .change = change, .view = views[1], .format = format },
        };
    }

    fn send(ends: Ends, cpu: *Cpu, value: Tensor) !void {
        try cpu.quantizeChange(ends.sender, value);
        try cpu.applyChange(ends.receiver);
        const sent = std.mem.sliceAsBytes(ends.sender.view.host(f32));
        const received = std.mem.sliceAsBytes(ends.receiver.view.host(f32));
        try std.testing.expectEqualSlices(u8, sent, received);
    }
};

/// The largest change of each group over 127 or 7 is a step; half of one is lost, and a little to
/// the rounding of scales (2^-9) at the ends.
fn expectNear(value: Tensor, before: []const f32, ends: Ends) !void {
    const group = ends.sender.format.group;
    const limit: f32 = if (ends.sender.format.bits == 8) 127 else 7;
    const view = ends.sender.view.host(f32);
    const values = value.host(f32);
    var i: usize = 0;
    while (i < values.len) : (i += group) {
        var largest: f32 = 0;
        for (values[i..][0..group], before[i..][0..group]) |x, old| {
            largest = @max(largest, @abs(x - old));
        }
        const allowed = largest / limit * (0.51 + limit / 256);
        for (values[i..][0..group], view[i..][0..group]) |x, seen| {
            try std.testing.expect(@abs(x - seen) <= allowed + 1e-6 * @abs(x));
        }
    }
}

test "a change brings receivers near the value, with the sender's bits, in any group" {
    var a: support.Arena = .init(11);
    defer a.deinit();
    var buffer: [support.set_count_max]dispatch.InstructionSet = undefined;
    for (support.sets(&buffer)) |set| {
        const cpu = try support.open(set, 2);
        defer cpu.deinit();
        for ([_]u32{ 128, 320, 32, 16, 8, 4 }) |channels| for ([_]u32{ 8, 4 }) |bits| {
            const value = try a.randomTensor(.tokens(2, 301, channels));
            const ends: Ends = try .init(&a, value, bits);
            try std.testing.expectEqual(std.math.gcd(64, channels / 2), ends.sender.format.group);
            for (0..3) |_| {
                const before = try a.allocator().dupe(f32, ends.sender.view.host(f32));
                for (value.host(f32)) |*x| x.* += 0.1 * a.random.random().floatNorm(f32);
                try ends.send(cpu, value);
                try expectNear(value, before, ends);
            }
        };
    }
}

test "what a change loses comes with the next: the error of a value at rest goes to nothing" {
    var a: support.Arena = .init(12);
    defer a.deinit();
    const cpu = try support.open(null, 1);
    defer cpu.deinit();
    const value = try a.randomTensor(.tokens(1, 64, 128));
    const ends: Ends = try .init(&a, value, 4);
    for (value.host(f32)) |*x| x.* += a.random.random().floatNorm(f32);
    var error_before: f32 = std.math.inf(f32);
    for (0..4) |_| {
        try ends.send(cpu, value);
        var largest: f32 = 0;
        for (value.host(f32), ends.sender.view.host(f32)) |x, seen| {
            largest = @max(largest, @abs(x - seen));
        }
        try std.testing.expect(largest < error_before / 4);
        error_before = largest;
    }
}

test "numbers that are not finite end in no trap, and a change of nothing is nothing" {
    var a: support.Arena = .init(13);
    defer a.deinit();
    const cpu = try support.open(null, 1);
    defer cpu.deinit();
    for ([_]u32{ 8, 4 }) |bits| {
        const value = try a.randomTensor(.tokens(1, 3, 128));
        const ends: Ends = try .init(&a, value, bits);
        try ends.send(cpu, value);
        try std.testing.expectEqualSlices(f32, value.host(f32), ends.receiver.view.host(f32));
        value.host(f32)[5] = std.math.nan(f32);
        value.host(f32)[70] = std.math.inf(f32);
        try cpu.quantizeChange(ends.sender, value);
        try cpu.applyChange(ends.receiver);
    }
}
