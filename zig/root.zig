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
    _ = @import("cuda/choices.zig");
    _ = @import("cuda/convolution.zig");
    _ = @import("cuda/driver.zig");
    _ = @import("cuda/dynamic.zig");
    _ = @import("cuda/gpu_report.zig");
    _ = @import("cuda/kernels.zig");
    _ = @import("cuda/libraries.zig");
    _ = @import("cuda/matmul.zig");
    _ = @import("cuda/peer_copy.zig");
    _ = @import("diagnostics.zig");
    _ = @import("model/config.zig");
    _ = @import("nchw.zig");
    _ = @import("patch/exchange_test.zig");
    _ = @import("patch/layout.zig");
    _ = @import("random.zig");
    _ = @import("random_philox.zig");
    _ = @import("safetensors.zig");
    _ = @import("scratch.zig");
    _ = @import("system/cores.zig");
    _ = @import("system/huge_pages.zig");
    _ = @import("system/memory.zig");
    _ = @import("tensor.zig");
    _ = @import("patch/mode.zig");
    _ = @import("plan_cache.zig");
    _ = @import("transport/faults.zig");
    _ = @import("weights.zig");
}
