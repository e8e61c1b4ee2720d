//! Elements in memory, read as a matrix: the view of a file's tensor in the order in which a
//! product or a device needs it. Nothing is copied, and nothing is assumed of the alignment.

const DType = @import("../tensor.zig").DType;

pub const Matrix = struct {
    bytes: []const u8,
    dtype: DType,
    rows: usize,
    columns: usize,
    /// From one row to the next, in elements.
    row_step: usize,
    /// Element k of a row is at k / inner * outer_step + k % inner * inner_step.
    inner: usize,
    outer_step: usize,
    inner_step: usize,
    /// Factors of the rows of an 8-bit matrix; empty for 1.
    row_scales: []const f32 = &.{},

    /// (rows, columns)
    pub fn dense(bytes: []const u8, dtype: DType, rows: usize, columns: usize) Matrix {
        return .{
            .bytes = bytes,
            .dtype = dtype,
            .rows = rows,
            .columns = columns,
            .row_step = columns,
            .inner = @max(1, columns),
            .outer_step = columns,
            .inner_step = 1,
        };
    }

    /// Columns (taps, channels) of rows that lie as (channels, taps): a convolution's, as files
    /// have it and as devices compute with it.
    pub fn permuted(
        bytes: []const u8,
        dtype: DType,
        rows: usize,
        taps: usize,
        channels: usize,
    ) Matrix {
        if (taps == 1) return dense(bytes, dtype, rows, channels);
        return .{
            .bytes = bytes,
            .dtype = dtype,
            .rows = rows,
            .columns = taps * channels,
            .row_step = taps * channels,
            .inner = @max(1, channels),
            .outer_step = 1,
            .inner_step = taps,
        };
    }

    /// (rows, columns) of what lies as (columns, rows).
    pub fn transposed(bytes: []const u8, dtype: DType, rows: usize, columns: usize) Matrix {
        return .{
            .bytes = bytes,
            .dtype = dtype,
            .rows = rows,
            .columns = columns,
            .row_step = 1,
            .inner = @max(1, columns),
            .outer_step = 0,
            .inner_step = rows,
        };
    }

    /// One tap of (rows, columns, taps).
    pub fn tap(
        bytes: []const u8,
        dtype: DType,
        rows: usize,
        columns: usize,
        taps: usize,
        index: usize,
    ) Matrix {
        return .{
            .bytes = bytes[index * dtype.size() ..],
            .dtype = dtype,
            .rows = rows,
            .columns = columns,
            .row_step = columns * taps,
            .inner = @max(1, columns),
            .outer_step = 0,
            .inner_step = taps,
        };
    }
};
