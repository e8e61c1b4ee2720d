//! What `basedxl doctor` asks the native library: which GPUs and libraries there are, and how fast
//! GPUs copy to each other.
//!   gpu_report  JSON about driver, libraries, GPUs, and copies between them

pub const gpu_report = @import("doctor/gpu_report.zig");

test {
    _ = gpu_report;
}
