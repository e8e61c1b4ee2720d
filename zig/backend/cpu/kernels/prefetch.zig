//! Prefetches of a blocked GEMM while it multiplies a panel of rows: the next panel; where few rows
//! share a packing, the weights to be packed next, an equal share per column panel; and the
//! residual of the panel's own elements. All as runs of cache lines (`tile.Run`).

const arguments = @import("../arguments.zig");
const Part = @import("product.zig").Part;
const tile = @import("tile.zig");
const weights = @import("weights.zig");
const Product = arguments.Product;

/// Rows at a fixed distance in bytes. Nothing is read: addresses may lie outside of anything.
pub const Place = struct { address: usize, stride: usize };

/// What is asked for, row by row: activations, or columns of weights, which lie as rows.
pub const Rows = struct {
    place: Place,
    /// Of each row.
    bytes: usize,
    count: usize,

    /// A part of the weights.
    pub fn ofWeights(
        comptime weight_type: arguments.WeightType,
        product: *const Product,
        part: Part,
    ) Rows {
        const element_bytes = @sizeOf(weights.Element(weight_type));
        const start = part.column_first * product.depth + part.k_first;
        return .{
            .place = .{
                .address = @intFromPtr(product.weight) + element_bytes * start,
                .stride = element_bytes * product.depth,
            },
            .bytes = element_bytes * part.depth,
            .count = part.column_count,
        };
    }

    /// Those that belong to `first` to `end` of `total`.
    pub fn share(all: Rows, first: usize, end: usize, total: usize) Rows {
        const skipped = all.count * first / total;
        var some = all;
        some.place.address += skipped * all.place.stride;
        some.count = all.count * @min(end, total) / total - skipped;
        return some;
    }

    /// Adds the runs of part `index` of `count` equal parts, as far as there is room. Inlined, as
    /// `add` is: called, they cost a hundredth of a product.
    inline fn addRuns(rows: Rows, list: *RunList, index: usize, count: usize) void {
        const line_count = (rows.bytes + tile.line_bytes - 1) / tile.line_bytes;
        const run_count = line_count * ((rows.count + tile.rows_max - 1) / tile.rows_max);
        const first = run_count * index / count;
        var row = first / line_count * tile.rows_max;
        var line = first % line_count;
        for (first..run_count * (index + 1) / count) |_| {
            const offset = rows.place.stride * row + tile.line_bytes * line;
            list.add(.{
                .first = @ptrFromInt(rows.place.address +% offset),
                .stride = rows.place.stride,
            });
            line += 1;
            if (line < line_count) continue;
            line = 0;
            row += tile.rows_max;
        }
    }
};

pub const Ahead = struct {
    rows: ?Rows,
    weights: ?Rows,

    /// Adds the share of a column panel. What is too much for it is left to the copy itself.
    /// Written where it is read: a copy of what was just stored would wait for it.
    pub fn addTo(ahead: *const Ahead, list: *RunList, panel: usize, panel_count: usize) void {
        if (ahead.rows) |rows| rows.addRuns(list, panel, panel_count);
        if (ahead.weights) |rows| rows.addRuns(list, panel, panel_count);
        @memset(list.runs[list.count..], tile.no_run);
    }
};

pub const RunList = struct {
    runs: [tile.runs_max]tile.Run,
    count: usize,

    /// A column panel's lines of what is added at the end, whose first row begins at `offset`; it
    /// lies as the output. For rows that lie apart these are wrong lines, which cost little.
    pub inline fn addResidual(list: *RunList, product: *const Product, offset: usize) void {
        const residual = product.epilogue.residual orelse return;
        const first: [*]const u8 = @ptrCast(residual + offset);
        const panel_bytes = tile.columns_max * @sizeOf(f32);
        inline for (0..(panel_bytes + tile.line_bytes - 1) / tile.line_bytes) |line| {
            list.add(.{
                .first = first + line * tile.line_bytes,
                .stride = product.output_stride * @sizeOf(f32),
            });
        }
    }

    inline fn add(list: *RunList, run: tile.Run) void {
        if (list.count == list.runs.len) return;
        list.runs[list.count] = run;
        list.count += 1;
    }
};
