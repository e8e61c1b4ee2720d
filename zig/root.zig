//! The library's root: what the boundary exports, and every test.

comptime {
    _ = @import("abi.zig");
}

test "every test block that needs no emulator ran" {
    try @import("test_count.zig").expectAllRun(false);
}

test {
    _ = @import("backend.zig");
    _ = @import("bench/gpu_model.zig");
    _ = @import("bench/gpu_runs.zig");
    _ = @import("devices.zig");
    _ = @import("diagnostics.zig");
    _ = @import("doctor.zig");
    _ = @import("fuzz/abi.zig");
    _ = @import("model/config.zig");
    _ = @import("nvidia.zig");
    _ = @import("patch.zig");
    _ = @import("pipeline.zig");
    _ = @import("random.zig");
    _ = @import("random/brownian.zig");
    _ = @import("random/philox.zig");
    _ = @import("random/seed_sequence.zig");
    _ = @import("random/slerp.zig");
    _ = @import("scratch.zig");
    _ = @import("session/plan.zig");
    _ = @import("system.zig");
    _ = @import("tensor.zig");
    _ = @import("transport.zig");
    _ = @import("verify.zig");
    _ = @import("weights.zig");
    _ = @import("weights/mapped_file.zig");
    _ = @import("weights/safetensors.zig");
    _ = @import("weights/shown.zig");
}
