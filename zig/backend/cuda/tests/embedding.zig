//! Embeddings on CUDA against the CPU: tokens, their pooled position, sinusoids of timesteps and
//! sizes.

const std = @import("std");
const ops = @import("../ops_embedding.zig");
const support = @import("support.zig");
const Pair = support.Pair;

test "embedTokens; ids out of range take the nearest row, or an injected one" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
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
            const rows = try pair.tensor(out.cpu.shape);
            const has_rows = pair.random().boolean();
            const on_cpu = if (has_rows) rows.cpu else null;
            const on_gpu = if (has_rows) rows.cuda else null;
            try pair.cpu.embedTokens(out.cpu, ids.cpu, tokens, positions, on_cpu);
            try ops.embedTokens(pair.cuda, out.cuda, ids.cuda, tokens, positions, on_gpu);
            try pair.expectClose(out);
        }
    }.body);
}

test "gatherTokens; indices out of range take the last position" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const batch = pair.size(20);
            const token_count = pair.size(9);
            const x = try pair.tensor(.tokens(batch, token_count, pair.channels(48)));
            const indices = try pair.empty(.vector(batch, 1), .i32);
            for (indices.cpu.host(u32)) |*index| {
                index.* = pair.random().uintAtMost(u32, token_count);
            }
            try pair.upload(indices);
            const out = try pair.output(.vector(batch, x.cpu.shape.channels));
            try pair.cpu.gatherTokens(out.cpu, x.cpu, indices.cpu);
            try ops.gatherTokens(pair.cuda, out.cuda, x.cuda, indices.cuda);
            try pair.expectSame(out);
        }
    }.body);
}

test "sinusoidalEmbedding of timesteps to 1000 and sizes to 8192" {
    try support.each(struct {
        fn body(pair: *Pair) !void {
            const values = try pair.empty(.vector(pair.size(13), 1), .f32);
            const whole = pair.random().boolean();
            for (values.cpu.host(f32)) |*value| {
                value.* = pair.random().float(f32) * @as(f32, if (whole) 8192 else 1000);
                if (whole) value.* = @round(value.*);
            }
            values.cpu.host(f32)[0] = if (whole) 8192 else 0;
            try pair.upload(values);
            const out = try pair.output(.vector(values.cpu.shape.batch, 2 * pair.size(160)));
            const flips = pair.random().boolean();
            const shift: f32 = if (pair.random().boolean() and out.cpu.shape.channels > 2) 1 else 0;
            try pair.cpu.sinusoidalEmbedding(out.cpu, values.cpu, flips, shift);
            try ops.sinusoidalEmbedding(pair.cuda, out.cuda, values.cuda, flips, shift);
            try pair.expectClose(out);
            // Angles must not lose a turn: each element is one rounding away.
            const unit: f32 = if (pair.cuda.activation == .f16) 0x1p-10 else 0x1p-7;
            for (try pair.download(out.cuda), out.cpu.host(f32)) |a, e| {
                try std.testing.expectApproxEqAbs(e, a, unit * @abs(e) + 1e-6);
            }
        }
    }.body);
}
