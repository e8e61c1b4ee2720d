//! Changes of keys and values on CUDA, against the CPU's kernels: the bytes that are sent are the
//! same, and sender and receiver end with the same bits.

const std = @import("std");
const backend = @import("../../../backend.zig");
const ops = @import("../ops_elementwise.zig");
const support = @import("support.zig");
const Pair = support.Pair;
const Shape = @import("../../../tensor.zig").Shape;

test "quantizeChange and applyChange" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const channels = 4 * pair.size(40);
            const shape: Shape = .tokens(pair.size(2), pair.size(9), channels);
            const bits: u32 = if (pair.random().boolean()) 8 else 4;
            const format: backend.ChangeFormat = .of(bits, channels);
            const change = try pair.empty(shape.withChannels(format.rowBytes(channels)), .u8);
            const value = try pair.tensor(shape);
            const view = try pair.tensor(shape);
            const received = try pair.output(shape);
            try ops.copy(pair.cuda, received.cuda, view.cuda);
            const sent: backend.Change = .{
                .change = change.cuda,
                .view = view.cuda,
                .format = format,
            };
            try pair.cpu.quantizeChange(.{
                .change = change.cpu,
                .view = view.cpu,
                .format = format,
            }, value.cpu);
            try ops.quantizeChange(pair.cuda, sent, value.cuda);
            const bytes = try pair.arena.allocator().alloc(u8, change.cuda.byteCount());
            try pair.read(change.cuda, bytes);
            try std.testing.expectEqualSlices(u8, change.cpu.host(u8), bytes);
            try pair.expectClose(view);

            try ops.applyChange(pair.cuda, .{
                .change = change.cuda,
                .view = received.cuda,
                .format = format,
            });
            const theirs = try pair.download(received.cuda);
            try std.testing.expectEqualSlices(f32, try pair.download(view.cuda), theirs);
        }
    }.body);
}
