//! What a blocked product asks the memory for while it multiplies a panel of rows: the next panel
//! and, where few rows share a packing, the weights to be packed next. Every column panel asks for
//! an equal share, as runs of lines (`tile.Run`).

const arguments = @import("../arguments.zig");
const Part = @import("product.zig").Part;
const tile = @import("tile.zig");
const weights = @import("weights.zig");
const Product = arguments.Product;

const line_bytes = 64;

/// Rows at a fixed distance in bytes. Nothing is read: addresses may lie outside of anything.
pub const Place = struct { address: usize, stride: usize };

/// Columns of weights, each a row of `bytes` at the place.
pub const Weights = struct {
    place: Place,
    bytes: usize,
    count: usize,

    pub fn of(
        comptime weight_type: arguments.WeightType,
        product: *const Product,
        part: Part,
    ) Weights {
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

    /// The columns that belong to the rows from `first` to `end` of `row_count`.
    pub fn share(all: Weights, first: usize, end: usize, row_count: usize) Weights {
        const skipped = all.count * first / row_count;
        var some = all;
        some.place.address += skipped * all.place.stride;
        some.count = all.count * @min(end, row_count) / row_count - skipped;
        return some;
    }

    fn lineCount(w: Weights) usize {
        return (w.bytes + line_bytes - 1) / line_bytes;
    }

    fn runCount(w: Weights) usize {
        return w.lineCount() * ((w.count + tile.rows_max - 1) / tile.rows_max);
    }

    fn run(w: Weights, index: usize) tile.Run {
        const column = index / w.lineCount() * tile.rows_max;
        const line = index % w.lineCount();
        return runAt(w.place, w.place.stride * column + line_bytes * line);
    }
};

pub const Ahead = struct {
    /// Elements of a row.
    depth: usize,
    rows: ?Place,
    weights: ?Weights,

    /// The share of a column panel. What is too much for it is left to the copy itself.
    pub fn fill(
        ahead: *const Ahead,
        runs: *[tile.runs_max]tile.Run,
        panel: usize,
        panel_count: usize,
    ) void {
        var count: usize = 0;
        if (ahead.rows) |place| {
            const lines = (@sizeOf(f32) * ahead.depth + line_bytes - 1) / line_bytes;
            const end = lines * (panel + 1) / panel_count;
            var line = lines * panel / panel_count;
            while (line < end and count < runs.len) : (line += 1) {
                runs[count] = runAt(place, line_bytes * line);
                count += 1;
            }
        }
        if (ahead.weights) |w| {
            const end = w.runCount() * (panel + 1) / panel_count;
            var index = w.runCount() * panel / panel_count;
            while (index < end and count < runs.len) : (index += 1) {
                runs[count] = w.run(index);
                count += 1;
            }
        }
        @memset(runs[count..], tile.no_run);
    }
};

fn runAt(place: Place, offset: usize) tile.Run {
    return .{ .first = @ptrFromInt(place.address +% offset), .stride = place.stride };
}
