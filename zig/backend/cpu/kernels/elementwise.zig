//! Operations that touch every element once: activations, gated GELU, sums, copies, concatenation,
//! the search for numbers that are not finite, and the token table. All run at memory speed.

const arguments = @import("../arguments.zig");
const pack = @import("pack.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Elementwise = arguments.Elementwise;
const lanes = v.lanes;

fn elementwise(args: *const anyopaque) *const Elementwise {
    return @ptrCast(@alignCast(args));
}

pub fn activate(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a = elementwise(args);
    switch (a.activation) {
        inline else => |activation| {
            var i = task * a.count_per_task;
            const end = @min(i + a.count_per_task, a.count);
            while (i < end) : (i += lanes) {
                const value = v.activate(activation, v.loadUpTo(a.x + i, end - i));
                v.storeUpTo(a.out + i, value, end - i);
            }
        },
    }
}

pub fn prelu(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.Prelu = @ptrCast(@alignCast(args));
    const first = task * a.rows_per_task;
    for (first..@min(first + a.rows_per_task, a.rows)) |row| {
        const x = a.x + row * a.channels;
        const out = a.out + row * a.channels;
        var c: usize = 0;
        while (c < a.channels) : (c += lanes) {
            const count = a.channels - c;
            const value = v.loadUpTo(x + c, count);
            const below = v.minimum(value, v.splat(0)) * v.loadUpTo(a.slopes + c, count);
            v.storeUpTo(out + c, v.maximum(v.splat(0), value) + below, count);
        }
    }
}

pub fn add(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a = elementwise(args);
    var i = task * a.count_per_task;
    const end = @min(i + a.count_per_task, a.count);
    while (i < end) : (i += lanes) {
        const y = v.loadUpTo(a.y.? + i, end - i) * v.splat(a.factor);
        v.storeUpTo(a.out + i, v.loadUpTo(a.x + i, end - i) + y, end - i);
    }
}

pub fn scale(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a = elementwise(args);
    var i = task * a.count_per_task;
    const end = @min(i + a.count_per_task, a.count);
    while (i < end) : (i += lanes) {
        v.storeUpTo(a.out + i, v.loadUpTo(a.x + i, end - i) * v.splat(a.factor), end - i);
    }
}

pub fn geglu(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.Geglu = @ptrCast(@alignCast(args));
    const first = task * a.rows_per_task;
    for (first..@min(first + a.rows_per_task, a.rows)) |row| {
        const value = a.x + row * 2 * a.channels;
        const gate = value + a.channels;
        const out = a.out + row * a.channels;
        var c: usize = 0;
        while (c < a.channels) : (c += lanes) {
            const count = a.channels - c;
            const opened = v.gelu(v.loadUpTo(gate + c, count));
            v.storeUpTo(out + c, v.loadUpTo(value + c, count) * opened, count);
        }
    }
}

pub fn copy(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.Copy = @ptrCast(@alignCast(args));
    const first = task * a.bytes_per_task;
    const count = @min(a.bytes_per_task, a.byte_count - first);
    @memcpy(a.target[first..][0..count], a.source[first..][0..count]);
}

pub fn concat(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.Concat = @ptrCast(@alignCast(args));
    const first = task * a.rows_per_task;
    for (first..@min(first + a.rows_per_task, a.rows)) |row| {
        var target = a.out + row * a.channels;
        for (a.parts[0..a.part_count]) |part| {
            pack.copyFloats(target, part.data + row * part.channels, part.channels);
            target += part.channels;
        }
    }
}

/// x * 0 is 0 for every finite x and NaN for all others.
pub fn checkFinite(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.CheckFinite = @ptrCast(@alignCast(args));
    var i = task * a.count_per_task;
    const end = @min(i + a.count_per_task, a.count);
    var zeros = v.splat(0);
    while (i < end) : (i += lanes) zeros += v.loadUpTo(a.x + i, end - i) * v.splat(0);
    if (v.sum(zeros) != 0) @atomicStore(u32, a.found, 1, .monotonic);
}

/// token_weight[id] + position_weight[position]; an id beyond the vocabulary takes its position's
/// row of `injected`. Ids out of range take the nearest row otherwise: the caller has checked them,
/// and a kernel must not read beyond a file.
pub fn embedTokens(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.EmbedTokens = @ptrCast(@alignCast(args));
    const last: i32 = @intCast(a.vocabulary_count - 1);
    const id = a.ids[task];
    const position = task % a.tokens_per_batch;
    const out = a.out + task * a.channels;
    const positions: Table = .{ .weight = a.position_weight, .scales = a.position_scales };
    if (a.injected) |rows| if (id > last) {
        widenRow(.set, .f32, .{ .weight = rows, .scales = null }, task, a.channels, out);
        return widenRow(.add, a.position_type, positions, position, a.channels, out);
    };
    const row: usize = @intCast(@max(0, @min(id, last)));
    const tokens: Table = .{ .weight = a.token_weight, .scales = a.token_scales };
    widenRow(.set, a.token_type, tokens, row, a.channels, out);
    widenRow(.add, a.position_type, positions, position, a.channels, out);
}

const Table = struct { weight: *const anyopaque, scales: ?[*]const f32 };

fn widenRow(
    comptime how: enum { set, add },
    weight_type: arguments.WeightType,
    table: Table,
    row: usize,
    channels: usize,
    out: [*]f32,
) void {
    switch (weight_type) {
        inline else => |comptime_type| {
            const all: [*]const weights.Element(comptime_type) = @ptrCast(@alignCast(table.weight));
            const scales = weights.scalesOf(comptime_type, table.scales, 0);
            const factor = weights.factorOf(comptime_type, scales, row);
            const source = all + row * channels;
            var c: usize = 0;
            while (c + lanes <= channels) : (c += lanes) {
                const value = weights.load(comptime_type, lanes, source + c, factor);
                v.store(out + c, if (how == .add) v.load(out + c) + value else value);
            }
            while (c < channels) : (c += 1) {
                const value = weights.loadOne(comptime_type, source + c, factor);
                out[c] = if (how == .add) out[c] + value else value;
            }
        },
    }
}
