//! One comparison of a GPU with the CPU by random numbers, run for so many draws of each type.

const Pair = @import("pair.zig").Pair;
const pairs = @import("pair.zig");

pub const Check = struct {
    /// The operation of `backend.zig`, or the kernels within it.
    name: []const u8,
    run: *const fn (*Pair) pairs.Error!void,
    /// Whether cuBLASLt or cuDNN compute it.
    needs_libraries: bool = false,
    /// Types of activations that it computes with.
    is_f16_alone: bool = false,
};
