//! Convolution as an implicit GEMM: rows are gathered from the image while packing, without an
//! im2col buffer. K runs over (kernel row, kernel column, channel): a run of channels is contiguous
//! in NHWC and is copied at once.

const ahead = @import("prefetch.zig");
const arguments = @import("../arguments.zig");
const doubled = @import("upsampled_conv.zig");
const pack = @import("pack.zig");
const product = @import("product.zig");
const tile = @import("tile.zig");
const Convolution = arguments.Convolution;

/// Where the rows of one panel sit in the output image.
const Positions = struct {
    batch: [tile.rows_max]u32,
    /// In the input; the kernel's own offset is added per tap.
    y: [tile.rows_max]i32,
    x: [tile.rows_max]i32,

    fn of(source: *const ImageSource, row_first: usize, row_count: usize) Positions {
        const args = source.args;
        var positions: Positions = undefined;
        const index: u32 = @intCast(row_first);
        const per_batch = args.rows_out * args.width_out;
        var batch = index / per_batch;
        var y = index % per_batch / args.width_out;
        var x = index % args.width_out;
        const pad_top: i32 = @intCast(source.pad_top);
        const pad_left: i32 = @intCast(source.pad_left);
        for (0..row_count) |r| {
            positions.batch[r] = batch;
            positions.y[r] = @as(i32, @intCast(y * args.stride)) - pad_top;
            positions.x[r] = @as(i32, @intCast(x * args.stride)) - pad_left;
            x += 1;
            if (x < args.width_out) continue;
            x = 0;
            y += 1;
            if (y < args.rows_out) continue;
            y = 0;
            batch += 1;
        }
        return positions;
    }
};

pub const ImageSource = struct {
    args: *const Convolution,
    kernel_width: u32,
    pad_top: u32,
    pad_left: u32,

    pub const is_scattered = false;

    pub fn fill(
        source: ImageSource,
        row_first: usize,
        row_count: usize,
        k_first: usize,
        depth: usize,
        panel: [*]tile.Element,
    ) void {
        const args = source.args;
        const positions: Positions = .of(&source, row_first, row_count);
        var tap: u32 = @intCast(k_first / args.channels);
        var channel = k_first % args.channels;
        var done: usize = 0;
        while (done < depth) {
            const count = @min(args.channels - channel, depth - done);
            const ky: i32 = @intCast(tap / source.kernel_width);
            const kx: i32 = @intCast(tap % source.kernel_width);
            for (0..row_count) |r| {
                const target = panel + r * tile.row_elements + done;
                const y = positions.y[r] + ky;
                const x = positions.x[r] + kx;
                if (pixel(args, positions.batch[r], y, x)) |channels| {
                    pack.copyElements(target, channels + channel, count);
                } else {
                    pack.zeroElements(target, count);
                }
            }
            done += count;
            channel = 0;
            tap += 1;
        }
    }

    /// As if the image had no edges, and the depth at hand one tap: wrong places cost nothing.
    pub fn place(source: ImageSource, row: usize, k: usize) ahead.Place {
        const args = source.args;
        const positions: Positions = .of(&source, row, 1);
        const tap: u32 = @intCast(k / args.channels);
        const ky: i32 = @intCast(tap / source.kernel_width);
        const kx: i32 = @intCast(tap % source.kernel_width);
        const y: isize = @as(isize, positions.batch[0]) * args.rows + positions.y[0] + ky;
        const index = y * args.width + positions.x[0] + kx;
        const pixel_bytes: isize = @intCast(@sizeOf(f32) * args.channels);
        const channel_bytes = @sizeOf(f32) * (k % args.channels);
        return .{
            .address = @intFromPtr(args.x) +% @as(usize, @bitCast(index * pixel_bytes)) +%
                channel_bytes,
            .stride = @as(usize, @intCast(pixel_bytes)) * args.stride,
        };
    }
};

/// The channels at a coordinate of the input, null in the padding.
pub inline fn pixel(args: *const Convolution, batch: u32, y: i32, x: i32) ?[*]const f32 {
    const width: usize = args.width;
    if (x < 0 or x >= args.width) return null;
    const column: usize = @intCast(x);
    if (y < 0) {
        const halo = args.halo_above orelse return null;
        return halo + (batch * width + column) * args.channels;
    }
    const row: usize = @intCast(y);
    if (row >= args.rows) {
        const halo = args.halo_below orelse return null;
        return halo + (batch * width + column) * args.channels;
    }
    return args.x + ((batch * @as(usize, args.rows) + row) * width + column) * args.channels;
}

const Images = struct {
    pub fn sourceOf(_: Images, p: *const arguments.Product) ImageSource {
        const args: *const Convolution = @fieldParentPtr("product", p);
        return .{
            .args = args,
            .kernel_width = args.kernel_width,
            .pad_top = args.pad_top,
            .pad_left = args.pad_left,
        };
    }
};

pub fn convolution(
    args: *const anyopaque,
    task: usize,
    workspace: [*]align(64) u8,
) callconv(.c) void {
    const convolution_args: *const Convolution = @ptrCast(@alignCast(args));
    if (convolution_args.doubled) return doubled.convolution(convolution_args, task, workspace);
    product.run(&convolution_args.product, Images{}, task, workspace);
}
