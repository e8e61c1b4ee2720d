//! Matrix products by cuBLASLt: out = activation(scale * x * w^T + bias), or with a residual,
//! out = scale * x * w^T + residual + bias; row-major, 16-bit or f32, sums in f32; or the sums of
//! int8 products in int32. How a problem is
//! computed is decided at its first use: by the cache file, by measuring, or (while a graph is
//! captured) by the library's own guess; it then stays, so that results keep their bits.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const AlgorithmCache = @import("autotune.zig").AlgorithmCache;
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const DType = @import("../../tensor.zig").DType;
const lt = @import("../../nvidia/cublaslt.zig");
const drivers = @import("../../nvidia/driver.zig");
const plans = @import("gemm/plan.zig");
const Address = drivers.Address;
const Plan = plans.Plan;
const Waits = @import("waits.zig").Waits;

pub const Error = error{ GpuFailed, Cancelled };

/// What follows the product inside the library; its GELU is the one by tanh.
pub const Activation = enum { none, gelu_tanh };

/// Steps from one product of a batch to the next, in elements; 0 for an operand they share.
pub const Batch = struct {
    count: u32,
    x_step: u64,
    w_step: u64,
    out_step: u64,
    residual_step: u64 = 0,
};

/// One product. Strides are elements from one row to the next, 0 for rows without gaps.
pub const Call = struct {
    /// out is (m, n), x is (m, k).
    m: u32,
    n: u32,
    k: u32,
    /// x and w: f16, bf16 or i8 (f32 is possible, and slow).
    input: DType,
    /// out, bias and residual: the same as `input`, or f32; i32 for i8, which has `out` alone.
    output: DType,
    out: Address,
    out_stride: u64 = 0,
    x: Address,
    x_stride: u64 = 0,
    w: Address,
    w_stride: u64 = 0,
    /// Of w: (n, k) as linear layers keep it, or (k, n).
    w_order: enum { out_in, in_out } = .out_in,
    /// (n), 0 for none.
    bias: Address = 0,
    /// (m, n), 0 for none; may be `out` itself.
    residual: Address = 0,
    residual_stride: u64 = 0,
    scale: f32 = 1,
    activation: Activation = .none,
    batch: ?Batch = null,
};

pub const Options = struct {
    driver: *const drivers.Driver,
    library: *const lt.CublasLt,
    algorithms: *AlgorithmCache,
    diagnostics: *Diagnostics,
    /// Device memory for the library's own use, one size for all; products use it one after the
    /// other on one stream.
    workspace: Address,
    workspace_bytes: usize,
    /// False takes the library's first guess for what the cache file does not know.
    may_measure: bool = true,
    /// What ends the wait for a measurement; null waits on.
    waits: ?*const Waits = null,
};

/// The products of one rank: used by one thread at a time, in the context it was opened in.
pub const Matmul = struct {
    gpa: Allocator,
    options: Options,
    handle: lt.Handle,
    plans: std.AutoHashMapUnmanaged(plans.Problem, Plan) = .empty,

    pub fn open(gpa: Allocator, options: Options) Error!Matmul {
        assert(options.workspace % 256 == 0);
        var handle: ?lt.Handle = null;
        const status = options.library.cublasLtCreate(&handle);
        if (status != .success) return options.diagnostics.fail(
            error.GpuFailed,
            "{f}, while starting cuBLASLt.",
            .{options.library.callError(.cublasLtCreate, status)},
        );
        return .{ .gpa = gpa, .options = options, .handle = handle.? };
    }

    pub fn close(matmul: *Matmul) void {
        var all = matmul.plans.valueIterator();
        while (all.next()) |plan| plan.deinit(matmul.options.library);
        matmul.plans.deinit(matmul.gpa);
        _ = matmul.options.library.cublasLtDestroy(matmul.handle);
    }

    /// Queues a product on `stream`. The first use of a problem may wait for the stream.
    pub fn run(matmul: *Matmul, stream: drivers.Stream, call: Call) Error!void {
        const full = withStrides(call);
        const problem: plans.Problem = .of(full);
        const plan = matmul.plans.getPtr(problem) orelse try matmul.add(stream, problem, full);
        const options = matmul.options;
        plan.run(&options, matmul.handle, stream, full, &plan.algo) catch {
            return matmul.failRefused(problem);
        };
    }

    // --- internal ---

    fn add(
        matmul: *Matmul,
        stream: drivers.Stream,
        problem: plans.Problem,
        call: Call,
    ) Error!*Plan {
        const library = matmul.options.library;
        const made = plans.make(&matmul.options, matmul.handle, stream, problem, call);
        var plan = made catch |err| return switch (err) {
            error.Cancelled, error.GpuFailed => |stopped| stopped,
            error.OutOfMemory => matmul.failMemory(),
            error.Refused => matmul.failRefused(problem),
        };
        errdefer plan.deinit(library);
        matmul.plans.put(matmul.gpa, problem, plan) catch return matmul.failMemory();
        return matmul.plans.getPtr(problem).?;
    }

    fn failRefused(matmul: *Matmul, problem: plans.Problem) Error {
        return matmul.options.diagnostics.fail(
            error.GpuFailed,
            "{f}, in a matrix product of {d} x {d} x {d} in {s}.",
            .{
                lt.CublasLt.lastRefused(),
                problem.m,
                problem.n,
                problem.k,
                @tagName(problem.input),
            },
        );
    }

    fn failMemory(matmul: *Matmul) Error {
        const sentence = "Host memory ran out while a matrix product was prepared.";
        return matmul.options.diagnostics.fail(error.GpuFailed, sentence, .{});
    }
};

/// The call with every stride and step spelled out, and checked.
fn withStrides(call: Call) Call {
    assert(call.m > 0 and call.n > 0 and call.k > 0);
    switch (call.input) {
        .f16, .bf16, .f32 => assert(call.output == call.input or call.output == .f32),
        .i8 => {
            assert(call.output == .i32 and call.w_order == .out_in and call.scale == 1);
            assert(call.bias == 0 and call.residual == 0 and call.activation == .none);
        },
        else => unreachable,
    }
    // The library would apply the activation after the residual.
    assert(call.activation == .none or call.residual == 0);
    var full = call;
    const w_row = if (call.w_order == .out_in) call.k else call.n;
    if (full.out_stride == 0) full.out_stride = call.n;
    if (full.x_stride == 0) full.x_stride = call.k;
    if (full.w_stride == 0) full.w_stride = w_row;
    if (full.residual_stride == 0) full.residual_stride = call.n;
    assert(full.out_stride >= call.n);
    assert(full.x_stride >= call.k);
    assert(full.w_stride >= w_row);
    assert(full.residual_stride >= call.n);
    return full;
}
