//! Convolutions by cuDNN: out = scale * (x conv w) + bias + residual, NHWC, 16-bit with sums in
//! f32, one fused kernel where cuDNN has one. How a problem is computed is decided at its first
//! use, as in matmul.zig, and stays.

const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const AlgorithmCache = @import("autotune.zig").AlgorithmCache;
const cudnn = @import("../../nvidia/cudnn.zig");
const Diagnostics = @import("../../diagnostics.zig").Diagnostics;
const drivers = @import("../../nvidia/driver.zig");
const DType = @import("../../tensor.zig").DType;
const plans = @import("conv/plan.zig");
const Address = drivers.Address;
const Plan = plans.Plan;
const Waits = @import("waits.zig").Waits;

pub const Error = error{ GpuFailed, Cancelled };

/// One convolution with the same padding on all four sides.
pub const Call = struct {
    batch: u32,
    /// Of x.
    rows: u32,
    width: u32,
    channels: u32,
    out_channels: u32,
    /// 1 or 3, the same both ways.
    kernel: u32,
    stride: u32 = 1,
    padding: u32,
    /// f16 or bf16; of everything.
    dtype: DType,
    /// (batch, rows out, width out, out channels)
    out: Address,
    /// (batch, rows, width, channels)
    x: Address,
    /// (out channels, kernel, kernel, channels)
    w: Address,
    /// (out channels), 0 for none.
    bias: Address = 0,
    /// As `out`, 0 for none; may be `out` itself.
    residual: Address = 0,
    scale: f32 = 1,

    pub fn rowsOut(call: Call) u32 {
        return (call.rows + 2 * call.padding - call.kernel) / call.stride + 1;
    }

    pub fn widthOut(call: Call) u32 {
        return (call.width + 2 * call.padding - call.kernel) / call.stride + 1;
    }
};

/// What a call did: where the library has no fused kernel, `out` is the scaled product, and bias
/// and residual are left to the caller. The scale is never left: where it keeps results within f16,
/// the product alone would not fit.
pub const Fused = enum { everything, product_alone };

pub const Options = struct {
    driver: *const drivers.Driver,
    library: *const cudnn.Cudnn,
    algorithms: *AlgorithmCache,
    diagnostics: *Diagnostics,
    /// Device memory for the library's own use; may be the matrix products', on the same stream.
    workspace: Address,
    workspace_bytes: usize,
    /// False takes the library's first guess for what the cache file does not know.
    may_measure: bool = true,
    /// What ends the wait for a measurement; null waits on.
    waits: ?*const Waits = null,
};

/// The convolutions of one rank: used by one thread at a time, in the context it was opened in.
pub const Convolution = struct {
    gpa: Allocator,
    options: Options,
    handle: cudnn.Handle,
    stream: ?drivers.Stream = null,
    plans: std.AutoHashMapUnmanaged(plans.Problem, *Plan) = .empty,

    pub fn open(gpa: Allocator, options: Options) Error!Convolution {
        assert(options.workspace % 256 == 0);
        var handle: ?cudnn.Handle = null;
        const status = options.library.cudnnCreate(&handle);
        if (status != .success) return options.diagnostics.fail(
            error.GpuFailed,
            "{f}, while starting cuDNN.",
            .{options.library.callError(.cudnnCreate, status)},
        );
        return .{ .gpa = gpa, .options = options, .handle = handle.? };
    }

    pub fn close(convolution: *Convolution) void {
        var all = convolution.plans.valueIterator();
        while (all.next()) |plan| {
            plan.*.deinit(convolution.options.library);
            convolution.gpa.destroy(plan.*);
        }
        convolution.plans.deinit(convolution.gpa);
        _ = convolution.options.library.cudnnDestroy(convolution.handle);
    }

    /// Whether such a problem can be given to the library: its tensor-core kernels take channels in
    /// groups of 8 and addresses of 16 bytes.
    pub fn takes(call: Call) bool {
        return call.channels % 8 == 0 and call.out_channels % 8 == 0 and
            (call.x | call.w | call.out | call.bias | call.residual) % 16 == 0;
    }

    /// Queues a convolution on `stream`. The first use of a problem may wait for the stream.
    pub fn run(c: *Convolution, stream: drivers.Stream, call: Call) Error!Fused {
        assert(call.dtype == .f16 or call.dtype == .bf16);
        assert(call.rows + 2 * call.padding >= call.kernel);
        assert(call.width + 2 * call.padding >= call.kernel);
        assert(takes(call));
        if (c.stream != stream) {
            const status = c.options.library.cudnnSetStream(c.handle, stream);
            c.options.library.expect(.cudnnSetStream, status) catch {
                return c.failRefused(.of(call));
            };
            c.stream = stream;
        }
        const problem: plans.Problem = .of(call);
        const plan = c.plans.get(problem) orelse try c.add(stream, problem, call);
        plan.run(&c.options, c.handle, call) catch return c.failRefused(problem);
        return if (plan.is_fused) .everything else .product_alone;
    }

    // --- internal ---

    fn add(
        c: *Convolution,
        stream: drivers.Stream,
        problem: plans.Problem,
        call: Call,
    ) Error!*Plan {
        const plan = c.gpa.create(Plan) catch return c.failMemory();
        errdefer c.gpa.destroy(plan);
        const made = plans.make(&c.options, c.handle, stream, problem, call);
        plan.* = made catch |err| return switch (err) {
            error.Cancelled, error.GpuFailed => |stopped| stopped,
            error.OutOfMemory => c.failMemory(),
            error.Refused => c.failRefused(problem),
        };
        errdefer plan.deinit(c.options.library);
        c.plans.put(c.gpa, problem, plan) catch return c.failMemory();
        return plan;
    }

    fn failRefused(c: *Convolution, problem: plans.Problem) Error {
        const p = problem;
        return c.options.diagnostics.fail(
            error.GpuFailed,
            "{f}, in a convolution of {d} x {d} x {d} x {d} to {d} channels in {s}.",
            .{
                cudnn.Cudnn.lastRefused(),
                p.batch,
                p.rows,
                p.width,
                p.channels,
                p.out_channels,
                @tagName(p.dtype),
            },
        );
    }

    fn failMemory(c: *Convolution) Error {
        const sentence = "Host memory ran out while a convolution was prepared.";
        return c.options.diagnostics.fail(error.GpuFailed, sentence, .{});
    }
};
