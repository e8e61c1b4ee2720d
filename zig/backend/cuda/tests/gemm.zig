//! Matrix products through the product's own wrapper on the emulated cuBLASLt, against the
//! definition in f64, and what that library refuses.

const std = @import("std");
const DType = @import("../../../tensor.zig").DType;
const lt = @import("../../../nvidia/cublaslt.zig");
const drivers = @import("../../../nvidia/driver.zig");
const library_fixture = @import("../../../emulator/library_fixture.zig");
const matmuls = @import("../gemm.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const LibraryFixture = library_fixture.LibraryFixture;
const Matmul = matmuls.Matmul;
const ok = fixtures.ok;

fn open(l: *LibraryFixture, may_measure: bool) !Matmul {
    return Matmul.open(std.testing.allocator, .{
        .driver = &l.fixture.driver,
        .library = &l.libraries.cublaslt,
        .algorithms = l.algorithms,
        .diagnostics = &l.diagnostics,
        .workspace = l.workspace,
        .workspace_bytes = library_fixture.workspace_bytes,
        .may_measure = may_measure,
    });
}

const Operands = struct { x: []f32, w: []f32, bias: []f32 = &.{}, residual: []f32 = &.{} };

/// A call of random shape, strides and extras, and its operands as the device has them.
fn draw(l: *LibraryFixture, random: std.Random) !struct { matmuls.Call, Operands } {
    const input: DType = if (random.boolean()) .f16 else .bf16;
    var call: matmuls.Call = .{
        .m = random.intRangeAtMost(u32, 1, 70),
        .n = random.intRangeAtMost(u32, 1, 50),
        .k = random.intRangeAtMost(u32, 1, 90),
        .input = input,
        .output = if (random.uintLessThan(u32, 4) == 0) .f32 else input,
        .w_order = if (random.boolean()) .out_in else .in_out,
        .scale = if (random.boolean()) 1 else 0.3,
        .out = 0,
        .x = 0,
        .w = 0,
    };
    const gap = random.uintLessThan(u64, 3) * 4;
    call.x_stride = call.k + gap;
    call.w_stride = (if (call.w_order == .out_in) call.k else call.n) + gap;
    call.out_stride = call.n + gap;
    call.residual_stride = call.n + 2 * gap;
    const w_rows = if (call.w_order == .out_in) call.n else call.k;
    var batch: matmuls.Batch = .{
        .count = if (random.boolean()) 1 else random.intRangeAtMost(u32, 2, 4),
        .x_step = call.m * call.x_stride + 8,
        .w_step = if (random.boolean()) 0 else w_rows * call.w_stride,
        .out_step = call.m * call.out_stride,
        .residual_step = call.m * call.residual_stride,
    };
    if (batch.count > 1) call.batch = batch else batch.count = 1;
    var operands: Operands = undefined;
    call.x, operands.x = try l.random(random, call.input, batch.count * batch.x_step);
    const w_count = (batch.count - 1) * batch.w_step + w_rows * call.w_stride;
    call.w, operands.w = try l.random(random, call.input, w_count);
    operands.bias = &.{};
    operands.residual = &.{};
    if (random.boolean()) {
        call.bias, operands.bias = try l.random(random, call.output, call.n);
    }
    const extra = random.uintLessThan(u32, 3);
    if (extra == 0) call.activation = .gelu_tanh;
    const out_count = batch.count * batch.out_step;
    if (extra == 1) {
        const count = batch.count * batch.residual_step;
        call.residual, operands.residual = try l.random(random, call.output, count);
    }
    const out_bytes = out_count * call.output.size();
    call.out = try l.fixture.alloc(u8, out_bytes);
    return .{ call, operands };
}

/// Element (batch, row, column) as the definition has it.
fn expected(call: matmuls.Call, o: Operands, b: usize, row: usize, column: usize) f64 {
    const batch: matmuls.Batch = call.batch orelse
        .{ .count = 1, .x_step = 0, .w_step = 0, .out_step = 0 };
    var sum: f64 = 0;
    for (0..call.k) |depth| {
        const x = o.x[b * batch.x_step + row * call.x_stride + depth];
        const w_at = if (call.w_order == .out_in)
            column * call.w_stride + depth
        else
            depth * call.w_stride + column;
        sum += @as(f64, x) * o.w[b * batch.w_step + w_at];
    }
    sum *= call.scale;
    if (o.residual.len > 0) {
        sum += o.residual[b * batch.residual_step + row * call.residual_stride + column];
    }
    if (o.bias.len > 0) sum += o.bias[column];
    if (call.activation == .gelu_tanh) {
        const inner = @sqrt(2.0 / std.math.pi) * (sum + 0.044715 * sum * sum * sum);
        sum = 0.5 * sum * (1 + std.math.tanh(inner));
    }
    return sum;
}

fn expectResult(l: *LibraryFixture, call: matmuls.Call, operands: Operands) !void {
    const batch: matmuls.Batch = call.batch orelse
        .{ .count = 1, .x_step = 0, .w_step = 0, .out_step = call.m * call.out_stride };
    const out = try l.download(call.output, call.out, batch.count * batch.out_step);
    const a = l.arena.allocator();
    var ours: std.ArrayList(f32) = .empty;
    var theirs: std.ArrayList(f64) = .empty;
    for (0..batch.count) |b| for (0..call.m) |row| {
        const line = out[b * batch.out_step + row * call.out_stride ..][0..call.out_stride];
        for (line[0..call.n], 0..) |value, column| {
            try ours.append(a, value);
            try theirs.append(a, expected(call, operands, b, row, column));
        }
        // Between rows nothing is written: the memory is as poisoned as it came.
        for (line[call.n..]) |value| try std.testing.expect(std.math.isNan(value));
    };
    try library_fixture.expectClose(call.output, ours.items, theirs.items);
}

test "products equal the definition: shapes, strides, orders, batches, extras, types" {
    var l: LibraryFixture = try .init(1, null);
    defer l.deinit();
    var matmul = try open(&l, true);
    defer matmul.close();
    var prng: std.Random.DefaultPrng = .init(11);
    for (0..80) |_| {
        const call, const operands = try draw(&l, prng.random());
        try matmul.run(l.fixture.stream, call);
        try expectResult(&l, call, operands);
    }
}

test "a residual may be the output itself, however the algorithm is found" {
    var l: LibraryFixture = try .init(2, null);
    defer l.deinit();
    var prng: std.Random.DefaultPrng = .init(12);
    for ([_]bool{ true, false }) |may_measure| {
        var matmul = try open(&l, may_measure);
        defer matmul.close();
        const x, const x_values = try l.random(prng.random(), .f16, 24 * 40);
        const w, const w_values = try l.random(prng.random(), .f16, 16 * 40);
        const out, const residual_values = try l.random(prng.random(), .f16, 24 * 16);
        var call: matmuls.Call = .{
            .m = 24,
            .n = 16,
            .k = 40,
            .input = .f16,
            .output = .f16,
            .out = out,
            .x = x,
            .w = w,
            .residual = out,
        };
        try matmul.run(l.fixture.stream, call);
        call.out_stride = 16;
        call.residual_stride = 16;
        call.x_stride = 40;
        call.w_stride = 40;
        const operands: Operands = .{ .x = x_values, .w = w_values, .residual = residual_values };
        try expectResult(&l, call, operands);
    }
}

test "a choice is measured once, kept in the file, and taken from there" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [128]u8 = undefined;
    const folder = try std.fmt.bufPrint(&buffer, ".zig-cache/tmp/{s}", .{tmp.sub_path});
    var prng: std.Random.DefaultPrng = .init(13);
    {
        var l: LibraryFixture = try .init(3, folder);
        defer l.deinit();
        var matmul = try open(&l, true);
        defer matmul.close();
        const call, const operands = try draw(&l, prng.random());
        try matmul.run(l.fixture.stream, call);
        try matmul.run(l.fixture.stream, call);
        try expectResult(&l, call, operands);
        try std.testing.expectEqual(@as(usize, 1), l.algorithms.entries.count());
        l.algorithms.save();
    }
    prng = .init(13);
    var l: LibraryFixture = try .init(3, folder);
    defer l.deinit();
    try std.testing.expectEqual(@as(usize, 1), l.algorithms.entries.count());
    const problem = l.algorithms.entries.keys()[0];
    var matmul = try open(&l, false);
    defer matmul.close();
    const call, const operands = try draw(&l, prng.random());
    try matmul.run(l.fixture.stream, call);
    try expectResult(&l, call, operands);
    const words = l.algorithms.get(problem).?;
    var plans = matmul.plans.valueIterator();
    const id = plans.next().?.algo.data[1];
    const written = try std.fmt.parseInt(u64, words[17..33], 16);
    try std.testing.expectEqual(written, id);
}

test "while a graph is captured nothing is measured, and the graph computes the product" {
    var l: LibraryFixture = try .init(4, null);
    defer l.deinit();
    const d = &l.fixture.driver;
    var matmul = try open(&l, true);
    defer matmul.close();
    var prng: std.Random.DefaultPrng = .init(14);
    const call, const operands = try draw(&l, prng.random());
    try ok(d.cuStreamBeginCapture_v2(l.fixture.stream, .thread_local));
    try matmul.run(l.fixture.stream, call);
    var graph: ?drivers.Graph = null;
    try ok(d.cuStreamEndCapture(l.fixture.stream, &graph));
    try std.testing.expectEqual(@as(usize, 0), l.algorithms.entries.count());
    var exec: ?drivers.GraphExec = null;
    try ok(d.cuGraphInstantiateWithFlags(&exec, graph.?, 0));
    defer _ = d.cuGraphExecDestroy(exec.?);
    try ok(d.cuGraphDestroy(graph.?));
    try ok(d.cuGraphLaunch(exec.?, l.fixture.stream));
    try expectResult(&l, call, operands);
}

test "memory outside an allocation ends in the driver's error, not in a wrong number" {
    var l: LibraryFixture = try .init(5, null);
    defer l.deinit();
    l.fixture.emulator.bxl_emulator_set_quiet(true);
    var matmul = try open(&l, false);
    defer matmul.close();
    var prng: std.Random.DefaultPrng = .init(15);
    var call, _ = try draw(&l, prng.random());
    call.batch = null;
    // One row more than there is.
    call.out = try l.fixture.alloc(u8, (call.m - 1) * call.out_stride * call.output.size());
    try matmul.run(l.fixture.stream, call);
    try l.fixture.expectFailure(.illegal_address, &.{ "cublasLtMatmul", "D" });
}

/// A product of 16 x 16 x 16 straight through the table.
const Direct = struct {
    l: *LibraryFixture,
    handle: lt.Handle,
    desc: lt.Desc,
    layouts: [4]lt.Layout,
    memory: usize,

    fn init(l: *LibraryFixture, dtypes: [4]lt.DataType) !Direct {
        const t = &l.libraries.cublaslt;
        var handle: ?lt.Handle = null;
        try done(t.cublasLtCreate(&handle));
        var desc: ?lt.Desc = null;
        try done(t.cublasLtMatmulDescCreate(&desc, .f32, .f32));
        var direct: Direct = .{
            .l = l,
            .handle = handle.?,
            .desc = desc.?,
            .layouts = undefined,
            .memory = try l.fixture.alloc(u8, 1 << 16),
        };
        for (&direct.layouts, dtypes) |*layout, dtype| {
            var made: ?lt.Layout = null;
            try done(t.cublasLtMatrixLayoutCreate(&made, dtype, 16, 16, 16));
            layout.* = made.?;
        }
        return direct;
    }

    const Change = struct { a: usize = 0, d: usize = 0, bytes: usize = 1 << 12 };

    fn run(direct: *const Direct, algo: ?*const lt.Algo, change: Change) lt.Status {
        const one: f32 = 1;
        const zero: f32 = 0;
        const at = direct.memory;
        const l = &direct.layouts;
        return direct.l.libraries.cublaslt.cublasLtMatmul(
            direct.handle,
            direct.desc,
            &one,
            at + change.a,
            l[0],
            at + 4096,
            l[1],
            &zero,
            at + 8192,
            l[2],
            if (change.d == std.math.maxInt(usize)) 0 else at + 8192 + change.d,
            l[3],
            algo,
            direct.l.workspace,
            change.bytes,
            direct.l.fixture.stream,
        );
    }

    fn first(direct: *const Direct) !lt.HeuristicResult {
        const t = &direct.l.libraries.cublaslt;
        var preference: ?lt.Preference = null;
        try done(t.cublasLtMatmulPreferenceCreate(&preference));
        const bytes: u64 = 1 << 20;
        const set = t.cublasLtMatmulPreferenceSetAttribute;
        try done(set(preference.?, .max_workspace_bytes, &bytes, @sizeOf(u64)));
        // A value of the wrong size is refused.
        try std.testing.expectEqual(
            lt.Status.invalid_value,
            set(preference.?, .max_workspace_bytes, &bytes, @sizeOf(u32)),
        );
        var result: lt.HeuristicResult = undefined;
        var count: c_int = 0;
        const l = &direct.layouts;
        const ask = t.cublasLtMatmulAlgoGetHeuristic;
        const p = preference.?;
        const found = &result;
        const status = ask(
            direct.handle,
            direct.desc,
            l[0],
            l[1],
            l[2],
            l[3],
            p,
            1,
            @ptrCast(found),
            &count,
        );
        return if (status == .success and count == 1) result else error.Refused;
    }
};

fn done(status: lt.Status) !void {
    try std.testing.expectEqual(lt.Status.success, status);
}

test "the emulated library refuses what the real one refuses" {
    var l: LibraryFixture = try .init(6, null);
    defer l.deinit();
    const expectEqual = std.testing.expectEqual;
    const direct: Direct = try .init(&l, @splat(.f16));
    const result = try direct.first();
    try std.testing.expect(result.workspace_size > 0);
    try done(direct.run(&result.algo, .{}));
    try done(direct.run(null, .{}));
    // Addresses that the algorithm's vectors cannot read, none, and too small a workspace.
    try expectEqual(lt.Status.not_supported, direct.run(&result.algo, .{ .a = 2 }));
    try expectEqual(lt.Status.not_supported, direct.run(null, .{ .a = 1 }));
    const nowhere = std.math.maxInt(usize);
    try expectEqual(lt.Status.invalid_value, direct.run(null, .{ .d = nowhere }));
    const short: Direct.Change = .{ .bytes = result.workspace_size - 1 };
    try expectEqual(lt.Status.invalid_value, direct.run(&result.algo, short));
    const stranger: lt.Algo = .{ .data = @splat(7) };
    try expectEqual(lt.Status.invalid_value, direct.run(&stranger, .{}));
    // A bias that was never given, and an epilogue that is none.
    const t = &l.libraries.cublaslt;
    const bias: lt.Epilogue = .bias;
    try done(t.cublasLtMatmulDescSetAttribute(direct.desc, .epilogue, &bias, 4));
    try expectEqual(lt.Status.invalid_value, direct.run(null, .{}));
    const strange: lt.Epilogue = @enumFromInt(3);
    try done(t.cublasLtMatmulDescSetAttribute(direct.desc, .epilogue, &strange, 4));
    try expectEqual(lt.Status.not_supported, direct.run(null, .{}));
    // Types that no kernel takes together, and rows that overlap.
    const mixed: Direct = try .init(&l, .{ .f16, .bf16, .f16, .f16 });
    try expectEqual(lt.Status.not_supported, mixed.run(null, .{}));
    const narrow: i64 = 8;
    const plain: Direct = try .init(&l, @splat(.f16));
    try done(t.cublasLtMatrixLayoutSetAttribute(plain.layouts[3], .ld, &narrow, 8));
    try expectEqual(lt.Status.invalid_value, plain.run(null, .{}));
}
