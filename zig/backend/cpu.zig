//! The CPU backend: each operation of `backend.zig` becomes arguments for a kernel, cut into tasks
//! that a pool of threads shares. Arithmetic lives in `cpu/kernels/`, compiled once per
//! instruction
//! set; nothing here computes more than a handful of numbers, and nothing is allocated per
//! operation.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const arguments = @import("cpu/arguments.zig");
const dispatch = @import("cpu/dispatch.zig");
const FiniteCheck = @import("options.zig").FiniteCheck;
pub const merge = @import("cpu/merge.zig");
pub const Int8Maker = @import("cpu/int8_maker.zig").Int8Maker;
pub const rates = @import("cpu/rates.zig");
pub const RankFibers = @import("cpu/rank_fibers.zig").RankFibers;
const int8_dispatch = @import("cpu/int8_dispatch.zig");
const ThreadPool = @import("cpu/thread_pool.zig").ThreadPool;
const ops_attention = @import("cpu/ops_attention.zig");
const ops_elementwise = @import("cpu/ops_elementwise.zig");
const ops_int8 = @import("cpu/ops_int8.zig");
const ops_norm = @import("cpu/ops_norm.zig");
const ops_product = @import("cpu/ops_product.zig");
const ops_winograd = @import("cpu/ops_winograd.zig");
const huge_pages = @import("../system/huge_pages.zig");

pub const InstructionSet = dispatch.InstructionSet;
pub const Int8Set = int8_dispatch.Int8Set;

/// Precision of GEMMs, convolutions and attention. `bf16`: operands are rounded to bf16 while they
/// are packed, accumulation is f32; everything else stays f32.
/// `int8`: the UNet's linear layers in int8 (`weights/int8.zig`), the others in bf16 where the CPU
/// has it, else in f32.
pub const Compute = enum(u32) { f32 = 0, bf16 = 1, int8 = 2 };

/// Partial sums of one group norm: slabs * groups * 2.
pub const partial_count_max = 64 * 1024;

pub const Options = struct {
    /// Threads of this rank, the caller included; at least 1.
    thread_count: u32,
    /// Instruction set; null: the best of this machine for `compute`.
    instruction_set: ?InstructionSet = null,
    compute: Compute = .f32,
    /// Of int8 products; null: the best of this machine.
    int8_set: ?Int8Set = null,
    /// The rank's fiber, where ranks share cores.
    fiber_slot: ?FiberSlot = null,
    /// Checked between tasks: when set, operations return `error.Cancelled`.
    cancelled: *const std.atomic.Value(bool),
};

pub const FiberSlot = struct { fibers: *RankFibers, rank: usize };

/// One rank's CPU: used by one thread at a time.
pub const Cpu = struct {
    gpa: Allocator,
    kernels: *const arguments.Kernels,
    int8: *const arguments.Int8Kernels,
    instruction_set: InstructionSet,
    int8_set: Int8Set,
    pool: ThreadPool,
    fiber_slot: ?FiberSlot,
    reduction_workspace: []f64,
    /// Answers of the checks for finite numbers.
    are_finite: std.EnumArray(FiniteCheck, bool) = .initFill(true),
    /// Whether convolutions have fewer multiplications where they can: other bits, larger errors.
    uses_winograd: bool = false,
    /// Pages that are not used cost nothing. Empty where convolutions are always direct: with
    /// products in bf16, and for ranks that share cores.
    winograd_room: []align(64) u8,

    pub fn init(gpa: Allocator, io: Io, options: Options) !*Cpu {
        const set = options.instruction_set orelse switch (options.compute) {
            .f32 => dispatch.best(),
            .bf16 => dispatch.bestBf16() orelse return error.UnsupportedInstructionSet,
            .int8 => dispatch.bestBf16() orelse dispatch.best(),
        };
        const kernels = dispatch.kernels(set) orelse return error.UnsupportedInstructionSet;
        const int8_set = options.int8_set orelse int8_dispatch.best();
        const int8 = int8_dispatch.kernels(int8_set) orelse return error.UnsupportedInstructionSet;
        const cpu = try gpa.create(Cpu);
        errdefer gpa.destroy(cpu);
        cpu.* = .{
            .gpa = gpa,
            .kernels = kernels,
            .int8 = int8,
            .int8_set = int8_set,
            .instruction_set = set,
            .pool = undefined,
            .fiber_slot = options.fiber_slot,
            .reduction_workspace = try gpa.alloc(f64, partial_count_max),
            .winograd_room = &.{},
        };
        errdefer gpa.free(cpu.reduction_workspace);
        if (options.compute == .f32 and options.fiber_slot == null) {
            cpu.winograd_room = try huge_pages.alloc(gpa, ops_winograd.room_bytes);
        }
        errdefer huge_pages.free(gpa, cpu.winograd_room);
        try cpu.pool.init(gpa, io, .{
            .thread_count = options.thread_count,
            .workspace_bytes = @max(kernels.workspace_bytes, int8.workspace_bytes),
            .is_fiber = options.fiber_slot != null,
            .cancelled = options.cancelled,
        });
        if (options.fiber_slot) |slot| slot.fibers.pools[slot.rank] = &cpu.pool;
        return cpu;
    }

    pub fn deinit(cpu: *Cpu) void {
        cpu.pool.deinit();
        cpu.gpa.free(cpu.reduction_workspace);
        huge_pages.free(cpu.gpa, cpu.winograd_room);
        cpu.gpa.destroy(cpu);
    }

    pub const linear = ops_product.linear;
    pub const linearGeglu = ops_product.linearGeglu;
    pub const quantizeRows = ops_int8.quantizeRows;
    pub const conv2d = ops_product.conv2d;
    pub const attention = ops_attention.attention;
    pub const groupNormStats = ops_norm.groupNormStats;
    pub const combineStatistics = ops_norm.combineStatistics;
    pub const groupNormApply = ops_norm.groupNormApply;
    pub const layerNorm = ops_norm.layerNorm;
    pub const upload = ops_elementwise.upload;
    pub const download = ops_elementwise.download;
    pub const copy = ops_elementwise.copy;
    pub const copyRows = ops_elementwise.copyRows;
    pub const extrapolateRows = ops_elementwise.extrapolateRows;
    pub const quantizeChange = ops_elementwise.quantizeChange;
    pub const applyChange = ops_elementwise.applyChange;
    pub const isFinite = ops_elementwise.isFinite;
    pub const beginFiniteCheck = ops_elementwise.beginFiniteCheck;
    pub const endFiniteCheck = ops_elementwise.endFiniteCheck;
    pub const activate = ops_elementwise.activate;
    pub const prelu = ops_elementwise.prelu;
    pub const geglu = ops_elementwise.geglu;
    pub const concatChannels = ops_elementwise.concatChannels;
    pub const add = ops_elementwise.add;
    pub const average = ops_elementwise.average;
    pub const scaleRepeat = ops_elementwise.scaleRepeat;
    pub const embedTokens = ops_elementwise.embedTokens;
    pub const gatherTokens = ops_elementwise.gatherTokens;
    pub const sinusoidalEmbedding = ops_elementwise.sinusoidalEmbedding;
    pub const latentStep = ops_elementwise.latentStep;
    pub const maskBlend = ops_elementwise.maskBlend;
    pub const philoxNormal = ops_elementwise.philoxNormal;
    pub const toRgb = ops_elementwise.toRgb;
};

pub const Detected = struct {
    name_buffer: [48]u8,
    name_len: usize,
    best: InstructionSet,
    has_bf16: bool,

    /// The CPU's model name, "unknown" where it does not report one.
    pub fn name(detected: *const Detected) []const u8 {
        return detected.name_buffer[0..detected.name_len];
    }
};

/// Facts about this machine.
pub fn detect() Detected {
    var buffer: [48]u8 = undefined;
    const name = dispatch.processorName(&buffer);
    var detected: Detected = .{
        .name_buffer = undefined,
        .name_len = name.len,
        .best = dispatch.best(),
        .has_bf16 = dispatch.bestBf16() != null,
    };
    @memcpy(detected.name_buffer[0..name.len], name);
    return detected;
}

test {
    _ = dispatch;
    _ = int8_dispatch;
    _ = @import("cpu/tests/int8.zig");
    _ = @import("cpu/blocks.zig");
    _ = @import("cpu/thread_pool.zig");
    _ = rates;
    _ = ops_product;
    _ = @import("cpu/tests/merge.zig");
    _ = @import("cpu/tests/product.zig");
    _ = @import("cpu/tests/winograd.zig");
    _ = @import("cpu/tests/rank_fibers.zig");
    _ = @import("cpu/tests/attention.zig");
    _ = @import("cpu/tests/norm.zig");
    _ = @import("cpu/tests/change.zig");
    _ = @import("cpu/tests/elementwise.zig");
}
