//! The tests of the CUDA path: `zig build test-cuda` runs them on the emulated driver.

test {
    _ = @import("bench/gpu_test.zig");
    _ = @import("cuda/gpu_report_test.zig");
    _ = @import("cuda/libraries_test.zig");
    _ = @import("cuda/nccl_test.zig");
    _ = @import("cuda/convolution_test.zig");
    _ = @import("cuda/matmul_test.zig");
    _ = @import("backend/cuda/tests/attention.zig");
    _ = @import("backend/cuda/tests/convolution.zig");
    _ = @import("backend/cuda/tests/elementwise.zig");
    _ = @import("backend/cuda/tests/embedding.zig");
    _ = @import("backend/cuda/tests/matmul_cascaded.zig");
    _ = @import("backend/cuda/tests/norm.zig");
    _ = @import("backend/cuda/tests/sampler.zig");
    _ = @import("cuda/emulated/guards.zig");
    _ = @import("cuda/emulated/product.zig");
    _ = @import("cuda/emulated_test.zig");
    _ = @import("cuda/emulated_faults_test.zig");
    _ = @import("cuda/emulated_graph_test.zig");
}
