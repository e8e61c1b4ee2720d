//! What the bands of one picture tell each other inside a layer. A layer hands over its own part
//! and gets what it must read; whether that came from other ranks is nobody else's business.
//! With one band every answer is what was given, and nothing is copied.

const std = @import("std");
const assert = std.debug.assert;
const Tensor = @import("../tensor.zig").Tensor;

/// Bands that one picture can be cut into.
pub const band_count_max = 16;

pub const Exchange = struct {
    band_count: u32 = 1,

    pub const Parts = [band_count_max]Tensor;

    pub const BorderRows = struct { above: ?Tensor, below: ?Tensor };

    /// The rows that touch this band, for a 3x3 convolution over `mine`; null at the picture's
    /// edge.
    pub fn borderRows(exchange: *Exchange, mine: Tensor) error{}!BorderRows {
        assert(exchange.band_count == 1);
        _ = mine;
        return .{ .above = null, .below = null };
    }

    /// Group norm statistics of the whole picture from those of this band.
    pub fn statistics(exchange: *Exchange, mine: Tensor) error{}!Tensor {
        assert(exchange.band_count == 1);
        return mine;
    }

    /// Every band's keys and values, in the order of the rows; they together are the sequence.
    pub fn keysValues(exchange: *Exchange, mine: Tensor, parts: *Parts) []const Tensor {
        assert(exchange.band_count == 1);
        parts[0] = mine;
        return parts[0..1];
    }
};

test "one band gets back what it gave" {
    var exchange: Exchange = .{};
    const mine: Tensor = .{ .address = 64, .shape = .tokens(1, 4, 8) };
    var list: Exchange.Parts = undefined;
    const parts = exchange.keysValues(mine, &list);
    try std.testing.expectEqual(@as(usize, 1), parts.len);
    try std.testing.expectEqual(mine, parts[0]);
    try std.testing.expectEqual(mine, try exchange.statistics(mine));
    try std.testing.expectEqual(@as(?Tensor, null), (try exchange.borderRows(mine)).above);
}
