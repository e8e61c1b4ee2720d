//! NVIDIA's libraries as tables of functions, opened at run time: nothing is linked, so that
//! libbasedxl loads on a machine without a GPU. Tables and types only; what is done with them is in
//! backend/cuda/ and transport/.
//!
//! In reading order:
//!   dynamic          dlopen, and a table filled from a library's symbols
//!   call_error       a failed call as text: function, error name, number
//!   driver           libcuda: contexts, memory, streams, events, graphs
//!   cublaslt         matrix products
//!   cudnn            convolutions; its descriptors in cudnn_descriptors
//!   nccl             messages between GPUs and machines
//!   library_folders  where pip, conda and CUDA_HOME put the libraries
//!   libraries        opens all of them, from the system or the emulator
//!   kernels          our own kernels: the fatbin that nvcc compiled
//!   header_checks    the tables against the vendor's headers (`zig build check-headers`)

pub const call_error = @import("nvidia/call_error.zig");
pub const cublaslt = @import("nvidia/cublaslt.zig");
pub const cudnn = @import("nvidia/cudnn.zig");
pub const cudnn_descriptors = @import("nvidia/cudnn_descriptors.zig");
pub const driver = @import("nvidia/driver.zig");
pub const dynamic = @import("nvidia/dynamic.zig");
pub const kernels = @import("nvidia/kernels.zig");
pub const libraries = @import("nvidia/libraries.zig");
pub const library_folders = @import("nvidia/library_folders.zig");
pub const nccl = @import("nvidia/nccl.zig");

test {
    _ = call_error;
    _ = cublaslt;
    _ = cudnn;
    _ = cudnn_descriptors;
    _ = driver;
    _ = dynamic;
    _ = kernels;
    _ = libraries;
    _ = library_folders;
    _ = nccl;
}
