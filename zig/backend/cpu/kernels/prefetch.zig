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
};

/// What is asked for while one panel of rows is multiplied, tile by tile.
pub const Ahead = struct {
    rows: Cursor,
    weights: Cursor,

    pub fn of(rows: ?Rows, weight_rows: ?Rows, panel_count: usize) Ahead {
        return .{ .rows = .of(rows, panel_count), .weights = .of(weight_rows, panel_count) };
    }

    /// Adds the share of the next column panel. What is too much for it is left to the copy itself.
    /// Written where it is read: a copy of what was just stored would wait for it.
    pub inline fn addTo(ahead: *Ahead, list: *RunList) void {
        ahead.rows.addShare(list);
        ahead.weights.addShare(list);
        @memset(list.runs[list.count..], tile.no_run);
    }
};

/// Deals the lines of rows in equal shares, one per column panel, without a division for each: they
/// would cost a hundredth of a product.
const Cursor = struct {
    /// Of the present line.
    address: usize = 0,
    stride: usize = 0,
    /// Of each row, and those that are left of the present one.
    line_count: usize = 1,
    lines_left: usize = 1,
    /// Runs of a share: `least`, and one more where `rest` has grown to `panel_count`.
    least: usize = 0,
    surplus: usize = 0,
    rest: usize = 0,
    panel_count: usize = 1,

    fn of(asked: ?Rows, panel_count: usize) Cursor {
        const rows = asked orelse return .{};
        const line_count = (rows.bytes + tile.line_bytes - 1) / tile.line_bytes;
        const run_count = line_count * ((rows.count + tile.rows_max - 1) / tile.rows_max);
        return .{
            .address = rows.place.address,
            .stride = rows.place.stride,
            .line_count = line_count,
            .lines_left = line_count,
            .least = run_count / panel_count,
            .surplus = run_count % panel_count,
            .panel_count = panel_count,
        };
    }

    inline fn addShare(cursor: *Cursor, list: *RunList) void {
        var count = cursor.least;
        cursor.rest += cursor.surplus;
        if (cursor.rest >= cursor.panel_count) {
            cursor.rest -= cursor.panel_count;
            count += 1;
        }
        for (0..count) |_| {
            list.add(.{ .first = @ptrFromInt(cursor.address), .stride = cursor.stride });
            cursor.address +%= tile.line_bytes;
            cursor.lines_left -= 1;
            if (cursor.lines_left > 0) continue;
            cursor.lines_left = cursor.line_count;
            cursor.address +%= cursor.stride * tile.rows_max -% tile.line_bytes * cursor.line_count;
        }
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
