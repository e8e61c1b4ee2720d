//! The library's root: what the boundary exports, and every test.

comptime {
    _ = @import("abi.zig");
}

test {
    _ = @import("backend/cpu.zig");
    _ = @import("backend/cuda.zig");
    _ = @import("backend/cuda/matmul_cascaded.zig");
    _ = @import("backend/cuda/ops_attention.zig");
    _ = @import("backend/cuda/ops_convolution.zig");
    _ = @import("backend/cuda/ops_elementwise.zig");
    _ = @import("backend/cuda/ops_embedding.zig");
    _ = @import("backend/cuda/ops_norm.zig");
    _ = @import("backend/cuda/ops_sampler.zig");
    _ = @import("backend/cuda/autotune.zig");
    _ = @import("backend/cuda/conv.zig");
    _ = @import("nvidia/driver.zig");
    _ = @import("nvidia/dynamic.zig");
    _ = @import("doctor/gpu_report.zig");
    _ = @import("nvidia/kernels.zig");
    _ = @import("nvidia/libraries.zig");
    _ = @import("backend/cuda/gemm.zig");
    _ = @import("doctor/peer_bandwidth.zig");
    _ = @import("diagnostics.zig");
    _ = @import("model/config.zig");
    _ = @import("pipeline.zig");
    _ = @import("patch/slots.zig");
    _ = @import("patch/exchange_test.zig");
    _ = @import("patch/layout.zig");
    _ = @import("random.zig");
    _ = @import("random/philox.zig");
    _ = @import("scratch.zig");
    _ = @import("system/cores.zig");
    _ = @import("system/huge_pages.zig");
    _ = @import("system/memory.zig");
    _ = @import("tensor.zig");
    _ = @import("patch/sync_mode.zig");
    _ = @import("session/plan.zig");
    _ = @import("transport/faults.zig");
    _ = @import("weights.zig");
}
