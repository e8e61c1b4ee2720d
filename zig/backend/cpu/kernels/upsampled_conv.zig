//! A 3x3 convolution after 2x nearest upsampling. The nine taps of an output
//! fall on four pixels of the small image, which four depends on the parity of its row and
//! column: each of the four phases is a 2x2 convolution whose weights are sums of the nine, with
//! 4/9 of the multiplications. Sums are made in f32 while weights are packed.

const ahead = @import("prefetch.zig");
const arguments = @import("../arguments.zig");
const ImageSource = @import("convolution.zig").ImageSource;
const packing = @import("pack.zig");
const product = @import("product.zig");
const tile = @import("tile.zig");
const v = @import("vector.zig");
const weights = @import("weights.zig");
const Convolution = arguments.Convolution;
const lanes = v.lanes;

/// Taps of the small image in one direction, and of the weights.
const small_width = 2;
const full_width = 3;

pub fn convolution(args: *const Convolution, task: usize, workspace: [*]align(64) u8) void {
    const p = &args.product;
    const tasks = p.row_block_count * p.column_block_count;
    const number: u32 = @intCast(task / tasks);
    const phase: Phase = .{ .bottom = number / 2, .right = number % 2 };
    product.run(p, phase, task % tasks, workspace);
}

/// The outputs (2 y + bottom, 2 x + right).
const Phase = struct {
    bottom: u32,
    right: u32,

    pub fn sourceOf(phase: Phase, p: *const arguments.Product) PhaseSource {
        const image: ImageSource = .{
            .args = @fieldParentPtr("product", p),
            .kernel_width = small_width,
            .pad_top = 1 - phase.bottom,
            .pad_left = 1 - phase.right,
        };
        return .{ .image = image, .phase = phase };
    }
};

const PhaseSource = struct {
    image: ImageSource,
    phase: Phase,

    pub const is_scattered = true;

    pub inline fn output(source: PhaseSource, row: usize) usize {
        const args = source.image.args;
        const x = row % args.width_out;
        // Rows of all images of a batch follow each other, enlarged or not.
        const y = row / args.width_out;
        return (2 * y + source.phase.bottom) * 2 * args.width_out + 2 * x + source.phase.right;
    }

    pub fn fill(
        source: PhaseSource,
        row_first: usize,
        row_count: usize,
        k_first: usize,
        depth: usize,
        panel: [*]tile.Element,
    ) void {
        source.image.fill(row_first, row_count, k_first, depth, panel);
    }

    pub fn place(source: PhaseSource, row: usize, k: usize) ahead.Place {
        return source.image.place(row, k);
    }

    pub fn pack(
        source: PhaseSource,
        comptime weight_type: arguments.WeightType,
        part: product.Part,
        target: [*]tile.Element,
    ) void {
        const p = &source.image.args.product;
        const all: [*]const weights.Element(weight_type) = @ptrCast(@alignCast(p.weight));
        const stride = full_width * full_width * @as(usize, source.image.args.channels);
        var sums: [tile.columns_max * tile.depth_max]f32 align(64) = undefined;
        var column: usize = 0;
        while (column < part.column_count) : (column += tile.columns_max) {
            const count = @min(tile.columns_max, part.column_count - column);
            for (0..count) |c| {
                const row = part.column_first + column + c;
                const scales = weights.scalesOf(weight_type, p.weight_scales, row);
                source.addTaps(weight_type, .{
                    .taps = all + row * stride,
                    .factor = weights.factorOf(weight_type, scales, 0),
                }, part, sums[c * part.depth ..].ptr);
            }
            packing.packColumns(.f32, .{
                .source = &sums,
                .scales = {},
                .stride = part.depth,
                .count = count,
                .depth = part.depth,
            }, target + column * tile.per_word * tile.words(part.depth));
        }
    }

    /// The phase's weights of one column, over the K steps of `part`.
    fn addTaps(
        source: PhaseSource,
        comptime weight_type: arguments.WeightType,
        column: weights.Column(weight_type),
        part: product.Part,
        sums: [*]f32,
    ) void {
        const channels: usize = source.image.args.channels;
        var tap = part.k_first / channels;
        var channel = part.k_first % channels;
        var done: usize = 0;
        while (done < part.depth) {
            const count = @min(channels - channel, part.depth - done);
            const rows: Taps = .of(tap / small_width, source.phase.bottom);
            const columns: Taps = .of(tap % small_width, source.phase.right);
            packing.zeroFloats(sums + done, count);
            for (rows.first..rows.end) |y| {
                for (columns.first..columns.end) |x| {
                    var at = column;
                    at.taps += (y * full_width + x) * channels + channel;
                    addWidened(weight_type, sums + done, at, count);
                }
            }
            done += count;
            channel = 0;
            tap += 1;
        }
    }
};

/// Of the three taps in one direction, those that fall on the first or second pixel.
const Taps = struct {
    first: usize,
    end: usize,

    fn of(pixel: usize, parity: u32) Taps {
        const middle = 1 + parity;
        return if (pixel == 0)
            .{ .first = 0, .end = middle }
        else
            .{ .first = middle, .end = full_width };
    }
};

fn addWidened(
    comptime weight_type: arguments.WeightType,
    sums: [*]f32,
    column: weights.Column(weight_type),
    count: usize,
) void {
    const source = column.taps;
    var i: usize = 0;
    while (i + lanes <= count) : (i += lanes) {
        const value = weights.load(weight_type, lanes, source + i, column.factor);
        v.store(sums + i, v.load(sums + i) + value);
    }
    while (i < count) : (i += 1) {
        sums[i] += weights.loadOne(weight_type, source + i, column.factor);
    }
}
