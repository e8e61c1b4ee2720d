//! What `basedxl doctor` asks the native library: which GPUs and libraries there are, and how fast
//! GPUs copy to each other.
//!   gpu_report      JSON about driver, libraries and GPUs
//!   peer_bandwidth  a timed and verified copy between two GPUs

pub const gpu_report = @import("doctor/gpu_report.zig");
pub const peer_bandwidth = @import("doctor/peer_bandwidth.zig");

test {
    _ = gpu_report;
    _ = peer_bandwidth;
}
