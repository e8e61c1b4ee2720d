//! Panels of int8 weights (`arguments.int8PanelBytes`) from a matrix of numbers, which is rotated
//! and rounded with a scale for each output, or from integers that a file has; and back again.

const arguments = @import("../arguments.zig");
const rotation = @import("int8_rotate.zig");
const linear = @import("int8_linear.zig");
const weights = @import("weights.zig");
const panel_columns = linear.panel_columns;
const Bytes = @Vector(16, i8);

const Panel = struct {
    scales: *[panel_columns]f32,
    sums: *[panel_columns]i32,
    /// (depth / 4, columns, 4)
    integers: [*]i8,

    fn of(panels: [*]u8, task: usize, depth: usize) Panel {
        const first = panels + task * arguments.int8PanelBytes(depth);
        return .{
            .scales = @ptrCast(@alignCast(first)),
            .sums = @ptrCast(@alignCast(first + 4 * panel_columns)),
            .integers = @ptrCast(first + 8 * panel_columns),
        };
    }

    fn put(panel: *const Panel, column: usize, k: usize, integers: Bytes) void {
        const fours: [4]u32 = @bitCast(integers);
        inline for (0..4) |i| {
            const target = panel.integers + ((k / 4 + i) * panel_columns + column) * 4;
            @as(*align(4) u32, @ptrCast(@alignCast(target))).* = fours[i];
        }
        panel.sums[column] += @reduce(.Add, @as(@Vector(16, i32), integers));
    }

    fn get(panel: *const Panel, column: usize, k: usize) Bytes {
        var fours: [4]u32 = undefined;
        inline for (0..4) |i| {
            const source = panel.integers + ((k / 4 + i) * panel_columns + column) * 4;
            fours[i] = @as(*align(4) const u32, @ptrCast(@alignCast(source))).*;
        }
        return @bitCast(fours);
    }
};

pub fn pack(args: *const anyopaque, task: usize, workspace: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.PackInt8 = @ptrCast(@alignCast(args));
    const room: [*]f32 = @ptrCast(workspace);
    const panel: Panel = .of(a.panels, task, a.depth);
    for (0..panel_columns) |c| {
        const column = task * panel_columns + c;
        panel.sums[c] = 0;
        panel.scales[c] = 0;
        var k: usize = 0;
        if (column >= a.columns) {
            while (k < a.depth) : (k += 16) panel.put(c, k, @splat(0));
        } else if (a.source_is_int8) {
            const row = a.source + column * a.depth;
            panel.scales[c] = a.source_scales.?[column];
            while (k < a.depth) : (k += 16) {
                panel.put(c, k, @as(*align(1) const Bytes, @ptrCast(row + k)).*);
            }
        } else {
            switch (a.source_type) {
                inline else => |source_type| widen(source_type, a, column, room),
            }
            const found = rotation.scaleOf(rotation.rotate(room, room, a.depth, a.group));
            panel.scales[c] = found.scale;
            while (k < a.depth) : (k += 16) {
                panel.put(c, k, rotation.round(room + k, found.inverse));
            }
        }
    }
}

pub fn unpack(args: *const anyopaque, task: usize, _: [*]align(64) u8) callconv(.c) void {
    const a: *const arguments.UnpackInt8 = @ptrCast(@alignCast(args));
    const panel: Panel = .of(@constCast(a.panels), task, a.depth);
    const first = task * panel_columns;
    for (first..@min(first + panel_columns, a.columns)) |column| {
        const row = a.out + column * a.depth;
        const scale: @Vector(16, f32) = @splat(panel.scales[column - first]);
        var k: usize = 0;
        while (k < a.depth) : (k += 16) {
            const integers: @Vector(16, f32) = @floatFromInt(panel.get(column - first, k));
            @as(*align(4) @Vector(16, f32), @ptrCast(row + k)).* = integers * scale;
        }
        _ = rotation.rotate(row, row, a.depth, a.group);
    }
}

// --- internal ---

fn widen(
    comptime source_type: arguments.WeightType,
    a: *const arguments.PackInt8,
    column: usize,
    room: [*]f32,
) void {
    const all: [*]const weights.Element(source_type) = @ptrCast(@alignCast(a.source));
    const row = all + column * a.depth;
    const scales = weights.scalesOf(source_type, a.source_scales, column);
    const factor = weights.factorOf(source_type, scales, 0);
    var k: usize = 0;
    while (k < a.depth) : (k += 16) {
        const numbers = weights.load(source_type, 16, row + k, factor);
        @as(*align(4) @Vector(16, f32), @ptrCast(room + k)).* = numbers;
    }
}
