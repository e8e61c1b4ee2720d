//! Changes of keys and values in few bits on a GPU against the CPU: the bytes that are sent are the
//! same, and sender and receiver end with the same bits.

const backend = @import("../../backend.zig");
const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;
const Shape = @import("../../tensor.zig").Shape;

pub const checks = [_]Check{
    .{ .name = "quantizeChange and applyChange", .run = changes },
};

// --- internal ---

fn changes(pair: *Pair) Error!void {
    const channels = 4 * pair.size(40);
    const shape: Shape = .tokens(pair.size(2), pair.size(9), channels);
    const bits: u32 = if (pair.boolean()) 8 else 4;
    const format: backend.ChangeFormat = .of(bits, channels);
    pair.describe("{f}, {d} bits, groups of {d}", .{ pairs.shown(shape), bits, format.group });
    const change = try pair.empty(shape.withChannels(format.rowBytes(channels)), .u8);
    const value = try pair.tensor(shape);
    const view = try pair.tensor(shape);
    const received = try pair.output(shape);
    try pair.cuda.copy(received.cuda, view.cuda);
    try pair.cpu.quantizeChange(.{
        .change = change.cpu,
        .view = view.cpu,
        .format = format,
    }, value.cpu);
    try pair.cuda.quantizeChange(.{
        .change = change.cuda,
        .view = view.cuda,
        .format = format,
    }, value.cuda);
    try pair.expectSameValues(u8, try pair.read(u8, change.cuda), change.cpu.host(u8));
    try pair.expectClose(view, tolerances.one_pass);
    try pair.cuda.applyChange(.{
        .change = change.cuda,
        .view = received.cuda,
        .format = format,
    });
    const theirs = try pair.download(received.cuda);
    try pair.expectSameValues(f32, try pair.download(view.cuda), theirs);
}
