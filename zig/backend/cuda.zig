//! The CUDA backend: each operation of `backend.zig` becomes launches on one stream of one GPU.
//! Operations neither allocate nor wait, so that a CUDA graph can take them down; only downloads
//! wait for the stream, and `endFiniteCheck` for an event in it.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const drivers = @import("../nvidia/driver.zig");
const Driver = drivers.Driver;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;
const block_count_max = @import("../weights.zig").block_count_max;
const Weight = @import("../weights.zig").Weight;
const dependent_launches = @import("cuda/dependent_launches.zig");
const finite_check = @import("cuda/finite_check.zig");
const graphs_file = @import("cuda/graphs.zig");
const Graphs = graphs_file.Graphs;
pub const GraphCounts = graphs_file.Counts;
const graph_key = @import("cuda/graph_key.zig");
pub const GraphKey = graph_key.GraphKey;
pub const StepVariant = graph_key.StepVariant;
const ops_attention = @import("cuda/ops_attention.zig");
const ops_convolution = @import("cuda/ops_convolution.zig");
const ops_cross_attention = @import("cuda/ops_cross_attention.zig");
const ops_elementwise = @import("cuda/ops_elementwise.zig");
const ops_embedding = @import("cuda/ops_embedding.zig");
const linear_rows = @import("cuda/linear_rows.zig");
const ops_geglu = @import("cuda/ops_geglu.zig");
const ops_int8 = @import("cuda/ops_int8.zig");
const ops_norm = @import("cuda/ops_norm.zig");
const ops_product = @import("cuda/ops_product.zig");
const ops_sampler = @import("cuda/ops_sampler.zig");
pub const LibraryHandles = @import("cuda/library_handles.zig").LibraryHandles;
const waits_file = @import("cuda/waits.zig");
const Waits = waits_file.Waits;

/// Device bytes that these operations need beside their results.
pub const attentionBytes = ops_attention.temporaryBytes;
pub const convolutionBytes = ops_product.convolutionBytes;
pub const areAdjacent = ops_product.areAdjacent;
pub const sumBytes = ops_int8.sumBytes;
pub const packed_head_size_max = ops_attention.head_size_max;
pub const packedAttentionBytes = ops_attention.packedBytes;

/// What plans say of the kernels behind an operation.
pub const attentionKernels = ops_attention.kernelsOf;
pub const gatesInOneKernel = ops_geglu.isOneKernel;
pub const projectsInOneKernel = ops_cross_attention.isOneKernel;
pub const areRowsOneKernel = linear_rows.fit;
pub const isDirect = ops_convolution.isDirect;
pub const needsPaddedInput = ops_convolution.needsPaddedInput;
pub const paddedShape = ops_convolution.paddedShape;

pub const Error = error{ Cancelled, GpuFailed };

/// Device bytes that one operation may use between its own launches (`Cuda.reduction_workspace`).
pub const reduction_workspace_bytes = 4 << 20;
/// Counters behind it, one for each image of a reduction: blocks that have arrived, 0 in between.
pub const arrived_count = 1024;

/// Whether a kernel's name ends in the activations' type.
pub const Typed = enum { typed, untyped };

pub const Dim3 = struct { x: u32 = 1, y: u32 = 1, z: u32 = 1 };

/// Kernels that are known by name; more than there are.
const function_count_max = 256;
pub const Options = struct {
    driver: *const Driver,
    device: drivers.Device,
    module: drivers.Module,
    /// Of the activations: f16 or bf16.
    activation: DType,
    /// Where this GPU keeps the weights.
    weights_base: usize,
    diagnostics: *Diagnostics,
    /// Looked at before each launch.
    cancelled: *const std.atomic.Value(bool),
    use_graphs: bool = true,
    /// Linear layers of the UNet sum in f16 (`cuda/matmul_cascaded.zig`).
    fp16_accumulate: bool = false,
    /// Where driver and kernels allow it (`cuda/dependent_launches.zig`).
    dependent_launches: bool = false,
    rank: u32 = 0,
};

/// How long a queue may take to end after a failure before it is given up.
pub const drain_limit_ns = 30 * std.time.ns_per_s;

/// One rank's queue on a GPU: used by one thread at a time, in whose context it was opened.
pub const Cuda = struct {
    gpa: Allocator,
    driver: *const Driver,
    device: drivers.Device,
    context: drivers.Context,
    module: drivers.Module,
    stream: drivers.Stream,
    /// Transfers between ranks that run beside the computation are queued here: those that the next
    /// step needs, and those that may take longer.
    exchange_streams: [2]drivers.Stream,
    graphs: Graphs,
    /// Null in tests of kernels, which need no library.
    libraries: ?LibraryHandles = null,
    activation: DType,
    weights_base: usize,
    /// Where this GPU keeps the weights of networks beside the model, by `Weight.block`.
    network_bases: [block_count_max]usize = @splat(0),
    /// Device memory for one widened weight, or a pair of them, reused in stream order; 0 where no
    /// weight is kept in 8 bits.
    widen_workspace: usize = 0,
    /// Device memory for reductions inside one operation, reused in stream order.
    reduction_workspace: usize,
    finite_checks: finite_check.FiniteChecks,
    diagnostics: *Diagnostics,
    cancelled: *const std.atomic.Value(bool),
    fp16_accumulate: bool,
    /// Asked at the first use (`cuda/wgmma.zig`).
    has_wgmma: ?bool = null,
    /// For messages.
    rank: u32,
    waits: Waits,
    /// Its queue did not end: nothing of it is used or freed any more.
    is_abandoned: bool = false,
    /// Found at their first launch, by the address of their name.
    function_names: [function_count_max][*]const u8 = undefined,
    functions: [function_count_max]Function = undefined,
    function_count: usize = 0,
    dependent_launches: dependent_launches.State,

    const Function = struct { handle: drivers.Function, ptx_version: c_int };

    /// The GPU's context must be current.
    pub fn init(gpa: Allocator, options: Options) (Allocator.Error || Error)!*Cuda {
        assert(options.activation == .f16 or options.activation == .bf16);
        const cuda = try gpa.create(Cuda);
        errdefer gpa.destroy(cuda);
        cuda.* = .{
            .gpa = gpa,
            .driver = options.driver,
            .device = options.device,
            .context = undefined,
            .module = options.module,
            .stream = undefined,
            .exchange_streams = undefined,
            .graphs = .init(gpa, options.use_graphs),
            .activation = options.activation,
            .weights_base = options.weights_base,
            .reduction_workspace = 0,
            .finite_checks = undefined,
            .diagnostics = options.diagnostics,
            .cancelled = options.cancelled,
            .fp16_accumulate = options.fp16_accumulate,
            .dependent_launches = .init(options.driver, options.dependent_launches),
            .rank = options.rank,
            .waits = .{
                .diagnostics = options.diagnostics,
                .cancelled = options.cancelled,
                .rank = options.rank,
                .device = options.device,
            },
        };
        const d = cuda.driver;
        var context: ?drivers.Context = null;
        try cuda.check(.cuCtxGetCurrent, d.cuCtxGetCurrent(&context), "looking up the context");
        cuda.context = context.?;
        cuda.stream = try cuda.makeStream();
        errdefer _ = d.cuStreamDestroy_v2(cuda.stream);
        for (&cuda.exchange_streams, 0..) |*stream, i| {
            errdefer for (cuda.exchange_streams[0..i]) |made| {
                _ = d.cuStreamDestroy_v2(made);
            };
            stream.* = try cuda.makeStream();
        }
        errdefer for (cuda.exchange_streams) |stream| {
            _ = d.cuStreamDestroy_v2(stream);
        };
        const flags_first = reduction_workspace_bytes + arrived_count * @sizeOf(u32);
        const bytes = flags_first + finite_check.flag_bytes;
        const allocated = d.cuMemAlloc_v2(&cuda.reduction_workspace, bytes);
        try cuda.check(.cuMemAlloc_v2, allocated, "allocating the reduction workspace");
        errdefer _ = d.cuMemFree_v2(cuda.reduction_workspace);
        try cuda.zero(cuda.arrived(), arrived_count * @sizeOf(u32));
        cuda.finite_checks = try .init(cuda, cuda.reduction_workspace + flags_first);
        return cuda;
    }

    pub fn deinit(cuda: *Cuda) void {
        assert(!cuda.is_abandoned);
        const d = cuda.driver;
        for (cuda.exchange_streams) |stream| _ = d.cuStreamSynchronize(stream);
        _ = d.cuStreamSynchronize(cuda.stream);
        cuda.graphs.deinit(cuda);
        if (cuda.libraries) |*libraries| libraries.close();
        cuda.finite_checks.deinit(cuda);
        _ = d.cuMemFree_v2(cuda.reduction_workspace);
        if (cuda.widen_workspace != 0) _ = d.cuMemFree_v2(cuda.widen_workspace);
        for (cuda.exchange_streams) |stream| _ = d.cuStreamDestroy_v2(stream);
        _ = d.cuStreamDestroy_v2(cuda.stream);
        cuda.gpa.destroy(cuda);
    }

    /// Queues a kernel by name, with "_f16" or "_bf16" appended where `typed`. `args` is a tuple in
    /// the kernel's order, each of the kernel's own type (u32, u64, f32; usize for pointers; extern
    /// structs by value).
    pub fn launch(
        cuda: *Cuda,
        comptime name: [:0]const u8,
        comptime typed: Typed,
        grid: Dim3,
        block: Dim3,
        shared_bytes: u32,
        args: anytype,
    ) Error!void {
        if (cuda.cancelled.load(.monotonic)) return error.Cancelled;
        const f16_name = if (typed == .typed) name ++ "_f16" else name;
        const bf16_name = if (typed == .typed) name ++ "_bf16" else name;
        const full: [:0]const u8 = if (cuda.activation == .bf16) bf16_name else f16_name;
        const function = try cuda.functionOf(full);
        var values: std.meta.Tuple(&fieldTypes(@TypeOf(args))) = args;
        var pointers: [values.len]?*anyopaque = undefined;
        inline for (&pointers, 0..) |*pointer, i| pointer.* = @ptrCast(&values[i]);
        defer cuda.dependent_launches.follows_kernel = true;
        if (cuda.dependent_launches.mayOverlap(function.ptx_version)) {
            return dependent_launches.launch(cuda, function.handle, full, .{
                .grid_x = grid.x,
                .grid_y = grid.y,
                .grid_z = grid.z,
                .block_x = block.x,
                .block_y = block.y,
                .block_z = block.z,
                .shared_bytes = shared_bytes,
                .stream = cuda.stream,
            }, &pointers);
        }
        const result = cuda.driver.cuLaunchKernel(
            function.handle,
            grid.x,
            grid.y,
            grid.z,
            block.x,
            block.y,
            block.z,
            shared_bytes,
            cuda.stream,
            &pointers,
            null,
        );
        try cuda.check(.cuLaunchKernel, result, full);
    }

    /// Of `arrived_count` counters.
    pub fn arrived(cuda: *const Cuda) usize {
        return cuda.reduction_workspace + reduction_workspace_bytes;
    }

    pub fn addressOf(cuda: *const Cuda, weight: *const Weight) usize {
        const base =
            if (weight.block == 0) cuda.weights_base else cuda.network_bases[weight.block];
        return base + weight.device_offset;
    }

    /// Kernels take null for a missing one.
    pub fn addressOrNull(cuda: *const Cuda, weight: ?*const Weight) usize {
        return if (weight) |there| cuda.addressOf(there) else 0;
    }

    /// Whether `--fp16-accumulate` asks for another product of this weight than the usual one.
    pub fn cascades(cuda: *const Cuda, weight: *const Weight) bool {
        return cuda.fp16_accumulate and weight.may_cascade;
    }

    /// Allocates the workspace for widened weights.
    pub fn reserveWiden(cuda: *Cuda, bytes: usize) Error!void {
        assert(cuda.widen_workspace == 0);
        if (bytes == 0) return;
        const allocated = cuda.driver.cuMemAlloc_v2(&cuda.widen_workspace, bytes);
        try cuda.check(.cuMemAlloc_v2, allocated, "allocating the workspace for 8-bit weights");
    }

    /// Of a kernel as the driver has it for this GPU.
    pub fn functionAttribute(
        cuda: *Cuda,
        name: [:0]const u8,
        attribute: drivers.FunctionAttribute,
    ) Error!c_int {
        var value: c_int = 0;
        const function = try cuda.functionOf(name);
        const result = cuda.driver.cuFuncGetAttribute(&value, attribute, function.handle);
        try cuda.check(.cuFuncGetAttribute, result, name);
        return value;
    }

    pub fn deviceAttribute(cuda: *Cuda, attribute: drivers.DeviceAttribute) Error!c_int {
        var value: c_int = 0;
        const result = cuda.driver.cuDeviceGetAttribute(&value, attribute, cuda.device);
        try cuda.check(.cuDeviceGetAttribute, result, "asking what the GPU has");
        return value;
    }

    /// While a graph runs, operations are in it and must not be queued again.
    pub fn isReplaying(cuda: *const Cuda) bool {
        return cuda.graphs.pass == .replay;
    }

    /// After a failed job: abandons a capture and waits for the streams, whose transfers must have
    /// been aborted. A stream that does not finish is abandoned.
    pub fn drain(cuda: *Cuda) void {
        if (cuda.is_abandoned) return;
        cuda.graphs.abandon(cuda);
        const limit_ns = @min(drain_limit_ns, cuda.waits.stall_limit_ns);
        for (cuda.exchange_streams ++ [1]drivers.Stream{cuda.stream}) |stream| {
            const result = waits_file.poll(cuda.driver.cuStreamQuery, stream, limit_ns, null);
            if (result == .not_ready) cuda.is_abandoned = true;
        }
    }

    /// Waits for the compute stream.
    pub fn synchronize(cuda: *Cuda) Error!void {
        const result = try cuda.waits.untilIdle(cuda.driver, cuda.stream);
        return cuda.check(.cuStreamQuery, result, "running the stream");
    }

    /// Turns a driver error into the job's error message. `what` is what was attempted, or the
    /// kernel that was launched. Kernels run asynchronously: a later call reports their failure.
    pub fn check(
        cuda: *Cuda,
        call: drivers.Call,
        result: drivers.Result,
        what: []const u8,
    ) error{GpuFailed}!void {
        if (result == .success) return;
        return cuda.diagnostics.fail(error.GpuFailed, "{f} (rank {d} on GPU {d}: {s}).", .{
            cuda.driver.callError(call, result), cuda.rank, cuda.device, what,
        });
    }

    pub const linear = ops_product.linear;
    pub const linearGeglu = ops_geglu.linearGeglu;
    pub const linearRows = linear_rows.run;
    pub const linearAdjacent = ops_product.linearAdjacent;
    pub const quantizeRows = ops_int8.quantizeRows;
    pub const conv2d = ops_product.conv2d;
    pub const attention = ops_attention.attention;
    pub const attentionPacked = ops_attention.attentionPacked;
    pub const crossAttention = ops_cross_attention.crossAttention;
    pub const groupNormStats = ops_norm.groupNormStats;
    pub const combineStatistics = ops_norm.combineStatistics;
    pub const groupNormApply = ops_norm.groupNormApply;
    pub const layerNorm = ops_norm.layerNorm;
    pub const upload = ops_elementwise.upload;
    pub const download = ops_elementwise.download;
    pub const copy = ops_elementwise.copy;
    pub const zero = ops_elementwise.zero;
    pub const copyRows = ops_elementwise.copyRows;
    pub const extrapolateRows = ops_elementwise.extrapolateRows;
    pub const quantizeChange = ops_elementwise.quantizeChange;
    pub const applyChange = ops_elementwise.applyChange;
    pub const isFinite = finite_check.isFinite;
    pub const beginFiniteCheck = finite_check.beginFiniteCheck;
    pub const endFiniteCheck = finite_check.endFiniteCheck;
    pub const activate = ops_elementwise.activate;
    pub const prelu = ops_elementwise.prelu;
    pub const geglu = ops_elementwise.geglu;
    pub const concatChannels = ops_elementwise.concatChannels;
    pub const add = ops_elementwise.add;
    pub const average = ops_elementwise.average;
    pub const scaleRepeat = ops_elementwise.scaleRepeat;
    pub const embedTokens = ops_embedding.embedTokens;
    pub const gatherTokens = ops_embedding.gatherTokens;
    pub const sinusoidalEmbedding = ops_embedding.sinusoidalEmbedding;
    pub const latentStep = ops_sampler.latentStep;
    pub const maskBlend = ops_sampler.maskBlend;
    pub const philoxNormal = ops_sampler.philoxNormal;
    pub const toRgb = ops_sampler.toRgb;

    // --- internal ---

    fn makeStream(cuda: *Cuda) Error!drivers.Stream {
        var stream: ?drivers.Stream = null;
        const result = cuda.driver.cuStreamCreate(&stream, drivers.stream_non_blocking);
        try cuda.check(.cuStreamCreate, result, "creating a stream");
        return stream.?;
    }

    fn functionOf(cuda: *Cuda, name: [:0]const u8) Error!Function {
        for (cuda.function_names[0..cuda.function_count], 0..) |known, i| {
            if (known == name.ptr) return cuda.functions[i];
        }
        assert(cuda.function_count < function_count_max);
        const d = cuda.driver;
        var found: ?drivers.Function = null;
        const looked_up = d.cuModuleGetFunction(&found, cuda.module, name);
        try cuda.check(.cuModuleGetFunction, looked_up, name);
        var function: Function = .{ .handle = found.?, .ptx_version = 0 };
        try cuda.allowSharedMemory(function.handle, name);
        const version = d.cuFuncGetAttribute(&function.ptx_version, .ptx_version, function.handle);
        try cuda.check(.cuFuncGetAttribute, version, name);
        cuda.function_names[cuda.function_count] = name.ptr;
        cuda.functions[cuda.function_count] = function;
        cuda.function_count += 1;
        return function;
    }

    /// More than 48 KiB of dynamic shared memory must be asked for; how much there is beside the
    /// kernel's own differs from GPU to GPU.
    fn allowSharedMemory(cuda: *Cuda, function: drivers.Function, name: []const u8) Error!void {
        const d = cuda.driver;
        var most: c_int = 0;
        var own: c_int = 0;
        const optin: drivers.DeviceAttribute = .max_shared_memory_per_block_optin;
        const most_read = d.cuDeviceGetAttribute(&most, optin, cuda.device);
        try cuda.check(.cuDeviceGetAttribute, most_read, name);
        const own_read = d.cuFuncGetAttribute(&own, .shared_size_bytes, function);
        try cuda.check(.cuFuncGetAttribute, own_read, name);
        const attribute: drivers.FunctionAttribute = .max_dynamic_shared_size_bytes;
        const set = d.cuFuncSetAttribute(function, attribute, most - own);
        try cuda.check(.cuFuncSetAttribute, set, name);
    }
};

/// Numbers written without a type have none here: a kernel's argument must say its own.
fn fieldTypes(comptime Args: type) [@typeInfo(Args).@"struct".fields.len]type {
    const fields = @typeInfo(Args).@"struct".fields;
    var types: [fields.len]type = undefined;
    for (&types, fields) |*T, field| {
        if (field.type == comptime_int or field.type == comptime_float) {
            @compileError("A kernel's argument needs a type, as in @as(u32, 1).");
        }
        T.* = field.type;
    }
    return types;
}

test {
    std.testing.refAllDecls(Cuda);
    _ = @import("cuda/attention_large.zig");
    _ = @import("cuda/autotune.zig");
    _ = @import("cuda/conv.zig");
    _ = dependent_launches;
    _ = @import("cuda/gemm.zig");
    _ = @import("cuda/gpu.zig");
    _ = @import("cuda/graph_key.zig");
    _ = @import("cuda/linear_geglu.zig");
    _ = linear_rows;
    _ = @import("cuda/matmul_cascaded.zig");
    _ = @import("cuda/measure.zig");
    _ = @import("cuda/random_weights.zig");
    _ = @import("cuda/sdpa.zig");
    _ = @import("cuda/weights.zig");
    _ = ops_attention;
    _ = ops_convolution;
    _ = ops_cross_attention;
    _ = ops_elementwise;
    _ = ops_embedding;
    _ = @import("cuda/linear_int8.zig");
    _ = ops_geglu;
    _ = ops_int8;
    _ = ops_norm;
    _ = ops_product;
    _ = ops_sampler;
    _ = @import("cuda/ops_widen.zig");
}
