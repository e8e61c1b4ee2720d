//! The register tile: C (rows, columns) from a panel of A and a panel of B, all sums in registers.
//! A's rows lie `row_stride` apart and are read one element at a time; B is packed so that each
//! step of the depth is one aligned run of columns. A sum's order of additions depends on the depth
//! alone, never on the tile's size or place: that makes results independent of how work is cut.
//!
//! Operands are words of 32 bits along the depth: one f32, or a pair of bf16 that one instruction
//! multiplies and adds up. Everything but that instruction and the packing is the same for both.

const std = @import("std");
const v = @import("vector.zig");
const Vec = v.Vec;
const lanes = v.lanes;

/// Chosen so that the sums, one row of B and one element of A fill the registers (32 for AVX-512
/// and NEON, 16 otherwise), with enough independent sums to hide the latency of a multiply-add.
pub const rows_max: usize = switch (lanes) {
    16 => 14,
    8 => 6,
    else => if (registers == 32) 8 else 4,
};
const registers = if (@import("builtin").cpu.arch == .aarch64) 32 else 16;
pub const vectors_max = 2;
pub const columns_max = vectors_max * lanes;

/// An element of a packed panel: f32, or the bits of a bf16.
pub const Element = if (v.bf16) u16 else f32;
/// Elements along the depth in one word.
pub const per_word = if (v.bf16) 2 else 1;

/// Words of a depth; the last one is filled up with zeros.
pub inline fn words(depth: usize) usize {
    return (depth + per_word - 1) / per_word;
}

/// Depth of one packed panel: A's panel (rows_max of these) must stay in the first-level cache.
pub const depth_max: usize = per_word * switch (lanes) {
    16 => 384,
    else => 256,
};

/// Words between the rows of a panel of A. Head sizes up to 512 must fit; the extra line keeps
/// the rows of one panel from falling into the same cache sets.
pub const row_stride = 512 + 16;
/// The same in elements.
pub const row_elements = row_stride * per_word;

/// Row counts that have code of their own; the rest of a block uses the next larger one. With 14
/// rows, the powers of two that images have leave 4 or 8, or fewer.
const row_variants: [3]usize = switch (rows_max) {
    14 => .{ 4, 8, 14 },
    else => .{ (rows_max + 3) / 4, (rows_max + 1) / 2, rows_max },
};

pub const line_bytes = 64;
const floats_per_line = line_bytes / @sizeOf(f32);
/// How far ahead of the sums B is asked for. B streams from the second-level cache, each panel once
/// per few rows, and the processor's own prefetching falls behind: asking adds 20 to 40 % speed.
const prefetch_distance = 512;
/// Steps of the depth in one turn of the loop.
const unroll = 4;

/// Cache lines that `rows_max` turns of the loop ask for, one each: what comes next is fetched by
/// and by, since many at once fill the buffers that B's lines need, and the sums wait.
pub const Run = struct { first: [*]const u8, stride: usize };
/// Enough for the deepest tile.
pub const runs_max = row_stride / unroll / rows_max + 2;
/// Nothing to ask for: a line that is near.
pub const no_run: Run = .{ .first = &near_line, .stride = 0 };
const no_runs: [runs_max]Run = @splat(no_run);
const near_line: [line_bytes]u8 = @splat(0);

pub const Tile = struct {
    a: [*]const Element,
    b: [*]const Element,
    /// The depth decides how many of them are reached.
    runs: *const [runs_max]Run = &no_runs,
    /// Words.
    depth: usize,
    /// Room for the variant's rows and for whole vectors of columns.
    c: [*]f32,
    c_stride: usize,
    /// Add to what C holds.
    accumulate: bool,
};

/// Rows that `multiply` will write for a count: C must have room for them.
pub fn paddedRows(row_count: usize) usize {
    inline for (row_variants) |rows| {
        if (row_count <= rows) return rows;
    }
    unreachable;
}

/// The smallest tile that holds `row_count` rows and `column_count` columns; B's panel is
/// `panelColumns(column_count)` wide.
pub inline fn multiply(row_count: usize, column_count: usize, tile: Tile) void {
    inline for (row_variants) |rows| {
        if (row_count <= rows) {
            if (column_count > lanes) return multiplyTile(rows, 2, tile);
            return multiplyTile(rows, 1, tile);
        }
    }
    unreachable;
}

/// Width of a packed panel of B that holds `column_count` columns.
pub inline fn panelColumns(column_count: usize) usize {
    return if (column_count > lanes) columns_max else lanes;
}

noinline fn multiplyTile(comptime rows: usize, comptime vectors: usize, tile: Tile) void {
    var sums: [rows][vectors]Vec = undefined;
    inline for (0..rows) |r| {
        inline for (0..vectors) |j| sums[r][j] = @splat(0);
    }
    var a: [*]const f32 = @ptrCast(@alignCast(tile.a));
    var b: [*]const f32 = @ptrCast(@alignCast(tile.b));
    var ahead: Ahead = .of(tile);
    var left = tile.depth;
    while (left >= unroll) : (left -= unroll) {
        ahead.ask(rows, vectors, tile.c_stride);
        inline for (0..unroll * vectors * lanes / floats_per_line) |line| {
            @prefetch(b + prefetch_distance + floats_per_line * line, .{});
        }
        inline for (0..unroll) |u| step(rows, vectors, &sums, a + u, b + u * vectors * lanes);
        a += unroll;
        b += unroll * vectors * lanes;
    }
    while (left > 0) : (left -= 1) {
        step(rows, vectors, &sums, a, b);
        a += 1;
        b += vectors * lanes;
    }
    inline for (0..rows) |r| {
        inline for (0..vectors) |j| {
            const c = tile.c + r * tile.c_stride + j * lanes;
            v.store(c, if (tile.accumulate) v.load(c) + sums[r][j] else sums[r][j]);
        }
    }
}

/// What a turn of the loop asks for: C's rows, to be written, then the tile's runs.
const Ahead = struct {
    c: [*]f32,
    c_row: usize = 0,
    run: [*]const Run,
    line: [*]const u8,
    lines_left: usize = rows_max,

    inline fn of(tile: Tile) Ahead {
        return .{ .c = tile.c, .run = tile.runs, .line = tile.runs[0].first };
    }

    inline fn ask(
        ahead: *Ahead,
        comptime rows: usize,
        comptime vectors: usize,
        c_stride: usize,
    ) void {
        // Another core may hold these lines, changed: asked for to be read, they would be asked
        // for once more to be written.
        inline for (0..(vectors * lanes + floats_per_line - 1) / floats_per_line) |line| {
            @prefetch(ahead.c + floats_per_line * line, .{ .rw = .write });
        }
        if (ahead.c_row + 1 < rows) {
            ahead.c_row += 1;
            ahead.c += c_stride;
        }
        @prefetch(ahead.line, .{ .locality = 2 });
        ahead.line = @ptrFromInt(@intFromPtr(ahead.line) +% ahead.run[0].stride);
        ahead.lines_left -= 1;
        if (ahead.lines_left > 0) return;
        ahead.lines_left = rows_max;
        ahead.run += 1;
        ahead.line = ahead.run[0].first;
    }
};

inline fn step(
    comptime rows: usize,
    comptime vectors: usize,
    sums: *[rows][vectors]Vec,
    a: [*]const f32,
    b: [*]const f32,
) void {
    // Loads of later steps stay where they are: moved up, they would push sums out of registers.
    asm volatile ("" ::: .{ .memory = true });
    var columns: [vectors]Vec = undefined;
    inline for (0..vectors) |j| columns[j] = v.load(b + j * lanes);
    inline for (0..rows) |r| {
        const element: Vec = @splat(a[r * row_stride]);
        inline for (0..vectors) |j| {
            const product = if (v.bf16) v.dot else v.fma;
            sums[r][j] = product(element, columns[j], sums[r][j]);
        }
    }
}
