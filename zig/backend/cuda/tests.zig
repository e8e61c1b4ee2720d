//! Every operation of the CUDA backend against the CPU backend, and its libraries against the
//! definition in f64, on the emulated driver.

test {
    _ = @import("tests/attention.zig");
    _ = @import("tests/conv_library.zig");
    _ = @import("tests/errors.zig");
    _ = @import("tests/gemm.zig");
    _ = @import("tests/gemm_int8.zig");
    _ = @import("tests/loading.zig");
    _ = @import("tests/matmul_cascaded.zig");
    _ = @import("tests/norm.zig");
    _ = @import("tests/operations.zig");
    _ = @import("tests/own_or_library.zig");
    _ = @import("tests/weights.zig");
    _ = @import("tests/weights_f8.zig");
}
