//! The plain matrix product behind the emulated libraries: sums in f32, one after the other over
//! the depth. Weights lie in panels of 16 so that the inner loop is one vector wide.

const std = @import("std");

pub const panel_width = 16;
const Vector = @Vector(panel_width, f32);
const Line = [panel_width]f32;

/// (columns, depth) as f32, 16 columns side by side at each depth; missing columns are zeros.
pub const Panels = struct {
    values: []Line,
    columns: usize,
    depth: usize,

    pub fn init(columns: usize, depth: usize) error{OutOfMemory}!Panels {
        const count = (columns + panel_width - 1) / panel_width * depth;
        const values = try scratch(Line, count);
        if (columns % panel_width != 0) {
            for (values[count - depth ..]) |*line| line.* = @splat(0);
        }
        return .{ .values = values, .columns = columns, .depth = depth };
    }

    pub fn deinit(panels: *Panels) void {
        free(panels.values);
    }

    /// All weights of up to 16 output columns from `first` on, which begins a panel: one column's
    /// after the other in `weights`.
    pub fn setColumns(panels: *Panels, first: usize, weights: []const f32) void {
        const depth = panels.depth;
        const count = weights.len / depth;
        std.debug.assert(first % panel_width == 0 and count <= panel_width);
        const panel = panels.values[first / panel_width * depth ..][0..depth];
        var at: usize = 0;
        if (count == panel_width) while (at + panel_width <= depth) : (at += panel_width) {
            var square: [panel_width]Vector = undefined;
            for (&square, 0..) |*column, i| {
                column.* = weights[i * depth + at ..][0..panel_width].*;
            }
            transpose(&square);
            for (panel[at..][0..panel_width], square) |*line, values| line.* = values;
        };
        for (panel[at..], at..) |*line, k| {
            for (line[0..count], 0..) |*value, i| value.* = weights[i * depth + k];
        }
    }

    /// `out[row, column]` = sum over depth of `x[row, depth] * weights[column, depth]`.
    pub fn multiply(panels: *const Panels, x: []const f32, out: []f32) void {
        const depth = panels.depth;
        const row_count = x.len / depth;
        std.debug.assert(out.len == row_count * panels.columns);
        var row: usize = 0;
        while (row < row_count) : (row += rows_at_once) {
            const count = @min(rows_at_once, row_count - row);
            var column: usize = 0;
            while (column < panels.columns) : (column += panel_width) {
                const panel = panels.values[column / panel_width * depth ..][0..depth];
                const sums = multiplyBlock(panel, x[row * depth ..], count);
                const width = @min(panel_width, panels.columns - column);
                for (sums[0..count], 0..) |sum, i| {
                    const values: [panel_width]f32 = sum;
                    const place = (row + i) * panels.columns + column;
                    @memcpy(out[place..][0..width], values[0..width]);
                }
            }
        }
    }
};

/// From C's own allocator: Zig's fills memory in safe builds, before and after its use, which
/// costs more than most products.
pub fn scratch(comptime T: type, count: usize) error{OutOfMemory}![]T {
    const memory = std.c.malloc(@max(1, count) * @sizeOf(T)) orelse return error.OutOfMemory;
    return @as([*]T, @ptrCast(@alignCast(memory)))[0..count];
}

pub fn free(memory: anytype) void {
    std.c.free(memory.ptr);
}

// --- internal ---

const rows_at_once = 4;

fn transpose(square: *[panel_width]Vector) void {
    inline for (.{ 8, 4, 2, 1 }) |step| {
        // Lanes with this bit go to the vector without it, and the reverse.
        const lower, const upper = comptime masks: {
            var masks: [2][panel_width]i32 = undefined;
            for (0..panel_width) |lane| {
                const has_bit = lane & step != 0;
                masks[0][lane] = if (has_bit) ~@as(i32, lane - step) else lane;
                masks[1][lane] = if (has_bit) ~@as(i32, lane) else lane + step;
            }
            break :masks masks;
        };
        inline for (0..panel_width) |i| if (i & step == 0) {
            const a = square[i];
            const b = square[i + step];
            square[i] = @shuffle(f32, a, b, lower);
            square[i + step] = @shuffle(f32, a, b, upper);
        };
    }
}

fn multiplyBlock(panel: []const Line, x: []const f32, count: usize) [rows_at_once]Vector {
    const depth = panel.len;
    var sums: [rows_at_once]Vector = @splat(@splat(0));
    if (count == rows_at_once) {
        const row_0 = x[0..depth];
        const row_1 = x[depth..][0..depth];
        const row_2 = x[2 * depth ..][0..depth];
        const row_3 = x[3 * depth ..][0..depth];
        for (panel, row_0, row_1, row_2, row_3) |line, a, b, c, d| {
            const weights: Vector = line;
            sums[0] += weights * @as(Vector, @splat(a));
            sums[1] += weights * @as(Vector, @splat(b));
            sums[2] += weights * @as(Vector, @splat(c));
            sums[3] += weights * @as(Vector, @splat(d));
        }
        return sums;
    }
    for (sums[0..count], 0..) |*sum, i| {
        for (panel, x[i * depth ..][0..depth]) |line, value| {
            sum.* += @as(Vector, line) * @as(Vector, @splat(value));
        }
    }
    return sums;
}

test "panels multiply as the definition does, for any size" {
    const gpa = std.testing.allocator;
    var prng: std.Random.DefaultPrng = .init(1);
    const random = prng.random();
    for (0..50) |_| {
        const rows = random.intRangeAtMost(usize, 1, 9);
        const columns = random.intRangeAtMost(usize, 1, 40);
        const depth = random.intRangeAtMost(usize, 1, 40);
        const x = try gpa.alloc(f32, rows * depth);
        defer gpa.free(x);
        const w = try gpa.alloc(f32, columns * depth);
        defer gpa.free(w);
        const out = try gpa.alloc(f32, rows * columns);
        defer gpa.free(out);
        for (x) |*value| value.* = random.floatNorm(f32);
        for (w) |*value| value.* = random.floatNorm(f32);
        var panels = try Panels.init(columns, depth);
        defer panels.deinit();
        var first: usize = 0;
        while (first < columns) : (first += panel_width) {
            const count = @min(panel_width, columns - first);
            panels.setColumns(first, w[first * depth ..][0 .. count * depth]);
        }
        panels.multiply(x, out);
        for (0..rows) |row| for (0..columns) |column| {
            var sum: f64 = 0;
            for (x[row * depth ..][0..depth], w[column * depth ..][0..depth]) |a, b| sum += a * b;
            // At most 40 sums in f32.
            try std.testing.expectApproxEqAbs(sum, out[row * columns + column], 2e-5);
        };
    }
}
