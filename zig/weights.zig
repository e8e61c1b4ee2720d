//! The weights of one model component, from file to device. In reading order:
//!
//! - `weights/safetensors.zig` reads the file format, whatever the bytes are.
//! - `weights/mapped_file.zig` maps a file and finds out when it changes under the mapping.
//! - `weights/checkpoint.zig` is what the files hold: tensors by the checkpoint's own keys.
//! - `weights/weight.zig` is one weight: its source in the file, its layout on the device.
//! - `weights/resident.zig` is what the CPU computes with, and where a delta (LoRA) is applied.
//! - `backend/cuda/weights.zig` is the same for GPUs.
//! - `weights/shown.zig` shows a file's words in messages.

const resident = @import("weights/resident.zig");
const weight = @import("weights/weight.zig");
pub const Error = resident.Error;
pub const Layout = weight.Layout;
pub const Resident = resident.Resident;
pub const View = resident.View;
pub const Weight = weight.Weight;

test {
    _ = @import("weights/checkpoint.zig");
    _ = @import("weights/mapped_file.zig");
    _ = @import("weights/resident.zig");
    _ = @import("weights/safetensors.zig");
    _ = @import("weights/shown.zig");
    _ = @import("weights/weight.zig");
}
