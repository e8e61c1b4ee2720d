//! Facts about int8 weights that files, caches and devices share. A linear layer in int8 is
//! s_x * s_w * sum(q_x * q_w) + bias: activations have a scale for each row, weights one for each
//! output, and both are rotated along the depth in groups, which spreads outliers
//! (`backend/cpu/kernels/int8_rotate.zig`).

const std = @import("std");

/// Groups that are rotated; 1 for none. As in files of ComfyUI and stable-diffusion.cpp.
pub const groups = [_]u32{ 256, 64, 16 };

/// The CPU's layout: see `arguments.int8PanelBytes`.
pub const panel_columns = 32;
pub const depth_unit = 16;
pub const depth_max = 8192;
/// GPUs write so many outputs at once.
pub const column_unit = 8;

/// The group of a layer that is rounded here; null for depths that stay wide.
pub fn groupOf(depth: usize) ?u32 {
    if (depth > depth_max) return null;
    for (groups) |group| if (depth % group == 0) return group;
    return null;
}

/// Whether a file's layer can be read.
pub fn isRead(depth: usize, group: u32) bool {
    if (depth > depth_max or depth % depth_unit != 0) return false;
    if (group == 1) return true;
    return std.mem.indexOfScalar(u32, &groups, group) != null and depth % group == 0;
}

pub fn panelBytes(depth: usize) usize {
    return panel_columns * (@sizeOf(f32) + @sizeOf(i32) + depth);
}

/// Bytes of a weight as the CPU reads it.
pub fn weightBytes(columns: usize, depth: usize) usize {
    return (columns + panel_columns - 1) / panel_columns * panelBytes(depth);
}

/// Bytes of a weight as GPUs read it: integers row by row, and behind them a scale for each row.
pub fn rowBytes(columns: usize, depth: usize) usize {
    return columns * (depth + @sizeOf(f32));
}

/// The same weight as GPUs read it.
pub fn toRows(panels: []const u8, columns: usize, depth: usize, out: []u8) void {
    const scales = out[columns * depth ..][0 .. columns * @sizeOf(f32)];
    for (0..columns) |column| {
        const panel = panels[column / panel_columns * panelBytes(depth) ..];
        const at = column % panel_columns * @sizeOf(f32);
        scales[column * @sizeOf(f32) ..][0..@sizeOf(f32)].* = panel[at..][0..@sizeOf(f32)].*;
    }
    var first: usize = 0;
    while (first < columns) : (first += panel_columns) {
        const panel = panels[first / panel_columns * panelBytes(depth) ..][0..panelBytes(depth)];
        const integers = panel[panel_columns * (@sizeOf(f32) + @sizeOf(i32)) ..];
        const count = @min(panel_columns, columns - first);
        var k: usize = 0;
        while (k < depth) : (k += 4) {
            const line = integers[k * panel_columns ..][0 .. 4 * panel_columns];
            for (0..count) |c| {
                out[(first + c) * depth + k ..][0..4].* = line[4 * c ..][0..4].*;
            }
        }
    }
}

test "groups divide the depth" {
    for ([_]usize{ 320, 640, 1280, 2048, 2560, 5120 }) |depth| {
        try std.testing.expect(depth % groupOf(depth).? == 0);
    }
    try std.testing.expectEqual(256, groupOf(1280).?);
    try std.testing.expectEqual(64, groupOf(640).?);
    try std.testing.expectEqual(16, groupOf(160).?);
    try std.testing.expectEqual(null, groupOf(24));
    try std.testing.expect(isRead(640, 1) and isRead(640, 64) and !isRead(640, 256));
    try std.testing.expect(!isRead(24, 1) and !isRead(1280, 128));
}
