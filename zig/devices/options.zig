//! What a session asks of its devices, and how opening or using them fails.

const AttentionKind = @import("../backend.zig").AttentionKind;
const Compute = @import("../backend.zig").Compute;
const DType = @import("../tensor.zig").DType;
const nccl = @import("../nvidia/nccl.zig");
const transports = @import("../transport.zig");

pub const Error = error{
    OutOfMemory,
    ThreadsUnavailable,
    GpuFailed,
    LibraryMissing,
    Cancelled,
    BadWeights,
    NotEnoughMemory,
};

pub const DeviceKind = enum(u32) { cpu = 0, cuda = 1 };

pub const Options = struct {
    kind: DeviceKind = .cpu,
    /// Threads of all CPU ranks together; 0 means one per core.
    thread_count: u32 = 0,
    /// Precision of matrix products on the CPU.
    compute_dtype: Compute = .f32,
    /// Type of the activations: f32 on the CPU, f16 or bf16 on GPUs.
    activation_dtype: DType = .f32,
    /// Whether several ranks may run on one GPU.
    share_gpu: bool = false,
    use_graphs: bool = true,
    fp16_accumulate: bool = false,
    attention: AttentionKind = .auto,
    transport: transports.TransportKind = .auto,
    /// The ranks of this process.
    local_ranks: transports.RankRange,
    /// The GPU of the first local rank.
    gpu_first: u32 = 0,
    /// The ncclUniqueId of a distributed job; null where all ranks are local.
    nccl_unique_id: ?nccl.UniqueId = null,
    /// Generate weights on the GPU; for benches.
    random_weights: bool = false,
    /// Whether algorithms that are measured are kept for other processes.
    keeps_algorithms: bool = true,
    /// Replaces NVIDIA's libraries; "" for these.
    cuda_library: [:0]const u8 = "",
};
