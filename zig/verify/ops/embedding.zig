//! Embeddings on a GPU against the CPU: tokens, their pooled position, sinusoids of timesteps and
//! sizes.

const pairs = @import("../pair.zig");
const tolerances = @import("../tolerance.zig");
const Check = @import("../check.zig").Check;
const Error = pairs.Error;
const Pair = pairs.Pair;

pub const checks = [_]Check{
    .{ .name = "embedTokens", .run = embedTokens },
    .{ .name = "gatherTokens", .run = gatherTokens },
    .{ .name = "sinusoidalEmbedding", .run = sinusoidalEmbedding },
};

// --- internal ---

/// Ids out of range take the nearest row, or an injected one.
fn embedTokens(pair: *Pair) Error!void {
    const channels = pair.channels(64);
    const token_count = pair.size(20);
    const vocabulary = pair.size(30);
    const tokens = try pair.weight(.{ vocabulary, channels, 1, 1 }, 1);
    const positions = try pair.weight(.{ token_count + 2, channels, 1, 1 }, 1);
    const ids = try pair.empty(.tokens(pair.size(3), token_count, 1), .i32);
    for (ids.cpu.host(i32)) |*id| {
        id.* = pair.random().intRangeAtMost(i32, -2, @intCast(vocabulary + 1));
    }
    try pair.upload(ids);
    const out = try pair.output(ids.cpu.shape.withChannels(channels));
    pair.describe("{f} of {d} tokens", .{ pairs.shown(out.cpu.shape), vocabulary });
    const rows = try pair.tensor(out.cpu.shape);
    const has_rows = pair.boolean();
    const on_cpu = if (has_rows) rows.cpu else null;
    const on_gpu = if (has_rows) rows.cuda else null;
    try pair.cpu.embedTokens(out.cpu, ids.cpu, tokens, positions, on_cpu);
    try pair.cuda.embedTokens(out.cuda, ids.cuda, tokens, positions, on_gpu);
    try pair.expectClose(out, tolerances.one_pass);
}

/// Indices out of range take the last position.
fn gatherTokens(pair: *Pair) Error!void {
    const batch = pair.size(20);
    const token_count = pair.size(9);
    const x = try pair.tensor(.tokens(batch, token_count, pair.channels(48)));
    pair.describe("{f}", .{pairs.shown(x.cpu.shape)});
    const indices = try pair.empty(.vector(batch, 1), .i32);
    for (indices.cpu.host(u32)) |*index| {
        index.* = pair.random().uintAtMost(u32, token_count);
    }
    try pair.upload(indices);
    const out = try pair.output(.vector(batch, x.cpu.shape.channels));
    try pair.cpu.gatherTokens(out.cpu, x.cpu, indices.cpu);
    try pair.cuda.gatherTokens(out.cuda, x.cuda, indices.cuda);
    try pair.expectSame(out);
}

/// Timesteps to 1000 and sizes to 8192.
fn sinusoidalEmbedding(pair: *Pair) Error!void {
    const values = try pair.empty(.vector(pair.size(13), 1), .f32);
    const whole = pair.boolean();
    for (values.cpu.host(f32)) |*value| {
        value.* = pair.random().float(f32) * @as(f32, if (whole) 8192 else 1000);
        if (whole) value.* = @round(value.*);
    }
    values.cpu.host(f32)[0] = if (whole) 8192 else 0;
    try pair.upload(values);
    const out = try pair.output(.vector(values.cpu.shape.batch, 2 * pair.size(160)));
    const flips = pair.boolean();
    const shift: f32 = if (pair.boolean() and out.cpu.shape.channels > 2) 1 else 0;
    pair.describe("{f}", .{pairs.shown(out.cpu.shape)});
    try pair.cpu.sinusoidalEmbedding(out.cpu, values.cpu, flips, shift);
    try pair.cuda.sinusoidalEmbedding(out.cuda, values.cuda, flips, shift);
    // Angles must not lose a turn: each element is one rounding away, and half a unit more where
    // the angle itself is rounded.
    const unit: f32 = if (pair.cuda.activation == .f16) 0x1p-10 else 0x1p-7;
    try pair.expectEach(f32, try pair.download(out.cuda), out.cpu.host(f32), unit, 1e-6);
}
