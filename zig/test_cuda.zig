//! The tests of the CUDA path: `zig build test-cuda` runs them on the emulated driver.

const test_count = @import("test_count.zig");

test "every test block that needs the emulator ran" {
    try test_count.expectAllRun(true);
}

test {
    _ = @import("backend/cuda/tests.zig");
    _ = @import("bench/gpu_test.zig");
    _ = @import("devices/failures_test.zig");
    _ = @import("doctor/gpu_report_test.zig");
    _ = @import("emulator/tests.zig");
    _ = @import("nvidia/libraries_test.zig");
    _ = @import("nvidia/nccl_test.zig");
    _ = @import("transport/gpu_ranks_test.zig");
}
