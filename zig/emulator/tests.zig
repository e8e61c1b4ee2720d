//! The emulator's own tests: that it does what NVIDIA's driver does, and reports what it forbids.

test {
    _ = @import("cublaslt_int8.zig");
    _ = @import("guards.zig");
    _ = @import("nccl_mailbox.zig");
    _ = @import("numbers.zig");
    _ = @import("product.zig");
    _ = @import("tests/driver.zig");
    _ = @import("tests/faults.zig");
    _ = @import("tests/graph.zig");
    _ = @import("tests/image.zig");
}
