//! Convolutions through the product's own wrapper on the emulated cuDNN, against the definition in
//! f64; with and without fused kernels; and what that library refuses.

const std = @import("std");
const convolutions = @import("../conv.zig");
const cudnn = @import("../../../nvidia/cudnn.zig");
const drivers = @import("../../../nvidia/driver.zig");
const dynamic = @import("../../../nvidia/dynamic.zig");
const library_path = library_fixture.library_path;
const library_fixture = @import("../../../emulator/library_fixture.zig");
const fixtures = @import("../../../emulator/fixture.zig");
const Call = convolutions.Call;
const Convolution = convolutions.Convolution;
const LibraryFixture = library_fixture.LibraryFixture;
const ok = fixtures.ok;

fn open(l: *LibraryFixture, may_measure: bool) !Convolution {
    return Convolution.open(std.testing.allocator, .{
        .driver = &l.fixture.driver,
        .library = &l.libraries.cudnn,
        .algorithms = l.algorithms,
        .diagnostics = &l.diagnostics,
        .workspace = l.workspace,
        .workspace_bytes = library_fixture.workspace_bytes,
        .may_measure = may_measure,
    });
}

const Hooks = struct {
    bxl_emulator_allow_fusion: *const fn (allowed: u32) callconv(.c) void,

    fn load() !Hooks {
        var missing: []const u8 = "";
        return dynamic.load(Hooks, dynamic.open(library_path).?, &missing);
    }
};

const Operands = struct { x: []f32, w: []f32, bias: []f32 = &.{}, residual: []f32 = &.{} };

fn outCount(call: Call) usize {
    return @as(usize, call.batch) * call.rowsOut() * call.widthOut() * call.out_channels;
}

fn draw(l: *LibraryFixture, random: std.Random) !struct { Call, Operands } {
    const kernel: u32 = if (random.boolean()) 3 else 1;
    var call: Call = .{
        .batch = random.intRangeAtMost(u32, 1, 3),
        .rows = random.intRangeAtMost(u32, 3, 9),
        .width = random.intRangeAtMost(u32, 3, 9),
        .channels = 8 * random.intRangeAtMost(u32, 1, 4),
        .out_channels = 8 * random.intRangeAtMost(u32, 1, 4),
        .kernel = kernel,
        .stride = random.intRangeAtMost(u32, 1, 2),
        .padding = if (kernel == 3) random.uintLessThan(u32, 2) else 0,
        .dtype = if (random.boolean()) .f16 else .bf16,
        .scale = if (random.boolean()) 1 else 0.6,
        .out = 0,
        .x = 0,
        .w = 0,
    };
    var operands: Operands = undefined;
    const x_count = call.batch * call.rows * call.width * call.channels;
    call.x, operands.x = try l.random(random, call.dtype, x_count);
    const w_count = call.out_channels * kernel * kernel * call.channels;
    call.w, operands.w = try l.random(random, call.dtype, w_count);
    operands.bias = &.{};
    operands.residual = &.{};
    if (random.boolean()) {
        call.bias, operands.bias = try l.random(random, call.dtype, call.out_channels);
    }
    if (random.boolean()) {
        call.residual, operands.residual = try l.random(random, call.dtype, outCount(call));
    }
    const in_place = call.residual != 0 and random.boolean();
    call.out = if (in_place) call.residual else try l.fixture.alloc(u16, outCount(call));
    return .{ call, operands };
}

/// Everything, or the product alone.
fn expectResult(l: *LibraryFixture, call: Call, o: Operands, fused: convolutions.Fused) !void {
    const out = try l.download(call.dtype, call.out, outCount(call));
    const expected = try l.arena.allocator().alloc(f64, out.len);
    for (expected, 0..) |*value, i| {
        const channel = i % call.out_channels;
        const position = i / call.out_channels;
        const column = position % call.widthOut();
        const row = position / call.widthOut() % call.rowsOut();
        const batch_index = position / call.widthOut() / call.rowsOut();
        value.* = product(call, o, .{ batch_index, row, column, channel });
        value.* *= call.scale;
        if (fused == .product_alone) continue;
        if (o.bias.len > 0) value.* += o.bias[channel];
        if (o.residual.len > 0) value.* += o.residual[i];
    }
    try library_fixture.expectClose(call.dtype, out, expected);
}

fn product(call: Call, o: Operands, at: [4]usize) f64 {
    var sum: f64 = 0;
    for (0..call.kernel) |tap_row| for (0..call.kernel) |tap_column| {
        const padded_row = at[1] * call.stride + tap_row;
        const padded_column = at[2] * call.stride + tap_column;
        if (padded_row < call.padding or padded_row - call.padding >= call.rows) continue;
        if (padded_column < call.padding or padded_column - call.padding >= call.width) continue;
        const row = padded_row - call.padding;
        const column = padded_column - call.padding;
        const x = o.x[((at[0] * call.rows + row) * call.width + column) * call.channels ..];
        const tap = (at[3] * call.kernel + tap_row) * call.kernel + tap_column;
        const w = o.w[tap * call.channels ..];
        for (x[0..call.channels], w[0..call.channels]) |a, b| sum += @as(f64, a) * b;
    };
    return sum;
}

test "convolutions equal the definition: shapes, strides, padding, bias, residual, scale" {
    var l: LibraryFixture = try .init(1, null);
    defer l.deinit();
    var prng: std.Random.DefaultPrng = .init(21);
    for ([_]bool{ true, false }) |may_measure| {
        var convolution = try open(&l, may_measure);
        defer convolution.close();
        for (0..40) |_| {
            const call, const operands = try draw(&l, prng.random());
            const fused = try convolution.run(l.fixture.stream, call);
            // cuDNN has no kernel that adds a residual and no bias.
            const is_fused = call.residual == 0 or call.bias != 0;
            try std.testing.expectEqual(is_fused, fused == .everything);
            try expectResult(&l, call, operands, fused);
        }
    }
}

test "the same layer with other addresses is the same plan, and another scale another one" {
    var l: LibraryFixture = try .init(2, null);
    defer l.deinit();
    var convolution = try open(&l, true);
    defer convolution.close();
    var prng: std.Random.DefaultPrng = .init(22);
    var call, const operands = try draw(&l, prng.random());
    for ([_]f32{ 0.5, 0.25, 2 }) |scale| {
        call.scale = scale;
        call.out = try l.fixture.alloc(u16, outCount(call));
        const fused = try convolution.run(l.fixture.stream, call);
        try expectResult(&l, call, operands, fused);
    }
    try std.testing.expectEqual(@as(u32, 3), convolution.plans.count());
    call.out = try l.fixture.alloc(u16, outCount(call));
    const fused = try convolution.run(l.fixture.stream, call);
    try expectResult(&l, call, operands, fused);
    try std.testing.expectEqual(@as(u32, 3), convolution.plans.count());
}

test "the residual is added before the bias where that has a kernel, else after it" {
    var l: LibraryFixture = try .init(7, null);
    defer l.deinit();
    const hooks: Hooks = try .load();
    defer hooks.bxl_emulator_allow_fusion(2);
    var prng: std.Random.DefaultPrng = .init(27);
    for ([_]u32{ 2, 1 }) |allowed| {
        hooks.bxl_emulator_allow_fusion(allowed);
        var convolution = try open(&l, true);
        defer convolution.close();
        for (0..10) |_| {
            const call, const operands = try draw(&l, prng.random());
            if (call.bias == 0 or call.residual == 0) continue;
            const fused = try convolution.run(l.fixture.stream, call);
            try std.testing.expectEqual(convolutions.Fused.everything, fused);
            try expectResult(&l, call, operands, fused);
        }
        var plans = convolution.plans.valueIterator();
        try std.testing.expect(convolution.plans.count() > 0);
        while (plans.next()) |plan| {
            try std.testing.expectEqual(allowed == 2, plan.*.graph.order == .residual_first);
        }
    }
}

test "products that f16 cannot hold are scaled before they are rounded, fused or not" {
    var l: LibraryFixture = try .init(8, null);
    defer l.deinit();
    const hooks: Hooks = try .load();
    defer hooks.bxl_emulator_allow_fusion(2);
    var x: [64 * 8]f32 = @splat(64);
    var w: [8 * 8]f32 = @splat(192);
    const zeros: [64 * 8]f32 = @splat(0);
    var residual = zeros;
    // 8 * 64 * 192 = 98304 is beyond 65504.
    for ([_]u32{ 2, 1, 0 }) |allowed| {
        hooks.bxl_emulator_allow_fusion(allowed);
        var convolution = try open(&l, true);
        defer convolution.close();
        const out = try l.fixture.alloc(u16, 64 * 8);
        _ = try convolution.run(l.fixture.stream, .{
            .batch = 1,
            .rows = 8,
            .width = 8,
            .channels = 8,
            .out_channels = 8,
            .kernel = 1,
            .padding = 0,
            .dtype = .f16,
            .out = out,
            .x = try l.upload(.f16, &x),
            .w = try l.upload(.f16, &w),
            .bias = try l.upload(.f16, residual[0..8]),
            .residual = try l.upload(.f16, &residual),
            .scale = 1.0 / 64.0,
        });
        for (try l.download(.f16, out, 64 * 8)) |value| {
            try std.testing.expectEqual(98304.0 / 64.0, value);
        }
    }
}

test "a residual of its own does not keep a convolution from being measured" {
    var l: LibraryFixture = try .init(9, null);
    defer l.deinit();
    var convolution = try open(&l, true);
    defer convolution.close();
    // No room for a copy of the result.
    convolution.options.workspace_bytes = 0;
    var prng: std.Random.DefaultPrng = .init(29);
    while (l.algorithms.entries.count() == 0) {
        const call, _ = try draw(&l, prng.random());
        if (call.residual == 0 or call.residual == call.out or call.bias == 0) continue;
        _ = try convolution.run(l.fixture.stream, call);
        try std.testing.expectEqual(@as(usize, 1), l.algorithms.entries.count());
    }
}

test "where nothing fuses, the product alone is left to the caller, who is told" {
    var l: LibraryFixture = try .init(3, null);
    defer l.deinit();
    const hooks: Hooks = try .load();
    hooks.bxl_emulator_allow_fusion(0);
    defer hooks.bxl_emulator_allow_fusion(2);
    var convolution = try open(&l, true);
    defer convolution.close();
    var prng: std.Random.DefaultPrng = .init(23);
    var bare_count: u32 = 0;
    for (0..20) |_| {
        const call, const operands = try draw(&l, prng.random());
        if (call.out == call.residual) continue;
        const fused = try convolution.run(l.fixture.stream, call);
        const is_bare = call.bias == 0 and call.residual == 0;
        bare_count += @intFromBool(is_bare);
        try std.testing.expectEqual(is_bare, fused == .everything);
        try expectResult(&l, call, operands, fused);
    }
    try std.testing.expect(bare_count > 0);
}

test "a choice is kept in the file and taken from there" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [128]u8 = undefined;
    const folder = try std.fmt.bufPrint(&buffer, ".zig-cache/tmp/{s}", .{tmp.sub_path});
    for ([_]bool{ true, false }) |is_first| {
        var prng: std.Random.DefaultPrng = .init(24);
        var l: LibraryFixture = try .init(4, folder);
        defer l.deinit();
        var convolution = try open(&l, is_first);
        defer convolution.close();
        if (!is_first) {
            // The third of those that work: only its name in the file leads there.
            try std.testing.expectEqual(@as(usize, 1), l.algorithms.entries.count());
            l.algorithms.entries.values()[0] = "engine 4";
        }
        const call, const operands = try draw(&l, prng.random());
        const fused = try convolution.run(l.fixture.stream, call);
        try expectResult(&l, call, operands, fused);
        const name = l.algorithms.entries.values()[0];
        try std.testing.expect(std.mem.startsWith(u8, name, "engine "));
        if (is_first) l.algorithms.save();
    }
}

test "a convolution can be captured at its first use" {
    var l: LibraryFixture = try .init(5, null);
    defer l.deinit();
    const d = &l.fixture.driver;
    var convolution = try open(&l, true);
    defer convolution.close();
    var prng: std.Random.DefaultPrng = .init(25);
    const call, const operands = try draw(&l, prng.random());
    try ok(d.cuStreamBeginCapture_v2(l.fixture.stream, .thread_local));
    const fused = try convolution.run(l.fixture.stream, call);
    var graph: ?drivers.Graph = null;
    try ok(d.cuStreamEndCapture(l.fixture.stream, &graph));
    try std.testing.expectEqual(@as(usize, 0), l.algorithms.entries.count());
    var exec: ?drivers.GraphExec = null;
    try ok(d.cuGraphInstantiateWithFlags(&exec, graph.?, 0));
    defer _ = d.cuGraphExecDestroy(exec.?);
    try ok(d.cuGraphDestroy(graph.?));
    try ok(d.cuGraphLaunch(exec.?, l.fixture.stream));
    try expectResult(&l, call, operands, fused);
}

test "the emulated library refuses channels and addresses that tensor cores cannot take" {
    var l: LibraryFixture = try .init(6, null);
    defer l.deinit();
    var convolution = try open(&l, false);
    defer convolution.close();
    var prng: std.Random.DefaultPrng = .init(26);
    var call, _ = try draw(&l, prng.random());
    try std.testing.expect(Convolution.takes(call));
    call.x += 8;
    try std.testing.expect(!Convolution.takes(call));
    call.x -= 8;
    call.channels -= 4;
    try std.testing.expect(!Convolution.takes(call));
    // Past the wrapper's own check: an engine is asked for such a shape, and there is none.
    const plans = @import("../conv/plan.zig");
    const refused = plans.make(
        &convolution.options,
        convolution.handle,
        l.fixture.stream,
        .of(call),
        call,
    );
    try std.testing.expectError(error.Refused, refused);
    call.channels += 4;
    var plan = try plans.make(
        &convolution.options,
        convolution.handle,
        l.fixture.stream,
        .of(call),
        call,
    );
    defer plan.deinit(convolution.options.library);
    call.x += 8;
    _ = convolution.options.library.cudnnSetStream(convolution.handle, l.fixture.stream);
    const run = plan.run(&convolution.options, convolution.handle, call);
    try std.testing.expectError(error.Refused, run);
    const misaligned = @intFromEnum(cudnn.Status.bad_param_misaligned_pointer);
    try std.testing.expectEqual(misaligned, cudnn.Cudnn.lastRefused().code);
}
