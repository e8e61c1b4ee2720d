//! The weights of one model component, from file to device. In reading order:
//!
//! - `weights/safetensors.zig` parses the file format and checks it.
//! - `weights/mapped_file.zig` maps a file and detects changes under the mapping.
//! - `weights/checkpoint.zig` has the files' tensors, by the checkpoint's keys.
//! - `weights/component.zig` names the networks.
//! - `weights/weight.zig` is one weight: its source in the file, its layout on the device.
//! - `weights/resident.zig` holds the CPU's weights; `backend/cuda/weights.zig` those of GPUs.
//! - `weights/adapters.zig` is what a job asks of the weights: LoRA and kin.
//! - `weights/int8.zig` has the facts of int8 products.
//! - `weights/f8.zig` widens 8-bit numbers; `weights/quantization.zig` finds their scales.
//! - `weights/adapter_file.zig` finds and checks the tensors of an adapter.
//! - `weights/matrix.zig` reads a tensor in another order.
//! - `weights/shown.zig` escapes a file's strings for messages.

const checkpoint = @import("weights/checkpoint.zig");
const resident = @import("weights/resident.zig");
const weight = @import("weights/weight.zig");
pub const adapters = @import("weights/adapters.zig");
pub const AdapterFile = @import("weights/adapter_file.zig").AdapterFile;
pub const deltas = @import("weights/adapter_file.zig");
pub const Matrix = @import("weights/matrix.zig").Matrix;
pub const Component = @import("weights/component.zig").Component;
pub const Error = resident.Error;
pub const Files = checkpoint.Files;
pub const Name = checkpoint.Name;
pub const int8 = @import("weights/int8.zig");
pub const Layout = weight.Layout;
pub const block_count_max = weight.block_count_max;
pub const Resident = resident.Resident;
pub const View = resident.View;
pub const Weight = weight.Weight;

test {
    _ = @import("weights/adapter_file.zig");
    _ = @import("weights/adapters.zig");
    _ = @import("weights/checkpoint.zig");
    _ = @import("weights/f8.zig");
    _ = int8;
    _ = @import("weights/mapped_file.zig");
    _ = @import("weights/quantization.zig");
    _ = @import("weights/resident.zig");
    _ = @import("weights/safetensors.zig");
    _ = @import("weights/shown.zig");
    _ = @import("weights/weight.zig");
}
