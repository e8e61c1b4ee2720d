//! Changes of keys and values in 8 or 4 bits, and their sum to what the receivers have: the same
//! arithmetic as cuda/quantize_change.cu and apply_change.cu, bit for bit. No product is contracted
//! with a sum, so every instruction set agrees.

const arguments = @import("../arguments.zig");

/// Of `arguments.Change.group`.
const groups = .{ 64, 32, 16, 8, 4, 2 };

pub fn quantizeChange(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    run(args, task, quantizeGroup);
}

pub fn applyChange(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    run(args, task, applyGroup);
}

fn run(args: *const anyopaque, task: usize, comptime each: anytype) void {
    const a: *const arguments.Change = @ptrCast(@alignCast(args));
    const first = task * a.rows_per_task;
    const end = @min(first + a.rows_per_task, a.rows);
    inline for (groups) |group| if (a.group == group) {
        if (a.bits == 8) return runRows(group, 8, a, first, end, each);
        return runRows(group, 4, a, first, end, each);
    };
    unreachable;
}

fn runRows(
    comptime group: usize,
    comptime bits: usize,
    a: *const arguments.Change,
    first: usize,
    end: usize,
    comptime each: anytype,
) void {
    const group_count = a.channels / group;
    const bytes = a.channels * bits / 8;
    for (first..end) |row| {
        const view = a.view + row * a.channels;
        const value = a.value + row * a.channels;
        const change = a.change + row * (bytes + 2 * group_count);
        for (0..group_count) |i| {
            const at = i * group;
            const q = change + at * bits / 8;
            each(group, bits, view + at, value + at, q, change + bytes + 2 * i);
        }
    }
}

fn quantizeGroup(
    comptime group: usize,
    comptime bits: usize,
    view: [*]f32,
    value: [*]const f32,
    out: [*]u8,
    scale_bytes: [*]u8,
) void {
    const Floats = @Vector(group, f32);
    const limit: f32 = if (bits == 8) 127 else 7;
    const seen: Floats = view[0..group].*;
    const change = @as(Floats, value[0..group].*) - seen;
    const largest: f32 = @reduce(.Max, @abs(change));
    const exact: u32 = @bitCast(largest / limit);
    const rounded: u16 = @truncate((exact +% 0x7fff +% (exact >> 16 & 1)) >> 16);
    scale_bytes[0..2].* = @bitCast(rounded);
    const scale: f32 = @bitCast(@as(u32, rounded) << 16);
    const all: Floats = @splat(scale);
    const quotient = if (scale > 0) @round(change / all) else @as(Floats, @splat(0));
    // A NaN becomes the limit: it must not reach the conversion.
    const held = @max(@min(quotient, @as(Floats, @splat(limit))), @as(Floats, @splat(-limit)));
    const q: @Vector(group, i32) = @intFromFloat(held);
    view[0..group].* = seen + @as(Floats, @floatFromInt(q)) * all;
    const words: @Vector(group, u32) = @bitCast(q);
    const low: [group]u8 = @as(@Vector(group, u8), @truncate(words));
    if (bits == 8) {
        out[0..group].* = low;
    } else for (0..group / 2) |i| {
        out[i] = low[2 * i] & 15 | low[2 * i + 1] << 4;
    }
}

fn applyGroup(
    comptime group: usize,
    comptime bits: usize,
    view: [*]f32,
    _: [*]const f32,
    in: [*]const u8,
    scale_bytes: [*]const u8,
) void {
    const Floats = @Vector(group, f32);
    const rounded: u16 = @bitCast(scale_bytes[0..2].*);
    const all: Floats = @splat(@bitCast(@as(u32, rounded) << 16));
    var q: [group]i8 = undefined;
    if (bits == 8) {
        q = @bitCast(in[0..group].*);
    } else for (0..group / 2) |i| {
        // Shifts with the sign.
        q[2 * i] = @as(i8, @bitCast(in[i] << 4)) >> 4;
        q[2 * i + 1] = @as(i8, @bitCast(in[i])) >> 4;
    }
    const wide: @Vector(group, i32) = @as(@Vector(group, i8), q);
    view[0..group].* = @as(Floats, view[0..group].*) + @as(Floats, @floatFromInt(wide)) * all;
}
