//! The tests of the CUDA path: `zig build test-cuda` runs them on the emulated driver.

test {
    _ = @import("bench/gpu_test.zig");
    _ = @import("doctor/gpu_report_test.zig");
    _ = @import("nvidia/libraries_test.zig");
    _ = @import("nvidia/nccl_test.zig");
    _ = @import("backend/cuda/tests/conv_library.zig");
    _ = @import("backend/cuda/tests/gemm.zig");
    _ = @import("backend/cuda/tests/attention.zig");
    _ = @import("backend/cuda/tests/convolution.zig");
    _ = @import("backend/cuda/tests/elementwise.zig");
    _ = @import("backend/cuda/tests/embedding.zig");
    _ = @import("backend/cuda/tests/errors.zig");
    _ = @import("backend/cuda/tests/matmul_cascaded.zig");
    _ = @import("backend/cuda/tests/norm.zig");
    _ = @import("backend/cuda/tests/sampler.zig");
    _ = @import("backend/cuda/tests/weights.zig");
    _ = @import("emulator/guards.zig");
    _ = @import("emulator/product.zig");
    _ = @import("emulator/tests/driver.zig");
    _ = @import("emulator/tests/faults.zig");
    _ = @import("emulator/tests/graph.zig");
}
